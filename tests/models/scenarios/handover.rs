//! The workers' hand-over: who polls, who runs a handler, who rests, and what waits.
//!
//! Around the roster stands what the engine has there: a queue that any thread may poll, threads that run
//! what they took off it, and the housekeeper, which watches. A handler here may block until a later call
//! was taken off the queue. So if there is a moment in which nobody polls and nobody will, that is a
//! deadlock, and shuttle finds it.

use std::collections::VecDeque;
use std::time::Duration;

use super::decision::{
    Backlog, Beginning, Decision, Leaving, Next, Outlook, Rested, Waits, Watched,
};
use super::roster::{Roster, TICK};
use crate::sync::{thread, time, Arc, Condvar, Instant, Mutex};

#[cfg(not(test))]
impl Waits for u32 {
    /// All have come on one.
    fn connection(&self) -> u64 {
        0
    }

    fn is_stream(&self) -> bool {
        false
    }
}

struct Site {
    roster: Roster<u32>,
    pollers: usize,
    short: bool,
    events: Mutex<Events>,
    /// Signalled once for each event, and for all at the end.
    happened: Condvar,
    log: Mutex<Log>,
    /// Signalled when `log` changed.
    logged: Condvar,
    woken: Mutex<Woken>,
    /// Goes with `woken`.
    wake: Condvar,
    /// What a handler waits for.
    handler: fn(&Site, u32),
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
    /// How often no thread can be started.
    failures: Mutex<usize>,
    /// From this one on they are steps.
    first_step: Mutex<u32>,
    keeper: Mutex<Option<thread::JoinHandle<()>>>,
}

#[derive(Default)]
struct Events {
    calls: VecDeque<u32>,
    renewal: bool,
    stopping: bool,
    over: bool,
}

#[derive(Default)]
struct Log {
    taken: Vec<u32>,
    done: Vec<u32>,
    refused: Vec<u32>,
    queued: usize,
    running: usize,
}

#[derive(Default)]
struct Woken {
    woken: bool,
    over: bool,
}

enum Event {
    Call(u32),
    Renewal,
    Stopping,
}

impl Site {
    /// Starts what `Engine::start` starts.
    fn new(
        workers: usize,
        backlog: usize,
        pollers: usize,
        short: bool,
        handler: fn(&Site, u32),
    ) -> Arc<Site> {
        let site = Arc::new(Site {
            roster: Roster::new(
                workers,
                Backlog {
                    calls: backlog,
                    bytes: usize::MAX,
                },
            ),
            pollers,
            short,
            events: Mutex::new(Events::default()),
            happened: Condvar::new(),
            log: Mutex::new(Log::default()),
            logged: Condvar::new(),
            woken: Mutex::new(Woken::default()),
            wake: Condvar::new(),
            handler,
            threads: Mutex::new(Vec::new()),
            failures: Mutex::new(0),
            first_step: Mutex::new(u32::MAX),
            keeper: Mutex::new(None),
        });
        assert!(site.spawn(Beginning::Rest) && site.spawn(Beginning::Poll));
        let keeper = Arc::clone(&site);
        *site.keeper.lock() = Some(thread::spawn(move || keeper.keep_house()));
        site
    }

    /// False if there can be no thread.
    fn spawn(self: &Arc<Self>, beginning: Beginning) -> bool {
        let mut failures = self.failures.lock();
        if *failures > 0 {
            *failures -= 1;
            return false;
        }
        drop(failures);
        let site = Arc::clone(self);
        let thread = thread::spawn(move || site.work(beginning));
        self.threads.lock().push(thread);
        true
    }

    fn arrive(&self, call: u32) {
        self.events.lock().calls.push_back(call);
        self.happened.notify_one();
    }

    /// Ends the site, once every one of so many calls is answered, and waits for its threads.
    fn end(self: &Arc<Self>, calls: usize) {
        let mut log = self.log.lock();
        while log.done.len() + log.refused.len() < calls {
            self.logged.wait(&mut log);
        }
        drop(log);
        self.events.lock().stopping = true;
        self.happened.notify_one();
        self.join_threads();
        self.woken.lock().over = true;
        self.wake.notify_one();
        let keeper = self.keeper.lock().take().expect("it ends once");
        keeper.join().unwrap();
        // Those that it has started last.
        self.join_threads();
        let mut log = self.log.lock();
        assert_eq!(log.running, 0);
        let mut answered = std::mem::take(&mut log.done);
        answered.extend(&log.refused);
        answered.sort_unstable();
        let all: Vec<u32> = (0..calls as u32).collect();
        assert_eq!(answered, all, "a call was lost, or answered twice");
    }

    fn join_threads(&self) {
        loop {
            let thread = self.threads.lock().pop();
            let Some(thread) = thread else { break };
            thread.join().unwrap();
        }
    }

    /// What `worker::run` does.
    fn work(self: &Arc<Self>, beginning: Beginning) {
        let mut goes_on = match beginning {
            Beginning::Poll => true,
            Beginning::Rest => self.after_rest(self.roster.rest()),
            Beginning::Relieve => self.after_rest(self.roster.relieve()),
            Beginning::Finished => self.go_on(),
        };
        while goes_on {
            match self.poll() {
                Some(Event::Call(call)) => goes_on = self.arrived(call),
                Some(Event::Renewal) => goes_on = self.renew(),
                Some(Event::Stopping) => {
                    self.roster.close();
                    self.shut_queue_down_if_idle();
                }
                None => break,
            }
        }
    }

    fn poll(&self) -> Option<Event> {
        let mut events = self.events.lock();
        loop {
            if let Some(call) = events.calls.pop_front() {
                return Some(Event::Call(call));
            }
            if std::mem::take(&mut events.renewal) {
                return Some(Event::Renewal);
            }
            if events.over {
                return None;
            }
            if std::mem::take(&mut events.stopping) {
                return Some(Event::Stopping);
            }
            self.happened.wait(&mut events);
        }
    }

    fn arrived(self: &Arc<Self>, call: u32) -> bool {
        self.note(|log| log.taken.push(call));
        let outlook = Outlook {
            short: self.short,
            pollers: self.pollers,
            bytes: 1,
            is_step: call >= *self.first_step.lock(),
        };
        let mut decision = self.roster.arrived(call, outlook, Instant::now());
        if let Decision::RunAndSpawn(call) = decision {
            decision = match self.spawn(Beginning::Poll) {
                true => Decision::Run(call),
                false => self.roster.spawn_failed(call, outlook),
            };
            self.wake_housekeeper();
        }
        match decision {
            Decision::Run(call) => return self.run(call),
            Decision::RunAndWatch(call) => {
                self.wake_housekeeper();
                return self.run(call);
            }
            Decision::Queued => self.note(|log| log.queued += 1),
            Decision::QueuedToHire => {
                self.note(|log| log.queued += 1);
                self.wake_housekeeper();
            }
            Decision::QueuedInstead(_) => panic!("all have come on one connection"),
            Decision::RunAndSpawn(call) | Decision::Refused(call) => {
                self.note(|log| log.refused.push(call));
            }
        }
        true
    }

    fn run(&self, call: u32) -> bool {
        self.run_one(call);
        self.go_on()
    }

    fn go_on(&self) -> bool {
        let goes_on = loop {
            match self.roster.finished(self.pollers) {
                Next::Run(call) => self.run_one(call),
                Next::Poll => break true,
                Next::Rest | Next::RestToo => match self.roster.rest() {
                    Rested::Poll => break true,
                    Rested::Work => {}
                    Rested::End => break false,
                },
            }
        };
        self.shut_queue_down_if_idle();
        goes_on
    }

    fn after_rest(&self, rested: Rested) -> bool {
        match rested {
            Rested::Poll => true,
            Rested::Work => self.go_on(),
            Rested::End => false,
        }
    }

    fn run_one(&self, call: u32) {
        self.note(|log| log.running += 1);
        (self.handler)(self, call);
        self.note(|log| {
            log.running -= 1;
            log.done.push(call);
        });
    }

    fn shut_queue_down_if_idle(&self) {
        if self.roster.is_closed_and_idle() {
            self.events.lock().over = true;
            self.happened.notify_all();
        }
    }

    fn wake_housekeeper(&self) {
        self.woken.lock().woken = true;
        self.wake.notify_one();
    }

    /// What `Housekeeper::watch_workers` and `Housekeeper::hire` do.
    fn keep_house(self: &Arc<Self>) {
        loop {
            let now = Instant::now();
            let watched = self.roster.watch(now);
            if matches!(watched, Watched::Spawn) && !self.spawn(Beginning::Poll) {
                self.roster.watch_failed(now);
            }
            let mut until = (!matches!(watched, Watched::Off)).then(|| now + TICK);
            while self.roster.hire() {
                if !self.spawn(Beginning::Finished) {
                    self.roster.hire_failed();
                    self.shut_queue_down_if_idle();
                    until = Some(now + TICK);
                    break;
                }
            }
            let mut woken = self.woken.lock();
            if woken.over {
                return;
            }
            if !woken.woken {
                match until {
                    Some(until) => drop(self.wake.wait_until(&mut woken, until)),
                    None => self.wake.wait(&mut woken),
                }
            }
            woken.woken = false;
        }
    }

    /// What `Worker::renew` does.
    fn renew(self: &Arc<Self>) -> bool {
        match self.roster.leave_poll() {
            None => !self.spawn(Beginning::Poll),
            Some(leaving) => {
                self.post_renewal();
                matches!(leaving, Leaving::Rest) && self.after_rest(self.roster.rest())
            }
        }
    }

    fn post_renewal(&self) {
        self.events.lock().renewal = true;
        self.happened.notify_one();
    }

    /// What `Shared::renew_threads` does.
    fn renew_threads(self: &Arc<Self>) {
        self.post_renewal();
        if !self.spawn(Beginning::Relieve) {
            self.roster.dismiss();
        }
    }

    fn note(&self, note: impl FnOnce(&mut Log)) {
        let mut log = self.log.lock();
        note(&mut log);
        self.logged.notify_all();
    }

    /// Blocks the handler that calls it.
    fn until(&self, is_true: impl Fn(&Log) -> bool) {
        let mut log = self.log.lock();
        while !is_true(&log) {
            self.logged.wait(&mut log);
        }
    }
}

fn returns_at_once(_: &Site, _: u32) {}

/// Every call is answered, whoever polls.
fn all_are_answered(workers: usize, backlog: usize, pollers: usize, short: bool) {
    const CALLS: u32 = 5;
    let site = Site::new(workers, backlog, pollers, short, returns_at_once);
    (0..CALLS).for_each(|call| site.arrive(call));
    site.end(CALLS as usize);
}

pub fn long_calls_are_answered() {
    all_are_answered(2, 8, 1, false);
}

pub fn short_calls_are_answered() {
    all_are_answered(2, 8, 1, true);
}

pub fn calls_are_answered_by_several_pollers() {
    all_are_answered(3, 8, 2, true);
}

/// With all workers blocked, the next calls are still taken off the queue: one waits, the others
/// are refused, and no more handlers run than there are workers.
pub fn somebody_polls_while_all_workers_are_blocked() {
    const CALLS: usize = 5;
    fn handler(site: &Site, _: u32) {
        assert!(site.log.lock().running <= 2, "too many handlers run");
        site.until(|log| log.queued + log.refused.len() == CALLS - 2);
    }
    let site = Site::new(2, 1, 1, false, handler);
    (0..CALLS as u32).for_each(|call| site.arrive(call));
    site.end(CALLS);
    let refused = site.log.lock().refused.len();
    assert_eq!(refused, CALLS - 3, "the backlog is not what it was set to");
}

/// With the only worker blocked, steps are taken off the queue and wait, however many calls do, and take turns with
/// those.
pub fn steps_wait_and_take_turns_with_calls() {
    const CALLS: u32 = 6;
    const FIRST_STEP: u32 = 3;
    fn handler(site: &Site, call: u32) {
        if call == 0 {
            site.until(|log| log.queued == CALLS as usize - 1);
        }
    }
    let site = Site::new(1, 2, 1, false, handler);
    *site.first_step.lock() = FIRST_STEP;
    (0..CALLS).for_each(|call| site.arrive(call));
    site.until(|log| log.done.len() + log.refused.len() == CALLS as usize);
    let log = site.log.lock();
    assert!(log.refused.is_empty(), "the backlog has room for the calls");
    let done: Vec<_> = log.done.iter().map(|call| *call >= FIRST_STEP).collect();
    assert_eq!(done[..5], [false, false, true, false, true], "not by turns");
    drop(log);
    site.end(CALLS as usize);
}

/// A method that was short and is not any more: the watch sends somebody to poll.
pub fn a_call_that_is_suddenly_long_is_watched() {
    const CALLS: usize = 5;
    fn handler(site: &Site, call: u32) {
        // The first few make the watch begin.
        if call == 3 {
            site.until(|log| log.taken.len() == CALLS);
        }
    }
    let site = Site::new(2, 8, 1, true, handler);
    (0..CALLS as u32).for_each(|call| site.arrive(call));
    site.end(CALLS);
}

/// As before, and the process stands still: while nobody polls, and once more at any time.
pub fn a_call_that_is_suddenly_long_is_watched_though_the_process_stands_still() {
    const CALLS: usize = 5;
    const PAUSE: Duration = Duration::from_secs(60);
    fn handler(site: &Site, call: u32) {
        if call == 3 {
            time::pass(PAUSE);
            site.until(|log| log.taken.len() == CALLS);
        }
    }
    let site = Site::new(2, 8, 1, true, handler);
    let pause = thread::spawn(|| time::pass(PAUSE));
    (0..CALLS as u32).for_each(|call| site.arrive(call));
    pause.join().unwrap();
    site.end(CALLS);
    assert!(
        site.log.lock().refused.is_empty(),
        "refused because of a pause"
    );
}

/// After calls that came together something is done with those who rest, while calls arrive of which some wait for
/// later ones.
fn calls_arrive_during(pollers: usize, what: impl FnOnce(Arc<Site>) + Send + 'static) {
    const CALLS: usize = 6;
    fn handler(site: &Site, call: u32) {
        if call % 3 < 2 {
            site.until(|log| log.taken.contains(&(call + 1)));
        }
    }
    let site = Site::new(3, 8, pollers, false, handler);
    (0..3).for_each(|call| site.arrive(call));
    site.until(|log| log.done.len() == 3);
    let with = Arc::clone(&site);
    let doing = thread::spawn(move || what(with));
    (3..CALLS as u32).for_each(|call| site.arrive(call));
    doing.join().unwrap();
    site.end(CALLS);
}

pub fn threads_are_let_go_while_calls_arrive() {
    calls_arrive_during(1, |site| (0..2).for_each(|_| site.roster.dismiss()));
}

pub fn threads_are_renewed_while_calls_arrive() {
    calls_arrive_during(1, |site| (0..2).for_each(|_| site.renew_threads()));
}

pub fn threads_are_renewed_of_which_several_poll() {
    calls_arrive_during(3, |site| (0..2).for_each(|_| site.renew_threads()));
}

pub fn threads_are_renewed_of_which_some_cannot_be_started() {
    calls_arrive_during(1, |site| {
        *site.failures.lock() = 1;
        site.renew_threads();
    });
}

/// No thread can be started for a while, and calls wait for the end of later ones.
pub fn calls_wait_for_threads_that_cannot_be_started() {
    const CALLS: usize = 4;
    fn handler(site: &Site, call: u32) {
        if call % 2 == 0 {
            site.until(|log| log.done.contains(&(call + 1)));
        }
    }
    let site = Site::new(2, 8, 1, false, handler);
    *site.failures.lock() = 2;
    (0..CALLS as u32).for_each(|call| site.arrive(call));
    site.end(CALLS);
}

/// As before, and short calls that are not short.
pub fn the_watch_waits_for_threads_that_cannot_be_started() {
    const CALLS: usize = 5;
    fn handler(site: &Site, call: u32) {
        if call == 3 {
            site.until(|log| log.done.contains(&4));
        }
    }
    let site = Site::new(2, 8, 1, true, handler);
    *site.failures.lock() = 2;
    (0..CALLS as u32).for_each(|call| site.arrive(call));
    site.end(CALLS);
}
