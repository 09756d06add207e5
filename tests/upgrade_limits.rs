//! What stands still in an upgrade: a card that does not answer, one of the two processes, or a single thread. None of
//! it holds up the old process, and nobody is given up who had no time.
#![cfg(feature = "client")]

mod common;
mod lifecycle_support;
mod thread_support;
mod upgrade_support;

use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use lifecycle_support::bound;
use nix::sys::signal::Signal;
use thread_support::{threads, Stopped};
use upgrade_support::*;

/// A program file that does not answer: as one on a card or a network that hangs.
struct Hanging {
    lease: Lease,
}

impl Hanging {
    /// Nothing on a file system that has no leases.
    fn new(stage: &Stage) -> Option<Hanging> {
        let program = stage.folder.join(PROGRAM);
        let file = stage.folder.join("script");
        let script = format!(
            "#!/bin/sh\nexec {} \"$@\"\n",
            std::env::current_exe().unwrap().display()
        );
        fs::write(&file, script).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        fs::remove_file(&program).unwrap();
        symlink(&file, &program).unwrap();
        match Lease::take(&file) {
            Ok(lease) => Some(Hanging { lease }),
            Err(error) => {
                eprintln!("skipped, since leases are not to be had here: {error}");
                None
            }
        }
    }

    fn goes_on(self) {
        drop(self.lease);
    }
}

/// Waits until the process in charge has a child, and returns it.
fn child_of(process: u32) -> u32 {
    eventually("it has begun", || !children(process).is_empty());
    children(process)[0]
}

fn serving(stage: &Stage) -> usize {
    stage.log().matches("starting → serving").count()
}

#[test]
fn a_program_file_that_does_not_answer_is_given_up_and_named() {
    play_if_child();
    let _bound = bound();
    let impatient = [(READY_WITHIN, "1000")];
    let test = "a_program_file_that_does_not_answer_is_given_up_and_named";
    let stage = Stage::with(test, &impatient);
    eventually("it serves", || stage.pid().is_some());
    let old = stage.pid().unwrap();
    let callers = Callers::new([stage.client(), stage.client_at_path()]);
    let Some(hanging) = Hanging::new(&stage) else {
        return;
    };
    for _ in 0..2 {
        let why = stage.fail_to_upgrade();
        let program = stage.folder.join(PROGRAM);
        let expected = format!("{} has not answered within 1s", program.display());
        assert_eq!(why, expected);
        assert_eq!(children(old), []);
    }
    let named = stage.log().matches(", which waits for ").count();
    assert_eq!(named, 2, "{}", stage.log());
    hanging.goes_on();
    assert!(callers.stop() > 0);
    stage.signal(Signal::SIGTERM);
    eventually("it ends", || has_ended(old));
    assert_eq!(serving(&stage), 1, "{}", stage.log());
}

#[test]
fn a_stop_waits_for_no_program_file_and_is_final() {
    play_if_child();
    let _bound = bound();
    let stage = Stage::new("a_stop_waits_for_no_program_file_and_is_final");
    let old = stage.pid().unwrap();
    let Some(hanging) = Hanging::new(&stage) else {
        return;
    };
    stage.signal(Signal::SIGUSR2);
    let new = child_of(old);
    let begin = Instant::now();
    stage.signal(Signal::SIGTERM);
    eventually("the old one ends", || has_ended(old));
    assert!(begin.elapsed() < unhurried(5000), "{:?}", begin.elapsed());
    hanging.goes_on();
    eventually("the new one ends", || has_ended(new));
    let log = stage.log();
    assert!(log.contains("(exit 0): SIGTERM"), "{log}");
    assert_eq!(serving(&stage), 1, "the service is back: {log}");
}

/// What a process holds that has not come to its program must not keep others from seeing that it is closed.
#[test]
fn a_process_that_waits_for_its_program_has_no_connection() {
    play_if_child();
    let _bound = bound();
    let stage = Stage::new("a_process_that_waits_for_its_program_has_no_connection");
    let old = stage.pid().unwrap();
    let client = stage.client();
    assert_eq!(say(&client, "hello").unwrap(), "hello");
    let Some(hanging) = Hanging::new(&stage) else {
        return;
    };
    stage.signal(Signal::SIGUSR2);
    let new = child_of(old);
    // Two listeners, the socket to the old process, and two standard streams that are /dev/null.
    let sockets = |id| {
        let all = descriptors(id).into_iter();
        all.filter(|it| it.to_string_lossy().starts_with("socket:"))
            .count()
    };
    eventually("it has closed the others", || sockets(new) == 3);
    assert!(sockets(old) > 3);
    hanging.goes_on();
    stage.signal(Signal::SIGTERM);
    eventually("both end", || has_ended(old) && has_ended(new));
}

#[test]
fn signals_that_were_blocked_are_not_blocked_in_the_new_process() {
    play_if_child();
    let _bound = bound();
    let test = "signals_that_were_blocked_are_not_blocked_in_the_new_process";
    let stage = Stage::started_by(test, &[], |mut command| {
        // SAFETY: between fork and exec system calls only, with memory of this function.
        unsafe {
            command.pre_exec(|| {
                let mut blocked = std::mem::zeroed();
                for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR1] {
                    libc::sigaddset(&raw mut blocked, signal);
                }
                libc::sigprocmask(libc::SIG_BLOCK, &raw const blocked, std::ptr::null_mut());
                Ok(())
            });
        }
        command
    });
    eventually("it serves", || stage.pid().is_some());
    let blocked_by = |id: u32| {
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let mask = status.lines().find_map(|it| it.strip_prefix("SigBlk:"));
        u64::from_str_radix(mask.unwrap().trim(), 16).unwrap()
    };
    assert_ne!(blocked_by(stage.pid().unwrap()), 0);
    let new = stage.upgrade();
    assert_eq!(blocked_by(new), 0);
    stage.stop();
}

#[test]
fn an_old_process_that_stands_still_until_the_new_one_is_ready_gives_up_on_nobody() {
    play_if_child();
    let _bound = bound();
    let test = "an_old_process_that_stands_still_until_the_new_one_is_ready_gives_up_on_nobody";
    let limit = if SLOW { 15_000 } else { 3_000 };
    let stage = Stage::with(test, &[(READY_WITHIN, &*limit.to_string())]);
    eventually("it serves", || stage.pid().is_some());
    // Whoever takes either of two things that have come has luck in one round, and not in all.
    for _ in 0..4 {
        let (old, gate) = (stage.pid().unwrap(), stage.folder.join(GATE));
        let _ = fs::remove_file(&gate);
        stage.fault("starts slowly");
        stage.signal(Signal::SIGUSR2);
        eventually("the new one starts", || {
            fs::remove_file(stage.folder.join("starting")).is_ok()
        });
        send(old, Signal::SIGSTOP);
        fs::write(&gate, "").unwrap();
        thread::sleep(Duration::from_millis(limit + 100));
        send(old, Signal::SIGCONT);
        eventually("another is in charge", || {
            assert_eq!(stage.failures(), 0, "it fails");
            stage.pid() != Some(old)
        });
        eventually("the old one ends", || has_ended(old));
    }
    stage.stop();
}

#[test]
fn a_new_process_that_hangs_after_it_was_ready_does_not_get_charge() {
    play_if_child();
    let _bound = bound();
    let test = "a_new_process_that_hangs_after_it_was_ready_does_not_get_charge";
    let stage = Stage::with(test, &[(SETTLE, "1000")]);
    eventually("it serves", || stage.pid().is_some());
    let old = stage.pid().unwrap();
    for round in 1..=2 {
        stage.signal(Signal::SIGUSR2);
        eventually("the new one serves", || serving(&stage) == 1 + round);
        let new = child_of(old);
        send(new, Signal::SIGSTOP);
        eventually("it has failed", || stage.failures() == round);
        let log = stage.log();
        let why = "upgrade: the new process hangs: no answer within 5s; this process goes on";
        assert!(log.contains(why), "{log}");
        assert!(has_ended(new), "{log}");
        assert_eq!(stage.pid(), Some(old));
        assert_eq!(children(old), []);
        assert_eq!(say(&stage.client(), "process").unwrap(), old.to_string());
    }
    stage.upgrade();
    stage.stop();
}

#[test]
fn a_new_process_that_stands_still_before_it_is_ready_is_killed() {
    play_if_child();
    let _bound = bound();
    let test = "a_new_process_that_stands_still_before_it_is_ready_is_killed";
    let files = [(FAULT, "starts slowly"), (READY_WITHIN, "1000"), (GATE, "")];
    let stage = Stage::with(test, &files);
    eventually("it serves", || stage.pid().is_some());
    let old = stage.pid().unwrap();
    let starting = stage.folder.join("starting");
    fs::remove_file(stage.folder.join(GATE)).unwrap();
    fs::remove_file(&starting).unwrap();
    stage.signal(Signal::SIGUSR2);
    eventually("the new one starts", || starting.exists());
    let new = child_of(old);
    send(new, Signal::SIGSTOP);
    eventually("it has failed", || stage.failures() == 1);
    assert!(has_ended(new));
    let log = stage.log();
    assert!(log.contains("was not ready within 1s"), "{log}");
    stage.stop();
}

/// Both rules are kept, and together they keep every new process from being ready: the log says which.
#[test]
fn a_new_process_that_says_it_is_not_healthy_is_told_of_when_its_time_is_over() {
    play_if_child();
    let _bound = bound();
    let test = "a_new_process_that_says_it_is_not_healthy_is_told_of_when_its_time_is_over";
    let stage = Stage::with(test, &[(READY_WITHIN, "1000")]);
    eventually("it serves", || stage.pid().is_some());
    stage.fault("is not healthy");
    let why = stage.fail_to_upgrade();
    assert!(why.contains("was not ready within 1s: server at "), "{why}");
    assert!(
        why.contains(": the program says NOT_SERVING of itself"),
        "{why}"
    );
    stage.fault("");
    stage.upgrade();
    stage.stop();
}

/// A debugger holds it: killed as it is, its end does not come to its parent. The system may hold a process so as well.
#[test]
fn a_new_process_whose_end_does_not_come_holds_up_nothing() {
    play_if_child();
    let _bound = bound();
    let test = "a_new_process_whose_end_does_not_come_holds_up_nothing";
    let stage = Stage::with(test, &[(READY_WITHIN, "1000")]);
    eventually("it serves", || stage.pid().is_some());
    let old = stage.pid().unwrap();
    stage.fault("is deaf");
    stage.signal(Signal::SIGUSR2);
    let deaf = child_of(old);
    let nothing = std::ptr::null_mut::<libc::c_void>;
    let id = libc::pid_t::try_from(deaf).unwrap();
    // SAFETY: a system call that touches no memory of this process. Undone when this thread ends.
    let seized = unsafe { libc::ptrace(libc::PTRACE_SEIZE, id, nothing(), nothing()) };
    if seized == -1 {
        eprintln!("{test}: skipped, since ptrace(2) is not to be had here");
        return;
    }
    eventually("it has failed", || stage.failures() == 1);
    let log = stage.log();
    assert!(log.contains(&format!("killing process {deaf}")), "{log}");
    let named = format!("process {deaf} does not end; it will once the system lets it go on");
    assert!(log.contains(&named), "{log}");
    assert!(children(old).contains(&deaf), "its parent has not heard");
    // Neither another upgrade nor the end waits for it.
    stage.fault("");
    stage.upgrade();
    stage.stop();
}

#[test]
fn a_stop_does_not_wait_for_a_new_process_that_stands_still_and_ends_it_all_the_same() {
    play_if_child();
    let _bound = bound();
    let test = "a_stop_does_not_wait_for_a_new_process_that_stands_still_and_ends_it_all_the_same";
    let stage = Stage::with(test, &[(SETTLE, "50000")]);
    eventually("it serves", || stage.pid().is_some());
    let old = stage.pid().unwrap();
    stage.signal(Signal::SIGUSR2);
    eventually("the new one serves", || serving(&stage) == 2);
    let new = child_of(old);
    send(new, Signal::SIGSTOP);
    stage.signal(Signal::SIGTERM);
    eventually("the old one ends", || has_ended(old));
    send(new, Signal::SIGCONT);
    eventually("the new one ends", || has_ended(new));
    let log = stage.log();
    assert_eq!(log.matches("(exit 0): ").count(), 2, "{log}");
    assert!(
        log.contains("not to take over: the old process stops"),
        "{log}"
    );
    assert!(!log.contains("in charge"), "{log}");
}

/// Not the whole process, but all of it that serves.
#[test]
fn a_new_process_that_does_not_poll_does_not_get_charge() {
    play_if_child();
    let _bound = bound();
    let test = "a_new_process_that_does_not_poll_does_not_get_charge";
    let stage = Stage::with(test, &[(SETTLE, "1000")]);
    eventually("it serves", || stage.pid().is_some());
    let old = stage.pid().unwrap();
    stage.signal(Signal::SIGUSR2);
    eventually("the new one serves", || serving(&stage) == 2);
    let new = child_of(old);
    let pollers = threads(new, "td-worker").into_iter();
    let stopped: Result<Vec<_>, _> = pollers.map(Stopped::stop).collect();
    let Ok(stopped) = stopped else {
        eprintln!("{test}: skipped, since ptrace(2) is not to be had here");
        return;
    };
    // It can still be told to stop. If it could not, it would be killed.
    eventually("it was told to leave", || {
        stage.log().contains("stopping: ") || has_ended(new)
    });
    drop(stopped);
    eventually("it has failed", || stage.failures() == 1);
    eventually("the new one ends", || has_ended(new));
    let log = stage.log();
    assert!(log.contains("no answer within 5s"), "{log}");
    assert_eq!(stage.pid(), Some(old));
    stage.stop();
}

#[test]
fn a_new_process_that_stands_still_for_a_moment_gets_charge_all_the_same() {
    play_if_child();
    let _bound = bound();
    let test = "a_new_process_that_stands_still_for_a_moment_gets_charge_all_the_same";
    let stage = Stage::with(test, &[(SETTLE, "500")]);
    eventually("it serves", || stage.pid().is_some());
    let old = stage.pid().unwrap();
    stage.signal(Signal::SIGUSR2);
    eventually("the new one serves", || serving(&stage) == 2);
    let new = child_of(old);
    send(new, Signal::SIGSTOP);
    thread::sleep(Duration::from_millis(2000));
    assert_eq!(stage.pid(), Some(old), "it is asked first");
    send(new, Signal::SIGCONT);
    eventually("it is in charge", || stage.pid() == Some(new));
    eventually("the old one ends", || has_ended(old));
    stage.stop();
}

/// Longer than everything that it waits for.
#[test]
fn an_old_process_that_stands_still_while_both_serve_goes_on_where_it_was() {
    play_if_child();
    let _bound = bound();
    let test = "an_old_process_that_stands_still_while_both_serve_goes_on_where_it_was";
    let stage = Stage::with(test, &[(SETTLE, "1000"), (READY_WITHIN, "5000")]);
    eventually("it serves", || stage.pid().is_some());
    let old = stage.pid().unwrap();
    stage.signal(Signal::SIGUSR2);
    eventually("the new one serves", || serving(&stage) == 2);
    let new = child_of(old);
    send(old, Signal::SIGSTOP);
    thread::sleep(Duration::from_secs(10));
    send(old, Signal::SIGCONT);
    eventually("the new one is in charge", || stage.pid() == Some(new));
    eventually("the old one ends", || has_ended(old));
    assert_eq!(stage.failures(), 0, "{}", stage.log());
    stage.stop();
}

/// The names of the pid file and of what is beside it.
fn pid_files(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap();
    let names = names.map(|it| it.unwrap().file_name().into_string().unwrap());
    names.filter(|it| it.starts_with(PID)).collect()
}

/// A server with its pid file in a folder of its own, that another name can be given.
fn with_folder_of_pid(test: &str, files: &[(&str, &str)]) -> (Stage, std::path::PathBuf) {
    let name = format!("touchdown-pid-{}-{test:.30}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder).unwrap();
    let path = folder.join(PID).display().to_string();
    let mut files = files.to_vec();
    files.push((PID_PATH, &path));
    let stage = Stage::with(test, &files);
    eventually("it serves", || stage.pid().is_some());
    (stage, folder)
}

#[test]
fn a_pid_file_that_cannot_be_written_fails_the_upgrade_and_leaves_nothing_behind() {
    play_if_child();
    let _bound = bound();
    let test = "a_pid_file_that_cannot_be_written_fails_the_upgrade_and_leaves_nothing_behind";
    let (stage, folder) = with_folder_of_pid(test, &[]);
    let old = stage.pid().unwrap();
    let away = folder.with_extension("away");
    let pid_away = |pid: u32| fs::read_to_string(away.join(PID)).unwrap() == format!("{pid}\n");
    fs::rename(&folder, &away).unwrap();
    send(old, Signal::SIGUSR2);
    eventually("it has failed", || stage.failures() == 1);
    let log = stage.log();
    let why = format!(
        "the new process could not start: cannot write the pid file {}/{PID}: No such file",
        folder.display()
    );
    assert!(log.contains(&why), "{log}");
    assert!(pid_away(old));
    fs::rename(&away, &folder).unwrap();
    assert_eq!(pid_files(&folder), [PID]);
    stage.upgrade();
    assert_eq!(pid_files(&folder), [PID]);
    stage.stop();
    fs::remove_dir(&folder).unwrap();
}

#[test]
fn a_new_process_that_is_not_in_charge_leaves_no_pid_file() {
    play_if_child();
    let _bound = bound();
    let test = "a_new_process_that_is_not_in_charge_leaves_no_pid_file";
    let (stage, folder) = with_folder_of_pid(test, &[(SETTLE, "50000")]);
    let old = stage.pid().unwrap();
    for (round, signal) in [Signal::SIGKILL, Signal::SIGTERM].into_iter().enumerate() {
        stage.signal(Signal::SIGUSR2);
        eventually("the new one serves", || serving(&stage) == 2 + round);
        let new = child_of(old);
        assert_eq!(pid_files(&folder).len(), 2, "it is prepared");
        assert_eq!(stage.pid(), Some(old), "and not yet published");
        send(new, signal);
        eventually("it has failed", || stage.failures() == 1 + round);
        eventually("the new one ends", || has_ended(new));
        eventually("nothing is left", || pid_files(&folder) == [PID]);
    }
    stage.stop();
    fs::remove_dir(&folder).unwrap();
}

#[test]
fn a_pid_file_that_cannot_be_renamed_is_tried_again() {
    play_if_child();
    let _bound = bound();
    let test = "a_pid_file_that_cannot_be_renamed_is_tried_again";
    let (stage, folder) = with_folder_of_pid(test, &[(SETTLE, "2000")]);
    let old = stage.pid().unwrap();
    stage.signal(Signal::SIGUSR2);
    eventually("the new one serves", || serving(&stage) == 2);
    let new = child_of(old);
    let away = folder.with_extension("away");
    fs::rename(&folder, &away).unwrap();
    eventually("it says so", || {
        stage
            .log()
            .contains("it names the process before this one, and is tried again")
    });
    eventually("the old one ends", || has_ended(old));
    fs::rename(&away, &folder).unwrap();
    eventually("it is written", || stage.pid() == Some(new));
    assert_eq!(pid_files(&folder), [PID]);
    stage.stop();
    fs::remove_dir(&folder).unwrap();
}

/// A disk with room for one page: the pid file's.
#[test]
fn a_pid_file_on_a_full_disk_fails_the_upgrade() {
    play_if_child();
    let _bound = bound();
    let test = "a_pid_file_on_a_full_disk_fails_the_upgrade";
    let mount = "mount -t tmpfs -o size=4k none /mnt";
    let can = Command::new("unshare")
        .args(["-rm", "sh", "-c", mount])
        .status();
    if !can.is_ok_and(|it| it.success()) {
        eprintln!("{test}: skipped, since there are no namespaces to be had here");
        return;
    }
    let path = format!("/mnt/{PID}");
    let mut stage = Stage::started_by(test, &[(PID_PATH, &*path)], |command| {
        let mut outer = Command::new("unshare");
        outer
            .args(["-rm", "sh", "-c", &format!("{mount} && exec \"$0\" \"$@\"")])
            .arg(command.get_program())
            .args(command.get_args())
            .envs(
                command
                    .get_envs()
                    .filter_map(|(name, it)| Some((name, it?))),
            );
        outer
    });
    let first = stage.first.id();
    let disk = format!("/proc/{first}/root/mnt");
    stage.look_for_pid_at(Path::new(&disk).join(PID));
    eventually("it serves", || stage.pid() == Some(first));
    let why = stage.fail_to_upgrade();
    assert!(
        why.contains(&format!("cannot write the pid file {path}: No space left")),
        "{why}"
    );
    assert_eq!(stage.pid(), Some(first));
    assert_eq!(pid_files(Path::new(&disk)), [PID]);
    assert_eq!(say(&stage.client(), "process").unwrap(), first.to_string());
}
