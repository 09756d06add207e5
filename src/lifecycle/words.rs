//! What the log says of the life of the program: each line once, with its keys, and with the name of the lifecycle
//! before it.

use std::time::Duration;

use log::Level;

use super::phase::Transition;
use super::report::{Reason, Report};
use super::state::Shared;
use crate::logging;
use crate::sync::Instant;
use crate::text::one_line;

/// How long a stack is looked for. A thread that runs answers within some milliseconds.
const STACK_TIME: Duration = Duration::from_millis(100);

impl Shared {
    /// A line for the log, with the name of the lifecycle before it.
    pub(super) fn titled(&self, text: &str) -> String {
        match &self.name {
            Some(name) => one_line(&format!("{name}: {text}")),
            None => one_line(text),
        }
    }

    pub(super) fn log_transition(&self, transition: &Transition) {
        let (from, to) = (transition.from.as_word(), transition.to.as_word());
        let line = self.titled(&transition.to_string());
        logging::info!(from = from, phase = to; "{line}");
    }

    /// Says why the stop begins: as an error, if something has failed.
    pub(super) fn log_reason(&self, reason: &Reason) {
        let level = match reason.is_failure() {
            true => Level::Error,
            false => Level::Info,
        };
        let line = self.titled(&format!("stopping: {reason}"));
        let phase = self.phase.get().as_word();
        logging::line!(level, reason = reason.as_word(), phase = phase; "{line}");
    }

    /// Says how the stop went: as a warning, if the program exits with another code than 0.
    pub(super) fn log_end(&self, report: &Report) {
        let exit_code = report.exit_code();
        let level = match exit_code {
            0 => Level::Info,
            _ => Level::Warn,
        };
        let line = self.titled(&report.line(false));
        let reason = report.reason.as_word();
        logging::line!(level, exit_code = exit_code, reason = reason, took_ms = report.took; "{line}");
    }

    /// Says that code of the program holds up the thread that walks the phases, and where it is.
    pub(super) fn log_blocked(&self) {
        let Some((what, time)) = self.watch.blocked() else {
            return;
        };
        let phase = self.phase.get();
        let line = format!("{what} has not returned for {time:.1?}; {phase} goes on when it does");
        let line = self.titled(&line);
        logging::warn!(phase = phase.as_word(), blocked_ms = time; "{line}");
        if let Some(walker) = self.walker.get() {
            self.log_stack(*walker);
        }
    }

    pub(super) fn log_stack(&self, thread: u32) {
        for line in self.stack_of(thread, Instant::now() + STACK_TIME) {
            logging::warn!("{}", self.titled(&format!("  {line}")));
        }
    }

    /// Says that the program serves and is not ready, or looks again later whether it does.
    pub(super) fn log_unready(&self) {
        let is_served = self.in_flight() > 0 || self.calls() != Default::default();
        if !is_served {
            self.watch.look_again_for_ready(Instant::now());
            self.bell.ring();
            return;
        }
        let line = "serves, and is not ready: until Lifecycle::ready is called (Lifecycle::run calls it), whoever asks for \
                    its health is told that it is not";
        logging::warn!(phase = self.phase.get().as_word(); "{}", self.titled(line));
    }
}
