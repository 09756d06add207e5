//! The threads that poll and run handlers.

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::bytes::Message;
use super::call::{Call, Ending, Handled};
use super::queue::Event;
use super::requests::Arrival;
use super::roster::{Decision, Next, Outlook};
use super::{
    Method, Shared, CROWD, DEADLINE_EXCEEDED, INTERNAL, RESOURCE_EXHAUSTED, UNAVAILABLE,
    UNIMPLEMENTED,
};

/// A call that is to be run.
pub(super) struct Job {
    call: Arc<Call>,
    message: Option<Message>,
    queued: bool,
}

impl Job {
    /// Ends the call without running it, because the server is going.
    pub(super) fn refuse_to_run(self) {
        end(&self.call, UNAVAILABLE, "the server is shutting down");
    }
}

/// Where a worker shows what it is at.
#[derive(Default)]
pub(super) struct Seat(Mutex<Option<(Arc<Call>, Instant)>>);

impl Seat {
    pub(super) fn call(&self) -> Option<Arc<Call>> {
        self.0.lock().as_ref().map(|(call, _)| Arc::clone(call))
    }

    /// The method and for how long, without waiting for the lock.
    pub(super) fn describe(&self) -> Option<String> {
        let seat = self.0.try_lock()?;
        let (call, since) = seat.as_ref()?;
        Some(format!(
            "{} for {} ms",
            call.path(),
            since.elapsed().as_millis()
        ))
    }
}

/// How many events are handled at the most, and for how long, before the replies
/// go out that were held back to go out together.
const CORKED: (u32, Duration) = (32, Duration::from_micros(300));

/// Polls, and runs what comes, until the queue is at its end.
pub(super) fn run(shared: &Arc<Shared>) {
    let mut worker = Worker {
        shared,
        seat: Arc::new(Seat::default()),
        corked: None,
    };
    shared.seats.lock().push(Arc::clone(&worker.seat));
    loop {
        match worker.next() {
            Event::Operation { call, operation } => call.completed(operation),
            Event::Request {
                mut slot,
                filled: true,
            } => {
                let arrival = slot.take(shared);
                slot.lay_out(shared);
                worker.arrived(arrival);
                slot_is_done_with(shared);
            }
            Event::Request { filled: false, .. } => slot_is_done_with(shared),
            Event::ServerStopped => {
                shared.roster.close();
                shut_queue_down_if_idle(shared);
            }
            Event::QueueStopped => break,
        }
    }
    worker.uncork();
    shared
        .seats
        .lock()
        .retain(|it| !Arc::ptr_eq(it, &worker.seat));
}

struct Worker<'a> {
    shared: &'a Arc<Shared>,
    seat: Arc<Seat>,
    /// While replies are held back: how many more events may be handled first, and
    /// since when.
    corked: Option<(u32, Instant)>,
}

impl Worker<'_> {
    fn next(&mut self) -> Event {
        while let Some((left, since)) = self.corked {
            let event = match left > 0 && since.elapsed() < CORKED.1 {
                true => self.shared.queue.try_next(),
                false => None,
            };
            match event {
                Some(event) => {
                    self.corked = Some((left - 1, since));
                    return event;
                }
                None => self.uncork(),
            }
        }
        self.shared.queue.next()
    }

    /// From now on replies wait for each other. A short call costs less than the
    /// system call that sends its reply.
    fn cork(&mut self, now: Instant) {
        if self.corked.is_none() {
            // The watch lets them go, should the next handler be long after all.
            if self.shared.roster.keep_watch() {
                self.shared.wake.wake();
            }
            self.shared.server.cork();
            self.corked = Some((CORKED.0, now));
        }
    }

    fn uncork(&mut self) {
        if self.corked.take().is_some() {
            self.shared.server.uncork();
        }
    }

    fn arrived(&mut self, arrival: Arrival) {
        let shared = self.shared;
        let Arrival {
            call,
            message,
            unknown,
        } = arrival;
        if shared.is_prompt(&call) {
            return self.answer(call, message);
        }
        shared.host.arrived();
        if let Some(path) = unknown {
            log::debug!("{path} is not implemented here");
            end(
                &call,
                UNIMPLEMENTED,
                &format!("{path} is not implemented here"),
            );
            shared.host.refused(&call);
            return;
        }
        if message.is_none() && !shared.expects_stream(&call) {
            // The caller left, or sent what C-core refuses, before its message was whole.
            log::debug!("{}: ended without a request", call.path());
            end(&call, INTERNAL, "the request ended before its message");
            shared.host.refused(&call);
            return;
        }
        let in_flight = shared.host.in_flight();
        if let Some((code, why)) = shared.reason_to_refuse(in_flight) {
            log::debug!("{}: refused: {why}", call.path());
            end(&call, code, why);
            shared.host.refused(&call);
            return;
        }
        let now = Instant::now();
        let crowded = in_flight >= CROWD;
        let method = shared.method(&call);
        let outlook = Outlook {
            short: method.is_some_and(|it| it.pace.is_short()),
            pollers: shared.pollers(crowded),
            bytes: message.as_ref().map_or(0, Message::len),
        };
        // A handler that streams waits for what it has written.
        let may_cork = outlook.short && crowded && !method.is_some_and(Method::is_streaming);
        let job = Job {
            call,
            message,
            queued: false,
        };
        let mut decision = shared.roster.arrived(job, outlook, now);
        if let Decision::RunAndSpawn(job) = decision {
            decision = match shared.spawn("td-worker", run) {
                Ok(()) => Decision::Run(job),
                Err(error) => {
                    log::error!("cannot start another worker: {error}");
                    shared.roster.spawn_failed(job, outlook)
                }
            };
        }
        if may_cork {
            self.cork(now);
        } else {
            self.uncork();
        }
        match decision {
            Decision::Run(job) => self.work(job, now),
            Decision::RunAndWatch(job) => {
                shared.wake.wake();
                self.work(job, now);
            }
            Decision::Queued => {}
            Decision::RunAndSpawn(job) | Decision::Refused(job) => {
                shared.log_refusal(job.call.path(), now);
                end(
                    &job.call,
                    RESOURCE_EXHAUSTED,
                    "all workers are busy and the backlog is full",
                );
                shared.host.refused(&job.call);
            }
        }
    }

    /// Answers a call that waits for no worker.
    fn answer(&self, call: Arc<Call>, message: Option<Message>) {
        let shared = self.shared;
        let open = shared.prompt_calls.fetch_add(1, Ordering::Relaxed);
        if message.is_none() {
            end(&call, INTERNAL, "the request ended before its message");
        } else if open >= shared.prompt_limit {
            let why = "too many callers do not take their answers";
            end(&call, RESOURCE_EXHAUSTED, why);
        } else {
            shared.host.run(call, message);
        }
    }

    /// Runs a call, then what waits for a worker.
    fn work(&mut self, mut job: Job, mut now: Instant) {
        let shared = self.shared;
        loop {
            let Job {
                call,
                message,
                queued,
            } = job;
            if queued && call.deadline_passed() {
                end(
                    &call,
                    DEADLINE_EXCEEDED,
                    "the deadline passed while the call waited for a worker",
                );
                shared.host.refused(&call);
            } else {
                *self.seat.0.lock() = Some((Arc::clone(&call), now));
                let method = call.method();
                shared.host.run(call, message);
                // Dropped after the lock.
                let done = self.seat.0.lock().take();
                drop(done);
                if let Some(method) = method {
                    shared.methods[method as usize].pace.learn(now.elapsed());
                }
            }
            match shared.roster.finished(shared.pollers(shared.is_crowded())) {
                Next::Run(next) => {
                    now = Instant::now();
                    job = Job {
                        queued: true,
                        ..next
                    };
                }
                Next::Poll => break,
                Next::Rest => {
                    self.uncork();
                    shared.roster.rest();
                    break;
                }
            }
            self.uncork();
        }
        shut_queue_down_if_idle(shared);
    }
}

/// The event of a slot was dealt with.
fn slot_is_done_with(shared: &Shared) {
    shared.slots_out.fetch_sub(1, Ordering::SeqCst);
    shut_queue_down_if_idle(shared);
}

/// Something may be begun on a call as long as its handler runs, and on one whose arrival
/// somebody is at work on; and nothing may once the queue is shut down. To be called after
/// everything that may have been the last to wait for.
fn shut_queue_down_if_idle(shared: &Shared) {
    // The roster is closed only when the engine stops.
    if shared.stopping.load(Ordering::SeqCst)
        && shared.roster.is_closed_and_idle()
        && shared.slots_out.load(Ordering::SeqCst) == 0
    {
        shared.queue.shut_down();
    }
}

/// Ends a call that no handler has seen.
fn end(call: &Arc<Call>, code: i32, message: &str) {
    let ending = Ending {
        code,
        message,
        details: &[],
    };
    call.finish(None, ending, Handled::Yes);
}
