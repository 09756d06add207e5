//! A server that runs, and its part in the program's life.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::calls::{DrainTimes, Host, Limit, Runner};
use crate::lifecycle::{Calls, Check, Lifecycle, Participant, Report, Token};

use super::dispatch::Dispatch;
use super::health::Health;
use super::service::DrainPolicy;
use super::smoke_test::{self, SmokeTest};
use crate::logging;
use crate::sockets::inherited::Inherited;
use crate::sockets::{Address, Bound, BoundSocket};
use crate::upgrade::Part;

/// How long the stacks of handlers that do not return are looked for: some milliseconds do,
/// unless their threads do not answer.
const STACKS_TIME: Duration = Duration::from_millis(500);

/// How long a server that has accepted nothing may take to go. It does so within some milliseconds.
const GIVING_UP: Duration = Duration::from_secs(5);

/// A server that runs. Dropping it stops it, calls in flight included, by its plan.
pub struct Server {
    running: Arc<Running>,
    lifecycle: Lifecycle,
    /// Whether the lifecycle is this server's own, and ends with it.
    owns_lifecycle: bool,
}

/// What the lifecycle knows of a server.
pub(super) struct Running {
    pub(super) name: String,
    pub(super) engine: Runner,
    pub(super) dispatch: Arc<Dispatch>,
    pub(super) health: Health,
    pub(super) limits: DrainLimits,
    /// Whether it accepts connections only in the process that is in charge.
    pub(super) in_charge_only: bool,
    pub(super) smoke_test: Mutex<Option<SmokeTest>>,
}

/// What a drain leaves to the calls of each method.
pub(super) struct DrainLimits {
    /// In the order of the engine's list.
    pub(super) policies: Vec<DrainPolicy>,
    pub(super) grace_period: Duration,
    pub(super) peer_silence: Duration,
    /// A share of the grace period.
    pub(super) cut_early_after: f64,
}

impl DrainLimits {
    /// For a drain that begins now, the limits of each method.
    fn begin(&self, now: Instant) -> impl Iterator<Item = Limit> + '_ {
        self.policies.iter().map(move |policy| {
            let (time, cut) = match *policy {
                DrainPolicy::Finish => (self.grace_period, false),
                DrainPolicy::CutEarly => (self.cut_early_time(), true),
                DrainPolicy::Stream { goodbye } => (goodbye.min(self.grace_period), true),
                DrainPolicy::FinishUnlessIdle { .. } => (self.grace_period, false),
            };
            let idle = match *policy {
                // However short the grace period is, none holds all of it.
                DrainPolicy::FinishUnlessIdle { idle } => Some(idle.min(self.grace_period / 2)),
                _ => None,
            };
            Limit {
                at: now.checked_add(time),
                cut,
                idle,
            }
        })
    }

    fn cut_early_time(&self) -> Duration {
        // A grace period without end has no share: what does not fit into a duration is as long.
        let seconds = self.grace_period.as_secs_f64() * self.cut_early_after;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

impl Server {
    pub(super) fn new(running: Arc<Running>, lifecycle: Lifecycle, owns_lifecycle: bool) -> Server {
        Server {
            running,
            lifecycle,
            owns_lifecycle,
        }
    }

    /// Where the server listens: the first address, with the real port where port 0 was asked for.
    pub fn address(&self) -> &Address {
        &self.running.engine.addresses()[0]
    }

    /// Every address at which the server listens.
    pub fn addresses(&self) -> &[Address] {
        self.running.engine.addresses()
    }

    /// The lifecycle that this server is part of.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// The program's word on the health of its services: the one that was given to
    /// [`ServerBuilder::health`](super::ServerBuilder::health), if any.
    pub fn health(&self) -> &Health {
        &self.running.health
    }

    /// How many calls are in flight: arrived, and not yet answered with their status on its way.
    /// Those of [health](Health) checks are not counted.
    pub fn in_flight(&self) -> usize {
        self.running.dispatch.in_flight()
    }

    /// How many connections are open, those that are closing included.
    pub fn connections(&self) -> usize {
        self.running.engine.connections()
    }

    /// What became of the calls so far, but for those of [health](Health) checks.
    pub fn calls(&self) -> Calls {
        self.running.dispatch.calls()
    }

    /// Begins to stop, and waits until the server has stopped. With a shared lifecycle this stops
    /// everything that is part of it.
    pub fn shutdown(self) -> Report {
        self.lifecycle.shutdown("shutdown() was called");
        self.wait()
    }

    /// Waits until the server has stopped: after a signal, if it listens to signals, or after
    /// somebody called [`Lifecycle::shutdown`].
    pub fn wait(self) -> Report {
        self.lifecycle.wait()
    }
}

impl Bound for Server {
    fn bound_sockets(&self) -> io::Result<Vec<BoundSocket>> {
        self.running.engine.sockets_to_store()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.owns_lifecycle {
            self.lifecycle.shutdown("the server was dropped");
            self.lifecycle.wait();
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Server")
            .field("addresses", &self.addresses())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

impl Running {
    /// Takes down a server that has accepted nothing.
    pub(super) fn give_up(&self) {
        self.dispatch.release();
        if !self.engine.stop(Instant::now() + GIVING_UP) {
            logging::error!("{}: the engine did not stop in time", self.name);
        }
    }

    /// Runs this once a thread that polls has come to a check of the server's health.
    fn check_engine(&self, passed: impl FnOnce() + Send + 'static) {
        let dispatch = Arc::clone(&self.dispatch);
        self.engine.check(move || {
            dispatch.health.state("");
            passed();
        });
    }
}

impl Part for Running {
    fn hand_over(&self) -> io::Result<Vec<Inherited>> {
        match self.engine.hand_over() {
            // A side door that was closed. The program goes on, and may be replaced.
            Err(error) if self.in_charge_only && error.kind() == io::ErrorKind::NotConnected => {
                Ok(Vec::new())
            }
            result => result,
        }
    }

    fn set_handed_over(&self, handed_over: bool) {
        self.engine.set_handed_over(handed_over);
        // If the socket has come back, no other process goes on for this one.
        self.dispatch.health.tell(None);
    }

    fn smoke_test(&self, stopping: &Token) -> Result<(), String> {
        let test = self.smoke_test.lock().take();
        smoke_test::run(&self.engine, &self.health, stopping, test)
            .map_err(|why| format!("{}: {why}", self.name))
    }

    fn open(&self) {
        if !self.in_charge_only {
            self.engine.accept();
        }
    }

    fn check(&self, answer: Box<dyn FnOnce() + Send>) {
        self.check_engine(answer);
    }

    fn take_charge(&self) {
        self.engine.accept();
        self.engine.own_paths();
    }
}

impl Participant for Running {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn drain(&self) {
        logging::info!(
            "{}: draining {} calls on {} connections",
            self.name,
            self.dispatch.in_flight(),
            self.engine.connections()
        );
        // If another process serves at the same address, a watcher is to hear that it has to go there, and not that
        // this server is not well.
        if !self.dispatch.health.is_ready() {
            self.dispatch.health.close();
        }
        let times = DrainTimes {
            grace_period: self.limits.grace_period,
            peer_silence: self.limits.peer_silence,
        };
        self.engine.drain(self.limits.begin(Instant::now()), times);
    }

    fn cancel(&self) {
        let told = self.engine.tell_to_stop();
        logging::warn!("{}: told {told} calls to stop", self.name);
    }

    fn close(&self, deadline: Instant) {
        self.dispatch.health.cut();
        let abandoned = self.engine.abandon_calls();
        for call in &abandoned {
            logging::error!("{}: {call}", self.name);
        }
        self.dispatch.add_abandoned(abandoned.len());
        self.dispatch.release();
        if !abandoned.is_empty() {
            let half = deadline.saturating_duration_since(Instant::now()) / 2;
            for line in self.engine.stacks(Instant::now() + half.min(STACKS_TIME)) {
                logging::error!("{}: {line}", self.name);
            }
        }
        // Threads that run those handlers cannot be waited for.
        let patience = match abandoned.len() {
            0 => deadline,
            _ => deadline.min(Instant::now() + Duration::from_millis(200)),
        };
        if !self.engine.stop(patience) && abandoned.is_empty() {
            logging::error!("{}: the engine did not stop in time", self.name);
        }
    }

    fn running(&self) -> Vec<String> {
        let running = self.engine.running().into_iter();
        running.map(|call| call.to_string()).collect()
    }

    fn state(&self) -> Option<String> {
        let load = self.engine.load();
        Some(format!(
            "workers {} of {} busy, {} calls wait of {}, {} connections",
            load.running,
            load.workers,
            load.waiting,
            load.backlog,
            self.engine.connections()
        ))
    }

    fn in_flight(&self) -> Option<usize> {
        let has_guard = !self.dispatch.is_released();
        has_guard.then(|| self.dispatch.in_flight())
    }

    fn stacks(&self, deadline: Instant) -> Vec<String> {
        self.engine.stacks(deadline)
    }

    fn calls(&self) -> Calls {
        self.dispatch.calls()
    }

    fn connections_cut(&self) -> u64 {
        self.dispatch.connections_cut()
    }

    fn check(&self, check: Check) {
        self.check_engine(|| check.passed());
    }
}

#[cfg(test)]
#[cfg(feature = "client")]
mod tests {
    use protobuf::well_known_types::wrappers::StringValue;

    use super::*;
    use crate::client::{CallOptions, Channel, Client};
    use crate::{Call, Service};

    fn start(service: Service) -> Server {
        let builder = Server::builder().address("127.0.0.1:0").service(service);
        builder.start().expect("the server starts")
    }

    /// C-core lets the threads of one server work for another server of the process.
    #[test]
    fn what_a_thread_holds_back_for_one_server_it_sends_for_another() {
        let busy = start(Service::builder("test.Nothing").build());
        let engine = Arc::clone(&busy.running);
        let echo = move |_: &Call, request: StringValue| {
            engine.engine.hold_back();
            Ok(request)
        };
        let other = start(Service::builder("test.Echo").unary("Say", echo).build());
        let channel = Channel::connect(other.address().to_string()).unwrap();
        let client = Client::new(&channel);
        let options = CallOptions::default().timeout(Duration::from_secs(20));
        let reply = client.unary::<_, StringValue>("/test.Echo/Say", &StringValue::new(), options);
        assert_eq!(reply, Ok(StringValue::new()));
    }
}
