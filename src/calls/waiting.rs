//! When the log is told that calls wait for a worker.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// For how long a call may wait before it is worth a line; and how often to look, as long as calls wait.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often a line is said, at the most.
const LOG_PAUSE: Duration = Duration::from_secs(60);

/// Remembers that calls wait, and when that was told.
#[derive(Default)]
pub(super) struct Waiting {
    /// Whether somebody looks from time to time.
    is_watched: AtomicBool,
    times: Mutex<Times>,
}

#[derive(Default)]
struct Times {
    next_look: Option<Instant>,
    told: Option<Instant>,
}

impl Waiting {
    /// A call begins to wait. Says whether the thread that is to [look](Self::look) has to be woken for that.
    pub(super) fn begin(&self) -> bool {
        // It is in the backlog already, where the next look finds it.
        !self.is_watched.load(Ordering::SeqCst) && !self.is_watched.swap(true, Ordering::SeqCst)
    }

    /// When to look again, and what to say of the call that waits first, whose name and arrival `first` gives: its name,
    /// and for how long it waits. `None` if none waits.
    pub(super) fn look<T>(
        &self,
        now: Instant,
        first: impl Fn() -> Option<(T, Instant)>,
    ) -> Option<(Instant, Option<(T, Duration)>)> {
        if !self.is_watched.load(Ordering::SeqCst) {
            return None;
        }
        let mut times = self.times.lock();
        // Not at once: where calls wait for a moment and often, that would be as often.
        let next = *times.next_look.get_or_insert(now + PATIENCE);
        if next > now {
            return Some((next, None));
        }
        let mut found = first();
        if found.is_none() {
            self.is_watched.store(false, Ordering::SeqCst);
            // Pairs with `begin`: one that came meanwhile has found it watched, and is found here.
            found = first();
            if found.is_none() {
                times.next_look = None;
                return None;
            }
            self.is_watched.store(true, Ordering::SeqCst);
        }
        let next = now + PATIENCE;
        times.next_look = Some(next);
        let waited = found.map(|(name, arrived)| (name, now.saturating_duration_since(arrived)));
        let is_quiet = times.told.is_some_and(|it| now < it + LOG_PAUSE);
        let told = waited.filter(|(_, waited)| *waited >= PATIENCE && !is_quiet);
        if told.is_some() {
            times.told = Some(now);
        }
        Some((next, told))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_is_told_after_a_second_and_then_once_a_minute() {
        let (waiting, start) = (Waiting::default(), Instant::now());
        assert!(waiting.look(start, || Some(("nobody", start))).is_none());
        assert!(waiting.begin());
        assert!(!waiting.begin(), "it is watched");
        let mut told = Vec::new();
        for second in 0..=125 {
            let now = start + second * SECOND;
            let first = || Some(("first", start));
            let (again, words) = waiting.look(now, first).unwrap();
            assert_eq!(again, now + SECOND);
            told.extend(words);
            // Woken for something else: nothing is looked for.
            let early = waiting.look(now + SECOND / 2, || unreachable!());
            assert_eq!(early, Some((again, None::<(&str, Duration)>)));
        }
        let expected = [1, 61, 121].map(|it| ("first", it * SECOND));
        assert_eq!(told, expected);
    }

    #[test]
    fn it_ends_when_nobody_waits_and_begins_anew() {
        let (waiting, start) = (Waiting::default(), Instant::now());
        waiting.begin();
        assert_eq!(
            waiting.look(start, || unreachable!()),
            Some((start + SECOND, None::<((), Duration)>))
        );
        let now = start + SECOND;
        assert_eq!(waiting.look(now, || None::<((), Instant)>), None);
        assert!(waiting.begin(), "it has to be woken again");
        waiting.look(now, || None::<((), Instant)>);
        let short = waiting.look(now + SECOND, || Some(((), now + SECOND / 2)));
        assert_eq!(short, Some((now + 2 * SECOND, None)));
    }
}
