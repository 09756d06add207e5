//! What became of spans, for metrics and for whoever asks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// How many spans were sent, and how many were not. Clones count the same.
///
/// A program has it from [`Traces::counts`](super::Traces::counts). Another companion finds it at the lifecycle:
///
/// ```
/// use touchdown::lifecycle::Lifecycle;
/// use touchdown_observe::otel::SpanCounts;
///
/// fn dropped(lifecycle: &Lifecycle) -> u64 {
///     lifecycle.attached::<SpanCounts>().map_or(0, |it| it.dropped())
/// }
/// # let _ = dropped;
/// ```
#[derive(Clone, Debug, Default)]
pub struct SpanCounts {
    counts: Arc<Counts>,
}

/// Each is a number of its own.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    dropped: AtomicU64,
    capped: AtomicU64,
}

impl SpanCounts {
    /// How many spans the collector has taken.
    pub fn sent(&self) -> u64 {
        self.counts.sent.load(Ordering::Relaxed)
    }

    /// How many spans were recorded, and are lost: the queue was full, the collector could not be reached in time, or
    /// it has refused them.
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }

    /// How many calls were chosen, and not recorded, because there were [too many of them](super::Traces::cap).
    pub fn capped(&self) -> u64 {
        self.counts.capped.load(Ordering::Relaxed)
    }

    pub(super) fn add_sent(&self, spans: u64) {
        self.counts.sent.fetch_add(spans, Ordering::Relaxed);
    }

    pub(super) fn add_dropped(&self, spans: u64) {
        self.counts.dropped.fetch_add(spans, Ordering::Relaxed);
    }

    pub(super) fn add_capped(&self) {
        self.counts.capped.fetch_add(1, Ordering::Relaxed);
    }
}
