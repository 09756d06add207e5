//! The settings of a server.

mod launch;
mod limits;
mod start;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::client::Channel;
use crate::lifecycle::{self, Lifecycle, Remote};

use self::limits::Limits;
use super::companion::{Companion, OnListening};
use super::handle::{Server, ServerHandle};
use super::health::Health;
use super::interceptor::Interceptor;
use super::observer::CallObserver;
use super::service::Service;
use super::smoke_test::SmokeTest;
use crate::sockets::listen::Listen;

/// Collects what a [`Server`] is made of.
///
/// | setting | default | reason for the default |
/// |---|---|---|
/// | [`workers`](Self::workers) | 16 | handlers block, so more than there are cores; threads are started when needed, and end when they rest after a burst |
/// | [`stack_size`](Self::stack_size) | 2 MiB | as of all of Rust's threads: handlers may be of any kind |
/// | [`max_stream_threads`](Self::max_stream_threads) | as many as fit into `memory_limit` at 64 KiB each, 1,024 at the most (256 on 32-bit machines) | a thread that waits takes less than 64 KiB; their stacks' addresses, 2 MiB each, are half a gigabyte on 32-bit machines |
/// | [`stall_limit`](Self::stall_limit) | 10 s | a slow radio link is silent for some seconds; nobody waits for a worker much longer than that |
/// | [`backlog`](Self::backlog) | 1,024 calls | a burst on a few connections passes; at some 10 KiB a small call this is 10 MiB at the most |
/// | [`max_connections`](Self::max_connections) | 512 | half of 1,024, the usual limit of descriptors of a process |
/// | [`max_connections_per_address`](Self::max_connections_per_address) | as many as there may be | behind a proxy all clients have one address |
/// | [`max_connection_idle`](Self::max_connection_idle) | for ever | an idle connection costs some 16 KiB, and makes room when others want it |
/// | [`max_connection_age`](Self::max_connection_age) | for ever | as in every gRPC implementation |
/// | [`max_handshakes`](Self::max_handshakes) | 64 | at 5 ms a signature, on a small board, they hold calls up for a third of a second |
/// | [`max_concurrent_streams`](Self::max_concurrent_streams) | 250 | what one connection may keep the server from for a moment, and hold of its memory: 250 calls that say nothing are 2.4 MB. As in Go's HTTP/2; RFC 9113, 6.5.2 asks for no less than 100. The memory that all of them take is bounded by `memory_limit` |
/// | [`max_health_watches`](Self::max_health_watches) | two for each connection | a client watches one service of a server as a rule |
/// | [`max_receive_message_size`](Self::max_receive_message_size) | 4 MiB | as in every gRPC implementation |
/// | [`max_metadata_size`](Self::max_metadata_size) | 16 KiB | C-core's own hard limit |
/// | [`memory_limit`](Self::memory_limit) | a quarter of the memory of the machine, or of the process's control group if that is less; 16 MiB at the least, and 1 GiB at the most on 32-bit machines | the rest of the program needs some, too; it is the share that Java's virtual machine takes |
/// | [`keepalive`](Self::keepalive) | 60 s, 20 s | a peer that lost its power is noticed within 80 s; most NATs forget a connection later than that |
/// | [`handshake_timeout`](Self::handshake_timeout) | 10 s | a client speaks first, and a slow radio link has a round trip of 1 s |
/// | [`progress_timeout`](Self::progress_timeout) | 60 s | as in nginx; the slowest link that carries TCP well brings 16 KiB in it |
/// | [`health`](Self::health) | nothing said | |
/// | [`cut_early_after`](Self::cut_early_after) | half of the grace period | most calls land by themselves in the first half; the second is for what must not be cut |
/// | [`lifecycle`](Self::lifecycle) | the [default plan](crate::lifecycle::Plan); for [`serve`](Self::serve) the process's signals, and hot restart | |
#[must_use = "a builder does nothing until `serve` or `start`"]
pub struct ServerBuilder {
    name: Option<String>,
    listens: Vec<Listen>,
    services: Vec<Service>,
    health: Health,
    interceptors: Vec<Arc<dyn Interceptor>>,
    observers: Vec<Box<dyn CallObserver>>,
    workers: usize,
    stack_size: Option<usize>,
    max_stream_threads: Option<usize>,
    stall_limit: Duration,
    backlog: usize,
    max_connections: usize,
    max_concurrent_streams: usize,
    max_receive_message_size: usize,
    max_metadata_size: usize,
    memory_limit: Option<usize>,
    limits: Limits,
    keepalive_interval: Duration,
    keepalive_timeout: Duration,
    handshake_timeout: Duration,
    cut_early_after: Option<Duration>,
    smoke_test: Option<SmokeTest>,
    companions: Vec<Box<dyn Companion>>,
    /// Whose sockets go along with its own.
    beside: Option<Remote>,
    /// What its own lifecycle is to be.
    lifecycle: Option<lifecycle::Builder>,
    set_ups: Vec<SetUp>,
}

/// Work of the program between the start-up hooks and the moment at which the server listens.
type SetUp = Box<dyn FnOnce(&Lifecycle) -> Result<(), Box<dyn Error + Send + Sync>> + Send>;

impl Server {
    /// Begins to build a server.
    pub fn builder() -> ServerBuilder {
        ServerBuilder {
            name: None,
            listens: Vec::new(),
            services: Vec::new(),
            health: Health::new(),
            interceptors: Vec::new(),
            observers: Vec::new(),
            workers: 16,
            stack_size: None,
            max_stream_threads: None,
            stall_limit: Duration::from_secs(10),
            backlog: 1024,
            max_connections: 512,
            max_concurrent_streams: 250,
            max_receive_message_size: 4 << 20,
            max_metadata_size: 16 << 10,
            memory_limit: None,
            limits: Limits::default(),
            keepalive_interval: Duration::from_secs(60),
            keepalive_timeout: Duration::from_secs(20),
            handshake_timeout: Duration::from_secs(10),
            cut_early_after: None,
            smoke_test: None,
            companions: Vec::new(),
            beside: None,
            lifecycle: None,
            set_ups: Vec::new(),
        }
    }
}

impl ServerBuilder {
    /// Adds an address to listen at, such as `0.0.0.0:50051` or `unix:/run/greeter.sock`; [`Listen`]
    /// lists them all. With port 0 the kernel chooses one; see [`ServerHandle::address`].
    pub fn address(self, address: impl Into<String>) -> Self {
        self.listen(Listen::new(address))
    }

    /// Adds an address to listen at, with settings of its own.
    pub fn listen(mut self, listen: Listen) -> Self {
        self.listens.push(listen);
        self
    }

    /// Adds a service.
    pub fn service(mut self, service: Service) -> Self {
        self.services.push(service);
        self
    }

    /// Sets the program's word on the health of its services, so that handlers can hold a clone of it.
    /// Default: one with nothing said, which [`ServerHandle::health`] gives out.
    pub fn health(mut self, health: Health) -> Self {
        self.health = health;
        self
    }

    /// Adds an interceptor. They run in the order in which they were added.
    pub fn interceptor(mut self, interceptor: impl Interceptor) -> Self {
        self.interceptors.push(Arc::new(interceptor));
        self
    }

    /// Adds an observer of all calls and connections. Any number may be added; they are told in that order.
    pub fn observer(mut self, observer: impl CallObserver) -> Self {
        self.observers.push(Box::new(observer));
        self
    }

    /// Sets the name in logs and reports. Default: the first address.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets how many handlers may run at a time, but for those of streams that have waited for their callers once; see
    /// [`max_stream_threads`](Self::max_stream_threads). Each needs a thread; one more polls. Threads are started when calls need
    /// them, and end when there was little to do for some 20 s; then what handlers keep in thread-local values is dropped.
    ///
    /// While calls of a few connections have all workers, and those of others wait, a quarter more may run, which are for connections
    /// that have few: a client whose calls take long does not keep others from calling. With less than four workers nobody gets
    /// more.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Sets how large the stacks of the threads that run handlers are, in bytes; 128 KiB at the least. The
    /// server itself was seen to use 16 KiB of one (release build, small unary calls), the rest is the
    /// handlers' and interceptors'. A stack takes memory only as far as it was ever used, so a smaller one saves address space, which
    /// is scarce only under `RLIMIT_AS` (`LimitAS=` of systemd) and without overcommitment. One that is
    /// too small ends the process when it overflows. Without this, `RUST_MIN_STACK` sets it, as for every
    /// thread of Rust's.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    /// Sets how many handlers of streams may run that are not counted as [`workers`](Self::workers). The handler of a
    /// stream begins as any other. As soon as it has to wait for its caller, in [`Requests`](super::Requests) or
    /// [`Replies`](super::Replies), another call takes its place as a worker, and it goes on as one of these until
    /// it returns. So streams that say nothing keep nobody waiting. (A handler that waits for something else, such
    /// as a lock or another thread, stays what it is.)
    ///
    /// One connection may have as many of them as are left for others, which is half of them while nobody else has any.
    /// A stream for which there is none left stays a worker. If a call waits for a worker then, the connection with the
    /// most streams loses one, whose handler and caller get `RESOURCE_EXHAUSTED`; for its own calls only after
    /// the [`stall_limit`](Self::stall_limit).
    ///
    /// Each needs a thread; it takes as much memory as its stack has ever used and some 16 KiB of the kernel's. With zero,
    /// streams are workers to their end.
    pub fn max_stream_threads(mut self, threads: usize) -> Self {
        self.max_stream_threads = Some(threads);
        self
    }

    /// Sets for how long a stream may keep another call of its own connection waiting for a worker, while
    /// its handler waits for its caller. It matters only if there are no more [stream
    /// threads](Self::max_stream_threads) for that connection. The stream is ended with `RESOURCE_EXHAUSTED` then. Without
    /// a call that waits, a stream may be silent for ever.
    pub fn stall_limit(mut self, time: Duration) -> Self {
        self.stall_limit = time;
        self
    }

    /// Sets how many calls may wait for a worker. What comes on top of that is refused at once,
    /// with `RESOURCE_EXHAUSTED`: a call of the connection with the most calls that wait, which may be one that has waited.
    /// Connections take turns. Zero is allowed.
    pub fn backlog(mut self, calls: usize) -> Self {
        self.backlog = calls;
        self
    }

    /// Sets how many connections may be open. If one more comes, the one that has been without a call for the longest time,
    /// and for a second at the least, makes room: its client is told so (GOAWAY) and connects again with its next call, of
    /// which none is lost. While such connections end, an eighth more may be open, 64 at the most. If none is without a
    /// call, what comes is closed at once, and so is
    /// what comes when the process has no descriptor left: a client that is turned away may try
    /// elsewhere, and one that is left to wait cannot know. Those that have calls are served on.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// Sets how many calls a client may have open on one connection. The client is told, and calls beyond that wait there, or go by
    /// another connection. Those that it begins all the same, perhaps before it knows, are refused (REFUSED_STREAM), after which
    /// clients of gRPC try again; a thousand of them, and it is sent away. For many subscribers behind one proxy set it higher.
    pub fn max_concurrent_streams(mut self, calls: usize) -> Self {
        self.max_concurrent_streams = calls;
        self
    }

    /// Sets how large a request may be, in bytes, compressed and decompressed. What is larger is
    /// refused with `RESOURCE_EXHAUSTED`.
    pub fn max_receive_message_size(mut self, bytes: usize) -> Self {
        self.max_receive_message_size = bytes;
        self
    }

    /// Sets how large the metadata of a request may be, in bytes, counted as HTTP/2 counts (32
    /// bytes more for each entry). What is larger is refused with `RESOURCE_EXHAUSTED`.
    pub fn max_metadata_size(mut self, bytes: usize) -> Self {
        self.max_metadata_size = bytes;
        self
    }

    /// Sets how much memory, in bytes, clients may have the server hold, all together. It covers:
    ///
    /// | what | how much | what happens beyond |
    /// |---|---|---|
    /// | messages that are still arriving, and what is read of a connection and not yet parsed | all of it | idle connections are closed, then calls are ended with `RESOURCE_EXHAUSTED`, whichever C-core meets first |
    /// | messages of one connection that are still arriving, as long as they say they are | half of it, and one of [`max_receive_message_size`](Self::max_receive_message_size) in any case | the call is refused with `RESOURCE_EXHAUSTED` when its message says how long it is |
    /// | messages of calls that wait for a worker | half of it | the call is refused with `RESOURCE_EXHAUSTED` |
    /// | calls that are open, whether anything but their headers has come or not | one for each 16 KiB, but 1,024 at the least | the connection that has the most of them is sent away (GOAWAY) and cut, and so on until there are no more |
    ///
    /// It does not cover what handlers hold, answers that are on their way, the stacks of threads, and some 16 KiB for each
    /// [connection](Self::max_connections). A call takes 9.4 KiB in C-core before its message comes, and its metadata on
    /// top; so the third row takes no more than the limit with headers of some KiB, and for a moment more than that while
    /// connections are cut, since C-core takes its time to end their calls.
    ///
    /// A request above [`max_receive_message_size`](Self::max_receive_message_size) is refused when its length is known, and
    /// none of it is kept. (If its length comes in two pieces of the network's, or alone in a frame, up to four times as much is waited for, and
    /// up to twice half of the memory limit; above that the connection ends.)
    ///
    /// Without this it is a quarter of the memory that there is: of the machine's, or of the least limit of the control
    /// groups that the process is in (`memory.max` and `memory.high`, or `memory.limit_in_bytes` of the first version),
    /// as they are when the server starts.
    pub fn memory_limit(mut self, bytes: usize) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// Sets after how long without a byte a connection is probed, and how long the answer may
    /// take. One without answer is closed, and so is one whose peer takes nothing of what it is
    /// sent for as long as both together.
    pub fn keepalive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.keepalive_interval = interval;
        self.keepalive_timeout = timeout;
        self
    }

    /// Sets how long a new connection may take to begin to speak HTTP/2, and then to acknowledge the server's settings;
    /// the second is not enforced while there is a call on it.
    pub fn handshake_timeout(mut self, time: Duration) -> Self {
        self.handshake_timeout = time;
        self
    }

    /// Sets how long after the drain has begun calls are cut whose policy is
    /// [`DrainPolicy::CutEarly`](super::DrainPolicy::CutEarly); zero is at once. What is longer than the grace period of
    /// the plan is as long as that.
    pub fn cut_early_after(mut self, time: Duration) -> Self {
        self.cut_early_after = Some(time);
        self
    }

    /// Sets the lifecycle that is the server's own: plan, hooks, workers, reload callbacks, pid file, hot restart,
    /// signals. The last call counts.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use touchdown::lifecycle::{Hook, Lifecycle, Plan};
    /// use touchdown::Server;
    ///
    /// let lifecycle = Lifecycle::builder()
    ///     .plan(Plan::new().with_grace_period(Duration::from_secs(20)))
    ///     .hook(Hook::new("journal", || Ok(())))
    ///     .pid_file("/run/greeter.pid");
    /// let report = Server::builder().address("0.0.0.0:50051").lifecycle(lifecycle).serve();
    /// ```
    ///
    /// [`serve`](Self::serve) adds what a program needs and the builder does not have: the process's signals, and
    /// [`Upgrade::new`](crate::Upgrade::new). [`start`](Self::start) adds nothing. [`start_with`](Self::start_with)
    /// refuses this setting: there the lifecycle is the program's.
    pub fn lifecycle(mut self, lifecycle: lifecycle::Builder) -> Self {
        self.lifecycle = Some(lifecycle);
        self
    }

    /// Adds work that sees the lifecycle before the server listens: it starts workers of its own, adds
    /// hooks that close what it opens, and keeps what handlers need of it. It runs after the start-up hooks, on the
    /// thread that starts the server. Any number may be added; they run in that order.
    ///
    /// ```no_run
    /// use touchdown::lifecycle::{Token, Worker};
    /// use touchdown::Server;
    ///
    /// let report = Server::builder()
    ///     .address("0.0.0.0:50051")
    ///     .set_up(|lifecycle| {
    ///         let pump = Worker::new("pump", |token: &Token| token.wait());
    ///         Ok(lifecycle.workers("machine").spawn(pump)?)
    ///     })
    ///     .serve();
    /// ```
    ///
    /// An error is why the server does not start: [`StartError::SetUp`](super::StartError::SetUp). A panic unwinds out
    /// of the function that starts the server. [`start_with`](Self::start_with) refuses this setting: there the program
    /// has the lifecycle at hand.
    pub fn set_up(
        mut self,
        work: impl FnOnce(&Lifecycle) -> Result<(), Box<dyn Error + Send + Sync>> + Send + 'static,
    ) -> Self {
        self.set_ups.push(Box::new(work));
        self
    }

    /// Has this called once the server listens, before it accepts a connection: to print the address, or to keep the
    /// handle.
    ///
    /// ```no_run
    /// use touchdown::Server;
    ///
    /// let report = Server::builder()
    ///     .address("127.0.0.1:0")
    ///     .on_listening(|server| println!("listening at {}", server.address()))
    ///     .serve();
    /// ```
    pub fn on_listening(self, tell: impl FnOnce(&ServerHandle) + Send + 'static) -> Self {
        self.companion(OnListening(tell))
    }

    /// Sets what this server has to show before it replaces the one of another process (see
    /// [`Upgrade`](crate::Upgrade)): a test over a connection of its own, while it accepts no other. It is run after
    /// the one that every server has to pass, the answer to a health check within 5 s, and a program
    /// that does not say [NOT_SERVING](Health::set) of itself, or not for longer than 30 s.
    pub fn smoke_test(
        mut self,
        test: impl FnOnce(&Channel) -> Result<(), Box<dyn Error + Send + Sync>> + Send + 'static,
    ) -> Self {
        self.smoke_test = Some(Box::new(test));
        self
    }

    /// Adds what goes along with the server: started before it, told once it listens, and dropped if it does not
    /// start. Any number may be added; they are started in that order.
    pub fn companion(mut self, companion: impl Companion) -> Self {
        self.companions.push(Box::new(companion));
        self
    }

    /// Serves beside the servers of `program`, and with a lifecycle of its own: a side door, such as one for an
    /// operator or for metrics. If another process takes over from the program (see [`Upgrade`](crate::Upgrade)), it gets this server's
    /// sockets, too. While both serve, only the process in charge accepts connections here: the other servers of the
    /// program may be reached in either.
    ///
    /// [`start_with`](Self::start_with) refuses this setting: there the sockets go along anyway.
    pub fn beside(mut self, program: &Lifecycle) -> Self {
        self.beside = Some(program.remote());
        self
    }
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ServerBuilder")
            .field("listens", &self.listens)
            .field("services", &self.services)
            .field("workers", &self.workers)
            .field("backlog", &self.backlog)
            .field("lifecycle", &self.lifecycle)
            .finish_non_exhaustive()
    }
}
