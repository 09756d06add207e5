//! The seat of a worker: what the lifecycle knows of it while it runs, and how it has ended.

use std::fmt::{self, Display, Write as _};
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use super::hook;
use super::in_flight::{InFlight, OwnedGuard};
use super::shutdown::Canceller;
use super::worker::Worker;
use crate::sync::{thread, Mutex, OnceLock};
use crate::thrown::message_of;

/// What the lifecycle knows of a worker. It keeps the seats of those that run, and from the beginning of
/// the stop on, when no new ones come, also of those that end.
pub(super) struct Seat {
    /// `worker GROUP/NAME`.
    pub(super) name: String,
    pub(super) until_closing: bool,
    pub(super) time_limit: Duration,
    pub(super) token: Canceller,
    /// Its thread, as the kernel numbers it.
    pub(super) at: OnceLock<u32>,
    state: Mutex<State>,
    /// Cancelled once it is known in `state` how the worker ended.
    over: Canceller,
    /// None until it is started. Never taken by the worker itself.
    pub(super) thread: Mutex<Option<thread::JoinHandle<()>>>,
}

/// Held for moments only.
#[derive(Default)]
struct State {
    ended: Option<Result<(), Failure>>,
    restarts: u32,
    /// Whether it waits to be started again.
    waits: bool,
    last_failure: Option<String>,
    /// What the drain waits for.
    in_flight: Option<OwnedGuard>,
}

impl Seat {
    /// `token` tells the worker to stop.
    pub(super) fn new(group: &str, worker: &Worker, token: Canceller) -> Self {
        Self {
            name: format!("worker {group}/{}", worker.name),
            until_closing: worker.until_closing,
            time_limit: worker.time_limit,
            token,
            at: OnceLock::new(),
            state: Mutex::default(),
            over: Canceller::new(),
            thread: Mutex::new(None),
        }
    }

    /// Lets the drain wait for the worker, unless it has ended.
    pub(super) fn hold(&self, gate: &InFlight) {
        let mut state = self.state.lock();
        if state.ended.is_none() && !self.until_closing {
            // Only a program that has closed the gate by itself finds it closed.
            state.in_flight = gate.enter_owned().ok();
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state.lock().ended.is_some()
    }

    /// Whether the drain waits for it.
    pub(super) fn is_in_flight(&self) -> bool {
        self.state.lock().in_flight.is_some()
    }

    /// It has failed so, and waits to be started again.
    pub(super) fn failed(&self, failure: &Failure) {
        let failure = Some(failure.to_string());
        let mut state = self.state.lock();
        state.waits = true;
        let before = mem::replace(&mut state.last_failure, failure);
        drop(state);
        drop(before);
    }

    /// It is started again.
    pub(super) fn restarted(&self) {
        let mut state = self.state.lock();
        state.waits = false;
        state.restarts = state.restarts.saturating_add(1);
    }

    /// What it is at, in one line: `worker pump/poll: runs, told to stop; started again 3 times, last failed: no pump`.
    pub(super) fn describe(&self) -> String {
        let state = self.state.lock();
        let at = match (&state.ended, state.waits) {
            (Some(_), _) => "has ended",
            (None, true) => "waits to be started again",
            (None, false) => "runs",
        };
        let mut line = format!("{}: {at}", self.name);
        if self.token.is_cancelled() && state.ended.is_none() {
            line.push_str(", told to stop");
        }
        if state.restarts > 0 {
            let _ = write!(line, "; started again {} times", state.restarts);
        }
        if let Some(failure) = &state.last_failure {
            let between = if state.restarts > 0 { "," } else { ";" };
            let _ = write!(line, "{between} last {failure}");
        }
        line
    }

    /// The worker has ended so.
    pub(super) fn end(&self, ended: Result<(), Failure>) {
        let mut state = self.state.lock();
        state.ended = Some(ended);
        // With the lock held, so that what is counted has a name.
        state.in_flight = None;
    }

    /// It has ended, and the lifecycle knows.
    pub(super) fn is_over(&self) {
        self.over.cancel();
    }

    /// Waits for the end of the thread, and then ends as the worker did: the work of a hook.
    pub(super) fn join(&self) -> Result<(), hook::Failure> {
        self.over.wait();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
        let ended = self.state.lock().ended.clone();
        match ended {
            Some(Err(Failure::Panic(message))) => panic::resume_unwind(Box::new(message)),
            Some(Err(Failure::Error(error))) => Err(error.into()),
            Some(Ok(())) | None => Ok(()),
        }
    }
}

/// How a worker went wrong.
#[derive(Clone)]
pub(super) enum Failure {
    Error(String),
    Panic(String),
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => write!(f, "failed: {error}"),
            Self::Panic(message) => write!(f, "panicked: {message}"),
        }
    }
}

/// Runs code of the worker. No panic leaves this.
pub(super) fn attempt(run: impl FnOnce() -> Result<(), String>) -> Result<(), Failure> {
    match panic::catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(Failure::Error),
        Err(panic) => Err(Failure::Panic(message_of(panic))),
    }
}
