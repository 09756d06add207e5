//! Decides which calls are logged. It runs on the threads that poll, so that it does no more than it must.

use std::sync::Arc;
use std::time::Duration;

use log::Level;
use touchdown::{Call, CallEnd, CallKind, CallObserver, CallOutcome, CallRefusal};

use super::bit;
use super::entry::Entry;
use super::queue::Queue;
use super::sample::Sampler;

pub(super) struct Observer {
    pub(super) slow: Duration,
    /// A bit for the number of each code that is an error.
    pub(super) errors: u32,
    pub(super) has_health_checks: bool,
    /// The lines go to the program's logger.
    pub(super) is_for_log: bool,
    pub(super) sampler: Arc<Sampler>,
    pub(super) queue: Arc<Queue>,
}

impl Observer {
    fn is_left_out(&self, kind: CallKind) -> bool {
        kind == CallKind::Health && !self.has_health_checks
    }

    #[cold]
    fn push(&self, is_failure: bool, make: impl FnOnce() -> Entry) {
        let level = level(is_failure);
        // What the program's logger is sure not to take needs not be made. It is asked for the rest on the thread that writes.
        if !self.is_for_log || level <= log::max_level() {
            self.queue.push(make);
        }
    }
}

/// The level of a line.
pub(super) fn level(is_failure: bool) -> Level {
    match is_failure {
        true => Level::Warn,
        false => Level::Info,
    }
}

impl CallObserver for Observer {
    fn ended(&self, call: &Call, end: &CallEnd) {
        if self.is_left_out(end.kind) {
            return;
        }
        let is_failure = end.outcome != CallOutcome::Completed || self.errors & bit(end.code) != 0;
        let is_slow = end.waited.saturating_add(end.ran) >= self.slow;
        let one_in = match is_failure || is_slow {
            true => Some(0),
            false => self.sampler.count(call.method_number()),
        };
        if let Some(one_in) = one_in {
            self.push(is_failure, || Entry::ended(call, end, is_failure, one_in));
        }
    }

    fn refused(&self, call: &Call, refusal: &CallRefusal) {
        if !self.is_left_out(refusal.kind) {
            self.push(true, || Entry::refused(call, refusal));
        }
    }
}
