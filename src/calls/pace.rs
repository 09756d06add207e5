//! What is learned of a method's handlers: whether they are short.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A handler that takes no longer than this is short: so long may other calls
/// wait for their turn without anybody's noticing.
const SHORT: Duration = Duration::from_micros(250);

/// What a call that was not short counts, in short calls. On a busy machine a short handler takes long now and then, since
/// something else has the processor; to answer that with more threads makes it busier.
const LONG: u32 = 6;

/// From so many on a method is taken for long: from the second long call on that is not followed by enough short ones.
const IS_LONG: u32 = 8;

/// No more than so many have to be seen, whatever there was.
const MOST: u32 = 16;

/// How many short calls have to be seen until all long ones are forgotten. It is a guess to act on, so a lost update does not
/// matter and nothing pairs with it.
#[derive(Debug)]
pub(super) struct Pace(AtomicU32);

impl Default for Pace {
    /// Unknown methods are taken for long.
    fn default() -> Pace {
        Pace(AtomicU32::new(MOST))
    }
}

impl Pace {
    pub(super) fn is_short(&self) -> bool {
        self.0.load(Ordering::Relaxed) < IS_LONG
    }

    pub(super) fn learn(&self, took: Duration) {
        let left = self.0.load(Ordering::Relaxed);
        if took > SHORT {
            self.0.store((left + LONG).min(MOST), Ordering::Relaxed);
        } else if left > 0 {
            self.0.store(left - 1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learn(pace: &Pace, took: Duration, count: u32) {
        (0..count).for_each(|_| pace.learn(took));
    }

    #[test]
    fn long_calls_are_remembered_for_some_time() {
        let pace = Pace::default();
        for _ in 0..3 {
            learn(&pace, SHORT, MOST - IS_LONG);
            assert!(!pace.is_short());
            pace.learn(SHORT);
            assert!(pace.is_short());
            learn(&pace, SHORT * 2, 10);
        }
    }

    #[test]
    fn a_short_call_that_takes_long_once_is_a_short_one() {
        let pace = Pace::default();
        learn(&pace, SHORT, MOST);
        for _ in 0..100 {
            pace.learn(SHORT * 100);
            assert!(pace.is_short());
            learn(&pace, SHORT, LONG);
        }
        learn(&pace, SHORT * 100, 2);
        assert!(!pace.is_short());
    }
}
