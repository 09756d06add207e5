//! How long one step of an upgrade may take.
//!
//! Only time counts in which this process runs: if it is stopped, or frozen with its container, the other may have
//! answered long ago, and nobody has looked. And no step is over right after such a pause.

use std::time::{Duration, Instant};

use crate::running_time::{RunningTime, LATE, SLICE};

/// How long there is at least to look at what has come before time is over.
const LAST_LOOK: Duration = Duration::from_millis(20);

/// Counts down what is left for a step.
pub(super) struct Patience {
    limit: Duration,
    time: RunningTime,
    looked: Instant,
    /// How long the wait was meant to take that comes to its end.
    meant: Duration,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Patience {
        Patience::begin(limit, Instant::now())
    }

    fn begin(limit: Duration, now: Instant) -> Patience {
        Patience {
            limit,
            time: RunningTime::begin(now),
            looked: now,
            meant: Duration::ZERO,
        }
    }

    /// How long to wait until asking again; `None` once the time is over.
    pub(super) fn next(&mut self) -> Option<Duration> {
        self.next_at(Instant::now())
    }

    fn next_at(&mut self, now: Instant) -> Option<Duration> {
        let stood_still = now.saturating_duration_since(self.looked) > self.meant + LATE;
        let counted = self.time.pass(now, self.meant);
        let left = self.limit.saturating_sub(counted);
        if left.is_zero() && !stood_still {
            return None;
        }
        self.looked = now;
        self.meant = left.clamp(LAST_LOOK, SLICE);
        Some(self.meant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_in_which_the_process_stands_still_is_not_waited_away() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let mut patience = Patience::begin(Duration::from_millis(600), begin);
        assert_eq!(patience.next_at(at(0)), Some(SLICE));
        assert_eq!(patience.next_at(at(250)), Some(SLICE));
        // Frozen for ten seconds, of which 250 ms count.
        assert_eq!(
            patience.next_at(at(10_250)),
            Some(Duration::from_millis(100))
        );
        // And again, with nothing left: what has come meanwhile is looked at.
        assert_eq!(patience.next_at(at(20_250)), Some(LAST_LOOK));
        assert_eq!(patience.next_at(at(20_270)), None);
    }

    #[test]
    fn no_time_is_over_at_once() {
        let begin = Instant::now();
        assert_eq!(Patience::begin(Duration::ZERO, begin).next_at(begin), None);
    }
}
