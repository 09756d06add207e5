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
//! | has a stream of requests on it that is [idle](super::quiet), and whose policy says so | as any call; but its handler is told to end it |
//! | has only calls on it that are not waited for, such as health checks and those that the server has ended because their time was over, and the peer takes nothing | [`NOT_TAKEN`] |
//! | had calls, and its peer has not acknowledged GOAWAY | [`Patience::silence`] since the last sign of life, but not beyond [`Patience::end`] |
//! | had calls, and goes on to begin some for [`HEEDLESS`] after GOAWAY has reached its peer's kernel | no longer |
//! | was told the last call, and has none left | [`LAST_WORDS`] without a sign of life, or half of [`Patience::strangers`] if it never had any |
//!
//! What is written here decides from what it is given: what is seen of the connection, and the time, which counts only
//! while the process runs.

use std::time::Duration;

use super::link::View;

/// How long after GOAWAY has reached a client's kernel that client may begin calls without acknowledging it. A client
/// reads as it writes; one of gRPC acknowledges at once.
const HEEDLESS: Duration = Duration::from_secs(1);

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
    /// For who has made calls, since anything was heard.
    pub(super) silence: Duration,
    /// When everybody is told the last call.
    pub(super) end: Duration,
    /// What is left is to go at once, but for the calls that still run, of which there are some or not.
    pub(super) hurry: Option<Calls>,
}

/// Whether the server has calls in flight.
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
    /// How much had arrived there of what was sent, and since when nothing more has.
    last_arrival: Option<(u64, Duration)>,
    /// A call that was begun after GOAWAY had arrived: when, and how many there were then.
    heedless: Option<(Duration, u64)>,
    calls_at_arrival: Option<u64>,
    /// When the last call was told.
    finished: Option<Duration>,
    /// How many calls were open, and when one of them has last ended.
    open: u32,
    said: Duration,
    /// How many calls are on it that are not waited for; for a moment perhaps less than none, since who notes it and
    /// who takes it back are two.
    given_up: i64,
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
        self.given_up -= 1;
    }

    /// Since when there was no sign of life.
    pub(super) fn look(&mut self, view: &View, now: Duration) -> Duration {
        let seen = (view.received, view.arrived);
        if view.unread > 0 || self.seen != Some(seen) {
            (self.seen, self.alive) = (Some(seen), now);
        }
        self.alive
    }

    /// Since when nothing more of what was sent has arrived. What the peer sends is no sign of life: somebody could send
    /// for ever.
    pub(super) fn last_arrival(&mut self, view: &View, now: Duration) -> Duration {
        match self.last_arrival {
            Some((arrived, since)) if arrived == view.arrived => since,
            _ => self.last_arrival.insert((view.arrived, now)).1,
        }
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
        if view.open + view.writing < self.open {
            self.said = now;
        }
        self.open = view.open + view.writing;
        let is_all_there = view.unacknowledged == 0 && view.unread == 0;
        let open = i64::from(view.open) + i64::from(view.writing);
        // What has come in part from who never began a call may be anything.
        let is_part = view.mid_frame && view.calls > 0;
        let is_of_calls = open > self.given_up || is_part || view.undelivered > self.not_answers;
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
                let last = self.finished.unwrap_or(now).max(alive).max(self.said);
                let until = last + words;
                match patience.hurry {
                    None if is_of_calls => patience.end.max(until),
                    Some(Calls::Running) if is_of_calls => now + LAST_WORDS,
                    _ => until,
                }
            }
            Stage::Refused => alive + patience.strangers,
            Stage::Ready if self.is_heedless(view, now) => now,
            Stage::Ready | Stage::Lingering if is_of_calls => patience.end,
            // The drain owes nothing to who does not even take the end of such a call.
            Stage::Ready if open > 0 => (alive + NOT_TAKEN).min(patience.end),
            Stage::Lingering => silence,
            Stage::Ready if view.calls == 0 && view.unacknowledged == 0 => {
                alive + patience.strangers
            }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Patience = Patience {
        strangers: Duration::from_millis(600),
        silence: Duration::from_secs(25),
        end: Duration::from_secs(29),
        hurry: None,
    };

    const START: Duration = Duration::ZERO;

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// A client that has had calls and has sent everything of them, and whose kernel has everything.
    fn idle() -> View {
        View {
            received: 100,
            arrived: 200,
            calls: 3,
            ping_arrived: true,
            ..View::default()
        }
    }

    /// What is done first, and when, with a connection on which nothing changes.
    fn first(stage: Stage, view: &View, patience: &Patience) -> (Step, Duration) {
        let mut watch = Watch::default();
        let mut now = START;
        loop {
            match watch.step(stage, view, now, patience) {
                Step::Wait(until) => {
                    assert!(until > now, "it would spin");
                    now = until;
                    if now > at(60.0) {
                        return (Step::Wait(until), now);
                    }
                }
                step => return (step, now),
            }
        }
    }

    #[test]
    fn who_never_made_a_call_delays_nobody() {
        let none = View { calls: 0, ..idle() };
        let soon = (Step::Finish, PATIENCE.strangers);
        let part = View {
            mid_frame: true,
            ..none
        };
        assert_eq!(first(Stage::Ready, &part, &PATIENCE), soon);
        assert_eq!(first(Stage::Silent, &none, &PATIENCE), soon);
        assert_eq!(first(Stage::Ready, &none, &PATIENCE), soon);
    }

    #[test]
    fn what_is_on_a_connection_has_the_grace_period() {
        let half = View { open: 1, ..idle() };
        let part = View {
            mid_frame: true,
            ..idle()
        };
        let not_there = View {
            undelivered: 1,
            unacknowledged: 9,
            ..idle()
        };
        for view in [half, part, not_there] {
            assert_eq!(
                first(Stage::Ready, &view, &PATIENCE),
                (Step::Finish, PATIENCE.end)
            );
        }
        let (step, _) = first(Stage::Lingering, &not_there, &PATIENCE);
        assert!(
            matches!(step, Step::Wait(_)),
            "{step:?}: it is for others to end it"
        );
    }

    #[test]
    fn who_is_silent_has_a_time_of_its_own_and_then_is_told_the_last_call_before_it_is_cut() {
        let silent = View {
            unacknowledged: 17,
            ping_arrived: false,
            ..idle()
        };
        // The program may stand still, and its kernel not.
        let told = (Step::Finish, PATIENCE.silence);
        assert_eq!(first(Stage::Ready, &idle(), &PATIENCE), told);
        assert_eq!(
            first(Stage::Ready, &silent, &PATIENCE),
            (Step::Finish, PATIENCE.silence)
        );
        let mut watch = Watch::default();
        watch.step(Stage::Ready, &silent, START, &PATIENCE);
        watch.finished(PATIENCE.silence);
        let step = |watch: &mut Watch, view, seconds| {
            watch.step(Stage::Lingering, view, at(seconds), &PATIENCE)
        };
        assert_eq!(step(&mut watch, &silent, 25.5), Step::Wait(at(26.0)));
        let mut heard = watch;
        assert_eq!(step(&mut watch, &silent, 26.0), Step::Cut);
        let arrived = View {
            arrived: 217,
            unacknowledged: 1,
            ..silent
        };
        assert_eq!(step(&mut heard, &arrived, 26.0), Step::Wait(at(27.0)));
        let all = View {
            unacknowledged: 0,
            ..arrived
        };
        assert_eq!(step(&mut heard, &all, 26.1), Step::Release);
        let beside = Patience {
            silence: Duration::MAX,
            ..PATIENCE
        };
        assert_eq!(
            first(Stage::Ready, &silent, &beside),
            (Step::Finish, PATIENCE.end)
        );
    }

    #[test]
    fn who_goes_on_to_begin_calls_after_goaway_has_arrived_is_told_the_last() {
        let mut watch = Watch::default();
        let mut calls = 3;
        let mut step = |seconds, more, ping_arrived, acknowledged| {
            calls += more;
            let view = View {
                calls,
                received: 100 + calls,
                ping_arrived,
                acknowledged,
                ..idle()
            };
            watch.step(Stage::Ready, &view, at(seconds), &PATIENCE)
        };
        let waits = |since| Step::Wait(at(since) + PATIENCE.silence);
        assert_eq!(step(0.1, 1, false, false), waits(0.1));
        assert_eq!(step(0.2, 0, true, false), waits(0.1));
        // What was on its way.
        assert_eq!(step(0.3, 2, true, false), waits(0.3));
        assert_eq!(step(1.2, 1, true, false), waits(1.2));
        // A client that was stopped for ten seconds sends what it had begun.
        assert_eq!(step(1.31, 0, true, false), Step::Finish);
        // Though there is an answer on its way at every look.
        let mut busy = Watch::default();
        let mut step = |seconds, calls| {
            let view = View {
                calls,
                undelivered: 1,
                ..idle()
            };
            busy.step(Stage::Ready, &view, at(seconds), &PATIENCE)
        };
        for (seconds, calls) in [(0.1, 3), (0.2, 4), (1.1, 9)] {
            assert_eq!(step(seconds, calls), Step::Wait(PATIENCE.end));
        }
        assert_eq!(step(1.2, 10), Step::Finish);
        let mut acknowledges = Watch::default();
        for (seconds, calls) in [(0.1, 3), (0.2, 4), (5.0, 5)] {
            let acknowledged = seconds > 0.3;
            let view = View {
                calls,
                acknowledged,
                ..idle()
            };
            let step = acknowledges.step(Stage::Ready, &view, at(seconds), &PATIENCE);
            assert!(matches!(step, Step::Wait(_)), "{step:?}");
        }
    }

    #[test]
    fn what_has_come_is_read_before_anything_is_decided() {
        let unread = View {
            unread: 1,
            calls: 0,
            ..idle()
        };
        for stage in [Stage::Silent, Stage::Ready] {
            let (step, _) = first(stage, &unread, &PATIENCE);
            assert!(matches!(step, Step::Wait(_)), "{step:?}");
        }
    }

    #[test]
    fn the_last_answer_has_the_time_to_arrive() {
        let hurry = |calls| Patience {
            hurry: Some(calls),
            ..PATIENCE
        };
        let (runs, written) = (
            View { open: 1, ..idle() },
            View {
                undelivered: 1,
                unacknowledged: 9,
                ..idle()
            },
        );
        let mut watch = Watch::default();
        watch.step(Stage::Ready, &runs, at(29.0), &PATIENCE);
        watch.finished(at(29.0));
        for seconds in [30.0, 31.0] {
            let step = watch.step(Stage::Ready, &runs, at(seconds), &hurry(Calls::Running));
            assert!(matches!(step, Step::Wait(_)), "{step:?}");
        }
        let none = hurry(Calls::None);
        let step = watch.step(Stage::Ready, &written, at(32.0), &none);
        assert_eq!(step, Step::Wait(at(33.0)));
        assert_eq!(
            watch.step(Stage::Lingering, &written, at(33.0), &none),
            Step::Cut
        );
    }

    #[test]
    fn an_answer_that_is_being_written_is_on_the_connection() {
        let writing = View {
            writing: 1,
            ..idle()
        };
        assert_eq!(
            first(Stage::Ready, &writing, &PATIENCE),
            (Step::Finish, PATIENCE.end)
        );
    }

    #[test]
    fn what_is_not_waited_for_may_be_taken_back_before_it_is_noted() {
        let mut watch = Watch::default();
        watch.took();
        watch.gave_up();
        let one = View { open: 1, ..idle() };
        let step = watch.step(Stage::Ready, &one, START, &PATIENCE);
        assert_eq!(step, Step::Wait(PATIENCE.end));
    }

    #[test]
    fn in_a_hurry_everybody_is_told_at_once_and_cut_once_nothing_runs() {
        let hurry = |calls| Patience {
            hurry: Some(calls),
            ..PATIENCE
        };
        let half = View { open: 1, ..idle() };
        let now = at(3.0);
        let mut watch = Watch::default();
        assert_eq!(
            watch.step(Stage::Ready, &half, now, &hurry(Calls::Running)),
            Step::Finish
        );
        watch.finished(now);
        let later = at(9.0);
        let step = watch.step(Stage::Ready, &half, later, &hurry(Calls::Running));
        assert!(matches!(step, Step::Wait(_)), "{step:?}");
        let step = watch.step(Stage::Ready, &half, later, &hurry(Calls::None));
        assert_eq!(step, Step::Cut);
    }

    fn views() -> impl Strategy<Value = View> {
        let numbers = (0..3_u64, 0..3_u64, 0..3_u64, 0..2_u32, 0..2_u32, 0..2, 0..2);
        (numbers, any::<[bool; 4]>()).prop_map(
            |((received, arrived, calls, open, undelivered, unread, unacknowledged), is)| View {
                received,
                arrived,
                calls,
                open: open.min(calls as u32),
                undelivered,
                writing: is[3].into(),
                arrived_of_write: 0,
                unread,
                unacknowledged,
                mid_frame: is[0],
                acknowledged: is[1],
                ping_arrived: is[2],
                ..View::default()
            },
        )
    }

    proptest! {
        /// Whatever is seen, in whatever order: nobody is looked at without end at one moment, nobody is cut
        /// who was not told the last call before, and what is on a connection is cut only in a hurry.
        #[test]
        fn nobody_is_cut_who_was_not_told(
            seen in proptest::collection::vec((views(), 0..5_000_u64), 1..40),
            stage in prop_oneof![Just(Stage::Silent), Just(Stage::Ready)],
        ) {
            let mut watch = Watch::default();
            let mut stage = stage;
            let mut now = START;
            let mut told = false;
            for (view, millis) in seen {
                now += Duration::from_millis(millis);
                match watch.step(stage, &view, now, &PATIENCE) {
                    Step::Wait(until) => prop_assert!(until > now),
                    Step::Finish => {
                        prop_assert!(!told && view.unread == 0);
                        told = true;
                        watch.finished(now);
                        stage = match stage {
                            Stage::Silent => Stage::Refused,
                            _ => Stage::Lingering,
                        };
                    }
                    Step::Release => {
                        prop_assert!(told && view.unread == 0 && view.unacknowledged == 0);
                        break;
                    }
                    Step::Cut => {
                        prop_assert!(told);
                        prop_assert!(view.open == 0 && view.writing == 0);
                        prop_assert!(!view.mid_frame || view.calls == 0);
                        prop_assert_eq!(view.undelivered, 0);
                        break;
                    }
                }
            }
        }
    }
}
