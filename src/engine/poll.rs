//! The threads that poll and run handlers.

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::bytes::Message;
use super::call::{Call, Ending};
use super::memory::Usage;
use super::observer::Refusal;
use super::queue::{Check, Event};
use super::requests::Arrival;
use super::roster::{Beginning, Decision, Leaving, Next, Outlook};
use super::{Method, Running, Shared, CROWD};
use crate::logging;
use crate::os::stack::Thread;
use crate::os::symbols;

/// A call that is to be run.
pub(super) struct Job {
    call: Arc<Call>,
    message: Option<Message>,
    queued: bool,
}

impl Job {
    pub(super) fn call(&self) -> &Call {
        &self.call
    }

    /// Ends the call without running it, because the server is going.
    pub(super) fn refuse_to_run(self, shared: &Shared) {
        refuse(shared, &self.call, Refusal::ShuttingDown);
    }
}

/// Where a worker shows what it is at.
pub(super) struct Seat {
    pub(super) thread: Thread,
    at: Mutex<Option<(Arc<Call>, Instant)>>,
}

/// A worker and what it was at when somebody looked.
struct Stuck<'a> {
    seat: &'a Seat,
    method: String,
    peer: String,
    since: Instant,
}

impl Seat {
    /// The calling thread's.
    fn new() -> Seat {
        Seat {
            thread: Thread::current(),
            at: Mutex::default(),
        }
    }

    pub(super) fn call(&self) -> Option<Arc<Call>> {
        self.at.lock().as_ref().map(|(call, _)| Arc::clone(call))
    }

    /// What it is at, without waiting for the lock. Its texts are copies: whoever held on to the
    /// call might become the one to end it.
    fn stuck(&self) -> Option<Stuck<'_>> {
        let at = self.at.try_lock()?;
        let (call, since) = at.as_ref()?;
        Some(Stuck {
            seat: self,
            method: call.path().to_owned(),
            peer: call.peer(),
            since: *since,
        })
    }

    /// Whether it is still at what began then.
    fn is_at(&self, since: Instant) -> bool {
        let at = self.at.try_lock();
        at.is_some_and(|it| it.as_ref().is_some_and(|(_, begun)| *begun == since))
    }

    /// What runs here, and since when, without waiting for the lock.
    pub(super) fn running(&self) -> Option<Running> {
        let at = self.at.try_lock()?;
        let (call, since) = at.as_ref()?;
        Some(Running::new(call, *since, &format!("on {}", self.thread)))
    }
}

/// How many stacks are looked at. What holds up one handler most often holds up the others
/// too, and whoever reads of it wants to see the rest of the log as well.
const MOST_STACKS: usize = 8;

/// How long a thread may take to answer. A runnable one gets a processor within some milliseconds,
/// even beside a dozen others; what has not answered by then is not going to.
const ANSWER_TIME: Duration = Duration::from_millis(100);

/// Says which handlers run, the oldest first, with the stacks of their threads.
pub(super) fn stacks(seats: &[Arc<Seat>], deadline: Instant) -> Vec<String> {
    let mut stuck: Vec<Stuck<'_>> = Vec::new();
    for it in seats.iter().filter_map(|seat| seat.stuck()) {
        stuck.insert(stuck.partition_point(|other| other.since <= it.since), it);
    }
    let mut found = Vec::new();
    let now = Instant::now();
    for it in stuck.iter().take(MOST_STACKS) {
        // Half of what is left, so that no thread that is silent takes the time of all others.
        let half = deadline.saturating_duration_since(Instant::now()) / 2;
        let stack = it.seat.thread.stack(Instant::now() + half.min(ANSWER_TIME));
        // Otherwise it may be another call's.
        if it.seat.is_at(it.since) {
            found.push((it, stack));
        }
    }
    let frames = found.iter().filter_map(|(_, stack)| stack.as_ref().ok());
    let frames: Vec<usize> = frames.flat_map(|it| &it.frames).copied().collect();
    let mut names = symbols::describe(&frames, deadline).into_iter();
    let mut lines = Vec::new();
    for (it, stack) in &found {
        lines.push(format!(
            "{} from {} for {} ms on {}",
            it.method,
            it.peer,
            now.saturating_duration_since(it.since).as_millis(),
            it.seat.thread
        ));
        match stack {
            Ok(stack) => {
                let names = names.by_ref().take(stack.frames.len());
                lines.extend(
                    names
                        .enumerate()
                        .map(|(index, name)| format!("  {index}: {name}")),
                );
                lines.extend(stack.cut.then(|| "  and more".to_owned()));
            }
            Err(why) => lines.push(format!("  no stack: {why}")),
        }
    }
    if stuck.len() > MOST_STACKS {
        lines.push(format!("and {} more", stuck.len() - MOST_STACKS));
    }
    if !frames.is_empty() {
        lines.push(symbols::HOW_TO_RESOLVE.to_owned());
    }
    lines
}

/// How many events are handled at the most, and for how long, before the replies
/// go out that were held back to go out together.
const CORKED: (u32, Duration) = (32, Duration::from_micros(300));

/// Polls, and runs what comes, until the queue is at its end, or the roster lets the thread end.
pub(super) fn run(shared: &Arc<Shared>, beginning: Beginning) {
    let mut worker = Worker {
        shared,
        seat: Arc::new(Seat::new()),
        corked: None,
        usage: Usage::default(),
    };
    shared.seats.lock().push(Arc::clone(&worker.seat));
    let mut goes_on = match beginning {
        Beginning::Poll => true,
        Beginning::Rest => shared.roster.rest(),
        Beginning::Relieve => shared.roster.relieve(),
        Beginning::Finished => worker.go_on(),
    };
    while goes_on {
        match worker.next() {
            Event::Operation { call, operation } => call.completed(operation),
            Event::Request {
                mut slot,
                filled: true,
            } => {
                let arrival = slot.take(shared);
                slot.lay_out(shared);
                goes_on = worker.arrived(arrival);
                slot_is_done_with(shared);
            }
            Event::Request { filled: false, .. } => slot_is_done_with(shared),
            Event::Check(Check(answer)) => answer(),
            Event::Renewal => goes_on = worker.renew(),
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
    usage: Usage,
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

    /// Lets another thread poll in the place of this one, or of whoever else polls. False if this one is to end.
    fn renew(&mut self) -> bool {
        // Nobody is to wait for a reply while this thread rests.
        self.uncork();
        match self.shared.roster.leave_poll() {
            None => !self.shared.start_replacement(Beginning::Poll),
            Some(leaving) => {
                self.shared.queue.renew();
                matches!(leaving, Leaving::Rest) && self.shared.roster.rest()
            }
        }
    }

    /// Does with a call what is to be done. False if the thread is to end after that.
    fn arrived(&mut self, arrival: Arrival) -> bool {
        let shared = self.shared;
        let Arrival {
            call,
            message,
            unknown,
        } = arrival;
        let bytes = message.as_ref().map_or(0, Message::len);
        if self.usage.call(&shared.heap, bytes) {
            shared.wake.wake();
        }
        if let Some(observer) = &shared.observer {
            observer.arrived(&call);
        }
        if shared.is_prompt(&call) {
            self.answer(call, message);
            return true;
        }
        shared.host.arrived();
        if let Some(path) = unknown {
            logging::debug!("{path} is not implemented here");
            let message = &format!("{path} is not implemented here");
            let why = Refusal::UnknownMethod;
            let ending = why.ending();
            refuse_as(shared, &call, why, Ending { message, ..ending });
            return true;
        }
        if message.is_none() && !shared.expects_stream(&call) {
            // The caller left, or sent what C-core refuses, before its message was whole.
            logging::debug!("{}: ended without a request", call.path());
            refuse(shared, &call, Refusal::NoMessage);
            return true;
        }
        let in_flight = shared.host.in_flight();
        if let Some(why) = shared.reason_to_refuse(&call, in_flight) {
            logging::debug!("{}: refused: {}", call.path(), why.ending().message);
            refuse(shared, &call, why);
            return true;
        }
        let now = call.arrived_at().unwrap_or_else(Instant::now);
        let crowded = in_flight >= CROWD;
        let method = shared.method(&call);
        let outlook = Outlook {
            short: method.is_some_and(|it| it.pace.is_short()),
            pollers: shared.pollers(crowded),
            bytes,
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
            decision = match shared.spawn_worker(Beginning::Poll) {
                true => Decision::Run(job),
                false => shared.roster.spawn_failed(job, outlook),
            };
            // It has a burst to note, and perhaps the watch to begin.
            shared.wake.wake();
        }
        if may_cork {
            self.cork(now);
        } else {
            self.uncork();
        }
        match decision {
            Decision::Run(job) => return self.work(job, now),
            Decision::RunAndWatch(job) => {
                shared.wake.wake();
                return self.work(job, now);
            }
            Decision::Queued => {}
            Decision::QueuedToHire => shared.wake.wake(),
            Decision::RunAndSpawn(job) | Decision::Refused(job) => {
                shared.log_refusal(job.call.path(), now);
                refuse(shared, &job.call, Refusal::BacklogFull);
            }
        }
        true
    }

    /// Answers a call that waits for no worker.
    fn answer(&self, call: Arc<Call>, message: Option<Message>) {
        let shared = self.shared;
        call.give_up();
        let open = shared.prompt_calls.fetch_add(1, Ordering::Relaxed);
        let refusal = match &message {
            None => Some(Refusal::NoMessage),
            Some(_) => (open >= shared.prompt_limit).then_some(Refusal::AnswersNotTaken),
        };
        if let Some(why) = refusal {
            call.refuse(why, why.ending());
        } else {
            if let (Some(observer), Some(now)) = (&shared.observer, call.arrived_at()) {
                call.note_begun(now);
                observer.begun(&call);
            }
            shared.host.run(&call, message);
            call.returned();
        }
    }

    /// Runs a call, then what waits for a worker. False if the thread is to end after that.
    fn work(&mut self, job: Job, now: Instant) -> bool {
        self.run(job, now);
        self.go_on()
    }

    /// Runs what waits for a worker, then does what is to be done. False if the thread is to end.
    fn go_on(&mut self) -> bool {
        let shared = self.shared;
        let goes_on = loop {
            match shared.roster.finished(shared.pollers(shared.is_crowded())) {
                Next::Run(job) => {
                    self.uncork();
                    let queued = true;
                    self.run(Job { queued, ..job }, Instant::now());
                }
                Next::Poll => break true,
                Next::Rest => {
                    self.uncork();
                    break shared.roster.rest();
                }
            }
        };
        shut_queue_down_if_idle(shared);
        goes_on
    }

    fn run(&self, job: Job, now: Instant) {
        let shared = self.shared;
        let Job {
            call,
            message,
            queued,
        } = job;
        // From here on whoever ends calls in a drain finds this one.
        *self.seat.at.lock() = Some((Arc::clone(&call), now));
        match reason_not_to_run(shared, &call, queued) {
            Some(why) => refuse(shared, &call, why),
            None => self.handle(&call, message, now),
        }
        // A thread that rests must not keep a call, which would keep its connection.
        drop(call);
        // Dropped after the lock.
        let done = self.seat.at.lock().take();
        drop(done);
    }

    fn handle(&self, call: &Arc<Call>, message: Option<Message>, now: Instant) {
        let shared = self.shared;
        if call.is_draining() {
            call.watch();
        }
        if let Some(observer) = &shared.observer {
            call.note_begun(now);
            observer.begun(call);
        }
        shared.host.run(call, message);
        call.returned();
        if let Some(method) = shared.method(call) {
            method.pace.learn(now.elapsed());
        }
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
pub(super) fn shut_queue_down_if_idle(shared: &Shared) {
    // The roster is closed only when the engine stops.
    if shared.stopping.load(Ordering::SeqCst)
        && shared.roster.is_closed_and_idle()
        && shared.slots_out.load(Ordering::SeqCst) == 0
    {
        shared.queue.shut_down();
    }
}

/// Why a call is not to be run that was to be run a moment ago, if so.
fn reason_not_to_run(shared: &Shared, call: &Call, queued: bool) -> Option<Refusal> {
    if queued && call.deadline_passed() {
        return Some(Refusal::Expired);
    }
    // What was looked at when the call arrived may have changed.
    (queued || call.is_draining()).then(|| shared.no_time_for(call))?
}

/// Ends a call that no handler has seen.
fn refuse(shared: &Shared, call: &Arc<Call>, why: Refusal) {
    refuse_as(shared, call, why, why.ending());
}

fn refuse_as(shared: &Shared, call: &Arc<Call>, why: Refusal, ending: Ending<'_>) {
    // It may have been cut, or abandoned, in the moment before.
    if call.refuse(why, ending) {
        shared.host.refused(call);
    }
}
