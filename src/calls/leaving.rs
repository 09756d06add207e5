//! Connections that are sent away while the server goes on: why, and how long each may take to go.
//!
//! The end is that of a drain, for one connection: the graceful GOAWAY, after which the peer makes its next calls on
//! another connection, and what is on this one goes on until the grace is over. So nothing is lost of who had done
//! nothing wrong. What each step waits for is in [`drain`](super::drain).
//!
//! What is written here decides from what it is given, as in [`drain`](super::drain).

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

use super::drain::{Calls, Patience, LAST_WORDS};

/// Why a connection is sent away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// It is as old as it may become.
    Age,
    /// Nobody has made a call on it for as long as that may be.
    Idle,
    /// Another wants its place, and it is idle.
    Room,
    /// Requests on it do not become whole, or answers are not taken.
    NoProgress,
    /// What was sent on it is not taken.
    NotTaken,
    /// All clients together have more calls open than the server has memory for, and this one the most.
    Crowd,
}

/// How long a connection may last, and how.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lasting {
    /// How many connections one address may have.
    pub(crate) per_address: Option<usize>,
    /// How long a connection may have no call.
    pub(crate) idle: Option<Duration>,
    /// How old it may become, and how long calls that are on it then may take.
    pub(crate) age: Option<(Duration, Duration)>,
    /// How many calls it may have open, if that is less than the transport allows.
    pub(crate) concurrent_streams: Option<std::num::NonZeroU32>,
}

/// How long the calls of a connection may take that was idle when it was sent away; the client has begun them since.
const LATE_CALLS: Duration = Duration::from_secs(60);

/// How long it is waited for an answer to GOAWAY: longer than a link or a machine commonly pauses, as in
/// [`Plan::with_peer_silence`](crate::lifecycle::Plan::with_peer_silence).
const SILENCE: Duration = Duration::from_secs(25);

/// The same if somebody waits for the place.
const SILENCE_IN_NEED: Duration = Duration::from_secs(10);

/// How long it is waited for the answer of who never made a call: some round trips on a slow link.
const STRANGERS: Duration = Duration::from_secs(1);

/// How long GOAWAY has to reach the peer of a connection that is cut right after; and how long it may take until it can be
/// sent, while the transport is at work on what has come.
const PARTING: Duration = Duration::from_millis(100);
const WORDLESS: Duration = Duration::from_secs(1);

/// How long before the end of its time the last call is told, as in a drain.
const FAREWELL: Duration = Duration::from_secs(1);

/// A connection on its way out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaving {
    pub(super) why: Why,
    /// GOAWAY was sent.
    pub(super) is_told: bool,
    patience: Patience,
    /// When the calls are ended that are left.
    over: Duration,
    has_ended_calls: bool,
}

/// What is to be done with a connection on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Now {
    /// GOAWAY is to be sent.
    Tell,
    /// The calls are to be ended that are left.
    EndCalls,
    /// What a drain would do.
    AsInDrain,
    /// Shut down.
    Cut,
}

impl Leaving {
    /// From now on. `grace` is the time for calls, of the reasons that leave some.
    pub(super) fn begin(why: Why, now: Duration, grace: Duration) -> Leaving {
        let grace = match why {
            Why::Age | Why::NoProgress => grace,
            Why::Idle | Why::Room => LATE_CALLS,
            Why::NotTaken | Why::Crowd => WORDLESS,
        };
        let silence = match why {
            Why::Age | Why::Idle => SILENCE,
            _ => SILENCE_IN_NEED,
        };
        let over = now.saturating_add(grace);
        Leaving {
            why,
            is_told: false,
            patience: Patience {
                strangers: STRANGERS,
                silence,
                end: over.saturating_sub(FAREWELL.min(grace / 4)),
                hurry: None,
            },
            over,
            has_ended_calls: false,
        }
    }

    /// GOAWAY is sent.
    pub(super) fn told(&mut self, now: Duration) {
        self.is_told = true;
        if self.is_at_once() {
            self.over = self.over.min(now.saturating_add(PARTING));
        }
    }

    /// Whether nothing of the connection is waited for.
    fn is_at_once(&self) -> bool {
        matches!(self.why, Why::NotTaken | Why::Crowd)
    }

    /// How patient this is, if what a drain would do is to be done.
    pub(super) fn patience(&self) -> &Patience {
        &self.patience
    }

    /// What is to be done.
    pub(super) fn step(&mut self, now: Duration) -> Now {
        let end = match self.is_at_once() {
            true => self.over,
            // For the ends of calls to be heard.
            false => self.over.saturating_add(LAST_WORDS * 2),
        };
        if now >= end {
            return Now::Cut;
        }
        if !self.is_told {
            return Now::Tell;
        }
        if now >= self.over && !self.has_ended_calls {
            self.has_ended_calls = true;
            self.patience.hurry = Some(Calls::Running);
            return Now::EndCalls;
        }
        Now::AsInDrain
    }

    /// When something of it is to be done at the latest.
    pub(super) fn next(&self, now: Duration) -> Duration {
        match now < self.over {
            true => self.over,
            false => now.saturating_add(PARTING),
        }
    }
}

/// A tenth of this time more or less, so that clients who came together do not come back together; gRFC A9 says so.
pub(super) fn jittered(time: Duration, number: u64) -> Duration {
    // Other keys in each process.
    let chance = RandomState::new().hash_one(number) % 2_001;
    // From 0.9 to 1.1 in steps of a ten-thousandth.
    let tenths = 9_000 + u32::try_from(chance).unwrap_or(0);
    (time / 10_000).saturating_mul(tenths)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn the_calls_of_an_old_connection_have_its_grace_and_then_it_is_cut() {
        let mut leaving = Leaving::begin(Why::Age, at(100.0), GRACE);
        assert_eq!(leaving.step(at(100.0)), Now::Tell);
        leaving.told(at(100.0));
        assert_eq!(leaving.step(at(100.1)), Now::AsInDrain);
        assert_eq!(leaving.patience().end, at(129.0));
        assert_eq!(leaving.step(at(129.9)), Now::AsInDrain);
        assert_eq!(leaving.step(at(130.0)), Now::EndCalls);
        assert_eq!(leaving.step(at(130.1)), Now::AsInDrain);
        assert_eq!(leaving.step(at(132.0)), Now::Cut);
    }

    #[test]
    fn who_takes_nothing_is_told_and_cut() {
        for why in [Why::NotTaken, Why::Crowd] {
            let mut leaving = Leaving::begin(why, at(1.0), GRACE);
            assert_eq!(leaving.step(at(1.0)), Now::Tell);
            let mut untold = leaving;
            assert_eq!(untold.step(at(1.9)), Now::Tell);
            assert_eq!(untold.step(at(2.0)), Now::Cut, "though it was not told");
            leaving.told(at(1.5));
            assert_eq!(leaving.step(at(1.5)), Now::AsInDrain);
            assert_eq!(leaving.step(at(1.6)), Now::Cut);
        }
    }

    #[test]
    fn times_differ_by_a_tenth_at_the_most() {
        let day = Duration::from_secs(24 * 3600);
        let times: Vec<_> = (0..1_000).map(|number| jittered(day, number)).collect();
        let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
        assert!(
            *least >= day * 9 / 10 && *most <= day * 11 / 10,
            "{least:?} {most:?}"
        );
        // A thousand numbers of chance are nearer together than this once in 10^50 tries.
        assert!(*most - *least > day / 10, "{least:?} {most:?}");
    }
}
