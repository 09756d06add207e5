//! Hot restart under those that look after processes. Each is the real one; without it its test is skipped.
#![cfg(feature = "client")]

mod common;
mod lifecycle_support;
mod upgrade_support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::*;
use lifecycle_support::bound;
use nix::sys::signal::Signal;
use upgrade_support::*;

/// Whether this can be run; says so if not.
fn can(test: &str, program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let output = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    // Those that do not know the arguments say so, and are there.
    let is_there = output.is_ok_and(|it| program != "unshare" || it.success());
    if !is_there {
        eprintln!("{test}: skipped, since `{program}` is not to be had here");
    }
    is_there
}

/// A command in words that no shell has to take apart.
fn words(command: &Command) -> String {
    let program = command.get_program().to_str().unwrap();
    let arguments = command.get_args().map(|it| it.to_str().unwrap());
    let words: Vec<&str> = std::iter::once(program).chain(arguments).collect();
    words.join(" ")
}

/// A command with the environment of another.
fn with_environment(of: &Command, mut command: Command) -> Command {
    command.envs(of.get_envs().filter_map(|(name, it)| Some((name, it?))));
    command
}

fn folder_for(test: &str) -> PathBuf {
    let name = format!("touchdown-supervisor-{}-{test:.20}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder).unwrap();
    folder
}

fn write_script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A supervisor of the daemontools family, which runs `run` in a folder.
fn a_folder_with_run_is_refused(test: &str, supervisor: &str, expected: &str) {
    play_if_child();
    let _bound = bound();
    if !can(test, supervisor, &[]) {
        return;
    }
    let service = folder_for(test);
    let stage = Stage::started_by(test, &[], |command| {
        write_script(&service.join("run"), &format!("exec {}", words(&command)));
        let mut outer = Command::new(supervisor);
        outer.arg(&service);
        with_environment(&command, outer)
    });
    eventually("it serves", || stage.pid().is_some());
    let old = stage.pid().unwrap();
    let why = stage.fail_to_upgrade();
    assert!(why.starts_with(expected), "{why}");
    assert_eq!(children(old), [], "nothing was started");
    assert_eq!(say(&stage.client(), "process").unwrap(), old.to_string());
    drop(stage);
    let _ = fs::remove_dir_all(&service);
}

#[test]
fn runit_is_refused() {
    a_folder_with_run_is_refused("runit_is_refused", "runsv", "runit (process ");
}

#[test]
fn daemontools_are_refused() {
    let test = "daemontools_are_refused";
    a_folder_with_run_is_refused(test, "supervise", "daemontools (process ");
}

#[test]
fn s6_is_refused() {
    a_folder_with_run_is_refused("s6_is_refused", "s6-supervise", "s6 (process ");
}

/// Ends a process by its pid file.
struct Daemon(PathBuf);

impl Drop for Daemon {
    fn drop(&mut self) {
        let id = fs::read_to_string(&self.0).unwrap_or_default();
        if let Ok(id) = id.trim().parse() {
            send(id, Signal::SIGTERM);
            eventually("it ends", || has_ended(id));
        }
    }
}

#[test]
fn supervise_daemon_is_refused() {
    play_if_child();
    let _bound = bound();
    let test = "supervise_daemon_is_refused";
    if !can(test, "supervise-daemon", &[]) {
        return;
    }
    let service = folder_for(test);
    let pid_file = service.join("pid");
    let stage = Stage::started_by(test, &[], |command| {
        let mut outer = Command::new("supervise-daemon");
        outer
            .args(["greeter", "--start", "--pidfile"])
            .arg(&pid_file)
            .arg(command.get_program())
            .arg("--")
            .args(command.get_args())
            .env("RC_SVCNAME", "greeter");
        with_environment(&command, outer)
    });
    let daemon = Daemon(pid_file);
    eventually("it serves", || stage.pid().is_some());
    let why = stage.fail_to_upgrade();
    assert!(
        why.starts_with("OpenRC's supervise-daemon (process "),
        "{why}"
    );
    drop(daemon);
    drop(stage);
    let _ = fs::remove_dir_all(&service);
}

#[test]
fn supervisord_is_refused() {
    play_if_child();
    let _bound = bound();
    let test = "supervisord_is_refused";
    if !can(test, "supervisord", &["--version"]) {
        return;
    }
    let service = folder_for(test);
    let stage = Stage::started_by(test, &[], |command| {
        let config = format!(
            "[supervisord]\nnodaemon=true\nlogfile={0}/log\npidfile={0}/pid\n[program:x]\ncommand={1}\n",
            service.display(),
            words(&command)
        );
        fs::write(service.join("config"), config).unwrap();
        let mut outer = Command::new("supervisord");
        outer.arg("-c").arg(service.join("config"));
        with_environment(&command, outer)
    });
    eventually("it serves", || stage.pid().is_some());
    let why = stage.fail_to_upgrade();
    assert!(why.starts_with("supervisord (process "), "{why}");
    drop(stage);
    let _ = fs::remove_dir_all(&service);
}

#[test]
fn what_ends_with_its_child_is_refused_unless_it_is_said_to_cope() {
    play_if_child();
    let _bound = bound();
    let test = "what_ends_with_its_child_is_refused_unless_it_is_said_to_cope";
    for init in ["tini", "dumb-init"] {
        if !can(test, init, &["--version"]) {
            continue;
        }
        let start = |files: &[(&str, &str)]| {
            let stage = Stage::started_by(test, files, |command| {
                let mut outer = Command::new(init);
                outer
                    .arg("--")
                    .arg(command.get_program())
                    .args(command.get_args());
                with_environment(&command, outer)
            });
            eventually("it serves", || stage.pid().is_some());
            stage
        };
        let why = start(&[]).fail_to_upgrade();
        let expected = format!("{init} (process ");
        assert!(why.starts_with(&expected), "{why}");
        // dumb-init sends TERM to all that is left when its child ends.
        if init == "tini" {
            let stage = start(&[(ANYWHERE, "")]);
            stage.upgrade();
            stage.stop();
        }
    }
}

/// What `unshare` needs to run something as the first process of a namespace, which ends with it.
const NAMESPACE: [&str; 3] = ["-rmpf", "--mount-proc", "--kill-child"];

/// The child of a process, known by its number here.
fn the_child_of(process: u32) -> u32 {
    eventually("it has a child", || !children(process).is_empty());
    children(process)[0]
}

/// Its pid file is not to be believed outside.
fn hide_pid(stage: &mut Stage) {
    let pid_file = stage.folder.join(PID);
    eventually("it serves", || pid_file.exists());
    stage.look_for_pid_at(PathBuf::from("/does/not/exist"));
}

#[test]
fn the_first_process_of_a_container_is_refused() {
    play_if_child();
    let _bound = bound();
    let test = "the_first_process_of_a_container_is_refused";
    if !can(test, "unshare", &[&NAMESPACE[..], &["true"]].concat()) {
        return;
    }
    let mut stage = Stage::started_by(test, &[], |command| {
        let mut outer = Command::new("unshare");
        outer
            .args(NAMESPACE)
            .arg(command.get_program())
            .args(command.get_args());
        with_environment(&command, outer)
    });
    hide_pid(&mut stage);
    let first = the_child_of(stage.first.id());
    let why = stage.fail_to_upgrade_from(first);
    assert!(why.starts_with("this is process 1 of a container"), "{why}");
    assert_eq!(children(first), [], "nothing was started");
    assert_eq!(say(&stage.client(), "process").unwrap(), "1");
}

#[test]
fn an_init_that_respawns_is_refused_and_one_that_does_not_is_not() {
    play_if_child();
    let _bound = bound();
    let test = "an_init_that_respawns_is_refused_and_one_that_does_not_is_not";
    if !can(test, "busybox", &["true"])
        || !can(test, "unshare", &[&NAMESPACE[..], &["true"]].concat())
    {
        return;
    }
    for action in ["respawn", "once"] {
        let mut stage = Stage::started_by(test, &[], |command| {
            let script = format!(
                "mount -t tmpfs none /etc && echo '::{action}:{}' > /etc/inittab && exec busybox init",
                words(&command)
            );
            let mut outer = Command::new("unshare");
            outer.args(NAMESPACE).args(["sh", "-c", &script]);
            with_environment(&command, outer)
        });
        hide_pid(&mut stage);
        let init = the_child_of(stage.first.id());
        let program = the_child_of(init);
        if action == "respawn" {
            let why = stage.fail_to_upgrade_from(program);
            assert!(
                why.starts_with("init would start the program once more"),
                "{why}"
            );
            continue;
        }
        send(program, Signal::SIGUSR2);
        eventually("the old one ends", || has_ended(program));
        eventually(
            "the other has init for a parent",
            || matches!(children(init)[..], [other] if other != program),
        );
        assert_eq!(say(&stage.client(), "hello").unwrap(), "hello");
        assert!(
            stage.log().contains("replaced by process "),
            "{}",
            stage.log()
        );
    }
}

/// As an init script does.
#[test]
fn what_follows_the_pid_file_copes() {
    play_if_child();
    let _bound = bound();
    let test = "what_follows_the_pid_file_copes";
    if !can(test, "start-stop-daemon", &["--version"]) {
        return;
    }
    let stage = Stage::started_by(test, &[], |command| {
        let mut outer = Command::new("start-stop-daemon");
        outer
            .args([
                "--start",
                "--background",
                "--pidfile",
                "/does/not/exist",
                "--startas",
            ])
            .arg(command.get_program())
            .arg("--")
            .args(command.get_args());
        with_environment(&command, outer)
    });
    eventually("it serves", || stage.pid().is_some());
    let new = stage.upgrade();
    let stop = Command::new("start-stop-daemon")
        .args(["--stop", "--oknodo", "--retry", "TERM/20", "--pidfile"])
        .arg(stage.folder.join(PID))
        .stdout(Stdio::null())
        .status();
    assert!(stop.unwrap().success());
    assert!(has_ended(new));
    assert!(stage.pid().is_none());
}

#[test]
fn systemd_is_refused_if_it_is_told_nothing() {
    play_if_child();
    let _bound = bound();
    let test = "systemd_is_refused_if_it_is_told_nothing";
    for told in [false, true] {
        let stage = Stage::started_by(test, &[], |command| {
            let mut outer = Command::new("sh");
            outer
                .args(["-c", "SYSTEMD_EXEC_PID=$$ exec \"$0\" \"$@\""])
                .arg(command.get_program())
                .args(command.get_args());
            if told {
                outer.env("NOTIFY_SOCKET", "/does/not/exist");
            }
            with_environment(&command, outer)
        });
        eventually("it serves", || stage.pid().is_some());
        if told {
            stage.upgrade();
        } else {
            let why = stage.fail_to_upgrade();
            assert!(
                why.starts_with("systemd takes the end of this process"),
                "{why}"
            );
        }
        stage.stop();
    }
}
