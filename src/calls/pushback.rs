//! What clients are told of a retry.

use std::sync::atomic::{AtomicU32, Ordering};

use super::call::ending::Retry;

/// Over how many milliseconds clients are told to spread their retries.
const PUSHBACK_SPREAD: u32 = 100;

/// What the next client is told to wait, in milliseconds, before it tries elsewhere.
#[derive(Default)]
pub(super) struct Pushback(AtomicU32);

impl Pushback {
    /// What a client is told to wait before it retries, in milliseconds; negative if it is not to.
    pub(super) fn of(&self, retry: Retry) -> Option<i64> {
        match retry {
            Retry::Unsaid => None,
            Retry::Never => Some(-1),
            Retry::Soon => {
                let turn = self.0.fetch_add(1, Ordering::Relaxed);
                // Calls that end together are retried one after the other: 37 and 100 have no
                // common divisor, so a hundred of them wait for a hundred different times. None of
                // them is 0, with which a client of gRPC 1.85 for Python waits for ever.
                Some((1 + turn.wrapping_mul(37) % PUSHBACK_SPREAD).into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_hundred_calls_that_end_together_are_retried_at_a_hundred_times_and_never_at_once() {
        let pushback = Pushback::default();
        let times: HashSet<_> = (0..PUSHBACK_SPREAD)
            .map(|_| pushback.of(Retry::Soon).unwrap())
            .collect();
        assert_eq!(times.len(), PUSHBACK_SPREAD as usize);
        assert!(times.iter().all(|it| (1..=100).contains(it)));
        assert_eq!(pushback.of(Retry::Never), Some(-1));
        assert_eq!(pushback.of(Retry::Unsaid), None);
    }
}
