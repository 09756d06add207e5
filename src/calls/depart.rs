//! Sending single connections away while the server goes on: which have to go, and how far each is. The rules are in
//! [`leaving`](super::leaving) and [`progress`](super::progress).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::attend::{Attended, NOT_YET};
use super::connections::{Connections, Open, Socket};
use super::drain::Stage;
use super::leaving::{Leaving, Now, Why};
use super::link::{Link, View};
use super::observer::Connection;
use super::origin::Origin;
use super::progress::Verdict;

/// How long a connection has to be idle before another may have its place: a client that has just had an answer may be about
/// to make its next call.
const IDLE_AT_LEAST: Duration = Duration::from_secs(1);

/// The same of one that never had a call: in round trips, and the least. A client connects to make a call, which comes within
/// two of them. Who holds connections for nothing comes back as often as they end, so that a newcomer would find none that is
/// much older. Who is sent away although it meant to call connects again, and loses nothing.
pub(super) const UNUSED_AT_LEAST: (u32, Duration) = (8, Duration::from_millis(5));

/// What came of looking at the connections that are sent away.
#[derive(Default)]
pub(super) struct Departures {
    /// When to look again, at the latest.
    pub(super) next: Option<Duration>,
    /// The connections whose calls are to be ended.
    pub(super) ended: Vec<u64>,
}

/// What came of looking whether calls get on.
#[derive(Default)]
pub(super) struct Patrolled {
    /// Some connection is still to be looked at.
    pub(super) is_any_busy: bool,
    /// The client of some is waited for, so that the time has to be counted.
    pub(super) is_any_watched: bool,
    pub(super) sent_away: Vec<(u64, Why)>,
}

/// A connection that may have to make room.
pub(super) struct Candidate {
    number: u64,
    origin: Option<Origin>,
}

impl Connections {
    /// Begins to send a connection away. Says whether it had not begun yet.
    pub(super) fn send_away(&self, number: u64, why: Why, now: Duration, grace: Duration) -> bool {
        let mut open = self.open.lock();
        let Some(socket) = open.sockets.get_mut(&number) else {
            return false;
        };
        if socket.leaving.is_some() || !matches!(socket.stage, Stage::Silent | Stage::Ready) {
            return false;
        }
        socket.leaving = Some(Leaving::begin(why, now, grace));
        let origin = socket.origin;
        open.leaving += 1;
        // Its client may come again at once.
        open.origins.change(origin, |it| it.connections -= 1);
        drop(open);
        self.tell(Connection::SentAway { number, why });
        true
    }

    /// How many are sent away.
    pub(super) fn leaving(&self) -> usize {
        self.open.lock().leaving
    }

    /// Goes on with all that are sent away.
    pub(super) fn go_on_sending_away(&self, now: Duration) -> Departures {
        let mut departures = Departures::default();
        for (number, link) in self.that(|it| it.leaving.is_some()) {
            let view = link.look();
            let (step, leaving) = {
                let mut open = self.open.lock();
                let socket = open.sockets.get_mut(&number);
                let Some(leaving) = socket.and_then(|it| it.leaving.as_mut()) else {
                    continue;
                };
                (leaving.step(now), *leaving)
            };
            let again = match step {
                _ if view.gone || view.over => continue,
                Now::Tell => {
                    if link.send_away() {
                        self.is_told(number, now);
                    }
                    now + NOT_YET
                }
                Now::EndCalls => {
                    departures.ended.push(number);
                    now
                }
                Now::AsInDrain => {
                    let patience = leaving.patience();
                    let attended = &mut Attended::default();
                    let again = self.attend_one(number, &link, &view, now, patience, attended);
                    match again {
                        Some(again) => again.min(leaving.next(now)),
                        None => continue,
                    }
                }
                Now::Cut => {
                    self.shut_down(number, now);
                    continue;
                }
            };
            departures.next = Some(departures.next.map_or(again, |next| next.min(again)));
        }
        departures
    }

    fn is_told(&self, number: u64, now: Duration) {
        let mut open = self.open.lock();
        let socket = open.sockets.get_mut(&number);
        if let Some(leaving) = socket.and_then(|it| it.leaving.as_mut()) {
            leaving.told(now);
        }
    }

    /// The connections for which this holds, as far as they have begun.
    fn that(&self, is_meant: impl Fn(&Socket) -> bool) -> Vec<(u64, Arc<dyn Link>)> {
        let open = self.open.lock();
        let meant = open.sockets.iter().filter(|(_, it)| is_meant(it));
        let begun = meant.filter_map(|(number, it)| Some((*number, Arc::clone(it.link.as_ref()?))));
        begun.collect()
    }

    /// Sends away who is as old as it may become, or has been idle for as long as it may be. Returns when to look again,
    /// if there will be somebody.
    pub(super) fn expire(&self, now: Duration) -> Option<Duration> {
        let is_meant = |it: &Socket| {
            matches!(it.stage, Stage::Silent | Stage::Ready)
                && it.leaving.is_none()
                && (it.old_at.is_some() || it.lasting.idle.is_some())
        };
        let mut next: Option<Duration> = None;
        for (number, link) in self.that(is_meant) {
            let (stage, old_at, lasting) = match self.open.lock().sockets.get(&number) {
                Some(socket) => (socket.stage, socket.old_at, socket.lasting),
                None => continue,
            };
            let mut at = |time: Duration| next = Some(next.map_or(time, |next| next.min(time)));
            if stage == Stage::Silent {
                // It has another limit, and is to have spoken for a while.
                at(now.saturating_add(IDLE_AT_LEAST));
                continue;
            }
            if old_at.is_some_and(|it| it <= now) {
                let grace = lasting.age.map_or(Duration::MAX, |(_, grace)| grace);
                self.send_away(number, Why::Age, now, grace);
                continue;
            }
            old_at.into_iter().for_each(&mut at);
            if let Some(limit) = lasting.idle {
                let view = link.look();
                // A frame that has come in part for so long is none of a call that somebody makes.
                let is_idle = view.open == 0 && view.unread == 0;
                let idle = if is_idle { view.idle } else { Duration::ZERO };
                if idle >= limit {
                    self.send_away(number, Why::Idle, now, Duration::ZERO);
                } else {
                    // Several that come to their end one after the other are looked at together.
                    at(now.saturating_add((limit - idle).max(limit / 16)));
                }
            }
        }
        next
    }

    /// A call of a connection was refused because its headers cannot be read.
    pub(super) fn blame(&self, number: u64) {
        let open = self.open.lock();
        let link = open.sockets.get(&number).and_then(|it| it.link.clone());
        drop(open);
        if let Some(link) = link {
            link.blame();
        }
    }

    /// Who may have to make room, the first last: who has been idle the longest, and before those who has not begun to
    /// speak.
    pub(super) fn candidates(&self, now: Duration) -> Vec<Candidate> {
        let may_go = |it: &Socket| {
            let is_stage = matches!(it.stage, Stage::Silent | Stage::Ready);
            is_stage && it.leaving.is_none() && !it.handshakes
        };
        let mut found = Vec::new();
        for (number, link) in self.that(may_go) {
            let view = link.look();
            if view.open > 0 || view.unread > 0 {
                continue;
            }
            let mut open = self.open.lock();
            let Some(socket) = open.sockets.get_mut(&number) else {
                continue;
            };
            let idle = now.saturating_sub(*socket.could_call.get_or_insert(now));
            let (stage, origin) = (socket.stage, socket.origin);
            drop(open);
            let idle = view.idle.min(idle);
            if idle >= least_idle(&*link, &view) {
                found.push((stage == Stage::Ready, idle, Candidate { number, origin }));
            }
        }
        found.sort_unstable_by_key(|(is_ready, idle, _)| (*is_ready, *idle));
        found.into_iter().map(|(_, _, it)| it).collect()
    }

    /// Sends the first of these away that is idle still, and that comes from there, if that is said. Says whether there
    /// was one.
    pub(super) fn make_room(
        &self,
        candidates: &mut Vec<Candidate>,
        from: Option<Origin>,
        now: Duration,
    ) -> bool {
        while let Some(at) = candidates
            .iter()
            .rposition(|it| from.is_none() || it.origin == from)
        {
            let Candidate { number, .. } = candidates.remove(at);
            let link_of = |open: &Open| open.sockets.get(&number)?.link.clone();
            let Some(link) = link_of(&self.open.lock()) else {
                continue;
            };
            let view = link.look();
            let is_idle =
                view.open == 0 && view.unread == 0 && view.idle >= least_idle(&*link, &view);
            if is_idle && self.send_away(number, Why::Room, now, Duration::ZERO) {
                return true;
            }
        }
        false
    }

    /// Sends those away that have the most calls open, until no more than `most` are left. Says what has become of whom.
    pub(super) fn thin_out(&self, open_calls: usize, most: usize, now: Duration) -> Vec<u64> {
        let mut heaviest: Vec<(u32, bool, u64)> = Vec::new();
        for (number, link) in self.that(|_| true) {
            let goes = self.goes_for_the_crowd(number);
            heaviest.push((link.look().open, goes, number));
        }
        heaviest.sort_unstable();
        let going = heaviest.iter().filter(|it| it.1).map(|it| it.0 as usize);
        let mut left = open_calls.saturating_sub(going.sum());
        let mut sent_away = Vec::new();
        for (calls, _, number) in heaviest.into_iter().rev().filter(|it| !it.1) {
            if left <= most {
                break;
            }
            left = left.saturating_sub(calls as usize);
            if self.send_away_at_once(number, now) {
                sent_away.push(number);
            }
        }
        sent_away
    }

    fn goes_for_the_crowd(&self, number: u64) -> bool {
        let open = self.open.lock();
        let leaving = open.sockets.get(&number).and_then(|it| it.leaving);
        leaving.is_some_and(|it| it.why == Why::Crowd)
    }

    /// Though it may be on its way out already, at its leisure.
    fn send_away_at_once(&self, number: u64, now: Duration) -> bool {
        if self.send_away(number, Why::Crowd, now, Duration::ZERO) {
            return true;
        }
        let mut open = self.open.lock();
        let socket = open.sockets.get_mut(&number);
        let Some(leaving) = socket.and_then(|it| it.leaving.as_mut()) else {
            return false;
        };
        let was_told = leaving.is_told;
        *leaving = Leaving::begin(Why::Crowd, now, Duration::ZERO);
        if was_told {
            leaving.told(now);
        }
        true
    }

    /// Looks whether the calls of connections get on. For so many calls of each its client is not waited for.
    pub(super) fn patrol(
        &self,
        accounted: &HashMap<u64, usize>,
        now: Duration,
        limit: Duration,
    ) -> Patrolled {
        let mut patrolled = Patrolled::default();
        for (number, link) in self.that(|it| it.is_busy && it.leaving.is_none()) {
            let view = link.look();
            let progress = |open: &Open| {
                let socket = open.sockets.get(&number)?;
                Some((socket.progress, socket.subscribers))
            };
            let Some((mut progress, subscribers)) = progress(&self.open.lock()) else {
                continue;
            };
            let still = link.pass_span(progress.span(&view));
            let accounted = accounted.get(&number).copied().unwrap_or_default();
            let accounted = accounted + subscribers as usize;
            let verdict = progress.look(&view, still, accounted, now, limit);
            let mut is_busy = true;
            match verdict {
                Verdict::Well => is_busy = !self.rest(number, &link, subscribers),
                Verdict::Watched => patrolled.is_any_watched = true,
                Verdict::NoProgress => patrolled.sent_away.push((number, Why::NoProgress)),
                Verdict::NotTaken => patrolled.sent_away.push((number, Why::NotTaken)),
            }
            patrolled.is_any_busy |= is_busy;
            if let Some(socket) = self.open.lock().sockets.get_mut(&number) {
                socket.progress = progress;
            }
        }
        patrolled
            .sent_away
            .retain(|(number, why)| self.send_away(*number, *why, now, limit));
        patrolled
    }

    /// Whether nothing has to be looked at before another call begins.
    fn rest(&self, number: u64, link: &Arc<dyn Link>, subscribers: u32) -> bool {
        let set = |is_busy| {
            if let Some(socket) = self.open.lock().sockets.get_mut(&number) {
                socket.is_busy = is_busy;
            }
        };
        // Before: a call that begins sets it again.
        set(false);
        let rests = link.rest(subscribers);
        if !rests {
            set(true);
        }
        rests
    }

    /// The peer's address, for the log.
    pub(super) fn peer_of(&self, number: u64) -> Option<String> {
        let open = self.open.lock();
        open.sockets.get(&number).map(|it| it.peer.to_string())
    }
}
/// How long a connection has to be idle before another may have its place.
fn least_idle(link: &dyn Link, view: &View) -> Duration {
    let (trips, least) = UNUSED_AT_LEAST;
    match view.calls {
        0 => (link.round_trip() * trips).clamp(least, IDLE_AT_LEAST),
        _ => IDLE_AT_LEAST,
    }
}
