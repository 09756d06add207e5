//! How long a drain waits for each connection, and for what.
//!
//! GOAWAY tells a client to make no more calls here. What it had begun by then may still be on its way: in the
//! network, which may hold it for seconds, or unread in the kernel. So the answer to GOAWAY is waited for, and who does
//! not give one is told at last which of its calls is the last that is served ([`Step::Finish`]); a client of gRPC makes
//! the others again by itself. Only then, if that cannot be told either, is a connection [cut](Step::Cut).
//!
//! | the connection | is waited for |
//! |---|---|
//! | has no HTTP/2 on it yet, or never had a call and its peer's kernel has acknowledged everything | [`Patience::strangers`] |
//! | has a call on it, or a part of one, or an answer that the peer's kernel has not acknowledged | until [`Patience::end`] |
//! | has only calls on it that are not waited for, such as health checks and those that the server has ended because their time was over, and the peer takes nothing | [`NOT_TAKEN`] |
//! | had calls, and its peer's kernel answers, but GOAWAY is not acknowledged | until [`Patience::end`]; but who goes on to begin calls for [`HEEDLESS`] after GOAWAY has reached its kernel is told the last one |
//! | had calls, and nothing of its peer is heard, not even of its kernel | [`Patience::silence`] |
//! | was told the last call, and has none left | [`LAST_WORDS`] without a sign of life, or half of [`Patience::strangers`] if it never had any |
//!
//! What is written here decides from what it is given: what is seen of the connection, and the time, which counts only
//! while the process runs.

use std::time::Duration;

use super::shim::ConnectionView as View;

/// How long after GOAWAY has reached a client's kernel that client may begin calls without acknowledging it. A client
/// reads as it writes; one of gRPC acknowledges at once.
pub(super) const HEEDLESS: Duration = Duration::from_secs(1);

/// How long a caller may take nothing of the end of a call that is not waited for: as long as one may take to close its
/// connection.
const NOT_TAKEN: Duration = Duration::from_secs(5);

/// How long a connection may stay without a sign of life when the last has been said on it: a round trip, and a lost
/// packet that is sent again.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);

/// How soon to look again at a connection on which something has come that was not read yet: it is about to be.
const SOON: Duration = Duration::from_millis(5);

/// How long a program wants a drain to wait.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    /// For what is in flight.
    pub(crate) grace_period: Duration,
    /// For a connection that has had calls, and of whose peer nothing is heard.
    pub(crate) peer_silence: Duration,
}

/// How long a drain waits. Times that are not durations of their own count from its beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For who never made a call.
    pub(super) strangers: Duration,
    /// For who has made calls, and of whom nothing is heard.
    pub(super) silence: Duration,
    /// When everybody is told the last call.
    pub(super) end: Duration,
    /// What is left is to go at once, but for the calls that still run, of which there are some or not.
    pub(super) hurry: Option<Calls>,
}

/// Whether the engine has calls in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Calls {
    Running,
    None,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nobody has spoken HTTP/2 yet.
    Silent,
    Ready,
    /// FIN is sent, to somebody who never was ready.
    Refused,
    /// Everything is sent, and FIN.
    Lingering,
}

/// What is to be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing; to be looked at again at this time at the latest.
    Wait(Duration),
    /// The peer is to be told which call is the last.
    Finish,
    /// Everything has reached the peer, and its end need not be waited for.
    Release,
    /// Shut down, whatever was on it.
    Cut,
}

/// What a drain remembers of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watch {
    /// How much had come from the peer, and how much had arrived there.
    seen: Option<(u64, u64)>,
    /// When there was the last sign of life.
    alive: Duration,
    /// A call that was begun after GOAWAY had arrived: when, and how many there were then.
    heedless: Option<(Duration, u64)>,
    calls_at_arrival: Option<u64>,
    /// When the last call was told.
    finished: Option<Duration>,
    /// How many calls are on it that are not waited for.
    given_up: u32,
    /// How many calls have ended on it without an answer that counts.
    not_answers: u32,
}

impl Watch {
    /// The last call was told.
    pub(super) fn finished(&mut self, now: Duration) {
        self.finished.get_or_insert(now);
    }

    /// How many ends of calls were no answers of handlers.
    pub(super) fn not_answers(&self) -> u32 {
        self.not_answers
    }

    /// A call ends without an answer of a handler that counts.
    pub(super) fn end_without_answer(&mut self) {
        self.not_answers += 1;
    }

    /// A call is not waited for.
    pub(super) fn gave_up(&mut self) {
        self.given_up += 1;
    }

    /// The kernel has taken the end of such a call, or never will.
    pub(super) fn took(&mut self) {
        self.given_up = self.given_up.saturating_sub(1);
    }

    /// Since when there was no sign of life.
    pub(super) fn look(&mut self, view: &View, now: Duration) -> Duration {
        let seen = (view.received, view.arrived);
        if view.unread > 0 || self.seen != Some(seen) {
            (self.seen, self.alive) = (Some(seen), now);
        }
        self.alive
    }

    /// What is to be done in a drain.
    pub(super) fn step(
        &mut self,
        stage: Stage,
        view: &View,
        now: Duration,
        patience: &Patience,
    ) -> Step {
        let alive = self.look(view, now);
        let is_all_there = view.unacknowledged == 0 && view.unread == 0;
        let is_of_calls = view.open > self.given_up || view.mid_frame || view.undelivered > 0;
        if patience.hurry.is_some() && matches!(stage, Stage::Refused | Stage::Lingering) {
            self.finished(now);
        }
        let silence = alive.saturating_add(patience.silence).min(patience.end);
        let until = match stage {
            Stage::Refused | Stage::Lingering if is_all_there => return Step::Release,
            Stage::Silent => alive + patience.strangers,
            _ if self.finished.is_some() => {
                let words = match view.calls {
                    0 => LAST_WORDS.min(patience.strangers / 2),
                    _ => LAST_WORDS,
                };
                let until = self.finished.max(Some(alive)).unwrap_or(now) + words;
                match patience.hurry {
                    None if is_of_calls => patience.end.max(until),
                    Some(Calls::Running) if is_of_calls => now + LAST_WORDS,
                    _ => until,
                }
            }
            Stage::Refused => alive + patience.strangers,
            Stage::Ready | Stage::Lingering if is_of_calls => patience.end,
            // The drain owes nothing to who does not even take the end of such a call.
            Stage::Ready if view.open > 0 => (alive + NOT_TAKEN).min(patience.end),
            Stage::Lingering => silence,
            Stage::Ready if self.is_heedless(view, now) => now,
            Stage::Ready if view.calls == 0 && view.unacknowledged == 0 => {
                alive + patience.strangers
            }
            Stage::Ready if view.unacknowledged == 0 => patience.end,
            Stage::Ready => silence,
        };
        let until = match (patience.hurry, self.finished) {
            (Some(_), None) => until.min(now),
            _ => until,
        };
        if until > now {
            return Step::Wait(until);
        }
        match (stage, self.finished) {
            // What has come decides which call is the last.
            (Stage::Silent | Stage::Ready, None) if view.unread > 0 => Step::Wait(now + SOON),
            (Stage::Silent | Stage::Ready, None) => Step::Finish,
            // The time of those that have calls is for others to end.
            _ if patience.hurry.is_none() && is_of_calls => Step::Wait(now + LAST_WORDS),
            _ => Step::Cut,
        }
    }

    /// Whether the peer does not mind GOAWAY, which has arrived.
    fn is_heedless(&mut self, view: &View, now: Duration) -> bool {
        if !view.ping_arrived || view.acknowledged {
            return false;
        }
        let at_arrival = *self.calls_at_arrival.get_or_insert(view.calls);
        if view.calls == at_arrival {
            return false;
        }
        let (since, calls) = *self.heedless.get_or_insert((now, view.calls));
        view.calls > calls && now >= since + HEEDLESS
    }
}
