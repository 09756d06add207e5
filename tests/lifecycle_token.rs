//! The tree of tokens: who is told, who is not, and what it costs.

mod lifecycle_support;

use std::fs;
use std::process;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{select, unbounded};
use lifecycle_support::{bound, is_child, rounds, Process};
use touchdown::lifecycle::Canceller;

#[test]
fn cancelling_reaches_the_descendants_and_nobody_else() {
    let root = Canceller::new();
    let (left, right) = (root.child(), root.child());
    let (below_left, below_right) = (left.child(), right.child());
    left.cancel();
    assert!(left.is_cancelled() && below_left.is_cancelled());
    assert!(!root.is_cancelled() && !right.is_cancelled() && !below_right.is_cancelled());
    root.cancel();
    assert!(root.is_cancelled() && right.is_cancelled() && below_right.is_cancelled());
}

#[test]
fn a_clone_is_the_same_token() {
    let token = Canceller::new();
    let same = token.clone();
    drop(token.clone());
    assert!(!token.is_cancelled());
    same.cancel();
    assert!(token.is_cancelled());
}

#[test]
fn the_child_of_a_cancelled_token_is_cancelled() {
    let token = Canceller::new();
    token.cancel();
    token.cancel();
    let child = token.child();
    assert!(child.is_cancelled() && child.child().is_cancelled());
    child.wait();
}

#[test]
fn a_grandchild_is_reached_although_the_handles_between_are_gone() {
    let root = Canceller::new();
    let grandchild = root.child().child();
    assert!(!grandchild.is_cancelled());
    root.cancel();
    assert!(grandchild.is_cancelled());
}

#[test]
fn a_child_lives_on_without_its_parent() {
    let child = Canceller::new().child();
    assert!(!child.is_cancelled());
    child.cancel();
    assert!(child.is_cancelled());
}

#[test]
fn all_who_wait_are_woken() {
    let _bound = bound();
    let root = Canceller::new();
    let child = root.child();
    let start = Barrier::new(9);
    thread::scope(|scope| {
        for place in 0..8 {
            let (token, start) = (if place % 2 == 0 { &root } else { &child }, &start);
            scope.spawn(move || {
                start.wait();
                match place {
                    0..3 => token.wait(),
                    3..6 => assert!(token.wait_timeout(Duration::MAX)),
                    _ => assert!(token.receiver().recv().is_err()),
                }
            });
        }
        start.wait();
        root.cancel();
    });
}

#[test]
fn a_wait_ends_with_its_time() {
    let token = Canceller::new();
    assert!(!token.wait_timeout(Duration::from_millis(1)));
    assert!(!token.wait_deadline(Instant::now()));
    token.cancel();
    assert!(token.wait_timeout(Duration::ZERO));
    assert!(token.wait_deadline(Instant::now()));
}

#[test]
fn it_can_be_waited_for_beside_other_channels() {
    let _bound = bound();
    let (sender, jobs) = unbounded();
    let token = Canceller::new();
    sender.send(1).unwrap();
    select! {
        recv(jobs) -> job => assert_eq!(job, Ok(1)),
        recv(token.receiver()) -> _ => panic!("not cancelled yet"),
    }
    thread::scope(|scope| {
        scope.spawn(|| token.cancel());
        select! {
            recv(jobs) -> job => panic!("no job was sent: {job:?}"),
            recv(token.receiver()) -> nothing => assert!(nothing.is_err()),
        }
    });
}

#[test]
fn children_made_while_the_parent_is_cancelled_are_cancelled() {
    let _bound = bound();
    for _ in 0..rounds(300) {
        let root = Canceller::new();
        let start = Barrier::new(4);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    start.wait();
                    loop {
                        let grandchild = root.child().child();
                        if root.is_cancelled() {
                            // Made before or after: either way this must not block.
                            grandchild.wait();
                            break;
                        }
                    }
                });
            }
            start.wait();
            root.cancel();
        });
    }
}

#[test]
fn a_chain_deeper_than_the_stack_can_be_cancelled_and_dropped() {
    let chain = || {
        let root = Canceller::new();
        let mut all = vec![root.clone()];
        for depth in 0..rounds(100_000) {
            all.push(all[depth].child());
        }
        (root, all)
    };
    let (root, all) = chain();
    root.cancel();
    assert!(all.iter().all(|leaf| leaf.is_cancelled()));

    // The last handle, on the end of the chain, takes all of it along.
    let (root, mut all) = chain();
    let end = all.pop().unwrap();
    drop((root, all));
    assert!(!end.is_cancelled());
    drop(end);

    let (root, mut all) = chain();
    let end = all.pop().unwrap();
    drop(all);
    root.cancel();
    assert!(end.is_cancelled());
    drop((root, end));
}

/// In a process of its own, since the other tests of this one take memory meanwhile.
#[test]
#[cfg_attr(miri, ignore = "starts a process")]
fn children_that_come_and_go_take_no_memory() {
    if is_child() {
        let resident = || -> usize {
            let statm = fs::read_to_string("/proc/self/statm").unwrap();
            statm.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let parent = Canceller::new();
        let come_and_go = || {
            for _ in 0..100_000 {
                let child = parent.child();
                assert!(!child.child().is_cancelled());
            }
        };
        come_and_go();
        let before = resident();
        (0..5).for_each(|_| come_and_go());
        // Half a million children; if each left but one word, this would be four million bytes.
        let grown = resident().saturating_sub(before) * 4096;
        assert!(grown < 1 << 20, "grown by {grown} bytes");
        process::exit(0);
    }
    let end = Process::start("children_that_come_and_go_take_no_memory").end();
    assert_eq!(end.code, Some(0), "{end:?}");
}
