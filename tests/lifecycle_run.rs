//! The whole life of a program in one call, and what is opened for as long as it lasts.

mod lifecycle_support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crossbeam_channel::bounded;
use lifecycle_support::{bound, phases, serving};
use touchdown::lifecycle::{
    exit_code, Canceller, Handover, Hook, Lifecycle, Outcome, Phase, Reason, Signals, Standing,
    StartupHook, Succession, Worker,
};

#[test]
fn it_runs_start_up_hooks_then_sets_up_then_is_ready_and_waits_for_the_end() {
    let _bound = bound();
    let log = Arc::new(Mutex::new(Vec::new()));
    let note = |what: &'static str| {
        let log = Arc::clone(&log);
        move || log.lock().unwrap().push(what)
    };
    let (hook, worker, closes) = (note("hook"), note("worker"), note("closes"));
    let (signals, sender) = Signals::injected();
    let report = Lifecycle::builder()
        .signals(signals)
        .startup(StartupHook::new("first", move || {
            hook();
            Ok(())
        }))
        .worker(Worker::new("poll", move |token| {
            worker();
            sender.send(15);
            token.wait();
        }))
        .hook(Hook::new("last", move || {
            closes();
            Ok(())
        }))
        .run(|lifecycle| {
            assert_eq!(lifecycle.phase(), Phase::Starting);
            log.lock().unwrap().push("set up");
            Ok(())
        });
    assert_eq!(*log.lock().unwrap(), ["hook", "set up", "worker", "closes"]);
    assert_eq!(report.reason, Reason::Signal(15));
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    assert!(phases(&report).contains(&Phase::Serving), "{report}");
    assert_eq!(report.hooks[0].name, "worker workers/poll");
}

#[test]
fn a_set_up_that_fails_or_panics_is_a_failed_start_and_what_had_started_is_undone() {
    let _bound = bound();
    for panics in [false, true] {
        let undone = Arc::new(AtomicBool::new(false));
        let ran = Arc::new(AtomicBool::new(false));
        let (undo, runs) = (Arc::clone(&undone), Arc::clone(&ran));
        let hook = StartupHook::new("database", || Ok(())).undo(move || {
            undo.store(true, Ordering::SeqCst);
            Ok(())
        });
        let never = Worker::new("never", move |_| runs.store(true, Ordering::SeqCst));
        let report = Lifecycle::builder().startup(hook).worker(never).run(|_| {
            if panics {
                std::panic::resume_unwind(Box::new("no meter"));
            }
            Err("no meter".into())
        });
        let why = if panics {
            "panicked: no meter"
        } else {
            "no meter"
        };
        assert_eq!(report.reason, Reason::StartFailed(why.to_owned()));
        assert_eq!(report.exit_code(), exit_code::FAILED_START, "{report}");
        assert!(undone.load(Ordering::SeqCst) && !ran.load(Ordering::SeqCst));
    }
}

#[test]
fn what_a_stop_keeps_from_being_set_up_has_not_failed() {
    let _bound = bound();
    let lifecycle = Lifecycle::builder().build().unwrap();
    let report = lifecycle.run(|lifecycle| {
        lifecycle.shutdown("test");
        Err("too late".into())
    });
    assert_eq!(report.reason, Reason::Requested("test".to_owned()));
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    assert!(
        report
            .to_string()
            .starts_with("stopped before it was ready in "),
        "{report}"
    );
    // And once more: it is over.
    let again = lifecycle.run(|_| unreachable!("the stop has begun"));
    assert_eq!(again, report);
}

#[test]
fn builders_know_whether_signals_were_set() {
    assert!(!Lifecycle::builder().has_signals());
    assert!(!Lifecycle::builder().signals(Signals::none()).has_signals());
    assert!(Lifecycle::builder()
        .signals(Signals::injected().0)
        .has_signals());
    assert!(Lifecycle::builder()
        .signals(Signals::process())
        .has_signals());
}

/// Counts how often it is dropped.
struct Database(Arc<AtomicUsize>);

impl Drop for Database {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn what_a_start_up_hook_opens_is_there_until_the_closing_hooks_are_done() {
    let _bound = bound();
    let dropped = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&dropped);
    let (hook, database) = StartupHook::opens("database", || Ok::<_, String>(Database(counts)));
    assert!(database.get().is_none());
    let in_hook = database.clone();
    let lifecycle = Lifecycle::builder()
        .startup(hook)
        .hook(Hook::new("flush", move || {
            in_hook.get().ok_or("closed too early")?;
            Ok(())
        }))
        .build()
        .unwrap();
    lifecycle.ready().unwrap();
    assert!(database.get().is_some());
    assert_eq!(dropped.load(Ordering::SeqCst), 0);
    lifecycle.shutdown("test");
    let report = lifecycle.wait();
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    assert!(database.get().is_none());
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
}

#[test]
fn what_cannot_be_opened_fails_the_start_with_its_error() {
    let _bound = bound();
    let (hook, database) = StartupHook::opens("database", || Err::<(), _>("disk full"));
    let report = Lifecycle::builder().startup(hook).run(|_| unreachable!());
    assert_eq!(
        report.reason.to_string(),
        "start failed: start-up hook \"database\" failed (disk full)"
    );
    assert!(database.get().is_none());
}

#[test]
fn the_token_of_a_hook_is_cancelled_when_its_time_is_over() {
    let _bound = bound();
    let (told, tells) = bounded(1);
    let hook = Hook::with_token("spool", move |token| {
        token.wait();
        told.send(()).unwrap();
        Ok(())
    });
    let lifecycle = Lifecycle::builder()
        .hook(hook.time_limit(Duration::from_millis(10)))
        .build()
        .unwrap();
    lifecycle.ready().unwrap();
    lifecycle.shutdown("test");
    let report = lifecycle.wait();
    assert_eq!(report.hooks[0].outcome, Outcome::Overran, "{report}");
    tells.recv().unwrap();
}

#[test]
fn the_token_of_a_closing_hook_is_cancelled_by_a_signal_that_comes_while_it_runs() {
    let _bound = bound();
    let (signals, sender) = Signals::injected();
    let hurries = sender.clone();
    let hook = Hook::with_token("spool", move |token| {
        // An earlier hurry was for what was in flight.
        assert!(!token.is_cancelled());
        hurries.send(15);
        token.wait();
        Err("given up".into())
    });
    let lifecycle = Lifecycle::builder()
        .signals(signals)
        .hook(hook)
        .build()
        .unwrap();
    lifecycle.ready().unwrap();
    sender.send(15);
    let report = lifecycle.wait();
    assert_eq!(
        report.hooks[0].outcome,
        Outcome::Failed("given up".to_owned())
    );
}

#[test]
fn what_only_one_process_can_have_is_tried_again_until_it_is_there() {
    let _bound = bound();
    let lifecycle = serving();
    let mut failures = 0;
    let opened = lifecycle.open_in_charge("meter", Duration::from_millis(1), || {
        failures += 1;
        if failures < 4 {
            return Err("busy");
        }
        Ok(failures)
    });
    assert_eq!(opened.unwrap(), 4);
}

#[test]
fn it_is_not_tried_before_this_process_is_in_charge_and_no_longer_once_it_stops() {
    /// Never in charge.
    struct Beside(Canceller);
    impl Succession for Beside {
        fn prove_ready(self: Arc<Self>, _: &Handover) -> Result<Standing, String> {
            let begins = self.0.clone();
            Ok(Standing::Beside(Box::new(move || {
                begins.cancel();
                Ok(())
            })))
        }
        fn replace(&self, _: &Handover) {}
    }
    let _bound = bound();
    let began = Canceller::new();
    let beside = Beside(began.clone());
    let lifecycle = Lifecycle::builder()
        .succession(move || Arc::new(beside))
        .build()
        .unwrap();
    lifecycle.ready().unwrap();
    began.wait();
    let program = lifecycle.remote();
    let waits = thread::spawn(move || {
        let open = || -> Result<(), String> { unreachable!("it is not in charge") };
        program
            .open_in_charge("meter", Duration::ZERO, open)
            .unwrap_err()
    });
    lifecycle.shutdown("test");
    assert_eq!(
        waits.join().unwrap().reason,
        Reason::Requested("test".to_owned())
    );
    lifecycle.wait();

    let lifecycle = serving();
    let stops = lifecycle.clone();
    let stopped = lifecycle.open_in_charge("meter", Duration::from_secs(3600), || {
        stops.shutdown("test");
        Err::<(), _>("busy")
    });
    assert!(stopped.is_err());
}
