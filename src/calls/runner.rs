//! A server, as far as its calls go: started, drained, told to stop, and stopped.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::abandoned::{Abandoned, HOW_TO_FINISH};
use super::call::ground::Ground;
use super::decision::{Backlog, Beginning, Load};
use super::drain::Times;
use super::host::Host;
use super::leaving::Lasting;
use super::method::{Limit, Method};
use super::refusals::Refusals;
use super::renewal::Heap;
use super::roster::Roster;
use super::seats::{Running, Seats};
use super::shared::{Limits, Shared};
use super::stream_threads::StreamThreads;
use super::threads::Threads;
use super::transport::Transport;
use super::waiting::Waiting;
use super::{housekeeper, poll};
use crate::logging;
use crate::os::memory::bound_arenas;
use crate::os::wake::Wake;
use crate::sockets::address::Address;
use crate::sockets::inherited::Inherited;
use crate::sockets::listener::Listener;
use crate::sockets::listeners::Listeners;
use crate::sockets::BoundSocket;

pub(crate) struct Config {
    /// Those of the transport, in the same order.
    pub(crate) methods: Vec<Method>,
    pub(crate) listeners: Vec<Listener>,
    /// Whether connections are accepted from the beginning, and not only after
    /// [`Runner::accept`].
    pub(crate) accepting: bool,
    /// How many handlers may run at a time.
    pub(crate) workers: usize,
    /// How large the stacks of the threads that run handlers are, in bytes; Rust's default if it is not set.
    pub(crate) stack_size: Option<usize>,
    /// How many handlers of streams may go on without being counted among those, once they have waited for
    /// their callers.
    pub(crate) stream_threads: usize,
    /// For how long a stream may say nothing while another call of its connection waits for its place.
    pub(crate) stall: Duration,
    /// How many calls may wait for a worker.
    pub(crate) backlog: usize,
    /// How many bytes their messages may take, all together.
    pub(crate) backlog_bytes: usize,
    /// How many calls of prompt methods may be open.
    pub(crate) prompt_calls: usize,
    /// How many connections may be open.
    pub(crate) connections: usize,
    /// How long a peer may leave unanswered what it is sent.
    pub(crate) unanswered: Duration,
    /// How long a new connection may stay silent.
    pub(crate) handshake: Duration,
    /// How many TLS handshakes may be under way.
    pub(crate) handshakes: usize,
    /// As in the settings of the transport.
    pub(crate) open_calls: usize,
    /// How long a call may stand still for want of its client.
    pub(crate) progress: Duration,
    /// How long connections may last, and those that come in from an open network.
    pub(crate) lasting: Lasting,
    pub(crate) lasting_public: Lasting,
}

/// A running server.
pub(crate) struct Runner {
    shared: Arc<Shared>,
    addresses: Vec<Address>,
}

impl Runner {
    /// Starts to serve what the transport brings.
    ///
    /// # Errors
    ///
    /// If a thread or a descriptor cannot be had. Nothing runs any more then.
    pub(crate) fn start(
        transport: Arc<dyn Transport>,
        config: Config,
        host: Arc<dyn Host>,
    ) -> io::Result<Runner> {
        bound_arenas();
        let wake = Arc::new(Wake::new()?);
        let listeners = config.listeners.iter();
        let addresses = listeners.map(|it| it.address().clone()).collect();
        let backlog = Backlog {
            calls: config.backlog,
            bytes: config.backlog_bytes,
        };
        let shared = Arc::new(Shared {
            transport,
            ground: Arc::new(Ground::new(
                config.methods,
                config.prompt_calls,
                host,
                &wake,
            )),
            roster: Roster::new(config.workers, backlog),
            streams: StreamThreads::new(config.stream_threads),
            seats: Seats::default(),
            threads: Arc::new(Threads::new(config.stack_size)),
            listening: Mutex::new(Listeners::new(config.listeners, config.accepting)),
            heap: Heap::default(),
            limits: Limits {
                unwritten: config.workers.saturating_add(config.backlog),
                connections: config.connections,
                unanswered: config.unanswered,
                handshake: config.handshake,
                stall: config.stall,
                handshakes: config.handshakes,
                open_calls: config.open_calls,
                progress: config.progress,
                lasting: config.lasting,
                lasting_public: config.lasting_public,
            },
            refusals: Refusals::default(),
            has_surplus: AtomicBool::new(false),
            is_relief_wanted: AtomicBool::new(false),
            waiting: Waiting::default(),
        });
        shared.transport.start();
        let runner = Runner { shared, addresses };
        let shared = Arc::clone(&runner.shared);
        let accepts = thread::Builder::new().name("td-accept".to_owned());
        let of_keeper = Arc::clone(&shared);
        let keeps_house = move || housekeeper::run(&of_keeper);
        let keeper = shared.threads.spawn(accepts, keeps_house);
        let keeps_house = keeper.is_ok();
        let started = keeper
            .and_then(|()| shared.start_worker(Beginning::Rest))
            .and_then(|()| shared.start_worker(Beginning::Poll));
        if let Err(error) = started {
            drop(runner);
            // Somebody has to shut the transport down, and somebody to poll for that.
            if !keeps_house {
                housekeeper::run(&shared);
            }
            poll::run(&shared, Beginning::Poll);
            return Err(error);
        }
        Ok(runner)
    }

    /// Where the server listens; with the real port where port 0 was asked for.
    pub(crate) fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.ground.connections.count()
    }

    /// Begins to accept connections, if that was not so from the start.
    pub(crate) fn accept(&self) {
        self.shared.listening.lock().accept();
        self.shared.ground.wake.wake();
    }

    /// The paths of its unix sockets are its own from now on, if that was not so from the start.
    pub(crate) fn own_paths(&self) {
        self.shared.listening.lock().own_paths();
    }

    /// Connects to this server, past its sockets: the other end of the connection is served as if it
    /// had been accepted, whether anything is accepted yet or not.
    ///
    /// # Errors
    ///
    /// If there is no descriptor, or the server drains or has stopped.
    pub(crate) fn connect(&self) -> io::Result<OwnedFd> {
        let socket = self.shared.listening.lock().connect()?;
        self.shared.ground.wake.wake();
        Ok(socket)
    }

    /// Its listening sockets, for a successor to inherit. This server goes on as before.
    ///
    /// # Errors
    ///
    /// If there is no descriptor, or the server has stopped to listen.
    pub(crate) fn hand_over(&self) -> io::Result<Vec<Inherited>> {
        self.shared.listening.lock().hand_over()
    }

    /// Its listening sockets, but for those that the process was given: to be stored, so that the next
    /// process listens at once.
    ///
    /// # Errors
    ///
    /// If there is no descriptor, or the server has stopped to listen.
    pub(crate) fn sockets_to_store(&self) -> io::Result<Vec<BoundSocket>> {
        self.shared.listening.lock().store()
    }

    /// Sets whether a successor accepts on the sockets that were handed over. Their paths are its own
    /// then, and a drain leaves to it what it has not accepted.
    pub(crate) fn set_handed_over(&self, handed_over: bool) {
        self.shared.listening.lock().set_handed_over(handed_over);
        self.shared.ground.wake.wake();
    }

    /// Stops listening, sends clients away, serves what is on the wire within the limits, one for
    /// each method; then says `Host::drained`. Returns at once.
    pub(crate) fn drain(&self, limits: impl IntoIterator<Item = Limit>, times: Times) {
        let ground = &self.shared.ground;
        ground.stopping.begin_drain(times);
        for (method, limit) in ground.methods.iter().zip(limits) {
            method.begin_drain(limit);
        }
        ground.stopping.leave();
        ground.wake.wake();
        for call in self.shared.open_calls() {
            call.tell_of_drain();
        }
    }

    /// Tells every call that it has to end. Returns how many were told.
    pub(crate) fn tell_to_stop(&self) -> usize {
        self.shared.ground.stopping.tell();
        self.shared.ground.wake.wake();
        let dropped = self.shared.refuse_waiting();
        let calls = self.shared.open_calls();
        let told = calls.iter().filter(|call| call.tell_to_stop()).count();
        let unfinished = calls.iter().filter(|call| call.is_left_detached());
        let unfinished: BTreeSet<&str> = unfinished.map(|call| call.path()).collect();
        for path in unfinished {
            logging::warn!("{path}: a detached stream is not finished yet; {HOW_TO_FINISH}");
        }
        dropped + told
    }

    /// Ends every call that is left with UNAVAILABLE, whatever its handler does.
    /// Returns those that somebody is at work on still.
    pub(crate) fn abandon_calls(&self) -> Vec<Abandoned> {
        self.shared.ground.stopping.tell();
        self.shared.refuse_waiting();
        let calls = self.shared.open_calls();
        calls.iter().filter_map(Abandoned::try_from_call).collect()
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Makes the calling thread hold back what it writes for this server.
    #[cfg(all(test, feature = "client"))]
    pub(crate) fn hold_back(&self) {
        self.shared.transport.cork();
    }

    /// What the handlers are at that have not returned: a line for each, the oldest first, and
    /// under it the stack of its thread. Waits for no lock, and for no thread beyond `deadline`.
    pub(crate) fn stacks(&self, deadline: Instant) -> Vec<String> {
        self.shared.seats.stacks(deadline)
    }

    /// What is running, the oldest first. Waits for no lock.
    pub(crate) fn running(&self) -> Vec<Running> {
        let mut running = self.shared.seats.running();
        running.extend(self.shared.ground.detached.running());
        running.sort_unstable_by_key(|it| it.since);
        running
    }

    /// How many workers are busy and how many calls wait for one, out of how many each.
    pub(crate) fn load(&self) -> Load {
        self.shared.roster.load()
    }

    /// Has a thread that polls do this next, if one does. It must not block, nor panic; and is dropped
    /// if the server has stopped.
    pub(crate) fn check(&self, answer: impl FnOnce() + Send + 'static) {
        self.shared.transport.post(Box::new(answer));
    }

    /// Shuts everything down, calls in flight included, and waits for the
    /// server's threads to end. Says whether they did; a handler that does not
    /// return keeps its thread, and what it needs stays alive.
    pub(crate) fn stop(&self, deadline: Instant) -> bool {
        self.leave();
        self.shared.threads.join(deadline)
    }

    fn leave(&self) {
        self.shared.ground.stopping.stop();
        self.shared.ground.wake.wake();
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.leave();
    }
}
