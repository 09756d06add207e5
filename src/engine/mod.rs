//! The engine: gRPC C-core, made safe to use from threads that block.
//!
//! Everything unsafe of the crate is below this module. What it offers upwards
//! is small: an [`Engine`] that is told to start, drain, cancel and stop, a
//! [`Host`] that runs handlers, and [`Call`]s to run them on. It knows nothing of
//! phases or signals.

mod bytes;
mod call;
mod connections;
mod drain;
mod housekeeper;
mod library;
mod memory;
mod observer;
mod pace;
mod peer_name;
mod poll;
mod queue;
mod requests;
mod roster;
mod server;
mod shim;
mod timers;
#[cfg(feature = "tls")]
mod tls;

use std::collections::HashMap;
use std::ffi::c_void;
use std::fmt;
use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::thread::JoinHandleExt;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use grpcio::{Channel, ChannelBuilder, Environment};
use parking_lot::{Condvar, Mutex};

pub(crate) use self::bytes::{Compression, Message, Outgoing};
pub(crate) use self::call::{Call, Ending, Handled, Landed, Received, Retry, SendError, Wait};
pub(crate) use self::drain::Times as DrainTimes;
pub(crate) use self::memory::bound_arenas;
pub(crate) use self::observer::{Connection, Moved, Observer, Record, Refusal, TurnedAway};
pub(crate) use self::server::quarter_of_memory;

use self::connections::Connections;
use self::library::LogLimit;
use self::memory::Heap;
use self::pace::Pace;
use self::poll::{Job, Seat};
use self::queue::Queue;
use self::requests::Slot;
pub(crate) use self::roster::Load;
use self::roster::{Backlog, Beginning, Roster};
use self::server::Server;
use self::timers::Timers;
use crate::logging;
use crate::os::wake::Wake;
use crate::running_time::{RunningTime, SLICE};
use crate::sockets::address::Address;
use crate::sockets::inherited::Inherited;
use crate::sockets::listener::Listener;
use crate::sockets::listeners::Listeners;
use crate::sockets::BoundSocket;

/// The status codes that the engine gives by itself.
const CANCELLED: i32 = 1;
const DEADLINE_EXCEEDED: i32 = 4;
const RESOURCE_EXHAUSTED: i32 = 8;
const UNIMPLEMENTED: i32 = 12;
const INTERNAL: i32 = 13;
const UNAVAILABLE: i32 = 14;

/// How many calls C-core may take in before a thread has come to fetch one. It
/// is a matter of overlap, not of capacity; many slow the shutdown down.
const SLOTS: usize = 16;

/// From how many calls in flight on they are many; measured with h2load.
const CROWD: usize = 4;

/// Over how many milliseconds clients are told to spread their retries.
const PUSHBACK_SPREAD: u32 = 100;

/// How many threads poll at the most, and for how many connections each, while calls are many.
/// Threads that poll for few connections get into each other's way in C-core, which does what
/// concerns one connection on one thread at a time: with two connections, one thread does 1.4 times
/// as much as two, with 50 three do 1.1 times as much as one. Measured with h2load on two cores.
const POLLERS: usize = 3;
const CONNECTIONS_EACH: usize = 16;

/// The end of a call that a server going down has not run, or may be run again.
const SHUTTING_DOWN: Ending<'static> = Ending {
    code: UNAVAILABLE,
    message: "the server is shutting down",
    details: &[],
    retry: Retry::Soon,
};

/// Who runs the handlers.
pub(crate) trait Host: Send + Sync + 'static {
    /// A call has arrived, and is in flight from now on.
    fn arrived(&self);

    /// Runs a call to its end, or detaches it; on a thread that may block. It
    /// must not panic, and must finish the call or have somebody else do so.
    fn run(&self, call: &Arc<Call>, message: Option<Message>);

    /// The engine has refused a call, which will land by itself.
    fn refused(&self, call: &Arc<Call>);

    /// A call has landed: its status is with the kernel and nobody works on it.
    fn landed(&self, call: &Arc<Call>, landed: Landed);

    /// Who is told of each call and connection; asked once, at the start.
    fn observer(&self) -> Option<Arc<dyn Observer>> {
        None
    }

    /// How many calls are in flight.
    fn in_flight(&self) -> usize;

    /// A message that was sent with [`Call::send_and_tell`] is on its way.
    fn sent(&self, call: &Arc<Call>);

    /// The clients have had the time to hear of a drain, and to go.
    fn clients_know(&self);

    /// So many connections were cut on which something may have been lost, with so many answers that had
    /// been given to the kernel and have not reached the peer's. Their calls have landed already.
    fn cut(&self, connections: u64, answers: u64);

    /// A drain is over: no connection is left that could bring a call.
    fn drained(&self);
}

/// A call that somebody is at work on.
pub(crate) struct Running {
    call: Arc<Call>,
    since: Instant,
    whereabouts: String,
}

impl Running {
    fn new(call: &Arc<Call>, since: Instant, whereabouts: &str) -> Running {
        Running {
            call: Arc::clone(call),
            since,
            whereabouts: whereabouts.to_owned(),
        }
    }
}

impl fmt::Display for Running {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, peer) = (self.call.path(), self.call.peer());
        let seconds = self.since.elapsed().as_secs_f64();
        write!(
            formatter,
            "{path} of {peer} for {seconds:.1}s {}",
            self.whereabouts
        )
    }
}

/// A method to be served.
pub(crate) struct Method {
    /// `/package.Service/Method`
    pub(crate) path: String,
    pub(crate) streaming_request: bool,
    pub(crate) streaming_response: bool,
    /// Its calls are answered on the thread that polls, whether a worker is free or not, so what runs
    /// must not block. They are not counted as in flight, and the host is not told of their end.
    pub(crate) prompt: bool,
    /// A call with less time than this left is not begun.
    minimum: Duration,
    /// What holds for its calls from the beginning of a drain on.
    limit: OnceLock<Limit>,
    handle: *mut c_void,
    pace: Pace,
}

/// The time that calls of a method have in a drain.
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    /// When it is over; `None` if it never is.
    pub(crate) at: Option<Instant>,
    /// Whether calls that have not ended by then are ended with UNAVAILABLE. If not, it is for
    /// others to say when they have to go.
    pub(crate) cut: bool,
}

impl Limit {
    fn is_over(&self, now: Instant) -> bool {
        self.cut && self.at.is_some_and(|at| at <= now)
    }
}

// SAFETY: the handle is a name that C-core reads.
unsafe impl Send for Method {}
// SAFETY: as above.
unsafe impl Sync for Method {}

impl Method {
    pub(crate) fn new(
        path: String,
        streaming_request: bool,
        streaming_response: bool,
        minimum: Duration,
    ) -> Method {
        Method {
            path,
            streaming_request,
            streaming_response,
            prompt: false,
            minimum,
            limit: OnceLock::new(),
            handle: std::ptr::null_mut(),
            pace: Pace::default(),
        }
    }

    fn is_streaming(&self) -> bool {
        self.streaming_request || self.streaming_response
    }

    fn handle(&self) -> *mut c_void {
        self.handle
    }
}

pub(crate) struct Config {
    pub(crate) methods: Vec<Method>,
    pub(crate) listeners: Vec<Listener>,
    /// Whether connections are accepted from the beginning, and not only after
    /// [`Engine::accept`].
    pub(crate) accepting: bool,
    /// C-core's channel arguments.
    pub(crate) settings: Vec<(&'static str, i32)>,
    /// How many handlers may run at a time.
    pub(crate) workers: usize,
    /// How large the stacks of the threads that run handlers are, in bytes; Rust's default if it is not set.
    pub(crate) stack_size: Option<usize>,
    /// How many calls may wait for a worker.
    pub(crate) backlog: usize,
    /// How many calls of prompt methods may be open.
    pub(crate) prompt_calls: usize,
    /// How many connections may be open.
    pub(crate) connections: usize,
    /// How much memory, in bytes, may be taken for requests that arrive or wait.
    pub(crate) memory: usize,
    /// How long a peer may leave unanswered what it is sent.
    pub(crate) unanswered: Duration,
    /// How long a new connection may stay silent.
    pub(crate) handshake: Duration,
}

/// What every thread of the engine, and every call, holds on to.
struct Shared {
    // In the order in which they have to go: the server before the queue.
    server: Server,
    queue: Queue,
    methods: Vec<Method>,
    roster: Roster<Job>,
    stack_size: Option<usize>,
    seats: Mutex<Vec<Arc<Seat>>>,
    /// Calls that go on without a worker, and since when, by their address.
    detached: Mutex<HashMap<usize, (Arc<Call>, Instant)>>,
    /// As many as `detached` has; a number to compare with, no more.
    detached_count: AtomicUsize,
    /// Calls of prompt methods that have not landed, and how many there may be.
    prompt_calls: AtomicUsize,
    prompt_limit: usize,
    /// How many calls may have been answered without their callers having taken the answer.
    unwritten_limit: usize,
    unanswered_limit: Duration,
    /// Slots that C-core has, and those whose event somebody is at work on. As long as there
    /// are any, something may be begun on the queue.
    slots_out: AtomicUsize,
    /// What is in flight has been told to stop, and what arrives from now on is refused.
    told_to_stop: AtomicBool,
    timers: Timers,
    heap: Heap,
    connections: Arc<Connections>,
    listening: Mutex<Listeners>,
    wake: Arc<Wake>,
    host: Arc<dyn Host>,
    observer: Option<Arc<dyn Observer>>,
    threads: Mutex<Threads>,
    /// Signalled when the last thread of the engine is about to end.
    all_ended: Condvar,
    /// A drain, or the stop, was asked for: whoever lands the last call, or ends
    /// a connection, has to wake the housekeeper.
    leaving: AtomicBool,
    /// Set before `leaving`, for a drain.
    drain_times: OnceLock<DrainTimes>,
    /// When the drain began, and how much time counts since: only that in which the process runs. The thread that
    /// accepts reads it once in a [`SLICE`] at the least.
    drain_clock: OnceLock<(Instant, Mutex<RunningTime>)>,
    stopping: AtomicBool,
    refusals: Mutex<Refusals>,
    /// What the next client is told to wait, in milliseconds, before it tries elsewhere.
    pushback: AtomicU32,
}

/// Keeps an overload from flooding the log.
#[derive(Default)]
struct Refusals {
    last_logged: Option<Instant>,
    since: u64,
}

#[derive(Default)]
struct Threads {
    running: usize,
    handles: Vec<JoinHandle<()>>,
}

/// Ends the process if a thread of the engine panics. That is a bug of this crate (what a handler
/// does is caught), and without the thread calls would hang, for ever and without a word.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        logging::error!("a thread of touchdown's engine panicked: aborting");
        std::process::abort();
    }
}

impl Shared {
    fn landed(&self, call: &Arc<Call>) {
        if self.is_prompt(call) {
            self.prompt_calls.fetch_sub(1, Ordering::Relaxed);
            if self.observer.is_some() {
                self.ended(call, call.outcome());
            }
            return;
        }
        let landed = call.outcome();
        // One that was abandoned has ended then.
        if landed != Landed::Abandoned {
            self.ended(call, landed);
        }
        self.host.landed(call, landed);
        // Pairs with the store in `Engine::drain`: either that sees the count that
        // `landed` has just changed, or this sees the flag.
        if self.leaving.load(Ordering::SeqCst) && self.host.in_flight() == 0 {
            self.wake.wake();
        }
    }

    /// Tells the observer of a call's end.
    fn ended(&self, call: &Arc<Call>, landed: Landed) {
        if let Some(observer) = &self.observer {
            observer.ended(call, landed);
        }
    }

    /// Starts another worker, for calls that are many at once. False if there can be no thread.
    fn spawn_worker(self: &Arc<Self>, beginning: Beginning) -> bool {
        static LIMIT: LogLimit = LogLimit::new();
        match self.start_worker(beginning) {
            Ok(()) => self.heap.use_much(),
            Err(error) => {
                if LIMIT.admits().is_some() {
                    logging::error!("{error}");
                }
                return false;
            }
        };
        true
    }

    /// Lets workers end that rest, and puts others in the place of those that are needed at all times: with a thread
    /// goes what malloc keeps free for it, in small pieces all over the heap.
    fn renew_threads(self: &Arc<Self>) {
        shim::touchdown_renew_threads();
        self.queue.renew();
        if !self.start_replacement(Beginning::Relieve) {
            self.roster.dismiss();
        }
    }

    /// Starts a worker in the place of another. False if there can be no thread, and then the other one stays.
    fn start_replacement(self: &Arc<Self>, beginning: Beginning) -> bool {
        let started = self.start_worker(beginning);
        started
            .inspect_err(|error| logging::debug!("{error}"))
            .is_ok()
    }

    fn start_worker(self: &Arc<Self>, beginning: Beginning) -> io::Result<()> {
        let mut thread = std::thread::Builder::new().name("td-worker".to_owned());
        if let Some(size) = self.stack_size {
            thread = thread.stack_size(size);
        }
        self.spawn(thread, move |shared| poll::run(shared, beginning))
    }

    fn spawn(
        self: &Arc<Self>,
        thread: std::thread::Builder,
        body: impl FnOnce(&Arc<Shared>) + Send + 'static,
    ) -> io::Result<()> {
        let shared = Arc::clone(self);
        let mut threads = self.threads.lock();
        let handle = thread.spawn(move || {
            let bomb = Bomb;
            body(&shared);
            std::mem::forget(bomb);
            let mut threads = shared.threads.lock();
            threads.running -= 1;
            if threads.running == 0 {
                shared.all_ended.notify_all();
            }
        });
        let handle = handle.map_err(|error| {
            let message = format!(
                "cannot start a thread: {error}; {}",
                memory::ROOM_FOR_THREADS
            );
            io::Error::new(error.kind(), message)
        })?;
        threads.running += 1;
        threads.handles.push(handle);
        Ok(())
    }

    /// Frees what is left of threads that have ended. Waits for none: a handler's thread-local value may take its
    /// time to be dropped.
    fn join_ended(&self) {
        let has_ended = |thread: &JoinHandle<()>| {
            // SAFETY: nobody else has joined or detached this thread, since its handle is here.
            unsafe { libc::pthread_tryjoin_np(thread.as_pthread_t(), ptr::null_mut()) == 0 }
        };
        let mut threads = self.threads.lock();
        let handles = std::mem::take(&mut threads.handles);
        let (ended, left): (Vec<_>, _) = handles.into_iter().partition(has_ended);
        threads.handles = left;
        // Joined already: their handles must not do it again, nor detach them.
        ended.into_iter().for_each(|it| _ = it.into_pthread_t());
    }

    /// Logs, once a second at the most, that calls are refused.
    fn log_refusal(&self, path: &str, now: Instant) {
        let mut refusals = self.refusals.lock();
        refusals.since += 1;
        let last = refusals.last_logged;
        if last.is_none_or(|it| now.saturating_duration_since(it) >= Duration::from_secs(1)) {
            logging::warn!(
                "{} calls refused, the last to {path}: all workers are busy and the backlog is full",
                refusals.since
            );
            *refusals = Refusals {
                last_logged: Some(now),
                since: 0,
            };
        }
    }

    fn method(&self, call: &Call) -> Option<&Method> {
        call.method().map(|it| &self.methods[it as usize])
    }

    fn is_prompt(&self, call: &Call) -> bool {
        self.method(call).is_some_and(|it| it.prompt)
    }

    fn expects_stream(&self, call: &Call) -> bool {
        self.method(call).is_some_and(|it| it.streaming_request)
    }

    /// Why a call that has just arrived is not to be run, if so. `in_flight` counts it already.
    fn reason_to_refuse(&self, call: &Call, in_flight: usize) -> Option<Refusal> {
        if let Some(why) = self.no_time_for(call) {
            return Some(why);
        }
        let detached = self.detached_count.load(Ordering::Relaxed);
        // No more than this run or wait, so only then is it worth a closer look.
        if in_flight > detached.saturating_add(self.unwritten_limit)
            && in_flight.saturating_sub(detached + self.roster.busy()) > self.unwritten_limit
        {
            return Some(Refusal::AnswersNotTaken);
        }
        None
    }

    /// Why there is no time left to run a call, if so.
    fn no_time_for(&self, call: &Call) -> Option<Refusal> {
        let method = self.method(call)?;
        let limit = method.limit.get();
        let is_over = |limit: &Limit| limit.is_over(self.drain_now());
        if limit.is_some_and(is_over) || self.told_to_stop.load(Ordering::SeqCst) {
            return Some(Refusal::ShuttingDown);
        }
        if method.minimum.is_zero() {
            return None;
        }
        let is_short = |left: Option<Duration>| left.is_some_and(|it| it < method.minimum);
        if is_short(call.time_to_deadline()) {
            return Some(Refusal::DeadlineTooNear);
        }
        is_short(call.time_remaining()).then_some(Refusal::ShutdownTooNear)
    }

    /// What a client is told to wait before it retries, in milliseconds; negative if it is not to.
    fn pushback(&self, retry: Retry) -> Option<i64> {
        match retry {
            Retry::Unsaid => None,
            Retry::Never => Some(-1),
            Retry::Soon => {
                let turn = self.pushback.fetch_add(1, Ordering::Relaxed);
                // Calls that end together are retried one after the other: 37 and 100 have no
                // common divisor, so a hundred of them wait for a hundred different times. None of
                // them is 0, with which grpcio 1.85 (C-core's client) waits for ever.
                Some((1 + turn.wrapping_mul(37) % PUSHBACK_SPREAD).into())
            }
        }
    }

    /// The present, by a clock that goes slower by the time in which the process has stood still since the drain
    /// began. The limits of methods are of this clock.
    fn drain_now(&self) -> Instant {
        match self.drain_clock.get() {
            Some((began, time)) => {
                let mut time = time.lock();
                // Under the lock, so that no time is older than the one before it.
                *began + time.pass(Instant::now(), SLICE)
            }
            None => Instant::now(),
        }
    }

    /// Ends the calls whose time in the drain is over. Returns how long it is until the next one's is.
    fn cut_late_calls(&self) -> Option<Duration> {
        let now = self.drain_now();
        let limits = self.methods.iter().filter_map(|it| it.limit.get());
        let cuts = limits.filter(|it| it.cut).filter_map(|it| it.at);
        let next = cuts.clone().filter(|at| *at > now).min();
        if cuts.clone().any(|at| at <= now) {
            let is_late = |call: &Call| {
                let limit = self.method(call).and_then(|it| it.limit.get());
                limit.is_some_and(|it| it.is_over(now))
            };
            for job in self.roster.take_waiting(|job| is_late(job.call())) {
                job.refuse_to_run(self);
            }
            let late = self.open_calls().into_iter().filter(|it| is_late(it));
            let cut = late.filter(|call| call.cut(SHUTTING_DOWN)).count();
            if cut > 0 {
                logging::info!("cut {cut} calls whose time in the drain is over");
            }
        }
        next.map(|at| at.saturating_duration_since(now))
    }

    /// Whether many calls are in flight.
    fn is_crowded(&self) -> bool {
        self.host.in_flight() >= CROWD
    }

    /// How many threads should poll.
    fn pollers(&self, crowded: bool) -> usize {
        match crowded {
            true => (self.connections.count() / CONNECTIONS_EACH).clamp(1, POLLERS),
            false => 1,
        }
    }

    /// Every call that has not ended, as far as anybody could still be at work on it.
    fn open_calls(&self) -> Vec<Arc<Call>> {
        let seats = self.seats.lock();
        let running = seats.iter().filter_map(|seat| seat.call());
        let mut calls: Vec<_> = running.collect();
        let detached = self.detached.lock();
        calls.extend(detached.values().map(|(call, _)| Arc::clone(call)));
        calls
    }
}

/// Spares the process the end of C-core, which joins threads: time that nobody is to wait for when
/// the process itself is about to end.
pub(crate) fn keep_core() {
    library::Library::keep();
}

/// Ends the thread of C-core's that a program does not need, which may have been started with a
/// client. C-core must be in use.
pub(crate) fn end_spare_threads() {
    // SAFETY: of the caller's making, C-core is started, and stays so for the length of this call.
    unsafe { shim::touchdown_end_spare_threads() }
}

/// A running server.
pub(crate) struct Engine {
    shared: Arc<Shared>,
    addresses: Vec<Address>,
}

impl Engine {
    /// Starts to serve.
    pub(crate) fn start(mut config: Config, host: Arc<dyn Host>) -> io::Result<Engine> {
        bound_arenas();
        memory::check_room_for_core()?;
        let wake = Arc::new(Wake::new()?);
        let queue = Queue::new();
        let server = Server::new(queue.as_raw(), &config.settings, config.memory);
        for method in &mut config.methods {
            let with_message = !method.streaming_request;
            method.handle = server.register(&method.path, with_message).ok_or_else(|| {
                let message = format!("C-core refuses the method {}", method.path);
                io::Error::new(io::ErrorKind::InvalidInput, message)
            })?;
        }
        let addresses = config
            .listeners
            .iter()
            .map(|it| it.address().clone())
            .collect();
        let observer = host.observer();
        let shared = Arc::new(Shared {
            server,
            queue,
            methods: config.methods,
            roster: Roster::new(
                config.workers,
                Backlog {
                    calls: config.backlog,
                    // What waits must not starve what arrives.
                    bytes: config.memory / 2,
                },
            ),
            stack_size: config.stack_size,
            unwritten_limit: config.workers.saturating_add(config.backlog),
            unanswered_limit: config.unanswered,
            seats: Mutex::default(),
            detached: Mutex::default(),
            detached_count: AtomicUsize::new(0),
            prompt_calls: AtomicUsize::new(0),
            prompt_limit: config.prompt_calls,
            slots_out: AtomicUsize::new(0),
            told_to_stop: AtomicBool::new(false),
            timers: Timers::new(Arc::clone(&wake)),
            heap: Heap::default(),
            connections: Arc::new(Connections::new(Arc::clone(&wake), observer.clone())),
            listening: Mutex::new(Listeners::new(config.listeners, config.accepting)),
            wake,
            host,
            observer,
            threads: Mutex::default(),
            all_ended: Condvar::new(),
            leaving: AtomicBool::new(false),
            drain_times: OnceLock::new(),
            drain_clock: OnceLock::new(),
            stopping: AtomicBool::new(false),
            refusals: Mutex::default(),
            pushback: AtomicU32::new(0),
        });
        shared.server.start();
        let prompt = shared.methods.iter().filter(|it| it.prompt).count();
        let slots_each = (SLOTS / (shared.methods.len() - prompt).max(1)).clamp(2, 8);
        for (number, method) in (0..).zip(&shared.methods) {
            let slots = if method.prompt { 1 } else { slots_each };
            (0..slots).for_each(|_| Slot::new(Some(number)).lay_out(&shared));
        }
        (0..2).for_each(|_| Slot::new(None).lay_out(&shared));
        let engine = Engine { shared, addresses };
        let (limit, handshake) = (config.connections, config.handshake);
        let thread = std::thread::Builder::new().name("td-accept".to_owned());
        let shared = Arc::clone(&engine.shared);
        let keeper = shared.spawn(thread, move |shared| {
            housekeeper::run(shared, limit, handshake)
        });
        let keeps_house = keeper.is_ok();
        let started = keeper
            .and_then(|()| shared.start_worker(Beginning::Rest))
            .and_then(|()| shared.start_worker(Beginning::Poll));
        if let Err(error) = started {
            drop(engine);
            // Somebody has to shut the server down, and somebody to poll for that.
            if !keeps_house {
                housekeeper::run(&shared, limit, handshake);
            }
            poll::run(&shared, Beginning::Poll);
            return Err(error);
        }
        Ok(engine)
    }

    /// Where the server listens; with the real port where port 0 was asked for.
    pub(crate) fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.count()
    }

    /// Begins to accept connections, if that was not so from the start.
    pub(crate) fn accept(&self) {
        self.shared.listening.lock().accept();
        self.shared.wake.wake();
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
        self.shared.wake.wake();
        Ok(socket)
    }

    /// A client of this server, over [`connect`](Self::connect).
    ///
    /// # Errors
    ///
    /// As there.
    pub(crate) fn channel(&self) -> io::Result<Channel> {
        let socket = UnixStream::from(self.connect()?);
        socket.set_nonblocking(true)?;
        let socket = socket.into_raw_fd();
        let environment = Arc::new(Environment::new(1));
        // SAFETY: a connected socket, non-blocking, which nobody else has.
        Ok(unsafe { ChannelBuilder::new(environment).connect_from_fd("touchdown", socket) })
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
        self.shared.wake.wake();
    }

    /// Stops listening, sends clients away, serves what is on the wire within the limits, one for
    /// each method; then says `Host::drained`. Returns at once.
    pub(crate) fn drain(&self, limits: impl IntoIterator<Item = Limit>, times: DrainTimes) {
        let _ = self.shared.drain_times.set(times);
        let now = Instant::now();
        let clock = (now, Mutex::new(RunningTime::begin(now)));
        let _ = self.shared.drain_clock.set(clock);
        for (method, limit) in self.shared.methods.iter().zip(limits) {
            method.limit.get_or_init(|| limit);
        }
        self.shared.leaving.store(true, Ordering::SeqCst);
        self.shared.wake.wake();
        for call in self.shared.open_calls() {
            call.tell_of_drain();
        }
    }

    /// Tells every call that it has to end. Returns how many were told.
    pub(crate) fn tell_to_stop(&self) -> usize {
        self.shared.told_to_stop.store(true, Ordering::SeqCst);
        self.shared.wake.wake();
        let dropped = self.refuse_waiting();
        let calls = self.shared.open_calls();
        dropped + calls.iter().filter(|call| call.tell_to_stop()).count()
    }

    fn refuse_waiting(&self) -> usize {
        let waiting = self.shared.roster.take_waiting(|_| true);
        let dropped = waiting.len();
        for job in waiting {
            job.refuse_to_run(&self.shared);
        }
        dropped
    }

    /// Ends every call that is left with UNAVAILABLE, whatever its handler does.
    /// Returns their methods.
    pub(crate) fn abandon_calls(&self) -> Vec<String> {
        self.shared.told_to_stop.store(true, Ordering::SeqCst);
        self.refuse_waiting();
        let calls = self.shared.open_calls();
        let abandoned = calls.iter().filter(|call| {
            call.abandon(Ending {
                message: "the server is shutting down and could not wait for the call's end",
                retry: Retry::Never,
                ..SHUTTING_DOWN
            })
        });
        abandoned.map(|call| call.path().to_owned()).collect()
    }

    /// Makes the calling thread hold back what it writes for this server.
    #[cfg(all(test, feature = "client"))]
    pub(crate) fn hold_back(&self) {
        self.shared.server.cork();
    }

    /// What the handlers are at that have not returned: a line for each, the oldest first, and
    /// under it the stack of its thread. Waits for no lock, and for no thread beyond `deadline`.
    pub(crate) fn stacks(&self, deadline: Instant) -> Vec<String> {
        let Some(seats) = self.shared.seats.try_lock().map(|it| it.clone()) else {
            return Vec::new();
        };
        poll::stacks(&seats, deadline)
    }

    /// What is running, the oldest first. Waits for no lock.
    pub(crate) fn running(&self) -> Vec<Running> {
        let mut running = Vec::new();
        if let Some(seats) = self.shared.seats.try_lock() {
            running.extend(seats.iter().filter_map(|seat| seat.running()));
        }
        if let Some(detached) = self.shared.detached.try_lock() {
            running.extend(
                detached
                    .values()
                    .map(|(call, since)| Running::new(call, *since, "detached")),
            );
        }
        running.sort_by_key(|it| it.since);
        running
    }

    /// How many workers are busy and how many calls wait for one, out of how many each.
    pub(crate) fn load(&self) -> Load {
        self.shared.roster.load()
    }

    /// Has a thread that polls do this next, if one does. It must not block, nor panic; and is dropped
    /// if the engine has stopped.
    pub(crate) fn check(&self, answer: impl FnOnce() + Send + 'static) {
        self.shared.queue.post(queue::Check(Box::new(answer)));
    }

    /// Shuts everything down, calls in flight included, and waits for the
    /// engine's threads to end. Says whether they did; a handler that does not
    /// return keeps its thread, and what it needs stays alive.
    pub(crate) fn stop(&self, deadline: Instant) -> bool {
        let shared = &self.shared;
        shared.leaving.store(true, Ordering::SeqCst);
        shared.stopping.store(true, Ordering::SeqCst);
        shared.wake.wake();
        let mut threads = shared.threads.lock();
        while threads.running > 0 {
            if shared
                .all_ended
                .wait_until(&mut threads, deadline)
                .timed_out()
            {
                return threads.running == 0;
            }
        }
        let handles = std::mem::take(&mut threads.handles);
        drop(threads);
        join(handles);
        true
    }
}

/// Waits for threads that have passed their last line. Only an engine's own thread is told so by itself,
/// and then cannot wait for it.
fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        if thread.thread().id() != std::thread::current().id() {
            let _ = thread.join();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.leaving.store(true, Ordering::SeqCst);
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.wake.wake();
    }
}
