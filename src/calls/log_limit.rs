//! A limit for log lines that clients can cause as often as they like.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Holds back log lines that clients can cause as often as they like: ten in a second are written.
pub(crate) struct LogLimit(Mutex<Option<(Instant, u32)>>);

const LINES_A_SECOND: u32 = 10;

impl LogLimit {
    pub(crate) const fn new() -> LogLimit {
        LogLimit(Mutex::new(None))
    }

    /// Whether another line may be logged, and how many were not since the last one.
    pub(crate) fn admits(&self) -> Option<u32> {
        let now = Instant::now();
        let mut window = self.0.lock();
        let (since, count) = window.get_or_insert((now, 0));
        let mut skipped = 0;
        if now.saturating_duration_since(*since) >= Duration::from_secs(1) {
            skipped = count.saturating_sub(LINES_A_SECOND);
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        (*count <= LINES_A_SECOND).then_some(skipped)
    }
}
