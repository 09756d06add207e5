//! The first, second and third signal: injected, and as real ones to child processes.

mod lifecycle_support;

use std::process::{self, Stdio};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{never, unbounded};
use lifecycle_support::{bound, eventually, is_child, phases, role, say, Process};
use nix::sys::signal::{kill, SigSet, SigmaskHow, Signal};
use nix::unistd::Pid;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::raise;
use touchdown::lifecycle::{exit_code, Lifecycle, Phase, Plan, Reason, Report, Signals};

/// Never stops by itself while something is in flight.
const PATIENT: Plan = Plan::new()
    .with_grace_period(Duration::MAX)
    .with_force_period(Duration::MAX);

fn listening() -> Lifecycle {
    Lifecycle::builder()
        .plan(PATIENT)
        .signals(Signals::process())
        .build()
        .unwrap()
}

fn leave(report: Report) -> ! {
    process::exit(report.exit_code().into());
}

#[test]
fn the_first_injected_signal_begins_the_stop() {
    let _bound = bound();
    let (signals, sender) = Signals::injected();
    let lifecycle = Lifecycle::builder().signals(signals).build().unwrap();
    lifecycle.ready().unwrap();
    sender.send(SIGINT);
    let report = lifecycle.wait();
    assert_eq!(report.reason, Reason::Signal(SIGINT));
    assert_eq!(report.reason.to_string(), "SIGINT");
    assert_eq!(report.exit_code(), exit_code::CLEAN);
    sender.send(SIGINT);
}

#[test]
fn a_signal_during_start_up_ends_it_cleanly() {
    let _bound = bound();
    let (signals, sender) = Signals::injected();
    sender.send(SIGTERM);
    let lifecycle = Lifecycle::builder().signals(signals).build().unwrap();
    lifecycle.stopping().wait();
    assert!(lifecycle.ready().is_err());
    let report = lifecycle.wait();
    assert_eq!(phases(&report), [Phase::Starting, Phase::Closing]);
    assert_eq!(report.exit_code(), exit_code::CLEAN);
}

#[test]
fn the_second_skips_to_cancelling() {
    let _bound = bound();
    let (signals, sender) = Signals::injected();
    let lifecycle = Lifecycle::builder()
        .plan(PATIENT)
        .signals(signals)
        .build()
        .unwrap();
    lifecycle.ready().unwrap();
    let work = lifecycle.in_flight().enter_owned().unwrap();
    sender.send(SIGTERM);
    lifecycle.draining().wait();
    assert!(!lifecycle
        .cancelling()
        .wait_timeout(Duration::from_millis(50)));
    sender.send(SIGINT);
    lifecycle.cancelling().wait();
    drop(work);
    let report = lifecycle.wait();
    assert_eq!(report.reason, Reason::Signal(SIGTERM));
    assert_eq!(report.exit_code(), exit_code::FORCED);
}

#[test]
fn the_third_exits_at_once() {
    let _bound = bound();
    let (signals, sender) = Signals::injected();
    let (exits, exited) = unbounded();
    let lifecycle = Lifecycle::builder()
        .plan(PATIENT)
        .signals(signals)
        .exit_with(move |code| exits.send(code).unwrap())
        .build()
        .unwrap();
    lifecycle.ready().unwrap();
    let work = lifecycle.in_flight().enter_owned().unwrap();
    for signal in [SIGTERM, SIGTERM, SIGINT] {
        sender.send(signal);
    }
    assert_eq!(exited.recv().unwrap(), 128 + SIGINT);
    drop(work);
    lifecycle.wait();
}

#[test]
fn after_a_requested_stop_the_first_signal_changes_nothing() {
    let _bound = bound();
    let (signals, sender) = Signals::injected();
    let lifecycle = Lifecycle::builder()
        .plan(PATIENT)
        .signals(signals)
        .build()
        .unwrap();
    lifecycle.ready().unwrap();
    let work = lifecycle.in_flight().enter_owned().unwrap();
    lifecycle.shutdown("test");
    sender.send(SIGTERM);
    assert!(!lifecycle
        .cancelling()
        .wait_timeout(Duration::from_millis(50)));
    sender.send(SIGTERM);
    lifecycle.cancelling().wait();
    drop(work);
    assert_eq!(
        lifecycle.wait().reason,
        Reason::Requested("test".to_owned())
    );
}

#[test]
fn a_process_that_gets_sigterm_finishes_its_work_and_exits_cleanly() {
    if is_child() {
        let lifecycle = listening();
        let work = lifecycle.in_flight().enter_owned().unwrap();
        thread::spawn({
            let lifecycle = lifecycle.clone();
            move || {
                lifecycle.draining().wait();
                say("finished");
                drop(work);
            }
        });
        lifecycle.ready().unwrap();
        say("ready");
        leave(lifecycle.wait());
    }
    let mut child =
        Process::start("a_process_that_gets_sigterm_finishes_its_work_and_exits_cleanly");
    child.hear("ready");
    child.signal("TERM");
    let end = child.end();
    assert_eq!(end.code, Some(0), "{end:?}");
    assert!(end.stdout.contains("finished"), "{end:?}");
}

#[test]
fn a_process_that_gets_sigint_twice_is_forced() {
    if is_child() {
        let lifecycle = listening();
        let work = lifecycle.in_flight().enter_owned().unwrap();
        thread::spawn({
            let lifecycle = lifecycle.clone();
            move || {
                lifecycle.draining().wait();
                say("draining");
                lifecycle.cancelling().wait();
                drop(work);
            }
        });
        lifecycle.ready().unwrap();
        say("ready");
        leave(lifecycle.wait());
    }
    let mut child = Process::start("a_process_that_gets_sigint_twice_is_forced");
    child.hear("ready");
    child.signal("INT");
    child.hear("draining");
    assert_eq!(
        child.insist_until_the_end("INT").code,
        Some(exit_code::FORCED.into())
    );
}

#[test]
fn a_process_that_gets_three_signals_exits_with_the_third() {
    if is_child() {
        let lifecycle = listening();
        lifecycle.ready().unwrap();
        let work = lifecycle.in_flight().enter_owned().unwrap();
        say("ready");
        lifecycle.draining().wait();
        say("draining");
        lifecycle.cancelling().wait();
        say("cancelling");
        lifecycle.wait();
        drop(work);
    }
    let mut child = Process::start("a_process_that_gets_three_signals_exits_with_the_third");
    child.hear("ready");
    child.signal("INT");
    child.hear("draining");
    child.insist("INT", "cancelling");
    let end = child.insist_until_the_end("TERM");
    assert_eq!(end.code, Some(143), "{end:?}");
    assert!(
        end.stderr
            .contains("third signal (SIGTERM) while cancelling"),
        "{end:?}"
    );
}

/// A wrapper that hands on what the terminal has sent to both; a supervisor whose unit sends a TERM of its own.
#[test]
fn a_wish_that_is_heard_twice_within_a_moment_cuts_nothing() {
    let _bound = bound();
    const REPEATED: [(u64, &str); 5] = [
        (0, "TERM"),
        (0, "INT"),
        (50, "TERM"),
        (250, "INT"),
        (0, "TERM"),
    ];
    if is_child() {
        let lifecycle = listening();
        lifecycle.ready().unwrap();
        let work = lifecycle.in_flight().enter_owned().unwrap();
        say("ready");
        lifecycle.draining().wait();
        // Until it has heard of all of them.
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
        assert!(!lifecycle.cancelling().is_cancelled());
        drop(work);
        leave(lifecycle.wait());
    }
    let test = "a_wish_that_is_heard_twice_within_a_moment_cuts_nothing";
    let run = "exec \"$0\" \"$@\"";
    let mut child = Process::start_in_shell(run, Stdio::piped(), "1", test);
    child.hear("ready");
    for (after, signal) in REPEATED {
        thread::sleep(Duration::from_millis(after));
        child.signal(signal);
    }
    child.tell("heard");
    let end = child.end();
    assert_eq!(end.code, Some(0), "{end:?}");
}

/// Programs that wait for their own signals with sigwait or a signalfd start others so.
#[test]
fn signals_that_were_blocked_by_who_started_the_process_are_heard() {
    let _bound = bound();
    let heard = [
        (Signal::SIGTERM, "SIGTERM"),
        (Signal::SIGINT, "SIGINT"),
        (Signal::SIGHUP, "SIGHUP"),
    ];
    if let Some(role) = role() {
        let is_blocked = |signal: &Signal| SigSet::thread_get_mask().unwrap().contains(*signal);
        assert!(heard.iter().all(|(signal, _)| is_blocked(signal)));
        // `nohup`, under which the tests may run, ignores it, and it is left so.
        // SAFETY: a system call without memory, on a disposition that nobody else relies on.
        unsafe { libc::signal(libc::SIGHUP, libc::SIG_DFL) };
        if role == "early" {
            // It waits until somebody hears it.
            kill(Pid::this(), Signal::SIGTERM).unwrap();
        }
        let lifecycle = listening();
        if role == "late" {
            lifecycle.ready().unwrap();
            say("ready");
        }
        let report = lifecycle.wait();
        say(&format!("stopped by {}", report.reason));
        assert!(!heard.iter().any(|(signal, _)| is_blocked(signal)));
        leave(report);
    }
    let test = "signals_that_were_blocked_by_who_started_the_process_are_heard";
    let start = |role: &str| {
        let blocked: SigSet = heard.iter().map(|(signal, _)| *signal).collect();
        let before = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK).unwrap();
        let child = Process::start_as(role, test);
        before.thread_set_mask().unwrap();
        child
    };
    for (signal, name) in heard {
        let mut child = start("late");
        child.hear("ready");
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        child.hear(&format!("stopped by {name}"));
        assert_eq!(child.end().code, Some(0));
    }
    let mut child = start("early");
    child.hear("stopped by SIGTERM");
    assert_eq!(child.end().code, Some(0));
}

#[test]
fn two_lifecycles_in_one_process_both_hear() {
    if is_child() {
        let (one, other) = (listening(), listening());
        one.ready().unwrap();
        other.ready().unwrap();
        raise(SIGTERM).unwrap();
        assert_eq!(one.wait().reason, Reason::Signal(SIGTERM));
        leave(other.wait());
    }
    let end = Process::start("two_lifecycles_in_one_process_both_hear").end();
    assert_eq!(end.code, Some(0), "{end:?}");
}

#[test]
fn one_that_has_stopped_leaves_the_signals_to_the_other() {
    if is_child() {
        let (one, other) = (listening(), listening());
        one.shutdown("test");
        one.wait();
        other.ready().unwrap();
        raise(SIGTERM).unwrap();
        let report = other.wait();
        assert_eq!(report.reason, Reason::Signal(SIGTERM));
        leave(report);
    }
    let end = Process::start("one_that_has_stopped_leaves_the_signals_to_the_other").end();
    assert_eq!(end.code, Some(0), "{end:?}");
}

#[test]
fn a_program_that_hangs_after_the_stop_is_ended_by_the_next_signal() {
    if is_child() {
        let lifecycle = listening();
        lifecycle.ready().unwrap();
        raise(SIGTERM).unwrap();
        lifecycle.wait();
        say("hangs");
        let _ = never::<()>().recv();
    }
    let mut child =
        Process::start("a_program_that_hangs_after_the_stop_is_ended_by_the_next_signal");
    child.hear("hangs");
    child.signal("TERM");
    assert_eq!(child.end().signal, Some(SIGTERM));
}

#[test]
fn a_lifecycle_after_another_hears_again() {
    if is_child() {
        for _ in 0..100 {
            let lifecycle = listening();
            lifecycle.ready().unwrap();
            raise(SIGTERM).unwrap();
            assert_eq!(lifecycle.wait().reason, Reason::Signal(SIGTERM));
        }
        process::exit(0);
    }
    let end = Process::start("a_lifecycle_after_another_hears_again").end();
    assert_eq!(end.code, Some(0), "{end:?}");
}

/// The processor time of a thread that waits for signals stays where it is.
#[test]
fn waiting_for_signals_takes_no_processor_time() {
    let _bound = bound();
    let (signals, _sender) = Signals::injected();
    let lifecycle = Lifecycle::builder().signals(signals).build().unwrap();
    lifecycle.ready().unwrap();
    let switches = || -> u64 {
        let mut sum = 0;
        for task in std::fs::read_dir("/proc/self/task").unwrap() {
            let path = task.unwrap().path();
            let read = |file| std::fs::read_to_string(path.join(file)).unwrap_or_default();
            if read("comm").trim() == "td-guard" {
                let status = read("status");
                let line = status
                    .lines()
                    .find(|line| line.starts_with("voluntary_ctxt_switches"));
                sum += line.map_or(0, |line| {
                    line.split_whitespace().nth(1).unwrap().parse().unwrap()
                });
            }
        }
        sum
    };
    // Other tests' guards come and go beside this one: at some point none of them moves.
    eventually("the guard threads sleep", || {
        let before = switches();
        thread::sleep(Duration::from_millis(200));
        before > 0 && before == switches()
    });
}
