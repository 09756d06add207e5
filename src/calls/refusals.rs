//! Refused calls in the log.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::logging;

/// Keeps an overload from flooding the log.
#[derive(Default)]
pub(super) struct Refusals(Mutex<RefusalCount>);

#[derive(Default)]
struct RefusalCount {
    last_logged: Option<Instant>,
    since: u64,
}

impl Refusals {
    /// Logs, once a second at the most, that calls are refused.
    pub(super) fn log(&self, path: &str, now: Instant) {
        let mut count = self.0.lock();
        count.since += 1;
        let last = count.last_logged;
        if last.is_none_or(|it| now.saturating_duration_since(it) >= Duration::from_secs(1)) {
            logging::warn!(
                "{} calls refused, the last to {path}: all workers are busy and the backlog is full",
                count.since
            );
            *count = RefusalCount {
                last_logged: Some(now),
                since: 0,
            };
        }
    }
}
