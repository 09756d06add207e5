//! The threads that poll and run handlers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::at_stream::run_stream;
use super::call::{Call, Ending};
use super::decision::{Beginning, Decision, Next, Outlook, Rested};
use super::fault::Fault;
use super::message::Message;
use super::method::Method;
use super::record::{Record, Refusal};
use super::renewal::Usage;
use super::seats::Seat;
use super::shared::{Job, Shared};
use super::stream_threads::Quiet;
use super::transport::{Arrival, Event};
use crate::logging;

/// How many events are handled at the most, and for how long, before the replies
/// go out that were held back to go out together.
const CORKED: (u32, Duration) = (32, Duration::from_micros(300));

/// Polls, and runs what comes, until the transport is at its end, or the roster lets the thread end.
pub(super) fn run(shared: &Arc<Shared>, beginning: Beginning) {
    let mut worker = Worker {
        shared,
        seat: shared.seats.take(),
        corked: None,
        usage: Usage::default(),
        moves: 0,
        quiet: Quiet::default(),
    };
    let mut goes_on = match beginning {
        Beginning::Poll => true,
        Beginning::Rest => worker.after_rest(shared.roster.rest()),
        Beginning::Relieve => worker.after_rest(shared.roster.relieve()),
        Beginning::Finished => worker.go_on(false),
    };
    while goes_on {
        match worker.next() {
            Event::Told => {}
            Event::Arrival(arrival) => {
                goes_on = worker.arrived(arrival);
                shared.transport.arrival_is_over();
                shared.end_transport_if_idle();
            }
            Event::Step(call) => {
                goes_on = worker.step_is_due(call);
                shared.end_transport_if_idle();
            }
            Event::NoArrival => shared.end_transport_if_idle(),
            Event::Check(answer) => answer(),
            Event::Renewal => goes_on = worker.renew(),
            Event::Stopped => {
                shared.roster.close();
                shared.end_transport_if_idle();
            }
            Event::End => break,
        }
    }
    worker.uncork();
    shared.seats.leave(&worker.seat);
}

pub(super) struct Worker<'a> {
    pub(super) shared: &'a Arc<Shared>,
    seat: Arc<Seat>,
    /// While replies are held back: how many more events may be handled first, and
    /// since when.
    corked: Option<(u32, Instant)>,
    usage: Usage,
    /// As it was when this thread last took a call: how often streams had gone on, and those that had not.
    moves: usize,
    quiet: Quiet,
}

impl Worker<'_> {
    fn next(&mut self) -> Event {
        while let Some((left, since)) = self.corked {
            let event = match left > 0 && since.elapsed() < CORKED.1 {
                true => self.shared.transport.try_next(&self.shared.ground),
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
        self.shared.transport.next(&self.shared.ground)
    }

    /// From now on replies wait for each other. A short call costs less than the
    /// system call that sends its reply.
    fn cork(&mut self, now: Instant) {
        if self.corked.is_none() {
            // The watch lets them go, should the next handler be long after all.
            if self.shared.roster.keep_watch() {
                self.shared.ground.wake.wake();
            }
            self.shared.transport.cork();
            self.corked = Some((CORKED.0, now));
        }
    }

    pub(super) fn uncork(&mut self) {
        if self.corked.take().is_some() {
            self.shared.transport.uncork();
        }
    }

    /// Does with a call what is to be done. False if the thread is to end after that.
    fn arrived(&mut self, arrival: Arrival) -> bool {
        let shared = self.shared;
        let ground = &shared.ground;
        let Arrival {
            call,
            message,
            unknown,
            fault,
        } = arrival;
        let bytes = message.as_ref().map_or(0, Message::len);
        if self.usage.call(&shared.heap, bytes) {
            ground.wake.wake();
        }
        let is_prompt = ground.is_prompt(&call);
        if !is_prompt {
            // First: a drain may end as long as nobody has counted it.
            ground.host.arrived();
        }
        if let Some(observer) = &ground.observer {
            observer.arrived(&call);
        }
        if is_prompt {
            self.answer(call, message, fault);
            return true;
        }
        if let Some(fault) = fault {
            logging::debug!("{}: {}", call.path(), fault.text());
            if let (Fault::Header, Some(number)) = (fault, call.noted_connection()) {
                ground.connections.blame(number);
            }
            shared.refuse_as(&call, Refusal::Malformed, fault.ending());
            return true;
        }
        if let Some(path) = unknown {
            logging::debug!("{path} is not implemented here");
            let message = &format!("{path} is not implemented here");
            let why = Refusal::UnknownMethod;
            let ending = why.ending();
            shared.refuse_as(&call, why, Ending { message, ..ending });
            return true;
        }
        if message.is_none() && !ground.expects_stream(&call) {
            // The caller left, or has sent none.
            logging::debug!("{}: ended without a request", call.path());
            shared.refuse(&call, Refusal::NoMessage);
            return true;
        }
        let in_flight = ground.host.in_flight();
        if let Some(why) = shared.reason_to_refuse(&call, in_flight) {
            logging::debug!("{}: refused: {}", call.path(), why.ending().message);
            shared.refuse(&call, why);
            return true;
        }
        let now = call.arrived_at();
        self.quiet = shared.streams.quiet(&mut self.moves);
        let crowded = shared.is_crowded(in_flight, self.quiet);
        let method = ground.method(&call);
        let outlook = Outlook {
            short: method.is_some_and(|it| it.pace.is_short()),
            pollers: shared.pollers(crowded, self.quiet),
            bytes,
            is_step: false,
        };
        // A handler that streams waits for what it has written.
        let may_cork = outlook.short && crowded && !method.is_some_and(Method::is_streaming);
        let job = Job {
            call,
            message,
            queued: false,
        };
        let decision = shared.roster.arrived(job, outlook, now);
        self.carry_out(decision, outlook, may_cork, now)
    }

    /// A step of a call is due. False if the thread is to end after that.
    fn step_is_due(&mut self, call: Arc<Call>) -> bool {
        let shared = self.shared;
        if self.usage.call(&shared.heap, 0) {
            shared.ground.wake.wake();
        }
        let now = Instant::now();
        self.quiet = shared.streams.quiet(&mut self.moves);
        let crowded = shared.is_crowded(shared.ground.host.in_flight(), self.quiet);
        let method = shared.ground.method(&call);
        let outlook = Outlook {
            short: method.is_some_and(|it| it.pace.is_short()),
            pollers: shared.pollers(crowded, self.quiet),
            bytes: 0,
            is_step: true,
        };
        let job = Job {
            call,
            message: None,
            queued: false,
        };
        let decision = shared.roster.arrived(job, outlook, now);
        self.carry_out(decision, outlook, outlook.short && crowded, now)
    }

    /// Does what the roster says. False if the thread is to end after that.
    fn carry_out(
        &mut self,
        mut decision: Decision<Job>,
        outlook: Outlook,
        may_cork: bool,
        now: Instant,
    ) -> bool {
        let shared = self.shared;
        let ground = &shared.ground;
        if let Decision::RunAndSpawn(job) = decision {
            decision = match shared.spawn_worker(Beginning::Poll) {
                true => Decision::Run(job),
                false => shared.roster.spawn_failed(job, outlook),
            };
            if outlook.short {
                // The watch may have to begin.
                ground.wake.wake();
            }
        }
        if may_cork {
            self.cork(now);
        } else {
            self.uncork();
        }
        let waits = matches!(
            decision,
            Decision::Queued | Decision::QueuedToHire | Decision::QueuedInstead(_)
        );
        if waits && (shared.streams.hold_places() || shared.roster.spare() > 0) {
            shared.want_relief();
        }
        match decision {
            Decision::Run(job) => return self.work(job, now),
            Decision::RunAndWatch(job) => {
                ground.wake.wake();
                return self.work(job, now);
            }
            Decision::Queued => {
                if !outlook.is_step && shared.waiting.begin() {
                    ground.wake.wake();
                }
            }
            Decision::QueuedToHire => {
                if !outlook.is_step {
                    shared.waiting.begin();
                }
                ground.wake.wake();
            }
            Decision::QueuedInstead(others) => {
                shared.waiting.begin();
                ground.wake.wake();
                for job in others {
                    shared.refusals.log(job.call.path(), now);
                    shared.refuse(&job.call, Refusal::BacklogFull);
                }
            }
            Decision::RunAndSpawn(job) | Decision::Refused(job) => {
                shared.refusals.log(job.call.path(), now);
                shared.refuse(&job.call, Refusal::BacklogFull);
            }
        }
        true
    }

    /// Answers a call that waits for no worker.
    fn answer(&self, call: Arc<Call>, message: Option<Message>, fault: Option<Fault>) {
        let ground = &self.shared.ground;
        call.give_up();
        let (open, limit) = (ground.prompt_calls.enter(), ground.prompt_calls.limit());
        let has_room = !self.shared.is_over_share(&call, open, limit);
        let refusal = match &message {
            _ if fault.is_some() => Some(Refusal::Malformed),
            None => Some(Refusal::NoMessage),
            Some(_) if call.deadline_passed() => Some(Refusal::ArrivedLate),
            Some(_) => (!has_room).then_some(Refusal::AnswersNotTaken),
        };
        if let Some(why) = refusal {
            let ending = fault.map_or_else(|| why.ending(), Fault::ending);
            call.refuse(why, ending);
        } else {
            if let Some(observer) = &ground.observer {
                call.note_begun(call.arrived_at());
                observer.begun(&call);
            }
            ground.host.run(&call, message);
            call.returned();
        }
    }

    /// Runs a call, then what waits for a worker. False if the thread is to end after that.
    fn work(&mut self, job: Job, now: Instant) -> bool {
        let aside = self.run(job, now);
        self.go_on(aside)
    }

    /// Runs what waits for a worker, then does what is to be done. False if the thread is to end. It has a place, or, if
    /// it is `aside`, none.
    fn go_on(&mut self, mut aside: bool) -> bool {
        let shared = self.shared;
        let goes_on = loop {
            let in_flight = shared.ground.host.in_flight();
            let crowded = shared.is_crowded(in_flight, self.quiet);
            let pollers = shared.pollers(crowded, self.quiet);
            let next = match aside {
                true => shared.roster.finished_aside(pollers),
                false => shared.roster.finished(pollers),
            };
            match next {
                Next::Run(job) => {
                    self.uncork();
                    let queued = true;
                    aside = self.run(Job { queued, ..job }, Instant::now());
                }
                Next::Poll => break true,
                next @ (Next::Rest | Next::RestToo) => {
                    self.uncork();
                    if matches!(next, Next::RestToo) {
                        shared.note_surplus();
                    }
                    // The last handler may have ended.
                    shared.end_transport_if_idle();
                    match shared.roster.rest() {
                        Rested::Poll => break true,
                        Rested::End => break false,
                        Rested::Work => aside = false,
                    }
                }
            }
        };
        shared.end_transport_if_idle();
        goes_on
    }

    /// Does what a thread is to do that has rested. False if it is to end.
    pub(super) fn after_rest(&mut self, rested: Rested) -> bool {
        match rested {
            Rested::Poll => true,
            Rested::Work => self.go_on(false),
            Rested::End => false,
        }
    }

    /// Says whether the handler has given its place back.
    fn run(&self, job: Job, now: Instant) -> bool {
        let shared = self.shared;
        let Job {
            call,
            message,
            queued,
        } = job;
        // From here on the thread that ends calls in a drain finds this one.
        self.seat.begin(&call, now);
        // Its handler has run before.
        if call.is_stepped() {
            self.step(&call, now);
            drop(call);
            self.seat.end();
            return false;
        }
        let aside = match shared.reason_not_to_run(&call, queued) {
            Some(why) => {
                shared.refuse(&call, why);
                false
            }
            None => self.handle(&call, message, now),
        };
        // A thread that rests must not keep a call, which would keep its connection.
        drop(call);
        self.seat.end();
        aside
    }

    fn handle(&self, call: &Arc<Call>, message: Option<Message>, now: Instant) -> bool {
        let ground = &self.shared.ground;
        if call.is_draining() {
            call.watch();
        }
        if let Some(observer) = &ground.observer {
            call.note_begun(now);
            observer.begun(call);
        }
        let aside = match call.is_streaming() {
            true => run_stream(self.shared, call, || ground.host.run(call, message)),
            false => {
                ground.host.run(call, message);
                false
            }
        };
        call.returned();
        if let Some(method) = ground.method(call) {
            // If somebody has noted it already, the clock need not be asked again.
            let ran = call.record().and_then(Record::ran);
            method.pace.learn(ran.unwrap_or_else(|| now.elapsed()));
        }
        if call.is_stepped() {
            self.step(call, Instant::now());
        }
        aside
    }

    fn step(&self, call: &Arc<Call>, now: Instant) {
        let ground = &self.shared.ground;
        call.begin_step();
        ground.host.step(call);
        if let Some(method) = ground.method(call) {
            method.pace.learn(now.elapsed());
        }
        if call.end_step() {
            self.shared.roster.step_again(Job {
                call: Arc::clone(call),
                message: None,
                queued: true,
            });
        }
    }
}
