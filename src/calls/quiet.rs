//! Which streams of requests are idle in a drain, so that it does not wait for them.
//!
//! A handler that reads a stream to its end waits for its caller, who may have nothing to say for hours. A stream that
//! is only slow, or that is at work, looks much like it, and is not to be ended. So all of this has to be so, for as long
//! as the method's policy says:
//!
//! | what is seen | what else it could be |
//! |---|---|
//! | the handler waits for a request, at each look | a handler at work on what it has received |
//! | no message has come or gone since | a handler that answers what it has received |
//! | no message is on its way to the caller | a caller that takes what it is sent slowly |
//! | the connection is silent, and no frame has come in part | a large message on a slow line |
//! | the peer has acknowledged GOAWAY | a peer that stands still, or a network that does |
//!
//! What is written here decides from what it is given, as in [`drain`](super::drain).

use std::time::Duration;

/// What is seen of a stream at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Whether its handler waits for a request, and nothing is on its way to the caller.
    pub(super) waits: bool,
    /// A number that every message changes, either way.
    pub(super) changes: u32,
}

/// What is seen of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// When there was the last sign of life.
    pub(super) alive: Duration,
    /// Whether the peer has acknowledged GOAWAY, and nothing has come that is not whole or was not read.
    pub(super) is_clear: bool,
}

/// What a drain remembers of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quiet {
    changes: u32,
    since: Duration,
}

impl Quiet {
    /// For a stream that is seen for the first time.
    pub(super) fn begin(seen: Seen, now: Duration) -> Quiet {
        Quiet {
            changes: seen.changes,
            since: now,
        }
    }

    /// Whether the stream has been idle for as long as `idle`. The connection is looked at only if the stream itself
    /// has; `None` is one that is gone.
    pub(super) fn is_idle(
        &mut self,
        seen: Seen,
        line: impl FnOnce() -> Option<Line>,
        now: Duration,
        idle: Duration,
    ) -> bool {
        if !seen.waits || seen.changes != self.changes {
            *self = Quiet::begin(seen, now);
        }
        if now < self.since.saturating_add(idle) {
            return false;
        }
        match line().filter(|it| it.is_clear) {
            Some(line) => {
                self.since = self.since.max(line.alive);
                now >= self.since.saturating_add(idle)
            }
            None => {
                self.since = now;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const IDLE: Duration = Duration::from_secs(5);

    const WAITS: Seen = Seen {
        waits: true,
        changes: 7,
    };

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn clear_since(alive: Duration) -> Option<Line> {
        let is_clear = true;
        Some(Line { alive, is_clear })
    }

    /// When a stream is first idle that looks like this at each look, four times a second for a minute.
    fn first_idle(look: impl Fn(f64) -> (Seen, Option<Line>)) -> Option<f64> {
        let mut quiet = Quiet::begin(look(0.0).0, Duration::ZERO);
        let mut looks = (0..240).map(|it| f64::from(it) / 4.0);
        looks.find(|seconds| {
            let (seen, line) = look(*seconds);
            quiet.is_idle(seen, || line, at(*seconds), IDLE)
        })
    }

    #[test]
    fn who_says_nothing_is_idle_after_that_time() {
        let silent = |_| (WAITS, clear_since(Duration::ZERO));
        assert_eq!(first_idle(silent), Some(5.0));
        let goaway_was_answered_late = |_| (WAITS, clear_since(at(2.0)));
        assert_eq!(first_idle(goaway_was_answered_late), Some(7.0));
    }

    #[test]
    fn a_handler_at_work_is_not_idle_and_has_the_time_anew_when_it_waits() {
        let works_until = |end: f64| {
            move |seconds| {
                let seen = Seen {
                    waits: seconds >= end,
                    ..WAITS
                };
                (seen, clear_since(Duration::ZERO))
            }
        };
        assert_eq!(first_idle(works_until(100.0)), None);
        assert_eq!(first_idle(works_until(20.0)), Some(24.75));
    }

    #[test]
    fn a_message_now_and_then_keeps_a_stream_from_being_idle() {
        let every = |pause: f64| {
            move |seconds: f64| {
                let seen = Seen {
                    changes: (seconds / pause) as u32,
                    ..WAITS
                };
                (seen, clear_since(Duration::ZERO))
            }
        };
        assert_eq!(first_idle(every(4.9)), None);
        assert_eq!(first_idle(every(7.0)), Some(5.0));
    }

    #[test]
    fn a_message_that_comes_slowly_and_a_peer_that_stands_still_are_not_idle() {
        let trickles = |seconds| (WAITS, clear_since(at(seconds - 0.3_f64.min(seconds))));
        assert_eq!(first_idle(trickles), None);
        let in_part = |_| {
            let line = Line {
                alive: Duration::ZERO,
                is_clear: false,
            };
            (WAITS, Some(line))
        };
        assert_eq!(first_idle(in_part), None);
        assert_eq!(first_idle(|_| (WAITS, None)), None, "it is gone");
    }

    proptest! {
        /// Whatever is seen, at whatever times: who is told to end has waited for a request at each look for that
        /// long, and nothing was heard meanwhile. And who has is told.
        #[test]
        fn exactly_who_was_idle_all_the_time_is_told(
            looks in vec((any::<bool>(), 0..2_u32, prop::option::of((0..4_000_u64, any::<bool>())), 1..3_000_u64), 1..40),
        ) {
            let mut now = Duration::ZERO;
            let mut alive = Duration::ZERO;
            let mut changes = 0;
            let mut quiet = Quiet::begin(Seen { waits: true, changes }, now);
            // Since when all has been as it has to be, as an outsider would say.
            let mut quiet_since = now;
            for (waits, more, line, pause) in looks {
                now += Duration::from_millis(pause);
                changes += more;
                if !waits || more > 0 {
                    quiet_since = now;
                }
                let line = line.map(|(ago, is_clear)| {
                    alive = alive.max(now.saturating_sub(Duration::from_millis(ago)));
                    Line { alive, is_clear }
                });
                let mut was_asked = false;
                let is_idle = quiet.is_idle(Seen { waits, changes }, || { was_asked = true; line }, now, IDLE);
                let is_quiet = now >= quiet_since + IDLE;
                prop_assert!(!was_asked || is_quiet, "the connection is looked at without need");
                if is_idle {
                    let line = line.expect("it was there");
                    prop_assert!(waits && line.is_clear);
                    prop_assert!(now >= quiet_since + IDLE && now >= line.alive + IDLE);
                } else if was_asked && line.is_none_or(|it| !it.is_clear) {
                    // Its time begins anew.
                    quiet_since = now;
                } else if was_asked {
                    prop_assert!(now < alive + IDLE);
                    quiet_since = quiet_since.max(alive);
                } else {
                    prop_assert!(!is_quiet);
                }
            }
        }
    }
}
