//! Hooks against deadlines: their order, their limits, and what is said of them.

use std::cell::RefCell;
use std::panic;
use std::time::Duration;

use super::hook::Hook;
use super::hooks::Hooks;
use super::hook_run;
use super::report::{HookReport, Outcome};
use super::shutdown::Canceller;
use crate::sync::{thread, time, Arc, Condvar, Instant, Mutex};

/// No multiple of the slices in which limits are waited for, and some of them long.
const LIMIT: Duration = Duration::from_millis(600);

/// What a hook did, as it knows itself.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    started: Option<Instant>,
    finished: Option<Instant>,
    /// When its thread was over, and so its result sent.
    over: Option<Instant>,
}

#[derive(Clone)]
struct Log(Arc<(Mutex<Vec<Record>>, Condvar)>);

impl Log {
    fn new(hooks: usize) -> Self {
        let records = vec![Record::default(); hooks];
        Self(Arc::new((Mutex::new(records), Condvar::new())))
    }

    fn read(&self) -> Vec<Record> {
        self.0 .0.lock().clone()
    }

    fn write(&self, place: usize, write: impl FnOnce(&mut Record, Instant)) {
        let now = Instant::now();
        write(&mut self.0 .0.lock()[place], now);
        self.0 .1.notify_all();
    }

    fn await_end(&self, place: usize) {
        let mut records = self.0 .0.lock();
        while records[place].over.is_none() {
            self.0 .1.wait(&mut records);
        }
    }
}

shuttle::thread_local! {
    static AT_END: RefCell<Option<AtEnd>> = RefCell::new(None);
}

/// Dropped at the end of a hook's thread.
struct AtEnd(Log, usize);

impl Drop for AtEnd {
    fn drop(&mut self) {
        self.0.write(self.1, |record, now| record.over = Some(now));
    }
}

/// A hook that takes its time, notes when it starts and ends, and looks at the log when it starts.
fn hook(
    log: &Log,
    place: usize,
    takes: Duration,
    at_start: impl FnOnce(&[Record], Instant) + Send + 'static,
) -> Hook {
    let log = log.clone();
    Hook::new(place.to_string(), move || {
        AT_END.with(|at_end| *at_end.borrow_mut() = Some(AtEnd(log.clone(), place)));
        log.write(place, |record, now| record.started = Some(now));
        at_start(&log.read(), Instant::now());
        time::sleep(takes);
        log.write(place, |record, now| record.finished = Some(now));
        Ok(())
    })
    .time_limit(LIMIT)
}

/// Runs the hooks, waits for all that were left behind, and checks what holds of every run.
fn run(hooks: Vec<Hook>, log: &Log, phase: Option<Duration>) -> Vec<HookReport> {
    let names: Vec<String> = hooks.iter().map(|hook| hook.name.clone()).collect();
    let limits: Vec<Duration> = hooks.iter().map(|hook| hook.time_limit).collect();
    let running = Mutex::default();
    let start = Instant::now();
    let deadline = phase.map(|phase| start + phase);
    let hooks = Hooks::new(hooks).unwrap();
    let reports = hook_run::Run::new(hooks, phase.unwrap_or(Duration::MAX), &running, &Canceller::new()).run();
    let end = Instant::now();
    let at_end = log.read();
    let still_running: Vec<String> = running.lock().clone();
    for (place, report) in reports.iter().enumerate() {
        if report.outcome != Outcome::NotRun {
            log.await_end(place);
        }
    }
    let later = log.read();

    let reported: Vec<&String> = reports.iter().map(|report| &report.name).collect();
    assert!(reported.iter().copied().eq(&names), "each hook is reported once");
    for (place, report) in reports.iter().enumerate() {
        let (then, later) = (at_end[place], later[place]);
        let runs = still_running.contains(&report.name);
        match &report.outcome {
            Outcome::Done => {
                assert!(!runs, "done, and still running");
                assert!(then.finished.is_some(), "done before its end");
            }
            Outcome::Overran => {
                // It may have begun later, and so have had until later.
                let until = deadline.unwrap_or(end).min(start + limits[place]);
                assert!(end >= until, "left behind too early");
                assert!(later.over >= Some(until), "left behind, but over in time");
                assert!(runs || then.finished.is_some(), "left behind, but not running");
            }
            Outcome::NotRun => {
                assert!(later.started.is_none(), "run after all");
                assert!(deadline <= Some(end), "not run, with time left");
            }
            Outcome::Failed(why) | Outcome::Panicked(why) => panic!("{why}"),
        }
    }
    reports
}

/// Asserts that it is the turn of a hook which runs after `before`, whose time was up at `limit`, or later.
fn may_start_after(before: Record, limit: Instant, now: Instant) {
    assert!(
        before.finished.is_some() || now >= limit,
        "started before its turn"
    );
}

/// A hook runs after all that it names are finished, or out of time. One of them ends at its limit.
pub fn hooks_run_in_their_order() {
    let log = Log::new(4);
    let earliest = Instant::now() + LIMIT;
    let hooks = vec![
        hook(&log, 0, LIMIT, |_, _| {}),
        hook(&log, 1, Duration::ZERO, |_, _| {}),
        hook(&log, 2, Duration::ZERO, move |log, now| {
            may_start_after(log[0], earliest, now);
            may_start_after(log[1], earliest, now);
        })
        .after("0")
        .after("1"),
        hook(&log, 3, Duration::ZERO, move |log, now| {
            may_start_after(log[2], earliest, now);
        })
        .after("2"),
    ];
    let reports = run(hooks, &log, None);
    assert!(reports.iter().all(|it| it.outcome != Outcome::NotRun));
}

/// Hooks that end at their limits, or around them, and near each other's.
pub fn what_is_said_of_hooks_is_true() {
    let log = Log::new(3);
    let second = LIMIT / 5;
    let hooks = vec![
        hook(&log, 0, LIMIT, |_, _| {}),
        hook(&log, 1, LIMIT + second, |_, _| {}).time_limit(LIMIT + 2 * second),
        hook(&log, 2, LIMIT + 2 * second, |_, _| {}),
    ];
    run(hooks, &log, None);
}

/// The end of the phase is the end of all, whatever their limits.
pub fn the_phase_ends_in_time() {
    let log = Log::new(3);
    let phase = LIMIT / 2;
    let hooks = vec![
        hook(&log, 0, LIMIT, |_, _| {}),
        hook(&log, 1, phase, |_, _| {}),
        hook(&log, 2, Duration::ZERO, |_, _| {}).after("1"),
    ];
    run(hooks, &log, Some(phase));
}

/// With nothing late, each hook is left behind exactly at its limit, and what follows runs.
pub fn each_hook_has_its_own_limit() {
    time::be_patient();
    let log = Log::new(4);
    let hooks = vec![
        hook(&log, 0, 9 * LIMIT, |_, _| {}),
        hook(&log, 1, 9 * LIMIT, |_, _| {}).time_limit(2 * LIMIT),
        hook(&log, 2, LIMIT / 2, |_, _| {}).after("0"),
        hook(&log, 3, 9 * LIMIT, |_, _| {}).after("2").time_limit(9 * LIMIT),
    ];
    let reports = run(hooks, &log, Some(3 * LIMIT));
    let said: Vec<_> = reports
        .into_iter()
        .map(|report| (report.outcome, report.took))
        .collect();
    assert_eq!(
        said,
        [
            (Outcome::Overran, LIMIT),
            (Outcome::Overran, 2 * LIMIT),
            (Outcome::Done, LIMIT / 2),
            (Outcome::Overran, 3 * LIMIT - LIMIT * 3 / 2),
        ]
    );
}

/// Failures and panics are told from each other, and hold nobody up.
pub fn failures_and_panics_hold_nobody_up() {
    time::be_patient();
    let log = Log::new(1);
    let hooks = vec![
        hook(&log, 0, Duration::ZERO, |_, _| {}).after("panics").after("fails"),
        Hook::new("panics", || panic::resume_unwind(Box::new("ouch"))),
        Hook::new("fails", || Err("no".into())),
    ];
    let running = Mutex::default();
    let outcomes: Vec<_> = hook_run::Run::new(Hooks::new(hooks).unwrap(), LIMIT, &running, &Canceller::new()).run()
        .into_iter()
        .map(|report| report.outcome)
        .collect();
    assert_eq!(
        outcomes,
        [
            Outcome::Done,
            Outcome::Panicked("ouch".to_owned()),
            Outcome::Failed("no".to_owned()),
        ]
    );
    assert!(running.lock().is_empty());
}

/// Time that passes between any two steps changes when hooks end, but not that they are told truly.
pub fn time_may_pass_at_any_step() {
    let log = Log::new(2);
    let hooks = vec![
        hook(&log, 0, Duration::ZERO, |_, _| {}),
        hook(&log, 1, Duration::ZERO, |_, _| {}).after("0"),
    ];
    let slow = thread::spawn(|| time::pass(LIMIT));
    run(hooks, &log, Some(LIMIT));
    slow.join().unwrap();
}
