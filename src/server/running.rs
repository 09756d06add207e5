//! A server that runs, and its part in the program's life.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::calls::{DrainTimes, Host, IdleTimes, Limit, Runner};
use crate::lifecycle::{Calls, Check, Participant, Token};

use super::dispatch::Dispatch;
use super::health::Health;
use super::served::ServedMethod;
use super::service::DrainPolicy;
use super::smoke_test::{self, SmokeTest};
use crate::logging;
use crate::os::stack;
#[cfg(feature = "tls")]
use crate::sockets::encryption::Encryption;
use crate::sockets::inherited::Inherited;
use crate::upgrade::Part;

/// How long the stacks of handlers that do not return are looked for: some milliseconds do,
/// unless their threads do not answer.
const STACKS_TIME: Duration = Duration::from_millis(500);

/// How long a server that has accepted nothing may take to go. It does so within some milliseconds.
const GIVING_UP: Duration = Duration::from_secs(5);

/// What the lifecycle knows of a server.
pub(super) struct Running {
    pub(super) name: String,
    pub(super) engine: Runner,
    pub(super) dispatch: Arc<Dispatch>,
    pub(super) health: Health,
    pub(super) limits: DrainLimits,
    /// Whether it accepts connections only in the process that is in charge.
    pub(super) in_charge_only: bool,
    /// In the order of the engine's list.
    pub(super) methods: Vec<ServedMethod>,
    pub(super) smoke_test: Mutex<Option<SmokeTest>>,
    /// With what its listeners are encrypted that are.
    #[cfg(feature = "tls")]
    pub(super) encryptions: Vec<Arc<Encryption>>,
}

/// What a drain leaves to the calls of each method.
pub(super) struct DrainLimits {
    /// In the order of the engine's list.
    pub(super) policies: Vec<DrainPolicy>,
    pub(super) grace_period: Duration,
    pub(super) peer_silence: Duration,
    /// No longer than the grace period.
    pub(super) cut_early_after: Duration,
}

impl DrainLimits {
    /// For a drain that begins now, the limits of each method.
    fn begin(&self, now: Instant) -> impl Iterator<Item = Limit> + '_ {
        self.policies.iter().map(move |policy| {
            let (time, cut) = match *policy {
                DrainPolicy::Finish => (self.grace_period, false),
                DrainPolicy::CutEarly => (self.cut_early_after, true),
                DrainPolicy::Stream { goodbye } => (goodbye.min(self.grace_period), true),
                DrainPolicy::FinishUnlessIdle { .. } => (self.grace_period, false),
            };
            let idle = match *policy {
                // However short the grace period is, none holds all of it.
                DrainPolicy::FinishUnlessIdle { idle } => Some(IdleTimes {
                    at_rest: idle.min(self.grace_period / 2),
                    reply_owed: self.grace_period / 2,
                }),
                _ => None,
            };
            Limit {
                at: now.checked_add(time),
                cut,
                idle,
            }
        })
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

    fn smoke_test(&self, stopping: &Token, waits: &dyn Fn(&str)) -> Result<(), String> {
        let test = self.smoke_test.lock().take();
        let waits = |what: &str| waits(&format!("{}: {what}", self.name));
        smoke_test::run(&self.engine, &self.health, stopping, &waits, test)
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
        logging::warn!(
            "{}: told {told} calls to stop; those that do not leave within the force period are abandoned",
            self.name
        );
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
        let streams = match load.aside {
            0 => String::new(),
            streams => format!(", {streams} streams on threads of their own"),
        };
        Some(format!(
            "handler threads {} of {} busy{streams}, {} calls wait of {}, {} connections",
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

    fn stack_of(&self, thread: u32, deadline: Instant) -> Vec<String> {
        stack::frames_of(thread, deadline)
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
    use crate::{Call, Server, Service};

    fn start(service: Service) -> Server {
        let builder = Server::builder().address("127.0.0.1:0").service(service);
        builder.start().expect("the server starts")
    }

    /// C-core lets the threads of one server work for another server of the process.
    #[test]
    fn what_a_thread_holds_back_for_one_server_it_sends_for_another() {
        let busy = start(Service::builder("test.Nothing").build());
        let engine = Arc::clone(busy.parts());
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
