//! What a program says of itself: when USR1 asks for it, and while a stop waits.

mod lifecycle_support;

use std::process;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, never};
use lifecycle_support::{bound, eventually, is_child, say, Part, Process};
use log::{Level, Log, Metadata, Record};
use touchdown::lifecycle::{exit_code, Lifecycle, Participant, Phase, Plan, Signals, StartupHook};

const SIGUSR1: i32 = signal_hook::consts::SIGUSR1;

/// A participant that has a state.
struct Pump;

impl Participant for Pump {
    fn name(&self) -> String {
        "pump".to_owned()
    }

    fn running(&self) -> Vec<String> {
        vec!["stroke 7".to_owned(), "stroke 8".to_owned()]
    }

    fn state(&self) -> Option<String> {
        Some("2 of 4 valves open".to_owned())
    }

    fn in_flight(&self) -> Option<usize> {
        Some(2)
    }
}

struct Panics;

impl Participant for Panics {
    fn name(&self) -> String {
        panic!("no name");
    }

    fn running(&self) -> Vec<String> {
        Vec::new()
    }
}

#[test]
fn it_tells_the_phase_the_hooks_the_count_and_each_participant() {
    let _bound = bound();
    let (began, begun) = bounded(0);
    let (release, released) = bounded::<()>(0);
    let lifecycle = Lifecycle::builder()
        .startup(StartupHook::new("config", move || {
            began.send(())?;
            let _ = released.recv();
            Ok(())
        }))
        .build()
        .unwrap();
    assert_eq!(lifecycle.describe(), "starting\nin flight: 0\n");
    thread::scope(|scope| {
        let server = scope.spawn(|| lifecycle.ready());
        begun.recv().unwrap();
        assert_eq!(
            lifecycle.describe(),
            "starting\nhook: config\nin flight: 0\n"
        );
        drop(release);
        server.join().unwrap().unwrap();
    });
    // One guard for both strokes of the pump, and one beside it.
    let work = [(); 2].map(|()| lifecycle.in_flight().enter_owned().unwrap());
    lifecycle.enlist(Arc::new(Panics)).unwrap();
    lifecycle.enlist(Arc::new(Pump)).unwrap();
    assert_eq!(
        lifecycle.describe(),
        "serving\nin flight: 3\npump: 2 of 4 valves open\npump: stroke 7\npump: stroke 8\n"
    );
    drop(work);
}

#[test]
fn a_process_with_everything_stuck_tells_its_state_and_lives_on() {
    if is_child() {
        let lifecycle = Lifecycle::builder()
            .plan(Plan::new().with_hard_deadline(Duration::from_secs(600)))
            .signals(Signals::process())
            .observe(|transition| {
                if transition.to == Phase::Draining {
                    say("stuck");
                    let _ = never::<()>().recv();
                }
            })
            .build()
            .unwrap();
        let part = Part::new();
        *part.running.lock().unwrap() = vec!["two\nlines".to_owned()];
        lifecycle.enlist(part).unwrap();
        lifecycle.ready().unwrap();
        let _held = std::io::stderr().lock();
        lifecycle.shutdown("test");
        lifecycle.wait();
    }
    let mut child = Process::start("a_process_with_everything_stuck_tells_its_state_and_lives_on");
    child.hear("stuck");
    let lines = [
        "touchdown: state, asked for by SIGUSR1: draining",
        "touchdown:   in flight: 0",
        "touchdown:   part: two lines",
    ];
    for _ in 0..3 {
        child.signal("USR1");
        for line in lines {
            child.hear_error(line);
        }
    }
    assert!(child.is_running());
    // It is not counted: three that are end the process. Two that come close together may be one.
    while child.is_running() {
        child.signal("TERM");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(child.end().code, Some(143));
}

#[test]
fn after_the_stop_it_does_not_end_the_process() {
    if is_child() {
        let lifecycle = Lifecycle::builder()
            .signals(Signals::process())
            .build()
            .unwrap();
        lifecycle.shutdown("test");
        let report = lifecycle.wait();
        signal_hook::low_level::raise(SIGUSR1).unwrap();
        process::exit(report.exit_code().into());
    }
    let end = Process::start("after_the_stop_it_does_not_end_the_process").end();
    assert_eq!(end.code, Some(0), "{end:?}");
}

#[test]
fn who_asks_all_the_time_holds_up_nothing() {
    let _bound = bound();
    let (signals, sender) = Signals::injected();
    let lifecycle = Lifecycle::builder().signals(signals).build().unwrap();
    lifecycle.ready().unwrap();
    for _ in 0..1000 {
        sender.send(SIGUSR1);
    }
    sender.send(signal_hook::consts::SIGTERM);
    assert_eq!(lifecycle.wait().exit_code(), exit_code::CLEAN);
}

/// What was logged, and when.
static LOGGED: OnceLock<Mutex<Vec<(Instant, String)>>> = OnceLock::new();

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record<'_>) {
        let mut logged = LOGGED.get_or_init(Mutex::default).lock().unwrap();
        logged.push((Instant::now(), record.args().to_string()));
    }

    fn flush(&self) {}
}

/// What was logged with this in it.
fn logged(part: &str) -> Vec<(Instant, String)> {
    let logged = LOGGED.get_or_init(Mutex::default).lock().unwrap();
    let lines = logged.iter().filter(|(_, line)| line.contains(part));
    lines.cloned().collect()
}

/// A participant with a name and a work of its own, so that tests side by side do not mix.
struct Named(&'static str, Vec<String>);

impl Participant for Named {
    fn name(&self) -> String {
        self.0.to_owned()
    }

    fn running(&self) -> Vec<String> {
        self.1.clone()
    }
}

#[test]
fn a_wait_says_after_a_second_and_then_every_five_what_it_waits_for() {
    let _bound = bound();
    let _ = log::set_logger(&Logger).map(|()| log::set_max_level(log::LevelFilter::Info));
    let plan = Plan::new().with_grace_period(Duration::MAX);
    let lifecycle = Lifecycle::builder().plan(plan).build().unwrap();
    let running = vec!["the oldest".to_owned(), "another".to_owned()];
    lifecycle
        .enlist(Arc::new(Named("patient", running)))
        .unwrap();
    lifecycle.ready().unwrap();
    let work = [(); 3].map(|()| lifecycle.in_flight().enter_owned().unwrap());
    let began = Instant::now();
    lifecycle.shutdown("test");
    eventually("two lines of progress", || logged("patient").len() == 2);
    let lines = logged("patient");
    assert!(lines[0].0 - began >= Duration::from_secs(1));
    // The logger may have had the first one a moment late.
    assert!(lines[1].0 - began >= Duration::from_secs(6));
    let (start, end) = (
        "draining for ",
        "s: 3 in flight, oldest: patient: the oldest",
    );
    for (_, line) in lines {
        assert!(line.starts_with(start) && line.ends_with(end), "{line}");
    }
    lifecycle.hurry();
    eventually("the next phase says so, too", || {
        logged("patient")
            .iter()
            .any(|(_, line)| line.starts_with("cancelling for "))
    });
    drop(work);
    lifecycle.wait();
}

#[test]
fn what_is_logged_is_cut_short_and_the_report_is_not() {
    let _bound = bound();
    let _ = log::set_logger(&Logger).map(|()| log::set_max_level(log::LevelFilter::Info));
    let plan = Plan::new()
        .with_grace_period(Duration::ZERO)
        .with_force_period(Duration::ZERO);
    let lifecycle = Lifecycle::builder().plan(plan).build().unwrap();
    let running = (0..500).map(|it| it.to_string()).collect();
    lifecycle.enlist(Arc::new(Named("crowd", running))).unwrap();
    lifecycle.ready().unwrap();
    let _work = lifecycle.in_flight().enter_owned().unwrap();
    lifecycle.shutdown("test");
    let report = lifecycle.wait();
    assert_eq!(report.abandoned.len(), 500);
    for line in ["told to stop: ", "abandoned: "] {
        let logged = logged("crowd: 0");
        let line = logged.iter().find(|(_, it)| it.starts_with(line)).unwrap();
        assert!(line.1.ends_with("crowd: 19 and 480 more"), "{}", line.1);
    }
    assert!(
        report.to_string().ends_with("crowd: 19 and 480 more"),
        "{report}"
    );
    assert_eq!(
        lifecycle.describe().lines().count(),
        2,
        "participants are let go"
    );
}
