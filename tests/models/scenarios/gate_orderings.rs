//! The gate's orderings: what one thread did before, another sees after. A cell that is read without that
//! certainty is a data race, which loom reports.

use loom::cell::UnsafeCell;
use loom::thread;

use super::in_flight::Gate;
use crate::loom_sync::Arc;

type Cell = Arc<UnsafeCell<u32>>;

fn write(cell: &Cell) {
    // SAFETY: loom checks that nobody else uses it meanwhile.
    cell.with_mut(|value| unsafe { *value += 1 });
}

fn read(cell: &Cell) -> u32 {
    // SAFETY: loom checks that nobody writes it meanwhile.
    cell.with(|value| unsafe { *value })
}

fn cell() -> Cell {
    Arc::new(UnsafeCell::new(0))
}

/// Who waited for the closed gate sees what was done inside.
pub fn who_waited_sees_what_was_done_inside() {
    let gate = Gate::new();
    let entrants = [0, 1].map(|_| {
        let (gate, cell) = (gate.clone(), cell());
        let seen = cell.clone();
        let thread = thread::spawn(move || {
            if let Ok(_guard) = gate.enter() {
                write(&cell);
            }
        });
        (thread, seen)
    });
    gate.close();
    gate.wait_idle();
    for (_, cell) in &entrants {
        read(cell);
    }
    for (thread, _) in entrants {
        thread.join().unwrap();
    }
}

/// Who sees a count of zero sees what was done inside, without a wait.
pub fn who_counts_none_sees_what_was_done_inside() {
    let gate = Gate::new();
    let guard = gate.enter_owned().unwrap();
    let cell = cell();
    let holder = thread::spawn({
        let cell = cell.clone();
        move || {
            write(&cell);
            drop(guard);
        }
    });
    if gate.count() == 0 {
        assert_eq!(read(&cell), 1);
    }
    holder.join().unwrap();
}

/// Who is refused sees what was done before the gate was closed.
pub fn who_is_refused_sees_what_was_done_before_the_close() {
    let gate = Gate::new();
    let cell = cell();
    let entrant = thread::spawn({
        let (gate, cell) = (gate.clone(), cell.clone());
        move || {
            let refused = gate.enter().is_err();
            if refused || gate.is_closed() {
                assert_eq!(read(&cell), 1);
            }
        }
    });
    write(&cell);
    gate.close();
    entrant.join().unwrap();
}

/// Two wait for two to leave, and all wakes arrive.
pub fn no_wake_is_lost() {
    let gate = Gate::new();
    let guard = gate.enter_owned().unwrap();
    let waiter = thread::spawn({
        let gate = gate.clone();
        move || gate.wait_idle()
    });
    let holder = thread::spawn(move || {
        let part = guard.split();
        drop(guard);
        drop(part);
    });
    gate.wait_idle();
    waiter.join().unwrap();
    holder.join().unwrap();
}
