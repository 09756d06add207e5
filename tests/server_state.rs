//! What a server has of its lifecycle beside the stop: start-up, reloads, and what it says of itself.
#![cfg(feature = "client")]

mod common;
mod lifecycle_support;

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::*;
use crossbeam_channel::{bounded, unbounded};
use lifecycle_support::{is_child, say as tell, Process};
use touchdown::client::CallOptions;
use touchdown::lifecycle::{exit_code, Hook, Lifecycle, Plan, Reason, Signals, StartupHook};
use touchdown::protobuf::well_known_types::wrappers::StringValue;
use touchdown::{Replies, Server, Service, StartError, Upgrade};

/// A socket's path that is nobody else's.
fn socket(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("touchdown-{name}-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

#[test]
fn start_up_hooks_run_before_it_listens_and_are_undone_after_it_has_closed() {
    let path = socket("start-up");
    let connects = {
        let path = path.clone();
        move || UnixStream::connect(&path).is_ok()
    };
    let (told, tells) = unbounded();
    let (before, after) = (connects.clone(), connects.clone());
    let (at_start, at_end) = (told.clone(), told);
    let hook = StartupHook::new("database", move || Ok(at_start.send(before())?))
        .undo(move || Ok(at_end.send(after())?));
    let server = Server::builder()
        .address(format!("unix:{}", path.display()))
        .plan(quick_plan())
        .service(echo())
        .startup(hook)
        .start()
        .unwrap();
    assert!(connects());
    let report = server.shutdown();
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    assert_eq!(report.startup[0].name, "database");
    assert_eq!(tells.try_iter().collect::<Vec<_>>(), [false, false]);
}

#[test]
fn a_start_up_hook_that_fails_keeps_it_from_listening() {
    let path = socket("fails");
    let address = format!("unix:{}", path.display());
    let fails = || StartupHook::new("database", || Err("locked".into()));
    let build = || {
        Server::builder()
            .address(&*address)
            .service(echo())
            .startup(fails())
    };
    let error = build().start().unwrap_err();
    assert!(matches!(error, StartError::Startup(_)), "{error:?}");
    assert_eq!(
        error.to_string(),
        "start-up hook \"database\" failed (locked)"
    );
    let (signals, _sender) = Signals::injected();
    let report = build().signals(signals).serve();
    assert_eq!(report.exit_code(), exit_code::FAILED_START);
    assert_eq!(report.reason.to_string(), format!("start failed: {error}"));
    assert!(!path.exists());
}

#[test]
fn an_address_that_is_taken_undoes_what_has_started() {
    let taken = start(echo());
    let (told, undone) = unbounded();
    let hook = StartupHook::new("database", || Ok(())).undo(move || Ok(told.send(())?));
    let error = Server::builder()
        .address(taken.address().to_string())
        .service(echo())
        .startup(hook)
        .start()
        .unwrap_err();
    assert!(matches!(error, StartError::Listen { .. }), "{error:?}");
    undone.try_recv().unwrap();
}

#[test]
fn a_signal_during_start_up_is_a_clean_end() {
    let (signals, sender) = Signals::injected();
    let hook = StartupHook::new("database", move || {
        sender.send(15);
        Ok(())
    });
    let report = builder(echo()).signals(signals).startup(hook).serve();
    assert_eq!(report.reason, Reason::Signal(15));
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
}

#[test]
fn what_a_shared_lifecycle_must_have_is_not_ignored_on_the_server() {
    let lifecycle = Lifecycle::builder().build().unwrap();
    let hook = || StartupHook::new("database", || Ok(()));
    for (builder, setting) in [
        (builder(echo()).startup(hook()), "startup"),
        (builder(echo()).on_reload("config", || Ok(())), "on_reload"),
        (
            builder(echo()).hook(Hook::new("journal", || Ok(()))),
            "hook",
        ),
    ] {
        let error = builder.start_with(&lifecycle).unwrap_err();
        let expected = "set, and must be set on the lifecycle that is shared";
        assert_eq!(error.to_string(), format!("{setting} is {expected}"));
    }
}

#[test]
fn a_hang_up_reloads_while_it_serves() {
    let config = Arc::new(Mutex::new(1));
    let (signals, sender) = Signals::injected();
    let (told, reloaded) = unbounded();
    let server = builder(unary({
        let config = Arc::clone(&config);
        move |_, _| Ok(text(config.lock().unwrap().to_string()))
    }))
    .signals(signals)
    .on_reload("config", move || {
        *config.lock().map_err(|error| error.to_string())? += 1;
        Ok(told.send(())?)
    })
    .start()
    .unwrap();
    let client = client(&server);
    assert_eq!(say(&client, "which?").unwrap(), "1");
    sender.send(1);
    reloaded.recv_timeout(LONG).unwrap();
    assert_eq!(say(&client, "which?").unwrap(), "2");
    assert_eq!(server.shutdown().exit_code(), exit_code::CLEAN);
}

#[test]
fn it_says_how_busy_it_is_and_names_its_calls_the_oldest_first() {
    let (began, begun) = unbounded();
    let (release, released) = bounded::<()>(0);
    let gated = move |_: &touchdown::Call, request: StringValue| {
        began.send(()).unwrap();
        let _ = released.recv();
        Ok(request)
    };
    let service = Service::builder("test.Echo")
        .unary("Say", gated.clone())
        .unary("Again", gated)
        .build();
    let server = builder(service)
        .name("busy")
        .workers(2)
        .backlog(5)
        .start()
        .unwrap();
    let lifecycle = server.lifecycle().clone();
    assert_eq!(
        lifecycle.describe(),
        "serving\nin flight: 0\nbusy: workers 0 of 2 busy, 0 calls wait of 5, 0 connections\n"
    );
    let client = client(&server);
    let call = |path: &'static str| {
        let client = client.clone();
        thread::spawn(move || {
            let options = CallOptions::default().timeout(LONG);
            client.unary::<_, StringValue>(path, &text("hello"), options)
        })
    };
    let mut calls = Vec::new();
    for path in ["/test.Echo/Again", "/test.Echo/Say"] {
        calls.push(call(path));
        begun.recv_timeout(LONG).unwrap();
    }
    calls.push(call("/test.Echo/Say"));
    eventually("the third waits", || {
        lifecycle.describe().contains("1 calls wait of 5")
    });
    let said = lifecycle.describe();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines[..3],
        [
            "serving",
            "in flight: 3",
            "busy: workers 2 of 2 busy, 1 calls wait of 5, 1 connections"
        ]
    );
    for (line, path) in lines[3..].iter().zip(["Again", "Say"]) {
        let start = format!("busy: /test.Echo/{path} of ipv4:127.0.0.1:");
        assert!(
            line.starts_with(&start) && line.contains("s on td-worker (thread "),
            "{line}"
        );
    }
    assert_eq!(lines.len(), 5, "{said}");
    drop(release);
    for call in calls {
        call.join().unwrap().unwrap();
    }
    assert_eq!(server.shutdown().exit_code(), exit_code::CLEAN);
}

#[test]
fn a_process_with_every_worker_stuck_tells_its_state_and_exits_at_the_third_signal() {
    if is_child() {
        let stuck = unary(|_, _| {
            tell("begun");
            loop {
                thread::park();
            }
        });
        let server = builder(stuck)
            .name("stuck")
            .workers(1)
            .plan(
                Plan::new()
                    .with_grace_period(Duration::MAX)
                    .with_force_period(Duration::MAX),
            )
            .signals(Signals::process())
            .start()
            .unwrap();
        let lifecycle = server.lifecycle();
        lifecycle.observe(|transition| tell(&format!("now {}", transition.to)));
        let client = client(&server);
        thread::spawn(move || say_with(&client, "hello", CallOptions::default()));
        server.wait();
    }
    let mut child = Process::start(
        "a_process_with_every_worker_stuck_tells_its_state_and_exits_at_the_third_signal",
    );
    child.hear("begun");
    let state = "touchdown:   stuck: workers 1 of 1 busy, 0 calls wait of 1024, 1 connections";
    for phase in ["now draining", "now cancelling"] {
        child.signal("USR1");
        child.hear_error(state);
        child.insist("TERM", phase);
    }
    let end = child.insist_until_the_end("TERM");
    assert_eq!(end.code, Some(143), "{end:?}");
    let call = "touchdown:   stuck: /test.Echo/Say of ipv4:127.0.0.1:";
    assert!(end.stderr.contains(call), "{end:?}");
}

#[test]
fn a_detached_stream_is_named_as_such() {
    let (hand_out, handed_out) = unbounded();
    let service = Service::builder("test.News")
        .server_streaming(
            "Read",
            move |_, _: StringValue, replies: Replies<StringValue>| {
                hand_out.send(replies.detach()).unwrap();
                Ok(())
            },
        )
        .build();
    let server = builder(service).name("news").start().unwrap();
    let client = client(&server);
    let options = CallOptions::default().timeout(LONG);
    let stream = client
        .server_streaming::<_, StringValue>("/test.News/Read", &text(""), options)
        .unwrap();
    let replies = handed_out.recv_timeout(LONG).unwrap();
    eventually("its handler has returned", || {
        let said = server.lifecycle().describe();
        let news: Vec<&str> = said
            .lines()
            .filter(|it| it.contains("/test.News/Read"))
            .collect();
        news.len() == 1
            && news[0].starts_with("news: /test.News/Read of ipv4:127.0.0.1:")
            && news[0].ends_with("s detached, not finished")
    });
    replies.finish(Ok(()));
    drop(stream);
    assert_eq!(server.shutdown().exit_code(), exit_code::CLEAN);
}

#[test]
fn a_side_door_that_was_closed_does_not_keep_the_program_from_being_replaced() {
    let upgrade = Upgrade::new().program("/bin/true").under_any_supervisor();
    let program = Lifecycle::builder().upgrade(upgrade).build().unwrap();
    program.ready().unwrap();
    let side_door = Server::builder()
        .address("127.0.0.1:0")
        .service(echo())
        .beside(&program)
        .start()
        .unwrap();
    side_door.lifecycle().shutdown("closed");
    side_door.lifecycle().wait();
    // It comes as far as to the new process, which is none.
    let why = Upgrade::begin(&program).unwrap_err().to_string();
    assert!(why.contains("ended before it was ready"), "{why}");
    program.shutdown("test");
    program.wait();
}
