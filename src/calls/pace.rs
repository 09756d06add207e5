//! What is learned of a method's handlers: whether they are short.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A handler that takes no longer than this is short: so long may other calls
/// wait for their turn without anybody's noticing.
const SHORT: Duration = Duration::from_micros(250);

/// How many short calls it takes to forget a long one.
const MEMORY: u32 = 16;

/// How many more short calls have to be seen. It is a guess to act on, so a lost
/// update does not matter and nothing pairs with it.
#[derive(Debug)]
pub(super) struct Pace(AtomicU32);

impl Default for Pace {
    /// Unknown methods are taken for long.
    fn default() -> Pace {
        Pace(AtomicU32::new(MEMORY))
    }
}

impl Pace {
    pub(super) fn is_short(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    pub(super) fn learn(&self, took: Duration) {
        let left = self.0.load(Ordering::Relaxed);
        if took > SHORT {
            self.0.store(MEMORY, Ordering::Relaxed);
        } else if left > 0 {
            self.0.store(left - 1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_call_is_remembered_for_some_time() {
        let pace = Pace::default();
        for _ in 0..2 {
            for _ in 0..MEMORY {
                assert!(!pace.is_short());
                pace.learn(SHORT);
            }
            assert!(pace.is_short());
            pace.learn(SHORT * 2);
        }
    }
}
