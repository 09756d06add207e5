//! The phases of a program's life, and the step from one to the next.
//!
//! Phases only ever move forward. A program may skip some of them (a stop during start-up goes
//! straight to [`Phase::Closing`]), but it never returns to one.

use std::fmt;

use crate::sync::atomic::{AtomicU8, Ordering};
use crate::sync::Instant;

/// Where a program stands in its life.
///
/// The order of the variants is the order in which they are walked, so phases can be compared:
///
/// ```
/// use touchdown::lifecycle::Phase;
///
/// assert!(Phase::Serving < Phase::Draining);
/// assert_eq!(Phase::LameDuck.to_string(), "lame duck");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Phase {
    /// Not ready yet: the start-up hooks run. A stop asked for here waits for those that run, and
    /// goes straight to [`Phase::Closing`], since nothing has been served. Ends when
    /// [`Lifecycle::ready`](super::Lifecycle::ready) is called and all hooks have done their work.
    Starting,
    /// Ready. Ends when a stop is asked for: a signal, a call to
    /// [`Lifecycle::shutdown`](super::Lifecycle::shutdown), or the last handle dropped.
    Serving,
    /// Still accepts and serves everything, but says "not ready" wherever it is asked, so that
    /// load balancers turn away before the door closes. Ends when its time is over.
    LameDuck,
    /// Takes in nothing new; what is in flight goes on. Ends when the last of it has left, or when
    /// the grace period is over.
    Draining,
    /// What is still in flight has been told to give up. Ends when it has left, or when the force
    /// period is over. Skipped if nothing is left in flight after Draining.
    Cancelling,
    /// Participants close and workers are joined, then the hooks run, then the start-up hooks are
    /// undone, each within its time limit.
    Closing,
    /// All is over; the [`Report`](super::Report) is known.
    Stopped,
}

impl Phase {
    /// All phases, in the order in which they are walked.
    pub(super) const ALL: [Phase; 7] = [
        Phase::Starting,
        Phase::Serving,
        Phase::LameDuck,
        Phase::Draining,
        Phase::Cancelling,
        Phase::Closing,
        Phase::Stopped,
    ];

    /// The phase in lower-case words, as logs and [`Display`](fmt::Display) show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Serving => "serving",
            Phase::LameDuck => "lame duck",
            Phase::Draining => "draining",
            Phase::Cancelling => "cancelling",
            Phase::Closing => "closing",
            Phase::Stopped => "stopped",
        }
    }

    /// The phase as one word, as the JSON of a report has it.
    pub(super) const fn as_word(self) -> &'static str {
        match self {
            Phase::LameDuck => "lame_duck",
            other => other.as_str(),
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A step from one phase to the next, as observers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transition {
    /// The phase that ended.
    pub from: Phase,
    /// The phase that began.
    pub to: Phase,
    /// When this happened.
    pub at: Instant,
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} → {}", self.from, self.to)
    }
}

/// The current phase, readable without a lock.
#[derive(Debug)]
pub(super) struct PhaseCell(AtomicU8);

impl PhaseCell {
    pub(super) fn new() -> Self {
        Self(AtomicU8::new(Phase::Starting as u8))
    }

    pub(super) fn get(&self) -> Phase {
        // Pairs with the Release in `set`: a thread that reads a phase also sees what was done before the
        // program entered it.
        Phase::ALL[usize::from(self.0.load(Ordering::Acquire))]
    }

    pub(super) fn set(&self, phase: Phase) {
        // Pairs with the Acquire in `get`.
        self.0.store(phase as u8, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_gives_back_every_phase_that_was_put_in() {
        let cell = PhaseCell::new();
        assert_eq!(cell.get(), Phase::Starting);
        for phase in Phase::ALL {
            cell.set(phase);
            assert_eq!(cell.get(), phase);
        }
    }

    #[test]
    fn phases_are_ordered_as_they_are_walked() {
        assert!(Phase::ALL.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
