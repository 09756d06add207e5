//! A logger that panics or blocks neither ends a server nor holds up its calls.
#![cfg(feature = "client")]

mod common;
mod lifecycle_support;

use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::*;
use crossbeam_channel::never;
use lifecycle_support::{role, say as tell, Process};
use log::{LevelFilter, Log, Metadata, Record};
use touchdown::lifecycle::exit_code;
use touchdown::Code;

/// Panics or blocks, whatever it is asked, once it is let loose.
struct Bad {
    is_loose: AtomicBool,
    blocks: AtomicBool,
}

static BAD: Bad = Bad {
    is_loose: AtomicBool::new(false),
    blocks: AtomicBool::new(false),
};

impl Bad {
    fn act(&self) {
        if !self.is_loose.load(Ordering::Relaxed) {
            return;
        }
        if self.blocks.load(Ordering::Relaxed) {
            let _ = never::<()>().recv();
        }
        panic!("a bad logger");
    }
}

impl Log for Bad {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        self.act();
        true
    }
    fn log(&self, _: &Record<'_>) {
        self.act();
    }
    fn flush(&self) {}
}

#[test]
fn calls_are_refused_and_served_though_the_logger_panics_or_blocks() {
    let test = "calls_are_refused_and_served_though_the_logger_panics_or_blocks";
    if let Some(role) = role() {
        log::set_logger(&BAD).unwrap();
        log::set_max_level(LevelFilter::Trace);
        BAD.blocks.store(role == "blocks", Ordering::Relaxed);
        let (begun, has_begun) = crossbeam_channel::bounded(1);
        let (go_on, may_go_on) = crossbeam_channel::bounded::<()>(0);
        let service = unary(move |_, request| {
            begun.send(()).unwrap();
            let _ = may_go_on.recv();
            Ok(request)
        });
        let server = builder(service).workers(1).backlog(0).start().unwrap();
        let client = client(&server);
        BAD.is_loose.store(true, Ordering::Relaxed);
        thread::scope(|scope| {
            let first = scope.spawn(|| say(&client, "first"));
            has_begun.recv().unwrap();
            // Each of them is a reason to say a line, under the lock that counts them.
            for _ in 0..100 {
                let status = say(&client, "too much").unwrap_err();
                assert_eq!(status.code(), Code::ResourceExhausted);
            }
            go_on.send(()).unwrap();
            assert_eq!(first.join().unwrap().unwrap(), "first");
        });
        let report = server.shutdown();
        assert_eq!((report.calls.completed, report.calls.refused), (1, 100));
        tell("served");
        process::exit(report.exit_code().into());
    }
    for role in ["panics", "blocks"] {
        let mut child = Process::start_as(role, test);
        child.hear("served");
        let end = child.end();
        assert_eq!(end.code, Some(exit_code::CLEAN.into()), "{end:?}");
    }
}
