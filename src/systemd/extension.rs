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
        Phase::LameDuck => plan.get_lame_duck(),
        Phase::Cancelling => plan.get_force_period(),
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
}

/// What is worth a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    Progress,
    /// Nothing but that time has passed.
    Time,
}

impl Pace {
    /// How often, at the most, progress is told.
    pub(super) const TICK: Duration = Duration::from_secs(1);

    /// How often the time is told when there is no progress, as in the log.
    const TIME: Duration = Duration::from_secs(5);

    pub(super) fn begin(seen: Progress, now: Instant) -> Pace {
        Pace { seen, told_at: now }
    }

    /// When to look again.
    pub(super) fn next(&self, now: Instant) -> Instant {
        (self.told_at + Self::TICK).max(now)
    }

    pub(super) fn look(&mut self, progress: &Progress, now: Instant) -> Option<News> {
        let waited = now.saturating_duration_since(self.told_at);
        let news = if *progress != self.seen {
            News::Progress
        } else {
            News::Time
        };
        let pause = match news {
            News::Progress => Self::TICK,
            News::Time => Self::TIME,
        };
        if waited < pause {
            return None;
        }
        self.seen.clone_from(progress);
        self.told_at = now;
        Some(news)
    }
}
