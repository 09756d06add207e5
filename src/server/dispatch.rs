//! From the engine's calls to the services' handlers, and into the lifecycle.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::calls::log_limit::LogLimit;
use crate::calls::{self, Handled, Host, Landed, Message};
use crate::caught::caught;
use crate::lifecycle::{Calls, OwnedGuard};
use crate::logging;
use crate::text::one_line;
use crate::thrown::message_of;

use super::broadcast;
use super::call::Call;
use super::context;
use super::health;
use super::interceptor::{failure, panicked, run_interceptor, Answer, Interceptor, Next};
use super::observers::Observers;
use super::outcome::Outcome;
use super::service::Method;
use super::status::{Code, Status};
use super::stream::{end_of, ending, late};

/// Runs calls, and keeps count of them.
pub(super) struct Dispatch {
    /// In the order of the engine's list.
    methods: Vec<Method>,
    observers: Option<Arc<Observers>>,
    message_limit: usize,
    pub(super) health: Arc<health::Board>,
    counts: Counts,
    connections_cut: AtomicU64,
    /// Keeps the lifecycle from taking the drain for complete.
    draining: Mutex<Option<OwnedGuard>>,
}

#[derive(Default)]
struct Counts {
    arrived: AtomicU64,
    landed: AtomicU64,
    refused: AtomicU64,
    caller_left: AtomicU64,
    /// Of those that landed, how many answers did not arrive.
    undelivered: AtomicU64,
    cut: AtomicU64,
    told_to_stop: AtomicU64,
    abandoned: AtomicU64,
    /// Of those that were abandoned, how many have landed after all.
    abandoned_landed: AtomicU64,
}

impl Dispatch {
    pub(super) fn new(
        methods: Vec<Method>,
        observers: Option<Arc<Observers>>,
        message_limit: usize,
        health: Arc<health::Board>,
        in_flight: OwnedGuard,
    ) -> Dispatch {
        Dispatch {
            methods,
            observers,
            message_limit,
            health,
            counts: Counts::default(),
            connections_cut: AtomicU64::new(0),
            draining: Mutex::new(Some(in_flight)),
        }
    }

    pub(super) fn calls(&self) -> Calls {
        let get = |count: &AtomicU64| count.load(Ordering::SeqCst);
        let counts = Calls {
            completed: 0,
            refused: get(&self.counts.refused),
            caller_left: get(&self.counts.caller_left),
            undelivered: get(&self.counts.undelivered),
            cut: get(&self.counts.cut),
            told_to_stop: get(&self.counts.told_to_stop),
            abandoned: get(&self.counts.abandoned),
        };
        let others = [
            // They land too, a moment later.
            counts.refused,
            counts.caller_left,
            counts.undelivered,
            counts.cut,
            counts.told_to_stop,
            get(&self.counts.abandoned_landed),
        ];
        let landed = get(&self.counts.landed);
        Calls {
            completed: landed.saturating_sub(others.iter().sum()),
            ..counts
        }
    }

    pub(super) fn connections_cut(&self) -> u64 {
        self.connections_cut.load(Ordering::SeqCst)
    }

    pub(super) fn add_abandoned(&self, count: usize) {
        self.counts
            .abandoned
            .fetch_add(count as u64, Ordering::SeqCst);
    }

    /// The server has no part in the program's drain any more.
    pub(super) fn release(&self) {
        self.draining.lock().take();
    }

    pub(super) fn is_released(&self) -> bool {
        self.draining.lock().is_none()
    }

    fn run_intercepted(&self, method: &Method, call: &Call, message: Option<Message>) -> Outcome {
        let interceptors = &method.interceptors;
        let mut passed = 0;
        let refusal = interceptors.iter().try_for_each(|it| {
            run_interceptor(call, || it.before(call))?;
            passed += 1;
            Ok(())
        });
        let is_streaming = method.streaming_request || method.streaming_response;
        let may_detach = is_streaming && refusal.is_ok();
        if may_detach {
            // The handler may detach the call, and somebody else end it.
            let (interceptors, call) = (Arc::clone(interceptors), call.clone());
            context::keep_until_told(&call.core);
            // It does not keep the call from being dropped: the thread that ends the call takes it out.
            call.core.clone().set_epilogue(Box::new(move |ending| {
                let status = Status::new(Code::from_number(ending.code), ending.message.to_owned())
                    .with_details(ending.details);
                run_after(&interceptors, &call, &status);
                context::told(&call.core);
            }));
        }
        let mut message = message;
        let mut handler = || run_handler(method, call, message.take(), self.message_limit);
        let next = Next::new(call, interceptors, &mut handler);
        let result = refusal.and_then(|()| run_interceptor(call, || next.run()));
        let outcome = match result {
            // Of a stream it ends one, and of others it has their reply, unless that comes later.
            Ok(Answer(outcome))
                if matches!(outcome, Outcome::Done)
                    == (method.streaming_response || call.core.is_stepped()) =>
            {
                outcome
            }
            Ok(_) => {
                let why = "an interceptor answered as if the call were of another kind";
                logging::error!("{}: {why}", call.method());
                Outcome::Failed(Status::internal(why))
            }
            Err(status) => Outcome::Failed(status),
        };
        if matches!(outcome, Outcome::Done) && call.core.is_detached() {
            return outcome;
        }
        let ok = Status::ok();
        let status = match &outcome {
            Outcome::Failed(status) => status,
            Outcome::Done | Outcome::Later | Outcome::Reply(_) => &ok,
        };
        let other = end_of(&call.core).or_else(|| late(&call.core));
        let status = other.as_ref().unwrap_or(status);
        match call.core.take_epilogue() {
            // Of a call that was not detached the status has its cause still.
            Some(_) if !call.core.is_detached() => {
                run_after(interceptors, call, status);
                context::told(&call.core);
            }
            Some(epilogue) => epilogue(ending(status)),
            // It was run as what was detached ended.
            None if may_detach => {}
            None => run_after(&interceptors[..passed], call, status),
        }
        outcome
    }
}

/// The log has what the caller is not told.
pub(super) fn log_failure(call: &Call, status: &Status) {
    static LIMIT: LogLimit = LogLimit::new();
    let Some(cause) = status.cause() else {
        logging::debug!("{}: {status}", call.method());
        return;
    };
    let line = || one_line(&format!("{}: {status}, because: {cause}", call.method()));
    let is_the_servers = matches!(
        status.code(),
        Code::Unknown | Code::Internal | Code::Unavailable | Code::DataLoss
    );
    if !is_the_servers {
        logging::debug!("{}", line());
    } else if let Some(skipped) = LIMIT.admits() {
        if skipped > 0 {
            logging::warn!("{skipped} more failures of handlers were not logged");
        }
        logging::warn!("{}", line());
    }
}

/// Runs a handler. A panic is how it fails.
#[inline]
fn run_handler(
    method: &Method,
    call: &Call,
    message: Option<Message>,
    message_limit: usize,
) -> Outcome {
    let run = AssertUnwindSafe(|| (method.run)(call, message, message_limit));
    match catch_unwind(run) {
        Ok(Outcome::Failed(status)) => Outcome::Failed(failure(call, "the handler", status)),
        Ok(outcome) => outcome,
        Err(panic) => Outcome::Failed(panicked(call, "the handler", message_of(panic))),
    }
}

fn run_after(interceptors: &[Arc<dyn Interceptor>], call: &Call, status: &Status) {
    for interceptor in interceptors.iter().rev() {
        caught(format_args!("{}: an interceptor", call.method()), || {
            interceptor.after(call, status);
        });
    }
}

impl Host for Dispatch {
    fn arrived(&self) {
        self.counts.arrived.fetch_add(1, Ordering::SeqCst);
    }

    fn run(&self, core: &Arc<calls::Call>, message: Option<Message>) {
        let call = Call::new(Arc::clone(core));
        let index = call
            .core
            .method()
            .expect("the engine refuses unknown methods itself");
        let method = &self.methods[index as usize];
        let outcome = if method.interceptors.is_empty() {
            run_handler(method, &call, message, self.message_limit)
        } else {
            self.run_intercepted(method, &call, message)
        };
        let (message, status) = match outcome {
            Outcome::Later => return,
            Outcome::Done if call.core.is_detached() => return,
            Outcome::Done => (None, Status::ok()),
            Outcome::Reply(message) => (Some(message), Status::ok()),
            Outcome::Failed(status) => {
                log_failure(&call, &status);
                (None, status)
            }
        };
        let (message, status) = match late(&call.core) {
            Some(late) => (None, late),
            None => (message, status),
        };
        // Detached replies that are still held do not keep the call open: it has failed.
        call.core.finish(message, ending(&status), Handled::Yes);
    }

    fn step(&self, core: &Arc<calls::Call>) {
        if let Some(steps) = context::steps(core) {
            steps.step(core);
        }
    }

    fn refused(&self, _call: &Arc<calls::Call>) {
        self.counts.refused.fetch_add(1, Ordering::SeqCst);
    }

    fn observer(&self) -> Option<Arc<dyn calls::Observer>> {
        let observers = self.observers.clone()?;
        Some(observers)
    }

    fn landed(&self, call: &Arc<calls::Call>, landed: Landed) {
        context::landed(call);
        let counts = &self.counts;
        let count = match landed {
            // Most calls are counted once.
            Landed::Completed | Landed::Refused => None,
            Landed::CallerLeft => Some(&counts.caller_left),
            Landed::Undelivered => Some(&counts.undelivered),
            Landed::Cut => Some(&counts.cut),
            Landed::ToldToStop => Some(&counts.told_to_stop),
            Landed::Abandoned => Some(&counts.abandoned_landed),
        };
        if let Some(count) = count {
            count.fetch_add(1, Ordering::SeqCst);
        }
        // Last, so that a count of what is in flight is never too small.
        self.counts.landed.fetch_add(1, Ordering::SeqCst);
    }

    fn sent(&self, call: &Arc<calls::Call>) {
        if !broadcast::sent(call) {
            self.health.sent(health::key_of(call));
        }
    }

    fn in_flight(&self) -> usize {
        let landed = self.counts.landed.load(Ordering::SeqCst);
        let arrived = self.counts.arrived.load(Ordering::SeqCst);
        arrived.saturating_sub(landed) as usize
    }

    fn clients_know(&self) {
        self.health.close();
    }

    fn cut(&self, connections: u64, answers: u64) {
        self.counts.undelivered.fetch_add(answers, Ordering::SeqCst);
        self.connections_cut
            .fetch_add(connections, Ordering::SeqCst);
    }

    fn drained(&self) {
        self.release();
    }
}
