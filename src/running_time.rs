//! Time that counts only while the process runs.
//!
//! A process may stand still for seconds: stopped by a signal, frozen with its container, moved to another machine, or
//! without its turn on one that is overloaded. The system's clock goes on meanwhile. Who asks that clock alone whether a
//! time limit is over gives up on work that had no time at all.
//!
//! So whoever keeps a limit that decides over others waits for a short time only, again and again, and counts those
//! short times: a wait that took much longer than it was meant to counts as what it was meant to be.

use std::time::Duration;

use crate::sync::Instant;

/// The longest time to wait at once for who counts so: four looks a second cost a small machine nothing that could be
/// measured.
pub(crate) const SLICE: Duration = Duration::from_millis(250);

/// How much later than it was meant to a wait may end and be taken for one that was merely late. What is scheduled
/// late on a machine with too much to do is hardly ever later than this; a pause that anybody notices is.
pub(crate) const LATE: Duration = Duration::from_millis(150);

/// Counts time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunningTime {
    looked: Instant,
    counted: Duration,
}

impl RunningTime {
    pub(crate) fn begin(now: Instant) -> Self {
        Self {
            looked: now,
            counted: Duration::ZERO,
        }
    }

    /// To be called when a wait is over that was to take no longer than `meant`. Returns how much time counts by now.
    pub(crate) fn pass(&mut self, now: Instant, meant: Duration) -> Duration {
        let took = now.saturating_duration_since(self.looked);
        self.looked = now;
        let counts = match took > meant.saturating_add(LATE) {
            // Something counts of the shortest wait, too, so that no limit is without end where each is late.
            true => meant.max(LATE),
            false => took,
        };
        self.counted = self.counted.saturating_add(counts);
        self.counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_counts_as_what_it_took_or_was_meant_to_take_if_the_process_stood_still() {
        let begin = Instant::now();
        let mut time = RunningTime::begin(begin);
        let at = |millis| begin + Duration::from_millis(millis);
        let counted = [
            time.pass(at(100), SLICE),
            time.pass(at(350), SLICE),
            // Late, as on a busy machine.
            time.pass(at(700), SLICE),
            // Stopped for ten seconds.
            time.pass(at(10_900), SLICE),
            // A clock that went back counts for nothing.
            time.pass(at(10_800), SLICE),
            time.pass(at(10_900), SLICE),
        ];
        let expected = [100, 350, 700, 950, 950, 1_050].map(Duration::from_millis);
        assert_eq!(counted, expected);
    }
}
