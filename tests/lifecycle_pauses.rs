//! A process that stands still in the middle of its start or its stop goes on where it was.

mod lifecycle_support;

use std::process::{self, Stdio};
use std::thread;
use std::time::Duration;

use lifecycle_support::{bound, eventually, role, say, Process};
use touchdown::lifecycle::{exit_code, Hook, Lifecycle, Plan, Signals, StartupHook};

/// What each phase may take at the most. A pause takes longer than all of them together.
const TIME: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_secs(6);

/// Says where it is, and goes on when it is told to.
fn work() {
    say("at work");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}

fn plan(role: &str) -> Plan {
    let plan = Plan::new()
        .with_grace_period(TIME)
        .with_force_period(TIME)
        .with_closing(TIME)
        .with_hard_deadline(3 * TIME);
    match role {
        "lame duck" => plan.with_lame_duck(TIME).with_hard_deadline(4 * TIME),
        _ => plan,
    }
}

/// A program whose work is done at another time in each role.
fn play(role: &str) -> ! {
    let mut builder = Lifecycle::builder()
        .plan(plan(role))
        .signals(Signals::process());
    let hook = || {
        work();
        Ok(())
    };
    match role {
        "start" => builder = builder.startup(StartupHook::new("opens", hook).time_limit(TIME)),
        "hook" => builder = builder.hook(Hook::new("flushes", hook).time_limit(TIME)),
        _ => {}
    }
    let lifecycle = builder.build().unwrap();
    lifecycle.ready().unwrap();
    let guard = lifecycle.in_flight().enter_owned().unwrap();
    lifecycle.shutdown("test");
    match role {
        "drain" => {
            lifecycle.draining().wait();
            work();
        }
        "cancel" => {
            lifecycle.hurry();
            lifecycle.cancelling().wait();
            work();
        }
        "lame duck" => {
            work();
            lifecycle.draining().wait();
        }
        _ => {}
    }
    drop(guard);
    let report = lifecycle.wait();
    say(&report.to_string());
    process::exit(report.exit_code().into());
}

fn is_stopped(process: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    status.lines().any(|line| line.starts_with("State:\tT"))
}

#[test]
fn no_limit_ends_while_the_process_stands_still() {
    let _bound = bound();
    if let Some(role) = role() {
        play(&role);
    }
    let test = "no_limit_ends_while_the_process_stands_still";
    let roles = ["start", "lame duck", "drain", "cancel", "hook"];
    let mut children = roles.map(|role| {
        let run = "exec \"$0\" \"$@\"";
        let mut child = Process::start_in_shell(run, Stdio::piped(), role, test);
        child.hear("at work");
        child.signal("STOP");
        eventually("it stands still", || is_stopped(child.id()));
        child
    });
    thread::sleep(PAUSE);
    for child in &mut children {
        child.signal("CONT");
        child.tell("go on");
    }
    for (role, child) in roles.into_iter().zip(children) {
        let end = child.end();
        let code = match role {
            // It was told to leave in a hurry, and left in time.
            "cancel" => exit_code::FORCED,
            _ => exit_code::CLEAN,
        };
        assert_eq!(end.code, Some(code.into()), "{role}: {end:?}");
        assert!(!end.stdout.contains("abandoned: "), "{role}: {end:?}");
    }
}
