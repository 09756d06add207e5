//! The settings of a server.

use std::error::Error;
use std::fmt;
use std::io;
use std::num::TryFromIntError;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::calls::transport::Settings;
use crate::calls::{self, Config, Host, Runner};
use crate::client::Channel;
use crate::descriptors;
use crate::engine;
use crate::lifecycle::{
    self, BuildError, Hook, Lifecycle, Plan, Reason, Report, Signals, StartupHook, Stopping,
};

use crate::logging;
use crate::os::memory;
use crate::sockets::listener::{ListenOptions, Listener};
#[cfg(feature = "systemd")]
use crate::systemd::Notify;
use crate::upgrade::Upgrade;

use super::dispatch::Dispatch;
use super::health::{self, Health};
use super::interceptor::Interceptor;
use super::listen::Listen;
use super::running::{DrainLimits, Running, Server};
use super::service::Service;
use super::smoke_test::SmokeTest;
#[cfg(feature = "tls")]
use super::tls::Tls;

/// Eight times what the server itself was seen to use in a release build; enough for a panic in a debug build.
const LEAST_STACK: usize = 128 << 10;

/// Collects what a [`Server`] is made of.
///
/// | setting | default | reason for the default |
/// |---|---|---|
/// | [`workers`](Self::workers) | 16 | handlers block, so more than there are cores; threads are started when needed, and end when they rest after a burst |
/// | [`stack_size`](Self::stack_size) | 2 MiB | as of all of Rust's threads: handlers may be of any kind |
/// | [`backlog`](Self::backlog) | 1,024 calls | a burst on a few connections passes; at some 10 KiB a small call this is 10 MiB at the most |
/// | [`max_connections`](Self::max_connections) | 512 | half of 1,024, the usual limit of descriptors of a process |
/// | [`max_concurrent_streams`](Self::max_concurrent_streams) | 1,000 | calls beyond it wait unseen in the client; RFC 9113, 5.1.2 asks for no less than 100 |
/// | [`max_receive_message_size`](Self::max_receive_message_size) | 4 MiB | as in every gRPC implementation |
/// | [`max_metadata_size`](Self::max_metadata_size) | 16 KiB | C-core's own hard limit |
/// | [`memory_limit`](Self::memory_limit) | a quarter of the machine's memory, 16 MiB at the least, and 1 GiB at the most on 32-bit machines | the rest of the program needs some, too; it is the share that Java's virtual machine takes |
/// | [`keepalive`](Self::keepalive) | 60 s, 20 s | a peer that lost its power is noticed within 80 s; most NATs forget a connection later than that |
/// | [`handshake_timeout`](Self::handshake_timeout) | 10 s | a client speaks first, and a slow radio link has a round trip of 1 s |
/// | [`health`](Self::health) | nothing said | |
/// | [`cut_early_after`](Self::cut_early_after) | 0.5 of the grace period | most calls land by themselves in the first half; the second is for what must not be cut |
/// | [`plan`](Self::plan) | [`Plan::default`] | |
#[must_use = "a builder does nothing until `serve` or `start`"]
pub struct ServerBuilder {
    name: Option<String>,
    listens: Vec<Listen>,
    services: Vec<Service>,
    health: Health,
    interceptors: Vec<Box<dyn Interceptor>>,
    workers: usize,
    stack_size: Option<usize>,
    backlog: usize,
    max_connections: usize,
    max_concurrent_streams: usize,
    max_receive_message_size: usize,
    max_metadata_size: usize,
    memory_limit: Option<usize>,
    keepalive_interval: Duration,
    keepalive_timeout: Duration,
    handshake_timeout: Duration,
    cut_early_after: f64,
    smoke_test: Option<SmokeTest>,
    #[cfg(feature = "admin")]
    pub(crate) admin: Option<crate::admin::Admin>,
    plan: Plan,
    /// What its own lifecycle is to have, beside the plan and the signals.
    lifecycle: lifecycle::Builder,
    signals: Option<Signals>,
    #[cfg(feature = "systemd")]
    systemd: bool,
    #[cfg(feature = "systemd")]
    store_listeners: bool,
}

impl Server {
    /// Begins to build a server.
    pub fn builder() -> ServerBuilder {
        ServerBuilder {
            name: None,
            listens: Vec::new(),
            services: Vec::new(),
            health: Health::new(),
            interceptors: Vec::new(),
            workers: 16,
            stack_size: None,
            backlog: 1024,
            max_connections: 512,
            max_concurrent_streams: 1000,
            max_receive_message_size: 4 << 20,
            max_metadata_size: 16 << 10,
            memory_limit: None,
            keepalive_interval: Duration::from_secs(60),
            keepalive_timeout: Duration::from_secs(20),
            handshake_timeout: Duration::from_secs(10),
            cut_early_after: 0.5,
            smoke_test: None,
            #[cfg(feature = "admin")]
            admin: None,
            plan: Plan::default(),
            lifecycle: Lifecycle::builder(),
            signals: None,
            #[cfg(feature = "systemd")]
            systemd: false,
            #[cfg(feature = "systemd")]
            store_listeners: false,
        }
    }
}

impl ServerBuilder {
    /// Adds an address to listen at, such as `0.0.0.0:50051` or `unix:/run/greeter.sock`; [`Listen`]
    /// lists them all. With port 0 the kernel chooses one; see [`Server::address`].
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
    /// Default: one with nothing said, which [`Server::health`] gives out.
    pub fn health(mut self, health: Health) -> Self {
        self.health = health;
        self
    }

    /// Adds an interceptor. They run in the order in which they were added.
    pub fn interceptor(mut self, interceptor: impl Interceptor) -> Self {
        self.interceptors.push(Box::new(interceptor));
        self
    }

    /// Sets the name in logs and reports. Default: the first address.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets how many handlers may run at a time. Each needs a thread; one more polls. Threads are started when calls need
    /// them, and end when there was little to do for some 20 s; then what handlers keep in thread-local values is dropped.
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

    /// Sets how many calls may wait for a worker. What comes on top of that is refused at once,
    /// with `RESOURCE_EXHAUSTED`. Zero is allowed.
    pub fn backlog(mut self, calls: usize) -> Self {
        self.backlog = calls;
        self
    }

    /// Sets how many connections may be open. What comes on top of that is closed at once, and so is
    /// what comes when the process has no descriptor left: a client that is turned away may try
    /// elsewhere, and one that is left to wait cannot know. Those that are open are served on.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// Sets how many calls a client may have open on one connection.
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

    /// Sets how much memory, in bytes, requests may take that are still arriving or wait for a
    /// worker (half of it at the most), all together. If it is not enough, idle connections are closed first, then calls are ended with
    /// `RESOURCE_EXHAUSTED`, whichever C-core meets first. A request above
    /// [`max_receive_message_size`](Self::max_receive_message_size) can be refused only once it is
    /// there, so this is what bounds the server's memory.
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

    /// Sets how long a new connection may take to begin to speak HTTP/2.
    pub fn handshake_timeout(mut self, time: Duration) -> Self {
        self.handshake_timeout = time;
        self
    }

    /// Sets after which share of the grace period calls are cut whose policy is
    /// [`DrainPolicy::CutEarly`](super::DrainPolicy::CutEarly): from 0.0, at once, to 1.0, not before
    /// the others.
    pub fn cut_early_after(mut self, share_of_grace_period: f64) -> Self {
        self.cut_early_after = share_of_grace_period;
        self
    }

    /// Sets how long each phase of the stop may take. For a server with a lifecycle of its own.
    pub fn plan(mut self, plan: Plan) -> Self {
        self.plan = plan;
        self
    }

    /// Adds a closing hook. For a server with a lifecycle of its own.
    pub fn hook(mut self, hook: Hook) -> Self {
        self.lifecycle = self.lifecycle.hook(hook);
        self
    }

    /// Adds a start-up hook. They run before the server listens. For a server with a lifecycle of
    /// its own.
    pub fn startup(mut self, hook: StartupHook) -> Self {
        self.lifecycle = self.lifecycle.startup(hook);
        self
    }

    /// Adds a callback that SIGHUP runs; see [`lifecycle::Builder::on_reload`]. For a server with a
    /// lifecycle of its own.
    pub fn on_reload(
        mut self,
        name: impl Into<String>,
        callback: impl FnMut() -> Result<(), Box<dyn Error + Send + Sync>> + Send + 'static,
    ) -> Self {
        self.lifecycle = self.lifecycle.on_reload(name, callback);
        self
    }

    /// Sets what this server has to show before it replaces the one of another process (see
    /// [`Upgrade`]): a test over a connection of its own, while it accepts no other. It is run after
    /// the one that every server has to pass, the answer to a health check within 5 s, and a program
    /// that does not say [NOT_SERVING](Health::set) of itself, or not for longer than 30 s.
    pub fn smoke_test(
        mut self,
        test: impl FnOnce(&Channel) -> Result<(), Box<dyn Error + Send + Sync>> + Send + 'static,
    ) -> Self {
        self.smoke_test = Some(Box::new(test));
        self
    }

    /// Lets another process take over; see [`lifecycle::Builder::upgrade`]. Default:
    /// [`Upgrade::new`] for [`serve`](Self::serve), none for [`start`](Self::start). For a server with
    /// a lifecycle of its own.
    pub fn upgrade(mut self, upgrade: Upgrade) -> Self {
        self.lifecycle = self.lifecycle.upgrade(upgrade);
        self
    }

    /// Has this process's id written to a file; see [`lifecycle::Builder::pid_file`]. For a server
    /// with a lifecycle of its own.
    pub fn pid_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.lifecycle = self.lifecycle.pid_file(path);
        self
    }

    /// Sets where signals are heard from. Default: the [process's](Signals::process) for
    /// [`serve`](Self::serve), none for [`start`](Self::start). For a server with a lifecycle of
    /// its own.
    pub fn signals(mut self, signals: Signals) -> Self {
        self.signals = Some(signals);
        self
    }

    /// Tells systemd what the program is at, and feeds its watchdog, if systemd has started it; see
    /// [`systemd`](crate::systemd). For a server with a lifecycle of its own.
    #[cfg(feature = "systemd")]
    pub fn systemd(mut self) -> Self {
        self.systemd = true;
        self
    }

    /// As [`systemd`](Self::systemd), and has systemd keep the listening sockets while the program is
    /// restarted, so that nobody is refused in between; see
    /// [`Notify::store_listeners`](crate::systemd::Notify::store_listeners).
    #[cfg(feature = "systemd")]
    pub fn store_listeners(mut self) -> Self {
        self.store_listeners = true;
        self.systemd()
    }

    /// Serves until TERM or INT, then stops by the plan. This is all that `main` needs to do: it may
    /// return the report, whose exit code says how it went.
    ///
    /// If the server cannot start, the report says why and has the exit code
    /// [`FAILED_START`](crate::lifecycle::exit_code::FAILED_START). A program that wants to do
    /// something about it calls [`start`](Self::start).
    pub fn serve(mut self) -> Report {
        self.signals.get_or_insert(Signals::process());
        self.lifecycle = self.lifecycle.upgrade_or(Upgrade::new());
        match self.begin() {
            Ok(server) => server.wait(),
            Err((error, report)) => {
                // What a stop has kept from starting did not fail.
                if let Reason::StartFailed(_) = report.reason {
                    logging::error!("{error}");
                }
                *report
            }
        }
    }

    /// Starts the server with a lifecycle of its own, and returns.
    ///
    /// # Errors
    ///
    /// [`StartError`], and then nothing is left running.
    pub fn start(self) -> Result<Server, StartError> {
        self.begin().map_err(|(error, _)| error)
    }

    /// Starts the server, or says why it did not start, and how its lifecycle ended.
    fn begin(mut self) -> Result<Server, (StartError, Box<Report>)> {
        // The lifecycle has threads, which would have arenas of their own.
        memory::bound_arenas();
        let lifecycle = std::mem::replace(&mut self.lifecycle, Lifecycle::builder());
        #[cfg(feature = "tls")]
        let lifecycle = self.reload_certificates(lifecycle);
        let lifecycle = lifecycle
            .plan(self.plan)
            .signals(self.signals.take().unwrap_or_default());
        let lifecycle = lifecycle.build().map_err(|error| {
            let error = StartError::Lifecycle(error);
            let report = Report::failed_start(&error);
            (error, Box::new(report))
        })?;
        #[cfg(feature = "systemd")]
        if self.systemd {
            Notify::attach(&lifecycle).map_err(|error| {
                let error = StartError::Engine(error);
                lifecycle.fail(&error);
                (error, Box::new(lifecycle.wait()))
            })?;
        }
        lifecycle.start().map_err(|Stopping { reason, .. }| {
            let error = match reason {
                Reason::StartFailed(why) => StartError::Startup(why),
                _ => StartError::TooLate,
            };
            (error, Box::new(lifecycle.wait()))
        })?;
        #[cfg(feature = "systemd")]
        let stores = self.store_listeners;
        let running = self.launch(&lifecycle, &lifecycle).map_err(|error| {
            // Changes nothing if a signal has begun the stop already.
            lifecycle.fail(&error);
            (error, Box::new(lifecycle.wait()))
        })?;
        let server = Server::new(running, lifecycle, true);
        #[cfg(feature = "systemd")]
        if let (true, Some(notify)) = (stores, Notify::of(server.lifecycle())) {
            // It serves all the same.
            if let Err(error) = notify.store_listeners(&server) {
                logging::error!("cannot have systemd store the listening sockets: {error}");
            }
        }
        // A signal meanwhile has begun the stop, and `wait` will tell.
        let _ = server.lifecycle().serving();
        Ok(server)
    }

    /// Lets the lifecycle read the certificates again when it reloads.
    #[cfg(feature = "tls")]
    fn reload_certificates(&self, mut lifecycle: lifecycle::Builder) -> lifecycle::Builder {
        let mut all: Vec<Tls> = Vec::new();
        for tls in self.listens.iter().filter_map(|it| it.tls.as_ref()) {
            if !all.iter().any(|it| it.is_same(tls)) {
                all.push(tls.clone());
            }
        }
        for tls in all {
            lifecycle = lifecycle.on_reload("tls", move || Ok(tls.reload()?));
        }
        lifecycle
    }

    /// Starts the server as a part of a lifecycle that it may share with others. The program calls
    /// [`Lifecycle::serving`] once everything is started. If it has start-up hooks that the server
    /// needs, the program calls [`Lifecycle::start`] first. Plan and signals are the lifecycle's;
    /// those set here are ignored. Hooks and reload callbacks belong there, too, and are refused
    /// here.
    ///
    /// # Errors
    ///
    /// [`StartError`], and then nothing of the server is left running.
    pub fn start_with(self, lifecycle: &Lifecycle) -> Result<Server, StartError> {
        let setting = self.lifecycle.first_of_program();
        #[cfg(feature = "systemd")]
        let setting = setting.or(self.systemd.then_some("systemd"));
        if let Some(setting) = setting {
            return Err(StartError::Setting {
                setting,
                value: "set".to_owned(),
                expected: "set on the lifecycle that is shared",
            });
        }
        Ok(Server::new(
            self.launch(lifecycle, lifecycle)?,
            lifecycle.clone(),
            false,
        ))
    }

    /// Starts the server with a lifecycle of its own, and has its sockets handed over with those of
    /// another. While two processes serve, it is the one in charge that is reached.
    #[cfg(feature = "admin")]
    pub(crate) fn start_beside(self, other: &Lifecycle) -> Result<Server, StartError> {
        let lifecycle = Lifecycle::builder().plan(self.plan);
        let lifecycle = lifecycle.build().map_err(StartError::Lifecycle)?;
        let running = self.launch(&lifecycle, other)?;
        let _ = lifecycle.serving();
        Ok(Server::new(running, lifecycle, true))
    }

    fn launch(
        mut self,
        lifecycle: &Lifecycle,
        handed_over_with: &Lifecycle,
    ) -> Result<Arc<Running>, StartError> {
        #[cfg(feature = "admin")]
        let admin = match self.admin.take() {
            Some(admin) => Some(admin.start(lifecycle)?),
            None => None,
        };
        let (workers, backlog) = (at_least_one("workers", self.workers)?, self.backlog);
        if let Some(size) = self.stack_size.filter(|it| *it < LEAST_STACK) {
            return Err(StartError::Setting {
                setting: "stack_size",
                value: size.to_string(),
                expected: "at least 131072",
            });
        }
        let connections = at_least_one("max_connections", self.max_connections)?;
        let memory = self.memory_limit.unwrap_or_else(memory::quarter_of_memory);
        let memory = at_least_one("memory_limit", memory)?;
        let settings = self.settings(memory)?;
        if self.listens.is_empty() {
            return Err(StartError::NoAddress);
        }
        // Two for each connection: clients watch one service of a server as a rule.
        let watchers = connections.saturating_mul(2);
        let served = self.services.iter().map(|it| it.name).collect();
        let health = self.health.board(served, lifecycle.is_ready(), watchers);
        if self.services.iter().all(|it| it.name != health::NAME) {
            self.services.push(health::service(&health));
        }
        let mut methods = Vec::new();
        let mut engine_methods: Vec<calls::Method> = Vec::new();
        if !(0.0..=1.0).contains(&self.cut_early_after) {
            return Err(StartError::Setting {
                setting: "cut_early_after",
                value: self.cut_early_after.to_string(),
                expected: "from 0.0 to 1.0",
            });
        }
        let mut limits = DrainLimits {
            policies: Vec::new(),
            grace_period: lifecycle.plan().get_grace_period(),
            peer_silence: lifecycle.plan().get_peer_silence(),
            cut_early_after: self.cut_early_after,
        };
        for service in self.services {
            if let Some(method) = service.unknown {
                let path = format!("/{}/{method}", service.name);
                return Err(StartError::UnknownMethod(path));
            }
            for method in service.methods {
                let path = format!("/{}/{}", service.name, method.name);
                if engine_methods.iter().any(|it| it.path == path) {
                    return Err(StartError::DuplicateMethod(path));
                }
                let (request, response) = (method.streaming_request, method.streaming_response);
                let minimum = method.minimum;
                let mut engine_method = calls::Method::new(path, request, response, minimum);
                engine_method.prompt = method.prompt;
                engine_methods.push(engine_method);
                limits.policies.push(method.policy);
                methods.push(method);
            }
        }
        let wanted = self.listens.into_iter().map(Listen::into_options);
        let wanted: Vec<ListenOptions> = wanted.collect::<Result<_, _>>()?;
        descriptors::check_room(wanted.len(), connections).map_err(StartError::Engine)?;
        let listeners = Listener::bind_all(&wanted)
            .map_err(|(address, source)| StartError::Listen { address, source })?;
        let name = match (self.name, listeners.first()) {
            (Some(name), _) => name,
            (None, Some(listener)) => format!("server at {}", listener.address()),
            (None, None) => return Err(StartError::NoAddress),
        };
        let in_flight = lifecycle
            .in_flight()
            .enter_owned()
            .map_err(|_| StartError::TooLate)?;
        let dispatch = Arc::new(Dispatch::new(
            methods,
            self.interceptors,
            self.max_receive_message_size,
            Arc::clone(&health),
            in_flight,
        ));
        let transport =
            engine::transport(&settings, &engine_methods).map_err(StartError::Engine)?;
        let config = Config {
            methods: engine_methods,
            listeners,
            accepting: handed_over_with.upgrades().is_none(),
            workers,
            stack_size: self.stack_size,
            backlog,
            // What waits must not starve what arrives.
            backlog_bytes: memory / 2,
            prompt_calls: workers.saturating_add(backlog).saturating_add(watchers),
            connections,
            unanswered: self
                .keepalive_interval
                .saturating_add(self.keepalive_timeout),
            handshake: self.handshake_timeout,
        };
        let host: Arc<dyn Host> = dispatch.clone();
        let engine = Runner::start(transport, config, host).map_err(StartError::Engine)?;
        if lifecycle.hears_process() {
            engine::keep_core();
        }
        for address in engine.addresses() {
            logging::info!("listening at {address}");
        }
        let running = Arc::new(Running {
            name,
            engine,
            dispatch,
            health: self.health,
            limits,
            in_charge_only: !std::ptr::eq(lifecycle, handed_over_with),
            smoke_test: Mutex::new(self.smoke_test),
        });
        lifecycle
            .enlist(running.clone())
            .map_err(|Stopping { .. }| StartError::TooLate)?;
        if let Some(upgrades) = handed_over_with.upgrades() {
            upgrades.add(running.clone());
        }
        #[cfg(feature = "admin")]
        if let Some(admin) = admin {
            // If a stop has begun meanwhile, it ends here.
            let _ = lifecycle.hook(crate::admin::Admin::end(admin));
        }
        // Only now: it is sure that `close` will be called, so no watcher outlives the engine.
        health.open();
        let watched = Arc::downgrade(&health);
        lifecycle.observe(move |_| {
            if let Some(health) = watched.upgrade() {
                health.tell(None);
            }
        });
        health.tell(None);
        Ok(running)
    }

    /// What the transport is to be like.
    fn settings(&self, memory: usize) -> Result<Settings, StartError> {
        let streams = at_least_one("max_concurrent_streams", self.max_concurrent_streams)?;
        at_least_one("max_receive_message_size", self.max_receive_message_size)?;
        let metadata = at_least_one("max_metadata_size", self.max_metadata_size)?;
        let number = |setting, value: usize| {
            let number = i32::try_from(value).map(i32::unsigned_abs);
            number.map_err(|_: TryFromIntError| StartError::Setting {
                setting,
                value: value.to_string(),
                expected: "no more than 2147483647",
            })
        };
        let time = |setting, value: Duration| match i32::try_from(value.as_millis()) {
            Ok(1..) => Ok(value),
            _ => Err(StartError::Setting {
                setting,
                value: format!("{value:?}"),
                expected: "from 1 ms to 24 days",
            }),
        };
        time("handshake_timeout", self.handshake_timeout)?;
        Ok(Settings {
            metadata_size: number("max_metadata_size", metadata)?,
            concurrent_streams: number("max_concurrent_streams", streams)?,
            keepalive_interval: time("keepalive", self.keepalive_interval)?,
            keepalive_timeout: time("keepalive", self.keepalive_timeout)?,
            memory,
        })
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
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

fn at_least_one(setting: &'static str, value: usize) -> Result<usize, StartError> {
    match value {
        0 => Err(StartError::Setting {
            setting,
            value: "0".to_owned(),
            expected: "at least 1",
        }),
        value => Ok(value),
    }
}

/// Why a server did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// No address was given: call [`ServerBuilder::address`].
    NoAddress,
    /// The address cannot be listened at: it is no address, it is in use, or it is not this
    /// machine's.
    Listen {
        /// As it was given.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// A setting has a value that makes no sense.
    Setting {
        /// The name of the builder's function.
        setting: &'static str,
        /// The value.
        value: String,
        /// What would make sense.
        expected: &'static str,
    },
    /// Two services have this method.
    DuplicateMethod(String),
    /// Something was set for a method that its service does not have.
    UnknownMethod(String),
    /// The plan, the hooks or the signals are at fault.
    Lifecycle(BuildError),
    /// A start-up hook failed, panicked or overran: which, and how.
    Startup(String),
    /// The lifecycle is stopping, so nothing new is started.
    TooLate,
    /// A thread or a descriptor could not be had.
    Engine(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::NoAddress => {
                formatter.write_str("no address to listen at: call ServerBuilder::address")
            }
            StartError::Listen { address, source } => {
                write!(formatter, "cannot listen at {address}: {source}")
            }
            StartError::Setting {
                setting,
                value,
                expected,
            } => write!(formatter, "{setting} is {value}, and must be {expected}"),
            StartError::DuplicateMethod(path) => {
                write!(formatter, "two services have the method {path}")
            }
            StartError::UnknownMethod(path) => {
                write!(
                    formatter,
                    "a policy or time is set for {path}, which does not exist"
                )
            }
            StartError::Lifecycle(error) => error.fmt(formatter),
            StartError::Startup(why) => formatter.write_str(why),
            StartError::TooLate => formatter.write_str("the program is stopping already"),
            StartError::Engine(error) => write!(formatter, "the server cannot start: {error}"),
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            StartError::Listen { source, .. } | StartError::Engine(source) => Some(source),
            StartError::Lifecycle(error) => Some(error),
            _ => None,
        }
    }
}
