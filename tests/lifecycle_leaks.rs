//! A lifecycle that is over leaves nothing behind: no thread, no file descriptor, no memory.
//!
//! In a file of its own, since it counts what the whole process has.

mod lifecycle_support;

use std::fs;
use std::sync::{Arc, Mutex};

use lifecycle_support::{bound, eventually, Part};
use touchdown::lifecycle::{Hook, Lifecycle, Signals, StartupHook, Token, Worker};

const LIFECYCLES: usize = 1000;

/// The tests here count what the whole process has, so one runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn entries(folder: &str) -> usize {
    fs::read_dir(folder).unwrap().count()
}

/// One life, from start to stop, with everything that one can have.
fn live(number: usize, witness: &Arc<()>) {
    let (signals, sender) = match number % 3 {
        0 => (Signals::none(), None),
        1 => (Signals::process(), None),
        _ => {
            let (signals, sender) = Signals::injected();
            (signals, Some(sender))
        }
    };
    let (in_hook, in_observer) = (Arc::clone(witness), Arc::clone(witness));
    let (in_start, in_undo, in_reload) = (witness.clone(), witness.clone(), witness.clone());
    let lifecycle = Lifecycle::builder()
        .signals(signals)
        .hook(Hook::new("hook", move || {
            drop(in_hook);
            Ok(())
        }))
        .startup(
            StartupHook::new("start", move || {
                drop(in_start);
                Ok(())
            })
            .undo(move || {
                drop(in_undo);
                Ok(())
            }),
        )
        .on_reload("reload", move || {
            let _ = &in_reload;
            Ok(())
        })
        .build()
        .unwrap();
    // Holds a handle on its own lifecycle, as observers may.
    lifecycle.observe({
        let lifecycle = lifecycle.clone();
        move |_| drop((lifecycle.phase(), Arc::clone(&in_observer)))
    });
    let part = Part::new();
    *part.lifecycle.lock().unwrap() = Some(lifecycle.clone());
    lifecycle.enlist(part).unwrap();
    let in_worker = (lifecycle.workers("workers"), Arc::clone(witness));
    let worker = Worker::new("worker", move |token: &Token| {
        let (_group, _witness) = &in_worker;
        token.wait();
    });
    lifecycle.workers("workers").spawn(worker).unwrap();
    let transitions = lifecycle.subscribe();
    if number % 2 == 0 {
        lifecycle.ready().unwrap();
    }
    lifecycle.reload();
    match sender {
        Some(sender) => sender.send(15),
        None => lifecycle.shutdown("test"),
    }
    lifecycle.wait();
    assert!(transitions.iter().count() > 0);
}

#[test]
fn a_thousand_lifecycles_leave_nothing_behind() {
    let _alone = ALONE.lock();
    let _bound = bound();
    let witness = Arc::new(());
    // The first of each kind makes what lasts as long as the process: signal handlers, caches.
    (0..6).for_each(|number| live(number, &witness));
    eventually("the first are gone", || Arc::strong_count(&witness) == 1);
    let settle = || (entries("/proc/self/task"), entries("/proc/self/fd"));
    eventually("threads have ended", || settle().0 <= 3);
    let (threads, descriptors) = settle();
    (0..LIFECYCLES).for_each(|number| live(number, &witness));
    eventually("everything is dropped", || Arc::strong_count(&witness) == 1);
    eventually("threads have ended", || settle().0 <= threads);
    eventually("descriptors are closed", || settle().1 <= descriptors);
}

#[test]
#[ignore = "takes half a minute; measures memory"]
fn ten_thousand_lifecycles_take_no_memory() {
    let _alone = ALONE.lock();
    let witness = Arc::new(());
    let resident = || -> usize {
        let statm = fs::read_to_string("/proc/self/statm").unwrap();
        statm.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (0..1000).for_each(|number| live(number, &witness));
    let before = resident();
    (0..10_000).for_each(|number| live(number, &witness));
    let grown = resident().saturating_sub(before) * 4096;
    println!("grown by {grown} bytes");
    assert!(grown < 2 << 20, "grown by {grown} bytes");
}
