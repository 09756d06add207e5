//! The door: connections are accepted here, or turned away.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use super::Housekeeper;
use crate::calls::connections::{Connections, Times};
use crate::calls::depart::{Candidate, UNUSED_AT_LEAST};
use crate::calls::leaving::Lasting;
use crate::calls::observer::{Connection, TurnedAway};
use crate::calls::origin::Origin;
use crate::calls::peer::{address, for_people};
use crate::logging;
use crate::os::wake::Wake;
use crate::running_time::SLICE;
use crate::sockets::accepted::{is_of_connection, Accepted};

/// How long to leave the listeners alone when no connection can be had from them, not even to be
/// closed, unless a connection of this server ends earlier.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long after the transport has said that it closes a connection to try again: it does so right after.
const CLOSING_TIME: Duration = Duration::from_millis(1);

/// How many connections are accepted before something else gets its turn.
pub(super) const ACCEPTED_AT_ONCE: usize = 64;

/// How often, at the most, it is logged why connections are not served.
const LOG_PAUSE: Duration = Duration::from_secs(1);

/// How long not to accept where TLS is spoken while as many handshakes as may be are under way, unless one of them ends
/// earlier.
const HANDSHAKE_PAUSE: Duration = Duration::from_millis(50);

/// Which part of the handshakes that may be under way one address may have, where its connections are limited.
const SHARE_OF_HANDSHAKES: usize = 4;

/// How many connections more than there may be are open at the most, while those end that make room: a part of them, and
/// no more than so many.
const SPARE: (usize, usize) = (8, 64);

/// For how many times as long as it took nobody looks again who could make room: with many connections that is milliseconds.
const SEARCH_PAUSE: u32 = 8;

/// How many connections beyond the limit are kept, and for how long, until somebody may make room: many may have come at
/// once, none of which has been there for long enough.
const HELD: (usize, Duration) = (64, Duration::from_millis(50));

/// What the thread that accepts keeps for it.
pub(super) struct Door {
    /// The listeners are left alone until then.
    pub(super) paused_until: Option<Instant>,
    /// A descriptor that can be given up to accept, and close, a connection when there is no other.
    reserve: Option<Wake>,
    /// When it was last logged that connections are not served.
    reported: Option<Instant>,
    /// The listeners where TLS is spoken are left alone until then.
    pub(super) handshakes_paused_until: Option<Instant>,
    /// Who could make room, the first last, and when that may be looked for again.
    candidates: Vec<Candidate>,
    next_search: Option<Instant>,
    /// Those that wait for room, and until when.
    held: VecDeque<(Accepted, Instant)>,
}

impl Door {
    pub(super) fn new() -> Door {
        Door {
            paused_until: None,
            reserve: Wake::new().ok(),
            reported: None,
            handshakes_paused_until: None,
            candidates: Vec::new(),
            next_search: None,
            held: VecDeque::new(),
        }
    }

    /// Whether listeners where TLS is spoken are to be listened to; ends a pause whose time is over.
    pub(super) fn takes_handshakes(&mut self) -> bool {
        let is_paused = self
            .handshakes_paused_until
            .is_some_and(|it| it > Instant::now());
        if !is_paused {
            self.handshakes_paused_until = None;
        }
        !is_paused
    }

    /// Whether the listeners are to be listened to; ends a pause whose time is over.
    pub(super) fn is_open(&mut self) -> bool {
        let is_paused = self.paused_until.is_some_and(|it| it > Instant::now());
        if !is_paused {
            self.paused_until = None;
        }
        !is_paused
    }

    /// Shortens a pause, if a connection has closed: there is a descriptor again.
    pub(super) fn reopen_soon(&mut self, connections: &Connections) {
        if let Some(until) = &mut self.paused_until {
            if connections.has_one_closed() {
                *until = (*until).min(Instant::now() + CLOSING_TIME);
            }
        }
    }
}

impl Housekeeper<'_> {
    /// Accepts what there is, but no more than `most`: there are other things to do, and a
    /// flood must not keep the server from its end.
    pub(super) fn accept_from(&mut self, index: usize, most: usize) {
        if self.door.reserve.is_none() {
            self.refill_reserve();
        }
        for _ in 0..most {
            let accepted = self.shared.listening.lock().accept_from(index);
            match accepted {
                Ok(Some(accepted)) => {
                    self.admit(accepted);
                    if most == ACCEPTED_AT_ONCE && self.holds_handshakes_up(index) {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) if is_of_connection(&error) => {
                    logging::debug!("a connection failed while it was accepted: {error}");
                }
                Err(error) if is_want_of_descriptors(&error) => match self.shed(index) {
                    Ok(true) => self.report(|| {
                        format!("no descriptor is left ({error}): closing new connections")
                    }),
                    Ok(false) => return,
                    Err(_) => return self.pause(&error),
                },
                Err(error) => return self.pause(&error),
            }
        }
    }

    /// Accepts a connection with the descriptor that is kept for it, and closes it. Returns whether
    /// there was one.
    ///
    /// A client could be left in the kernel's queue instead, and would be served if descriptors came
    /// free in time. But to it the connection looks made: it sends its calls and waits, up to
    /// their deadlines, and tries no other address. One that is closed fails at once, so callers
    /// may go elsewhere, or try again when their back-off says, which for gRPC is a second.
    fn shed(&mut self, index: usize) -> io::Result<bool> {
        self.door.reserve = None;
        let accepted = self.shared.listening.lock().accept_from(index);
        if let Ok(Some(accepted)) = &accepted {
            self.turn_away(accepted, TurnedAway::NoDescriptor);
        }
        let accepted = accepted.map(|it| it.is_some());
        self.refill_reserve();
        accepted
    }

    fn turn_away(&self, accepted: &Accepted, why: TurnedAway) {
        let peer = &address(accepted);
        let event = Connection::Refused { peer, why };
        self.shared.ground.connections.tell(event);
    }

    fn refill_reserve(&mut self) {
        self.door.reserve = Wake::new().ok();
    }

    fn pause(&mut self, error: &io::Error) {
        self.report(|| format!("cannot accept connections: {error}"));
        self.shared.ground.connections.want_descriptor();
        self.door.paused_until = Some(Instant::now() + ACCEPT_PAUSE);
    }

    /// Logs why connections are not served, but not each time.
    fn report(&mut self, why: impl FnOnce() -> String) {
        let now = Instant::now();
        if self.door.reported.is_none_or(|it| now >= it + LOG_PAUSE) {
            logging::warn!("{}", why());
            self.door.reported = Some(now);
        }
    }

    /// Takes in the connections that the program has made to its own server.
    pub(super) fn take_given(&mut self) {
        let given = self.shared.listening.lock().take_given();
        given.into_iter().for_each(|it| self.admit(it));
    }

    /// Begins to serve a connection, if there may be another.
    pub(super) fn admit(&mut self, accepted: Accepted) {
        let until = Instant::now() + HELD.1;
        if self.door.held.is_empty() {
            if let Some(accepted) = self.try_admit(accepted, Some(until)) {
                self.door.held.push_back((accepted, until));
            }
        } else if self.door.held.len() < HELD.0 {
            self.door.held.push_back((accepted, until));
        } else {
            self.try_admit(accepted, None);
        }
    }

    /// Admits those that wait for room, if there is some. Returns when to try again, if any wait still.
    pub(super) fn admit_held(&mut self) -> Option<Instant> {
        while let Some((accepted, until)) = self.door.held.pop_front() {
            let now = Instant::now();
            let may_wait = now < until && !self.shared.ground.stopping.is_leaving();
            if let Some(accepted) = self.try_admit(accepted, may_wait.then_some(until)) {
                self.door.held.push_front((accepted, until));
                return Some(until.min(now + UNUSED_AT_LEAST.1));
            }
        }
        None
    }

    /// Begins to serve a connection, or closes it if there may not be another; but gives it back if there may be before then.
    fn try_admit(&mut self, accepted: Accepted, until: Option<Instant>) -> Option<Accepted> {
        let origin = accepted.peer.map(Origin::of);
        let lasting = self.shared.limits.lasting(&accepted);
        if let Some(why) = self.reason_to_turn_away(&accepted, origin, &lasting) {
            if why == TurnedAway::LimitReached && until.is_some() {
                return Some(accepted);
            }
            // Closing tells the client at once; leaving it in the kernel's
            // queue would let it wait for nothing.
            self.turn_away(&accepted, why);
            let limit = self.shared.limits.connections;
            let peer = for_people(&address(&accepted));
            self.report(|| match why {
                TurnedAway::AddressLimit => {
                    format!("as many connections as one address may have are open from that of {peer}: closing new ones")
                }
                _ => format!(
                    "the limit of {limit} connections is reached, and none of them is idle: closing new ones, this one from {peer}"
                ),
            });
            return None;
        }
        let shared = self.shared;
        let silent_until = self.now.saturating_add(shared.limits.handshake);
        // Soon, since most have spoken by then, and nobody is looked after any more.
        let sweep = silent_until.min(self.now.saturating_add(SLICE));
        self.next_sweep = Some(self.next_sweep.map_or(sweep, |it| it.min(sweep)));
        // This thread looks before it waits again, so nobody has to wake it.
        let _ = self.usage.connection(&shared.heap);
        let connections = &shared.ground.connections;
        let is_encrypted = accepted.is_encrypted();
        let times = Times {
            now: self.now,
            silent_until,
            unanswered: shared.limits.unanswered,
            lasting,
        };
        let newcomer = connections.add(accepted, &times);
        let number = newcomer.guest.number();
        shared.transport.add_connection(newcomer);
        let idle = lasting.idle.map(|it| self.now.saturating_add(it));
        self.look_for_expiry(connections.old_at(number));
        self.look_for_expiry(idle);
        if is_encrypted && connections.handshakes() >= shared.limits.handshakes {
            connections.want_handshake();
            self.door.handshakes_paused_until = Some(Instant::now() + HANDSHAKE_PAUSE);
        }
        None
    }

    /// Why a connection is not to be served, if so. Others may have been sent away for it.
    fn reason_to_turn_away(
        &mut self,
        accepted: &Accepted,
        origin: Option<Origin>,
        lasting: &Lasting,
    ) -> Option<TurnedAway> {
        let limits = &self.shared.limits;
        let connections = &self.shared.ground.connections;
        if let Some(most) = lasting.per_address {
            let of_origin = connections.of(origin);
            let share = (limits.handshakes / SHARE_OF_HANDSHAKES).max(1);
            let is_handshake_over = accepted.is_encrypted() && of_origin.handshakes >= share;
            // Those that are sent away do not count there.
            if is_handshake_over || (of_origin.connections >= most && !self.make_room(origin)) {
                return Some(TurnedAway::AddressLimit);
            }
        }
        let most = limits.connections;
        let (part, at_most) = SPARE;
        let spare = (most / part).clamp(1, at_most);
        let (count, leaving) = (connections.count(), connections.leaving());
        if count < most || count < most + leaving.min(spare) {
            return None;
        }
        let has_room = leaving < spare && self.make_room(None);
        if has_room {
            self.report(|| {
                format!("the limit of {most} connections is reached: those that are idle make room")
            });
        }
        (!has_room).then_some(TurnedAway::LimitReached)
    }

    /// Sends away who has been idle the longest, of those from there, if that is said. Says whether somebody was.
    fn make_room(&mut self, from: Option<Origin>) -> bool {
        let connections = &self.shared.ground.connections;
        if connections.make_room(&mut self.door.candidates, from, self.now) {
            self.go_on_soon();
            return true;
        }
        let began = Instant::now();
        if self.door.next_search.is_some_and(|it| began < it) {
            return false;
        }
        self.door.candidates = connections.candidates(self.now);
        self.door.next_search = Some(began + began.elapsed() * SEARCH_PAUSE);
        let has_room = connections.make_room(&mut self.door.candidates, from, self.now);
        if has_room {
            self.go_on_soon();
        }
        has_room
    }

    /// Whether this listener is left alone because of the handshakes that are under way.
    fn holds_handshakes_up(&self, index: usize) -> bool {
        let is_paused = self.door.handshakes_paused_until.is_some();
        is_paused && self.shared.listening.lock().is_encrypted(index)
    }

    /// Ends the pause of the listeners where TLS is spoken, if a handshake is over.
    pub(super) fn take_handshakes_again(&mut self) {
        let connections = &self.shared.ground.connections;
        if connections.handshakes() < self.shared.limits.handshakes {
            self.door.handshakes_paused_until = None;
        }
    }
}

/// Whether the process, or the system, has no descriptor left.
fn is_want_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}
