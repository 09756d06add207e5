//! The thread that accepts connections, keeps the time of whatever has a time
//! limit, and takes the connections down.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connections::Cut;
use super::drain::{Calls, Patience};
use super::memory::{self, Due, Usage};
use super::observer::{Connection, TurnedAway};
use super::roster::{Beginning, Watched, TICK};
use super::{peer_name, poll, Shared};
use crate::logging;
use crate::os::wake::Wake;
use crate::running_time::{RunningTime, SLICE};
use crate::sockets::accepted::{is_of_connection, Accepted};
use crate::sockets::listener::QUEUE;

/// How often to look whether the peers' kernels have acknowledged the last
/// bytes, when that is all there is to wait for. No event says so. The longer it takes, the less often: each
/// time a sixteenth of what it has taken so far.
const DELIVERY_CHECK: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// How long to leave the listeners alone when no connection can be had from them, not even to be
/// closed, unless a connection of this server ends earlier.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long to do without a thread that could not be started.
const HIRING_PAUSE: Duration = Duration::from_millis(100);

/// How long after C-core has said that it closes a connection to try again: it does so right after.
const CLOSING_TIME: Duration = Duration::from_millis(1);

/// How many connections are accepted before something else gets its turn.
const ACCEPTED_AT_ONCE: usize = 64;

/// How often, at the most, it is logged why connections are not served.
const LOG_PAUSE: Duration = Duration::from_secs(1);

/// How long a drain waits for a connection on which nobody ever made a call: four round
/// trips (GOAWAY and ping, ack, final GOAWAY, FIN) as the kernel has measured
/// them, but at least and at most this. It begins with the last sign of life, which may be the kernel's own: it
/// acknowledges GOAWAY within 200 ms, so that a stop stays well below a second. A client that had a call on its way makes
/// it again by itself, since it is told that none was served.
const STRANGERS: (Duration, Duration) = (Duration::from_millis(400), Duration::from_millis(2500));

/// How long before the end of the grace period everybody is told the last call, so that they still hear it: a round
/// trip on a slow link, but never more than a quarter of the grace period.
const FAREWELL: Duration = Duration::from_secs(1);

pub(super) fn run(shared: &Arc<Shared>, limit: usize, handshake: Duration) {
    let mut keeper = Housekeeper {
        shared,
        limit,
        handshake,
        time: RunningTime::begin(Instant::now()),
        now: Duration::ZERO,
        meant: Duration::MAX,
        paused_until: None,
        drain: Drain::NotBegun,
        next_sweep: None,
        clients_know_at: None,
        reserve: None,
        reported: None,
        usage: Usage::default(),
        memory: memory::Keeper::default(),
    };
    // Now, while there are descriptors.
    keeper.refill_reserve();
    while !shared.stopping.load(Ordering::SeqCst) {
        keeper.turn();
    }
    shared.listening.lock().close();
    keeper.tell_of(shared.connections.cut_all());
    shared.server.shut_down(shared.queue.as_raw());
    shared.server.cancel_all_calls();
    keeper.tell_of(shared.connections.cut_all());
    keeper.tell_of(shared.connections.take_lost());
}

struct Housekeeper<'a> {
    shared: &'a Arc<Shared>,
    limit: usize,
    handshake: Duration,
    time: RunningTime,
    /// The time of this turn, which counts only while the process runs.
    now: Duration,
    /// How long it was meant to take what time has passed in since it was counted last: a wait, or nothing.
    meant: Duration,
    paused_until: Option<Instant>,
    drain: Drain,
    /// In running time.
    next_sweep: Option<Duration>,
    /// In a drain.
    clients_know_at: Option<Instant>,
    /// A descriptor that can be given up to accept, and close, a connection when there is no other.
    reserve: Option<Wake>,
    /// When it was last logged that connections are not served.
    reported: Option<Instant>,
    usage: Usage,
    memory: memory::Keeper,
}

enum Drain {
    NotBegun,
    /// GOAWAY is sent.
    Under {
        /// When, in running time.
        since: Duration,
        patience: Patience,
        /// Not to be looked at before: each connection that ends wakes this thread.
        next_look: Duration,
    },
    Done,
}

impl Housekeeper<'_> {
    /// Waits for something to do, and does it.
    fn turn(&mut self) {
        let now = Instant::now();
        self.now = self.time.pass(now, self.meant);
        let mut until = self.shared.timers.run(now);
        let mut at = |time: Option<Instant>| until = [until, time].into_iter().flatten().min();
        let is_draining = self.shared.leaving.load(Ordering::SeqCst);
        if !is_draining && self.next_sweep.is_some_and(|it| it <= self.now) {
            let next = self.shared.connections.sweep(self.now);
            // Time is counted in slices while it matters.
            self.next_sweep = next.map(|it| it.min(self.now.saturating_add(SLICE)));
        }
        if !is_draining {
            at(self.next_sweep.map(|it| now + self.until(it)));
        }
        at(self.paused_until);
        at(self.watch_workers(now));
        at(self.hire(now));
        match self.memory.due(&self.shared.heap, now) {
            Due::Nothing => {}
            Due::Dismissal => self.shared.renew_threads(),
            Due::GiveBack => {
                self.shared.join_ended();
                memory::give_back();
            }
        }
        at(self.memory.next_look());
        if is_draining {
            at(self
                .shared
                .cut_late_calls()
                .map(|left| now + left.min(SLICE)));
            at(self.go_on_draining(now));
            at(self.tell_when_clients_know(now));
        }
        self.wait(until);
    }

    /// Returns when to come again, if nobody calls earlier.
    fn watch_workers(&mut self, now: Instant) -> Option<Instant> {
        match self.shared.roster.watch(now) {
            Watched::Off => return None,
            Watched::On => {}
            Watched::Spawn => {
                if !self.shared.spawn_worker(Beginning::Poll) {
                    self.shared.roster.watch_failed(now);
                }
            }
        }
        // Should a handler be long while replies are held back, they go out now.
        self.shared.server.uncork_old();
        Some(now + TICK)
    }

    /// Starts the threads that could not be had when calls needed them. Returns when to come again, if that
    /// is so still.
    fn hire(&self, now: Instant) -> Option<Instant> {
        while self.shared.roster.hire() {
            if !self.shared.spawn_worker(Beginning::Finished) {
                self.shared.roster.hire_failed();
                poll::shut_queue_down_if_idle(self.shared);
                return Some(now + HIRING_PAUSE);
            }
        }
        None
    }

    /// How long until this running time, as far as may be waited at once.
    fn until(&self, time: Duration) -> Duration {
        time.saturating_sub(self.now).min(SLICE)
    }

    fn wait(&mut self, until: Option<Instant>) {
        let paused = self.paused_until.is_some_and(|it| it > Instant::now());
        if !paused {
            self.paused_until = None;
        }
        let mut sockets = vec![self.shared.wake.as_raw_fd()];
        if !paused {
            // Only this thread closes them.
            sockets.extend(self.shared.listening.lock().waited_for());
        }
        let mut waited: Vec<libc::pollfd> = sockets
            .into_iter()
            .map(|fd| libc::pollfd {
                fd,
                events: libc::POLLIN,
                revents: 0,
            })
            .collect();
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        self.meant = left.unwrap_or(Duration::MAX);
        let timeout = left.map_or(-1, |left| {
            // Rounded up: a poll that returns too early would spin.
            i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
        });
        // SAFETY: the array is ours, and so long.
        let ready = unsafe { libc::poll(waited.as_mut_ptr(), waited.len() as _, timeout) };
        // Before anybody is admitted, whose time begins now.
        self.now = self.time.pass(Instant::now(), self.meant);
        self.meant = Duration::ZERO;
        if ready <= 0 {
            return;
        }
        if waited[0].revents != 0 {
            self.shared.wake.clear();
            // A connection may have begun to linger.
            self.next_sweep = Some(self.now);
            self.take_given();
            if let Some(until) = &mut self.paused_until {
                if self.shared.connections.has_one_closed() {
                    *until = (*until).min(Instant::now() + CLOSING_TIME);
                }
            }
        }
        for (index, listener) in waited[1..].iter().enumerate() {
            if listener.revents != 0 {
                self.accept_from(index, ACCEPTED_AT_ONCE);
            }
        }
    }

    /// Accepts what there is, but no more than `most`: there are other things to do, and a
    /// flood must not keep the server from its end.
    fn accept_from(&mut self, index: usize, most: usize) {
        if self.reserve.is_none() {
            self.refill_reserve();
        }
        for _ in 0..most {
            let accepted = self.shared.listening.lock().accept_from(index);
            match accepted {
                Ok(Some(accepted)) => self.admit(accepted),
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
        self.reserve = None;
        let accepted = self.shared.listening.lock().accept_from(index);
        if let Ok(Some(accepted)) = &accepted {
            self.turn_away(accepted.peer, TurnedAway::NoDescriptor);
        }
        let accepted = accepted.map(|it| it.is_some());
        self.refill_reserve();
        accepted
    }

    fn turn_away(&self, peer: Option<SocketAddr>, why: TurnedAway) {
        let peer = &peer_name::address(peer);
        let event = Connection::Refused { peer, why };
        self.shared.connections.tell(event);
    }

    fn refill_reserve(&mut self) {
        self.reserve = Wake::new().ok();
    }

    fn pause(&mut self, error: &io::Error) {
        self.report(|| format!("cannot accept connections: {error}"));
        self.shared.connections.want_descriptor();
        self.paused_until = Some(Instant::now() + ACCEPT_PAUSE);
    }

    /// Logs why connections are not served, but not each time.
    fn report(&mut self, why: impl FnOnce() -> String) {
        let now = Instant::now();
        if self.reported.is_none_or(|it| now >= it + LOG_PAUSE) {
            logging::warn!("{}", why());
            self.reported = Some(now);
        }
    }

    /// Takes in the connections that the program has made to its own server.
    fn take_given(&mut self) {
        let given = self.shared.listening.lock().take_given();
        given.into_iter().for_each(|it| self.admit(it));
    }

    /// Begins to serve a connection, if there may be another.
    fn admit(&mut self, accepted: Accepted) {
        if self.shared.connections.count() >= self.limit {
            // Closing tells the client at once; leaving it in the kernel's
            // queue would let it wait for nothing.
            let limit = self.limit;
            self.turn_away(accepted.peer, TurnedAway::LimitReached);
            return self.report(|| {
                format!(
                    "the limit of {limit} connections is reached: closing new ones, this one from {}",
                    peer_name::address(accepted.peer)
                )
            });
        }
        let silent_until = self.now.saturating_add(self.handshake);
        // Soon, since most have spoken by then, and nobody is looked after any more.
        let sweep = silent_until.min(self.now.saturating_add(SLICE));
        self.next_sweep = Some(self.next_sweep.map_or(sweep, |it| it.min(sweep)));
        // This thread looks before it waits again, so nobody has to wake it.
        let _ = self.usage.connection(&self.shared.heap);
        let connections = &self.shared.connections;
        connections.add(self.shared, accepted, silent_until);
    }

    /// Tells the host what was cut. Where nothing was drained, because the program had not come to serve, nobody was
    /// promised anything; what is still running there is abandoned, and counted so.
    fn tell_of(&self, cut: Cut) {
        if cut.connections > 0 && !matches!(self.drain, Drain::NotBegun) {
            logging::warn!(
                "cut {} connections whose clients did not take or acknowledge all that they were sent, \
                 with {} answers that were sent and did not arrive",
                cut.connections,
                cut.answers
            );
            self.shared.host.cut(cut.connections, cut.answers);
        }
    }

    /// Returns when to come again, if that is not over.
    fn tell_when_clients_know(&mut self, now: Instant) -> Option<Instant> {
        if self.clients_know_at.take_if(|it| *it <= now).is_some() {
            self.shared.host.clients_know();
        }
        self.clients_know_at
    }

    /// Returns when to come again, if nobody calls earlier.
    fn go_on_draining(&mut self, now: Instant) -> Option<Instant> {
        let shared = self.shared;
        match &mut self.drain {
            Drain::NotBegun => {
                // What the kernel has already accepted for us is served, too.
                let queues = shared.listening.lock().own_queues();
                for index in 0..queues {
                    self.accept_from(index, QUEUE as usize);
                }
                let (given, has_successor) = {
                    let mut listening = shared.listening.lock();
                    (listening.close(), listening.is_handed_over())
                };
                given.into_iter().for_each(|it| self.admit(it));
                shared.connections.begin_drain();
                shared.server.send_goaways();
                let strangers =
                    (shared.connections.longest_round_trip() * 4).clamp(STRANGERS.0, STRANGERS.1);
                // Two round trips of the four, more or less.
                self.clients_know_at = Some(now + strangers / 4);
                let times = shared.drain_times.get().copied().unwrap_or_default();
                let grace = times.grace_period;
                let end = self.now.saturating_add(grace - FAREWELL.min(grace / 4));
                let patience = Patience {
                    strangers,
                    // Beside a successor nobody waits for this drain's end.
                    silence: match has_successor {
                        true => Duration::MAX,
                        false => times.peer_silence,
                    },
                    end,
                    hurry: None,
                };
                let since = self.now;
                self.drain = Drain::Under {
                    since,
                    patience,
                    next_look: since,
                };
                Some(now)
            }
            Drain::Under {
                since,
                patience,
                next_look,
            } => {
                if self.now < *next_look && shared.connections.count() > 0 {
                    return Some(now + (*next_look - self.now));
                }
                if shared.told_to_stop.load(Ordering::SeqCst) {
                    patience.hurry = Some(match shared.host.in_flight() {
                        0 => Calls::None,
                        _ => Calls::Running,
                    });
                }
                let began = Instant::now();
                let attended = shared.connections.attend(self.now, patience);
                // With many connections a look takes long, and must not take all of a processor.
                *next_look = self.now + began.elapsed() * 2;
                if attended.finished > 0 {
                    logging::info!(
                        "told {} clients that do not answer which of their calls is the last",
                        attended.finished
                    );
                }
                let (since, mut cut) = (*since, attended.cut);
                cut += shared.connections.take_lost();
                self.tell_of(cut);
                if attended.waited_for == 0 {
                    if shared.host.in_flight() > 0 {
                        // Whoever lands the last wakes this thread. But time is counted.
                        return Some(now + SLICE);
                    }
                    self.drain = Drain::Done;
                    shared.host.drained();
                    return None;
                }
                let mut next = attended.next.map_or(SLICE, |it| self.until(it));
                if attended.lingering > 0 {
                    let (least, most) = DELIVERY_CHECK;
                    next = next.min(((self.now - since) / 16).clamp(least, most));
                }
                Some(now + next)
            }
            Drain::Done => None,
        }
    }
}

/// Whether the process, or the system, has no descriptor left.
fn is_want_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}
