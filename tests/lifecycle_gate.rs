//! The in-flight gate, alone and under stress.

mod lifecycle_support;

use std::panic;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use lifecycle_support::{bound, eventually, rounds};
use touchdown::lifecycle::{Closed, Gate, OwnedGuard};

#[test]
fn it_counts_who_is_inside() {
    let gate = Gate::new();
    assert_eq!(gate.count(), 0);
    let one = gate.enter().unwrap();
    let other = gate.clone().enter_owned().unwrap();
    assert_eq!(gate.count(), 2);
    drop(one);
    drop(other);
    assert_eq!(gate.count(), 0);
}

#[test]
fn once_closed_nobody_enters() {
    let gate = Gate::new();
    let inside = gate.enter().unwrap();
    gate.close();
    gate.close();
    assert!(gate.is_closed());
    assert_eq!(gate.enter().unwrap_err(), Closed);
    assert_eq!(gate.enter_owned().unwrap_err(), Closed);
    assert_eq!(gate.count(), 1);
    drop(inside);
    assert_eq!(gate.count(), 0);
}

#[test]
fn a_guard_splits_even_when_the_gate_is_closed() {
    let gate = Gate::new();
    let (one, owned) = (gate.enter().unwrap(), gate.enter_owned().unwrap());
    gate.close();
    let (part, owned_part) = (one.split(), owned.split());
    drop((one, owned));
    assert_eq!(gate.count(), 2);
    drop((part, owned_part));
    assert_eq!(gate.count(), 0);
}

#[test]
fn an_owned_guard_outlives_the_gate_on_any_thread() {
    fn is_free<T: Send + Sync + 'static>(_: &T) {}
    let guard = Gate::new().enter_owned().unwrap();
    is_free::<OwnedGuard>(&guard);
    thread::spawn(move || drop(guard)).join().unwrap();
}

#[test]
fn waiting_for_an_empty_gate_returns_at_once() {
    let gate = Gate::new();
    gate.wait_idle();
    assert!(gate.wait_idle_timeout(Duration::ZERO));
    assert!(gate.wait_idle_deadline(Instant::now()));
}

#[test]
fn a_wait_ends_with_its_time_while_somebody_is_inside() {
    let gate = Gate::new();
    let guard = gate.enter().unwrap();
    assert!(!gate.wait_idle_timeout(Duration::from_millis(5)));
    assert!(!gate.wait_idle_deadline(Instant::now()));
    drop(guard);
    assert!(gate.wait_idle_timeout(Duration::MAX));
}

#[test]
fn a_panic_leaves_the_gate() {
    let _bound = bound();
    let gate = Gate::new();
    let panicked = thread::scope(|scope| {
        scope
            .spawn(|| {
                let _guard = gate.enter().unwrap();
                panic!("inside the gate");
            })
            .join()
    });
    assert!(panicked.is_err());
    gate.wait_idle();
}

#[test]
fn the_wait_is_over_when_the_last_leaves_and_not_before() {
    let _bound = bound();
    let gate = Gate::new();
    let (first, last) = (gate.enter().unwrap(), gate.enter().unwrap());
    gate.close();
    let idle = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            gate.wait_idle();
            idle.store(true, Ordering::SeqCst);
        });
        drop(first);
        thread::sleep(Duration::from_millis(50));
        assert!(!idle.load(Ordering::SeqCst));
        drop(last);
        eventually("the wait is over", || idle.load(Ordering::SeqCst));
    });
}

#[test]
fn an_open_gate_that_was_empty_for_a_moment_lets_its_waiters_go() {
    let _bound = bound();
    let gate = Gate::new();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                drop(gate.enter().unwrap());
                let _next = gate.enter().unwrap();
                thread::yield_now();
            }
        });
        for _ in 0..200 {
            gate.wait_idle();
        }
        stop.store(true, Ordering::SeqCst);
        worker.join().unwrap();
    });
}

/// Many threads enter and leave while the gate is closed and waited for by many: when a wait is
/// over nobody is inside, and nobody comes in any more.
#[test]
fn idle_is_final_under_stress() {
    const WORKERS: usize = 6;
    const WAITERS: usize = 3;
    let _bound = bound();
    for round in 0..rounds(300) {
        let gate = Gate::new();
        let inside = AtomicUsize::new(0);
        let start = Barrier::new(WORKERS + WAITERS + 1);
        thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    start.wait();
                    while let Ok(guard) = gate.enter() {
                        inside.fetch_add(1, Ordering::Relaxed);
                        let part = guard.split();
                        drop(guard);
                        inside.fetch_sub(1, Ordering::Relaxed);
                        drop(part);
                    }
                });
            }
            for waiter in 0..WAITERS {
                let (gate, inside, start) = (&gate, &inside, &start);
                scope.spawn(move || {
                    start.wait();
                    while !gate.is_closed() {
                        // Comes and goes, so that leavers meet waiters in every state.
                        gate.wait_idle_timeout(Duration::from_micros(waiter as u64 * 10));
                    }
                    gate.wait_idle();
                    // Relaxed suffices: leaving and waiting order what was done inside.
                    assert_eq!(inside.load(Ordering::Relaxed), 0);
                    assert_eq!(gate.count(), 0);
                });
            }
            start.wait();
            if round % 2 == 0 {
                thread::yield_now();
            }
            gate.close();
        });
        assert_eq!(gate.count(), 0);
    }
}

#[test]
fn guards_dropped_in_panics_under_stress_all_leave() {
    let _bound = bound();
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let gate = Gate::new();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..rounds(2000) {
                    let _ = panic::catch_unwind(panic::AssertUnwindSafe(|| {
                        let guard = gate.enter().unwrap();
                        let _part = guard.split();
                        panic!("inside");
                    }));
                }
            });
        }
    });
    panic::set_hook(hook);
    assert_eq!(gate.count(), 0);
}
