//! Launching a server: from its settings to threads that serve.

use std::num::TryFromIntError;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::super::companion::Companion;
use super::super::dispatch::Dispatch;
use super::super::error::StartError;
use super::super::handle::ServerHandle;
use super::super::health;
use super::super::interceptor::Interceptor;
use super::super::observers::Observers;
use super::super::running::{DrainLimits, Running};
use super::super::served::ServedMethod;
use super::super::service::{Method, Service};
use super::limits::open_calls;
use super::ServerBuilder;
use crate::calls::transport::Settings;
use crate::calls::{self, Config, Host, Runner};
use crate::descriptors;
use crate::engine;
use crate::lifecycle::{Lifecycle, Participant, Remote};
use crate::logging;
use crate::os::memory_there;
use crate::sockets::{
    bind::bind_all,
    listen::Listen,
    listener::{ListenOptions, Listener},
};
use crate::upgrade::{Part, Upgrades};

/// Eight times what the server itself was seen to use in a release build; enough for a panic in a debug build.
const LEAST_STACK: usize = 128 << 10;

/// What a stream's thread is reckoned to take of the memory: more than one that waits was seen to take.
const STREAM_THREAD: usize = 64 << 10;

/// How many of them there may be by default. Where addresses are 32 bits, 256 stacks of 2 MiB take a sixth of what a
/// process has.
const STREAM_THREADS: usize = if cfg!(target_pointer_width = "64") {
    1024
} else {
    256
};

impl ServerBuilder {
    /// Starts the server as a part of this lifecycle.
    pub(super) fn launch(
        mut self,
        lifecycle: &Lifecycle,
        companions: Vec<Box<dyn Companion>>,
    ) -> Result<Arc<Running>, StartError> {
        let sizes = self.sizes()?;
        let settings = self.settings(sizes.memory)?;
        let [lasting, lasting_public] = self.limits.lasting(sizes.connections)?;
        if self.listens.is_empty() {
            return Err(StartError::NoAddress);
        }
        let two_each = sizes.connections.saturating_mul(2);
        let watchers = self.limits.watches.unwrap_or(two_each);
        let remote = lifecycle.remote();
        let is_ready = move || remote.is_ready();
        let served = self.services.iter().map(|it| it.name).collect();
        let health = self.health.board(served, is_ready, watchers);
        if self.services.iter().all(|it| it.name != health::NAME) {
            self.services.push(health::service(&health));
        }
        let services = std::mem::take(&mut self.services);
        let (methods, called, served_methods) = methods(services, &self.interceptors)?;
        let grace_period = lifecycle.plan().grace_period();
        let cut_early_after = self.cut_early_after.unwrap_or(grace_period / 2);
        let limits = DrainLimits {
            policies: methods.iter().map(|it| it.policy).collect(),
            grace_period,
            peer_silence: lifecycle.plan().peer_silence(),
            cut_early_after: cut_early_after.min(grace_period),
        };
        let listeners = listeners(std::mem::take(&mut self.listens), sizes.connections)?;
        #[cfg(feature = "tls")]
        let encryptions = listeners.iter().filter_map(Listener::encryption);
        #[cfg(feature = "tls")]
        let encryptions = encryptions.cloned().collect();
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
            Observers::new(self.observers),
            self.max_receive_message_size,
            Arc::clone(&health),
            in_flight,
        ));
        let transport = engine::transport(&settings, &called).map_err(StartError::Engine)?;
        let config = Config {
            methods: called,
            listeners,
            // Not before it is sure that it is stopped with the program.
            accepting: false,
            workers: sizes.workers,
            stack_size: self.stack_size,
            stream_threads: sizes.stream_threads,
            stall: self.stall_limit,
            backlog: self.backlog,
            // What waits must not starve what arrives.
            backlog_bytes: sizes.memory / 2,
            prompt_calls: sizes
                .workers
                .saturating_add(self.backlog)
                .saturating_add(watchers),
            connections: sizes.connections,
            unanswered: self
                .keepalive_interval
                .saturating_add(self.keepalive_timeout),
            handshake: self.handshake_timeout,
            handshakes: self.limits.handshakes,
            open_calls: settings.open_calls,
            progress: self.limits.progress,
            lasting,
            lasting_public,
        };
        let host: Arc<dyn Host> = dispatch.clone();
        let engine = Runner::start(transport, config, host).map_err(StartError::Engine)?;
        if lifecycle.remote().hears_process() {
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
            in_charge_only: self.beside.is_some(),
            methods: served_methods,
            smoke_test: Mutex::new(self.smoke_test),
            #[cfg(feature = "tls")]
            encryptions,
        });
        let program = self.beside.unwrap_or_else(|| lifecycle.remote());
        hang(&running, lifecycle, companions, &program)?;
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

    /// How much there may be of what a server has many of.
    fn sizes(&self) -> Result<Sizes, StartError> {
        let workers = at_least_one("workers", self.workers)?;
        if let Some(size) = self.stack_size.filter(|it| *it < LEAST_STACK) {
            return Err(StartError::Setting {
                setting: "stack_size",
                value: size.to_string(),
                expected: "at least 131072",
            });
        }
        let connections = at_least_one("max_connections", self.max_connections)?;
        let memory = self
            .memory_limit
            .unwrap_or_else(memory_there::quarter_of_memory);
        let memory = at_least_one("memory_limit", memory)?;
        let stream_threads = self.max_stream_threads;
        let stream_threads = stream_threads.unwrap_or((memory / STREAM_THREAD).min(STREAM_THREADS));
        Ok(Sizes {
            workers,
            stream_threads,
            connections,
            memory,
        })
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
            message_size: self.max_receive_message_size,
            handshake: self.handshake_timeout,
            open_calls: open_calls(memory),
        })
    }
}

/// Settings that were found to make sense.
struct Sizes {
    workers: usize,
    stream_threads: usize,
    connections: usize,
    /// In bytes.
    memory: usize,
}

type Methods = (Vec<Method>, Vec<calls::Method>, Vec<ServedMethod>);

/// The methods of all services: for the server, and, in the same order, for what runs their calls and for who asks.
fn methods(
    services: Vec<Service>,
    of_server: &[Arc<dyn Interceptor>],
) -> Result<Methods, StartError> {
    let mut methods = Vec::new();
    let mut served = Vec::new();
    let mut called: Vec<calls::Method> = Vec::new();
    for service in services {
        if let Some(unknown) = service.unknown {
            return Err(StartError::UnknownMethod(unknown));
        }
        let interceptors = of_server.iter().chain(&service.interceptors);
        let interceptors: Arc<[_]> = interceptors.cloned().collect();
        for mut method in service.methods {
            let path = format!("/{}/{}", service.name, method.name);
            if called.iter().any(|it| it.path == path) {
                return Err(StartError::DuplicateMethod(path));
            }
            let (request, response) = (method.streaming_request, method.streaming_response);
            let mut one = calls::Method::new(path, request, response, method.minimum);
            one.prompt = method.prompt;
            called.push(one);
            served.push(ServedMethod {
                service: service.name,
                name: method.name,
                streams_requests: request,
                streams_replies: response,
                is_health: method.prompt,
            });
            if !method.prompt {
                method.interceptors = Arc::clone(&interceptors);
            }
            methods.push(method);
        }
    }
    Ok((methods, called, served))
}

/// Sockets that listen at these addresses.
fn listeners(listens: Vec<Listen>, connections: usize) -> Result<Vec<Listener>, StartError> {
    let wanted = listens.into_iter().map(Listen::into_options);
    let wanted: Vec<ListenOptions> = wanted.collect::<Result<_, _>>()?;
    descriptors::check_room(wanted.len(), connections).map_err(StartError::Engine)?;
    bind_all(&wanted).map_err(|(address, source)| StartError::Listen { address, source })
}

/// Makes the server a part of its lifecycle, and has it accept connections; or takes it down again. Its sockets go along
/// with those of `program`.
fn hang(
    running: &Arc<Running>,
    lifecycle: &Lifecycle,
    companions: Vec<Box<dyn Companion>>,
    program: &Remote,
) -> Result<(), StartError> {
    let participant: Arc<dyn Participant> = running.clone();
    if lifecycle.enlist(Arc::clone(&participant)).is_err() {
        running.give_up();
        return Err(StartError::TooLate);
    }
    let server = ServerHandle::new(running.clone(), lifecycle.clone());
    for companion in companions {
        companion.started(&server).map_err(|error| {
            lifecycle.dismiss(&participant);
            running.give_up();
            StartError::of_companion(error)
        })?;
    }
    match program.attached::<Upgrades>() {
        Some(upgrades) => upgrades.add(running.clone()),
        None => running.take_charge(),
    }
    Ok(())
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
