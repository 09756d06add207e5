//! The tree of tokens: cancel, children made meanwhile, drop, wait.

use std::time::Duration;

use super::shutdown::Canceller;
use crate::sync::{thread, time, Instant};

const LIMIT: Duration = Duration::from_secs(5);

fn spawn<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    thread::spawn(run)
}

/// A child made while its parent is cancelled is cancelled in the end, and so are its own.
pub fn a_child_made_meanwhile_is_cancelled() {
    let root = Canceller::new();
    let makers = [0, 1].map(|_| {
        let root = root.clone();
        spawn(move || {
            let child = root.child();
            let grandchild = child.child();
            (child, grandchild)
        })
    });
    root.cancel();
    for maker in makers {
        let (child, grandchild) = maker.join().unwrap();
        assert!(child.is_cancelled(), "the child is not cancelled");
        assert!(grandchild.is_cancelled(), "the grandchild is not cancelled");
    }
}

/// When the first `cancel` returns, what descended from the token when it was called is cancelled.
pub fn the_first_cancel_reaches_all_descendants() {
    let root = Canceller::new();
    let child = root.child();
    let leaves = [child.child(), child.child(), root.child()];
    let others = [root.clone(), child.clone()].map(|token| spawn(move || token.cancel()));
    let dropper = spawn(move || drop(child));
    root.cancel();
    for other in others {
        other.join().unwrap();
    }
    assert!(leaves.iter().all(|leaf| leaf.is_cancelled()), "a leaf is left");
    dropper.join().unwrap();
}

/// A thread that waits is woken, whether the wait began before the cancellation or after it.
pub fn who_waits_is_woken() {
    let root = Canceller::new();
    let child = root.child();
    let waiters = [child.clone(), child, root.clone()].map(|token| {
        spawn(move || {
            token.wait();
            assert!(token.is_cancelled(), "woken for nothing");
        })
    });
    root.cancel();
    for waiter in waiters {
        waiter.join().unwrap();
    }
}

/// The channel of a token ends when the token is cancelled.
pub fn a_receiver_ends() {
    let token = Canceller::new();
    let waiters = [token.clone(), token.child()].map(|token| {
        spawn(move || {
            let receiver = token.receiver().clone();
            drop(token);
            assert!(receiver.recv().is_err());
        })
    });
    token.cancel();
    for waiter in waiters {
        waiter.join().unwrap();
    }
}

/// A grandchild is reached although the handles on its parent are dropped meanwhile.
pub fn a_grandchild_is_reached_through_dropped_parents() {
    let root = Canceller::new();
    let parent = root.child();
    let (leaf, sibling) = (parent.child(), parent.child());
    let waiter = spawn(move || leaf.wait());
    let droppers = [
        spawn(move || drop(parent)),
        spawn(move || drop(sibling)),
    ];
    root.cancel();
    waiter.join().unwrap();
    for dropper in droppers {
        dropper.join().unwrap();
    }
}

/// Chains that share an ancestor are dropped from their ends at once, while the ancestor is cancelled and
/// gets another child. What is left works.
pub fn nodes_are_dropped_meanwhile() {
    let root = Canceller::new();
    let parent = root.child();
    let chains = [parent.child().child(), parent.child().child(), parent];
    let droppers = chains.map(|end| spawn(move || drop(end)));
    let maker = spawn({
        let root = root.clone();
        move || root.child()
    });
    root.cancel();
    for dropper in droppers {
        dropper.join().unwrap();
    }
    assert!(maker.join().unwrap().is_cancelled());
    assert!(root.child().is_cancelled());
}

/// A wait with a limit ends in time, or cancelled, and says which.
pub fn a_timed_wait_says_how_it_ended() {
    let root = Canceller::new();
    let child = root.child();
    let waiters = [false, true].map(|by_deadline| {
        let child = child.clone();
        spawn(move || {
            let start = Instant::now();
            let was_cancelled = if by_deadline {
                child.wait_deadline(start + LIMIT)
            } else {
                child.wait_timeout(LIMIT)
            };
            if was_cancelled {
                assert!(child.is_cancelled(), "not cancelled");
            } else {
                assert!(start.elapsed() >= LIMIT, "gave up too early");
            }
        })
    });
    time::sleep(LIMIT);
    root.cancel();
    for waiter in waiters {
        waiter.join().unwrap();
    }
    assert!(child.wait_timeout(Duration::ZERO));
}

/// A cancellation in time ends a timed wait at once.
pub fn a_timed_wait_ends_with_the_cancellation() {
    time::be_patient();
    let token = Canceller::new();
    let waiters = [token.child(), token.clone()].map(|token| {
        spawn(move || {
            let start = Instant::now();
            assert!(token.wait_timeout(LIMIT), "it was cancelled in time");
            assert!(start.elapsed() < LIMIT, "it was woken by the time");
        })
    });
    token.cancel();
    for waiter in waiters {
        waiter.join().unwrap();
    }
}
