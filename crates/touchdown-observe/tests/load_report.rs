//! What a server says of its load in the trailers of its calls.

#![cfg(feature = "load-report")]

mod load_report_support;

use std::env;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use load_report_support::*;
use touchdown::client::CallOptions;
use touchdown::lifecycle::exit_code;
use touchdown::protobuf::well_known_types::empty::Empty;
use touchdown::testing::TestServer;
use touchdown::{Call, Replies, Requests, Server, Service, Status};
use touchdown_observe::load_report::LoadReport;
use touchdown_observe::ObserveServer;

const ECHO: &str = "/demo.Demo/Echo";
const WORK: &str = "/demo.Demo/Work";
const WAIT: &str = "/demo.Demo/Wait";
const FAIL: &str = "/demo.Demo/Fail";
const REFUSE: &str = "/demo.Demo/Refuse";
const LIST: &str = "/demo.Demo/List";
const TALK: &str = "/demo.Demo/Talk";
const CHECK: &str = "/grpc.health.v1.Health/Check";

/// A server whose `Wait` waits until the sender is dropped, and `Work` takes so long.
fn started(workers: usize, work: Duration, reports: bool) -> (TestServer, Sender<()>) {
    let (release, released): (Sender<()>, Receiver<()>) = channel();
    let released = Mutex::new(released);
    let empty = |_: &Call, request: Empty| Ok::<_, Status>(request);
    let service = Service::builder("demo.Demo")
        .unary("Echo", empty)
        .unary("Work", move |_: &Call, request: Empty| {
            thread::sleep(work);
            Ok::<_, Status>(request)
        })
        .unary("Wait", move |_: &Call, request: Empty| {
            let _ = released.lock().unwrap().recv();
            Ok::<_, Status>(request)
        })
        .unary("Fail", |_: &Call, _: Empty| {
            Err::<Empty, _>(Status::internal("it is broken"))
        })
        .unary("Refuse", |_: &Call, _: Empty| {
            Err::<Empty, _>(Status::not_found("it is the caller's fault"))
        })
        .server_streaming(
            "List",
            |_: &Call, request: Empty, replies: Replies<Empty>| replies.send(&request),
        )
        .bidirectional(
            "Talk",
            |_: &Call, requests: Requests<Empty>, replies: Replies<Empty>| {
                requests.detach(
                    replies,
                    |said: Empty, replies: &touchdown::StreamReplies<Empty>| replies.send(&said),
                )
            },
        )
        .build();
    let mut builder = Server::builder().workers(workers).service(service);
    if reports {
        builder = builder.load_report(LoadReport::new());
    }
    (TestServer::start(builder).unwrap(), release)
}

fn quick(workers: usize) -> (TestServer, Sender<()>) {
    started(workers, Duration::ZERO, true)
}

#[test]
fn an_idle_server_that_is_called_is_idle() {
    let (server, _release) = quick(2);
    let report = Caller::new(&server).call(ECHO).unwrap();
    assert!(report.calls > 0.0, "{report:?}");
    assert!((0.0..0.05).contains(&report.utilization), "{report:?}");
    assert_eq!(report.faults, 0.0);
}

#[test]
fn every_kind_of_call_has_it_but_health_checks() {
    let (server, _release) = quick(2);
    let mut caller = Caller::new(&server);
    for path in [ECHO, FAIL, REFUSE, LIST, TALK] {
        assert!(caller.call(path).is_some(), "{path}");
    }
    assert_eq!(caller.call(CHECK), None);
}

#[test]
fn nobody_has_it_who_does_not_ask_for_it() {
    let (server, _release) = started(2, Duration::ZERO, false);
    assert_eq!(Caller::new(&server).call(ECHO), None);
}

#[test]
fn one_worker_of_two_that_is_blocked_is_half_of_the_load() {
    let (server, release) = quick(2);
    thread::scope(|scope| {
        let waits = scope.spawn(|| Caller::new(&server).call(WAIT));
        let mut caller = Caller::new(&server);
        // It is an average, and grows. Then it stays: what the calls here cost is added to it.
        caller.call_until(ECHO, |it| it.utilization >= 0.5);
        drop(release);
        assert!(waits.join().unwrap().is_some());
        caller.call_until(ECHO, |it| it.utilization < 0.4);
    });
}

/// Ends the loops of other threads, also if a test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn calls_that_wait_are_added() {
    let (server, _release) = started(1, Duration::from_millis(10), true);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| {
                let mut caller = Caller::new(&server);
                while !is_over.load(Ordering::Relaxed) {
                    caller.call(WORK).unwrap();
                }
            });
        }
        let _end = End(&is_over);
        // One of the six is worked on, and some of the others may be on their way.
        let report = Caller::new(&server).call_until(WORK, |it| it.utilization > 2.5);
        assert!(report.utilization < 7.0, "{report:?}");
        assert!(report.calls < 101.0, "{report:?}");
    });
}

#[test]
fn only_what_is_the_servers_fault_counts_as_an_error() {
    let (server, _release) = quick(2);
    let mut caller = Caller::new(&server);
    for path in [REFUSE, ECHO].repeat(10) {
        assert_eq!(caller.call(path).unwrap().faults, 0.0);
    }
    let report = caller.call_until(FAIL, |it| it.faults > 0.0);
    assert!(report.faults <= report.calls, "{report:?}");
}

/// The report comes from calls, which divide one of its numbers by the other: so they have to be of the same time.
#[test]
fn the_load_of_a_call_is_the_time_that_it_takes() {
    let work = Duration::from_millis(5);
    let (server, _release) = started(4, work, true);
    let mut caller = Caller::new(&server);
    for _ in 0..100 {
        let report = caller.call(WORK).unwrap();
        let cost = report.utilization * 4.0 / report.calls;
        // Nothing takes less than it sleeps for, and the last call may be counted without its work.
        assert!(cost > work.as_secs_f64() * 0.9, "{report:?}");
    }
}

#[test]
fn a_server_that_reports_ends_like_others() {
    let (server, _release) = quick(2);
    Caller::new(&server).call(ECHO).unwrap();
    assert_eq!(server.stop().exit_code(), exit_code::CLEAN);
}

#[test]
fn touchdowns_own_client_does_not_mind() {
    let (server, _release) = quick(2);
    let options = CallOptions::new().timeout(LONG);
    let reply: Result<Empty, Status> = server.client().unary(ECHO, &Empty::new(), options);
    assert_eq!(reply, Ok(Empty::new()));
}

/// Two servers of which one needs four times as long, and a client of another language that is told to balance by what
/// they report. In a folder of your own, install what it needs:
///
/// ```sh
/// npm install @grpc/grpc-js@1.14
/// ```
///
/// and then, from here:
///
/// ```sh
/// TOUCHDOWN_NODE_MODULES=FOLDER/node_modules \
///     cargo test -p touchdown-observe --features load-report --test load_report -- --ignored --nocapture
/// ```
#[test]
#[ignore = "needs Node with @grpc/grpc-js 1.14: see its comment"]
fn a_client_of_another_language_calls_the_quicker_server_more() {
    let (quick, _release) = started(4, Duration::from_millis(5), true);
    let (slow, _release) = started(4, Duration::from_millis(20), true);
    let modules = env::var("TOUCHDOWN_NODE_MODULES");
    let modules = modules.expect("TOUCHDOWN_NODE_MODULES is where @grpc/grpc-js is");
    let mut command = Command::new("node");
    command.arg("tests/load_report.mjs").arg(WORK);
    command.args([&quick, &slow].map(|it| it.address().to_string()));
    let output = command
        .env("TOUCHDOWN_NODE_MODULES", modules)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    println!("{said}");
    let counts: Vec<f64> = said
        .split_whitespace()
        .map(|it| it.parse().unwrap())
        .collect();
    let [of_quick, of_slow] = counts[..] else {
        panic!("{said}");
    };
    assert!(
        of_quick > 2.0 * of_slow && of_quick < 6.0 * of_slow,
        "{said}"
    );
}
