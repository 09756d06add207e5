//! Worker groups: when workers are told, who waits for them, and what becomes of those that go wrong.

mod lifecycle_support;

use std::fmt;
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{bounded, never, unbounded, Receiver, Sender};
use lifecycle_support::{bound, eventually, is_child, phases, serving, Process, LIMIT};
use touchdown::lifecycle::{
    exit_code, Hook, HookReport, Lifecycle, Outcome, Phase, Plan, Reason, Report, Restart, Signals,
    SpawnError, Token, Worker, WorkerGroup,
};

/// Longer than any test takes: who waits for it waits for ever.
const HOUR: Duration = Duration::from_secs(60 * 60);

/// As often as one likes, without a wait worth speaking of.
const AT_ONCE: Restart = Restart::new().longest_delay(Duration::from_millis(1));

fn until_told(name: &str) -> Worker {
    Worker::new(name, Token::wait)
}

/// Never comes back, unless the test ends.
fn stuck(name: &str) -> Worker {
    Worker::new(name, |_| {
        let _ = never::<()>().recv();
    })
    .time_limit(Duration::from_millis(10))
}

/// Panics as often as it runs, and says so before.
fn panics(name: &str) -> (Worker, Receiver<()>) {
    let (sender, runs) = unbounded();
    let worker = Worker::new::<()>(name, move |_| {
        let _ = sender.send(());
        panic!("ouch");
    });
    (worker, runs)
}

fn stop(lifecycle: &Lifecycle) -> Report {
    lifecycle.shutdown("test");
    lifecycle.wait()
}

fn entry<'a>(report: &'a Report, name: &str) -> &'a HookReport {
    let mut entries = report.hooks.iter().filter(|hook| hook.name == name);
    let entry = entries.next();
    assert!(entries.next().is_none(), "{name} is there twice: {report}");
    entry.unwrap_or_else(|| panic!("no {name}: {report}"))
}

/// Waits for what a worker says.
fn hear<T>(said: &Receiver<T>) -> T {
    said.recv_timeout(LIMIT).unwrap()
}

#[test]
fn a_worker_is_told_when_draining_begins_and_the_drain_waits_for_it() {
    let _bound = bound();
    let lifecycle = Lifecycle::builder()
        .plan(Plan::new().with_grace_period(LIMIT))
        .build()
        .unwrap();
    let (told, is_told) = bounded(1);
    let (release, released) = bounded::<()>(0);
    let group = lifecycle.workers("pump");
    let poll = Worker::new("poll", move |token| {
        token.wait();
        told.send(()).unwrap();
        // What it has in hand.
        let _ = released.recv();
    });
    group.spawn(poll).unwrap();
    lifecycle.ready().unwrap();
    let transitions = lifecycle.subscribe();
    assert_eq!(lifecycle.in_flight().count(), 0, "it serves nothing yet");
    lifecycle.shutdown("test");
    hear(&is_told);
    let closed = || lifecycle.in_flight().is_closed();
    eventually("the drain has begun", closed);
    assert_eq!(lifecycle.phase(), Phase::Draining);
    assert_eq!(lifecycle.in_flight().count(), 1);
    drop(release);
    let report = lifecycle.wait();
    let seen: Vec<_> = transitions.iter().map(|it| it.to).collect();
    assert!(!seen.contains(&Phase::Cancelling), "{seen:?}");
    assert_eq!(entry(&report, "worker pump/poll").outcome, Outcome::Done);
    assert_eq!(report.exit_code(), exit_code::CLEAN);
    assert_eq!(group.running(), 0);
}

#[test]
fn a_worker_until_closing_outlives_what_is_in_flight_and_ends_before_the_hooks() {
    let _bound = bound();
    let log = Arc::new(Mutex::new(Vec::new()));
    let write = {
        let log = Arc::clone(&log);
        move |line| log.lock().unwrap().push(line)
    };
    let close = write.clone();
    let lifecycle = Lifecycle::builder()
        .hook(Hook::new("database", move || {
            close("closed");
            Ok(())
        }))
        .build()
        .unwrap();
    let group = lifecycle.workers("journal");
    let flush = {
        let write = write.clone();
        move |token: &Token| {
            token.wait();
            write("flushed");
        }
    };
    group
        .spawn(Worker::new("flush", flush).until_closing())
        .unwrap();
    lifecycle.ready().unwrap();
    let call = lifecycle.in_flight().enter_owned().unwrap();
    lifecycle.shutdown("test");
    eventually("the drain has begun", || lifecycle.in_flight().is_closed());
    assert_eq!(lifecycle.in_flight().count(), 1, "the call alone");
    write("answered");
    drop(call);
    let report = lifecycle.wait();
    assert_eq!(*log.lock().unwrap(), ["answered", "flushed", "closed"]);
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
}

#[test]
fn one_that_does_not_look_at_its_token_is_forced_left_behind_and_named_once() {
    let _bound = bound();
    let short = Duration::from_millis(20);
    let lifecycle = Lifecycle::builder()
        .plan(
            Plan::new()
                .with_grace_period(short)
                .with_force_period(short),
        )
        .build()
        .unwrap();
    let group = lifecycle.workers("pump");
    group.spawn(stuck("poll")).unwrap();
    lifecycle.ready().unwrap();
    let report = stop(&lifecycle);
    assert_eq!(entry(&report, "worker pump/poll").outcome, Outcome::Overran);
    assert_eq!(report.abandoned, ["worker pump/poll"]);
    assert_eq!(report.exit_code(), exit_code::FORCED);
    assert_eq!(group.running(), 1);
}

#[test]
fn a_flusher_that_overruns_is_named_like_a_hook_and_holds_up_no_other() {
    let _bound = bound();
    let closed = Arc::new(AtomicUsize::new(0));
    let hook = {
        let closed = Arc::clone(&closed);
        Hook::new("database", move || {
            closed.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
    };
    let lifecycle = Lifecycle::builder().hook(hook).build().unwrap();
    let group = lifecycle.workers("journal");
    group.spawn(stuck("flush").until_closing()).unwrap();
    group.spawn(until_told("rotate").until_closing()).unwrap();
    lifecycle.ready().unwrap();
    let report = stop(&lifecycle);
    let overran = entry(&report, "worker journal/flush");
    assert_eq!(overran.outcome, Outcome::Overran);
    assert!(overran.took >= Duration::from_millis(10));
    assert_eq!(
        entry(&report, "worker journal/rotate").outcome,
        Outcome::Done
    );
    assert_eq!(report.abandoned, ["worker journal/flush"]);
    assert_eq!(report.exit_code(), exit_code::CLOSING_FAILED);
    assert_eq!(closed.load(Ordering::SeqCst), 1);
}

#[test]
fn the_last_words_name_the_worker_that_the_drain_waits_for() {
    if is_child() {
        let (signals, sender) = Signals::injected();
        let lifecycle = Lifecycle::builder()
            .plan(
                Plan::new()
                    .with_grace_period(LIMIT)
                    .with_force_period(LIMIT),
            )
            .signals(signals)
            .build()
            .unwrap();
        let group = lifecycle.workers("pump");
        group.spawn(stuck("poll\nfast")).unwrap();
        group.spawn(stuck("flush").until_closing()).unwrap();
        lifecycle.ready().unwrap();
        lifecycle.shutdown("test");
        eventually("the drain has begun", || lifecycle.in_flight().is_closed());
        (0..3).for_each(|_| sender.send(15));
        lifecycle.wait();
        process::exit(0);
    }
    let child = Process::start("the_last_words_name_the_worker_that_the_drain_waits_for");
    let end = child.end();
    assert_eq!(
        end.code,
        Some(exit_code::third_signal(15).into()),
        "{end:?}"
    );
    let said: Vec<_> = end.stderr.lines().collect();
    assert!(said.contains(&"touchdown:   in flight: 1"), "{end:?}");
    assert!(
        said.contains(&"touchdown:   worker pump/poll fast: runs, told to stop"),
        "{end:?}"
    );
    assert!(
        !end.stderr.contains("flush"),
        "nobody waits for it: {end:?}"
    );
}

#[test]
fn the_last_words_name_the_worker_that_closing_waits_for() {
    if is_child() {
        let plan = Plan::new()
            .with_grace_period(Duration::ZERO)
            .with_force_period(Duration::ZERO)
            .with_closing(Duration::from_millis(100))
            .with_hard_deadline(Duration::from_millis(200));
        // The walk hangs with the worker left behind.
        let lifecycle = Lifecycle::builder()
            .plan(plan)
            .observe(|transition| {
                if transition.to == Phase::Stopped {
                    let _ = never::<()>().recv();
                }
            })
            .build()
            .unwrap();
        let group = lifecycle.workers("journal");
        group.spawn(stuck("flush").until_closing()).unwrap();
        lifecycle.shutdown("test");
        lifecycle.wait();
        process::exit(0);
    }
    let end = Process::start("the_last_words_name_the_worker_that_closing_waits_for").end();
    assert_eq!(end.code, Some(exit_code::HARD_DEADLINE.into()), "{end:?}");
    assert!(
        end.stderr
            .contains("touchdown:   hook: worker journal/flush\n"),
        "{end:?}"
    );
}

#[test]
fn a_stop_during_start_up_tells_and_joins_workers_too() {
    let _bound = bound();
    let lifecycle = Lifecycle::builder().build().unwrap();
    let group = lifecycle.workers("pump");
    group.spawn(until_told("poll")).unwrap();
    group.spawn(until_told("flush").until_closing()).unwrap();
    let report = stop(&lifecycle);
    assert_eq!(
        phases(&report),
        [Phase::Starting, Phase::Draining, Phase::Closing]
    );
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    assert_eq!((report.hooks.len(), group.running()), (2, 0));
}

#[test]
fn nothing_is_spawned_once_the_stop_has_begun() {
    let _bound = bound();
    let lifecycle = serving();
    let group = lifecycle.workers("pump");
    let call = lifecycle.in_flight().enter_owned().unwrap();
    lifecycle.shutdown("no more");
    let owned = Arc::new(());
    let late = {
        let owned = Arc::clone(&owned);
        Worker::new::<()>("late", move |_| panic!("must not run, with {owned:?}"))
    };
    let error = group.spawn(late).unwrap_err();
    assert!(matches!(&error, SpawnError::Stopping(stopping)
        if stopping.reason == Reason::Requested("no more".to_owned())));
    assert_eq!(
        error.to_string(),
        "cannot start a worker: the program is stopping (requested: no more)"
    );
    assert_eq!((group.running(), Arc::strong_count(&owned)), (0, 1));
    drop(call);
    assert!(lifecycle.wait().hooks.is_empty());
}

#[test]
fn a_failure_is_counted_and_the_program_goes_on() {
    let _bound = bound();
    let lifecycle = serving();
    let group = lifecycle.workers("pump");
    group.spawn(panics("one").0).unwrap();
    group.spawn(Worker::new("two", |_| Err("no pump"))).unwrap();
    group.join();
    assert_eq!(
        (group.panics(), group.errors(), group.restarts()),
        (1, 1, 0)
    );
    assert_eq!(lifecycle.phase(), Phase::Serving);
    let report = stop(&lifecycle);
    assert_eq!(report.exit_code(), exit_code::CLEAN);
    assert!(report.hooks.is_empty(), "neither ran when the stop began");
}

#[test]
fn a_failure_after_the_stop_began_is_in_the_report() {
    let _bound = bound();
    let lifecycle = serving();
    let group = lifecycle.workers("pump");
    let fails = |name, until_closing| {
        let worker = Worker::new(name, |token| {
            token.wait();
            Err("disk full")
        });
        let worker = worker.restart(AT_ONCE).stop_on_failure();
        if until_closing {
            worker.until_closing()
        } else {
            worker
        }
    };
    group.spawn(fails("poll", false)).unwrap();
    group.spawn(fails("flush", true)).unwrap();
    let last = Worker::new::<()>("panics", |token| {
        token.wait();
        panic!("at {}", "last")
    });
    group.spawn(last).unwrap();
    let report = stop(&lifecycle);
    let failed = Outcome::Failed("disk full".to_owned());
    assert_eq!(entry(&report, "worker pump/poll").outcome, failed);
    assert_eq!(entry(&report, "worker pump/flush").outcome, failed);
    assert_eq!(
        entry(&report, "worker pump/panics").outcome,
        Outcome::Panicked("at last".to_owned())
    );
    assert_eq!(group.restarts(), 0, "who was told is not started again");
    assert_eq!(report.reason, Reason::Requested("test".to_owned()));
    assert_eq!(report.exit_code(), exit_code::CLOSING_FAILED);
}

#[test]
fn a_failure_may_begin_the_stop_by_name() {
    let _bound = bound();
    let lifecycle = serving();
    let group = lifecycle.workers("pump");
    group.spawn(until_told("other")).unwrap();
    group.spawn(panics("poll").0.stop_on_failure()).unwrap();
    let report = lifecycle.wait();
    let why = "worker pump/poll panicked: ouch";
    assert_eq!(report.reason, Reason::WorkerFailed(why.to_owned()));
    assert_eq!(report.reason.to_string(), why);
    assert_eq!(report.exit_code(), exit_code::WORKER_FAILED);
    let panicked = Outcome::Panicked("ouch".to_owned());
    assert_eq!(entry(&report, "worker pump/poll").outcome, panicked);
    assert_eq!(entry(&report, "worker pump/other").outcome, Outcome::Done);
    assert!(
        report.to_json().starts_with(
            r#"{"reason":"worker_failed","detail":"worker pump/poll panicked: ouch","exit_code":7,"#
        ),
        "{}",
        report.to_json()
    );
}

#[test]
fn a_failure_in_start_up_may_begin_the_stop() {
    let _bound = bound();
    let lifecycle = Lifecycle::builder().build().unwrap();
    let fails = Worker::new("poll", |_| Err("no pump"));
    lifecycle
        .workers("pump")
        .spawn(fails.stop_on_failure())
        .unwrap();
    let report = lifecycle.wait();
    assert_eq!(
        phases(&report),
        [Phase::Starting, Phase::Draining, Phase::Closing]
    );
    assert_eq!(report.exit_code(), exit_code::WORKER_FAILED);
    assert!(lifecycle.ready().is_err());
}

#[test]
fn who_failed_is_started_again_with_what_it_owns_until_it_ends_well() {
    let _bound = bound();
    let lifecycle = serving();
    let group = lifecycle.workers("pump");
    let (sender, runs) = unbounded();
    let mut run = 0;
    let poll = Worker::new("poll", move |_| {
        run += 1;
        sender.send(run).unwrap();
        match run {
            1 => panic!("ouch"),
            2 => Err(std::io::Error::other("no pump")),
            _ => Ok(()),
        }
    });
    group
        .spawn(poll.restart(AT_ONCE).stop_on_failure())
        .unwrap();
    group.join();
    assert!(runs.iter().eq([1, 2, 3]));
    assert_eq!(
        (group.panics(), group.errors(), group.restarts()),
        (1, 1, 2)
    );
    assert_eq!(lifecycle.phase(), Phase::Serving);
    assert_eq!(stop(&lifecycle).exit_code(), exit_code::CLEAN);
}

#[test]
fn the_failure_after_the_last_restart_is_final() {
    let _bound = bound();
    let lifecycle = serving();
    let group = lifecycle.workers("pump");
    let (worker, runs) = panics("poll");
    group
        .spawn(worker.restart(AT_ONCE.limit(2)).stop_on_failure())
        .unwrap();
    assert_eq!(lifecycle.wait().exit_code(), exit_code::WORKER_FAILED);
    assert_eq!((runs.len(), group.panics(), group.restarts()), (3, 3, 2));
}

#[test]
fn the_wait_for_a_restart_ends_with_the_stop() {
    let _bound = bound();
    let lifecycle = Lifecycle::builder()
        .plan(Plan::new().with_grace_period(HOUR).with_closing(HOUR))
        .build()
        .unwrap();
    lifecycle.ready().unwrap();
    let group = lifecycle.workers("pump");
    let late = Restart::new().first_delay(HOUR).longest_delay(HOUR);
    let (poll, polls) = panics("poll");
    group.spawn(poll.restart(late).time_limit(HOUR)).unwrap();
    let (flush, flushes) = panics("flush");
    group
        .spawn(flush.restart(late).time_limit(HOUR).until_closing())
        .unwrap();
    hear(&polls);
    hear(&flushes);
    eventually("both have failed", || group.panics() == 2);
    assert_eq!(group.running(), 2, "both wait");
    let report = stop(&lifecycle);
    assert_eq!(entry(&report, "worker pump/poll").outcome, Outcome::Done);
    assert!(polls.is_empty(), "who takes in work is not needed any more");
    let flush = entry(&report, "worker pump/flush");
    assert_eq!(flush.outcome, Outcome::Panicked("ouch".to_owned()));
    assert_eq!(
        flushes.len(),
        1,
        "what there is to flush is tried once more"
    );
    assert_eq!(group.restarts(), 1);
}

#[test]
fn a_worker_may_spawn_another() {
    let _bound = bound();
    let lifecycle = serving();
    let group = lifecycle.workers("pump");
    let (spawned, both_run) = bounded(1);
    let (sender, refused) = bounded(1);
    let first = {
        let group = group.clone();
        Worker::new("first", move |token| {
            group.spawn(until_told("second")).unwrap();
            spawned.send(()).unwrap();
            token.wait();
            sender
                .send(group.spawn(until_told("late")).is_err())
                .unwrap();
        })
    };
    group.spawn(first).unwrap();
    hear(&both_run);
    assert_eq!(group.running(), 2);
    let report = stop(&lifecycle);
    assert!(hear(&refused));
    let names: Vec<_> = report.hooks.iter().map(|hook| hook.name.as_str()).collect();
    assert_eq!(names, ["worker pump/first", "worker pump/second"]);
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
}

#[test]
fn workers_outlive_their_group_and_hold_no_lifecycle() {
    let _bound = bound();
    let lifecycle = serving();
    let (sender, ended) = bounded(1);
    let poll = Worker::new("poll", move |token| {
        token.wait();
        sender.send(()).unwrap();
    });
    let group = lifecycle.workers("pump");
    group.spawn(poll).unwrap();
    drop(group);
    let transitions = lifecycle.subscribe();
    assert!(ended.is_empty());
    // The last handle: the stop begins.
    drop(lifecycle);
    hear(&ended);
    assert_eq!(transitions.iter().last().unwrap().to, Phase::Stopped);
}

#[test]
fn a_group_is_joined_without_a_stop() {
    let _bound = bound();
    let lifecycle = serving();
    let group = lifecycle.workers("batch");
    group.join();
    let (release, released) = bounded::<()>(0);
    for number in 0..3 {
        let released: Receiver<()> = released.clone();
        let name = format!("part {number}");
        let part = Worker::new(name, move |_| {
            let _ = released.recv();
        });
        group.spawn(part).unwrap();
    }
    assert_eq!(group.running(), 3);
    assert!(!group.join_timeout(Duration::from_millis(10)));
    drop(release);
    assert!(group.join_timeout(LIMIT));
    assert_eq!((group.running(), lifecycle.phase()), (0, Phase::Serving));
    assert_eq!(group.name(), "batch");
}

/// Panics when it is dropped, and throws itself again a few times.
struct Grenade(u32);

impl Drop for Grenade {
    fn drop(&mut self) {
        if self.0 > 0 {
            std::panic::panic_any(Grenade(self.0 - 1));
        }
    }
}

struct CannotBePrinted;

impl fmt::Display for CannotBePrinted {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("not printed")
    }
}

#[test]
fn panics_on_top_of_panics_are_seen_and_hold_up_nothing() {
    let _bound = bound();
    let lifecycle = serving();
    let group = lifecycle.workers("worst");
    let throws =
        |times| Worker::new::<()>("throws", move |_| std::panic::panic_any(Grenade(times)));
    for times in 0..3 {
        group.spawn(throws(times)).unwrap();
    }
    let prints = Worker::new("prints", |_| Err(CannotBePrinted));
    group.spawn(prints).unwrap();
    group.join();
    assert_eq!((group.panics(), group.errors()), (4, 0));

    let grenade = Grenade(1);
    let keeps = Worker::new("keeps", move |token| {
        let _kept = &grenade;
        token.wait();
    });
    group.spawn(keeps).unwrap();
    let report = stop(&lifecycle);
    let outcome = &entry(&report, "worker worst/keeps").outcome;
    assert!(matches!(outcome, Outcome::Panicked(_)), "{report}");
    assert_eq!((group.panics(), group.running()), (5, 0));
}

#[test]
fn what_a_worker_owns_is_dropped_before_it_counts_as_over() {
    let _bound = bound();
    struct Slow(Arc<AtomicUsize>);
    impl Drop for Slow {
        fn drop(&mut self) {
            thread::yield_now();
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let spawn = |group: &WorkerGroup| {
        let slow = Slow(Arc::clone(&dropped));
        let worker = Worker::new("slow", move |token| {
            let _owned = &slow;
            token.wait_timeout(Duration::from_millis(1));
        });
        group.spawn(worker).unwrap();
    };
    let lifecycle = serving();
    let group = lifecycle.workers("one");
    spawn(&group);
    group.join();
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    spawn(&group);
    stop(&lifecycle);
    assert_eq!(dropped.load(Ordering::SeqCst), 2);
}

#[test]
fn a_thousand_workers_one_after_another_leave_nothing_behind() {
    let _bound = bound();
    let lifecycle = serving();
    let group = lifecycle.workers("short");
    let owned = Arc::new(());
    for _ in 0..lifecycle_support::rounds(1000) {
        let owned = Arc::clone(&owned);
        group
            .spawn(Worker::new("one", move |_| drop(Arc::clone(&owned))))
            .unwrap();
        group.join();
        assert_eq!(group.running(), 0);
    }
    assert_eq!(Arc::strong_count(&owned), 1);
    let report = stop(&lifecycle);
    assert!(report.hooks.is_empty(), "{report}");
}

#[test]
fn threads_are_named_after_their_workers() {
    let _bound = bound();
    let lifecycle = serving();
    let group = lifecycle.workers("names");
    let (sender, names): (Sender<Option<String>>, _) = unbounded();
    for name in ["poll", "temperature-probe-12", "nul\0byte", ""] {
        let sender = sender.clone();
        let says = Worker::new(name, move |_| {
            let name = thread::current().name().map(str::to_owned);
            sender.send(name).unwrap();
        });
        group.spawn(says).unwrap();
        group.join();
    }
    drop(sender);
    let names: Vec<_> = names.iter().flatten().collect();
    assert_eq!(names, ["poll", "tempera~robe-12", "nul byte", ""]);
}

#[test]
fn many_threads_spawn_while_the_stop_begins_and_all_that_were_let_in_are_joined() {
    let _bound = bound();
    for _ in 0..lifecycle_support::rounds(100) {
        let lifecycle = serving();
        let group = lifecycle.workers("race");
        let (started, ended) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
        let report = thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| loop {
                    let ended = Arc::clone(&ended);
                    let worker = Worker::new("one", move |token| {
                        token.wait();
                        ended.fetch_add(1, Ordering::SeqCst);
                    });
                    match group.spawn(worker) {
                        Ok(()) => started.fetch_add(1, Ordering::SeqCst),
                        Err(_) => break,
                    };
                    if started.load(Ordering::SeqCst) >= 8 {
                        lifecycle.shutdown("enough");
                    }
                });
            }
            lifecycle.wait()
        });
        assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
        let started = started.load(Ordering::SeqCst);
        assert_eq!(ended.load(Ordering::SeqCst), started);
        assert_eq!(report.hooks.len(), started);
    }
}
