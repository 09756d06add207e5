//! The clock of a stop: it begins with the stop, and counts only while the process runs.
//!
//! Whoever keeps a limit of the stop waits for a [slice](Clock::slice) only, and then reads this clock
//! again. All share it, so it is read at least once in a slice as long as the process runs: the guard
//! thread sees to that. A reading that comes much later than that says that the process stood still, and whoever
//! wakes first takes the pause out, for all.

use std::time::Duration;

use crate::running_time::{RunningTime, SLICE};
use crate::sync::{Instant, Mutex};

#[derive(Default)]
pub(super) struct Clock(Mutex<Option<RunningTime>>);

impl Clock {
    /// The stop begins. To be called once.
    pub(super) fn begin(&self) {
        let mut time = self.0.lock();
        *time = Some(RunningTime::begin(Instant::now()));
    }

    /// How much time counts since the stop began. Zero if it has not.
    pub(super) fn read(&self) -> Duration {
        let mut time = self.0.lock();
        // The lock is held as the time is asked for, so that no reading is older than the one before it.
        time.as_mut()
            .map_or(Duration::ZERO, |time| time.pass(Instant::now(), SLICE))
    }

    /// How long to wait at once for who waits until this clock says `end`: zero if it does. `None` for who waits for
    /// ever.
    pub(super) fn slice(&self, end: Option<Duration>) -> Option<Duration> {
        end.map(|end| end.saturating_sub(self.read()).min(SLICE))
    }
}
