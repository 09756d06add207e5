//! How a worker that failed is started again: after a wait that grows from failure to failure.
//!
//! What fails at once tends to fail at once again: a device that is unplugged, a disk that is full.
//! Restarts without a wait would take the processor and fill the log; a long wait after the first
//! failure would cost time when it was the only one.

use std::time::Duration;

/// The shortest first delay, so that there is something to grow.
const LEAST_DELAY: Duration = Duration::from_millis(1);

/// When a worker that failed is started again.
///
/// | setting | default | why |
/// |---|---|---|
/// | [`first_delay`](Self::first_delay) | 100 ms | as systemd's `RestartSec` |
/// | [`factor`](Self::factor) | 2 | the longest delay is reached after nine failures |
/// | [`longest_delay`](Self::longest_delay) | 30 s | a device that is plugged in again is back in that time |
/// | [`reset_after`](Self::reset_after) | 60 s | twice the longest delay: it ran more than it waited |
/// | [`limit`](Self::limit) | none | |
///
/// ```
/// use std::time::Duration;
/// use touchdown::lifecycle::Restart;
///
/// // After 1 s, 3 s, 9 s; the failure after that is the last.
/// let restart = Restart::new().first_delay(Duration::from_secs(1)).factor(3).limit(3);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    first_delay: Duration,
    factor: u32,
    longest_delay: Duration,
    reset_after: Duration,
    limit: Option<u32>,
}

impl Restart {
    /// Restarts with the default delays, without a limit.
    pub const fn new() -> Self {
        Self {
            first_delay: Duration::from_millis(100),
            factor: 2,
            longest_delay: Duration::from_secs(30),
            reset_after: Duration::from_secs(60),
            limit: None,
        }
    }

    /// Sets how long to wait before the first restart. Less than 1 ms counts as 1 ms.
    #[must_use]
    pub const fn first_delay(mut self, time: Duration) -> Self {
        self.first_delay = time;
        self
    }

    /// Sets by how much each delay is longer than the one before. 1 means that all are the same, and so
    /// does 0.
    #[must_use]
    pub const fn factor(mut self, factor: u32) -> Self {
        self.factor = factor;
        self
    }

    /// Sets how long a delay can become. It limits the first one too.
    #[must_use]
    pub const fn longest_delay(mut self, time: Duration) -> Self {
        self.longest_delay = time;
        self
    }

    /// Sets how long a worker has to run before its earlier failures are forgotten: when it fails
    /// after that, the delays and the [limit](Self::limit) begin anew.
    #[must_use]
    pub const fn reset_after(mut self, time: Duration) -> Self {
        self.reset_after = time;
        self
    }

    /// Sets how many restarts there may be in a row. The failure after the last of them is final.
    #[must_use]
    pub const fn limit(mut self, restarts: u32) -> Self {
        self.limit = Some(restarts);
        self
    }

    /// The wait before the restart that follows `nth` others in a row.
    fn delay(&self, nth: u32) -> Duration {
        self.first_delay
            .max(LEAST_DELAY)
            .saturating_mul(self.factor.max(1).saturating_pow(nth))
            .min(self.longest_delay)
    }
}

impl Default for Restart {
    fn default() -> Self {
        Self::new()
    }
}

/// The restarts of one worker.
pub(super) struct Restarts {
    policy: Restart,
    /// How many there were in a row.
    in_a_row: u32,
}

impl Restarts {
    pub(super) fn new(policy: Restart) -> Self {
        Self {
            policy,
            in_a_row: 0,
        }
    }

    /// How long to wait before the next restart, after a run of `ran` that failed; `None` if there is
    /// none.
    pub(super) fn next(&mut self, ran: Duration) -> Option<Duration> {
        if ran >= self.policy.reset_after {
            self.in_a_row = 0;
        }
        if self
            .policy
            .limit
            .is_some_and(|limit| self.in_a_row >= limit)
        {
            return None;
        }
        let delay = self.policy.delay(self.in_a_row);
        self.in_a_row = self.in_a_row.saturating_add(1);
        Some(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::ZERO;

    fn delays(restarts: &mut Restarts, count: usize) -> Vec<u128> {
        let delays = (0..count).map_while(|_| restarts.next(SHORT));
        delays.map(|delay| delay.as_millis()).collect()
    }

    #[test]
    fn the_delays_grow_up_to_the_longest() {
        let mut restarts = Restarts::new(Restart::new());
        assert_eq!(
            delays(&mut restarts, 11),
            [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]
        );
    }

    #[test]
    fn who_ran_long_enough_begins_anew() {
        let policy = Restart::new().limit(2).reset_after(Duration::from_secs(9));
        let mut restarts = Restarts::new(policy);
        assert_eq!(delays(&mut restarts, 1), [100]);
        assert_eq!(
            restarts.next(Duration::from_secs(8)).unwrap().as_millis(),
            200
        );
        assert_eq!(
            restarts.next(Duration::from_secs(9)).unwrap().as_millis(),
            100
        );
        assert_eq!(delays(&mut restarts, 9), [200], "then the limit is reached");
    }

    #[test]
    fn the_strangest_settings_have_a_meaning() {
        let of = |policy: Restart, count| delays(&mut Restarts::new(policy), count);
        assert_eq!(of(Restart::new().first_delay(SHORT), 4), [1, 2, 4, 8]);
        assert_eq!(of(Restart::new().factor(0), 3), [100, 100, 100]);
        assert_eq!(of(Restart::new().longest_delay(SHORT), 2), [0, 0]);
        assert!(of(Restart::new().limit(0), 1).is_empty());
        let longest = Restart::new()
            .first_delay(Duration::MAX)
            .factor(u32::MAX)
            .longest_delay(Duration::MAX);
        let mut restarts = Restarts::new(longest);
        restarts.in_a_row = u32::MAX;
        assert_eq!(restarts.next(SHORT), Some(Duration::MAX));
        assert_eq!(restarts.in_a_row, u32::MAX);
    }
}
