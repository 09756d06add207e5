//! A log whose reader hangs holds up nothing.

mod lifecycle_support;

use std::process::{self, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use lifecycle_support::{bound, is_child, role, say, Process};
use touchdown::lifecycle::{exit_code, Lifecycle, Signals, Worker};

/// Fills the pipe that is the standard error, which nobody reads (pipe(7)), before the program runs.
const CLOGGED: &str = "head -c 65536 /dev/zero >&2; exec \"$0\" \"$@\"";

fn log_to_standard_error() {
    env_logger::Builder::new().parse_filters("debug").init();
}

#[test]
fn a_signal_is_obeyed_though_nobody_reads_the_log() {
    let _bound = bound();
    if is_child() {
        log_to_standard_error();
        let lifecycle = Lifecycle::builder()
            .signals(Signals::process())
            .observe(|transition| say(&format!("now {}", transition.to)))
            .build()
            .unwrap();
        let workers = lifecycle.workers("pump");
        // More lines than are kept.
        for _ in 0..2000 {
            workers
                .spawn(Worker::new("fails", |_| Err("gone")))
                .unwrap();
        }
        workers.join();
        lifecycle.ready().unwrap();
        let work = lifecycle.in_flight().enter_owned().unwrap();
        thread::spawn({
            let lifecycle = lifecycle.clone();
            move || {
                lifecycle.draining().wait();
                drop(work);
            }
        });
        let report = lifecycle.wait();
        say(&report.to_string());
        process::exit(report.exit_code().into());
    }
    let test = "a_signal_is_obeyed_though_nobody_reads_the_log";
    let mut child = Process::start_in_shell(CLOGGED, Stdio::null(), "1", test);
    child.hear("now serving");
    let began = Instant::now();
    child.signal("TERM");
    child.hear("now draining");
    child.hear("now stopped");
    let end = child.end_unread();
    assert_eq!(end.code, Some(exit_code::CLEAN.into()), "{end:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "{end:?}");
}

#[test]
fn who_reads_the_log_finds_the_report_at_the_end_and_every_line_in_its_order() {
    let _bound = bound();
    if role().is_some() {
        log_to_standard_error();
        let lifecycle = Lifecycle::builder().build().unwrap();
        lifecycle.ready().unwrap();
        lifecycle.shutdown("test");
        process::exit(lifecycle.wait().exit_code().into());
    }
    let test = "who_reads_the_log_finds_the_report_at_the_end_and_every_line_in_its_order";
    for _ in 0..20 {
        let end = Process::start(test).end();
        let lines = [
            "starting → serving",
            "stopping: requested: test",
            "serving → lame duck",
            "lame duck → draining",
            "draining → closing",
            "closing → stopped",
            "stopped cleanly in ",
        ];
        let places = lines.map(|line| end.stderr.find(line));
        assert!(places.iter().all(Option::is_some), "{end:?}");
        assert!(places.is_sorted(), "{end:?}");
        assert!(
            end.stderr.contains(" INFO  touchdown::lifecycle::words] "),
            "{end:?}"
        );
    }
}

#[test]
fn a_start_that_failed_says_why_to_who_reads_and_waits_for_nobody_else() {
    let _bound = bound();
    if is_child() {
        log_to_standard_error();
        let report = touchdown::lifecycle::Report::failed_start("no such device");
        let code = process::Termination::report(report);
        // It has no other face.
        assert_eq!(
            format!("{code:?}"),
            format!("{:?}", process::ExitCode::from(5))
        );
        process::exit(5);
    }
    let test = "a_start_that_failed_says_why_to_who_reads_and_waits_for_nobody_else";
    let end = Process::start(test).end();
    let said = end.stderr.matches("no such device").count();
    assert!(end.stderr.contains("ERROR") && said == 1, "{end:?}");
    let end = Process::start_in_shell(CLOGGED, Stdio::null(), "1", test).end_unread();
    assert_eq!(end.code, Some(exit_code::FAILED_START.into()), "{end:?}");
}
