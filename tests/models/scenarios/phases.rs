//! The phases against signals, calls that begin or hasten the stop, and the hard deadline.

use std::time::Duration;

use super::lifecycle::{
    exit_code, Builder, Hook, Lifecycle, Outcome, OwnedGuard, Participant, Phase, Plan, Reason,
    Report, SignalSender, Signals, StartupHook, Canceller, Transition,
};
use crate::sync::{thread, time, Arc, Instant, Mutex};
use shuttle::rand::{self, Rng};

const TERM: i32 = 15;
const INT: i32 = 2;
const HUP: i32 = 1;

const SECOND: Duration = Duration::from_secs(1);
/// What lasts so long is noticed. A stop that lasted for hours would be one of too many slices.
const LONG: Duration = Duration::from_secs(20);

fn spawn<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    thread::spawn(run)
}

fn join<T>(threads: impl IntoIterator<Item = thread::JoinHandle<T>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}

/// A plan whose phases take a second each.
fn short() -> Plan {
    Plan::new()
        .with_lame_duck(SECOND)
        .with_grace_period(SECOND)
        .with_force_period(SECOND)
        .with_closing(SECOND)
}

/// A lifecycle under observation.
struct Observed {
    lifecycle: Lifecycle,
    signals: SignalSender,
    /// What an observer has seen from the start.
    seen: Arc<Mutex<Vec<Transition>>>,
    /// The codes with which the process would have exited, and when.
    exits: Arc<Mutex<Vec<(i32, Instant)>>>,
    /// Cancelled at the first of these.
    exited: Canceller,
}

impl Observed {
    fn new(plan: Plan) -> Self {
        Self::build(Lifecycle::builder().plan(plan))
    }

    fn build(builder: Builder) -> Self {
        let (source, signals) = Signals::injected();
        let (seen, exits) = (Arc::new(Mutex::new(vec![])), Arc::new(Mutex::new(vec![])));
        let exited = Canceller::new();
        let lifecycle = builder
            .signals(source)
            .observe({
                let seen = seen.clone();
                move |transition| seen.lock().push(*transition)
            })
            .exit_with({
                let (exits, exited) = (exits.clone(), exited.clone());
                move |code| {
                    exits.lock().push((code, Instant::now()));
                    exited.cancel();
                }
            })
            .build()
            .unwrap();
        Self {
            lifecycle,
            signals,
            seen,
            exits,
            exited,
        }
    }

    /// A thread that sends these, one after the other.
    fn send(&self, signals: &'static [i32]) -> thread::JoinHandle<()> {
        let sender = self.signals.clone();
        spawn(move || signals.iter().for_each(|signal| sender.send(*signal)))
    }

    fn with<T: Send + 'static>(
        &self,
        run: impl FnOnce(Lifecycle) -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let lifecycle = self.lifecycle.clone();
        spawn(move || run(lifecycle))
    }

    /// Waits for the end and checks what holds of every one.
    fn wait(&self) -> Report {
        let report = self.lifecycle.wait();
        let seen = self.seen.lock().clone();
        assert_walk(&seen);
        assert_eq!(self.lifecycle.phase(), Phase::Stopped, "a step back");
        let left: Vec<Phase> = seen.iter().map(|transition| transition.from).collect();
        let reported: Vec<Phase> = report.phases.iter().map(|phase| phase.phase).collect();
        assert_eq!(left, reported, "the report has the phases");
        let lifecycle = &self.lifecycle;
        for token in [
            lifecycle.stopping(),
            lifecycle.draining(),
            lifecycle.cancelling(),
        ] {
            assert!(token.is_cancelled(), "somebody may wait for it");
        }
        assert!(lifecycle.in_flight().is_closed());
        assert!(lifecycle.ready().is_err());
        report
    }

    /// As `wait`, and nothing was late enough to exit for.
    fn wait_in_time(&self) -> Report {
        let report = self.wait();
        assert!(self.exits.lock().is_empty(), "exited before its time");
        report
    }
}

/// Each transition begins where the one before it ended, and the last is to Stopped.
fn assert_walk(seen: &[Transition]) {
    let mut phase = Phase::Starting;
    for transition in seen {
        assert_eq!(transition.from, phase, "a transition is missing: {seen:?}");
        assert!(transition.to > phase, "a step back: {seen:?}");
        phase = transition.to;
    }
    assert_eq!(phase, Phase::Stopped, "not told of the end: {seen:?}");
    assert!(seen.windows(2).all(|pair| pair[0].at <= pair[1].at));
}

/// Holds a guard of the gate until it is told to drain or to cancel; hangs where it is asked to, until
/// `released`.
struct Server {
    guard: Mutex<Option<OwnedGuard>>,
    leaves: Leaves,
    told: Mutex<Vec<&'static str>>,
    hangs_in: &'static str,
    released: Canceller,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaves {
    WhenDrained,
    WhenCancelled,
}

impl Server {
    fn enlist(observed: &Observed, leaves: Leaves, hangs_in: &'static str) -> Option<Arc<Self>> {
        let guard = observed.lifecycle.in_flight().enter_owned().ok()?;
        let server = Arc::new(Self {
            guard: Mutex::new(Some(guard)),
            leaves,
            told: Mutex::default(),
            hangs_in,
            released: observed.exited.clone(),
        });
        let enlisted = observed.lifecycle.enlist(server.clone());
        if enlisted.is_err() {
            // Nobody will tell it of anything.
            drop(server.guard.lock().take());
        }
        enlisted.ok().map(|()| server)
    }

    fn told(&self, what: &'static str, leave: bool) {
        self.told.lock().push(what);
        if self.hangs_in.starts_with(what) {
            self.released.wait();
        }
        if leave {
            let guard = self.guard.lock().take();
            drop(guard);
        }
    }
}

impl Participant for Server {
    fn name(&self) -> String {
        "server".to_owned()
    }

    fn drain(&self) {
        self.told("drain", self.leaves == Leaves::WhenDrained);
    }

    fn cancel(&self) {
        self.told("cancel", true);
    }

    fn close(&self, _deadline: Instant) {
        self.told("close", false);
    }

    fn running(&self) -> Vec<String> {
        if self.hangs_in == "drain and running" {
            self.released.wait();
        }
        vec!["a call".to_owned()]
    }
}

/// A signal, a call to `shutdown` and the end of start-up, at any time, in any order, however late.
pub fn the_stop_may_begin_at_any_time() {
    let observed = Observed::new(short());
    let signal = observed.send(&[TERM]);
    let caller = observed.with(|lifecycle| lifecycle.shutdown("asked"));
    let server = Server::enlist(&observed, Leaves::WhenDrained, "");
    let served = observed.lifecycle.ready().is_ok();
    let report = observed.wait();
    let drained = report.phases.iter().any(|it| it.phase == Phase::Draining);
    // Who did not get in in time may have been seen at the gate.
    assert!(drained || server.is_none(), "nobody drained the server");
    let unready = 2 + usize::from(drained);
    assert_eq!(report.phases.len(), if served { 5 } else { unready } + usize::from(report.forced));
    match &report.reason {
        Reason::Signal(TERM) => {}
        Reason::Requested(why) => assert_eq!(why, "asked"),
        other => panic!("it was not {other}"),
    }
    if let Some(server) = server {
        let told = server.told.lock().clone();
        if report.hooks[0].outcome == Outcome::Done {
            assert_eq!(told.last(), Some(&"close"), "{told:?}");
        }
        assert!(told.contains(&"drain"), "{told:?}");
        drop(server.guard.lock().take());
    }
    join([signal, caller]);
}

/// With nothing late, what leaves when it is told to is not forced, and nothing exits.
pub fn a_stop_takes_no_longer_than_it_must() {
    time::be_patient();
    let observed = Observed::new(short().with_lame_duck(Duration::ZERO));
    let server = Server::enlist(&observed, Leaves::WhenDrained, "");
    let signal = observed.send(&[TERM]);
    let _ = observed.lifecycle.ready();
    let report = observed.wait_in_time();
    assert_eq!(report.took, Duration::ZERO);
    assert!(!report.forced);
    if let Some(server) = server {
        drop(server.guard.lock().take());
    }
    join([signal]);
}

/// The second signal ends the wait for what is in flight.
pub fn a_second_signal_leads_to_cancelling() {
    time::be_patient();
    let observed = Observed::new(short().with_lame_duck(Duration::ZERO).with_grace_period(LONG));
    let _server = Server::enlist(&observed, Leaves::WhenCancelled, "").unwrap();
    observed.lifecycle.ready().unwrap();
    let signals = observed.send(&[TERM, INT]);
    let report = observed.wait_in_time();
    assert_eq!(report.reason, Reason::Signal(TERM));
    assert!(report.forced && report.abandoned.is_empty());
    // Nothing has taken time; a wait that looks again now and then would come to it later.
    assert_eq!(report.took, Duration::ZERO, "the second signal changed nothing");
    join([signals]);
}

/// `hurry` does what a second signal does, whoever has begun the stop, and when.
pub fn hurry_is_not_lost() {
    time::be_patient();
    let observed = Observed::new(short().with_lame_duck(Duration::ZERO).with_grace_period(LONG));
    let _server = Server::enlist(&observed, Leaves::WhenCancelled, "").unwrap();
    observed.lifecycle.ready().unwrap();
    let callers = [
        observed.with(|lifecycle| lifecycle.shutdown("asked")),
        observed.with(|lifecycle| lifecycle.hurry()),
    ];
    let report = observed.wait_in_time();
    assert!(report.forced && report.took.is_zero(), "it was not hurried");
    join(callers);
}

/// The third signal exits, with its own code, whatever hangs.
pub fn a_third_signal_exits() {
    time::be_patient();
    let observed = Observed::new(short().with_lame_duck(LONG).with_grace_period(LONG));
    let server = Server::enlist(&observed, Leaves::WhenCancelled, "cancel").unwrap();
    observed.lifecycle.ready().unwrap();
    let signals = observed.send(&[TERM, TERM, INT]);
    let report = observed.wait();
    let exits: Vec<i32> = observed.exits.lock().iter().map(|exit| exit.0).collect();
    assert_eq!(exits, [i32::from(exit_code::third_signal(INT))]);
    assert_eq!(report.took, Duration::ZERO, "the signals changed nothing");
    join([signals]);
    drop(server);
}

/// The hard deadline is kept, to the moment, whoever hangs, and whoever has begun the stop.
pub fn the_hard_deadline_is_kept() {
    time::be_patient();
    let plan = short().with_lame_duck(Duration::ZERO);
    let observed = Observed::new(plan);
    let _server = Server::enlist(&observed, Leaves::WhenDrained, "drain").unwrap();
    observed.lifecycle.ready().unwrap();
    let began = Instant::now();
    let caller = observed.with(|lifecycle| lifecycle.shutdown("asked"));
    observed.wait();
    let exits = observed.exits.lock().clone();
    let at = began + plan.hard_deadline();
    assert_eq!(exits, [(i32::from(exit_code::HARD_DEADLINE), at)]);
    join([caller]);
}

/// A participant that does not say what runs holds up the exit for half a second, no longer.
pub fn last_words_do_not_hold_up_the_exit() {
    time::be_patient();
    let plan = short().with_lame_duck(Duration::ZERO);
    let observed = Observed::new(plan);
    let _server = Server::enlist(&observed, Leaves::WhenDrained, "drain and running").unwrap();
    observed.lifecycle.ready().unwrap();
    let began = Instant::now();
    let signal = observed.send(&[TERM]);
    observed.wait();
    let exits = observed.exits.lock().clone();
    let at = began + plan.hard_deadline() + SECOND / 2;
    assert_eq!(exits, [(i32::from(exit_code::HARD_DEADLINE), at)]);
    join([signal]);
}

/// A participant and a hook that hang as they close are left behind, and the walk ends.
pub fn what_hangs_in_closing_is_left_behind() {
    time::be_patient();
    let released = Canceller::new();
    let hook = Hook::new("hangs", {
        let released = released.clone();
        move || {
            released.wait();
            Ok(())
        }
    });
    let observed = Observed::build(
        Lifecycle::builder()
            .plan(short())
            .hook(hook)
            .hook(Hook::new("waits", || Ok(())).after("hangs")),
    );
    let server = Server::enlist(&observed, Leaves::WhenDrained, "close").unwrap();
    let _ = observed.lifecycle.ready();
    let signal = observed.send(&[TERM]);
    let report = observed.wait_in_time();
    let outcomes: Vec<_> = report.hooks.iter().map(|hook| &hook.outcome).collect();
    assert_eq!(outcomes, [&Outcome::Overran, &Outcome::Overran, &Outcome::NotRun]);
    assert_eq!(report.exit_code(), exit_code::CLOSING_FAILED);
    assert_eq!(report.took, 2 * SECOND);
    released.cancel();
    server.released.cancel();
    join([signal]);
}

/// The process stands still so often, for longer than all limits together: at any moment of the first seconds.
fn stand_still(times: usize) -> thread::JoinHandle<()> {
    spawn(move || {
        for _ in 0..times {
            let quarters = rand::thread_rng().gen_range(0..6);
            time::sleep(quarters * SECOND / 4 + quarters * SECOND / 100);
            time::pass(LONG);
        }
    })
}

/// What takes a part of its time when the process runs has it also if the process stands still meanwhile.
pub fn a_process_that_stands_still_goes_on_where_it_was() {
    time::be_patient();
    let part = SECOND / 4;
    let (startup, hook) = (StartupHook::new("opens", move || Ok(time::sleep(part))), move || Ok(time::sleep(part)));
    let observed = Observed::build(
        Lifecycle::builder()
            .plan(short())
            .startup(startup.time_limit(SECOND))
            .hook(Hook::new("flushes", hook).time_limit(SECOND)),
    );
    let pauses = stand_still(2);
    let work = observed.lifecycle.in_flight().enter_owned().unwrap();
    let worker = observed.with(move |lifecycle| {
        lifecycle.draining().wait();
        time::sleep(part);
        drop(work);
    });
    let served = observed.lifecycle.ready();
    assert!(served.is_ok(), "the start failed because of a pause");
    let signal = observed.send(&[TERM]);
    let report = observed.wait();
    assert!(observed.exits.lock().is_empty(), "it exited because of a pause");
    assert!(!report.forced, "what was in flight was told to leave because of a pause");
    let done = report.hooks.iter().all(|it| it.outcome == Outcome::Done);
    assert!(done, "a hook was left behind because of a pause");
    join([pauses, worker, signal]);
}

/// And what takes more than its time does not have more of it than a slice for each pause.
pub fn a_process_that_stands_still_keeps_its_limits() {
    time::be_patient();
    let observed = Observed::new(short().with_lame_duck(Duration::ZERO));
    let server = Server::enlist(&observed, Leaves::WhenCancelled, "").unwrap();
    observed.lifecycle.ready().unwrap();
    let pauses = stand_still(1);
    let signal = observed.send(&[TERM]);
    let report = observed.wait_in_time();
    assert!(report.forced, "the grace period did not end");
    assert!(report.took <= SECOND + LONG, "the grace period was longer");
    drop(server);
    join([pauses, signal]);
}

/// A start-up hook that notes what it does, and is undone.
fn startup(name: &'static str, log: &Arc<Mutex<Vec<String>>>) -> StartupHook {
    let (start, undo) = (log.clone(), log.clone());
    StartupHook::new(name, move || {
        start.lock().push(name.to_owned());
        Ok(())
    })
    .undo(move || {
        undo.lock().push(format!("undo {name}"));
        Ok(())
    })
}

/// A stop that begins during start-up ends it cleanly: nothing is started any more, and what has started
/// is undone, once, the last first.
pub fn a_stop_during_start_up_undoes_what_has_started() {
    time::be_patient();
    let log = Arc::new(Mutex::new(vec![]));
    let observed = Observed::build(
        Lifecycle::builder()
            .plan(short())
            .startup(startup("second", &log).after("first"))
            .startup(startup("first", &log)),
    );
    let signal = observed.send(&[TERM]);
    let served = observed.with(|lifecycle| lifecycle.ready().is_ok());
    let report = observed.wait();
    join([signal]);
    let log = log.lock().clone();
    let started: Vec<_> = log.iter().filter(|it| !it.starts_with("undo")).cloned().collect();
    let undone = started.iter().rev().map(|it| format!("undo {it}"));
    let all: Vec<_> = started.iter().cloned().chain(undone).collect();
    assert_eq!(log, all, "undone in reverse");
    assert_eq!(report.startup.len(), 2);
    if served.join().unwrap() {
        assert_eq!(started, ["first", "second"]);
    }
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
}

/// Once a stop has begun, no start-up hook begins to run.
pub fn nothing_is_started_during_a_stop() {
    time::be_patient();
    let (began, go_on) = (Canceller::new(), Canceller::new());
    let first = StartupHook::new("first", {
        let (began, go_on) = (began.clone(), go_on.clone());
        move || {
            began.cancel();
            go_on.wait();
            Ok(())
        }
    });
    let second = StartupHook::new("second", || Ok(())).after("first");
    let builder = Lifecycle::builder().plan(short()).startup(first);
    let observed = Observed::build(builder.startup(second));
    let server = observed.with(|lifecycle| lifecycle.ready());
    began.wait();
    let stopper = observed.with(move |lifecycle| {
        lifecycle.shutdown("asked");
        go_on.cancel();
    });
    let report = observed.wait_in_time();
    let outcomes: Vec<_> = report.startup.iter().map(|it| &it.outcome).collect();
    assert_eq!(outcomes, [&Outcome::Done, &Outcome::NotRun], "started during the stop");
    assert_eq!(report.exit_code(), exit_code::CLEAN);
    assert!(server.join().unwrap().is_err());
    join([stopper]);
}

/// The second signal leaves behind a start-up hook that hangs; the work it does after all is undone.
pub fn a_second_signal_leaves_a_hanging_start_behind() {
    time::be_patient();
    let (began, released, undone) = (Canceller::new(), Canceller::new(), Canceller::new());
    let hook = StartupHook::new("hangs", {
        let (began, released) = (began.clone(), released.clone());
        move || {
            began.cancel();
            released.wait();
            Ok(())
        }
    });
    let undo = {
        let undone = undone.clone();
        move || {
            undone.cancel();
            Ok(())
        }
    };
    let plan = short().with_hard_deadline(LONG);
    let builder = Lifecycle::builder().plan(plan);
    let observed = Observed::build(builder.startup(hook.time_limit(LONG / 2).undo(undo)));
    let server = observed.with(|lifecycle| lifecycle.ready());
    began.wait();
    let signals = observed.send(&[TERM, INT]);
    let report = observed.wait_in_time();
    assert!(server.join().unwrap().is_err());
    assert_eq!(report.took, Duration::ZERO, "the second signal changed nothing");
    assert_eq!(report.startup[0].outcome, Outcome::LeftBehind);
    assert_eq!(report.exit_code(), exit_code::CLOSING_FAILED);
    assert!(!undone.is_cancelled());
    released.cancel();
    undone.wait();
    join([signals]);
}

/// After the last that asked for a reload, one begins.
pub fn no_reload_is_lost() {
    let (versions, read) = (Arc::new(Mutex::new(0)), Canceller::new());
    let observed = Observed::build(Lifecycle::builder().plan(short()).on_reload("config", {
        let (versions, read) = (versions.clone(), read.clone());
        move || {
            if *versions.lock() == 3 {
                read.cancel();
            }
            Ok(())
        }
    }));
    let askers = [0, 1, 2].map(|_| {
        let (versions, signals) = (versions.clone(), observed.signals.clone());
        spawn(move || {
            *versions.lock() += 1;
            signals.send(HUP);
        })
    });
    observed.lifecycle.ready().unwrap();
    read.wait();
    observed.lifecycle.shutdown("read");
    observed.wait();
    join(askers);
}

/// Everybody is told of each transition once, in order, whenever they begin to look.
pub fn all_are_told_of_all_transitions() {
    let observed = Observed::new(short());
    let subscriber = observed.with(|lifecycle| {
        let transitions = lifecycle.subscribe();
        drop(lifecycle);
        transitions.iter().collect::<Vec<_>>()
    });
    let late = Arc::new(Mutex::new(vec![]));
    let adder = observed.with({
        let late = late.clone();
        move |lifecycle| lifecycle.observe(move |transition| late.lock().push(*transition))
    });
    let stopper = observed.with(|lifecycle| lifecycle.shutdown("asked"));
    let _ = observed.lifecycle.ready();
    observed.wait();
    let all = observed.seen.lock().clone();
    let received = subscriber.join().unwrap();
    assert!(all.ends_with(&received), "{received:?} of {all:?}");
    join([adder, stopper]);
    let told = late.lock().clone();
    assert!(all.ends_with(&told), "{told:?} of {all:?}");
}

/// Observers are told of Serving when it begins, not when something else happens.
pub fn observers_are_told_at_once() {
    let told = Canceller::new();
    let observed = Observed::build(Lifecycle::builder().plan(short()).observe({
        let told = told.clone();
        move |transition| {
            if transition.to == Phase::Serving {
                told.cancel();
            }
        }
    }));
    let lifecycle = &observed.lifecycle;
    let server = observed.with(|lifecycle| lifecycle.ready().unwrap());
    told.wait();
    lifecycle.shutdown("told");
    observed.wait();
    join([server]);
}

/// The last handle begins the stop, and whoever subscribed hears of the end.
pub fn the_last_handle_begins_the_stop() {
    let observed = Observed::new(short());
    let transitions = observed.lifecycle.subscribe();
    let handles = [observed.lifecycle.clone(), observed.lifecycle];
    let droppers = handles.map(|handle| spawn(move || drop(handle)));
    let seen: Vec<Transition> = transitions.iter().collect();
    assert_walk(&seen);
    assert_eq!(seen.len(), 2, "it was not served");
    join(droppers);
}

/// Participants and hooks that come while the stop begins are either refused, or get all that was promised.
pub fn who_is_let_in_is_not_forgotten() {
    let observed = Observed::new(short());
    observed.lifecycle.ready().unwrap();
    let hooked = observed.with(|lifecycle| {
        let ran = Arc::new(Mutex::new(false));
        let hook = Hook::new("late", {
            let ran = ran.clone();
            move || {
                *ran.lock() = true;
                Ok(())
            }
        });
        lifecycle.hook(hook).is_ok().then_some(ran)
    });
    let stopper = observed.with(|lifecycle| lifecycle.shutdown("asked"));
    let server = Server::enlist(&observed, Leaves::WhenDrained, "");
    let report = observed.wait();
    if let Some(server) = server {
        let told = server.told.lock().clone();
        assert_eq!(told.first(), Some(&"drain"), "{told:?}");
        assert_eq!(report.hooks[0].name, "close server");
    }
    if let Some(ran) = hooked.join().unwrap() {
        let hook = report.hooks.last().unwrap();
        assert_eq!(hook.name, "late");
        assert!(*ran.lock() || hook.outcome != Outcome::Done);
    }
    join([stopper]);
}
