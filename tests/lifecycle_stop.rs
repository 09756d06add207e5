//! One test for each way of stopping, and for what each is told on the way.

mod lifecycle_support;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use lifecycle_support::{bound, phases, serving, Part};
use touchdown::lifecycle::{
    exit_code, BuildError, Calls, Hook, HookError, Lifecycle, Participant, Phase, Plan, Reason,
};

#[test]
fn a_requested_stop_walks_all_phases_but_cancelling() {
    let _bound = bound();
    let lifecycle = serving();
    lifecycle.shutdown("update");
    let report = lifecycle.wait();
    assert_eq!(report.reason, Reason::Requested("update".to_owned()));
    assert_eq!(
        phases(&report),
        [
            Phase::Starting,
            Phase::Serving,
            Phase::LameDuck,
            Phase::Draining,
            Phase::Closing
        ]
    );
    assert_eq!(report.exit_code(), exit_code::CLEAN);
    assert_eq!(lifecycle.phase(), Phase::Stopped);
}

#[test]
fn a_stop_during_start_up_goes_straight_to_closing() {
    let _bound = bound();
    let lifecycle = Lifecycle::builder().build().unwrap();
    lifecycle.shutdown("changed my mind");
    let refused = lifecycle.ready().unwrap_err();
    assert_eq!(
        refused.reason,
        Reason::Requested("changed my mind".to_owned())
    );
    let report = lifecycle.wait();
    assert_eq!(phases(&report), [Phase::Starting, Phase::Closing]);
    assert_eq!(report.exit_code(), exit_code::CLEAN);
    assert!(lifecycle.in_flight().is_closed());
    for token in [
        lifecycle.stopping(),
        lifecycle.draining(),
        lifecycle.cancelling(),
    ] {
        assert!(token.is_cancelled());
    }
}

#[test]
fn a_failed_start_closes_and_has_its_own_exit_code() {
    let _bound = bound();
    let lifecycle = Lifecycle::builder().build().unwrap();
    lifecycle.fail("port 80 is taken");
    let report = lifecycle.wait();
    assert_eq!(phases(&report), [Phase::Starting, Phase::Closing]);
    assert_eq!(
        report.reason,
        Reason::StartFailed("port 80 is taken".to_owned())
    );
    assert_eq!(report.exit_code(), exit_code::FAILED_START);
}

#[test]
fn a_start_that_fails_because_of_a_stop_is_no_failure() {
    let _bound = bound();
    let lifecycle = Lifecycle::builder().build().unwrap();
    lifecycle.shutdown("first");
    lifecycle.fail("interrupted");
    assert_eq!(lifecycle.wait().exit_code(), exit_code::CLEAN);
}

#[test]
fn a_failure_while_serving_still_drains() {
    let _bound = bound();
    let lifecycle = serving();
    lifecycle.fail("the second listener is gone");
    let report = lifecycle.wait();
    assert!(phases(&report).contains(&Phase::Draining));
    assert_eq!(report.exit_code(), exit_code::FAILED_START);
}

#[test]
fn dropping_the_last_handle_stops() {
    let _bound = bound();
    let lifecycle = serving();
    let (transitions, stopping) = (lifecycle.subscribe(), lifecycle.stopping().clone());
    drop(lifecycle.clone());
    assert!(!stopping.is_cancelled());
    drop(lifecycle);
    assert!(stopping.is_cancelled());
    assert_eq!(transitions.iter().last().unwrap().to, Phase::Stopped);
}

#[test]
fn a_second_request_changes_nothing() {
    let _bound = bound();
    let lifecycle = serving();
    let work = lifecycle.in_flight().enter_owned().unwrap();
    lifecycle.shutdown("first");
    lifecycle.shutdown("second");
    lifecycle.draining().wait();
    lifecycle.shutdown("third");
    assert!(lifecycle.wait_timeout(Duration::from_millis(50)).is_none());
    drop(work);
    let report = lifecycle.wait();
    assert_eq!(report.reason, Reason::Requested("first".to_owned()));
    assert_eq!(report.exit_code(), exit_code::CLEAN);
}

#[test]
fn a_drain_waits_for_what_is_in_flight_and_refuses_the_rest() {
    let _bound = bound();
    let lifecycle = serving();
    let transitions = lifecycle.subscribe();
    let work = lifecycle.in_flight().enter_owned().unwrap();
    lifecycle.shutdown("test");
    while transitions.recv().unwrap().to != Phase::Draining {}
    while !lifecycle.in_flight().is_closed() {
        thread::yield_now();
    }
    assert!(lifecycle.in_flight().enter().is_err());
    assert!(transitions
        .recv_timeout(Duration::from_millis(100))
        .is_err());
    let part = work.split();
    drop(work);
    assert!(transitions.recv_timeout(Duration::from_millis(50)).is_err());
    drop(part);
    assert_eq!(transitions.recv().unwrap().to, Phase::Closing);
    assert!(!lifecycle.wait().forced);
}

#[test]
fn what_outlasts_the_grace_period_is_told_and_that_is_forced() {
    let _bound = bound();
    let plan = Plan::new().with_grace_period(Duration::from_millis(10));
    let lifecycle = Lifecycle::builder().plan(plan).build().unwrap();
    lifecycle.ready().unwrap();
    let work = lifecycle.in_flight().enter_owned().unwrap();
    let worker = thread::spawn({
        let token = lifecycle.cancelling().child();
        move || {
            token.wait();
            drop(work);
        }
    });
    lifecycle.shutdown("test");
    let report = lifecycle.wait();
    assert!(phases(&report).contains(&Phase::Cancelling));
    assert!(report.forced);
    assert_eq!(report.abandoned, Vec::<String>::new());
    assert_eq!(report.exit_code(), exit_code::FORCED);
    worker.join().unwrap();
}

#[test]
fn what_outlasts_the_force_period_is_abandoned_by_name() {
    let _bound = bound();
    let plan = Plan::new()
        .with_grace_period(Duration::ZERO)
        .with_force_period(Duration::from_millis(10));
    let lifecycle = Lifecycle::builder().plan(plan).build().unwrap();
    lifecycle.ready().unwrap();
    let part = Part::new();
    *part.running.lock().unwrap() = vec!["call 7".to_owned()];
    lifecycle.enlist(part).unwrap();
    let _work = lifecycle.in_flight().enter_owned().unwrap();
    lifecycle.shutdown("test");
    let report = lifecycle.wait();
    assert_eq!(report.abandoned, ["part: call 7"]);
    assert_eq!(report.exit_code(), exit_code::FORCED);
}

#[test]
fn what_nobody_names_is_counted() {
    let _bound = bound();
    let plan = Plan::new()
        .with_grace_period(Duration::ZERO)
        .with_force_period(Duration::ZERO);
    let lifecycle = Lifecycle::builder().plan(plan).build().unwrap();
    lifecycle.ready().unwrap();
    let _work = lifecycle.in_flight().enter_owned().unwrap();
    lifecycle.shutdown("test");
    assert_eq!(lifecycle.wait().abandoned, ["1 in flight, not named"]);
}

#[test]
fn hurry_ends_a_lame_duck_and_a_drain_without_end() {
    let _bound = bound();
    let plan = Plan::new()
        .with_lame_duck(Duration::MAX)
        .with_grace_period(Duration::MAX);
    let lifecycle = Lifecycle::builder().plan(plan).build().unwrap();
    lifecycle.ready().unwrap();
    let transitions = lifecycle.subscribe();
    let work = lifecycle.in_flight().enter_owned().unwrap();
    lifecycle.shutdown("test");
    assert_eq!(transitions.recv().unwrap().to, Phase::LameDuck);
    assert!(transitions.recv_timeout(Duration::from_millis(50)).is_err());
    lifecycle.hurry();
    assert_eq!(transitions.recv().unwrap().to, Phase::Draining);
    assert_eq!(transitions.recv().unwrap().to, Phase::Cancelling);
    drop(work);
    let report = lifecycle.wait();
    assert_eq!(report.reason, Reason::Requested("test".to_owned()));
    assert_eq!(report.exit_code(), exit_code::FORCED);
}

#[test]
fn hurry_reaches_a_drain_that_is_under_way() {
    let _bound = bound();
    let plan = Plan::new().with_grace_period(Duration::MAX);
    let lifecycle = Lifecycle::builder().plan(plan).build().unwrap();
    lifecycle.ready().unwrap();
    let work = lifecycle.in_flight().enter_owned().unwrap();
    lifecycle.shutdown("test");
    lifecycle.draining().wait();
    assert!(lifecycle.wait_timeout(Duration::from_millis(50)).is_none());
    lifecycle.hurry();
    lifecycle.cancelling().wait();
    drop(work);
    assert!(lifecycle.wait().forced);
}

#[test]
fn hurry_with_nothing_in_flight_is_clean() {
    let _bound = bound();
    let plan = Plan::new().with_lame_duck(Duration::MAX);
    let lifecycle = Lifecycle::builder().plan(plan).build().unwrap();
    lifecycle.ready().unwrap();
    lifecycle.hurry();
    let report = lifecycle.wait();
    assert!(!phases(&report).contains(&Phase::Cancelling));
    assert_eq!(report.exit_code(), exit_code::CLEAN);
}

#[test]
fn a_plan_without_any_end_stops_when_the_work_is_done() {
    let _bound = bound();
    let plan = Plan::new()
        .with_grace_period(Duration::MAX)
        .with_force_period(Duration::MAX)
        .with_closing(Duration::MAX)
        .with_hard_deadline(Duration::MAX);
    let lifecycle = Lifecycle::builder()
        .plan(plan)
        .hook(Hook::new("hook", || Ok(())).time_limit(Duration::MAX))
        .build()
        .unwrap();
    lifecycle.ready().unwrap();
    lifecycle.enlist(Part::new()).unwrap();
    lifecycle.shutdown("test");
    assert_eq!(lifecycle.wait().exit_code(), exit_code::CLEAN);
}

#[test]
fn a_plan_that_cannot_be_kept_is_refused() {
    let plan = Plan::new().with_hard_deadline(Duration::from_secs(1));
    let error = Lifecycle::builder().plan(plan).build().unwrap_err();
    assert!(matches!(error, BuildError::Plan(_)));
    assert_eq!(
        error.to_string(),
        "the plan of the stop cannot be kept: the hard deadline of 1s is shorter than the phases \
         under it, which may take 45s: lengthen it, leave it out so that it follows from the phases, or shorten them"
    );
}

#[test]
fn participants_are_told_before_the_gate_closes_then_to_cancel_then_to_close() {
    let _bound = bound();
    let plan = Plan::new().with_grace_period(Duration::ZERO);
    let lifecycle = Lifecycle::builder().plan(plan).build().unwrap();
    let part = Arc::new(Part {
        leaves_when_told: true,
        ..Part::default()
    });
    *part.work.lock().unwrap() = Some(lifecycle.in_flight().enter_owned().unwrap());
    *part.lifecycle.lock().unwrap() = Some(lifecycle.clone());
    lifecycle.enlist(part.clone()).unwrap();
    lifecycle.ready().unwrap();
    lifecycle.shutdown("test");
    let report = lifecycle.wait();
    assert_eq!(part.log(), ["drain", "cancel", "close"]);
    assert_eq!(report.hooks[0].name, "close part");
    part.lifecycle.lock().unwrap().take();
}

#[test]
fn a_stop_before_the_program_is_ready_drains_participants_too() {
    let _bound = bound();
    let lifecycle = Lifecycle::builder().build().unwrap();
    let part = Part::new();
    lifecycle.enlist(part.clone()).unwrap();
    lifecycle.shutdown("test");
    let report = lifecycle.wait();
    assert_eq!(part.log(), ["drain", "close"]);
    assert_eq!(
        phases(&report),
        [Phase::Starting, Phase::Draining, Phase::Closing]
    );
}

#[test]
fn a_participant_that_panics_does_not_stop_the_stop() {
    struct Panics;
    impl Participant for Panics {
        fn name(&self) -> String {
            "panics".to_owned()
        }
        fn drain(&self) {
            panic!("drain");
        }
        fn cancel(&self) {
            panic!("cancel");
        }
        fn close(&self, _: Instant) {
            panic!("close");
        }
        fn running(&self) -> Vec<String> {
            panic!("running");
        }
        fn calls(&self) -> Calls {
            panic!("calls");
        }
    }
    let _bound = bound();
    let plan = Plan::new()
        .with_grace_period(Duration::ZERO)
        .with_force_period(Duration::ZERO);
    let lifecycle = Lifecycle::builder().plan(plan).build().unwrap();
    lifecycle.ready().unwrap();
    lifecycle.enlist(Arc::new(Panics)).unwrap();
    let other = Part::new();
    lifecycle.enlist(other.clone()).unwrap();
    let _work = lifecycle.in_flight().enter_owned().unwrap();
    lifecycle.shutdown("test");
    let report = lifecycle.wait();
    assert_eq!(other.log(), ["drain", "cancel", "close"]);
    assert_eq!(report.hooks[0].outcome.message(), Some("close"));
    assert_eq!(report.hooks[1].outcome.message(), None);
}

#[test]
fn calls_are_summed_over_participants_present_and_dismissed() {
    let _bound = bound();
    let lifecycle = serving();
    let count = |completed| {
        let mut calls = Calls::new();
        (calls.completed, calls.refused) = (completed, 1);
        calls
    };
    let (gone, stays) = (Part::new(), Part::new());
    *gone.calls.lock().unwrap() = count(3);
    *stays.calls.lock().unwrap() = count(4);
    lifecycle.enlist(gone.clone()).unwrap();
    lifecycle.enlist(stays.clone()).unwrap();
    let handle: Arc<dyn Participant> = gone.clone();
    lifecycle.dismiss(&handle);
    lifecycle.dismiss(&handle);
    lifecycle.shutdown("test");
    let calls = lifecycle.wait().calls;
    assert_eq!((calls.completed, calls.refused), (7, 2));
    assert_eq!(gone.log(), Vec::<&str>::new());
}

#[test]
fn who_comes_after_the_stop_has_begun_is_refused() {
    let _bound = bound();
    let lifecycle = serving();
    lifecycle.shutdown("test");
    assert!(lifecycle.enlist(Part::new()).is_err());
    let late = lifecycle.hook(Hook::new("late", || Ok(()))).unwrap_err();
    assert_eq!(late.why(), &HookError::Stopping("late".to_owned()));
    assert!(lifecycle.ready().is_err());
    lifecycle.wait();
}

#[test]
fn any_number_of_threads_may_wait() {
    let _bound = bound();
    let lifecycle = serving();
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..8).map(|_| scope.spawn(|| lifecycle.wait())).collect();
        lifecycle.shutdown("test");
        let reports: Vec<_> = waiters
            .into_iter()
            .map(|waiter| waiter.join().unwrap())
            .collect();
        assert!(reports.windows(2).all(|pair| pair[0] == pair[1]));
    });
    assert!(lifecycle.wait_timeout(Duration::ZERO).is_some());
}

/// Two orders of magnitude above what it takes on a slow machine, and below any polling interval
/// that somebody might put in.
#[test]
fn an_idle_stop_takes_no_time() {
    let _bound = bound();
    let mut times: Vec<_> = (0..51)
        .map(|_| {
            let lifecycle = serving();
            lifecycle.shutdown("test");
            lifecycle.wait().took
        })
        .collect();
    times.sort();
    println!("idle stop: median {:?}", times[25]);
    assert!(
        times[25] < Duration::from_millis(20),
        "median {:?}",
        times[25]
    );
}
