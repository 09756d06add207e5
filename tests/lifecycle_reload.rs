//! Reloads: what HUP runs, and what it does without anything to run.

mod lifecycle_support;

use std::error::Error;
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{bounded, never, unbounded, Receiver, Sender};
use lifecycle_support::{bound, eventually, is_child, role, say, Process};
use touchdown::lifecycle::{exit_code, Builder, Lifecycle, Plan, Reason, SignalSender, Signals};

const SIGHUP: i32 = 1;
const SIGTERM: i32 = 15;

fn served(builder: Builder) -> (Lifecycle, SignalSender) {
    let (signals, sender) = Signals::injected();
    let lifecycle = builder.signals(signals).build().unwrap();
    lifecycle.ready().unwrap();
    (lifecycle, sender)
}

type Reloaded = Result<(), Box<dyn Error + Send + Sync>>;

/// A callback that says that it runs, and ends when it is let.
fn gated() -> (impl FnMut() -> Reloaded, Receiver<()>, Sender<()>) {
    let (began, begun) = unbounded();
    let (release, released) = unbounded::<()>();
    let callback = move || {
        began.send(())?;
        let _ = released.recv();
        Ok(())
    };
    (callback, begun, release)
}

#[test]
fn a_hang_up_runs_all_callbacks_in_order_on_a_thread_of_their_own() {
    let _bound = bound();
    let (sender, calls) = unbounded();
    let callback = |name: &'static str| {
        let sender = sender.clone();
        move || {
            let thread = thread::current().name().unwrap_or_default().to_owned();
            Ok(sender.send((name, thread))?)
        }
    };
    let (lifecycle, signals) = served(
        Lifecycle::builder()
            .on_reload("config", callback("config"))
            .on_reload("certificates", callback("certificates")),
    );
    signals.send(SIGHUP);
    for name in ["config", "certificates"] {
        assert_eq!(calls.recv().unwrap(), (name, "td-reload".to_owned()));
    }
    lifecycle.reload();
    assert_eq!(calls.recv().unwrap().0, "config");
    assert_eq!(calls.recv().unwrap().0, "certificates");
    assert!(!lifecycle.stopping().is_cancelled());
    lifecycle.shutdown("test");
    assert_eq!(lifecycle.wait().exit_code(), exit_code::CLEAN);
}

#[test]
fn what_comes_while_one_runs_makes_one_more() {
    let _bound = bound();
    let (callback, begun, release) = gated();
    let (lifecycle, signals) = served(Lifecycle::builder().on_reload("config", callback));
    signals.send(SIGHUP);
    begun.recv().unwrap();
    for _ in 0..10 {
        lifecycle.reload();
    }
    assert_eq!(
        lifecycle.describe(),
        "serving\nreload: config\nin flight: 0\n"
    );
    release.send(()).unwrap();
    begun.recv().unwrap();
    release.send(()).unwrap();
    assert!(begun.recv_timeout(Duration::from_millis(100)).is_err());
    lifecycle.shutdown("test");
    lifecycle.wait();
}

#[test]
fn one_that_fails_or_panics_keeps_no_other_from_running_now_or_later() {
    let _bound = bound();
    let (sender, calls) = unbounded();
    let rounds = AtomicUsize::new(0);
    let (lifecycle, signals) = served(
        Lifecycle::builder()
            .on_reload("fails", || Err("bad value".into()))
            .on_reload("panics", move || {
                match rounds.fetch_add(1, Ordering::SeqCst) {
                    0 => panic!("at once"),
                    _ => Ok(()),
                }
            })
            .on_reload("last", move || Ok(sender.send(())?)),
    );
    for _ in 0..3 {
        signals.send(SIGHUP);
        calls.recv().unwrap();
    }
    lifecycle.shutdown("test");
    assert_eq!(lifecycle.wait().exit_code(), exit_code::CLEAN);
}

#[test]
fn during_start_up_it_is_put_off() {
    let _bound = bound();
    let (sender, calls) = unbounded();
    let (signals, hang_up) = Signals::injected();
    let lifecycle = Lifecycle::builder()
        .signals(signals)
        .on_reload("config", move || Ok(sender.send(())?))
        .build()
        .unwrap();
    hang_up.send(SIGHUP);
    lifecycle.reload();
    assert!(calls.recv_timeout(Duration::from_millis(50)).is_err());
    lifecycle.ready().unwrap();
    calls.recv().unwrap();
}

#[test]
fn during_a_stop_it_does_nothing() {
    let _bound = bound();
    let runs = Arc::new(AtomicUsize::new(0));
    let (lifecycle, signals) = served(
        Lifecycle::builder()
            .plan(Plan::new().with_grace_period(Duration::MAX))
            .on_reload("config", {
                let runs = Arc::clone(&runs);
                move || {
                    runs.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                }
            }),
    );
    let work = lifecycle.in_flight().enter_owned().unwrap();
    lifecycle.shutdown("test");
    for _ in 0..5 {
        signals.send(SIGHUP);
    }
    lifecycle.reload();
    lifecycle.draining().wait();
    // Were they counted, they would have ended the drain by now, or the process.
    assert!(!lifecycle
        .cancelling()
        .wait_timeout(Duration::from_millis(50)));
    drop(work);
    assert_eq!(lifecycle.wait().exit_code(), exit_code::CLEAN);
    assert_eq!(runs.load(Ordering::SeqCst), 0);
}

#[test]
fn one_that_hangs_holds_up_no_stop_and_is_named() {
    let _bound = bound();
    let (callback, begun, release) = gated();
    let (lifecycle, signals) = served(Lifecycle::builder().on_reload("config", callback));
    signals.send(SIGHUP);
    begun.recv().unwrap();
    signals.send(SIGTERM);
    let report = lifecycle.wait();
    assert_eq!(report.abandoned, ["reload config"]);
    assert_eq!(report.exit_code(), exit_code::CLEAN);
    drop(release);
}

#[test]
fn callbacks_are_dropped_with_the_stop_even_if_one_ran() {
    let _bound = bound();
    let witness = Arc::new(());
    let (callback, begun, release) = gated();
    let held = Arc::clone(&witness);
    let (lifecycle, signals) = served(
        Lifecycle::builder()
            .on_reload("config", callback)
            .on_reload("other", move || {
                let _: () = assert!(Arc::strong_count(&held) > 0);
                Ok(())
            }),
    );
    signals.send(SIGHUP);
    begun.recv().unwrap();
    lifecycle.shutdown("test");
    lifecycle.wait();
    drop(release);
    eventually("the callbacks are dropped", || {
        Arc::strong_count(&witness) == 1
    });
}

#[test]
fn without_callbacks_it_begins_the_stop_and_is_not_counted() {
    let _bound = bound();
    let builder = Lifecycle::builder().plan(Plan::new().with_grace_period(Duration::MAX));
    let (lifecycle, signals) = served(builder);
    let work = lifecycle.in_flight().enter_owned().unwrap();
    for _ in 0..5 {
        signals.send(SIGHUP);
    }
    // The first that counts changes nothing, as after any stop that was begun by other means.
    signals.send(SIGTERM);
    lifecycle.draining().wait();
    assert!(!lifecycle
        .cancelling()
        .wait_timeout(Duration::from_millis(50)));
    signals.send(SIGTERM);
    lifecycle.cancelling().wait();
    drop(work);
    assert_eq!(lifecycle.wait().reason, Reason::Signal(SIGHUP));
}

/// `SigIgn` is a mask in which signal 1 has the lowest bit: proc(5).
fn hang_ups_are_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|it| it.strip_prefix("SigIgn:"));
    u64::from_str_radix(ignored.unwrap().trim(), 16).unwrap() & 1 != 0
}

#[test]
fn a_process_whose_terminal_goes_away_finishes_its_work() {
    if is_child() {
        let lifecycle = Lifecycle::builder()
            .signals(Signals::process())
            .build()
            .unwrap();
        lifecycle.ready().unwrap();
        say("ready");
        let report = lifecycle.wait();
        say(&report.reason.to_string());
        process::exit(report.exit_code().into());
    }
    if hang_ups_are_ignored() {
        eprintln!("SKIPPED: hang-ups are ignored here, as under nohup, and children inherit that");
        return;
    }
    let mut child = Process::start("a_process_whose_terminal_goes_away_finishes_its_work");
    child.hear("ready");
    child.signal("HUP");
    let end = child.end();
    assert_eq!(end.code, Some(0), "{end:?}");
    assert!(end.stdout.contains("SIGHUP"), "{end:?}");
}

#[test]
fn a_process_that_was_started_with_hang_ups_ignored_does_not_stop_for_one() {
    let test = "a_process_that_was_started_with_hang_ups_ignored_does_not_stop_for_one";
    if role().as_deref() == Some("1") {
        // What nohup does; the disposition is inherited.
        let status = process::Command::new("sh")
            .args(["-c", "trap '' HUP; exec \"$@\"", "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env("TOUCHDOWN_TEST_CHILD", "ignoring")
            .status();
        process::exit(status.unwrap().code().unwrap_or(99));
    }
    if is_child() {
        let lifecycle = Lifecycle::builder()
            .signals(Signals::process())
            .build()
            .unwrap();
        lifecycle.ready().unwrap();
        let pid = process::id().to_string();
        let kill = |signal: &str| {
            let mut kill = process::Command::new("sh");
            kill.args(["-c", "kill -s $0 $1", signal, &pid]);
            assert!(kill.status().unwrap().success());
        };
        kill("HUP");
        assert!(!lifecycle
            .stopping()
            .wait_timeout(Duration::from_millis(100)));
        kill("TERM");
        let report = lifecycle.wait();
        assert_eq!(report.reason, Reason::Signal(SIGTERM));
        // And so it stays when nobody listens any more.
        kill("HUP");
        process::exit(report.exit_code().into());
    }
    let end = Process::start(test).end();
    assert_eq!(end.code, Some(0), "{end:?}");
}

#[test]
fn a_process_reloads_and_goes_on() {
    if is_child() {
        let mut version = 0;
        let lifecycle = Lifecycle::builder()
            .signals(Signals::process())
            .on_reload("config", move || {
                version += 1;
                say(&format!("version {version}"));
                Ok(())
            })
            .build()
            .unwrap();
        lifecycle.ready().unwrap();
        say("ready");
        process::exit(lifecycle.wait().exit_code().into());
    }
    let mut child = Process::start("a_process_reloads_and_goes_on");
    child.hear("ready");
    for version in 1..=3 {
        child.signal("HUP");
        assert_eq!(child.hear("version"), format!("version {version}"));
    }
    assert!(child.is_running());
    child.signal("TERM");
    assert_eq!(child.end().code, Some(0));
}

#[test]
fn a_reload_that_hangs_is_in_the_last_words() {
    if is_child() {
        let (began, begun) = bounded(1);
        let plan = Plan::new()
            .with_grace_period(Duration::ZERO)
            .with_force_period(Duration::ZERO)
            .with_closing(Duration::ZERO)
            .with_hard_deadline(Duration::from_millis(200));
        let lifecycle = Lifecycle::builder()
            .plan(plan)
            .on_reload("config", move || {
                began.send(())?;
                let _ = never::<()>().recv();
                Ok(())
            })
            .observe(|transition| {
                if transition.to == touchdown::lifecycle::Phase::Draining {
                    let _ = never::<()>().recv();
                }
            })
            .build()
            .unwrap();
        lifecycle.ready().unwrap();
        lifecycle.reload();
        begun.recv().unwrap();
        lifecycle.shutdown("test");
        lifecycle.wait();
        process::exit(0);
    }
    let end = Process::start("a_reload_that_hangs_is_in_the_last_words").end();
    assert_eq!(end.code, Some(exit_code::HARD_DEADLINE.into()), "{end:?}");
    assert!(
        end.stderr.contains("touchdown:   reload: config\n"),
        "{end:?}"
    );
}
