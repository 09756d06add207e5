//! Start-up hooks: their order, their time, and how they are undone.

mod lifecycle_support;

use std::process;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use crossbeam_channel::bounded;
use lifecycle_support::{bound, eventually, is_child, phases, say, Process};
use touchdown::lifecycle::{
    exit_code, BuildError, Builder, Canceller, Hook, HookError, Lifecycle, Outcome, Phase, Reason,
    Report, Signals, StartupHook, Token,
};

const SIGTERM: i32 = 15;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn add(&self, what: &str) {
        self.0.lock().unwrap().push(what.to_owned());
    }

    fn get(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// A hook that notes its start and its undoing.
    fn hook(&self, name: &'static str) -> StartupHook {
        let start = self.clone();
        self.undone(
            StartupHook::new(name, move || {
                start.add(name);
                Ok(())
            }),
            name,
        )
    }

    fn undone(&self, hook: StartupHook, name: &'static str) -> StartupHook {
        let undo = self.clone();
        hook.undo(move || {
            undo.add(&format!("undo {name}"));
            Ok(())
        })
    }
}

fn outcomes(report: &Report) -> Vec<(&str, &Outcome)> {
    let hooks = report.startup.iter();
    hooks.map(|it| (it.name.as_str(), &it.outcome)).collect()
}

/// Starts, and returns how the start that failed ended.
fn failed(builder: Builder) -> Report {
    let lifecycle = builder.build().unwrap();
    let refused = lifecycle.ready().unwrap_err();
    let report = lifecycle.wait();
    assert_eq!(report.reason, refused.reason);
    assert_eq!(report.exit_code(), exit_code::FAILED_START, "{report}");
    assert_eq!(phases(&report), [Phase::Starting, Phase::Closing]);
    report
}

fn refused(builder: Builder) -> HookError {
    match builder.build() {
        Err(BuildError::StartupHook(error)) => error,
        other => panic!("not refused for its start-up hooks: {other:?}"),
    }
}

#[test]
fn they_run_in_their_order_and_are_undone_in_reverse_after_the_closing_hooks() {
    let _bound = bound();
    let log = Log::default();
    let close = log.clone();
    let lifecycle = Lifecycle::builder()
        .startup(log.hook("last").after("middle"))
        .startup(log.hook("middle").after("first"))
        .startup(log.hook("first"))
        .hook(Hook::new("journal", move || {
            close.add("journal");
            Ok(())
        }))
        .build()
        .unwrap();
    assert_eq!(log.get(), Vec::<String>::new());
    lifecycle.ready().unwrap();
    assert_eq!(lifecycle.phase(), Phase::Serving);
    lifecycle.shutdown("test");
    let report = lifecycle.wait();
    assert_eq!(
        log.get(),
        [
            "first",
            "middle",
            "last",
            "journal",
            "undo last",
            "undo middle",
            "undo first"
        ]
    );
    let names: Vec<_> = report.hooks.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["journal", "undo last", "undo middle", "undo first"]);
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    let done = &Outcome::Done;
    assert_eq!(
        outcomes(&report),
        [("last", done), ("middle", done), ("first", done)]
    );
    assert!(report
        .to_json()
        .contains(r#""startup":[{"name":"last","outcome":"done""#));
}

#[test]
fn start_runs_them_once_and_serving_does_not_run_them_again() {
    let _bound = bound();
    let log = Log::default();
    let lifecycle = Lifecycle::builder()
        .startup(log.hook("once"))
        .build()
        .unwrap();
    thread::scope(|scope| {
        let starters = [(); 4].map(|()| scope.spawn(|| lifecycle.start()));
        for starter in starters {
            starter.join().unwrap().unwrap();
        }
    });
    assert_eq!(lifecycle.phase(), Phase::Starting);
    lifecycle.ready().unwrap();
    lifecycle.start().unwrap();
    assert_eq!(log.get(), ["once"]);
}

#[test]
fn one_that_fails_ends_the_start_and_only_what_had_started_is_undone() {
    let _bound = bound();
    let log = Log::default();
    let fails = StartupHook::new("database", || Err("no such file".into())).after("config");
    let report = failed(
        Lifecycle::builder()
            .startup(log.hook("config"))
            .startup(log.undone(fails, "database"))
            .startup(log.hook("later").after("database")),
    );
    assert_eq!(log.get(), ["config", "undo config"]);
    assert_eq!(
        report.reason.to_string(),
        "start failed: start-up hook \"database\" failed (no such file)"
    );
    let failure = Outcome::Failed("no such file".to_owned());
    assert_eq!(
        outcomes(&report),
        [
            ("config", &Outcome::Done),
            ("database", &failure),
            ("later", &Outcome::NotRun)
        ]
    );
    assert_eq!(report.hooks.len(), 1);
    assert_eq!(report.hooks[0].name, "undo config");
    assert_eq!(report.hooks[0].outcome, Outcome::Done);
}

#[test]
fn one_that_panics_ends_the_start() {
    let _bound = bound();
    let hook = StartupHook::new("motor", || panic!("no power"));
    let report = failed(Lifecycle::builder().startup(hook));
    assert_eq!(
        report.reason,
        Reason::StartFailed("start-up hook \"motor\" panicked (no power)".to_owned())
    );
}

#[test]
fn an_undo_that_fails_is_reported_and_the_others_run() {
    let _bound = bound();
    let log = Log::default();
    let bad = StartupHook::new("bad", || Ok(()))
        .after("good")
        .undo(|| Err("stuck".into()));
    let lifecycle = Lifecycle::builder()
        .startup(log.hook("good"))
        .startup(bad)
        .build()
        .unwrap();
    lifecycle.ready().unwrap();
    lifecycle.shutdown("test");
    let report = lifecycle.wait();
    assert_eq!(report.hooks[0].outcome, Outcome::Failed("stuck".to_owned()));
    assert_eq!(log.get(), ["good", "undo good"]);
    assert_eq!(report.exit_code(), exit_code::CLOSING_FAILED);
}

#[test]
fn an_undo_that_hangs_is_left_behind_at_its_limit() {
    let _bound = bound();
    let (release, released) = bounded::<()>(0);
    let hook = StartupHook::new("hangs", || Ok(()))
        .undo(move || {
            let _ = released.recv();
            Ok(())
        })
        .undo_time_limit(Duration::from_millis(10));
    let lifecycle = Lifecycle::builder().startup(hook).build().unwrap();
    lifecycle.ready().unwrap();
    lifecycle.shutdown("test");
    let report = lifecycle.wait();
    assert_eq!(report.abandoned, ["undo hangs"]);
    assert_eq!(report.hooks[0].outcome, Outcome::Overran);
    drop(release);
}

#[test]
fn one_that_overruns_ends_the_start_and_is_undone_when_it_comes_after_all() {
    let _bound = bound();
    let log = Log::default();
    let (release, released) = bounded::<()>(0);
    let hangs = StartupHook::new("hangs", move || {
        let _ = released.recv();
        Ok(())
    })
    .after("config")
    .time_limit(Duration::from_millis(10));
    let report = failed(
        Lifecycle::builder()
            .startup(log.hook("config"))
            .startup(log.undone(hangs, "hangs")),
    );
    assert_eq!(
        report.reason,
        Reason::StartFailed("start-up hook \"hangs\" overran".to_owned())
    );
    assert_eq!(report.abandoned, ["hangs"]);
    assert_eq!(log.get(), ["config", "undo config"]);
    drop(release);
    eventually("its work is undone", || log.get().len() == 3);
    assert_eq!(log.get()[2], "undo hangs");
}

#[test]
fn one_that_comes_late_while_the_program_closes_is_undone_before_the_rest() {
    let _bound = bound();
    let log = Log::default();
    let (release, released) = bounded::<()>(0);
    let late = StartupHook::new("late", move || {
        let _ = released.recv();
        Ok(())
    })
    .after("config")
    .time_limit(Duration::from_millis(10));
    let lets_go = move || {
        drop(release);
        eventually("it has ended", || {
            !threads().contains(&"td-late".to_owned())
        });
        Ok(())
    };
    let report = failed(
        Lifecycle::builder()
            .startup(log.hook("config"))
            .startup(log.undone(late, "late"))
            .hook(Hook::new("lets it go", lets_go)),
    );
    assert_eq!(log.get(), ["config", "undo late", "undo config"]);
    let names: Vec<_> = report.hooks.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["lets it go", "undo late", "undo config"]);
}

fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        tasks.filter_map(|it| std::fs::read_to_string(it.unwrap().path().join("comm")).ok());
    names.map(|it| it.trim().to_owned()).collect()
}

#[test]
fn a_failure_tells_those_that_still_run_and_waits_for_them() {
    let _bound = bound();
    let log = Log::default();
    let stopping = Arc::new(Mutex::new(None::<Token>));
    let began = Canceller::new();
    let patient = StartupHook::new("patient", {
        let (stopping, began, log) = (Arc::clone(&stopping), began.clone(), log.clone());
        move || {
            began.cancel();
            stopping.lock().unwrap().clone().unwrap().wait();
            log.add("patient");
            Ok(())
        }
    });
    let fails = StartupHook::new("fails", move || {
        began.wait();
        Err("at once".into())
    });
    let lifecycle = Lifecycle::builder()
        .startup(log.undone(patient, "patient"))
        .startup(fails)
        .build()
        .unwrap();
    *stopping.lock().unwrap() = Some(lifecycle.stopping().clone());
    assert!(lifecycle.ready().is_err());
    let report = lifecycle.wait();
    assert_eq!(log.get(), ["patient", "undo patient"]);
    assert_eq!(report.exit_code(), exit_code::FAILED_START);
}

#[test]
fn a_signal_lets_those_that_run_finish_and_starts_no_other() {
    let _bound = bound();
    let log = Log::default();
    let (signals, sender) = Signals::injected();
    let stopping = Arc::new(Mutex::new(None::<Token>));
    let first = StartupHook::new("first", {
        let (stopping, log) = (Arc::clone(&stopping), log.clone());
        move || {
            sender.send(SIGTERM);
            stopping.lock().unwrap().clone().unwrap().wait();
            log.add("first");
            Ok(())
        }
    });
    let lifecycle = Lifecycle::builder()
        .signals(signals)
        .startup(log.undone(first, "first"))
        .startup(log.hook("second").after("first"))
        .build()
        .unwrap();
    *stopping.lock().unwrap() = Some(lifecycle.stopping().clone());
    assert_eq!(
        lifecycle.ready().unwrap_err().reason,
        Reason::Signal(SIGTERM)
    );
    let report = lifecycle.wait();
    assert_eq!(log.get(), ["first", "undo first"]);
    assert_eq!(
        outcomes(&report),
        [("first", &Outcome::Done), ("second", &Outcome::NotRun)]
    );
    assert_eq!(phases(&report), [Phase::Starting, Phase::Closing]);
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
}

#[test]
fn one_that_fails_because_of_a_stop_is_no_failure() {
    let _bound = bound();
    let (began, begun) = bounded(0);
    let (release, released) = bounded::<()>(0);
    let hook = StartupHook::new("connects", move || {
        began.send(())?;
        let _ = released.recv();
        Err("interrupted".into())
    });
    let lifecycle = Lifecycle::builder().startup(hook).build().unwrap();
    thread::scope(|scope| {
        let server = scope.spawn(|| lifecycle.ready());
        begun.recv().unwrap();
        lifecycle.shutdown("changed my mind");
        drop(release);
        assert!(server.join().unwrap().is_err());
    });
    let report = lifecycle.wait();
    assert_eq!(report.startup[0].outcome.message(), Some("interrupted"));
    assert_eq!(report.exit_code(), exit_code::CLEAN);
}

#[test]
fn hurry_does_not_wait_for_them() {
    let _bound = bound();
    let (began, begun) = bounded(0);
    let (release, released) = bounded::<()>(0);
    let hook = StartupHook::new("hangs", move || {
        began.send(())?;
        let _ = released.recv();
        Ok(())
    });
    let lifecycle = Lifecycle::builder()
        .startup(hook.time_limit(Duration::MAX))
        .build()
        .unwrap();
    thread::scope(|scope| {
        let server = scope.spawn(|| lifecycle.ready());
        begun.recv().unwrap();
        lifecycle.shutdown("test");
        assert!(lifecycle.wait_timeout(Duration::from_millis(50)).is_none());
        lifecycle.hurry();
        assert!(server.join().unwrap().is_err());
    });
    let report = lifecycle.wait();
    assert_eq!(report.abandoned, ["hangs"]);
    assert_eq!(report.exit_code(), exit_code::CLOSING_FAILED);
    drop(release);
}

#[test]
fn after_a_stop_none_is_run_and_that_is_said() {
    let _bound = bound();
    let log = Log::default();
    let lifecycle = Lifecycle::builder()
        .startup(log.hook("never"))
        .build()
        .unwrap();
    lifecycle.shutdown("before it began");
    assert!(lifecycle.start().is_err());
    assert!(lifecycle.ready().is_err());
    let report = lifecycle.wait();
    assert_eq!(outcomes(&report), [("never", &Outcome::NotRun)]);
    assert_eq!(report.exit_code(), exit_code::CLEAN);
    assert_eq!(log.get(), Vec::<String>::new());
}

#[test]
fn what_fails_after_them_undoes_them() {
    let _bound = bound();
    let log = Log::default();
    let lifecycle = Lifecycle::builder()
        .startup(log.hook("database"))
        .build()
        .unwrap();
    lifecycle.start().unwrap();
    lifecycle.fail("port 80 is taken");
    assert_eq!(lifecycle.wait().exit_code(), exit_code::FAILED_START);
    assert_eq!(log.get(), ["database", "undo database"]);
}

#[test]
fn names_that_do_not_fit_together_are_refused() {
    let nothing = |name: &str| StartupHook::new(name, || Ok(()));
    let unknown = Lifecycle::builder().startup(nothing("database").after("confg"));
    assert_eq!(
        unknown.build().unwrap_err().to_string(),
        "the start-up hooks do not fit together: hook \"database\" runs after \"confg\", which is not a hook"
    );
    let cycle = Lifecycle::builder()
        .startup(nothing("a").after("b"))
        .startup(nothing("b").after("a"));
    assert!(matches!(refused(cycle), HookError::Cycle(names) if names.len() == 2));
    let twice = Lifecycle::builder()
        .startup(nothing("a"))
        .startup(nothing("a"));
    assert_eq!(refused(twice), HookError::Duplicate("a".to_owned()));
    // A closing hook may have the same name, and is another hook.
    let both = Lifecycle::builder()
        .startup(nothing("a"))
        .hook(Hook::new("a", || Ok(())));
    assert!(both.build().is_ok());
}

#[test]
fn a_process_whose_start_fails_undoes_and_exits_with_its_code() {
    if is_child() {
        let lifecycle = Lifecycle::builder()
            .signals(Signals::process())
            .startup(StartupHook::new("config", || Ok(())).undo(|| {
                say("undone");
                Ok(())
            }))
            .startup(StartupHook::new("database", || Err("locked".into())).after("config"))
            .build()
            .unwrap();
        assert!(lifecycle.ready().is_err());
        process::exit(lifecycle.wait().exit_code().into());
    }
    let end = Process::start("a_process_whose_start_fails_undoes_and_exits_with_its_code").end();
    assert_eq!(end.code, Some(exit_code::FAILED_START.into()), "{end:?}");
    assert!(end.stdout.contains("undone"), "{end:?}");
    assert!(!end.stdout.contains("started"), "{end:?}");
}

#[test]
fn a_process_that_gets_sigterm_as_it_starts_undoes_and_exits_cleanly() {
    static STOPPING: OnceLock<Token> = OnceLock::new();
    if is_child() {
        let opens = || {
            say("opening");
            STOPPING.get().unwrap().wait();
            Ok(())
        };
        let lifecycle = Lifecycle::builder()
            .signals(Signals::process())
            .startup(StartupHook::new("database", opens).undo(|| {
                say("undone");
                Ok(())
            }))
            .startup(
                StartupHook::new("never", || {
                    say("started");
                    Ok(())
                })
                .after("database"),
            )
            .build()
            .unwrap();
        STOPPING.set(lifecycle.stopping().clone()).unwrap();
        assert!(lifecycle.ready().is_err());
        process::exit(lifecycle.wait().exit_code().into());
    }
    let mut child =
        Process::start("a_process_that_gets_sigterm_as_it_starts_undoes_and_exits_cleanly");
    child.hear("opening");
    child.signal("TERM");
    let end = child.end();
    assert_eq!(end.code, Some(exit_code::CLEAN.into()), "{end:?}");
    assert!(end.stdout.contains("undone"), "{end:?}");
    assert!(!end.stdout.contains("started"), "{end:?}");
}
