//! Looking after the open connections: which of them have anybody at the other end, and the gentle or less gentle end
//! of each.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use super::connections::{Connections, Cut, Socket};
use super::drain::{Patience, Stage, Step, LAST_WORDS};
use super::link::{Finished, Link, View};

/// How long a connection that is closing waits for its peer to close too, after the last of what was sent to it has
/// arrived there, or would have: the default of nginx's `lingering_timeout`. What the peer goes on to send does not make it
/// longer.
const LINGER: Duration = Duration::from_secs(5);

/// How long the transport may take to let go of connections that were shut down.
const CUT_TIME: Duration = Duration::from_millis(250);

/// How soon to try again to tell a peer its last call, while something has come that was not read.
pub(super) const NOT_YET: Duration = Duration::from_millis(5);

/// What came of looking at all connections.
#[derive(Default)]
pub(super) struct Attended {
    /// When to look again, at the latest.
    pub(super) next: Option<Duration>,
    /// How many are waited for.
    pub(super) waited_for: usize,
    /// How many of them have sent FIN and wait for it to arrive.
    pub(super) lingering: usize,
    /// How many were told which call is the last, since they did not answer.
    pub(super) finished: usize,
    pub(super) cut: Cut,
}

impl Connections {
    /// Shuts down every connection whose time is over, while nothing drains. Returns when to come again.
    pub(super) fn sweep(&self, now: Duration) -> Option<Duration> {
        let mut next: Option<Duration> = None;
        for (number, link) in self.of_stage(|stage| stage != Stage::Ready) {
            let view = link.look();
            let mut open = self.open.lock();
            let is_meant = |it: &&mut Socket| !view.gone && it.leaving.is_none();
            let Some(socket) = open.sockets.get_mut(&number).filter(is_meant) else {
                continue;
            };
            let until = match socket.stage {
                Stage::Ready => continue,
                // What has come is about to be read.
                Stage::Silent if view.unread > 0 => socket.silent_until.max(now + LAST_WORDS),
                Stage::Silent => socket.silent_until,
                // As long as the last bytes are on their way to a slow peer.
                Stage::Refused | Stage::Lingering => socket.watch.last_arrival(&view, now) + LINGER,
            };
            if until <= now {
                link.shut_down();
            } else {
                next = Some(next.map_or(until, |next| next.min(until)));
            }
        }
        next
    }

    /// Goes on with a drain: looks at every connection, and does what its time has come for.
    pub(super) fn attend(&self, now: Duration, patience: &Patience) -> Attended {
        let mut attended = Attended::default();
        for (number, link) in self.of_stage(|_| true) {
            let view = link.look();
            if let Some(again) = self.attend_one(number, &link, &view, now, patience, &mut attended)
            {
                attended.next = Some(attended.next.map_or(again, |next| next.min(again)));
            }
        }
        attended
    }

    /// Does what the time of one connection has come for. Returns when to look again, if it is waited for.
    pub(super) fn attend_one(
        &self,
        number: u64,
        link: &Arc<dyn Link>,
        view: &View,
        now: Duration,
        patience: &Patience,
        attended: &mut Attended,
    ) -> Option<Duration> {
        let step = {
            let mut open = self.open.lock();
            let socket = open.sockets.get_mut(&number)?;
            // The transport takes a moment, or somebody holds on to a call whose connection has ended.
            let is_left = |since: Duration| now >= since + CUT_TIME;
            if view.gone || view.over || socket.shut_down.is_some_and(is_left) {
                return None;
            }
            attended.waited_for += 1;
            if matches!(socket.stage, Stage::Refused | Stage::Lingering) {
                attended.lingering += 1;
            }
            socket.watch.step(socket.stage, view, now, patience)
        };
        Some(match step {
            Step::Wait(until) => until,
            Step::Release => {
                self.shut_down(number, now);
                now + CUT_TIME
            }
            Step::Finish => {
                let result = link.finish();
                let is_meant = match result {
                    Finished::Told => true,
                    Finished::MidFrame => patience.hurry.is_some(),
                    Finished::NotYet => false,
                };
                if is_meant {
                    attended.finished += 1;
                    if let Some(socket) = self.open.lock().sockets.get_mut(&number) {
                        socket.watch.finished(now);
                    }
                }
                now + NOT_YET
            }
            Step::Cut => {
                attended.cut += self.cut(number, view);
                self.shut_down(number, now);
                now + CUT_TIME
            }
        })
    }

    /// The connections at such a stage.
    pub(super) fn of_stage(&self, is_meant: impl Fn(Stage) -> bool) -> Vec<(u64, Arc<dyn Link>)> {
        let open = self.open.lock();
        let meant = open.sockets.iter().filter(|(_, it)| is_meant(it.stage));
        let begun = meant.filter_map(|(number, it)| Some((*number, Arc::clone(it.link.as_ref()?))));
        begun.collect()
    }

    pub(super) fn shut_down(&self, number: u64, now: Duration) {
        if let Some(socket) = self.open.lock().sockets.get_mut(&number) {
            socket.shut_down.get_or_insert(now);
            if let Some(link) = &socket.link {
                link.shut_down();
            }
        }
    }

    /// Notes that a connection is cut that looks like this, and says what may be lost with it.
    fn cut(&self, number: u64, view: &View) -> Cut {
        let mut open = self.open.lock();
        let Some(socket) = open.sockets.get(&number) else {
            return Cut::default();
        };
        let not_answers = socket.watch.not_answers();
        let is_lost = view.unread > 0
            || view.unacknowledged > 0
            || view.open > 0
            || view.writing > 0
            || (view.mid_frame && view.calls > 0)
            || view.undelivered > 0;
        let is_first = match open.cut.entry(number) {
            Entry::Vacant(entry) => {
                entry.insert(view.arrived_of_write);
                true
            }
            Entry::Occupied(_) => false,
        };
        match is_first && is_lost {
            true => Cut {
                connections: 1,
                answers: view.undelivered.saturating_sub(not_answers).into(),
            },
            false => Cut::default(),
        }
    }

    /// Shuts down every connection.
    pub(super) fn cut_all(&self) -> Cut {
        let mut sum = Cut::default();
        for (number, link) in self.of_stage(|_| true) {
            let view = link.look();
            if !view.gone && !view.over {
                sum += self.cut(number, &view);
            }
        }
        let open = self.open.lock();
        let links = open.sockets.values().filter_map(|it| it.link.as_ref());
        links.for_each(|it| it.shut_down());
        sum
    }
}
