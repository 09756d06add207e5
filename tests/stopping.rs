//! Every way in which a server can end.
#![cfg(feature = "client")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{mpsc, Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::*;
use touchdown::client::{CallOptions, Client};
use touchdown::lifecycle::{exit_code, Lifecycle, Phase, Plan, Reason, Signals};
use touchdown::protobuf::well_known_types::wrappers::{StringValue, UInt32Value};
use touchdown::testing::TestServer;
use touchdown::{Address, Call, Code, Replies, Requests, Server, Service, StartError, Status};

fn in_background(client: &Client) -> thread::JoinHandle<Result<String, Status>> {
    let client = client.clone();
    thread::spawn(move || say(&client, "hello"))
}

#[test]
fn an_idle_server_stops_at_once() {
    let server = start(echo());
    let clients: Vec<Client> = (0..50).map(|_| client(&server)).collect();
    clients
        .iter()
        .for_each(|it| drop(say(it, "hello").unwrap()));
    assert_eq!(server.connections(), 50);
    let report = server.shutdown();
    assert_eq!(report.exit_code(), exit_code::CLEAN);
    assert_eq!(report.calls.completed, 50);
    // A few milliseconds, if the machine has nothing else to do.
    assert!(report.took < LONG / 4, "{report}");
}

#[test]
fn a_call_in_flight_lands() {
    let (service, begun, release) = gated();
    let server = start(service);
    let client = client(&server);
    let call = in_background(&client);
    begun.recv_timeout(LONG).unwrap();
    let lifecycle = server.lifecycle().clone();
    lifecycle.shutdown("test");
    lifecycle.draining().wait();
    assert!(
        lifecycle.wait_timeout(Duration::from_millis(100)).is_none(),
        "stopped too early"
    );
    release.send(()).unwrap();
    assert_eq!(call.join().unwrap().unwrap(), "hello");
    let report = server.wait();
    assert_eq!(report.exit_code(), exit_code::CLEAN);
    assert_eq!(report.calls.completed, 1);
}

#[test]
fn a_stop_under_load_loses_no_call() {
    let server = start(echo());
    let callers: Vec<_> = (0..16)
        .map(|_| client(&server))
        .map(|client| {
            thread::spawn(move || {
                for landed in 0.. {
                    match say(&client, "hello") {
                        Ok(answer) => assert_eq!(answer, "hello"),
                        Err(status) => return (landed, status),
                    }
                }
                unreachable!("the server goes away")
            })
        })
        .collect();
    eventually("there is load", || server.calls().completed > 500);
    let report = server.shutdown();
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    let mut landed = 0;
    for caller in callers {
        let (calls, end) = caller.join().unwrap();
        landed += calls;
        // The one failure of each caller is that it found nobody to connect to.
        assert_eq!(end.code(), Code::Unavailable, "{end}");
        assert!(end.message().contains("failed to connect"), "{end}");
    }
    assert_eq!(report.calls.completed, landed, "{report}");
}

#[test]
fn nothing_is_accepted_while_calls_in_flight_go_on() {
    let (service, begun, release) = gated();
    let server = start(service);
    let address = server.address().to_string();
    let client = client(&server);
    let call = in_background(&client);
    begun.recv_timeout(LONG).unwrap();
    server.lifecycle().shutdown("test");
    eventually("connections are refused", || {
        TcpStream::connect(&address).is_err()
    });
    let status = say(&Client::new(&channel_to(&address)), "late").unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    release.send(()).unwrap();
    assert_eq!(call.join().unwrap().unwrap(), "hello");
    assert_eq!(server.wait().exit_code(), exit_code::CLEAN);
}

#[test]
fn a_lame_duck_serves() {
    let server = builder(echo())
        .lifecycle(planned(
            quick_plan().with_lame_duck(Duration::from_millis(300)),
        ))
        .start()
        .unwrap();
    let phases = server.lifecycle().subscribe();
    server.lifecycle().shutdown("test");
    assert_eq!(phases.recv_timeout(LONG).unwrap().to, Phase::LameDuck);
    assert_eq!(say(&client(&server), "hello").unwrap(), "hello");
    assert_eq!(server.wait().exit_code(), exit_code::CLEAN);
}

#[test]
fn a_client_that_says_nothing_delays_nobody() {
    let server = start(echo());
    let address = server.address().to_string();
    let mut silent = TcpStream::connect(&address).unwrap();
    eventually("the connection is open", || server.connections() == 1);
    let report = server.shutdown();
    assert_eq!(report.exit_code(), exit_code::CLEAN);
    assert!(report.took < LONG / 4, "{report}");
    let mut rest = Vec::new();
    let _ = silent.read_to_end(&mut rest);
}

#[test]
fn a_client_that_answers_no_ping_delays_nobody() {
    let server = start(echo());
    let address = server.address().to_string();
    let mut client = TcpStream::connect(&address).unwrap();
    // The preface, and empty settings: RFC 9113, 3.4.
    client.write_all(PREFACE).unwrap();
    // The server's settings and the acknowledgement of ours, nine bytes at least.
    client.read_exact(&mut [0; 9]).unwrap();
    let report = server.shutdown();
    assert_eq!(report.exit_code(), exit_code::CLEAN);
    assert!(report.took < LONG / 4, "{report}");
}

#[test]
fn a_silent_client_is_sent_away_after_the_handshake_timeout() {
    let server = builder(echo())
        .handshake_timeout(Duration::from_millis(50))
        .start()
        .unwrap();
    let mut silent = TcpStream::connect(server.address().to_string()).unwrap();
    let mut rest = Vec::new();
    silent.set_read_timeout(Some(LONG)).unwrap();
    silent.read_to_end(&mut rest).unwrap();
    drop(silent);
    eventually("the connection is gone", || server.connections() == 0);
}

#[test]
fn a_handler_that_never_returns_is_named_at_the_planned_time() {
    let (service, begun, _release) = gated();
    let plan = quick_plan()
        .with_grace_period(Duration::from_millis(100))
        .with_force_period(Duration::from_millis(100));
    let server = builder(service).lifecycle(planned(plan)).start().unwrap();
    let client = client(&server);
    let call = in_background(&client);
    begun.recv_timeout(LONG).unwrap();
    let report = server.shutdown();
    assert_eq!(report.exit_code(), exit_code::FORCED);
    assert_eq!(report.calls.abandoned, 1);
    assert_eq!(report.calls.completed, 0);
    assert!(
        report
            .abandoned
            .iter()
            .any(|it| it.contains("/test.Echo/Say")),
        "{report:?}"
    );
    assert!(report.took < LONG / 4, "{report}");
    assert_eq!(call.join().unwrap().unwrap_err().code(), Code::Unavailable);
}

#[test]
fn handlers_that_ask_are_told_to_stop() {
    let (began, begun) = mpsc::channel();
    let service = Service::builder("test.Told")
        .unary("Ask", {
            let began = began.clone();
            move |call: &Call, request: StringValue| {
                began.send(()).unwrap();
                call.token().wait();
                assert!(call.is_cancelled());
                Ok(request)
            }
        })
        .bidirectional(
            "Read",
            move |_: &Call, mut requests: Requests<StringValue>, _: Replies<StringValue>| {
                began.send(()).unwrap();
                requests.try_for_each(|it| it.map(drop))
            },
        )
        .build();
    let plan = quick_plan().with_grace_period(Duration::from_millis(100));
    let server = builder(service).lifecycle(planned(plan)).start().unwrap();
    let client = client(&server);
    let ask = thread::spawn({
        let client = client.clone();
        move || {
            client.unary(
                "/test.Told/Ask",
                &text("x"),
                CallOptions::default().timeout(LONG),
            )
        }
    });
    let (_requests, mut replies) = client
        .bidirectional::<StringValue, StringValue>("/test.Told/Read", CallOptions::default())
        .unwrap();
    begun.recv_timeout(LONG).unwrap();
    begun.recv_timeout(LONG).unwrap();
    let report = server.shutdown();
    assert_eq!(report.exit_code(), exit_code::FORCED);
    assert_eq!(
        (report.calls.told_to_stop, report.calls.abandoned),
        (2, 0),
        "{report}"
    );
    let answer: Result<StringValue, Status> = ask.join().unwrap();
    assert_eq!(
        answer.unwrap().value,
        "x",
        "what a handler says in time is its answer"
    );
    assert_eq!(
        replies.next().unwrap().unwrap_err().code(),
        Code::Unavailable
    );
}

#[test]
fn detached_streams_end_with_unavailable_when_time_is_up() {
    let (sender, receiver) = mpsc::channel();
    let service = Service::builder("test.Streams")
        .server_streaming("Subscribe", {
            let sender = Mutex::new(sender);
            move |_: &Call, _: UInt32Value, replies: Replies<UInt32Value>| {
                sender.lock().unwrap().send(replies.detach()).unwrap();
                Ok(())
            }
        })
        .build();
    let plan = quick_plan()
        .with_grace_period(Duration::from_millis(100))
        .with_force_period(Duration::from_millis(100));
    let server = builder(service).lifecycle(planned(plan)).start().unwrap();
    let client = client(&server);
    let mut replies = client
        .server_streaming::<_, UInt32Value>(
            "/test.Streams/Subscribe",
            &number(0),
            CallOptions::default(),
        )
        .unwrap();
    let subscriber = receiver.recv_timeout(LONG).unwrap();
    let report = server.shutdown();
    assert_eq!(report.exit_code(), exit_code::FORCED);
    assert_eq!(
        replies.next().unwrap().unwrap_err().code(),
        Code::Unavailable
    );
    // The program may hold on to it for as long as it likes.
    assert!(subscriber.send(&number(1)).is_err());
    assert!(subscriber.call().is_cancelled());
    drop(subscriber);
}

#[test]
fn signals_stop_a_server_and_the_second_one_hurries() {
    let (service, begun, _release) = gated();
    let plan = quick_plan()
        .with_grace_period(LONG)
        .with_force_period(Duration::from_millis(50));
    let server = TestServer::start(builder(service).lifecycle(planned(plan))).unwrap();
    let client = server.client();
    let call = in_background(&client);
    begun.recv_timeout(LONG).unwrap();
    let phases = server.lifecycle().subscribe();
    server.signal(15);
    while phases.recv_timeout(LONG).unwrap().to != Phase::Draining {}
    server.signal(15);
    let report = server.wait();
    assert_eq!(report.reason, Reason::Signal(15));
    assert_eq!(report.exit_code(), exit_code::FORCED);
    assert!(report.took < Duration::from_secs(5), "{report}");
    assert_eq!(call.join().unwrap().unwrap_err().code(), Code::Unavailable);
}

#[test]
fn a_test_that_fails_does_not_wait_for_a_call_without_end() {
    let (service, begun, _release) = gated();
    let server = TestServer::start(part(service)).unwrap();
    let lifecycle = server.lifecycle().clone();
    let call = in_background(&server.client());
    begun.recv_timeout(LONG).unwrap();
    let failed = thread::spawn(move || {
        let _server = server;
        panic!("a test fails");
    });
    failed.join().unwrap_err();
    // The plan of a test has left it another 5 s.
    assert!(lifecycle.cancelling().wait_timeout(Duration::from_secs(4)));
    assert_eq!(call.join().unwrap().unwrap_err().code(), Code::Unavailable);
    assert_eq!(lifecycle.wait().exit_code(), exit_code::FORCED);
}

#[test]
fn two_servers_share_a_process_and_a_lifecycle() {
    let lifecycle = Lifecycle::builder().plan(quick_plan()).build().unwrap();
    let first = part(echo()).start_with(&lifecycle).unwrap();
    let second = part(echo()).start_with(&lifecycle).unwrap();
    let alone = start(echo());
    lifecycle.ready().unwrap();
    for server in [&first, &second, &*alone] {
        assert_eq!(say(&client(server), "hello").unwrap(), "hello");
    }
    lifecycle.shutdown("test");
    let report = lifecycle.wait();
    assert_eq!(report.exit_code(), exit_code::CLEAN);
    assert_eq!(report.calls.completed, 2);
    assert_eq!(say(&client(&alone), "hello").unwrap(), "hello");
    assert_eq!(alone.shutdown().calls.completed, 2);
}

#[test]
fn a_stop_before_serving_is_clean() {
    let lifecycle = Lifecycle::builder().plan(quick_plan()).build().unwrap();
    let server = part(echo()).start_with(&lifecycle).unwrap();
    assert_eq!(say(&client(&server), "early").unwrap(), "early");
    lifecycle.shutdown("test");
    assert!(lifecycle.ready().is_err());
    assert_eq!(lifecycle.wait().exit_code(), exit_code::CLEAN);
    assert_eq!(server.calls().completed, 1);
    assert!(matches!(
        part(echo()).start_with(&lifecycle),
        Err(StartError::TooLate)
    ));
}

#[test]
fn a_signal_during_start_up_is_no_failure() {
    // It is heard on another thread, so at any moment of the start.
    for _ in 0..200 {
        let (signals, sender) = Signals::injected();
        sender.send(15);
        let lifecycle = planned(quick_plan()).signals(signals);
        let report = builder(echo()).lifecycle(lifecycle).serve();
        assert_eq!(report.reason, Reason::Signal(15));
        assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    }
}

#[test]
fn a_dropped_server_stops() {
    let server = start(echo());
    let address = server.address().to_string();
    drop(server);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn servers_listen_at_ipv6_and_unix_sockets() {
    let folder = std::env::temp_dir().join(format!("touchdown-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("server.sock");
    let server = builder(unary(|call, _| Ok(text(call.peer().to_string()))))
        .address("[::1]:0")
        .address(format!("unix:{}", path.display()))
        .start()
        .unwrap();
    let [v4, v6, unix] = server.addresses() else {
        panic!("{:?}", server.addresses())
    };
    assert!(v4.port().unwrap() > 0 && v6.port().unwrap() > 0);
    assert_eq!(*unix, Address::Unix(path.clone()));
    for (address, peer) in [(v4, "127.0.0.1:"), (v6, "[::1]:"), (unix, "unix")] {
        let client = Client::new(&channel_to(&address.to_string()));
        let seen = say(&client, "").unwrap();
        assert!(seen.starts_with(peer), "{seen} at {address}");
    }
    let taken = builder(echo())
        .address(format!("unix:{}", path.display()))
        .start();
    assert!(
        matches!(taken, Err(StartError::Listen { .. })),
        "somebody listens there"
    );
    assert_eq!(server.shutdown().exit_code(), exit_code::CLEAN);
    assert!(!path.exists());
    // What a crashed server leaves behind is cleared away.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    drop(
        builder(echo())
            .address(format!("unix:{}", path.display()))
            .start()
            .unwrap(),
    );
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn bad_settings_are_errors_that_name_them() {
    let taken = start(echo());
    let address = taken.address().to_string();
    let error = Server::builder()
        .address(&address)
        .start()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&address) && error.contains("in use"),
        "{error}"
    );
    let error = Server::builder()
        .address("nonsense")
        .start()
        .unwrap_err()
        .to_string();
    assert!(error.contains("nonsense"), "{error}");
    let error = builder(echo()).workers(0).start().unwrap_err().to_string();
    assert!(error.contains("workers is 0"), "{error}");
    let error = builder(echo())
        .service(echo())
        .start()
        .unwrap_err()
        .to_string();
    assert!(error.contains("/test.Echo/Say"), "{error}");
    assert!(matches!(
        Server::builder().start(),
        Err(StartError::NoAddress)
    ));
    let plan = Plan::default().with_hard_deadline(Duration::ZERO);
    assert!(matches!(
        builder(echo()).lifecycle(planned(plan)).start(),
        Err(StartError::Lifecycle(_))
    ));
}

#[test]
fn connections_above_the_limit_are_closed() {
    let server = builder(echo()).max_connections(2).start().unwrap();
    let address = server.address().to_string();
    let kept: Vec<Client> = (0..2).map(|_| client(&server)).collect();
    kept.iter().for_each(|it| drop(say(it, "hello").unwrap()));
    let mut refused = TcpStream::connect(&address).unwrap();
    refused.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(refused.read(&mut [0; 1]).unwrap(), 0, "closed at once");
    assert_eq!(say(&kept[0], "hello").unwrap(), "hello");
    drop(kept);
    eventually("there is room again", || {
        say(&Client::new(&channel_to(&address)), "hello").is_ok()
    });
}

#[test]
fn a_busy_server_refuses_what_exceeds_its_backlog() {
    let (service, begun, release) = gated();
    let server = builder(service).workers(2).backlog(3).start().unwrap();
    let client = client(&server);
    let calls: Vec<_> = (0..5).map(|_| in_background(&client)).collect();
    begun.recv_timeout(LONG).unwrap();
    begun.recv_timeout(LONG).unwrap();
    eventually("two run and three wait", || server.in_flight() == 5);
    for _ in 0..100 {
        let status = say(&client, "too much").unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
    }
    for _ in 0..5 {
        release.send(()).unwrap();
    }
    for call in calls {
        assert_eq!(call.join().unwrap().unwrap(), "hello");
    }
    let report = server.shutdown();
    assert_eq!(
        (report.calls.completed, report.calls.refused),
        (5, 100),
        "{report}"
    );
}

#[test]
fn a_call_whose_deadline_passes_in_the_backlog_is_not_run() {
    let runs = Arc::new(Mutex::new(Vec::new()));
    let (began, begun) = mpsc::channel();
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let service = unary({
        let runs = Arc::clone(&runs);
        move |_, request| {
            runs.lock().unwrap().push(request.value.clone());
            if request.value == "hello" {
                began.send(()).unwrap();
                released.recv().unwrap();
            }
            Ok(request)
        }
    });
    let server = builder(service).workers(1).start().unwrap();
    let client = client(&server);
    let call = in_background(&client);
    begun.recv_timeout(LONG).unwrap();
    let time = Duration::from_secs(1);
    let late = thread::spawn({
        let client = client.clone();
        move || say_with(&client, "late", CallOptions::default().timeout(time))
    });
    eventually("it waits", || server.in_flight() == 2);
    // Its time began when it arrived, so it is over then (and C-core rounds it up a little).
    thread::sleep(time + time / 10);
    assert_eq!(
        late.join().unwrap().unwrap_err().code(),
        Code::DeadlineExceeded
    );
    release.send(()).unwrap();
    call.join().unwrap().unwrap();
    assert_eq!(say(&client, "after").unwrap(), "after");
    assert_eq!(*runs.lock().unwrap(), ["hello", "after"]);
    assert_eq!(server.shutdown().calls.refused, 1);
}

#[test]
fn a_drain_waits_for_calls_in_the_backlog() {
    let (service, begun, release) = gated();
    let server = builder(service).workers(1).start().unwrap();
    let client = client(&server);
    let calls: Vec<_> = (0..3).map(|_| in_background(&client)).collect();
    begun.recv_timeout(LONG).unwrap();
    eventually("two wait", || server.in_flight() == 3);
    let lifecycle = server.lifecycle().clone();
    lifecycle.shutdown("test");
    lifecycle.draining().wait();
    for _ in 0..3 {
        release.send(()).unwrap();
    }
    for call in calls {
        assert_eq!(call.join().unwrap().unwrap(), "hello");
    }
    assert_eq!(server.wait().calls.completed, 3);
}

#[test]
fn calls_in_the_backlog_are_not_run_when_time_is_up() {
    let (service, begun, _release) = gated();
    let plan = quick_plan()
        .with_grace_period(Duration::from_millis(50))
        .with_force_period(Duration::from_millis(50));
    let server = builder(service)
        .workers(1)
        .lifecycle(planned(plan))
        .start()
        .unwrap();
    let client = client(&server);
    let calls: Vec<_> = (0..3).map(|_| in_background(&client)).collect();
    begun.recv_timeout(LONG).unwrap();
    eventually("two wait", || server.in_flight() == 3);
    let report = server.shutdown();
    assert_eq!(report.exit_code(), exit_code::FORCED);
    assert_eq!(report.calls.abandoned, 1, "{report}");
    for call in calls {
        assert_eq!(call.join().unwrap().unwrap_err().code(), Code::Unavailable);
    }
    assert!(begun.try_recv().is_err());
}

#[test]
fn an_answer_that_nobody_takes_has_the_grace_period_and_is_counted() {
    let grace = Duration::from_millis(800);
    let plan = quick_plan().with_grace_period(grace);
    let server = builder(echo()).lifecycle(planned(plan)).start().unwrap();
    let mut client = TcpStream::connect(server.address().to_string()).unwrap();
    client.write_all(PREFACE).unwrap();
    // SETTINGS_INITIAL_WINDOW_SIZE is zero: not a byte of a reply may be sent.
    let settings = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let request = frame(0, 1, 1, &[&[0, 0, 0, 0, 3][..], &[10, 1, b'x']].concat());
    let headers = frame(1, 4, 1, &call_headers("POST", "/test.Echo/Say"));
    client
        .write_all(&[settings, headers, request].concat())
        .unwrap();
    eventually("the call arrived", || server.in_flight() == 1);
    let report = server.shutdown();
    assert_eq!(report.exit_code(), exit_code::FORCED, "{report}");
    assert!(report.took >= grace, "{report}");
    let calls = (report.calls.completed, report.calls.undelivered);
    assert_eq!((calls, report.connections_cut), ((0, 1), 1), "{report}");
}

#[test]
fn a_client_that_answers_the_ping_is_let_go() {
    let server = start(echo());
    let mut client = TcpStream::connect(server.address().to_string()).unwrap();
    client.write_all(PREFACE).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    eventually("the connection is open", || server.connections() == 1);
    server.lifecycle().shutdown("test");
    let mut seen = Vec::new();
    let mut goaways = Vec::new();
    let mut header = [0; 9];
    // Until the server closes; a connection that is cut gets no second GOAWAY.
    while client.read_exact(&mut header).is_ok() {
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; length as usize];
        client.read_exact(&mut payload).unwrap();
        seen.push(header[3]);
        match (header[3], header[4]) {
            (6, 0) => client.write_all(&frame(6, 1, 0, &payload)).unwrap(),
            (7, _) => goaways.push(u32::from_be_bytes(payload[..4].try_into().unwrap())),
            _ => {}
        }
    }
    assert_eq!(
        goaways,
        [i32::MAX as u32, 0],
        "frames of the kinds {seen:?}"
    );
    assert_eq!(server.wait().exit_code(), exit_code::CLEAN);
}

#[test]
fn a_request_that_comes_slowly_is_served_though_the_server_drains() {
    let server = start(unary(|_, request| {
        Ok(text(format!("heard {}", request.value)))
    }));
    let mut client = TcpStream::connect(server.address().to_string()).unwrap();
    client.write_all(PREFACE).unwrap();
    let headers = call_headers("POST", "/test.Echo/Say");
    client.write_all(&frame(1, 4, 1, &headers)).unwrap();
    // A gRPC message of 22 bytes: field 1, 20 bytes long.
    let message = [b"\0\0\0\0\x16\x0a\x14".as_slice(), b"twenty bytes, slowly"].concat();
    let data = frame(0, 1, 1, &message);
    client.write_all(&data[..9]).unwrap();
    eventually("the connection is open", || server.connections() == 1);

    let lifecycle = server.lifecycle().clone();
    lifecycle.shutdown("test");
    lifecycle.draining().wait();
    // No call is in flight yet for a longer time than a quiet connection is given.
    for byte in &data[9..] {
        thread::sleep(Duration::from_millis(40));
        client
            .write_all(&[*byte])
            .expect("the connection is not cut");
    }
    client.set_read_timeout(Some(LONG)).unwrap();
    let mut reply = Vec::new();
    let _ = client.read_to_end(&mut reply);
    let expected = b"heard twenty bytes, slowly";
    assert!(
        reply.windows(expected.len()).any(|it| it == expected),
        "{reply:?}"
    );
    let report = server.wait();
    assert_eq!(
        (report.exit_code(), report.calls.completed),
        (exit_code::CLEAN, 1),
        "{report}"
    );
}

/// What a server has sent on a connection until it ended: the kinds of the frames, the last streams of GOAWAY, and
/// which calls have their end.
#[derive(Default)]
struct Heard {
    goaways: Vec<u32>,
    ended: Vec<u8>,
}

/// Reads until the server closes. Acknowledges pings if that is wanted, and tells `begun` of each that has come.
fn listen_to(mut client: TcpStream, acknowledges: bool, begun: mpsc::Sender<()>) -> Heard {
    let mut heard = Heard::default();
    let mut header = [0; 9];
    client.set_read_timeout(Some(LONG)).unwrap();
    while client.read_exact(&mut header).is_ok() {
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; length as usize];
        client.read_exact(&mut payload).unwrap();
        match (header[3], header[4]) {
            (6, 0) => {
                if acknowledges {
                    client.write_all(&frame(6, 1, 0, &payload)).unwrap();
                }
                let _ = begun.send(());
            }
            (7, _) => {
                let last = u32::from_be_bytes(payload[..4].try_into().unwrap());
                heard.goaways.push(last);
            }
            // HEADERS with END_STREAM: trailers.
            (1, flags) if flags & 1 != 0 => heard.ended.push(header[8]),
            _ => {}
        }
    }
    heard
}

/// Makes calls without a pause, before the server's GOAWAY and after it, until the connection ends.
fn does_not_mind_goaway(acknowledges: bool) {
    let server = start(echo());
    let mut client = TcpStream::connect(server.address().to_string()).unwrap();
    client.write_all(PREFACE).unwrap();
    client.write_all(&small_call(1)).unwrap();
    eventually("it is served", || server.calls().completed == 1);
    let (told, tells) = mpsc::channel();
    let reader = client.try_clone().unwrap();
    let reader = thread::spawn(move || listen_to(reader, acknowledges, told));
    let lifecycle = server.lifecycle().clone();
    let mut sent = vec![1];
    for stream in (3..=255).step_by(2) {
        if client.write_all(&small_call(stream)).is_err() {
            break;
        }
        sent.push(stream);
        if stream == 3 {
            lifecycle.shutdown("test");
            tells.recv_timeout(LONG).unwrap();
        }
        // Less than the server takes for a rest.
        thread::sleep(Duration::from_millis(20));
    }
    let heard = reader.join().unwrap();
    let report = server.wait();
    let [first, last] = heard.goaways[..] else {
        panic!("{:?}", heard.goaways);
    };
    assert_eq!(first, i32::MAX as u32);
    assert!(last > 3, "calls behind GOAWAY are served");
    assert!(
        u32::from(*sent.last().unwrap()) > last,
        "it has to go, after {last}"
    );
    let mut served: Vec<u8> = sent
        .into_iter()
        .filter(|it| u32::from(*it) <= last)
        .collect();
    served.sort_unstable();
    let mut ended = heard.ended;
    ended.sort_unstable();
    assert_eq!(
        ended, served,
        "what is not excluded is answered, and nothing else"
    );
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    assert_eq!(report.calls.completed, served.len() as u64, "{report}");
}

#[test]
fn a_client_that_acknowledges_goaway_and_goes_on_to_call_is_told_the_last_call() {
    does_not_mind_goaway(true);
}

#[test]
fn a_client_that_does_not_acknowledge_goaway_and_goes_on_to_call_is_told_the_last_call() {
    does_not_mind_goaway(false);
}

#[test]
fn a_client_that_is_silent_has_its_time_and_is_told_the_last_call() {
    let silence = Duration::from_millis(1500);
    let plan = quick_plan()
        .with_grace_period(LONG)
        .with_peer_silence(silence);
    let server = builder(echo()).lifecycle(planned(plan)).start().unwrap();
    let mut client = TcpStream::connect(server.address().to_string()).unwrap();
    client.write_all(PREFACE).unwrap();
    client.write_all(&small_call(1)).unwrap();
    eventually("it is served", || server.calls().completed == 1);
    let report = server.shutdown();
    assert!(report.took >= silence, "{report}");
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    // As a client finds it that was stopped meanwhile.
    let heard = listen_to(client, false, mpsc::channel().0);
    assert_eq!(
        (heard.goaways, heard.ended),
        (vec![i32::MAX as u32, 1], vec![1])
    );
}

#[test]
fn half_a_request_is_waited_for() {
    let server = start(echo());
    let mut client = TcpStream::connect(server.address().to_string()).unwrap();
    client.write_all(PREFACE).unwrap();
    let call = small_call(1);
    let (half, rest) = call.split_at(call.len() - 5);
    client.write_all(half).unwrap();
    eventually("the connection is open", || server.connections() == 1);
    let lifecycle = server.lifecycle().clone();
    lifecycle.shutdown("test");
    lifecycle.draining().wait();
    // Longer than who has no call on the connection is waited for.
    assert!(lifecycle
        .wait_timeout(Duration::from_millis(1500))
        .is_none());
    client.write_all(rest).unwrap();
    let heard = listen_to(client, true, mpsc::channel().0);
    assert_eq!(heard.ended, [1]);
    let report = server.wait();
    let (code, completed) = (report.exit_code(), report.calls.completed);
    assert_eq!((code, completed), (exit_code::CLEAN, 1), "{report}");
}

#[test]
fn a_part_of_a_frame_from_who_never_made_a_call_delays_nobody() {
    let plan = quick_plan().with_grace_period(LONG);
    let server = builder(echo()).lifecycle(planned(plan)).start().unwrap();
    let mut client = TcpStream::connect(server.address().to_string()).unwrap();
    client.write_all(PREFACE).unwrap();
    client.write_all(&frame(4, 1, 0, &[])).unwrap();
    client.write_all(&[0, 0, 9, 1]).unwrap();
    eventually("the connection is open", || server.connections() == 1);
    let report = server.shutdown();
    assert!(report.took < LONG / 4, "{report}");
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    let heard = listen_to(client, false, mpsc::channel().0);
    assert_eq!(heard.goaways, [i32::MAX as u32, 0]);
}

/// HEADERS, and what belongs to them later: nothing may come in between, and what a client has acknowledged lies ready.
#[test]
fn a_header_block_in_two_parts_is_not_torn_apart() {
    let server = start(echo());
    let mut client = TcpStream::connect(server.address().to_string()).unwrap();
    client.write_all(PREFACE).unwrap();
    client.write_all(&small_call(1)).unwrap();
    eventually("it is served", || server.calls().completed == 1);
    let (told, tells) = mpsc::channel();
    let reader = client.try_clone().unwrap();
    let reader = thread::spawn(move || listen_to(reader, true, told));
    let headers = call_headers("POST", "/test.Echo/Say");
    let (first, rest) = headers.split_at(20);
    client.write_all(&frame(1, 0, 3, first)).unwrap();
    server.lifecycle().shutdown("test");
    tells.recv_timeout(LONG).unwrap();
    // Longer than a connection has to be quiet for its acknowledgement to be believed.
    thread::sleep(Duration::from_millis(300));
    client.write_all(&frame(9, 4, 3, rest)).unwrap();
    client
        .write_all(&frame(0, 1, 3, b"\0\0\0\0\x03\x0a\x01x"))
        .unwrap();
    assert_eq!(reader.join().unwrap().ended, [1, 3]);
    let report = server.wait();
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
}
