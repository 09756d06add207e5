//! Checks: does the program still work?
//!
//! The lifecycle asks its guard thread, and each participant by
//! [`Participant::check`](super::Participant::check). A watchdog, a probe of an orchestrator or a drill asks so whether the
//! process only exists or does its work.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::running_time::{RunningTime, SLICE};
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use crate::sync::{bounded, Arc, Instant, Receiver, Sender};

/// How the guard thread is called in a [`CheckError`].
pub(super) const GUARD: &str = "the guard thread";

/// A question to a [`Participant`](super::Participant): whether it still works.
///
/// One that is dropped without [`passed`](Self::passed) was not passed.
#[must_use = "a check that is dropped has not been passed"]
pub struct Check(Option<Part>);

/// One of those who are asked.
struct Part {
    place: usize,
    asked: Arc<Asked>,
}

// What one has answered.
const NOTHING: u8 = 0;
const PASSED: u8 = 1;
const NOT_PASSED: u8 = 2;

struct Asked {
    names: Vec<String>,
    answers: Vec<AtomicU8>,
    /// How many have not passed.
    left: AtomicUsize,
    /// Whether the outcome was said.
    is_said: AtomicBool,
    outcome: Sender<bool>,
}

impl Check {
    /// It works.
    pub fn passed(mut self) {
        if let Some(part) = self.0.take() {
            part.answer(true);
        }
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        if let Some(part) = self.0.take() {
            part.answer(false);
        }
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Check")
    }
}

impl Part {
    /// Blocks on nothing, and takes no memory: the thread `td-errands` comes here for the guard.
    fn answer(self, passed: bool) {
        let asked = &self.asked;
        let answer = if passed { PASSED } else { NOT_PASSED };
        // Release, with the Acquire in `Checking::named`.
        asked.answers[self.place].store(answer, Ordering::Release);
        if passed {
            // AcqRel: the last one sees what the others have done.
            if asked.left.fetch_sub(1, Ordering::AcqRel) > 1 {
                return;
            }
        }
        // Relaxed: it decides who sends, and the channel does the rest.
        if !asked.is_said.swap(true, Ordering::Relaxed) {
            // There is room for it.
            let _ = asked.outcome.send(passed);
        }
    }
}

/// A check that was begun by [`Remote::begin_check`](super::Remote::begin_check).
pub struct Checking {
    asked: Arc<Asked>,
    outcome: Receiver<bool>,
}

impl Checking {
    /// A question to those with these names, and the part of each in it.
    pub(super) fn new(names: Vec<String>) -> (Checking, Vec<Check>) {
        let (sender, outcome) = bounded(1);
        let asked = Arc::new(Asked {
            answers: names.iter().map(|_| AtomicU8::new(NOTHING)).collect(),
            left: AtomicUsize::new(names.len()),
            is_said: AtomicBool::new(false),
            outcome: sender,
            names,
        });
        let part = |place| {
            let asked = Arc::clone(&asked);
            Check(Some(Part { place, asked }))
        };
        let parts = (0..asked.names.len()).map(part).collect();
        (Checking { asked, outcome }, parts)
    }

    /// A channel on which the outcome arrives, once: true when all have passed; false as soon as one has let go of its
    /// [`Check`] without that. Nothing arrives as long as one has not answered.
    pub fn outcome(&self) -> &Receiver<bool> {
        &self.outcome
    }

    /// The names of those who have not passed so far.
    pub fn missing(&self) -> Vec<String> {
        self.named(|answer| answer != PASSED)
    }

    fn named(&self, is_meant: impl Fn(u8) -> bool) -> Vec<String> {
        let all = self.asked.names.iter().zip(&self.asked.answers);
        // Pairs with the Release in `Part::answer`.
        let meant = all.filter(|(_, answer)| is_meant(answer.load(Ordering::Acquire)));
        meant.map(|(name, _)| name.clone()).collect()
    }

    /// Waits until all have passed.
    ///
    /// # Errors
    ///
    /// [`CheckError`] as soon as one has not passed, or when `limit` is over. Only time counts in which the process
    /// runs.
    pub fn wait(&self, limit: Duration) -> Result<(), CheckError> {
        let mut time = RunningTime::begin(Instant::now());
        let mut passed = Duration::ZERO;
        loop {
            let left = limit.saturating_sub(passed);
            match self.outcome.recv_timeout(left.min(SLICE)) {
                Ok(true) => return Ok(()),
                Err(_) if !left.is_zero() => passed = time.pass(Instant::now(), SLICE),
                // The others still had time.
                Ok(false) => {
                    let missing = self.named(|answer| answer == NOT_PASSED);
                    return Err(CheckError { missing, limit });
                }
                Err(_) => {
                    let missing = self.missing();
                    return Err(CheckError { missing, limit });
                }
            }
        }
    }
}

impl fmt::Debug for Checking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checking")
            .field("missing", &self.missing())
            .finish_non_exhaustive()
    }
}

/// A check was not passed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckError {
    /// Those who have not passed: participants, by their names, and perhaps `the guard thread`. Who still had time when
    /// another one gave up is not among them.
    pub missing: Vec<String>,
    /// How long they had for it.
    pub limit: Duration,
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = self.missing.join(", ");
        write!(
            f,
            "does not work, or not within {:?}: {missing}",
            self.limit
        )
    }
}

impl Error for CheckError {}
