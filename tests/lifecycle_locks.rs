//! What is the program's own is never dropped, called or formatted while the lifecycle holds a lock: it may ask the
//! lifecycle anything, and neither deadlocks nor ends the walk.

mod lifecycle_support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use lifecycle_support::{allow_threads, bound, eventually, is_child, say, serving, Process};
use touchdown::lifecycle::{
    exit_code, Announcer, Hook, HookError, Lifecycle, Outcome, OwnedGuard, Participant, Plan,
    Remote, SpawnError, StartupHook, Worker,
};

/// Asks the lifecycle about everything when it is dropped, and counts that.
struct Asks {
    remote: Remote,
    dropped: Arc<AtomicUsize>,
}

impl Asks {
    fn of(lifecycle: &Lifecycle) -> (Asks, Arc<AtomicUsize>) {
        let dropped = Arc::new(AtomicUsize::new(0));
        let asks = Asks {
            remote: lifecycle.remote(),
            dropped: Arc::clone(&dropped),
        };
        (asks, dropped)
    }
}

impl Drop for Asks {
    fn drop(&mut self) {
        self.remote.describe();
        self.remote.progress();
        self.remote.startup_limit();
        self.remote.reason();
        self.remote.observe(|_| ());
        self.remote.observe_reloads(|_| ());
        self.remote.attached::<Asks>();
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

fn hook(name: &str, asks: Asks) -> Hook {
    Hook::new(name, move || {
        drop(asks);
        Ok(())
    })
}

#[test]
fn a_hook_that_is_refused_may_ask_the_lifecycle_as_it_is_dropped() {
    let _bound = bound();
    let lifecycle = serving();
    let (asks, dropped) = Asks::of(&lifecycle);
    lifecycle.hook(Hook::new("journal", || Ok(()))).unwrap();
    let error = lifecycle.hook(hook("journal", asks)).unwrap_err();
    assert_eq!(error, HookError::Duplicate("journal".to_owned()));
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    let (asks, dropped) = Asks::of(&lifecycle);
    let error = lifecycle.hook(hook("late", asks).after("nobody"));
    assert!(matches!(error, Err(HookError::Unknown { .. })));
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    lifecycle.shutdown("test");
    let (asks, dropped) = Asks::of(&lifecycle);
    let error = lifecycle.hook(hook("too late", asks)).unwrap_err();
    assert_eq!(error, HookError::Stopping("too late".to_owned()));
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    lifecycle.wait();
}

/// A participant that asks the lifecycle in everything that it does.
struct Nosy {
    asks: Asks,
    _guard: OwnedGuard,
}

impl Nosy {
    fn ask(&self) {
        ask_quietly(&self.asks.remote);
    }
}

/// Without asking the participants, which would go round for ever.
fn ask_quietly(remote: &Remote) {
    remote.reason();
    remote.startup_limit();
    remote.observe(|_| ());
}

impl Participant for Nosy {
    fn name(&self) -> String {
        self.ask();
        "nosy".to_owned()
    }
    fn drain(&self) {
        self.ask();
    }
    fn cancel(&self) {
        self.ask();
    }
    fn close(&self, _: Instant) {
        self.ask();
    }
    fn running(&self) -> Vec<String> {
        self.ask();
        Vec::new()
    }
    fn in_flight(&self) -> Option<usize> {
        self.ask();
        None
    }
}

#[test]
fn everything_of_the_program_may_ask_the_lifecycle_to_its_end() {
    let _bound = bound();
    let slot = Arc::new(OnceLock::<Remote>::new());
    let ask = {
        let slot = Arc::clone(&slot);
        move || {
            if let Some(remote) = slot.get() {
                ask_quietly(remote);
            }
        }
    };
    let (starts, undoes, reloads) = (ask.clone(), ask.clone(), ask.clone());
    let start = StartupHook::new("start", move || {
        starts();
        Ok(())
    });
    let start = start.undo(move || {
        undoes();
        Ok(())
    });
    let plan = Plan::new()
        .with_grace_period(Duration::from_millis(10))
        .with_force_period(Duration::from_millis(10));
    let lifecycle = Lifecycle::builder()
        .plan(plan)
        .startup(start)
        .on_reload("reload", move || {
            reloads();
            Ok(())
        })
        .observe(move |_| ask())
        .build()
        .unwrap();
    slot.set(lifecycle.remote()).ok().unwrap();
    let mut all = Vec::new();
    let mut asks = || {
        let (asks, dropped) = Asks::of(&lifecycle);
        all.push(dropped);
        asks
    };
    let nosy = Nosy {
        asks: asks(),
        _guard: lifecycle.in_flight().enter_owned().unwrap(),
    };
    lifecycle.enlist(Arc::new(nosy)).unwrap();
    let (observer, reload_observer, announcer) = (asks(), asks(), asks());
    lifecycle.observe(move |_| {
        let _ = &observer;
    });
    lifecycle.observe_reloads(move |_| {
        let _ = &reload_observer;
    });
    let announcer = Announcer::new("asks", move |_| {
        let _ = &announcer;
    });
    lifecycle.announce(announcer).unwrap();
    lifecycle.attach(Arc::new(asks())).ok().unwrap();
    lifecycle.hook(hook("asks", asks())).unwrap();
    let worker = asks();
    let worker = Worker::new("asks", move |token| {
        token.wait();
        let _ = &worker;
    });
    lifecycle.workers("group").spawn(worker).unwrap();
    lifecycle.ready().unwrap();
    lifecycle.reload();
    lifecycle.shutdown("test");
    let report = lifecycle.wait();
    assert_eq!(report.exit_code(), exit_code::FORCED, "{report}");
    for dropped in all {
        eventually("it is let go", || dropped.load(Ordering::SeqCst) == 1);
    }
}

/// Panics when it is dropped, by the one who drops it last.
struct PanicsAtItsEnd(Arc<AtomicBool>);

impl Drop for PanicsAtItsEnd {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
        std::panic::resume_unwind(Box::new("at its end"));
    }
}

impl Participant for PanicsAtItsEnd {
    fn name(&self) -> String {
        "panics".to_owned()
    }
    fn running(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Has another participant dismissed while it is told to drain, so that the walk is the last to hold it.
struct Dismisses {
    lifecycle: Lifecycle,
    other: Mutex<Option<Arc<dyn Participant>>>,
}

impl Participant for Dismisses {
    fn name(&self) -> String {
        "dismisses".to_owned()
    }
    fn running(&self) -> Vec<String> {
        Vec::new()
    }
    fn drain(&self) {
        if let Some(other) = self.other.lock().unwrap().take() {
            self.lifecycle.dismiss(&other);
        }
    }
}

#[test]
fn a_participant_that_panics_as_the_walk_lets_go_of_it_does_not_end_the_walk() {
    let _bound = bound();
    let lifecycle = serving();
    let has_ended = Arc::new(AtomicBool::new(false));
    let panics: Arc<dyn Participant> = Arc::new(PanicsAtItsEnd(Arc::clone(&has_ended)));
    let dismisses = Dismisses {
        lifecycle: lifecycle.clone(),
        other: Mutex::new(Some(Arc::clone(&panics))),
    };
    lifecycle.enlist(Arc::new(dismisses)).unwrap();
    lifecycle.enlist(panics).unwrap();
    lifecycle.shutdown("test");
    assert_eq!(lifecycle.wait().exit_code(), exit_code::CLEAN);
    assert!(has_ended.load(Ordering::SeqCst));
}

#[test]
fn a_worker_that_there_is_no_thread_for_may_ask_the_lifecycle_as_it_is_dropped() {
    let _bound = bound();
    if is_child() {
        let lifecycle = serving();
        let (asks, dropped) = Asks::of(&lifecycle);
        let worker = Worker::new("asks", move |_| {
            let _ = &asks;
        });
        allow_threads(false);
        let error = lifecycle.workers("group").spawn(worker).unwrap_err();
        assert!(matches!(error, SpawnError::Thread(_)));
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
        allow_threads(true);
        return say("refused");
    }
    let test = "a_worker_that_there_is_no_thread_for_may_ask_the_lifecycle_as_it_is_dropped";
    let mut child = Process::start(test);
    child.hear("refused");
    child.end();
}

#[test]
fn a_worker_that_there_is_no_thread_for_has_not_failed_though_a_stop_begins_meanwhile() {
    let _bound = bound();
    if is_child() {
        for _ in 0..20 {
            allow_threads(true);
            let lifecycle = serving();
            let workers = lifecycle.workers("group");
            let began = Arc::new(AtomicBool::new(false));
            let spawner = thread::spawn({
                let began = Arc::clone(&began);
                move || loop {
                    match workers.spawn(Worker::new("never", |_| ())) {
                        Ok(()) => workers.join(),
                        Err(SpawnError::Thread(_)) => began.store(true, Ordering::SeqCst),
                        Err(_) => return,
                    }
                }
            });
            allow_threads(false);
            eventually("there is no thread", || began.load(Ordering::SeqCst));
            lifecycle.shutdown("test");
            let report = lifecycle.wait();
            spawner.join().unwrap();
            let ended = report.hooks.iter().map(|it| &it.outcome);
            assert!(ended.clone().all(|it| *it == Outcome::Done), "{report}");
            assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
        }
        return say("all clean");
    }
    let test = "a_worker_that_there_is_no_thread_for_has_not_failed_though_a_stop_begins_meanwhile";
    let mut child = Process::start(test);
    child.hear("all clean");
    child.end();
}
