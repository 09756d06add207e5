//! What the guard thread looks after beside the deadline: that the program goes on where it is waited for.
//!
//! The guard takes these locks, so nothing is done under them but to look and to exchange; see [`Sentry`](super::sentry).

use std::time::Duration;

use crate::sync::{BareMutex, Instant};

/// How long code of the program may hold up the walk before the log names it: longer than anything takes that does not
/// block.
const BLOCKED: Duration = Duration::from_secs(1);

/// How long a program may serve without being ready before the log says so; and when to look again whether it serves.
const UNREADY: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Watch {
    /// The program's code that the walking thread runs.
    at: BareMutex<Option<At>>,
    /// Since when there is somebody who may serve, as long as nobody has said that the program is ready.
    unready: BareMutex<Option<Instant>>,
}

struct At {
    what: String,
    since: Instant,
    is_named: bool,
}

/// What is due.
#[derive(Default)]
pub(super) struct Due {
    pub(super) blocked: bool,
    pub(super) unready: bool,
    /// When to look again.
    pub(super) again: Option<Duration>,
}

impl Watch {
    /// Runs code of the program on the walking thread. No panic may leave it.
    pub(super) fn run<T>(&self, what: String, run: impl FnOnce() -> T) -> T {
        let at = At {
            what,
            since: Instant::now(),
            is_named: false,
        };
        let before = self.at.lock().replace(at);
        drop(before);
        let result = run();
        let over = self.at.lock().take();
        drop(over);
        result
    }

    /// What the walking thread runs, and for how long.
    pub(super) fn blocked(&self) -> Option<(String, Duration)> {
        loop {
            let room = self.at.lock().as_ref()?.what.len();
            let mut what = String::with_capacity(room);
            let at = self.at.lock();
            let it = at.as_ref()?;
            // Another one may have come that has a longer name.
            if it.what.len() <= room {
                what.push_str(&it.what);
                return Some((what, Instant::now().saturating_duration_since(it.since)));
            }
        }
    }

    /// Somebody is there who may serve.
    pub(super) fn may_serve(&self, now: Instant) {
        *self.unready.lock() = Some(now);
    }

    /// The program is ready, or about to be. Says whether that was looked for.
    pub(super) fn is_ready(&self) -> bool {
        self.unready.lock().take().is_some()
    }

    /// It may still serve without being ready. Does nothing if somebody has come since who may.
    pub(super) fn look_again_for_ready(&self, now: Instant) {
        self.unready.lock().get_or_insert(now);
    }

    /// What is due by now. Each is told once.
    pub(super) fn due(&self, now: Instant) -> Due {
        let mut due = Due::default();
        if let Some(at) = self.at.lock().as_mut().filter(|it| !it.is_named) {
            at.is_named = due.is_over(at.since, BLOCKED, now);
            due.blocked = at.is_named;
        }
        let mut unready = self.unready.lock();
        if let Some(since) = *unready {
            due.unready = due.is_over(since, UNREADY, now);
            if due.unready {
                *unready = None;
            }
        }
        due
    }
}

impl Due {
    fn is_over(&mut self, since: Instant, time: Duration, now: Instant) -> bool {
        let left = time.saturating_sub(now.saturating_duration_since(since));
        if !left.is_zero() {
            self.again = Some(self.again.map_or(left, |it| it.min(left)));
        }
        left.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_return_is_named_once() {
        let watch = Watch::default();
        watch.run("observer".to_owned(), || {
            let now = Instant::now();
            let early = watch.due(now);
            assert!(!early.blocked && early.again.is_some_and(|it| it <= BLOCKED));
            let late = watch.due(now + BLOCKED);
            assert!(late.blocked && late.again.is_none());
            assert!(!watch.due(now + 2 * BLOCKED).blocked);
            assert_eq!(watch.blocked().unwrap().0, "observer");
        });
        assert!(watch.blocked().is_none());
        assert!(!watch.due(Instant::now() + 9 * BLOCKED).blocked);
    }

    #[test]
    fn a_program_that_is_not_ready_is_looked_at_until_it_is() {
        let watch = Watch::default();
        let now = Instant::now();
        watch.may_serve(now);
        assert_eq!(watch.due(now).again, Some(UNREADY));
        assert!(watch.due(now + UNREADY).unready);
        assert!(!watch.due(now + 2 * UNREADY).unready);
        watch.look_again_for_ready(now + 2 * UNREADY);
        assert!(watch.due(now + 3 * UNREADY).unready);
        watch.look_again_for_ready(now);
        assert!(watch.is_ready() && !watch.is_ready());
        assert!(!watch.due(now + 9 * UNREADY).unready);
    }
}
