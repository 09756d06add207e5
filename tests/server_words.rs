//! What a server says in the log: each line is for somebody who has to do something about it.
#![cfg(feature = "client")]

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::*;
use log::Level;
use touchdown::client::CallOptions;
use touchdown::lifecycle::{exit_code, Lifecycle, Plan};
use touchdown::protobuf::well_known_types::wrappers::StringValue;
use touchdown::{Call, Server, ServerBuilder, Service, Status};

/// What was said of the server of this name: the tests of this file share the log.
fn said(level: Level, name: &str) -> Vec<String> {
    let of_it = lines_that(|its, line| its == level && line.starts_with(name));
    of_it.into_iter().map(|(_, line)| line).collect()
}

/// Waits for a line, and returns it.
fn hear(level: Level, name: &str, words: &str) -> String {
    let find = || said(level, name).into_iter().find(|it| it.contains(words));
    eventually(&format!("{name} says {words:?}"), || find().is_some());
    find().unwrap()
}

fn named(name: &str, service: Service) -> ServerBuilder {
    keep_the_log();
    let builder = Server::builder().address("127.0.0.1:0").name(name);
    builder.service(service)
}

#[test]
fn a_server_that_is_dropped_says_what_it_does_not_wait_for() {
    let (service, begun, release) = gated();
    let server = named("dropped", service).start().unwrap();
    let (client, lifecycle) = (client(&server), server.lifecycle().clone());
    let call = thread::spawn(move || say(&client, "hello"));
    begun.recv_timeout(LONG).unwrap();
    let began = Instant::now();
    drop(server);
    // The plan leaves the call 30 s.
    assert!(began.elapsed() < Duration::from_secs(15));
    let line = hear(Level::Warn, "dropped", "was dropped");
    for words in [
        "is draining after 1s with 1 calls in flight",
        "oldest: /test.Echo/Say of 127.0.0.1:",
        "call Server::shutdown or Server::wait",
    ] {
        assert!(line.contains(words), "{line}");
    }
    // The stop goes on all the same, and the call lands.
    release.send(()).unwrap();
    assert_eq!(call.join().unwrap().unwrap(), "hello");
    assert_eq!(lifecycle.wait().exit_code(), exit_code::CLEAN);
}

#[test]
fn a_thread_that_panics_does_not_wait_for_its_server() {
    let (service, begun, release) = gated();
    let server = named("panicked", service).start().unwrap();
    let (client, lifecycle) = (client(&server), server.lifecycle().clone());
    let call = thread::spawn(move || say(&client, "hello"));
    begun.recv_timeout(LONG).unwrap();
    let test = thread::spawn(move || {
        let _server = server;
        panic!("as a test does");
    });
    test.join().unwrap_err();
    assert!(lifecycle.stopping().is_cancelled());
    release.send(()).unwrap();
    assert_eq!(call.join().unwrap().unwrap(), "hello");
    assert_eq!(lifecycle.wait().exit_code(), exit_code::CLEAN);
    assert_eq!(said(Level::Warn, "panicked: was dropped"), [""; 0]);
}

#[test]
fn a_program_that_serves_and_forgets_to_say_that_it_is_ready_is_told_so_once() {
    let plan = Plan::new().with_grace_period(LONG);
    let forgets = Lifecycle::builder().name("early").plan(plan).build();
    let forgets = forgets.unwrap();
    let server = named("early", echo()).start_with(&forgets).unwrap();
    let client = client(&server);
    say(&client, "hello").unwrap();
    hear(Level::Warn, "early: ", "serves, and is not ready");
    say(&client, "again").unwrap();
    forgets.shutdown("test");
    forgets.wait();
    assert_eq!(
        said(Level::Warn, "early: serves, and is not ready").len(),
        1
    );
}

#[test]
fn a_program_that_is_ready_in_time_is_told_nothing() {
    let lifecycle = Lifecycle::builder().build().unwrap();
    let server = named("in time", echo()).start_with(&lifecycle).unwrap();
    let client = client(&server);
    say(&client, "a client that was waiting").unwrap();
    lifecycle.ready().unwrap();
    say(&client, "hello").unwrap();
    lifecycle.shutdown("test");
    lifecycle.wait();
    assert_eq!(said(Level::Warn, "in time"), [""; 0]);
}

#[test]
fn calls_that_wait_for_a_worker_are_told_once_with_the_oldest_handler() {
    let (service, begun, release) = gated();
    let second = Service::builder("test.Busy")
        .unary("Waits", |_: &Call, it: StringValue| Ok::<_, Status>(it));
    let server = named("busy", service)
        .service(second.build())
        .workers(1)
        .start()
        .unwrap();
    let client = client(&server);
    thread::scope(|scope| {
        let first = scope.spawn(|| say(&client, "hello"));
        begun.recv_timeout(LONG).unwrap();
        let waits = scope.spawn(|| {
            let options = CallOptions::default().timeout(LONG);
            client.unary::<_, StringValue>("/test.Busy/Waits", &text(""), options)
        });
        // It has no name of the server's.
        let line = hear(
            Level::Warn,
            "1 of 1 handler threads are busy",
            "/test.Busy/Waits",
        );
        for words in [
            "1 of 1 handler threads are busy, and 1 calls wait for one, the first for 1.",
            "s: /test.Busy/Waits; the oldest handler: /test.Echo/Say of 127.0.0.1:",
            "ServerBuilder::workers",
        ] {
            assert!(line.contains(words), "{line}");
        }
        release.send(()).unwrap();
        assert!(first.join().unwrap().is_ok() && waits.join().unwrap().is_ok());
    });
    assert_eq!(said(Level::Warn, "1 of 1 handler threads").len(), 1);
}

/// The admin service has a lifecycle of its own, which must not speak as if it were the program's.
#[cfg(feature = "admin")]
#[test]
fn the_lifecycle_of_the_admin_service_is_named() {
    let path = std::env::temp_dir().join(format!("touchdown-words-{}", std::process::id()));
    let admin = touchdown::admin::Admin::at(&path);
    let server = named("with admin", echo()).admin(admin).start().unwrap();
    server.shutdown();
    let name = format!("admin at {}: ", path.display());
    for words in [
        "starting → serving",
        "shutdown() was called",
        "stopped cleanly",
    ] {
        hear(Level::Info, &name, words);
    }
}

#[test]
fn who_is_told_to_stop_and_does_not_leave_is_abandoned_in_the_log_and_in_the_report() {
    let (service, begun, _release) = gated();
    let plan = Plan::new()
        .with_grace_period(Duration::from_millis(50))
        .with_force_period(Duration::from_millis(50));
    let builder = named("deaf", service).lifecycle(Lifecycle::builder().plan(plan));
    let server = builder.start().unwrap();
    let client = client(&server);
    let call = thread::spawn(move || say(&client, "hello"));
    begun.recv_timeout(LONG).unwrap();
    let report = server.shutdown();
    assert!(call.join().unwrap().is_err());
    let told =
        "told 1 calls to stop; those that do not leave within the force period are abandoned";
    hear(Level::Warn, "deaf: ", told);
    let counts = "0 left when told to stop, 1 abandoned";
    assert!(report.to_string().contains(counts), "{report}");
}
