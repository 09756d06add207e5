//! Closing hooks: their order, their time, and what becomes of those that go wrong.

mod lifecycle_support;

use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, never, Sender};
use lifecycle_support::{allow_threads, bound, is_child, say, Process};
use touchdown::lifecycle::{
    exit_code, BuildError, Builder, Hook, HookError, Lifecycle, Outcome, Participant, Plan, Report,
};

fn stop(builder: Builder) -> Report {
    let lifecycle = builder.build().unwrap();
    lifecycle.ready().unwrap();
    lifecycle.shutdown("test");
    lifecycle.wait()
}

fn nothing(name: &str) -> Hook {
    Hook::new(name, || Ok(()))
}

/// Never comes back, unless the test ends.
fn stuck(name: &str) -> Hook {
    Hook::new(name, || {
        let _ = never::<()>().recv();
        Ok(())
    })
    .time_limit(Duration::from_millis(10))
}

fn refused(builder: Builder) -> HookError {
    match builder.build() {
        Err(BuildError::Hook(error)) => error,
        other => panic!("not refused for its hooks: {other:?}"),
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn hook(&self, name: &'static str) -> Hook {
        let log = self.clone();
        Hook::new(name, move || {
            log.0.lock().unwrap().push(name.to_owned());
            Ok(())
        })
    }

    fn place(&self, name: &str) -> usize {
        self.0
            .lock()
            .unwrap()
            .iter()
            .position(|entry| entry == name)
            .unwrap()
    }
}

#[test]
fn a_hook_runs_after_those_that_it_names() {
    let _bound = bound();
    let log = Log::default();
    let report = stop(
        Lifecycle::builder()
            .hook(log.hook("last").after("left").after("right"))
            .hook(log.hook("left").after("first"))
            .hook(log.hook("right").after("first"))
            .hook(log.hook("first")),
    );
    assert_eq!(log.place("first"), 0);
    assert_eq!(log.place("last"), 3);
    let names: Vec<_> = report.hooks.iter().map(|hook| hook.name.as_str()).collect();
    assert_eq!(names, ["last", "left", "right", "first"]);
    assert!(report
        .hooks
        .iter()
        .all(|hook| hook.outcome == Outcome::Done));
    assert_eq!(report.exit_code(), exit_code::CLEAN);
}

#[test]
fn hooks_without_an_order_run_side_by_side_each_on_its_own_thread() {
    let _bound = bound();
    let meeting = Arc::new(Barrier::new(2));
    let meet = |name: &'static str| {
        let meeting = Arc::clone(&meeting);
        Hook::new(name, move || {
            assert_eq!(
                thread::current().name(),
                Some(format!("td-{name}").as_str())
            );
            meeting.wait();
            Ok(())
        })
    };
    let report = stop(Lifecycle::builder().hook(meet("one")).hook(meet("two")));
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
}

#[test]
fn an_unknown_name_is_refused() {
    let error = refused(Lifecycle::builder().hook(nothing("journal").after("databse")));
    assert_eq!(
        error.to_string(),
        "hook \"journal\" runs after \"databse\", which is not a hook: correct that name, or add a hook that has it \
         before this one"
    );
}

#[test]
fn two_hooks_of_one_name_are_refused() {
    let error = refused(
        Lifecycle::builder()
            .hook(nothing("journal"))
            .hook(nothing("journal")),
    );
    assert_eq!(
        error.to_string(),
        "two hooks are called \"journal\": give one of them another name, since names are how hooks refer to each other"
    );
}

#[test]
fn a_cycle_is_refused_and_names_its_hooks_only() {
    let error = refused(
        Lifecycle::builder()
            .hook(nothing("leads to it").after("a"))
            .hook(nothing("a").after("b"))
            .hook(nothing("b").after("c"))
            .hook(nothing("c").after("a"))
            .hook(nothing("free")),
    );
    assert_eq!(
        error.to_string(),
        "hooks wait for each other: \"a\" after \"b\" after \"c\" after \"a\": take one of these `after` out"
    );
}

#[test]
fn a_hook_after_itself_is_refused() {
    let error = refused(Lifecycle::builder().hook(nothing("a").after("a")));
    assert_eq!(error, HookError::Cycle(vec!["a".to_owned()]));
}

#[test]
fn a_hook_added_later_follows_the_same_rules() {
    let _bound = bound();
    let log = Log::default();
    let lifecycle = Lifecycle::builder()
        .hook(log.hook("first"))
        .build()
        .unwrap();
    lifecycle.hook(log.hook("second").after("first")).unwrap();
    lifecycle.ready().unwrap();
    lifecycle.hook(log.hook("third").after("second")).unwrap();
    let twice = lifecycle.hook(nothing("third")).unwrap_err();
    assert_eq!(twice.why(), &HookError::Duplicate("third".to_owned()));
    let unknown = lifecycle
        .hook(nothing("fourth").after("fifth"))
        .unwrap_err();
    assert!(matches!(unknown.why(), HookError::Unknown { .. }));
    // What was refused comes back, and may be added in another way.
    lifecycle.hook(nothing("fifth")).unwrap();
    lifecycle.hook(unknown.into_hook()).unwrap();
    lifecycle.shutdown("test");
    lifecycle.wait();
    assert_eq!(*log.0.lock().unwrap(), ["first", "second", "third"]);
}

#[test]
fn one_that_fails_panics_or_overruns_is_reported_and_stops_no_other() {
    let _bound = bound();
    let log = Log::default();
    let report = stop(
        Lifecycle::builder()
            .hook(Hook::new("fails", || Err("disk full".into())))
            .hook(Hook::new("panics", || panic!("at {}", "once")))
            .hook(stuck("overruns"))
            .hook(
                log.hook("after all")
                    .after("fails")
                    .after("panics")
                    .after("overruns"),
            ),
    );
    let outcomes: Vec<_> = report
        .hooks
        .iter()
        .map(|hook| hook.outcome.clone())
        .collect();
    assert_eq!(
        outcomes,
        [
            Outcome::Failed("disk full".to_owned()),
            Outcome::Panicked("at once".to_owned()),
            Outcome::Overran,
            Outcome::Done
        ]
    );
    assert!(report.hooks[2].took >= Duration::from_millis(10));
    assert_eq!(report.abandoned, ["overruns"]);
    assert!(!report.forced);
    assert_eq!(report.exit_code(), exit_code::CLOSING_FAILED);
}

#[test]
fn the_end_of_the_phase_ends_every_hook_and_the_rest_is_not_run() {
    let _bound = bound();
    let plan = Plan::new().with_closing(Duration::from_millis(200));
    let report = stop(
        Lifecycle::builder()
            .plan(plan)
            .hook(stuck("long").time_limit(Duration::MAX))
            .hook(nothing("too late").after("long")),
    );
    assert_eq!(report.hooks[0].outcome, Outcome::Overran);
    assert_eq!(report.hooks[1].outcome, Outcome::NotRun);
    assert_eq!(report.exit_code(), exit_code::CLOSING_FAILED);
}

#[test]
fn hooks_run_after_a_stop_during_start_up_too() {
    let _bound = bound();
    let log = Log::default();
    let lifecycle = Lifecycle::builder()
        .hook(log.hook("journal"))
        .build()
        .unwrap();
    lifecycle.fail("test");
    assert_eq!(lifecycle.wait().exit_code(), exit_code::FAILED_START);
    assert_eq!(*log.0.lock().unwrap(), ["journal"]);
}

/// Hangs as it closes, and says until when it was allowed to.
struct Hangs(Sender<Instant>);

impl Participant for Hangs {
    fn name(&self) -> String {
        "hangs".to_owned()
    }

    fn close(&self, deadline: Instant) {
        self.0.send(deadline).unwrap();
        let _ = never::<()>().recv();
    }

    fn running(&self) -> Vec<String> {
        Vec::new()
    }
}

#[test]
fn a_participant_that_hangs_as_it_closes_leaves_half_of_the_time_to_the_hooks() {
    let _bound = bound();
    let (sender, deadlines) = bounded(1);
    let closing = Duration::from_secs(1);
    let log = Log::default();
    let lifecycle = Lifecycle::builder()
        .plan(Plan::new().with_closing(closing))
        .hook(log.hook("journal"))
        .build()
        .unwrap();
    lifecycle.enlist(Arc::new(Hangs(sender))).unwrap();
    lifecycle.ready().unwrap();
    let transitions = lifecycle.subscribe();
    lifecycle.shutdown("test");
    let report = lifecycle.wait();
    let began = transitions
        .iter()
        .find(|transition| transition.to == touchdown::lifecycle::Phase::Closing)
        .unwrap()
        .at;
    let deadline = deadlines.recv().unwrap();
    // It counts from the moment when it is told.
    assert!(deadline >= began + closing / 2 - Duration::from_millis(1));
    assert!(deadline < began + closing);
    assert_eq!(report.hooks[0].name, "close hangs");
    assert_eq!(report.hooks[0].outcome, Outcome::Overran);
    assert_eq!(report.hooks[1].outcome, Outcome::Done);
    assert_eq!(report.abandoned, ["close hangs"]);
}

#[test]
fn hooks_run_where_no_thread_can_be_started() {
    let _bound = bound();
    if is_child() {
        let log = Log::default();
        let fails = || Err("disk full".into());
        let builder = Lifecycle::builder()
            .hook(log.hook("last").after("fails"))
            .hook(Hook::new("fails", fails).after("first"))
            .hook(log.hook("first"));
        let lifecycle = builder.build().unwrap();
        lifecycle.ready().unwrap();
        allow_threads(false);
        assert!(thread::Builder::new().spawn(|| ()).is_err());
        lifecycle.shutdown("test");
        let report = lifecycle.wait();
        assert!(log.place("first") < log.place("last"));
        let outcomes: Vec<_> = report.hooks.into_iter().map(|it| it.outcome).collect();
        let failed = Outcome::Failed("disk full".to_owned());
        assert_eq!(outcomes, [Outcome::Done, failed, Outcome::Done]);
        return say("closed");
    }
    let mut child = Process::start("hooks_run_where_no_thread_can_be_started");
    child.hear("closed");
    child.end();
}

#[test]
fn what_a_hook_fails_with_may_panic_as_it_says_what_it_is() {
    #[derive(Debug)]
    struct Mute;
    impl std::fmt::Display for Mute {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("no words");
        }
    }
    impl std::error::Error for Mute {}
    let _bound = bound();
    let hook = Hook::new("mute", || Err(Mute.into())).time_limit(Duration::from_secs(2));
    let report = stop(Lifecycle::builder().hook(hook));
    let outcome = Outcome::Panicked("no words".to_owned());
    assert_eq!(report.hooks[0].outcome, outcome);
}

#[test]
fn a_hook_that_is_not_run_may_panic_as_it_is_dropped() {
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    let _bound = bound();
    let owned = Bad;
    let hook = Hook::new("late", move || {
        std::mem::forget(owned);
        Ok(())
    });
    let plan = Plan::new().with_closing(Duration::ZERO);
    let lifecycle = Lifecycle::builder().plan(plan).hook(hook).build().unwrap();
    lifecycle.ready().unwrap();
    lifecycle.shutdown("test");
    let report = lifecycle.wait_timeout(Duration::from_secs(5));
    let report = report.expect("the walk goes on");
    assert_eq!(report.hooks[0].outcome, Outcome::NotRun);
}
