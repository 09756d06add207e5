//! The thread that accepts connections, keeps the time of whatever has a time
//! limit, and takes the connections down.

mod accept;
mod departures;
mod idle_streams;
mod relief;
mod take_down;

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::accept::{Door, ACCEPTED_AT_ONCE};
use self::departures::Departures;
use self::idle_streams::IdleStreams;
use self::take_down::Drain;
use super::decision::{Beginning, Watched};
use super::renewal::{Due, Excess, Keeper, Usage};
use super::roster::TICK;
use super::seconds::Seconds;
use super::shared::{Job, Shared};
use super::stream_threads::Stalled;
use crate::logging;
use crate::os::memory;
use crate::os::readable::wait_readable;
use crate::running_time::{RunningTime, SLICE};

/// How many threads that nobody needs end at once, and how long until the next do: a thread takes some 0.1 ms to end, on all
/// processors.
const DISMISSED_AT_ONCE: usize = 8;
const DISMISSAL_PAUSE: Duration = Duration::from_millis(10);

/// How long to do without a thread that could not be started.
const HIRING_PAUSE: Duration = Duration::from_millis(100);

pub(super) fn run(shared: &Arc<Shared>) {
    let mut keeper = Housekeeper {
        shared,
        time: RunningTime::begin(Instant::now()),
        now: Duration::ZERO,
        meant: Duration::MAX,
        // Now, while there are descriptors.
        door: Door::new(),
        drain: Drain::NotBegun,
        idle_streams: IdleStreams::default(),
        stalled: Stalled::default(),
        departures: Departures::default(),
        next_sweep: None,
        clients_know_at: None,
        usage: Usage::default(),
        memory: Keeper::default(),
        excess: Excess::default(),
        next_dismissal: None,
        next_relief: None,
    };
    let ground = &shared.ground;
    while !ground.stopping.is_stopped() {
        keeper.turn();
    }
    shared.listening.lock().close();
    keeper.tell_of(ground.connections.cut_all());
    shared.transport.shut_down();
    shared.transport.cancel_all_calls();
    keeper.tell_of(ground.connections.cut_all());
    keeper.tell_of(ground.connections.take_lost());
}

struct Housekeeper<'a> {
    shared: &'a Arc<Shared>,
    time: RunningTime,
    /// The time of this turn, which counts only while the process runs.
    now: Duration,
    /// How long it was meant to take what time has passed in since it was counted last: a wait, or nothing.
    meant: Duration,
    door: Door,
    drain: Drain,
    idle_streams: IdleStreams,
    stalled: Stalled,
    departures: Departures,
    /// In running time.
    next_sweep: Option<Duration>,
    /// In a drain.
    clients_know_at: Option<Instant>,
    usage: Usage,
    memory: Keeper,
    excess: Excess,
    /// When threads that nobody needs are to end next.
    next_dismissal: Option<Instant>,
    /// When to look for places that streams hold, at the earliest.
    next_relief: Option<Instant>,
}

impl Housekeeper<'_> {
    /// Waits for something to do, and does it.
    fn turn(&mut self) {
        let now = Instant::now();
        self.now = self.time.pass(now, self.meant);
        let ground = &self.shared.ground;
        let mut until = ground.timers.run(now, |call| call.expire());
        let mut at = |time: Option<Instant>| until = [until, time].into_iter().flatten().min();
        let is_draining = ground.stopping.is_leaving();
        if !is_draining && self.next_sweep.is_some_and(|it| it <= self.now) {
            let next = ground.connections.sweep(self.now);
            // Time is counted in slices while it matters.
            self.next_sweep = next.map(|it| it.min(self.now.saturating_add(SLICE)));
        }
        if !is_draining {
            at(self.next_sweep.map(|it| now + self.until(it)));
            at(self.send_away_who_has_to_go(now));
        }
        at(self.door.paused_until);
        at(self.door.handshakes_paused_until);
        at(self.admit_held());
        at(self.watch_workers(now));
        at(self.hire(now));
        at(self.dismiss_surplus(now));
        at(self.relieve(now));
        at(self.tell_who_waits(now));
        match self.memory.due(&self.shared.heap, now) {
            Due::Nothing => {}
            Due::Dismissal => self.shared.renew_threads(),
            Due::GiveBack => {
                self.shared.threads.join_ended();
                memory::give_back();
            }
        }
        at(self.memory.next_look());
        at(self.give_back_excess(now));
        if is_draining {
            at(self
                .shared
                .cut_late_calls()
                .map(|left| now + left.min(SLICE)));
            at(self.go_on_draining(now));
            at(self.tell_idle_streams(now));
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
        self.shared.transport.uncork_old();
        Some(now + TICK)
    }

    /// Starts the threads that could not be had when calls needed them. Returns when to come again, if that
    /// is so still.
    fn hire(&self, now: Instant) -> Option<Instant> {
        while self.shared.roster.hire() {
            if !self.shared.spawn_worker(Beginning::Finished) {
                self.shared.roster.hire_failed();
                self.shared.end_transport_if_idle();
                return Some(now + HIRING_PAUSE);
            }
        }
        None
    }

    /// Gives memory back if much of it is not used. Returns when to look again, if there was a burst.
    fn give_back_excess(&mut self, now: Instant) -> Option<Instant> {
        let is_burst = self.memory.next_look().is_some();
        let (is_much, next) = self.excess.is_much(is_burst, now, memory::unused);
        if is_much {
            memory::give_back();
            self.excess.given_back(memory::unused());
        }
        next
    }

    /// Lets threads end that nobody needs, a few at a time. Returns when to come again, if there are more.
    fn dismiss_surplus(&mut self, now: Instant) -> Option<Instant> {
        if self.shared.has_surplus.swap(false, Ordering::Relaxed) {
            self.next_dismissal.get_or_insert(now + DISMISSAL_PAUSE);
        }
        if self.next_dismissal.is_some_and(|it| it <= now) {
            let are_more = self.shared.roster.dismiss_surplus(DISMISSED_AT_ONCE) > 0;
            self.next_dismissal = are_more.then_some(now + DISMISSAL_PAUSE);
        }
        self.next_dismissal
    }

    /// Tells of calls that wait for a worker for too long. Returns when to look again, if any wait.
    fn tell_who_waits(&self, now: Instant) -> Option<Instant> {
        let shared = self.shared;
        let oldest = || {
            let arrived = |job: &Job| (job.call.path().to_owned(), job.call.arrived_at());
            shared.roster.next_waiting(arrived)
        };
        let (again, words) = shared.waiting.look(now, oldest)?;
        if let Some((path, waited)) = words {
            let load = shared.roster.load();
            let handlers = shared.seats.running().into_iter();
            let at_work = handlers.filter(|it| !it.waits_for_its_caller());
            let handler = at_work.min_by_key(|it| it.since);
            let handler = handler.map_or("not seen".to_owned(), |it| it.to_string());
            logging::warn!(
                "{} of {} handler threads are busy, and {} calls wait for one, the first for {}: {path}; the oldest handler: {handler}; \
                 ServerBuilder::workers sets how many there may be",
                load.running,
                load.workers,
                load.waiting,
                Seconds(waited),
            );
        }
        Some(again)
    }

    /// How long until this running time, as far as may be waited at once.
    fn until(&self, time: Duration) -> Duration {
        time.saturating_sub(self.now).min(SLICE)
    }

    fn wait(&mut self, until: Option<Instant>) {
        let is_open = self.door.is_open();
        let encrypted = self.door.takes_handshakes();
        let wake = &self.shared.ground.wake;
        let mut sockets = vec![wake.as_raw_fd()];
        let mut listeners = Vec::new();
        if is_open {
            // Only this thread closes them.
            let listening = self.shared.listening.lock();
            listeners.extend(listening.waited_for(encrypted).map(|it| it.0));
            sockets.extend(listening.waited_for(encrypted).map(|it| it.1));
        }
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        self.meant = left.unwrap_or(Duration::MAX);
        let readable = wait_readable(sockets, left).unwrap_or_default();
        // Before anybody is admitted, whose time begins now.
        self.now = self.time.pass(Instant::now(), self.meant);
        self.meant = Duration::ZERO;
        let Some((woken, readable)) = readable.split_first() else {
            return;
        };
        if *woken {
            wake.clear();
            let connections = &self.shared.ground.connections;
            if connections.has_one_to_linger.swap(false, Ordering::Relaxed) {
                // It may for longer than that.
                let soon = self.now.saturating_add(SLICE);
                self.next_sweep = Some(self.next_sweep.map_or(soon, |it| it.min(soon)));
            }
            self.take_given();
            self.take_handshakes_again();
            self.door.reopen_soon(&self.shared.ground.connections);
        }
        let ready = listeners.into_iter().zip(readable);
        for (index, _) in ready.filter(|(_, is_ready)| **is_ready) {
            self.accept_from(index, ACCEPTED_AT_ONCE);
        }
    }
}
