//! The time that workers have spent.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How many bits of the state are the number of handlers that run; the others are times.
const COUNT: u32 = 16;

/// How many handlers run, and the sum of the times at which handlers have ended, less the sum of those at which they have
/// begun, in µs. With both it is known at each moment for how long all have run: one that runs still has yet to
/// end, and ends now for this sum.
///
/// They are one number, so that nobody sees one without the other. Times wrap around, which differences do not mind.
#[derive(Debug, Default)]
pub(super) struct Work(AtomicU64);

impl Work {
    pub(super) fn begin(&self, now: u64) {
        self.0.fetch_add(1_u64.wrapping_sub(now << COUNT), Relaxed);
    }

    pub(super) fn end(&self, now: u64) {
        self.0.fetch_add((now << COUNT).wrapping_sub(1), Relaxed);
    }

    /// How many run, and for how long all have run.
    pub(super) fn read(&self, now: u64) -> (usize, Time) {
        let state = self.0.load(Relaxed);
        let running = state & ((1 << COUNT) - 1);
        let ended = state >> COUNT;
        let time = running.wrapping_mul(now).wrapping_add(ended);
        (running as usize, Time(time))
    }
}

/// A sum of times that wraps around.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Time(u64);

impl Time {
    /// The µs from another one until this. None if it seems to be before that, as it may be by a little: others have read
    /// the clock later than who reads the state.
    pub(super) fn since(self, before: Time) -> u64 {
        let difference = self.0.wrapping_sub(before.0) << COUNT;
        u64::try_from(difference as i64 >> COUNT).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn a_handler_that_runs_is_counted_until_it_ends() {
        let work = Work::default();
        let zero = work.read(0).1;
        work.begin(SECOND);
        let (running, time) = work.read(3 * SECOND);
        assert_eq!((running, time.since(zero)), (1, 2 * SECOND));
        work.end(4 * SECOND);
        let (running, time) = work.read(9 * SECOND);
        assert_eq!((running, time.since(zero)), (0, 3 * SECOND));
    }

    #[test]
    fn what_seems_to_go_back_is_nothing() {
        let work = Work::default();
        let before = work.read(SECOND).1;
        work.begin(SECOND + 3);
        assert_eq!(work.read(SECOND).1.since(before), 0);
        assert_eq!(work.read(SECOND + 5).1.since(before), 2);
    }

    proptest! {
        /// However many there are, and for however many years the process has run.
        #[test]
        fn the_time_of_all_is_their_sum(
            from in 0..(1_u64 << 50),
            calls in vec((0..SECOND, 0..SECOND), 0..50),
            left in 0..50_usize,
        ) {
            let work = Work::default();
            let before = work.read(from).1;
            let end = from + 2 * SECOND;
            let mut sum = 0;
            for (i, (begin, length)) in calls.iter().enumerate() {
                work.begin(from + begin);
                if i < left {
                    sum += 2 * SECOND - begin;
                } else {
                    work.end(from + begin + length);
                    sum += length;
                }
            }
            let (running, time) = work.read(end);
            prop_assert_eq!(running, left.min(calls.len()));
            prop_assert_eq!(time.since(before), sum);
        }
    }
}
