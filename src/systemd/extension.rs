//! For how long systemd is asked to go on waiting for a stop. Pure: the time is passed in.

use std::time::{Duration, Instant};

use crate::lifecycle::{Phase, Plan, Progress};

/// How much more time a step of progress buys a stop: twice the default time limit of a closing hook,
/// and twice the default force period, so that neither runs into systemd's limit when it does what it may.
pub const EXTENSION: Duration = Duration::from_secs(10);

/// By how much what systemd is asked for exceeds what the program gives itself, so that the program's own end,
/// which says what was still running, comes first.
pub const MARGIN: Duration = Duration::from_secs(1);

/// How long a phase of the stop is sure to take without anything that would show progress.
pub(super) fn at_the_beginning_of(phase: Phase, plan: &Plan) -> Duration {
    let sure = match phase {
        Phase::LameDuck => plan.lame_duck(),
        Phase::Cancelling => plan.force_period(),
        _ => Duration::ZERO,
    };
    sure.saturating_add(EXTENSION)
}

/// The whole of what is asked for, by what is left until the plan's hard deadline; `None` if that never comes.
pub(super) fn within(wanted: Duration, left: Option<Duration>) -> Duration {
    left.map_or(wanted, |left| wanted.min(left.saturating_add(MARGIN)))
}

/// What systemd is asked for as start-up begins, when the hooks can take this long; nothing if there are none, or if one
/// of them has no limit.
pub(super) fn of_startup(hooks: Duration) -> Option<Duration> {
    let is_limited = !hooks.is_zero() && hooks != Duration::MAX;
    is_limited.then(|| hooks.saturating_add(MARGIN))
}

/// Follows one phase of a stop.
pub(super) struct Pace {
    seen: Progress,
    told_at: Instant,
    next: Instant,
}

/// What is worth a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    Progress,
    /// Nothing but that time has passed.
    Time,
}

impl Pace {
    /// How often progress is looked for, and so how often it is told at the most.
    pub(super) const TICK: Duration = Duration::from_secs(1);

    /// How often the time is told when there is no progress, as in the log.
    const TIME: Duration = Duration::from_secs(5);

    /// The phase begins, which is told.
    pub(super) fn begin(seen: Progress, now: Instant) -> Pace {
        Pace {
            seen,
            told_at: now,
            next: now + Self::TICK,
        }
    }

    /// When to look again.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// What is to be told now, if anything.
    pub(super) fn look(&mut self, progress: Progress, now: Instant) -> Option<News> {
        self.next = now + Self::TICK;
        let news = if progress != self.seen {
            News::Progress
        } else if now.saturating_duration_since(self.told_at) >= Self::TIME {
            News::Time
        } else {
            return None;
        };
        self.seen = progress;
        self.told_at = now;
        Some(news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn nothing_is_asked_for_beyond_the_plan() {
        assert_eq!(within(10 * SECOND, Some(30 * SECOND)), 10 * SECOND);
        assert_eq!(within(10 * SECOND, Some(3 * SECOND)), 3 * SECOND + MARGIN);
        assert_eq!(within(10 * SECOND, Some(Duration::ZERO)), MARGIN);
        assert_eq!(within(10 * SECOND, None), 10 * SECOND);
    }

    #[test]
    fn a_phase_that_shows_no_progress_by_its_nature_is_given_its_time() {
        let plan = Plan::new()
            .with_lame_duck(7 * SECOND)
            .with_force_period(3 * SECOND);
        let time = |phase| at_the_beginning_of(phase, &plan);
        assert_eq!(time(Phase::LameDuck), 7 * SECOND + EXTENSION);
        assert_eq!(time(Phase::Draining), EXTENSION);
        assert_eq!(time(Phase::Cancelling), 3 * SECOND + EXTENSION);
        assert_eq!(time(Phase::Closing), EXTENSION);
    }

    #[test]
    fn a_start_is_given_the_time_of_its_hooks_if_they_have_limits() {
        assert_eq!(of_startup(30 * SECOND), Some(30 * SECOND + MARGIN));
        assert_eq!(of_startup(Duration::ZERO), None);
        assert_eq!(of_startup(Duration::MAX), None);
    }

    #[test]
    fn progress_is_told_once_a_second_and_time_alone_every_five() {
        let start = Instant::now();
        let left = |left| Progress {
            left,
            ..Progress::default()
        };
        let mut pace = Pace::begin(left(3), start);
        let mut told = Vec::new();
        for second in 1..=16 {
            let now = start + second * SECOND;
            // It is never to be looked at again at once.
            assert_eq!(pace.next(), now);
            let progress = left(if second < 3 { 3 } else { 2 });
            told.extend(pace.look(progress, now).map(|news| (second, news)));
        }
        let expected = [(3, News::Progress), (8, News::Time), (13, News::Time)];
        assert_eq!(told, expected);
    }
}
