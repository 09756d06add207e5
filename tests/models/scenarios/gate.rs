//! The gate: enter, leave, close, wait.

use std::time::Duration;

use super::in_flight::{Gate, OwnedGuard};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use crate::sync::{thread, time, Arc, Instant};

const LIMIT: Duration = Duration::from_secs(5);

fn spawn<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    thread::spawn(run)
}

/// Nobody enters once `close` has returned, and a wait on the closed gate returns, and then nobody is
/// inside, ever.
pub fn a_closed_gate_empties_for_good() {
    let gate = Gate::new();
    let (closed, empty) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let entrants: Vec<_> = (0..3)
        .map(|_| {
            let (gate, closed, empty) = (gate.clone(), closed.clone(), empty.clone());
            spawn(move || {
                let was_closed = closed.load(SeqCst);
                if let Ok(guard) = gate.enter() {
                    assert!(!was_closed, "entered a closed gate");
                    assert!(!empty.load(SeqCst), "inside an empty gate");
                    drop(guard);
                }
            })
        })
        .collect();
    gate.close();
    closed.store(true, SeqCst);
    gate.wait_idle();
    empty.store(true, SeqCst);
    assert_eq!(gate.count(), 0, "somebody is inside an empty gate");
    for entrant in entrants {
        entrant.join().unwrap();
    }
    assert!(gate.is_closed() && gate.count() == 0);
}

/// Two wait; work that was split is waited for on whatever thread its last part ends.
pub fn all_who_wait_see_the_end_of_split_work() {
    let gate = Gate::new();
    let work = gate.enter_owned().unwrap();
    let done = Arc::new(AtomicUsize::new(0));
    let part = |guard: OwnedGuard| {
        let done = done.clone();
        spawn(move || {
            let inner = guard.split();
            drop(guard);
            done.fetch_add(1, SeqCst);
            drop(inner);
        })
    };
    let waiters = [false, true].map(|in_time| {
        let (gate, done) = (gate.clone(), done.clone());
        spawn(move || {
            if in_time {
                while !gate.wait_idle_timeout(LIMIT) {}
            } else {
                gate.wait_idle();
            }
            assert_eq!(done.load(SeqCst), 2, "the wait ended before the work");
        })
    });
    let parts = [part(work.split()), part(work)];
    gate.close();
    for thread in parts.into_iter().chain(waiters) {
        thread.join().unwrap();
    }
}

/// A wait with a deadline ends in time or with the gate empty, and says which.
pub fn a_wait_with_a_deadline_says_how_it_ended() {
    let gate = Gate::new();
    let guard = gate.enter_owned().unwrap();
    gate.close();
    let left = Arc::new(AtomicBool::new(false));
    let holder = spawn({
        let left = left.clone();
        move || {
            time::sleep(LIMIT);
            left.store(true, SeqCst);
            drop(guard);
        }
    });
    let deadline = Instant::now() + LIMIT;
    if gate.wait_idle_deadline(deadline) {
        assert!(left.load(SeqCst), "not empty");
    } else {
        assert!(Instant::now() >= deadline, "gave up too early");
    }
    holder.join().unwrap();
    assert!(gate.wait_idle_timeout(Duration::ZERO));
}

/// Who stays inside for ever does not keep a wait from ending at its deadline.
pub fn a_deadline_ends_the_wait_for_one_who_stays() {
    time::be_patient();
    let gate = Gate::new();
    let guard = gate.enter().unwrap();
    let other = gate.enter_owned().unwrap();
    // Leaves, but is not the last.
    let other = spawn(move || drop(other));
    let start = Instant::now();
    assert!(!gate.wait_idle_timeout(LIMIT));
    assert_eq!(start.elapsed(), LIMIT);
    other.join().unwrap();
    drop(guard);
}

/// An interrupted wait looks at its reason to give up.
pub fn an_interrupt_is_not_missed() {
    let gate = Gate::new();
    let guard = gate.enter().unwrap();
    let give_up = Arc::new(AtomicBool::new(false));
    let waiters = [0, 1].map(|_| {
        let (gate, give_up) = (gate.clone(), give_up.clone());
        spawn(move || gate.wait_idle_unless(None, || give_up.load(SeqCst)))
    });
    give_up.store(true, SeqCst);
    gate.interrupt();
    for waiter in waiters {
        assert!(!waiter.join().unwrap(), "somebody is inside");
    }
    drop(guard);
}

/// Who waits for an open gate learns of a moment in which it was empty, even if somebody enters right
/// after it.
pub fn a_moment_of_emptiness_is_not_missed() {
    let gate = Gate::new();
    let first = gate.enter_owned().unwrap();
    let (waiting, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let waiter = spawn({
        let (gate, waiting, over) = (gate.clone(), waiting.clone(), over.clone());
        move || {
            let was_empty = gate.wait_idle_unless(None, || {
                // The wait has begun.
                waiting.store(true, SeqCst);
                over.load(SeqCst)
            });
            assert!(was_empty, "a moment of emptiness was missed");
        }
    });
    while !waiting.load(SeqCst) {
        thread::yield_now();
    }
    drop(first);
    let next = gate.enter().unwrap();
    // Long after.
    over.store(true, SeqCst);
    gate.interrupt();
    waiter.join().unwrap();
    drop(next);
}
