//! How long connections may last and how many there may be: what the program has set, and what holds on an open network.

use std::num::NonZeroU32;
use std::time::Duration;

use super::super::error::StartError;
use super::ServerBuilder;
use crate::calls::Lasting;

/// What a connection may take that came in from an open network; see [`Listen::public`](crate::Listen::public).
mod public {
    use std::time::Duration;

    /// One address may have this part of [`max_connections`](super::ServerBuilder::max_connections).
    pub(super) const SHARE_OF_CONNECTIONS: usize = 8;

    /// gRPC's clients reconnect with their next call. Most NATs and balancers have forgotten a connection before that.
    pub(super) const IDLE: Duration = Duration::from_secs(5 * 60);

    /// So that no client stays with a process, or with an old certificate, for ever.
    pub(super) const AGE: Duration = Duration::from_secs(24 * 60 * 60);

    /// What takes longer is a stream, and made again.
    pub(super) const GRACE: Duration = Duration::from_secs(5 * 60);

    /// RFC 9113, 6.5.2 asks for no less; Envoy has it for an edge.
    pub(super) const STREAMS: u32 = 100;
}

/// The least that can be kept: the time is looked at four times in it, in slices of a quarter of a second.
const LEAST_PROGRESS: Duration = Duration::from_secs(1);

/// How much memory an open call is reckoned at that has not arrived: what C-core was measured to take (9.4 KiB), and as
/// much again as its metadata may take in the usual case.
const CALL_MEMORY: usize = 16 << 10;

/// How many calls there is room for in any case.
const LEAST_CALLS: usize = 1024;

/// What was set; what was not is `None`.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    per_address: Option<usize>,
    idle: Option<Duration>,
    age: Option<(Duration, Duration)>,
    pub(super) progress: Duration,
    pub(super) handshakes: usize,
    pub(super) watches: Option<usize>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            per_address: None,
            idle: None,
            age: None,
            progress: Duration::from_secs(60),
            handshakes: 64,
            watches: None,
        }
    }
}

impl ServerBuilder {
    /// Sets how many connections one address may have; for IPv6 one /64, and connections at unix sockets are not
    /// limited. If it has as many, the one of them that has been idle the longest makes room for a new one; if none is
    /// idle, the new one is closed at once. Default: as many as [there may be](Self::max_connections), since behind a
    /// proxy all have one address; for a listener that is [`public`](crate::Listen::public) an eighth.
    ///
    /// Where it is set, no more than a quarter of the [TLS handshakes](Self::max_handshakes) may be one address's.
    pub fn max_connections_per_address(mut self, connections: usize) -> Self {
        self.limits.per_address = Some(connections);
        self
    }

    /// Sets how long a connection may be without a call before it is sent away: its client is told so (GOAWAY) and
    /// connects again with its next call, of which none is lost. Default: for ever; for a listener that is
    /// [`public`](crate::Listen::public) 5 minutes. From 1 ms to 24 days.
    pub fn max_connection_idle(mut self, time: Duration) -> Self {
        self.limits.idle = Some(time);
        self
    }

    /// Sets how old a connection may become before it is sent away, a tenth more or less by chance, so that clients which
    /// have come together do not come back together: its client makes its next calls on another connection. Calls that
    /// are on it have `grace` to end; what is left then is ended with `UNAVAILABLE`, its handlers are told, and it counts
    /// as [`cut`](crate::lifecycle::Calls::cut). Default: for ever; for a listener that is
    /// [`public`](crate::Listen::public) 24 hours, with a grace of 5 minutes. From 1 ms to 24 days each.
    pub fn max_connection_age(mut self, age: Duration, grace: Duration) -> Self {
        self.limits.age = Some((age, grace));
        self
    }

    /// Sets how long calls may stand still for want of their client: requests that have begun to arrive and are not
    /// whole, and answers that are not taken. Default: 60 s, as nginx has for both. From 1 s to 24 days.
    ///
    /// To get on, a call has to send or take 16 KiB in that time, or all there is. Whether a stream's handler waits for
    /// the next message does not count: that may take as long as it likes. The time counts only while the process runs,
    /// in quarters, so it may become a quarter more.
    ///
    /// A connection that has a call which stands still is sent away: its client is told so (GOAWAY), and other calls on it
    /// have as much time again to end. One that takes nothing of what waits in its socket is cut. The log says so.
    pub fn progress_timeout(mut self, time: Duration) -> Self {
        self.limits.progress = time;
        self
    }

    /// Sets how many TLS handshakes may be under way. As long as there are as many, listeners with TLS accept no more than
    /// 20 connections a second, so that slow clients do not keep others out; who connects waits in the kernel's queue.
    /// Default: 64, so that what is signed in a row holds up calls no longer
    /// than a third of a second on a small board, at 5 ms a signature.
    pub fn max_handshakes(mut self, handshakes: usize) -> Self {
        self.limits.handshakes = handshakes;
        self
    }

    /// Sets how many `Watch` streams of the [health service](super::Health) may be open, all connections together. One
    /// more ends the newest of the connection that has the most. Default: two for each
    /// [connection](Self::max_connections), 1,024 with the default of that, since a client watches one service of a
    /// server as a rule; that is 10 MiB at the most, at some 10 KiB each.
    pub fn max_health_watches(mut self, streams: usize) -> Self {
        self.limits.watches = Some(streams);
        self
    }
}

impl Limits {
    /// How long connections may last; and those that come in from an open network.
    pub(super) fn lasting(&self, connections: usize) -> Result<[Lasting; 2], StartError> {
        let time = |setting, value: Duration| match value.as_millis() {
            1..=0x7fff_ffff => Ok(()),
            _ => Err(wrong(setting, format!("{value:?}"), "from 1 ms to 24 days")),
        };
        if self.per_address == Some(0) {
            let setting = "max_connections_per_address";
            return Err(wrong(setting, "0".to_owned(), "at least 1"));
        }
        if self.handshakes == 0 {
            return Err(wrong("max_handshakes", "0".to_owned(), "at least 1"));
        }
        if let Some(idle) = self.idle {
            time("max_connection_idle", idle)?;
        }
        if let Some((age, grace)) = self.age {
            time("max_connection_age", age)?;
            time("max_connection_age", grace)?;
        }
        time("progress_timeout", self.progress)?;
        if self.progress < LEAST_PROGRESS {
            let value = format!("{:?}", self.progress);
            return Err(wrong("progress_timeout", value, "from 1 s to 24 days"));
        }
        let own = Lasting {
            per_address: self.per_address,
            idle: self.idle,
            age: self.age,
            concurrent_streams: None,
        };
        let share = (connections / public::SHARE_OF_CONNECTIONS).max(1);
        let public = Lasting {
            per_address: own.per_address.or(Some(share)),
            idle: own.idle.or(Some(public::IDLE)),
            age: own.age.or(Some((public::AGE, public::GRACE))),
            concurrent_streams: NonZeroU32::new(public::STREAMS),
        };
        Ok([own, public])
    }
}

/// How many calls may be open on all connections together, with so many bytes for what has not fully arrived.
pub(super) fn open_calls(memory: usize) -> usize {
    (memory / CALL_MEMORY).max(LEAST_CALLS)
}

fn wrong(setting: &'static str, value: String, expected: &'static str) -> StartError {
    StartError::Setting {
        setting,
        value,
        expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Server;

    #[test]
    fn what_is_set_holds_on_an_open_network_too_and_the_rest_is_of_the_profile() {
        let set = Limits {
            idle: Some(Duration::from_secs(7)),
            ..Limits::default()
        };
        let [own, public] = set.lasting(512).unwrap();
        assert_eq!((own.per_address, own.age), (None, None));
        assert_eq!((own.idle, public.idle), (set.idle, set.idle));
        assert_eq!(public.per_address, Some(64));
        assert_eq!(public.age, Some((public::AGE, public::GRACE)));
        assert_eq!(set.lasting(1).unwrap()[1].per_address, Some(1));
    }

    #[test]
    fn what_cannot_be_kept_is_refused_by_name() {
        let zero = Duration::ZERO;
        let builder = || Server::builder().address("127.0.0.1:0");
        let second = Duration::from_secs(1);
        for (builder, named) in [
            (
                builder().max_connections_per_address(0),
                "max_connections_per_address",
            ),
            (builder().max_connection_idle(zero), "max_connection_idle"),
            (
                builder().max_connection_age(second, zero),
                "max_connection_age",
            ),
            (builder().progress_timeout(second / 2), "progress_timeout"),
            (builder().max_handshakes(0), "max_handshakes"),
        ] {
            let error = builder.start().unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn there_is_room_for_some_calls_with_whatever_memory() {
        assert_eq!(open_calls(1), LEAST_CALLS);
        assert_eq!(open_calls(1 << 30), 65_536);
    }
}
