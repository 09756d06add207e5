//! How long each phase of a stop may take, and the one deadline over all of them.
//!
//! A plan is plain data. Everything that turns it into points in time takes the present as an
//! argument, and every sum saturates: `Duration::MAX` means "for ever" and is never an overflow.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::sync::Instant;

/// The default margin between the sum of the phases and the hard deadline.
const MARGIN: Duration = Duration::from_secs(5);

/// How long each phase of a stop may take.
///
/// A phase ends as soon as its work is done; these are upper limits. Only the lame duck phase,
/// which waits for others to turn away, always takes its whole time. All of them count only while the
/// process runs: while it is stopped or frozen none of them passes.
///
/// | phase | setter | default | why |
/// |---|---|---|---|
/// | LameDuck | [`with_lame_duck`](Self::with_lame_duck) | 0 s | with no load balancer, nobody has to be told |
/// | Draining | [`with_grace_period`](Self::with_grace_period) | 30 s | what Kubernetes grants a pod; a third of what systemd grants a unit (90 s) |
/// | Cancelling | [`with_force_period`](Self::with_force_period) | 5 s | time for a handler to notice that it was told |
/// | Closing | [`with_closing`](Self::with_closing) | 10 s | two hooks at their default limit of 5 s, one after the other |
/// | in Draining | [`with_peer_silence`](Self::with_peer_silence) | 25 s | longer than a link or a machine commonly pauses, shorter than the grace period |
/// | all | [`with_hard_deadline`](Self::with_hard_deadline) | their sum and 5 s | so that it fires only if a phase did not end when it had to |
///
/// If a supervisor kills the program some time after SIGTERM, let the hard deadline end before
/// that: `TimeoutStopSec` in systemd, `terminationGracePeriodSeconds` in Kubernetes.
///
/// ```
/// use std::time::Duration;
/// use touchdown::lifecycle::Plan;
///
/// let plan = Plan::new().with_grace_period(Duration::from_secs(8)).with_closing(Duration::from_secs(2));
/// assert_eq!(plan.hard_deadline(), Duration::from_secs(8 + 5 + 2 + 5));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    lame_duck: Duration,
    grace_period: Duration,
    force_period: Duration,
    closing: Duration,
    peer_silence: Duration,
    hard_deadline: Option<Duration>,
}

impl Plan {
    /// The default plan.
    pub const fn new() -> Self {
        Self {
            lame_duck: Duration::ZERO,
            grace_period: Duration::from_secs(30),
            force_period: Duration::from_secs(5),
            closing: Duration::from_secs(10),
            peer_silence: Duration::from_secs(25),
            hard_deadline: None,
        }
    }

    /// Sets how long the program goes on accepting and serving while it says "not ready".
    ///
    /// Take a little more than the time in which the load balancer, or whatever looks at the health
    /// of the program, looks again.
    #[must_use]
    pub const fn with_lame_duck(mut self, time: Duration) -> Self {
        self.lame_duck = time;
        self
    }

    /// Sets how long what is in flight may go on after the program takes in nothing new.
    #[must_use]
    pub const fn with_grace_period(mut self, time: Duration) -> Self {
        self.grace_period = time;
        self
    }

    /// Sets how long what is still in flight after the grace period has to leave once told.
    #[must_use]
    pub const fn with_force_period(mut self, time: Duration) -> Self {
        self.force_period = time;
        self
    }

    /// Sets how long participants, workers and hooks have, all together, to close.
    #[must_use]
    pub const fn with_closing(mut self, time: Duration) -> Self {
        self.closing = time;
        self
    }

    /// Sets how long after the last sign of life Draining waits for a connection that has had calls, has none now as
    /// far as can be known, and whose peer does not acknowledge that it is told to go; no longer than the grace period.
    ///
    /// A call may be on its way on it: a radio link that changes cells holds packets for seconds, and so does the
    /// migration of a virtual machine. What such a peer has sent is served if it comes within this time. When it is over,
    /// the peer is sent the number of the last call that was served, so that a client of gRPC that comes back makes
    /// the others again by itself; if it does not acknowledge that within a second either, the connection is cut, which the
    /// [report](super::Report::connections_cut) says.
    ///
    /// What it costs: a stop takes so long if a client hangs, or has vanished without a word shortly before (power, cable,
    /// radio), and nobody has noticed: the server's keepalive does, 80 s after the last word by default.
    /// Clients that close their connections, or acknowledge that they are told to go, are not waited for; nor are
    /// those that never made a call. Beside a successor, to which new calls go, nobody is in a hurry, and the grace period
    /// takes this one's place.
    #[must_use]
    pub const fn with_peer_silence(mut self, time: Duration) -> Self {
        self.peer_silence = time;
        self
    }

    /// Sets the time after which the process exits whatever happens, counted from the moment when
    /// the stop was asked for. [`Duration::MAX`] means never.
    #[must_use]
    pub const fn with_hard_deadline(mut self, time: Duration) -> Self {
        self.hard_deadline = Some(time);
        self
    }

    /// The time of the lame duck phase.
    pub const fn lame_duck(&self) -> Duration {
        self.lame_duck
    }

    /// The grace period: the longest time of the draining phase.
    pub const fn grace_period(&self) -> Duration {
        self.grace_period
    }

    /// The force period: the longest time of the cancelling phase.
    pub const fn force_period(&self) -> Duration {
        self.force_period
    }

    /// The longest time of the closing phase.
    pub const fn closing(&self) -> Duration {
        self.closing
    }

    /// How long Draining waits for a silent peer.
    pub const fn peer_silence(&self) -> Duration {
        self.peer_silence
    }

    /// The hard deadline: as set, or the sum of the phases and 5 s.
    pub const fn hard_deadline(&self) -> Duration {
        match self.hard_deadline {
            Some(time) => time,
            None => self.phases().saturating_add(MARGIN),
        }
    }

    /// Checks that the plan can be kept.
    ///
    /// # Errors
    ///
    /// [`PlanError`] if the hard deadline was set and is shorter than the phases under it: the
    /// process would exit in the middle of a phase that still had time.
    pub const fn validate(&self) -> Result<(), PlanError> {
        let (hard_deadline, phases) = (self.hard_deadline(), self.phases());
        if hard_deadline.as_nanos() < phases.as_nanos() || hard_deadline.is_zero() {
            return Err(PlanError {
                hard_deadline,
                phases,
            });
        }
        Ok(())
    }

    /// The sum of the phases.
    const fn phases(&self) -> Duration {
        self.lame_duck
            .saturating_add(self.grace_period)
            .saturating_add(self.force_period)
            .saturating_add(self.closing)
    }
}

impl Default for Plan {
    fn default() -> Self {
        Self::new()
    }
}

/// A [`Plan`] whose hard deadline is zero, or ends before the phases that it stands over.
///
/// Lengthen [`Plan::with_hard_deadline`], leave it out so that it follows from the phases, or shorten
/// the phases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlanError {
    /// The hard deadline, as set.
    pub hard_deadline: Duration,
    /// The sum of the phases.
    pub phases: Duration,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.hard_deadline.is_zero() {
            return f.write_str(
                "the hard deadline is zero: the process would exit as soon as it is told to stop",
            );
        }
        write!(
            f,
            "the hard deadline of {:?} is shorter than the phases under it, which may take {:?}",
            self.hard_deadline, self.phases
        )
    }
}

impl Error for PlanError {}

/// The moment `time` after `from`, or `None` if that is beyond what an [`Instant`] can say, which
/// means never.
pub(super) fn after(from: Instant, time: Duration) -> Option<Instant> {
    from.checked_add(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_hard_deadline_follows_from_the_phases() {
        assert_eq!(Plan::default().hard_deadline(), Duration::from_secs(50));
        assert_eq!(Plan::default().validate(), Ok(()));
    }

    #[test]
    fn the_longest_durations_saturate() {
        let plan = Plan::new()
            .with_lame_duck(Duration::MAX)
            .with_grace_period(Duration::MAX)
            .with_force_period(Duration::MAX)
            .with_closing(Duration::MAX);
        assert_eq!(plan.hard_deadline(), Duration::MAX);
        assert_eq!(plan.validate(), Ok(()));
        assert_eq!(after(Instant::now(), Duration::MAX), None);
    }

    #[test]
    fn a_hard_deadline_inside_the_phases_is_refused_and_says_both_times() {
        let error = Plan::new()
            .with_hard_deadline(Duration::from_secs(44))
            .validate()
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "the hard deadline of 44s is shorter than the phases under it, which may take 45s"
        );
        assert!(Plan::new()
            .with_hard_deadline(Duration::from_secs(45))
            .validate()
            .is_ok());
    }

    #[test]
    fn a_hard_deadline_of_zero_is_refused_even_over_empty_phases() {
        let empty = Plan::new()
            .with_grace_period(Duration::ZERO)
            .with_force_period(Duration::ZERO)
            .with_closing(Duration::ZERO);
        assert!(empty.validate().is_ok());
        assert!(empty.with_hard_deadline(Duration::ZERO).validate().is_err());
    }
}
