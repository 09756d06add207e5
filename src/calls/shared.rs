//! What every thread of a server holds on to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::call::ground::Ground;
use super::call::Call;
use super::decision::Waits;
use super::leaving::Lasting;
use super::message::Message;
use super::refusals::Refusals;
use super::renewal::Heap;
use super::roster::Roster;
use super::seats::Seats;
use super::stream_threads::{Quiet, StreamThreads};
use super::threads::Threads;
use super::transport::Transport;
use super::waiting::Waiting;
use crate::sockets::accepted::Accepted;
use crate::sockets::listeners::Listeners;

/// From how many calls in flight on they are many; measured with h2load.
const CROWD: usize = 4;

/// How many threads poll at the most, and for how many connections each, while calls are many.
/// Threads that poll for few connections get into each other's way in the transport, which does what
/// concerns one connection on one thread at a time: with two connections, one thread does 1.4 times
/// as much as two, with 50 three do 1.1 times as much as one. Measured with h2load on two cores.
const POLLERS: usize = 3;
const CONNECTIONS_EACH: usize = 16;

pub(super) struct Shared {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) ground: Arc<Ground>,
    pub(super) roster: Roster<Job>,
    pub(super) streams: StreamThreads<Arc<Call>>,
    pub(super) seats: Seats,
    pub(super) threads: Arc<Threads>,
    pub(super) listening: Mutex<Listeners>,
    pub(super) heap: Heap,
    pub(super) limits: Limits,
    pub(super) refusals: Refusals,
    pub(super) waiting: Waiting,
    /// More threads rest than are needed: the thread that is woken for it takes that back.
    pub(super) has_surplus: AtomicBool,
    /// A call waits for a place, and streams hold some: that thread is to look, and takes it back.
    pub(super) is_relief_wanted: AtomicBool,
}

/// A call that is to be run.
pub(super) struct Job {
    pub(super) call: Arc<Call>,
    pub(super) message: Option<Message>,
    pub(super) queued: bool,
}

impl Waits for Job {
    fn connection(&self) -> u64 {
        self.call.noted_connection().unwrap_or_default()
    }

    fn is_stream(&self) -> bool {
        self.call.is_streaming()
    }
}

/// How much there may be.
pub(super) struct Limits {
    /// How many calls may have been answered without their callers having taken the answer.
    pub(super) unwritten: usize,
    /// How many connections may be open.
    pub(super) connections: usize,
    /// How long a peer may leave unanswered what it is sent.
    pub(super) unanswered: Duration,
    /// How long a new connection may stay silent.
    pub(super) handshake: Duration,
    /// For how long a stream may say nothing while another call of its connection waits for its place.
    pub(super) stall: Duration,
    /// How many TLS handshakes may be under way.
    pub(super) handshakes: usize,
    /// How many calls may be open on all connections.
    pub(super) open_calls: usize,
    /// How long a call may stand still for want of its client.
    pub(super) progress: Duration,
    /// How long connections may last, and those that come in from an open network.
    pub(super) lasting: Lasting,
    pub(super) lasting_public: Lasting,
}

impl Limits {
    /// How long this connection may last. The program's own to itself is not limited.
    pub(super) fn lasting(&self, accepted: &Accepted) -> Lasting {
        match accepted {
            it if it.info.is_own => Lasting::default(),
            it if it.is_public => self.lasting_public,
            _ => self.lasting,
        }
    }
}

impl Shared {
    /// Whether many calls are in flight, but for those that are quiet.
    pub(super) fn is_crowded(&self, in_flight: usize, quiet: Quiet) -> bool {
        self.at_work(in_flight) >= CROWD.saturating_add(quiet.streams)
    }

    /// How many of the calls in flight keep anybody busy: streams without a thread may be many, and quiet.
    pub(super) fn at_work(&self, in_flight: usize) -> usize {
        in_flight.saturating_sub(self.ground.detached.count())
    }

    /// A call waits for a place, and streams hold some.
    pub(super) fn want_relief(&self) {
        let wanted = &self.is_relief_wanted;
        if !wanted.load(Ordering::SeqCst) && !wanted.swap(true, Ordering::SeqCst) {
            self.ground.wake.wake();
        }
    }

    /// More threads rest than are needed.
    pub(super) fn note_surplus(&self) {
        if !self.has_surplus.swap(true, Ordering::Relaxed) {
            self.ground.wake.wake();
        }
    }

    /// How many threads should poll.
    pub(super) fn pollers(&self, crowded: bool, quiet: Quiet) -> usize {
        if !crowded {
            return 1;
        }
        let connections = self.ground.connections.count();
        let connections = connections.saturating_sub(quiet.connections);
        (connections / CONNECTIONS_EACH).clamp(1, POLLERS)
    }

    /// Every call that has not ended, as far as anybody could still be at work on it.
    pub(super) fn open_calls(&self) -> Vec<Arc<Call>> {
        let mut calls = self.seats.calls();
        // Some are there and here.
        calls.retain(|call| !self.ground.detached.has(call));
        calls.extend(self.ground.detached.calls());
        calls
    }

    /// Ends the transport, if nothing can be begun any more. Something may be begun on a call as long as its handler
    /// runs, and on one whose arrival somebody is at work on; and nothing may once the transport is at its end. To be
    /// called after everything that may have been the last to wait for.
    pub(super) fn end_transport_if_idle(&self) {
        // The roster is closed only when the server stops.
        if self.ground.stopping.is_stopped()
            && self.roster.is_closed_and_idle()
            && !self.transport.expects_arrivals()
        {
            self.transport.end();
        }
    }
}
