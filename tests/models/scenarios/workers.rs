//! Workers that are spawned, end, fail or wait for a restart while the stop begins.

use std::panic;
use std::time::Duration;

use super::lifecycle::{
    exit_code, Hook, Lifecycle, Outcome, Plan, Reason, Report, Restart, Canceller, Worker,
};
use crate::sync::{thread, time, Arc, Mutex};

/// What lasts so long is noticed. A stop that lasted for hours would be one of too many slices.
const LONG: Duration = Duration::from_secs(20);

/// Nothing here is to take time, so whatever does takes an hour.
fn lifecycle(hook: Hook) -> Lifecycle {
    let plan = Plan::new().with_grace_period(LONG).with_closing(LONG);
    Lifecycle::builder().plan(plan).hook(hook).build().unwrap()
}

fn nothing() -> Hook {
    Hook::new("nothing", || Ok(()))
}

fn stopper(lifecycle: &Lifecycle) -> thread::JoinHandle<()> {
    let lifecycle = lifecycle.clone();
    thread::spawn(move || lifecycle.shutdown("asked"))
}

fn outcome<'a>(report: &'a Report, worker: &str) -> Option<&'a Outcome> {
    let name = format!("worker pump/{worker}");
    let entry = report.hooks.iter().find(|hook| hook.name == name);
    entry.map(|hook| &hook.outcome)
}

/// Which workers use something that a hook closes.
#[derive(Default)]
struct Used {
    running: Vec<&'static str>,
    ran: Vec<&'static str>,
    closed: bool,
    used_when_closed: bool,
}

/// A worker that comes while the stop begins is refused and does not run, or is told, joined before the
/// hooks run, and reported.
pub fn who_is_spawned_is_joined_or_refused() {
    joined_or_refused(["poll", "flush"]);
}

/// The same for workers for which no drain waits: the stop begins to join them at once.
pub fn who_is_spawned_until_closing_is_joined_or_refused() {
    joined_or_refused(["flush", "write"]);
}

fn joined_or_refused(names: [&'static str; 2]) {
    time::be_patient();
    let used = Arc::new(Mutex::new(Used::default()));
    let close = Hook::new("close", {
        let used = used.clone();
        move || {
            let mut used = used.lock();
            used.closed = true;
            used.used_when_closed |= !used.running.is_empty();
            Ok(())
        }
    });
    let lifecycle = lifecycle(close);
    let stopper = stopper(&lifecycle);
    let group = lifecycle.workers("pump");
    let spawners = names.map(|name| {
        let (group, used) = (group.clone(), used.clone());
        thread::spawn(move || {
            let worker = Worker::new(name, move |token| {
                {
                    let mut used = used.lock();
                    used.used_when_closed |= used.closed;
                    used.running.push(name);
                    used.ran.push(name);
                }
                token.wait();
                used.lock().running.retain(|other| *other != name);
            });
            group.spawn(if name == "poll" { worker } else { worker.until_closing() }).is_ok()
        })
    });
    let _ = lifecycle.ready();
    let report = lifecycle.wait();
    assert_eq!(report.took, Duration::ZERO);
    let let_in = spawners.map(|spawner| spawner.join().unwrap());
    for (name, let_in) in names.into_iter().zip(let_in) {
        let expected = let_in.then_some(&Outcome::Done);
        assert_eq!(outcome(&report, name), expected, "{name} is not reported");
        assert_eq!(used.lock().ran.contains(&name), let_in);
    }
    assert!(!used.lock().used_when_closed, "closed under a worker");
    assert_eq!(group.running(), 0);
    stopper.join().unwrap();
}

/// The drain waits for a worker as long as it runs, and no longer.
pub fn who_ends_does_not_hold_up_the_drain() {
    time::be_patient();
    let lifecycle = lifecycle(nothing());
    lifecycle.ready().unwrap();
    let group = lifecycle.workers("pump");
    let over = Canceller::new();
    let poll = Worker::new("poll", {
        let over = over.clone();
        move |token| {
            if token.is_cancelled() {
                over.wait();
            }
        }
    });
    group.spawn(poll).unwrap();
    let stopper = stopper(&lifecycle);
    over.cancel();
    let report = lifecycle.wait();
    assert!(!report.forced, "it was waited for in vain");
    assert_eq!(report.took, Duration::ZERO);
    group.join();
    stopper.join().unwrap();
}

/// A worker fails, which is to begin the stop, while somebody else begins it: there is one stop, for one of
/// the two reasons, and the failure is in its report.
pub fn a_failure_in_the_stop_is_seen() {
    time::be_patient();
    let lifecycle = lifecycle(nothing());
    let group = lifecycle.workers("pump");
    let fails = Worker::new::<()>("fails", |_| panic::resume_unwind(Box::new("ouch")));
    group.spawn(fails.stop_on_failure()).unwrap();
    let stopper = stopper(&lifecycle);
    let _ = lifecycle.ready();
    let report = lifecycle.wait();
    let code = match &report.reason {
        Reason::Requested(_) => exit_code::CLOSING_FAILED,
        Reason::WorkerFailed(why) if why == "worker pump/fails panicked: ouch" => {
            exit_code::WORKER_FAILED
        }
        other => panic!("it was not {other}"),
    };
    let panicked = Outcome::Panicked("ouch".to_owned());
    assert_eq!(outcome(&report, "fails"), Some(&panicked), "it is not reported");
    assert_eq!(report.exit_code(), code);
    assert_eq!((group.panics(), group.running()), (1, 0));
    stopper.join().unwrap();
}

/// Whether it runs or waits for a restart, a worker that fails again and again ends when it is told.
pub fn the_wait_for_a_restart_ends_with_the_stop() {
    time::be_patient();
    let lifecycle = lifecycle(nothing());
    let group = lifecycle.workers("pump");
    let restart = Restart::new().first_delay(LONG).longest_delay(LONG);
    let fails = |name| Worker::new(name, |_| Err("gone")).restart(restart).time_limit(LONG);
    group.spawn(fails("poll")).unwrap();
    group.spawn(fails("flush").until_closing()).unwrap();
    let stopper = stopper(&lifecycle);
    let _ = lifecycle.ready();
    let report = lifecycle.wait();
    assert_eq!(report.took, Duration::ZERO, "it waited for a restart");
    // Who is told before it waits does not wait.
    let failed = Outcome::Failed("gone".to_owned());
    assert!([Some(&failed), Some(&Outcome::Done)].contains(&outcome(&report, "poll")));
    assert_eq!(outcome(&report, "flush"), Some(&failed));
    assert!(group.restarts() <= 1, "who was told runs once more at the most");
    assert_eq!(group.errors(), 2 + group.restarts());
    stopper.join().unwrap();
}

/// However late whoever is, the stop ends, and what it says of workers is true.
pub fn what_is_said_of_workers_is_true() {
    let second = Duration::from_secs(1);
    let plan = Plan::new().with_grace_period(second).with_force_period(second).with_closing(2 * second);
    let lifecycle = Lifecycle::builder().plan(plan).exit_with(|_| {}).build().unwrap();
    let group = lifecycle.workers("pump");
    let slow = Worker::new("slow", move |token| {
        token.wait();
        time::sleep(second);
    });
    group.spawn(slow.time_limit(second)).unwrap();
    let _ = lifecycle.ready();
    let stopper = stopper(&lifecycle);
    let report = lifecycle.wait();
    match outcome(&report, "slow") {
        Some(Outcome::Done) => assert_eq!(group.running(), 0, "done, and still running"),
        Some(Outcome::Overran) => {
            assert_eq!(report.abandoned, ["worker pump/slow"]);
            assert!(report.took >= second, "left behind too early");
        }
        Some(Outcome::NotRun) => assert!(report.took >= 2 * second, "not waited for"),
        other => panic!("it was {other:?}"),
    }
    group.join();
    stopper.join().unwrap();
}
