//! How far a server is with its end, as every thread may ask.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::OnceLock;
use std::time::Instant;

use super::drain::Times;
use crate::running_time::RunningClock;

#[derive(Default)]
pub(super) struct Stopping {
    /// A drain, or the stop, was asked for: the thread that lands the last call, or ends
    /// a connection, has to wake the housekeeper.
    leaving: AtomicBool,
    /// What is in flight has been told to stop, and what arrives from now on is refused.
    told: AtomicBool,
    stopping: AtomicBool,
    /// Set before `leaving`, for a drain.
    times: OnceLock<Times>,
    /// Since the drain began. The thread that accepts reads it once in a [`SLICE`](crate::running_time::SLICE) at the
    /// least.
    clock: RunningClock,
}

impl Stopping {
    /// A drain begins, with these times. [`leave`](Self::leave) follows.
    pub(super) fn begin_drain(&self, times: Times) {
        let _ = self.times.set(times);
        self.clock.begin();
    }

    /// The times of the drain.
    pub(super) fn times(&self) -> Times {
        self.times.get().copied().unwrap_or_default()
    }

    /// The present, by a clock that goes slower by the time in which the process has stood still since the drain
    /// began. The limits of methods are of this clock.
    pub(super) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// The server leaves, in a drain or at once.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    /// Every call is told to stop.
    pub(super) fn tell(&self) {
        self.told.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_told(&self) -> bool {
        self.told.load(Ordering::SeqCst)
    }

    /// The server stops now, whatever runs.
    pub(super) fn stop(&self) {
        self.leave();
        self.stopping.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}
