//! One process replaces another under load: what goes well, and everything that can go wrong. Not a call
//! fails, whatever becomes of the new process.
#![cfg(feature = "client")]

mod common;
mod lifecycle_support;
mod upgrade_support;

use std::env;
use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use common::*;
use lifecycle_support::{bound, role};
use nix::sys::signal::Signal;
use touchdown::lifecycle::Lifecycle;
use touchdown::{Status, Upgrade, UpgradeError};
use upgrade_support::*;

#[test]
fn a_process_replaces_itself_again_and_again_and_no_call_fails() {
    play_if_child();
    let _bound = bound();
    let stage = Stage::new("a_process_replaces_itself_again_and_again_and_no_call_fails");
    let callers = Callers::new([stage.client(), stage.client(), stage.client_at_path()]);
    let idle = stage.client();
    assert_eq!(say(&idle, "hello").unwrap(), "hello");
    let mut seen = vec![stage.pid().unwrap()];
    for _ in 0..4 {
        let id = stage.upgrade();
        assert!(!seen.contains(&id));
        seen.push(id);
        // Its connection was told to go while nobody used it.
        assert_eq!(say(&idle, "hello").unwrap(), "hello");
    }
    assert!(callers.stop() > 0);
    let log = stage.log();
    assert_eq!(
        log.matches("(exit 0): replaced by process ").count(),
        4,
        "{log}"
    );
    assert!(!log.contains("ERROR"), "{log}");
    stage.stop();
}

#[test]
fn calls_in_flight_end_in_the_old_process() {
    play_if_child();
    let _bound = bound();
    let stage = Stage::new("calls_in_flight_end_in_the_old_process");
    let client = stage.client();
    let call = thread::spawn(move || say(&client, "slow"));
    eventually("the call runs", || stage.folder.join("slow").exists());
    stage.upgrade();
    assert_eq!(call.join().unwrap(), Ok("done".to_owned()));
    stage.stop();
}

#[test]
fn whatever_is_wrong_with_the_new_process_the_old_one_goes_on() {
    play_if_child();
    let _bound = bound();
    // One of them crashes some time after it was ready.
    let slowly = [(SETTLE, "3000")];
    let test = "whatever_is_wrong_with_the_new_process_the_old_one_goes_on";
    let stage = Stage::with(test, &slowly);
    eventually("it serves", || stage.pid().is_some());
    let old = stage.pid().unwrap();
    let callers = Callers::new([stage.client(), stage.client(), stage.client_at_path()]);
    let program = stage.folder.join(PROGRAM);
    assert_eq!(say(&stage.client(), "warm").unwrap(), "warm");
    let faults = [
        ("exits", "ended before it was ready: exit status: 9"),
        ("aborts", "ended before it was ready: signal: 6"),
        (
            "start fails",
            "could not start: start failed: start-up hook \"sensor\" failed (does not answer)",
        ),
        ("stops", "could not start: requested: changed its mind"),
        ("fails its test", "the sensor does not answer"),
        ("panics", "there is no sensor"),
        ("crashes", "ended soon after it was ready: exit status: 11"),
    ];
    let check = |fault: &str, reason: &str| {
        let why = stage.fail_to_upgrade();
        assert!(
            why.contains(reason),
            "{fault}: {why:?} is not about {reason:?}"
        );
        assert_eq!(stage.pid(), Some(old), "{fault}");
        eventually("no child is left", || children(old).is_empty());
        assert!(stage.folder.join(SOCKET).exists(), "{fault}");
    };
    for (fault, reason) in faults {
        stage.fault(fault);
        check(fault, reason);
    }
    stage.fault("");
    for (fault, reason) in BROKEN_PROGRAMS {
        let _ = fs::remove_file(&program).or_else(|_| fs::remove_dir(&program));
        make_broken(fault, &program);
        check(fault, reason);
    }
    let before = descriptors(old).len();
    make_broken("is no program", &program);
    for _ in 0..5 {
        check("is no program", "Exec format error");
    }
    eventually("it has no more descriptors than before", || {
        descriptors(old).len() <= before
    });
    assert!(callers.stop() > 0);

    // And one that works does.
    fs::remove_file(&program).unwrap();
    symlink(env::current_exe().unwrap(), &program).unwrap();
    let old = stage.pid().unwrap();
    stage.signal(Signal::SIGUSR2);
    eventually("another is in charge", || stage.pid() != Some(old));
    stage.stop();
}

const BROKEN_PROGRAMS: [(&str, &str); 7] = [
    ("is missing", "No such file or directory"),
    ("is not executable", "Permission denied"),
    ("is a folder", "Permission denied"),
    ("is for another machine", "Exec format error"),
    ("wants what is not there", "No such file or directory"),
    (
        "knows nothing of upgrades",
        "ended before it was ready: exit status: 0",
    ),
    ("is no program", "Exec format error"),
];

fn make_broken(fault: &str, program: &Path) {
    let write = |bytes: &[u8], mode: u32| {
        fs::write(program, bytes).unwrap();
        fs::set_permissions(program, fs::Permissions::from_mode(mode)).unwrap();
    };
    match fault {
        "is missing" => {}
        "is not executable" => write(b"#!/bin/sh\n", 0o644),
        "is a folder" => fs::create_dir(program).unwrap(),
        "is for another machine" => {
            let mut head = fs::read("/bin/true").unwrap();
            // e_machine (elf(5)), with a number that nobody has.
            head[18..20].copy_from_slice(&0x4242_u16.to_ne_bytes());
            write(&head, 0o755);
        }
        "wants what is not there" => write(b"#!/does/not/exist\n", 0o755),
        "knows nothing of upgrades" => write(b"#!/bin/sh\nexit 0\n", 0o755),
        "is no program" => write(b"", 0o755),
        other => panic!("{other}"),
    }
}

#[test]
fn who_is_not_ready_in_time_is_ended() {
    play_if_child();
    let _bound = bound();
    let impatient = [(READY_WITHIN, "1000")];
    let stage = Stage::with("who_is_not_ready_in_time_is_ended", &impatient);
    eventually("it serves", || stage.pid().is_some());
    let old = stage.pid().unwrap();
    let callers = Callers::new([stage.client()]);
    for fault in ["is slow", "is deaf"] {
        stage.fault(fault);
        let why = stage.fail_to_upgrade();
        assert!(why.contains("not ready within 1s"), "{why}");
        assert_eq!(children(old), [], "{fault}");
    }
    assert!(callers.stop() > 0);
    stage.stop();
}

#[test]
fn there_is_one_upgrade_at_a_time() {
    play_if_child();
    let _bound = bound();
    // The second upgrade has to be ready by then.
    let seconds = if SLOW { 10 } else { 2 };
    let patience = [(READY_WITHIN, &*format!("{seconds}000"))];
    let stage = Stage::with("there_is_one_upgrade_at_a_time", &patience);
    eventually("it serves", || stage.pid().is_some());
    stage.fault("is slow");
    stage.signal(Signal::SIGUSR2);
    eventually("it has begun", || {
        !children(stage.pid().unwrap()).is_empty()
    });
    assert_eq!(stage.fail_to_upgrade(), "another upgrade is under way");
    eventually("the first is over", || {
        let why = format!("not ready within {seconds}s");
        stage.log().contains(&why)
    });
    stage.fault("");
    stage.upgrade();
    stage.stop();
}

#[test]
fn a_stop_ends_an_upgrade() {
    play_if_child();
    let _bound = bound();
    for fault in ["is slow", "is deaf"] {
        let stage = Stage::new("a_stop_ends_an_upgrade");
        let old = stage.pid().unwrap();
        stage.fault(fault);
        stage.signal(Signal::SIGUSR2);
        eventually("it has begun", || !children(old).is_empty());
        let new = children(old)[0];
        // A process that has not come to its handlers is ended by the signal itself.
        eventually("it plays its part", || {
            fs::read_to_string(format!("/proc/{new}/status")).is_ok()
        });
        send(old, Signal::SIGTERM);
        eventually("the old one ends", || has_ended(old));
        assert!(stage.log().contains("(exit 0): SIGTERM"), "{}", stage.log());
        eventually("the new one ends", || has_ended(new));
    }
}

#[test]
fn a_stop_while_both_serve_stops_both() {
    play_if_child();
    let _bound = bound();
    let slowly = [(SETTLE, "50000")];
    let stage = Stage::with("a_stop_while_both_serve_stops_both", &slowly);
    eventually("it serves", || stage.pid().is_some());
    let old = stage.pid().unwrap();
    stage.signal(Signal::SIGUSR2);
    eventually("the new one serves", || {
        stage.log().matches("starting → serving").count() == 2
    });
    let new = children(old)[0];
    send(old, Signal::SIGTERM);
    eventually("both end", || has_ended(old) && has_ended(new));
    let log = stage.log();
    assert!(log.contains("(exit 0): SIGTERM"), "{log}");
    assert!(
        log.contains("(exit 0): requested: not to take over: the old process stops"),
        "{log}"
    );
    assert!(!stage.log().contains("in charge"), "{}", stage.log());
}

/// A call in flight at the new process while both serve: that process, and what is told of the call.
fn a_call_at_the_new_one(stage: &Stage) -> (u32, JoinHandle<Result<String, Status>>) {
    let old = stage.pid().unwrap();
    stage.signal(Signal::SIGUSR2);
    eventually("the new one serves", || {
        stage.log().matches("starting → serving").count() == 2
    });
    let new = children(old)[0];
    let mut found = None;
    // The kernel gives a connection to whichever of the two is first.
    eventually("a connection is the new one's", || {
        let client = stage.client();
        if say(&client, "process").unwrap() == new.to_string() {
            found = Some(client);
        }
        found.is_some()
    });
    let client = found.unwrap();
    let call = thread::spawn(move || say(&client, "gated"));
    eventually("the call runs", || stage.folder.join("gated").exists());
    (new, call)
}

/// As systemd does, with a control group, and a terminal, with ^C.
#[test]
fn a_signal_to_both_while_both_serve_is_no_second_one_to_the_new_one() {
    play_if_child();
    let _bound = bound();
    let slowly = [(SETTLE, "50000")];
    let test = "a_signal_to_both_while_both_serve_is_no_second_one_to_the_new_one";
    let stage = Stage::with(test, &slowly);
    eventually("it serves", || stage.pid().is_some());
    let old = stage.pid().unwrap();
    let (new, call) = a_call_at_the_new_one(&stage);
    send(new, Signal::SIGTERM);
    eventually("the new one drains", || {
        stage.log().contains("lame duck → draining")
    });
    send(old, Signal::SIGTERM);
    eventually("the old one ends", || has_ended(old));
    assert!(!has_ended(new), "{}", stage.log());
    fs::write(stage.folder.join(GATE), "").unwrap();
    assert_eq!(call.join().unwrap(), Ok("done".to_owned()));
    eventually("the new one ends", || has_ended(new));
    let log = stage.log();
    assert_eq!(log.matches("(exit 0): ").count(), 2, "{log}");
}

#[test]
fn a_new_process_that_stops_while_both_serve_keeps_its_calls_and_is_no_zombie() {
    play_if_child();
    let _bound = bound();
    let slowly = [(SETTLE, "50000")];
    let test = "a_new_process_that_stops_while_both_serve_keeps_its_calls_and_is_no_zombie";
    let stage = Stage::with(test, &slowly);
    eventually("it serves", || stage.pid().is_some());
    let old = stage.pid().unwrap();
    let (new, call) = a_call_at_the_new_one(&stage);
    send(new, Signal::SIGTERM);
    eventually("it has failed", || stage.failures() == 1);
    fs::write(stage.folder.join(GATE), "").unwrap();
    assert_eq!(call.join().unwrap(), Ok("done".to_owned()));
    eventually("no child is left", || children(old).is_empty());
    assert_eq!(stage.pid(), Some(old));
    stage.stop();
}

/// Between the old one's decision to stop and the new one's charge.
#[test]
fn a_new_process_that_ends_before_it_takes_over_leaves_all_to_the_old_one() {
    play_if_child();
    let _bound = bound();
    let test = "a_new_process_that_ends_before_it_takes_over_leaves_all_to_the_old_one";
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let stage = Stage::with(test, &[(FAULT, "lingers")]);
        eventually("it serves", || stage.pid().is_some());
        let old = stage.pid().unwrap();
        stage.fault("");
        stage.signal(Signal::SIGUSR2);
        eventually("the old one is about to go", || {
            stage.folder.join("lame duck").exists()
        });
        let new = children(old)[0];
        send(new, signal);
        eventually("the new one ends", || has_ended(new));
        let served_by = say(&stage.client_at_path(), "process").unwrap();
        assert_eq!(served_by, old.to_string(), "until it has to go");
        fs::write(stage.folder.join(GATE), "").unwrap();
        eventually("the old one ends", || has_ended(old));
        let log = stage.log();
        let why = format!(
            "(exit 0): requested: to be replaced by process {new}, which ended before it took over"
        );
        assert!(log.contains(&why), "{log}");
        assert!(!log.contains("in charge"), "{log}");
        for file in [SOCKET, PID] {
            assert!(!stage.folder.join(file).exists(), "{file}: {log}");
        }
    }
}

#[test]
fn if_the_old_process_crashes_the_new_one_goes_on() {
    play_if_child();
    let _bound = bound();
    let slowly = [(SETTLE, "50000")];
    let test = "if_the_old_process_crashes_the_new_one_goes_on";
    for serves in [false, true] {
        let stage = Stage::with(test, &slowly);
        eventually("it serves", || stage.pid().is_some());
        let old = stage.pid().unwrap();
        stage.fault("starts slowly");
        stage.signal(Signal::SIGUSR2);
        eventually("it has begun", || !children(old).is_empty());
        if serves {
            fs::write(stage.folder.join(GATE), "").unwrap();
            eventually("the new one serves", || {
                stage.log().matches("starting → serving").count() == 2
            });
        }
        send(old, Signal::SIGKILL);
        eventually("the old one ends", || has_ended(old));
        fs::write(stage.folder.join(GATE), "").unwrap();
        eventually("the new one is in charge", || stage.pid() != Some(old));
        assert_eq!(say(&stage.client(), "hello").unwrap(), "hello");
        assert_eq!(say(&stage.client_at_path(), "hello").unwrap(), "hello");
        stage.stop();
    }
}

#[test]
fn an_upgrade_waits_for_neither_start_nor_stop() {
    play_if_child();
    let _bound = bound();
    let slow = [(FAULT, "starts slowly")];
    let stage = Stage::with("an_upgrade_waits_for_neither_start_nor_stop", &slow);
    let first = stage.first.id();
    let refused = |line: &str| {
        eventually(line, || {
            send(first, Signal::SIGUSR2);
            thread::sleep(Duration::from_millis(5));
            stage.log().contains(line)
        });
    };
    eventually("it starts", || stage.folder.join("starting").exists());
    refused("upgrade: the program is still starting; this process goes on");
    fs::write(stage.folder.join(GATE), "").unwrap();
    eventually("it serves", || stage.pid().is_some());

    let client = stage.client();
    let call = thread::spawn(move || say(&client, "slow"));
    eventually("the call runs", || stage.folder.join("slow").exists());
    stage.signal(Signal::SIGTERM);
    refused("no upgrade: the program is stopping");
    assert_eq!(call.join().unwrap(), Ok("done".to_owned()));
    eventually("it ends", || has_ended(first));
}

#[test]
fn the_new_process_gets_what_is_documented_and_no_descriptor_beside() {
    play_if_child();
    let _bound = bound();
    let at_once = [(SETTLE, "0")];
    let test = "the_new_process_gets_what_is_documented_and_no_descriptor_beside";
    let stage = Stage::with(test, &at_once);
    eventually("it serves", || stage.pid().is_some());
    let ask = |what: &str| say(&stage.client(), what).unwrap();
    let before = ["arguments", "folder"].map(ask);
    stage.upgrade();
    assert_eq!(["arguments", "folder"].map(ask), before);
    assert!(ask("variables").contains("TOUCHDOWN_UPGRADE"));
    let id = stage.pid().unwrap();
    let has_unrelated = |id| {
        let unrelated = descriptors(id)
            .into_iter()
            .filter(|it| it == Path::new("/dev/zero"));
        unrelated.count()
    };
    assert_eq!(has_unrelated(id), 1, "its own");
    // The socket to the old process is closed once that is gone.
    let settled = |id| {
        move || {
            descriptors(id)
                .iter()
                .filter(|it| it.to_string_lossy().starts_with("socket:"))
                .count()
        }
    };
    let mut count = 0;
    let upgrades = env::var("TOUCHDOWN_UPGRADES").map_or(20, |it| it.parse().unwrap());
    for round in 0..upgrades {
        let id = stage.upgrade();
        if round == 0 {
            count = settled(id)();
        }
        eventually("no socket more than before", || settled(id)() <= count);
        assert_eq!(has_unrelated(id), 1, "after {round} upgrades");
    }
    stage.stop();
}

#[test]
fn hang_ups_that_were_ignored_stay_so() {
    play_if_child();
    let _bound = bound();
    let test = "hang_ups_that_were_ignored_stay_so";
    let stage = Stage::started_by(test, &[], |mut command| {
        // SAFETY: between fork and exec one system call, without memory.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGHUP, libc::SIG_IGN);
                Ok(())
            });
        }
        command
    });
    eventually("it serves", || stage.pid().is_some());
    stage.upgrade();
    stage.signal(Signal::SIGHUP);
    assert_eq!(say(&stage.client(), "hello").unwrap(), "hello");
    stage.stop();
    assert!(!stage.log().contains("SIGHUP"), "{}", stage.log());
}

#[test]
fn who_cannot_be_replaced_says_so() {
    if role().is_some() {
        return;
    }
    let lifecycle = Lifecycle::builder().build().unwrap();
    assert_eq!(Upgrade::begin(&lifecycle), Err(UpgradeError::NotConfigured));
    let lifecycle = Lifecycle::builder()
        .upgrade(Upgrade::new())
        .build()
        .unwrap();
    assert_eq!(Upgrade::begin(&lifecycle), Err(UpgradeError::Starting));
    lifecycle.shutdown("the test is over");
    lifecycle.wait();
    assert_eq!(Upgrade::begin(&lifecycle), Err(UpgradeError::Stopping));
}

#[test]
fn a_pid_file_that_cannot_be_written_is_a_failed_start() {
    if role().is_some() {
        return;
    }
    let lifecycle = Lifecycle::builder()
        .pid_file("/does/not/exist/pid")
        .build()
        .unwrap();
    let error = lifecycle.ready().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("cannot write the pid file /does/not/exist/pid"),
        "{error}"
    );
    assert_eq!(
        lifecycle.wait().exit_code(),
        touchdown::lifecycle::exit_code::FAILED_START
    );
}

#[test]
fn who_reads_the_pid_file_may_ask_for_an_upgrade() {
    if role().is_some() {
        return;
    }
    let path = env::temp_dir().join(format!("touchdown-pid-{}", std::process::id()));
    for _ in 0..200 {
        let lifecycle = Lifecycle::builder()
            .pid_file(&path)
            .upgrade(Upgrade::new().program("/does/not/exist"))
            .build()
            .unwrap();
        let reader = thread::spawn({
            let (lifecycle, path) = (lifecycle.clone(), path.clone());
            move || {
                while !path.exists() {
                    std::hint::spin_loop();
                }
                Upgrade::begin(&lifecycle)
            }
        });
        lifecycle.ready().unwrap();
        let error = reader.join().unwrap().unwrap_err();
        assert!(matches!(error, UpgradeError::Failed(_)), "{error}");
        lifecycle.shutdown("the test is over");
        lifecycle.wait();
    }
}
