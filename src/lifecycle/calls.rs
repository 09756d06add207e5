//! What became of calls: counts that participants give, and that a report has.

use std::ops::{Add, AddAssign};

/// What became of calls. Each call is counted once it is over, or once it is given up.
///
/// ```
/// use touchdown::lifecycle::Calls;
///
/// let mut calls = Calls::new();
/// calls.completed = 3;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Calls {
    /// Ended as their handlers said, in time.
    pub completed: u64,
    /// Turned away before they ran.
    pub refused: u64,
    /// Their callers did not wait for the end.
    pub caller_left: u64,
    /// Ended, but their connection was cut before the answer had reached the peer: its kernel had not
    /// acknowledged it, or it had not gone out at all, because the peer took nothing.
    pub undelivered: u64,
    /// Ended by the server over their handlers' heads: in a drain before the grace period was over, because that is the
    /// policy for their kind; or while it served, because the grace of their connection was over.
    pub cut: u64,
    /// Told to give up when the grace period was over, and left.
    pub told_to_stop: u64,
    /// Still running when the force period was over.
    pub abandoned: u64,
}

impl Calls {
    /// No calls so far.
    pub const fn new() -> Self {
        Self {
            completed: 0,
            refused: 0,
            caller_left: 0,
            undelivered: 0,
            cut: 0,
            told_to_stop: 0,
            abandoned: 0,
        }
    }
}

impl Add for Calls {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            completed: self.completed.saturating_add(other.completed),
            refused: self.refused.saturating_add(other.refused),
            caller_left: self.caller_left.saturating_add(other.caller_left),
            undelivered: self.undelivered.saturating_add(other.undelivered),
            cut: self.cut.saturating_add(other.cut),
            told_to_stop: self.told_to_stop.saturating_add(other.told_to_stop),
            abandoned: self.abandoned.saturating_add(other.abandoned),
        }
    }
}

impl AddAssign for Calls {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}
