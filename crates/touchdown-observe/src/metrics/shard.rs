//! Counts of one thread: only that thread writes them, so it needs no lock and no bus lock; who reads adds all threads up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;
use std::time::Duration;

use super::names::{CODES, REFUSALS};

/// The bounds of the histograms, in nanoseconds: those of Prometheus' clients, and three below for calls that take less than
/// 5 ms, and one above for streams.
pub(crate) const BOUNDS: [u64; 15] = [
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
];

/// The number of buckets, that without a bound included.
pub(super) const BUCKETS: usize = BOUNDS.len() + 1;

/// A counter.
#[derive(Default)]
pub(super) struct Cell(AtomicU64);

impl Cell {
    #[inline]
    fn add(&self, count: u64, is_shared: bool) {
        if is_shared {
            self.0.fetch_add(count, Ordering::Relaxed);
        } else {
            let now = self.0.load(Ordering::Relaxed);
            // Release: who sees that a call has ended sees that it was started, too.
            self.0.store(now.wrapping_add(count), Ordering::Release);
        }
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// How long something took.
#[derive(Default)]
pub(super) struct Times {
    buckets: [Cell; BUCKETS],
    nanos: Cell,
}

impl Times {
    #[inline]
    fn add(&self, time: Duration, is_shared: bool) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().take_while(|it| **it < nanos).count();
        self.buckets[bucket].add(1, is_shared);
        self.nanos.add(nanos, is_shared);
    }

    pub(super) fn add_to(&self, sum: &mut TimesSum) {
        for (sum, bucket) in sum.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.get();
        }
        sum.nanos = sum.nanos.wrapping_add(self.nanos.get());
    }
}

/// What several threads have, together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TimesSum {
    pub(crate) buckets: [u64; BUCKETS],
    pub(crate) nanos: u64,
}

/// Of one method.
#[derive(Default)]
pub(super) struct Row {
    pub(super) started: Cell,
    pub(super) handled: [Cell; CODES],
    pub(super) received: Cell,
    pub(super) sent: Cell,
    pub(super) received_bytes: Cell,
    pub(super) sent_bytes: Cell,
    pub(super) cut: Cell,
    pub(super) times: Times,
}

/// Of all methods.
#[derive(Default)]
pub(super) struct Common {
    pub(super) waited: Times,
    pub(super) refused: [Cell; REFUSALS.len()],
    pub(super) abandoned: Cell,
    pub(super) caller_left: Cell,
    pub(super) undelivered: Cell,
}

/// The counts of one thread, or, if it is shared, of all threads that have none of their own any more.
#[repr(align(64))]
pub(super) struct Shard {
    is_shared: bool,
    /// By the method's number; made at the first call. The last is that of unknown methods.
    rows: Box<[OnceLock<Box<Row>>]>,
    pub(super) common: Common,
}

impl Shard {
    pub(super) fn new(methods: usize, is_shared: bool) -> Shard {
        Shard {
            is_shared,
            rows: (0..=methods).map(|_| OnceLock::new()).collect(),
            common: Common::default(),
        }
    }

    /// For who counts. A number that is not known is an unknown method's.
    #[inline]
    pub(super) fn row(&self, method: Option<usize>) -> &Row {
        let last = self.rows.len() - 1;
        let row = &self.rows[method.map_or(last, |it| it.min(last))];
        row.get_or_init(Box::default)
    }

    /// For who reads; `None` if there was no call.
    pub(super) fn seen(&self, index: usize) -> Option<&Row> {
        self.rows.get(index)?.get().map(|it| &**it)
    }

    #[inline]
    pub(super) fn add(&self, cell: &Cell, count: u64) {
        cell.add(count, self.is_shared);
    }

    #[inline]
    pub(super) fn add_time(&self, times: &Times, time: Duration) {
        times.add(time, self.is_shared);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        let (times, mut sum) = (Times::default(), TimesSum::default());
        for nanos in [0, 500_000, 500_001, 30_000_000_000, 30_000_000_001] {
            times.add(Duration::from_nanos(nanos), false);
        }
        times.add_to(&mut sum);
        assert_eq!((sum.buckets[0], sum.buckets[1]), (2, 1));
        assert_eq!((sum.buckets[BUCKETS - 2], sum.buckets[BUCKETS - 1]), (1, 1));
        assert_eq!(sum.nanos, 60_001_000_002);
    }
}
