//! A logger that panics or blocks: it holds up nothing, and ends nothing.

mod lifecycle_support;

use std::process;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crossbeam_channel::never;
use lifecycle_support::{bound, is_child, say, Process};
use log::{LevelFilter, Log, Metadata, Record};
use touchdown::lifecycle::{exit_code, Lifecycle, Signals};

/// Panics with a value that panics once more as it is dropped.
struct Vicious;

impl Drop for Vicious {
    fn drop(&mut self) {
        std::panic::resume_unwind(Box::new("as it is dropped"));
    }
}

/// Takes note of each line, and then panics.
struct Panics;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl Log for Panics {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        std::panic::resume_unwind(Box::new(Vicious));
    }
    fn log(&self, record: &Record<'_>) {
        LINES.lock().unwrap().push(record.args().to_string());
        std::panic::resume_unwind(Box::new(Vicious));
    }
    fn flush(&self) {}
}

/// Takes note of each line, and panics then.
struct Notes;

impl Log for Notes {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &Record<'_>) {
        Panics.log(record);
    }
    fn flush(&self) {}
}

struct Blocks;

fn block() -> ! {
    loop {
        let _ = never::<()>().recv();
    }
}

impl Log for Blocks {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        block()
    }
    fn log(&self, _: &Record<'_>) {
        block()
    }
    fn flush(&self) {}
}

fn walk_with(logger: &'static dyn Log) -> ! {
    log::set_logger(logger).unwrap();
    log::set_max_level(LevelFilter::Trace);
    let lifecycle = Lifecycle::builder()
        .signals(Signals::process())
        .build()
        .unwrap();
    lifecycle.ready().unwrap();
    say("serving");
    let code = lifecycle.wait().exit_code();
    for line in LINES.lock().unwrap().iter() {
        say(line);
    }
    process::exit(code.into());
}

#[test]
fn a_logger_that_panics_whatever_it_is_asked_ends_no_thread_of_a_stop() {
    let _bound = bound();
    if is_child() {
        walk_with(&Panics);
    }
    let test = "a_logger_that_panics_whatever_it_is_asked_ends_no_thread_of_a_stop";
    let mut child = Process::start(test);
    child.hear("serving");
    child.signal("TERM");
    let end = child.end();
    assert_eq!(end.code, Some(exit_code::CLEAN.into()), "{end:?}");
}

#[test]
fn a_logger_that_panics_gets_the_lines_that_follow() {
    let _bound = bound();
    if is_child() {
        walk_with(&Notes);
    }
    let mut child = Process::start("a_logger_that_panics_gets_the_lines_that_follow");
    child.hear("serving");
    child.signal("TERM");
    let end = child.end();
    assert_eq!(end.code, Some(exit_code::CLEAN.into()), "{end:?}");
    for line in [
        "starting → serving",
        "stopping: SIGTERM",
        "closing → stopped",
    ] {
        assert!(end.stdout.contains(line), "no {line:?} in {end:?}");
    }
}

#[test]
fn a_logger_that_blocks_whatever_it_is_asked_does_not_hold_up_a_stop() {
    let _bound = bound();
    if is_child() {
        walk_with(&Blocks);
    }
    let test = "a_logger_that_blocks_whatever_it_is_asked_does_not_hold_up_a_stop";
    let mut child = Process::start(test);
    child.hear("serving");
    let began = Instant::now();
    child.signal("TERM");
    let end = child.end();
    assert_eq!(end.code, Some(exit_code::CLEAN.into()), "{end:?}");
    // It waits a quarter of a second for the log at its end.
    assert!(began.elapsed() < Duration::from_secs(10), "{end:?}");
}
