//! A server whose program serves and has never said that it is ready.
#![cfg(feature = "client")]

mod common;

use std::thread;
use std::time::Duration;

use common::*;
use crossbeam_channel::unbounded;
use touchdown::lifecycle::{exit_code, Lifecycle, Phase};
use touchdown::Server;

#[test]
fn a_stop_cuts_no_call_that_lands_in_time() {
    let lifecycle = Lifecycle::builder().plan(quick_plan()).build().unwrap();
    let (begin, begun) = unbounded();
    let slow = unary(move |call, request| {
        begin.send(()).unwrap();
        call.draining().wait();
        // Some time after it, and nobody is told to stop meanwhile.
        match call.token().wait_timeout(Duration::from_millis(600)) {
            true => Ok(text("told to stop")),
            false => Ok(request),
        }
    });
    let server = Server::builder().address("127.0.0.1:0").service(slow);
    let server = server.start_with(&lifecycle).unwrap();
    let client = client(&server);
    let call = thread::spawn(move || say(&client, "hello"));
    begun.recv().unwrap();
    lifecycle.shutdown("test");
    let report = lifecycle.wait();
    assert_eq!(call.join().unwrap().unwrap(), "hello", "{report}");
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    assert_eq!(report.calls.completed, 1, "{report}");
    let phases: Vec<_> = report.phases.iter().map(|it| it.phase).collect();
    assert_eq!(phases, [Phase::Starting, Phase::Draining, Phase::Closing]);
}
