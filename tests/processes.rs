//! Servers in processes of their own: real signals, and exit codes.
#![cfg(feature = "server")]

mod common;
mod lifecycle_support;

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use common::*;
use lifecycle_support::{bound, is_child, say as tell, Process};
use touchdown::client::{CallOptions, Client};
use touchdown::lifecycle::{exit_code, Report, Signals};
use touchdown::protobuf::well_known_types::wrappers::StringValue;
use touchdown::{Code, Server, Service, Status};

/// Runs a server that says where it listens, until it stops; then exits as `main` would.
fn serve(service: Service) -> ! {
    let plan = quick_plan()
        .grace_period(Duration::from_millis(300))
        .force_period(Duration::from_millis(100));
    let server = builder(service)
        .plan(plan)
        .signals(Signals::process())
        .start()
        .expect("it starts");
    tell(&format!("listening at {}", server.address()));
    let report: Report = server.wait();
    tell(&report.to_string());
    // As the return from `main` does: with everything that runs at exit.
    let _: ExitCode = report.clone().into();
    std::process::exit(report.exit_code().into())
}

fn connect(child: &mut Process) -> Client {
    let line = child.hear("listening at");
    let address = line.rsplit(' ').next().unwrap();
    Client::new(&channel_to(address))
}

#[test]
fn a_server_that_gets_sigterm_lands_its_calls_and_exits_cleanly() {
    let _bound = bound();
    if is_child() {
        serve(unary(|call, request| {
            tell("begun");
            call.token().wait_timeout(Duration::from_millis(100));
            Ok(request)
        }));
    }
    let mut child = Process::start("a_server_that_gets_sigterm_lands_its_calls_and_exits_cleanly");
    let client = connect(&mut child);
    let call = thread::spawn(move || say(&client, "hello"));
    child.hear("begun");
    child.signal("TERM");
    assert_eq!(call.join().unwrap().unwrap(), "hello");
    let end = child.end();
    assert_eq!(end.code, Some(exit_code::CLEAN.into()), "{end:?}");
    assert!(end.stdout.contains("1 completed"), "{end:?}");
}

#[test]
fn a_handler_that_never_returns_does_not_keep_the_process() {
    let _bound = bound();
    if is_child() {
        serve(unary(|_, _| {
            tell("begun");
            loop {
                thread::park();
            }
        }));
    }
    for _ in 0..5 {
        let mut child = Process::start("a_handler_that_never_returns_does_not_keep_the_process");
        let client = connect(&mut child);
        let call = thread::spawn(move || say(&client, "hello"));
        child.hear("begun");
        child.signal("TERM");
        assert_eq!(call.join().unwrap().unwrap_err().code(), Code::Unavailable);
        let end = child.end();
        assert_eq!(end.code, Some(exit_code::FORCED.into()), "{end:?}");
        assert!(end.stdout.contains("1 abandoned"), "{end:?}");
    }
}

#[test]
fn a_busy_server_gets_sigterm_and_every_answer_is_right() {
    let _bound = bound();
    if is_child() {
        serve(echo());
    }
    for _ in 0..5 {
        let mut child = Process::start("a_busy_server_gets_sigterm_and_every_answer_is_right");
        let client = connect(&mut child);
        let callers: Vec<_> = (0..8)
            .map(|caller| {
                let client = client.clone();
                thread::spawn(move || {
                    for number in 0.. {
                        let sent = format!("{caller} {number}");
                        let options = CallOptions::default().timeout(LONG);
                        let reply: Result<StringValue, Status> =
                            client.unary("/test.Echo/Say", &text(&*sent), options);
                        match reply {
                            Ok(reply) => assert_eq!(reply.value, sent),
                            Err(status) => return (number, status),
                        }
                    }
                    unreachable!("the server goes away before the numbers end")
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(100));
        child.signal("TERM");
        let mut landed = 0;
        for caller in callers {
            let (calls, end) = caller.join().unwrap();
            landed += calls;
            // The one failure of each caller is that it found nobody to connect to.
            assert_eq!(end.code(), Code::Unavailable, "{end}");
            assert!(end.message().contains("failed to connect"), "{end}");
        }
        let end = child.end();
        assert_eq!(end.code, Some(exit_code::CLEAN.into()), "{end:?}");
        assert!(
            end.stdout.contains(&format!("{landed} completed")),
            "{landed}: {end:?}"
        );
    }
}

#[test]
fn a_server_that_cannot_start_exits_with_a_code_that_says_so() {
    let taken = start(echo());
    let address = taken.address().to_string();
    let report = Server::builder().address(&address).service(echo()).serve();
    assert_eq!(report.exit_code(), exit_code::FAILED_START);
    assert!(report.to_string().contains(&address), "{report}");
}
