//! The process exits at its hard deadline though the memory allocator hangs for every thread, as it does while a thread
//! that has been stopped, or that has found it broken, holds its lock.

mod lifecycle_support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lifecycle_support::{bound, is_child, role, say, End, Process};
use touchdown::lifecycle::{exit_code, Lifecycle, Phase, Plan, Signals};

/// The system's, until it hangs.
struct Allocator;

static HANGS: AtomicBool = AtomicBool::new(false);

fn wait_while_it_hangs() {
    while HANGS.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_secs(1));
    }
}

// SAFETY: it is the system's allocator, which is only made to wait.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        wait_while_it_hangs();
        // SAFETY: what holds for the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        wait_while_it_hangs();
        // SAFETY: what holds for the caller.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

const SHORT: Plan = Plan::new()
    .with_grace_period(Duration::from_millis(20))
    .with_force_period(Duration::from_millis(20))
    .with_closing(Duration::from_millis(60))
    .with_hard_deadline(Duration::from_millis(200));

/// Ends the child that does not end, since it may be that of a test that has failed.
fn end_by_alarm() {
    // SAFETY: a system call without memory.
    unsafe { libc::alarm(60) };
}

/// From now on nobody gets memory. A signal that comes before would find a program that can stop.
fn hang_and_say_so() -> ! {
    // Takes the memory that a line needs.
    say("about to hang");
    HANGS.store(true, Ordering::Relaxed);
    say("hangs");
    wait_for_ever();
}

fn wait_for_ever() -> ! {
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}

fn assert_exits_at_the_deadline(end: &End) {
    assert_eq!(end.code, Some(exit_code::HARD_DEADLINE.into()), "{end:?}");
}

#[test]
fn a_signal_leads_to_the_exit_though_no_thread_gets_memory() {
    let _bound = bound();
    if is_child() {
        end_by_alarm();
        let lifecycle = Lifecycle::builder()
            .plan(SHORT)
            .signals(Signals::process())
            .on_reload("config", || Ok(()))
            .build()
            .unwrap();
        lifecycle.ready().unwrap();
        // A thread takes memory as it starts.
        lifecycle.check(Duration::from_secs(50)).unwrap();
        hang_and_say_so();
    }
    for before in [None, Some("HUP"), Some("USR1")] {
        let test = "a_signal_leads_to_the_exit_though_no_thread_gets_memory";
        let mut child = Process::start(test);
        child.hear("hangs");
        // One that needs memory is in nobody's way.
        if let Some(before) = before {
            child.signal(before);
        }
        assert_exits_at_the_deadline(&child.insist_until_the_end("TERM"));
    }
}

#[test]
fn memory_that_runs_dry_in_a_stop_does_not_hold_up_the_exit() {
    let _bound = bound();
    let phases = [Phase::LameDuck, Phase::Draining, Phase::Closing];
    if let Some(role) = role() {
        end_by_alarm();
        let builder = Lifecycle::builder().plan(SHORT);
        let lifecycle = builder.signals(Signals::process()).build().unwrap();
        lifecycle.observe(move |transition| {
            if transition.to.as_str() == role {
                HANGS.store(true, Ordering::Relaxed);
            }
        });
        lifecycle.ready().unwrap();
        lifecycle.check(Duration::from_secs(50)).unwrap();
        lifecycle.shutdown("test");
        wait_for_ever();
    }
    for phase in phases {
        let test = "memory_that_runs_dry_in_a_stop_does_not_hold_up_the_exit";
        assert_exits_at_the_deadline(&Process::start_as(phase.as_str(), test).end());
    }
}

#[test]
fn a_third_signal_exits_though_no_thread_gets_memory() {
    let _bound = bound();
    if is_child() {
        end_by_alarm();
        let plan = SHORT.with_hard_deadline(Duration::from_secs(50));
        let builder = Lifecycle::builder().plan(plan);
        let lifecycle = builder.signals(Signals::process()).build().unwrap();
        lifecycle.ready().unwrap();
        // A thread takes memory as it starts.
        lifecycle.check(Duration::from_secs(50)).unwrap();
        hang_and_say_so();
    }
    let mut child = Process::start("a_third_signal_exits_though_no_thread_gets_memory");
    child.hear("hangs");
    let end = child.insist_until_the_end("TERM");
    assert_eq!(end.code, Some(exit_code::third_signal(15).into()));
}
