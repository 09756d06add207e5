//! What others hang on a lifecycle: attachments, reload observers, announcers and checks.

mod lifecycle_support;

use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, unbounded};
use lifecycle_support::{bound, eventually, serving};
use touchdown::lifecycle::{
    Announcer, Check, Lifecycle, Participant, Phase, Plan, ReloadEvent, Transition, PATIENCE,
};

/// Long beside what happens at once, and short beside what is waited for.
const LONG: Duration = Duration::from_secs(20);

#[derive(Debug)]
struct Metrics(u32);
struct Registry;

#[test]
fn one_of_each_type_is_attached_until_the_stop_is_over() {
    let _bound = bound();
    let lifecycle = serving();
    let first = Arc::new(Metrics(1));
    let watched = Arc::downgrade(&first);
    lifecycle.attach(first).unwrap();
    assert_eq!(lifecycle.attach(Arc::new(Metrics(2))).unwrap_err().0, 2);
    assert!(lifecycle.attached::<Registry>().is_none());
    lifecycle.attach(Arc::new(Registry)).ok().unwrap();
    assert_eq!(lifecycle.remote().attached::<Metrics>().unwrap().0, 1);
    assert!(lifecycle.detach::<Registry>().is_some());
    assert!(lifecycle.detach::<Registry>().is_none());
    lifecycle.shutdown("test");
    lifecycle.wait();
    assert!(watched.upgrade().is_none(), "it is let go");
    assert!(lifecycle.attach(Arc::new(Metrics(3))).is_err());
}

/// Asks the lifecycle as it is dropped.
struct Asks(Lifecycle);

impl Drop for Asks {
    fn drop(&mut self) {
        self.0.describe();
        self.0.attached::<Metrics>();
    }
}

#[test]
fn what_is_attached_may_ask_the_lifecycle_as_it_is_dropped() {
    let _bound = bound();
    let lifecycle = serving();
    lifecycle
        .attach(Arc::new(Asks(lifecycle.clone())))
        .ok()
        .unwrap();
    let refused = lifecycle.attach(Arc::new(Asks(lifecycle.clone())));
    drop(refused);
    lifecycle.shutdown("test");
    lifecycle.wait();
}

#[test]
fn every_reload_observer_is_told_though_another_panics() {
    let _bound = bound();
    let lifecycle = Lifecycle::builder()
        .on_reload("good", || Ok(()))
        .on_reload("bad", || Err("no such file".into()))
        .build()
        .unwrap();
    let (sender, events) = unbounded();
    for _ in 0..2 {
        lifecycle.observe_reloads(|_| std::panic::resume_unwind(Box::new("an observer")));
        let sender = sender.clone();
        lifecycle.observe_reloads(move |event| sender.send(event.clone()).unwrap());
    }
    lifecycle.ready().unwrap();
    lifecycle.reload();
    for _ in 0..2 {
        assert_eq!(events.recv(), Ok(ReloadEvent::Began));
    }
    for _ in 0..2 {
        match events.recv().unwrap() {
            ReloadEvent::Ended { failures, .. } => assert!(failures[0].contains("no such file")),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_announcer_hears_every_phase_in_order_and_the_walk_waits_for_it() {
    let _bound = bound();
    let lifecycle = Lifecycle::builder().build().unwrap();
    let log = Arc::new(Mutex::new(Vec::new()));
    let (began, has_begun) = unbounded();
    let (go_on, may_go_on) = unbounded();
    let announcer = Announcer::new("registry", {
        let log = Arc::clone(&log);
        move |transition: &touchdown::lifecycle::Transition| {
            assert_eq!(thread::current().name(), Some("td-registry"));
            began.send(transition.to).unwrap();
            may_go_on.recv().unwrap();
            log.lock().unwrap().push(transition.to);
        }
    });
    lifecycle.announce(announcer.patience(LONG)).unwrap();
    lifecycle.ready().unwrap();
    lifecycle.shutdown("test");
    let phases = [
        Phase::Serving,
        Phase::LameDuck,
        Phase::Draining,
        Phase::Closing,
        Phase::Stopped,
    ];
    for phase in phases {
        assert_eq!(has_begun.recv(), Ok(phase));
        // Serving and LameDuck are two steps of other threads; the walk makes all that follow.
        if phase > Phase::LameDuck {
            assert_eq!(lifecycle.phase(), phase, "the walk has not gone on");
        }
        assert!(lifecycle.wait_timeout(Duration::ZERO).is_none());
        go_on.send(()).unwrap();
    }
    lifecycle.wait();
    assert_eq!(*log.lock().unwrap(), phases);
}

#[test]
fn an_announcer_that_hangs_costs_its_patience_twice_and_no_more() {
    let _bound = bound();
    let lifecycle = serving();
    let (release, released) = bounded::<()>(0);
    let hangs = Announcer::new("hangs", move |_| {
        let _ = released.recv();
    });
    let patience = 2 * PATIENCE;
    lifecycle.announce(hangs.patience(patience)).unwrap();
    let began = Instant::now();
    lifecycle.shutdown("test");
    lifecycle.wait();
    let took = began.elapsed();
    assert!(took >= 2 * patience, "waited for in two phases: {took:?}");
    assert!(took < 4 * patience, "waited for in all four: {took:?}");
    drop(release);
}

#[test]
fn a_second_signal_is_not_kept_waiting_by_an_announcer_that_hangs() {
    let _bound = bound();
    let lifecycle = serving();
    let (release, released) = bounded::<()>(0);
    let (began, begun) = bounded::<()>(1);
    let hangs = Announcer::new("hangs", move |_| {
        let _ = began.try_send(());
        let _ = released.recv();
    });
    lifecycle.announce(hangs.patience(LONG)).unwrap();
    let began = Instant::now();
    lifecycle.shutdown("test");
    begun.recv_timeout(LONG).unwrap();
    lifecycle.hurry();
    lifecycle.wait();
    assert!(began.elapsed() < LONG / 2, "{:?}", began.elapsed());
    drop(release);
}

#[test]
fn an_announcer_is_not_late_with_a_phase_that_nobody_waits_for() {
    let _bound = bound();
    let lifecycle = serving();
    let patience = |it: &Transition| match it.to {
        Phase::Closing => LONG,
        _ => Duration::ZERO,
    };
    let announcements = lifecycle.remote().announcements("slow", patience);
    lifecycle.shutdown("test");
    let slow = thread::spawn(move || {
        for announcement in announcements.iter() {
            // The walk is at Closing before the first is done.
            let phase = announcement.transition().to;
            if phase == Phase::LameDuck {
                thread::sleep(PATIENCE);
            }
            if phase == Phase::Closing {
                thread::sleep(PATIENCE);
                assert_eq!(lifecycle.phase(), Phase::Closing, "the walk waits");
            }
        }
    });
    slow.join().unwrap();
}

#[test]
fn announcers_are_waited_for_at_the_same_time() {
    let _bound = bound();
    let lifecycle = serving();
    let both = Arc::new(Barrier::new(2));
    for name in ["first", "second"] {
        let both = Arc::clone(&both);
        // Each ends only when the other has begun.
        let announcer = Announcer::new(name, move |_| {
            both.wait();
        });
        lifecycle.announce(announcer.patience(LONG)).unwrap();
    }
    let began = Instant::now();
    lifecycle.shutdown("test");
    lifecycle.wait();
    assert!(began.elapsed() < LONG);
}

#[test]
fn an_announcer_that_panics_is_told_of_the_next_phase() {
    let _bound = bound();
    let lifecycle = serving();
    let (sender, told) = unbounded();
    let panics = Announcer::new("panics", move |it| {
        sender.send(it.to).unwrap();
        std::panic::resume_unwind(Box::new("an announcer"));
    });
    lifecycle.announce(panics).unwrap();
    lifecycle.shutdown("test");
    lifecycle.wait();
    assert_eq!(told.iter().last(), Some(Phase::Stopped));
}

/// Answers a check at once, never, or later.
struct Part {
    name: &'static str,
    kept: Mutex<Vec<Check>>,
    answers: bool,
}

impl Part {
    fn enlist(lifecycle: &Lifecycle, name: &'static str, answers: bool) -> Arc<Part> {
        let part = Arc::new(Part {
            name,
            kept: Mutex::default(),
            answers,
        });
        lifecycle.enlist(part.clone()).unwrap();
        part
    }
}

impl Participant for Part {
    fn name(&self) -> String {
        self.name.to_owned()
    }
    fn running(&self) -> Vec<String> {
        Vec::new()
    }
    fn check(&self, check: Check) {
        match self.answers {
            true => check.passed(),
            false => self.kept.lock().unwrap().push(check),
        }
    }
}

#[test]
fn a_check_is_passed_when_everybody_has_answered() {
    let _bound = bound();
    let lifecycle = serving();
    Part::enlist(&lifecycle, "quick", true);
    let slow = Part::enlist(&lifecycle, "slow", false);
    thread::scope(|scope| {
        let checked = scope.spawn(|| lifecycle.check(LONG));
        eventually("it is asked", || !slow.kept.lock().unwrap().is_empty());
        slow.kept.lock().unwrap().drain(..).for_each(Check::passed);
        checked.join().unwrap().unwrap();
    });
}

#[test]
fn who_does_not_answer_a_check_is_named() {
    let _bound = bound();
    let lifecycle = serving();
    Part::enlist(&lifecycle, "quick", true);
    let silent = Part::enlist(&lifecycle, "silent", false);
    let error = lifecycle.check(Duration::from_millis(500)).unwrap_err();
    assert_eq!(error.missing, ["silent"]);
    assert!(error.to_string().ends_with("within 500ms: silent"));
    silent.kept.lock().unwrap().clear();
    // One that lets go of the question does not have to be waited for, and it alone is named: another one still had time.
    Part::enlist(&lifecycle, "slower", false);
    let began = Instant::now();
    thread::scope(|scope| {
        let checked = scope.spawn(|| lifecycle.check(LONG));
        eventually("it is asked", || !silent.kept.lock().unwrap().is_empty());
        silent.kept.lock().unwrap().clear();
        assert_eq!(checked.join().unwrap().unwrap_err().missing, ["silent"]);
    });
    assert!(began.elapsed() < LONG);
}

#[test]
fn participants_that_close_are_not_asked_for_a_check() {
    let _bound = bound();
    let plan = Plan::new().with_closing(LONG);
    let lifecycle = Lifecycle::builder().plan(plan).build().unwrap();
    let (release, released) = bounded::<()>(0);
    let hook = touchdown::lifecycle::Hook::new("waits", move || {
        let _ = released.recv();
        Ok(())
    });
    lifecycle.hook(hook).unwrap();
    lifecycle.ready().unwrap();
    Part::enlist(&lifecycle, "silent", false);
    lifecycle.shutdown("test");
    eventually("it closes", || lifecycle.phase() == Phase::Closing);
    lifecycle.check(LONG).unwrap();
    drop(release);
}

#[test]
fn a_remote_sees_the_program_and_is_no_handle() {
    let _bound = bound();
    let lifecycle = serving();
    let remote = lifecycle.remote();
    assert!(remote.is_ready() && !remote.hears_process() && !remote.is_candidate());
    let work = lifecycle.in_flight().enter_owned().unwrap();
    assert_eq!((remote.in_flight(), remote.progress().left), (1, 1));
    assert_eq!(remote.hard_deadline(), None);
    drop(lifecycle);
    remote.draining().wait();
    assert!(remote.hard_deadline().is_some() && !remote.is_ready());
    drop(work);
}

#[test]
fn what_hangs_on_a_lifecycle_may_panic_as_it_is_dropped() {
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    struct Other(#[allow(dead_code)] Bad);
    let _bound = bound();
    let lifecycle = serving();
    for bad in [Bad, Bad] {
        lifecycle.observe(move |_| {
            let _ = &bad;
        });
    }
    for bad in [Bad, Bad] {
        lifecycle.observe_reloads(move |_| {
            let _ = &bad;
        });
    }
    lifecycle
        .attach(Arc::new(Bad))
        .map_err(std::mem::forget)
        .unwrap();
    lifecycle
        .attach(Arc::new(Other(Bad)))
        .map_err(std::mem::forget)
        .unwrap();
    lifecycle.shutdown("test");
    assert_eq!(lifecycle.wait().exit_code(), 0);
}
