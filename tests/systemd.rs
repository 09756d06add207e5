//! What systemd is told of a lifecycle, message by message.
#![cfg(feature = "systemd")]

mod lifecycle_support;
mod notify_support;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{fs, process, thread};

use lifecycle_support::{bound, eventually, insisting, is_child, role, Process};
use notify_support::{extension_of, order, shout, Manager};
use touchdown::lifecycle::{
    exit_code, Builder, Hook, Lifecycle, Plan, Report, Signals, StartupHook,
};
use touchdown::systemd::{Notify, EXTENSION, MARGIN};

fn builder() -> Builder {
    Lifecycle::builder().signals(Signals::process())
}

fn exit(report: &Report) -> ! {
    process::exit(report.exit_code().into())
}

/// Serves until a signal comes, and exits with the report's code.
fn serve(lifecycle: &Lifecycle) -> ! {
    let _ = lifecycle.ready();
    exit(&lifecycle.wait())
}

/// What a program that is idle tells between the signal and its end.
fn expect_idle_stop(manager: &Manager, why: &str) {
    manager.expect_extended(&["STOPPING=1", &format!("STATUS=stopping: {why}")]);
    assert_eq!(
        manager.expect_status("draining: 0 calls left, "),
        Some(EXTENSION)
    );
    assert_eq!(manager.expect_status("closing, "), Some(EXTENSION));
    manager.expect(&[&format!("STATUS=stopped: {why}")]);
}

#[test]
fn a_start_and_a_stop_are_told_in_order() {
    if is_child() {
        let lifecycle = builder().build().unwrap();
        Notify::attach(&lifecycle).unwrap();
        // The second is the first.
        Notify::attach(&lifecycle).unwrap();
        serve(&lifecycle);
    }
    let _bound = bound();
    let manager = Manager::new();
    let child = manager.start("a_start_and_a_stop_are_told_in_order");
    manager.expect(&["STATUS=starting"]);
    manager.expect(&["READY=1", "STATUS=serving"]);
    child.signal("TERM");
    expect_idle_stop(&manager, "SIGTERM");
    assert_eq!(child.end().code, Some(i32::from(exit_code::CLEAN)));
    assert!(manager.rest().is_empty());
}

#[test]
fn a_start_may_take_as_long_as_its_hooks_may() {
    if is_child() {
        let wait_for_word = || {
            assert_eq!(order().unwrap(), "go on");
            Ok(())
        };
        let hook = StartupHook::new("device", wait_for_word).time_limit(Duration::from_secs(200));
        let after = StartupHook::new("config", || Ok(())).after("device");
        let lifecycle = builder().startup(hook).startup(after).build().unwrap();
        Notify::attach(&lifecycle).unwrap();
        serve(&lifecycle);
    }
    let _bound = bound();
    let manager = Manager::new();
    let mut child = manager.start("a_start_may_take_as_long_as_its_hooks_may");
    let limits = Duration::from_secs(200) + StartupHook::DEFAULT_TIME_LIMIT;
    assert_eq!(
        manager.expect_extended(&["STATUS=starting"]),
        limits + MARGIN
    );
    child.tell("go on");
    manager.expect(&["READY=1", "STATUS=serving"]);
    child.signal("INT");
    expect_idle_stop(&manager, "SIGINT");
}

#[test]
fn a_start_that_fails_is_never_ready_and_says_why() {
    if is_child() {
        let hook = StartupHook::new("database", || Err("disk\nfull".into()));
        let lifecycle = builder().startup(hook).build().unwrap();
        Notify::attach(&lifecycle).unwrap();
        serve(&lifecycle);
    }
    let _bound = bound();
    let manager = Manager::new();
    let child = manager.start("a_start_that_fails_is_never_ready_and_says_why");
    manager.expect_extended(&["STATUS=starting"]);
    let why = "start failed: start-up hook \"database\" failed (disk full)";
    manager.expect_extended(&["STOPPING=1", &format!("STATUS=stopping: {why}")]);
    manager.expect_status("closing");
    manager.expect(&[&format!("STATUS=stopped: {why}")]);
    assert_eq!(child.end().code, Some(i32::from(exit_code::FAILED_START)));
}

#[test]
fn a_reload_is_told_before_it_begins_and_after_it_with_what_failed() {
    if is_child() {
        let runs = AtomicU32::new(0);
        let reload = move || {
            shout("the callback runs");
            match runs.fetch_add(1, Ordering::Relaxed) {
                0 => Ok(()),
                _ => Err("no such\nfile".into()),
            }
        };
        let lifecycle = builder().on_reload("config", reload).build().unwrap();
        Notify::attach(&lifecycle).unwrap();
        serve(&lifecycle);
    }
    let _bound = bound();
    let manager = Manager::new();
    let child = manager.start("a_reload_is_told_before_it_begins_and_after_it_with_what_failed");
    manager.expect(&["STATUS=starting"]);
    manager.expect(&["READY=1", "STATUS=serving"]);
    let mut stamps = Vec::new();
    for outcome in [
        "serving",
        "serving; reload failed: config: failed (no such file); kept the old state",
    ] {
        child.signal("HUP");
        let message = manager.hear();
        assert_eq!(message[0], "RELOADING=1");
        let stamp = message[1].strip_prefix("MONOTONIC_USEC=").unwrap();
        stamps.push(stamp.parse::<u64>().unwrap());
        assert_eq!(message[2], "STATUS=reloading");
        manager.expect(&["the callback runs"]);
        manager.expect(&["READY=1", &format!("STATUS={outcome}")]);
    }
    assert!(stamps[0] < stamps[1], "{stamps:?}");
    child.signal("TERM");
    expect_idle_stop(&manager, "SIGTERM");
}

/// Has three works in flight, each until a line comes, and then a hook, until another comes.
fn three_works_and_a_hook(plan: Plan) -> ! {
    let hook = Hook::new("journal", || {
        order();
        Ok(())
    });
    let lifecycle = builder().plan(plan).hook(hook).build().unwrap();
    Notify::attach(&lifecycle).unwrap();
    let works: Vec<_> = (0..3)
        .map(|_| lifecycle.in_flight().enter_owned().unwrap())
        .collect();
    thread::spawn(move || works.into_iter().for_each(|work| drop((order(), work))));
    serve(&lifecycle)
}

#[test]
fn a_stop_with_progress_tells_it_and_asks_for_more_time() {
    let plan = Plan::new()
        .with_grace_period(Duration::from_secs(50))
        .with_hard_deadline(Duration::from_secs(200));
    if is_child() {
        three_works_and_a_hook(plan.with_closing(Duration::from_secs(50)));
    }
    let _bound = bound();
    let manager = Manager::new();
    let mut child = manager.start("a_stop_with_progress_tells_it_and_asks_for_more_time");
    manager.expect(&["STATUS=starting"]);
    manager.expect(&["READY=1", "STATUS=serving"]);
    child.signal("TERM");
    manager.expect_extended(&["STOPPING=1", "STATUS=stopping: SIGTERM"]);
    let mut status = manager.expect_status("draining: 3 calls left, ");
    for left in ["2 calls", "1 call"] {
        assert_eq!(status, Some(EXTENSION));
        child.tell("one is done");
        status = next_news(&manager, &format!("draining: {left} left, "));
    }
    child.tell("the last is done");
    // The hook runs already when this phase is told, or a moment later.
    let mut told = std::iter::repeat_with(|| manager.hear());
    let closing = told.find(|it| it[0].starts_with("STATUS=closing: journal, "));
    assert_eq!(extension_of(&closing.unwrap()), Some(EXTENSION));
    child.tell("the hook is done");
    while manager.hear() != ["STATUS=stopped: SIGTERM"] {}
    assert_eq!(child.end().code, Some(i32::from(exit_code::CLEAN)));
}

/// Hears until something but the time has changed, which must be this.
fn next_news(manager: &Manager, beginning: &str) -> Option<Duration> {
    loop {
        let heard = manager.hear();
        if let extension @ Some(_) = extension_of(&heard) {
            assert!(
                heard[0].starts_with(&format!("STATUS={beginning}")),
                "{heard:?}"
            );
            return extension;
        }
    }
}

#[test]
fn a_stop_without_progress_asks_for_no_more_time_and_never_for_more_than_the_plan() {
    let plan = Plan::new()
        .with_grace_period(Duration::from_secs(6))
        .with_force_period(Duration::from_secs(2))
        .with_closing(Duration::from_secs(1))
        .with_hard_deadline(Duration::from_millis(9500));
    if is_child() {
        let lifecycle = builder().plan(plan).build().unwrap();
        Notify::attach(&lifecycle).unwrap();
        let _stuck = lifecycle.in_flight().enter_owned().unwrap();
        serve(&lifecycle);
    }
    let _bound = bound();
    let manager = Manager::new();
    let child = manager
        .start("a_stop_without_progress_asks_for_no_more_time_and_never_for_more_than_the_plan");
    manager.expect(&["STATUS=starting"]);
    manager.expect(&["READY=1", "STATUS=serving"]);
    let signal = Instant::now();
    child.signal("TERM");
    let first = manager.expect_extended(&["STOPPING=1", "STATUS=stopping: SIGTERM"]);
    assert!(first <= EXTENSION, "{first:?}");
    assert!(manager.expect_status("draining: 1 call left, ").is_some());
    // Told again for its time alone, which asks for nothing.
    let mut told = std::iter::repeat_with(|| manager.hear());
    let is_drain = |it: &Vec<String>| it[0].starts_with("STATUS=draining: 1 call left, ");
    let cancelling = loop {
        match told.next().unwrap() {
            drain if is_drain(&drain) => assert_eq!(extension_of(&drain), None),
            other => break other,
        }
    };
    assert!(
        cancelling[0].starts_with("STATUS=cancelling: 1 call left, "),
        "{cancelling:?}"
    );
    let forced = extension_of(&cancelling).unwrap();
    // As much as there is left in the plan, of which the grace period is over.
    assert!(forced <= Duration::from_millis(3500) + MARGIN, "{forced:?}");
    let closing = manager.expect_status("closing, ").unwrap();
    assert!(
        closing <= Duration::from_millis(1500) + MARGIN,
        "{closing:?}"
    );
    assert!(signal.elapsed() >= Duration::from_secs(8));
    manager.expect(&["STATUS=stopped: SIGTERM"]);
    assert_eq!(child.end().code, Some(i32::from(exit_code::FORCED)));
}

#[test]
fn a_lame_duck_is_given_its_whole_time() {
    if is_child() {
        let plan = Plan::new().with_lame_duck(Duration::from_secs(40));
        let lifecycle = builder().plan(plan).build().unwrap();
        Notify::attach(&lifecycle).unwrap();
        serve(&lifecycle);
    }
    let _bound = bound();
    let manager = Manager::new();
    let child = manager.start("a_lame_duck_is_given_its_whole_time");
    manager.expect(&["STATUS=starting"]);
    manager.expect(&["READY=1", "STATUS=serving"]);
    child.signal("TERM");
    manager.expect_extended(&["STOPPING=1", "STATUS=stopping: SIGTERM"]);
    let whole = manager.expect_status("lame duck: 0 calls left, ");
    assert_eq!(whole, Some(Duration::from_secs(40) + EXTENSION));
    let drained = insisting(child.id(), "TERM", || {
        next_news(&manager, "draining: 0 calls left")
    });
    assert_eq!(drained, Some(EXTENSION));
    manager.expect_status("closing");
    manager.expect(&["STATUS=stopped: SIGTERM"]);
}

#[test]
fn without_a_notify_socket_there_is_no_thread() {
    if let Some(role) = role() {
        let lifecycle = builder().build().unwrap();
        Notify::attach(&lifecycle).unwrap();
        lifecycle.ready().unwrap();
        let is_there = || threads().iter().any(|it| it == "td-systemd");
        match role.as_str() {
            // So that the other half can fail.
            "told" => eventually("the thread is there", is_there),
            _ => assert!(!is_there(), "{:?}", threads()),
        }
        lifecycle.shutdown("test");
        exit(&lifecycle.wait());
    }
    let _bound = bound();
    let manager = Manager::new();
    let test = "without_a_notify_socket_there_is_no_thread";
    for (role, socket) in [
        ("alone", None),
        ("alone", Some("")),
        ("told", Some("there")),
    ] {
        let mut command = manager.command(role, test);
        match socket {
            None => command.env_remove("NOTIFY_SOCKET"),
            Some("") => command.env("NOTIFY_SOCKET", ""),
            Some(_) => &mut command,
        };
        let end = Process::spawn(command).end();
        assert_eq!(end.code, Some(0), "{role} {socket:?}: {}", end.stderr);
    }
}

fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|it| fs::read_to_string(it.ok()?.path().join("comm")).ok())
        .map(|it| it.trim_end().to_owned())
        .collect()
}

#[test]
fn a_manager_that_does_not_read_holds_up_nothing() {
    if is_child() {
        let lifecycle = builder().build().unwrap();
        Notify::attach(&lifecycle).unwrap();
        lifecycle.ready().unwrap();
        lifecycle.shutdown("test");
        exit(&lifecycle.wait());
    }
    let _bound = bound();
    let manager = Manager::new();
    // Until its queue is full.
    let filler = std::os::unix::net::UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"X", manager.path()).is_ok() {}
    let child = manager.start("a_manager_that_does_not_read_holds_up_nothing");
    let end = child.end();
    assert_eq!(end.code, Some(0), "{}", end.stderr);
}

#[test]
fn the_watchdog_is_fed_while_the_guard_thread_answers() {
    if is_child() {
        let lifecycle = builder().build().unwrap();
        Notify::attach(&lifecycle).unwrap();
        serve(&lifecycle);
    }
    let _bound = bound();
    let manager = Manager::new();
    let test = "the_watchdog_is_fed_while_the_guard_thread_answers";
    let mut command = manager.command("1", test);
    command.env("WATCHDOG_USEC", "20000");
    let child = Process::spawn(command);
    manager.expect(&["STATUS=starting"]);
    manager.expect(&["READY=1", "STATUS=serving"]);
    manager.expect_fed(20);
    child.signal("TERM");
    let mut told = std::iter::repeat_with(|| manager.hear()).filter(|it| *it != ["WATCHDOG=1"]);
    assert_eq!(told.next().unwrap()[0], "STOPPING=1");
    assert!(told.any(|it| it == ["STATUS=stopped: SIGTERM"]));
    assert_eq!(child.end().code, Some(0));
}

#[test]
fn the_watchdog_of_another_process_is_not_fed() {
    if is_child() {
        let lifecycle = builder().build().unwrap();
        Notify::attach(&lifecycle).unwrap();
        lifecycle.ready().unwrap();
        // Can but fail to see an error.
        assert!(lifecycle.wait_timeout(Duration::from_millis(200)).is_none());
        lifecycle.shutdown("test");
        exit(&lifecycle.wait());
    }
    let _bound = bound();
    let manager = Manager::new();
    for (name, value) in [
        ("WATCHDOG_PID", "1"),
        ("WATCHDOG_USEC", "0"),
        ("WATCHDOG_USEC", "soon"),
    ] {
        let mut command = manager.command("1", "the_watchdog_of_another_process_is_not_fed");
        command.env("WATCHDOG_USEC", "2000").env(name, value);
        let end = Process::spawn(command).end();
        assert_eq!(end.code, Some(0), "{}", end.stderr);
        let told = manager.rest();
        assert!(!told.iter().any(|it| *it == ["WATCHDOG=1"]), "{told:?}");
        assert_eq!(told.last().unwrap(), &["STATUS=stopped: requested: test"]);
    }
}

/// What the process has mapped, in bytes.
fn mapped() -> nix::sys::resource::rlim_t {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let size = status.lines().find_map(|it| it.strip_prefix("VmSize:"));
    let kilobytes = size.and_then(|it| it.trim().strip_suffix(" kB"));
    kilobytes
        .unwrap()
        .parse::<nix::sys::resource::rlim_t>()
        .unwrap()
        << 10
}

/// Whether another thread of this process is at anything but a wait.
fn others_run() -> bool {
    let this = nix::unistd::gettid().to_string();
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let others = threads
        .map(|it| it.unwrap().path())
        .filter(|it| !it.ends_with(&this));
    // One that is gone meanwhile does not run. proc(5): the state stands behind the name, which is in brackets.
    let stats = others.filter_map(|it| std::fs::read_to_string(it.join("stat")).ok());
    let mut states = stats.filter_map(|it| it.rsplit_once(") ")?.1.chars().next());
    states.any(|it| it != 'S')
}

#[test]
fn an_attempt_that_has_failed_leaves_nothing_behind() {
    use nix::sys::resource::{getrlimit, setrlimit, Resource::RLIMIT_AS};
    if is_child() {
        let lifecycle = builder().build().unwrap();
        let (soft, hard) = getrlimit(RLIMIT_AS).unwrap();
        // A thread that is just starting takes memory, too, and cannot do without.
        while others_run() {
            std::thread::yield_now();
        }
        // Too little for the stack of a thread.
        setrlimit(RLIMIT_AS, mapped() + (1 << 20), hard).unwrap();
        let failed = Notify::attach(&lifecycle);
        setrlimit(RLIMIT_AS, soft, hard).unwrap();
        let error = failed.expect_err("there is no room for a thread");
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
        assert!(Notify::of(&lifecycle).is_none());
        Notify::attach(&lifecycle).unwrap();
        serve(&lifecycle);
    }
    let _bound = bound();
    let manager = Manager::new();
    let child = manager.start("an_attempt_that_has_failed_leaves_nothing_behind");
    manager.expect(&["STATUS=starting"]);
    manager.expect(&["READY=1", "STATUS=serving"]);
    child.signal("TERM");
    expect_idle_stop(&manager, "SIGTERM");
    assert_eq!(child.end().code, Some(i32::from(exit_code::CLEAN)));
}

#[cfg(feature = "upgrade")]
#[test]
fn what_a_program_without_a_server_listens_at_is_stored_too() {
    use touchdown::sockets::stored_name;
    use touchdown::Listen;
    if let Some(address) = role() {
        let lifecycle = builder().build().unwrap();
        let notify = Notify::attach(&lifecycle).unwrap();
        let acceptor = Listen::new(address).bind(&lifecycle).unwrap();
        notify.store_listeners(&acceptor).unwrap();
        let _ = lifecycle.ready();
        assert!(acceptor.accept().is_none());
        exit(&lifecycle.wait());
    }
    let _bound = bound();
    let manager = Manager::new();
    let path = manager.folder.join("it.sock");
    let address = format!("unix:{}", path.display());
    let test = "what_a_program_without_a_server_listens_at_is_stored_too";
    let child = Process::spawn(manager.command(&address, test));
    manager.expect(&["STATUS=starting"]);
    let name = format!("FDNAME={}", stored_name(&address).unwrap());
    manager.expect(&["FDSTOREREMOVE=1", &name]);
    manager.expect(&["FDSTORE=1", &name]);
    manager.expect(&["READY=1", "STATUS=serving"]);
    child.signal("TERM");
    assert_eq!(child.end().code, Some(i32::from(exit_code::CLEAN)));
    assert_eq!(manager.rest().last().unwrap(), &["STATUS=stopped: SIGTERM"]);
    assert!(path.exists(), "the next process listens there");
}
