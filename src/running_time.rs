//! Time that counts only while the process runs.
//!
//! A process may stand still for seconds: stopped by a signal, frozen with its container, moved to another machine, or
//! without its turn on one that is overloaded. The system's clock goes on meanwhile. A thread that asks that clock alone whether a
//! time limit is over gives up on work that had no time at all.
//!
//! So a thread that keeps a limit for others waits for a short time only, again and again, and counts those
//! short times: a wait that took much longer than it was meant to counts as what it was meant to be.

use std::time::Duration;

use crate::sync::{BareMutex, Instant};

/// The longest time to wait at once in this way: four looks a second cost a small machine nothing that could be
/// measured.
pub(crate) const SLICE: Duration = Duration::from_millis(250);

/// How much later than it was meant to a wait may end and be taken for one that was merely late. What is scheduled
/// late on a machine with too much to do is hardly ever later than this; a pause that anybody notices is.
pub(crate) const LATE: Duration = Duration::from_millis(150);

/// Counts time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunningTime {
    looked: Instant,
    counted: Duration,
}

impl RunningTime {
    pub(crate) fn begin(now: Instant) -> Self {
        Self {
            looked: now,
            counted: Duration::ZERO,
        }
    }

    /// To be called when a wait is over that was to take no longer than `meant`. Returns how much time counts by now.
    pub(crate) fn pass(&mut self, now: Instant, meant: Duration) -> Duration {
        let took = now.saturating_duration_since(self.looked);
        self.looked = now;
        let counts = match took > meant.saturating_add(LATE) {
            // Something counts of the shortest wait, too, so that no limit is without end where each is late.
            true => meant.max(LATE),
            false => took,
        };
        self.counted = self.counted.saturating_add(counts);
        self.counted
    }
}

/// A clock that several threads share. It begins once, and then goes slower than the system's by the time in which the
/// process stands still.
///
/// A thread that keeps a limit waits for a [slice](Self::slice) only, and then reads this clock again. It has to be read
/// at least once in a [`SLICE`] as long as the process runs. A reading that comes much later than that says that the
/// process stood still, and the thread that wakes first takes the pause out, for all. Reading it takes no memory.
#[derive(Default)]
pub(crate) struct RunningClock(BareMutex<Option<Begun>>);

struct Begun {
    at: Instant,
    time: RunningTime,
}

impl RunningClock {
    /// Begins, unless it has begun.
    pub(crate) fn begin(&self) {
        let mut begun = self.0.lock();
        let at = Instant::now();
        begun.get_or_insert_with(|| Begun {
            at,
            time: RunningTime::begin(at),
        });
    }

    /// How much time counts since it began; `None` if it has not.
    pub(crate) fn passed(&self) -> Option<Duration> {
        Some(self.look(self.0.lock().as_mut()?).1)
    }

    /// The same, and zero if it has not begun.
    pub(crate) fn read(&self) -> Duration {
        self.passed().unwrap_or_default()
    }

    /// The present by this clock; by the system's, as long as it has not begun.
    #[cfg(feature = "server")]
    pub(crate) fn now(&self) -> Instant {
        let mut begun = self.0.lock();
        begun.as_mut().map_or_else(Instant::now, |begun| {
            let (at, passed) = self.look(begun);
            at + passed
        })
    }

    /// How long to wait at once, by a thread that waits until this clock says `end`: zero if it does. `None` to wait
    /// for ever.
    pub(crate) fn slice(&self, end: Option<Duration>) -> Option<Duration> {
        end.map(|end| end.saturating_sub(self.read()).min(SLICE))
    }

    /// The lock is held as the time is asked for, so that no reading is older than the one before it.
    fn look(&self, begun: &mut Begun) -> (Instant, Duration) {
        (begun.at, begun.time.pass(Instant::now(), SLICE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_counts_as_what_it_took_or_was_meant_to_take_if_the_process_stood_still() {
        let begin = Instant::now();
        let mut time = RunningTime::begin(begin);
        let at = |millis| begin + Duration::from_millis(millis);
        let counted = [
            time.pass(at(100), SLICE),
            time.pass(at(350), SLICE),
            // Late, as on a busy machine.
            time.pass(at(700), SLICE),
            // Stopped for ten seconds.
            time.pass(at(10_900), SLICE),
            // A clock that went back counts for nothing.
            time.pass(at(10_800), SLICE),
            time.pass(at(10_900), SLICE),
        ];
        let expected = [100, 350, 700, 950, 950, 1_050].map(Duration::from_millis);
        assert_eq!(counted, expected);
    }
}
