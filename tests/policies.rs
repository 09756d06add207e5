//! What becomes of a call when the server drains: the rows of the table in docs/stopping-well.md.
#![cfg(feature = "client")]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::panic;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::*;
use crossbeam_channel::{unbounded, Receiver, Sender};
use touchdown::client::{CallOptions, Client};
use touchdown::lifecycle::{exit_code, Calls, Lifecycle, Plan, Report};
use touchdown::protobuf::well_known_types::wrappers::{StringValue, UInt32Value};
use touchdown::{
    Call, Code, DetachedReplies, DrainPolicy, Interceptor, MethodName, Replies, Requests, Server,
    Service, StartError, Status,
};

const SAY: &str = "/test.Echo/Say";
const SAY_TO_ECHO: MethodName = MethodName::new("test.Echo", "Say");
const SUBSCRIBE: MethodName = MethodName::new("test.Streams", "Subscribe");
const UPLOAD: MethodName = MethodName::new("test.Streams", "Upload");
const GRACE: Duration = Duration::from_secs(4);
/// A fraction of the grace period; nothing here depends on how long it is.
const EARLY: Duration = Duration::from_millis(400);

fn plan() -> Plan {
    quick_plan()
        .with_grace_period(GRACE)
        .with_force_period(Duration::from_millis(200))
}

/// What a handler does and hears, in the hands of a test.
struct Gate {
    /// A handler has begun.
    begun: Receiver<Call>,
    /// Lets a handler end.
    release: Sender<()>,
}

/// `/test.Echo/Say` ends when it is let.
fn gated() -> (Service, Gate) {
    let (began, begun) = unbounded();
    let (release, released) = unbounded();
    let service = unary(move |call, request| {
        began.send(call.clone()).unwrap();
        let _ = released.recv_timeout(LONG);
        Ok(request)
    });
    (service, Gate { begun, release })
}

/// `/test.Streams/Subscribe` hands its stream to the test.
fn subscriptions() -> (Service, Receiver<DetachedReplies<UInt32Value>>) {
    let (sender, receiver) = unbounded();
    let service = Service::builder("test.Streams")
        .server_streaming(
            "Subscribe",
            move |_: &Call, _: UInt32Value, replies: Replies<UInt32Value>| {
                sender.send(replies.detach()).unwrap();
                Ok(())
            },
        )
        .build();
    (service, receiver)
}

fn subscribe(client: &Client) -> touchdown::client::Replies<UInt32Value> {
    let options = CallOptions::default();
    client
        .server_streaming("/test.Streams/Subscribe", &number(0), options)
        .unwrap()
}

fn in_background(client: &Client) -> JoinHandle<Result<String, Status>> {
    let client = client.clone();
    thread::spawn(move || say(&client, "hello"))
}

fn begun(gate: &Gate) -> Call {
    gate.begun.recv_timeout(LONG).unwrap()
}

fn cut(answer: JoinHandle<Result<String, Status>>) {
    let status = answer.join().unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.message(), "the server is shutting down");
}

/// Some of the counts, the others being none.
fn calls(set: impl FnOnce(&mut Calls)) -> Calls {
    let mut calls = Calls::default();
    set(&mut calls);
    calls
}

#[test]
fn a_call_of_unknown_idempotency_has_all_of_the_grace_period() {
    let (service, gate) = gated();
    let server = builder(service)
        .plan(plan())
        .cut_early_after(0.0)
        .start()
        .unwrap();
    let client = client(&server);
    let answer = in_background(&client);
    let call = begun(&gate);
    assert_eq!(
        (call.is_draining(), call.token().is_cancelled()),
        (false, false)
    );
    server.lifecycle().shutdown("test");
    assert!(call.draining().wait_timeout(LONG));
    assert!(!call.is_cancelled());
    gate.release.send(()).unwrap();
    assert_eq!(answer.join().unwrap().unwrap(), "hello");
    let report = server.wait();
    assert_eq!(report.exit_code(), exit_code::CLEAN);
    assert_eq!(report.calls, calls(|it| it.completed = 1));
}

#[test]
fn an_idempotent_call_is_cut_when_its_share_is_over_and_harms_no_other() {
    let (service, early) = gated();
    let (began, other_begun) = unbounded();
    let (release, released) = unbounded::<()>();
    let other = Service::builder("test.Other")
        .unary("Say", move |_: &Call, request: StringValue| {
            began.send(()).unwrap();
            let _ = released.recv_timeout(LONG);
            Ok(request)
        })
        .build();
    let server = builder(service.policy(SAY_TO_ECHO, DrainPolicy::CutEarly))
        .service(other)
        .plan(plan())
        .cut_early_after(0.1)
        .start()
        .unwrap();
    // On one connection.
    let client = client(&server);
    let answer = in_background(&client);
    let call = begun(&early);
    let other = thread::spawn({
        let client = client.clone();
        move || {
            let options = CallOptions::default().timeout(LONG);
            client.unary::<_, StringValue>("/test.Other/Say", &text("other"), options)
        }
    });
    other_begun.recv_timeout(LONG).unwrap();

    let began = Instant::now();
    server.lifecycle().shutdown("test");
    cut(answer);
    assert!(began.elapsed() >= EARLY, "{:?}", began.elapsed());
    assert!(call.is_cancelled(), "the handler is told");
    // What the handler says now, nobody hears; still it is waited for.
    assert_eq!(server.in_flight(), 2);
    early.release.send(()).unwrap();
    release.send(()).unwrap();
    assert_eq!(other.join().unwrap().unwrap().value, "other");
    let report = server.wait();
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    assert_eq!(
        report.calls,
        calls(|it| (it.completed, it.cut) = (1, 1)),
        "{report}"
    );
}

#[test]
fn a_cut_call_whose_handler_never_returns_is_named() {
    let (service, gate) = gated();
    let server = builder(service.policy(SAY_TO_ECHO, DrainPolicy::CutEarly))
        .plan(plan().with_grace_period(Duration::from_millis(200)))
        .start()
        .unwrap();
    let client = client(&server);
    let answer = in_background(&client);
    begun(&gate);
    let report = server.shutdown();
    cut(answer);
    assert_eq!(report.exit_code(), exit_code::FORCED);
    assert_eq!(report.calls, calls(|it| it.abandoned = 1), "{report}");
    let named = report.abandoned.iter().any(|it| it.contains(SAY));
    assert!(named, "{report:?}");
}

#[test]
fn what_waits_in_the_backlog_is_run_if_it_must_not_be_cut() {
    let (service, gate) = gated();
    let server = builder(service).plan(plan()).workers(1).start().unwrap();
    let client = client(&server);
    let first = in_background(&client);
    begun(&gate);
    let second = in_background(&client);
    eventually("the second waits", || server.in_flight() == 2);
    server.lifecycle().shutdown("test");
    server.lifecycle().draining().wait();
    gate.release.send(()).unwrap();
    begun(&gate);
    gate.release.send(()).unwrap();
    assert_eq!(first.join().unwrap().unwrap(), "hello");
    assert_eq!(second.join().unwrap().unwrap(), "hello");
    let report = server.wait();
    assert_eq!(report.exit_code(), exit_code::CLEAN);
    assert_eq!(report.calls, calls(|it| it.completed = 2));
}

#[test]
fn what_waits_in_the_backlog_is_refused_unrun_when_it_would_be_cut() {
    let (service, gate) = gated();
    let server = builder(service.policy(SAY_TO_ECHO, DrainPolicy::CutEarly))
        .plan(plan())
        .workers(1)
        .cut_early_after(0.1)
        .start()
        .unwrap();
    let client = client(&server);
    let first = in_background(&client);
    begun(&gate);
    let second = in_background(&client);
    eventually("the second waits", || server.in_flight() == 2);
    server.lifecycle().shutdown("test");
    cut(first);
    cut(second);
    gate.release.send(()).unwrap();
    let report = server.wait();
    assert_eq!(report.exit_code(), exit_code::CLEAN);
    assert_eq!(
        report.calls,
        calls(|it| (it.cut, it.refused) = (1, 1)),
        "{report}"
    );
    assert!(gate.begun.try_recv().is_err(), "the second was not run");
}

#[test]
fn an_idle_stream_is_told_and_after_its_goodbye_not_waited_for() {
    let (service, streams) = subscriptions();
    let policy = DrainPolicy::Stream { goodbye: EARLY };
    let server = builder(service.policy(SUBSCRIBE, policy))
        .plan(plan())
        .start()
        .unwrap();
    let client = client(&server);
    let mut replies = subscribe(&client);
    let stream = streams.recv_timeout(LONG).unwrap();
    stream.send(&number(1)).unwrap();
    assert_eq!(replies.next().unwrap().unwrap().value, 1);

    let draining = stream.call().draining();
    let began = Instant::now();
    server.lifecycle().shutdown("test");
    assert!(draining.wait_timeout(LONG));
    // It may say goodbye.
    stream.send(&number(2)).unwrap();
    assert_eq!(replies.next().unwrap().unwrap().value, 2);
    // The program holds on to it, and is not waited for.
    let report = server.wait();
    assert!(began.elapsed() >= EARLY, "{report}");
    let status = replies.next().unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    assert_eq!(report.calls, calls(|it| it.cut = 1), "{report}");
    let refused = stream.send(&number(3)).unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    stream.finish(Ok(()));
}

/// `/test.Streams/Subscribe` counts without a pause, and says goodbye if it looks.
fn counting(looks: bool, goodbye: Duration) -> Service {
    Service::builder("test.Streams")
        .server_streaming(
            "Subscribe",
            move |call: &Call, _: UInt32Value, replies: Replies<UInt32Value>| {
                for count in 0.. {
                    if looks && call.is_draining() {
                        break;
                    }
                    replies.send(&number(count))?;
                }
                Ok(())
            },
        )
        .build()
        .policy(SUBSCRIBE, DrainPolicy::Stream { goodbye })
}

#[test]
fn a_busy_stream_that_says_goodbye_ends_as_it_says() {
    let service = counting(true, GRACE);
    let server = builder(service).plan(plan()).start().unwrap();
    let client = client(&server);
    let mut replies = subscribe(&client);
    assert_eq!(replies.next().unwrap().unwrap().value, 0);
    server.lifecycle().shutdown("test");
    let (counts, ends): (Vec<_>, Vec<_>) = replies.partition(Result::is_ok);
    assert!(ends.is_empty(), "{ends:?}");
    let counts: Vec<u32> = counts.into_iter().map(|it| it.unwrap().value).collect();
    assert!(counts.iter().copied().eq(1..=counts.len() as u32));
    let report = server.wait();
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    assert_eq!(report.calls, calls(|it| it.completed = 1));
}

#[test]
fn a_busy_stream_that_says_no_goodbye_is_cut_between_two_messages() {
    let server = builder(counting(false, EARLY))
        .plan(plan())
        .start()
        .unwrap();
    let client = client(&server);
    let mut replies = subscribe(&client);
    assert_eq!(replies.next().unwrap().unwrap().value, 0);
    let began = Instant::now();
    server.lifecycle().shutdown("test");
    let mut last = 0;
    let status = loop {
        match replies.next().unwrap() {
            Ok(count) => {
                assert_eq!(count.value, last + 1);
                last = count.value;
            }
            Err(status) => break status,
        }
    };
    assert!(began.elapsed() >= EARLY);
    assert_eq!(status.code(), Code::Unavailable);
    let report = server.wait();
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    assert_eq!(report.calls, calls(|it| it.cut = 1), "{report}");
}

#[test]
fn an_upload_that_goes_on_for_ever_is_cut() {
    let (began, begun) = unbounded();
    let service = Service::builder("test.Streams")
        .client_streaming(
            "Upload",
            move |_: &Call, mut requests: Requests<UInt32Value>| {
                began.send(()).unwrap();
                requests.try_for_each(|it| it.map(drop))?;
                Ok(number(0))
            },
        )
        .build()
        .policy(UPLOAD, DrainPolicy::Stream { goodbye: EARLY });
    let server = builder(service).plan(plan()).start().unwrap();
    let client = client(&server);
    let mut upload = client
        .client_streaming::<UInt32Value, UInt32Value>(
            "/test.Streams/Upload",
            CallOptions::default(),
        )
        .unwrap();
    upload.send(number(1)).unwrap();
    begun.recv_timeout(LONG).unwrap();
    let report = server.shutdown();
    assert_eq!(upload.finish().unwrap_err().code(), Code::Unavailable);
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    assert_eq!(report.calls, calls(|it| it.cut = 1), "{report}");
}

/// `/test.Streams/Upload` adds up, and then answers as `answer` says, which gets the error that broke it off, if one did.
fn adding_up(
    answer: impl Fn(u32, Option<Status>) -> Result<u32, Status> + Send + Sync + 'static,
) -> (Service, Receiver<u32>) {
    let (tells, told) = unbounded();
    let upload = move |_: &Call, requests: Requests<UInt32Value>| {
        let mut sum = 0;
        let mut broke_off = None;
        for request in requests {
            match request {
                Ok(request) => sum += request.value,
                Err(status) => broke_off = Some(status),
            }
            tells.send(sum).unwrap();
        }
        answer(sum, broke_off).map(number)
    };
    let service = Service::builder("test.Streams")
        .client_streaming("Upload", upload)
        .build();
    (service, told)
}

fn upload(client: &Client) -> touchdown::client::Upload<UInt32Value, UInt32Value> {
    let options = CallOptions::default().timeout(LONG);
    client
        .client_streaming("/test.Streams/Upload", options)
        .unwrap()
}

fn start_with_grace(service: Service, grace_period: Duration) -> Server {
    let plan = plan().grace_period(grace_period);
    builder(service).plan(plan).start().unwrap()
}

/// An upload that has been begun and goes no further, and the report of a stop with it.
fn stop_with_an_idle_upload(
    service: Service,
    sums: &Receiver<u32>,
    grace_period: Duration,
) -> (Report, Result<UInt32Value, Status>) {
    let server = start_with_grace(service, grace_period);
    let client = client(&server);
    let mut upload = upload(&client);
    upload.send(number(3)).unwrap();
    assert_eq!(sums.recv_timeout(LONG), Ok(3));
    let report = server.shutdown();
    (report, upload.finish())
}

#[test]
fn an_idle_upload_is_told_to_stop_and_holds_no_drain() {
    let (service, sums) = adding_up(|sum, broke_off| broke_off.map_or(Ok(sum), Err));
    // Whatever its policy says: less than all of the grace period.
    let (report, answer) = stop_with_an_idle_upload(service, &sums, unhurried(3000));
    assert!(report.took < unhurried(3000), "{report}");
    let status = answer.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert_eq!(status.message(), "the server is shutting down");
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    assert_eq!(report.calls, calls(|it| it.told_to_stop = 1), "{report}");
}

#[test]
fn what_the_handler_of_an_idle_upload_says_then_is_the_answer() {
    let (service, sums) = adding_up(|sum, broke_off| {
        assert_eq!(broke_off.map(|it| it.code()), Some(Code::Unavailable));
        Ok(sum)
    });
    let idle = DrainPolicy::FinishUnlessIdle { idle: EARLY };
    let service = service.policy("Upload", idle);
    let (report, answer) = stop_with_an_idle_upload(service, &sums, LONG);
    assert!(report.took < LONG / 2, "{report}");
    assert_eq!(answer.unwrap().value, 3);
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    assert_eq!(report.calls, calls(|it| it.told_to_stop = 1), "{report}");
}

#[test]
fn an_idle_upload_that_is_to_finish_has_all_of_the_grace_period() {
    let (service, sums) = adding_up(|sum, broke_off| broke_off.map_or(Ok(sum), Err));
    let service = service.policy("Upload", DrainPolicy::Finish);
    let (report, answer) = stop_with_an_idle_upload(service, &sums, EARLY);
    assert!(report.took >= EARLY, "{report}");
    assert_eq!(answer.unwrap_err().code(), Code::Unavailable);
    assert_eq!(report.exit_code(), exit_code::FORCED, "{report}");
    assert_eq!(report.calls, calls(|it| it.told_to_stop = 1), "{report}");
}

#[test]
fn an_upload_whose_handler_is_at_work_is_not_idle() {
    let (began, begun) = unbounded();
    let (release, released) = unbounded::<()>();
    let service = Service::builder("test.Streams")
        .client_streaming(
            "Upload",
            move |_: &Call, mut requests: Requests<UInt32Value>| {
                let first = requests.recv()?.unwrap_or_default();
                began.send(()).unwrap();
                let _ = released.recv_timeout(LONG);
                requests
                    .try_fold(first.value, |sum, it| Ok(sum + it?.value))
                    .map(number)
            },
        )
        .build()
        .policy("Upload", DrainPolicy::FinishUnlessIdle { idle: EARLY });
    let server = start_with_grace(service, LONG);
    let client = client(&server);
    let mut upload = upload(&client);
    upload.send(number(3)).unwrap();
    begun.recv_timeout(LONG).unwrap();
    server.lifecycle().shutdown("test");
    let cancelling = server.lifecycle().cancelling().clone();
    assert!(!cancelling.wait_timeout(EARLY * 3));
    // While it was at work, its caller has gone on.
    upload.send(number(4)).unwrap();
    release.send(()).unwrap();
    assert_eq!(upload.finish().unwrap().value, 7);
    let report = server.wait();
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    assert_eq!(report.calls, calls(|it| it.completed = 1), "{report}");
}

#[test]
fn an_upload_that_goes_on_in_the_drain_lands() {
    let (service, sums) = adding_up(|sum, broke_off| broke_off.map_or(Ok(sum), Err));
    let idle = unhurried(1500);
    let service = service.policy("Upload", DrainPolicy::FinishUnlessIdle { idle });
    let server = start_with_grace(service, LONG);
    let client = client(&server);
    let mut upload = upload(&client);
    upload.send(number(1)).unwrap();
    assert_eq!(sums.recv_timeout(LONG), Ok(1));
    server.lifecycle().shutdown("test");
    let (began, mut sent) = (Instant::now(), 1);
    // Twice the time after which one would be told that says nothing.
    while began.elapsed() < idle * 2 {
        upload.send(number(1)).unwrap();
        sent += 1;
        assert_eq!(sums.recv_timeout(LONG), Ok(sent));
        let stopped = server.lifecycle().cancelling();
        assert!(!stopped.wait_timeout(Duration::from_millis(20)));
    }
    assert_eq!(upload.finish().unwrap().value, sent);
    let report = server.wait();
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    assert_eq!(report.calls, calls(|it| it.completed = 1), "{report}");
}

#[test]
fn an_idle_chat_is_told_to_stop_and_one_that_sends_is_not() {
    let (began, begun) = unbounded();
    let (release, released) = unbounded::<()>();
    let service = Service::builder("test.Streams")
        .bidirectional(
            "Chat",
            move |_: &Call, mut requests: Requests<UInt32Value>, replies: Replies<UInt32Value>| {
                let first = requests.recv()?.unwrap_or_default();
                let replies = Arc::new(replies);
                let until_released = {
                    let (replies, released) = (Arc::clone(&replies), released.clone());
                    move || {
                        while released.recv_timeout(Duration::from_millis(20)).is_err() {
                            replies.send(&number(1)).unwrap();
                        }
                    }
                };
                let sends = (first.value == 1).then(|| thread::spawn(until_released));
                began.send(()).unwrap();
                let rest = requests.try_for_each(|it| it.map(drop));
                sends.map_or(Ok(()), |it| {
                    it.join().map_err(|_| Status::internal("it panicked"))
                })?;
                rest
            },
        )
        .build()
        .policy(
            "Chat",
            DrainPolicy::FinishUnlessIdle {
                idle: unhurried(1500),
            },
        );
    let server = start_with_grace(service, LONG);
    let client = client(&server);
    let chat = |first: u32| {
        let options = CallOptions::default().timeout(LONG);
        let (mut requests, replies) = client
            .bidirectional::<UInt32Value, UInt32Value>("/test.Streams/Chat", options)
            .unwrap();
        requests.send(number(first)).unwrap();
        begun.recv_timeout(LONG).unwrap();
        (requests, replies)
    };
    let (idle, busy) = (chat(0), chat(1));
    server.lifecycle().shutdown("test");
    // The one that sends is on the same connection, which so is never silent: it is for its end to let the other go.
    let (requests, replies) = busy;
    let seen = replies.take(100).filter(|it| it.is_ok()).count();
    assert_eq!(seen, 100);
    release.send(()).unwrap();
    drop(requests);
    let (requests, mut replies) = idle;
    let status = replies.next().unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    drop(requests);
    let report = server.wait();
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    assert_eq!(
        (report.calls.told_to_stop, report.calls.abandoned),
        (1, 0),
        "{report}"
    );
}

/// A client that can leave whenever it is to: it breaks the connection.
fn raw_call(server: &Server, path: &str) -> TcpStream {
    raw_call_after(server, path, &[])
}

/// As `raw_call`, with these frames before the call.
fn raw_call_after(server: &Server, path: &str, frames: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(server.address().to_string()).unwrap();
    socket.write_all(PREFACE).unwrap();
    socket.write_all(frames).unwrap();
    let headers = call_headers("POST", path);
    socket.write_all(&frame(1, 4, 1, &headers)).unwrap();
    // An empty message, the last: RFC 9113, 6.1.
    socket.write_all(&frame(0, 1, 1, &[0; 5])).unwrap();
    socket
}

#[test]
fn a_handler_whose_caller_is_gone_is_told_at_once() {
    let (service, gate) = gated();
    let server = builder(service).plan(plan()).start().unwrap();
    let socket = raw_call(&server, SAY);
    let call = begun(&gate);
    server.lifecycle().shutdown("test");
    assert!(call.draining().wait_timeout(LONG));
    let token = call.token();
    assert!(!token.is_cancelled());
    socket.shutdown(Shutdown::Both).unwrap();
    drop(socket);
    assert!(token.wait_timeout(LONG), "the handler is told");
    gate.release.send(()).unwrap();
    let report = server.wait();
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    assert_eq!(report.calls, calls(|it| it.caller_left = 1), "{report}");
}

#[test]
fn a_stream_whose_caller_is_gone_holds_nothing_up() {
    let (service, streams) = subscriptions();
    let server = builder(service).plan(plan()).start().unwrap();
    let socket = raw_call(&server, "/test.Streams/Subscribe");
    let stream = streams.recv_timeout(LONG).unwrap();
    drop(socket);
    // Though the program holds on to it and sends nothing.
    eventually("it is not in flight", || server.in_flight() == 0);
    let report = server.shutdown();
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    assert_eq!(report.calls, calls(|it| it.caller_left = 1), "{report}");
    assert_eq!(stream.send(&number(1)).unwrap_err().code(), Code::Cancelled);
    drop(stream);
}

#[test]
fn a_call_whose_deadline_passes_in_the_backlog_of_a_drain_is_not_run() {
    let (service, gate) = gated();
    let server = builder(service).plan(plan()).workers(1).start().unwrap();
    let client = client(&server);
    let first = in_background(&client);
    begun(&gate);
    let options = CallOptions::default().timeout(Duration::from_millis(100));
    let second = thread::spawn({
        let client = client.clone();
        move || say_with(&client, "late", options)
    });
    eventually("the second waits", || server.in_flight() == 2);
    server.lifecycle().shutdown("test");
    let status = second.join().unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    // By the client's clock. Clients round up what they send, by some ten milliseconds at the most.
    thread::sleep(Duration::from_millis(200));
    gate.release.send(()).unwrap();
    assert_eq!(first.join().unwrap().unwrap(), "hello");
    let report = server.wait();
    assert_eq!(
        report.calls,
        calls(|it| (it.completed, it.refused) = (1, 1)),
        "{report}"
    );
    assert!(gate.begun.try_recv().is_err(), "the second was not run");
}

#[test]
fn the_time_remaining_is_the_nearer_of_the_deadline_and_the_drains_end() {
    let (service, gate) = gated();
    let server = builder(service.policy(SAY_TO_ECHO, DrainPolicy::CutEarly))
        .plan(plan())
        .start()
        .unwrap();
    let client = client(&server);
    let with = |options: CallOptions| {
        let client = client.clone();
        thread::spawn(move || say_with(&client, "hello", options))
    };
    let patient = with(CallOptions::default());
    let of_patient = begun(&gate);
    let hasty = with(CallOptions::default().timeout(GRACE / 4));
    let of_hasty = begun(&gate);
    assert_eq!(of_patient.time_remaining(), None);
    assert!(of_hasty.time_remaining().unwrap() < GRACE / 3);
    server.lifecycle().shutdown("test");
    assert!(of_patient.draining().wait_timeout(LONG));
    // By default a call that may be cut early has half of the grace period.
    assert!(of_patient.time_remaining().unwrap() <= GRACE / 2);
    assert!(of_hasty.time_remaining().unwrap() < GRACE / 3);
    assert!(!of_patient.is_cancelled());
    for _ in 0..2 {
        gate.release.send(()).unwrap();
    }
    drop((patient.join(), hasty.join()));
    assert_eq!(server.wait().exit_code(), exit_code::CLEAN);
}

#[test]
fn a_call_that_cannot_end_in_time_is_refused_at_once() {
    let (service, gate) = gated();
    let server = builder(service.minimum_time(SAY_TO_ECHO, GRACE / 2))
        .plan(plan())
        .workers(1)
        .start()
        .unwrap();
    let client = client(&server);
    // Outside of a drain it is the caller's own deadline that is too near.
    let options = CallOptions::default().timeout(GRACE / 4);
    let status = say_with(&client, "hasty", options).unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(
        status.message(),
        "the deadline is nearer than the shortest time that the method takes"
    );

    let first = in_background(&client);
    let call = begun(&gate);
    let second = in_background(&client);
    eventually("the second waits", || server.in_flight() == 2);
    server.lifecycle().shutdown("test");
    assert!(call.draining().wait_timeout(LONG));
    eventually("too little is left", || {
        call.time_remaining().unwrap() < GRACE / 2
    });
    gate.release.send(()).unwrap();
    let status = second.join().unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(
        status.message(),
        "the server is shutting down sooner than the method could end"
    );
    assert_eq!(first.join().unwrap().unwrap(), "hello");
    let report = server.wait();
    assert_eq!(report.exit_code(), exit_code::CLEAN);
    assert_eq!(
        report.calls,
        calls(|it| (it.completed, it.refused) = (1, 2)),
        "{report}"
    );
    assert!(gate.begun.try_recv().is_err(), "it was not begun");
}

/// The end of a cut call, byte for byte: one header frame, no reset, and the advice to retry.
#[test]
fn a_cut_call_ends_with_trailers_alone() {
    let (service, gate) = gated();
    let server = builder(service.policy(SAY_TO_ECHO, DrainPolicy::CutEarly))
        .plan(plan())
        .cut_early_after(0.0)
        .start()
        .unwrap();
    let mut socket = raw_call(&server, SAY);
    let call = begun(&gate);
    call.set_header("said", "by the handler").unwrap();
    server.lifecycle().shutdown("test");
    assert!(call.token().wait_timeout(LONG));
    gate.release.send(()).unwrap();
    // The drain closes the connection.
    let mut answer = Vec::new();
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket.read_to_end(&mut answer).unwrap();
    let mut frames = Vec::new();
    let mut rest = answer.as_slice();
    while let [a, b, c, kind, flags, _, _, _, stream, tail @ ..] = rest {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        // A server may give the client more room to send at any time.
        const WINDOW_UPDATE: u8 = 8;
        if *stream == 1 && *kind != WINDOW_UPDATE {
            frames.push((*kind, *flags, &tail[..length]));
        }
        rest = &tail[length..];
    }
    let [(1, flags, headers)] = frames.as_slice() else {
        panic!("not one frame of headers: {frames:?}");
    };
    assert_eq!(flags & 1, 1, "it ends the stream");
    let has = |text: &str| headers.windows(text.len()).any(|it| it == text.as_bytes());
    assert!(has("grpc-retry-pushback-ms"), "{headers:?}");
    assert!(has("the server is shutting down"), "{headers:?}");
    assert!(!has("said"), "{headers:?}");
    server.wait();
}

/// A policy or a time for a method that the service does not have: the sentence with which the server does not start.
fn unknown(service: Service) -> String {
    let error = builder(service).start().map(drop).unwrap_err();
    assert!(matches!(error, StartError::UnknownMethod(_)), "{error:?}");
    error.to_string()
}

#[test]
fn a_policy_for_a_method_that_is_not_there_says_which_is() {
    let named = |service, name| MethodName::new(service, name);
    let set = |method| echo().policy(method, DrainPolicy::CutEarly);
    assert_eq!(
        unknown(set(named("test.Echo", "say"))),
        "a policy or a minimum time for /test.Echo/say is set on the service test.Echo, which has no such method: \
         did you mean Say?"
    );
    assert_eq!(
        unknown(echo().minimum_time(named("test.Echo", "Shout"), GRACE)),
        "a policy or a minimum time for /test.Echo/Shout is set on the service test.Echo, which has no such method: \
         it has Say"
    );
    assert_eq!(
        unknown(set(named("test.Eco", "Say"))),
        "a policy or a minimum time for /test.Eco/Say is set on the service test.Echo, which is another one: set it on \
         the service of the method, or did you mean /test.Echo/Say?"
    );
    assert_eq!(
        unknown(set(SUBSCRIBE)),
        "a policy or a minimum time for /test.Streams/Subscribe is set on the service test.Echo, which is another \
         one: set it on the service of the method"
    );
}

#[test]
fn settings_that_make_no_sense_are_errors_that_name_them() {
    for share in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        let error = builder(echo()).cut_early_after(share).start().unwrap_err();
        assert!(error.to_string().contains("cut_early_after"), "{error}");
    }
}

#[test]
fn a_grace_period_without_end_cuts_nothing_early() {
    let (service, gate) = gated();
    let server = builder(service.policy(SAY_TO_ECHO, DrainPolicy::CutEarly))
        .plan(Plan::new().with_grace_period(Duration::MAX))
        .start();
    // A plan must have an end.
    let server = match server {
        Ok(server) => server,
        Err(error) => return assert!(error.to_string().contains("plan"), "{error}"),
    };
    let client = client(&server);
    let answer = in_background(&client);
    let call = begun(&gate);
    server.lifecycle().shutdown("test");
    assert!(call.draining().wait_timeout(LONG));
    gate.release.send(()).unwrap();
    assert_eq!(answer.join().unwrap().unwrap(), "hello");
    server.wait();
}

/// Calls arrive, run and end while they are being cut: each is counted once, and none is lost track of.
#[test]
fn every_call_is_counted_once_while_calls_are_cut() {
    let service = unary(|call, request| {
        call.token().wait_timeout(Duration::from_millis(3));
        Ok(request)
    });
    let server = builder(service.policy(SAY_TO_ECHO, DrainPolicy::CutEarly))
        .plan(plan().with_grace_period(Duration::from_millis(400)))
        .workers(4)
        .start()
        .unwrap();
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let client = client(&server);
            thread::spawn(move || {
                let mut answers = (0, 0);
                loop {
                    match say(&client, "hello") {
                        Ok(_) => answers.0 += 1,
                        Err(status) => {
                            assert_eq!(status.code(), Code::Unavailable, "{status}");
                            answers.1 += 1;
                            return answers;
                        }
                    }
                }
            })
        })
        .collect();
    eventually("calls are made", || server.calls().completed > 50);
    let report = server.shutdown();
    let answers = callers.into_iter().map(|it| it.join().unwrap());
    let (landed, _) = answers.fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    assert_eq!(report.calls.completed, landed, "{report}");
    let Calls {
        told_to_stop,
        abandoned,
        caller_left,
        ..
    } = report.calls;
    assert_eq!(
        (told_to_stop, abandoned, caller_left),
        (0, 0, 0),
        "{report}"
    );
}

/// `/test.Streams/Subscribe` hands its stream to the test, and ends as it is told.
fn handed_over(
    end: impl Fn(&Call) -> Result<(), Status> + Send + Sync + 'static,
) -> (Service, Receiver<DetachedReplies<UInt32Value>>) {
    let (sender, receiver) = unbounded();
    let service = Service::builder("test.Streams")
        .server_streaming(
            "Subscribe",
            move |call: &Call, _: UInt32Value, replies: Replies<UInt32Value>| {
                sender.send(replies.detach()).unwrap();
                end(call)
            },
        )
        .build();
    (service, receiver)
}

#[test]
fn a_stream_that_was_detached_by_a_handler_that_failed_is_over() {
    let (service, streams) = handed_over(|_| Err(Status::not_found("no such channel")));
    let server = builder(service).plan(plan()).start().unwrap();
    let client = client(&server);
    let status = subscribe(&client).next().unwrap().unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    // The program has put it aside and does not know.
    let stream = streams.recv_timeout(LONG).unwrap();
    eventually("it is not in flight", || server.in_flight() == 0);
    let report = server.shutdown();
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    assert_eq!(report.calls, calls(|it| it.completed = 1), "{report}");
    assert!(stream.send(&number(1)).is_err());
}

#[test]
fn a_handler_is_waited_for_though_its_detached_stream_has_ended() {
    let (release, released) = unbounded::<()>();
    let (service, streams) = handed_over(move |_| {
        let _ = released.recv_timeout(LONG);
        Ok(())
    });
    let server = builder(service).plan(plan()).start().unwrap();
    let client = client(&server);
    let mut replies = subscribe(&client);
    streams.recv_timeout(LONG).unwrap().finish(Ok(()));
    assert!(replies.next().is_none());
    server.lifecycle().shutdown("test");
    // Which is cancelled in Closing at the latest.
    let cancelling = server.lifecycle().cancelling().clone();
    assert!(!cancelling.wait_timeout(Duration::from_millis(200)));
    assert_eq!(server.in_flight(), 1);
    release.send(()).unwrap();
    let report = server.wait();
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    assert_eq!(report.calls, calls(|it| it.completed = 1), "{report}");
}

/// As `raw_call`, by a client that takes no message: it grants no window.
fn raw_call_without_window(server: &Server, path: &str) -> TcpStream {
    // SETTINGS_INITIAL_WINDOW_SIZE: RFC 9113, 6.5.2.
    raw_call_after(server, path, &frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]))
}

#[test]
fn a_cut_stream_whose_caller_takes_nothing_holds_no_drain() {
    let (service, streams) = subscriptions();
    let policy = DrainPolicy::Stream { goodbye: EARLY };
    let server = builder(service.policy(SUBSCRIBE, policy))
        .plan(plan().with_grace_period(LONG))
        .start()
        .unwrap();
    let socket = raw_call_without_window(&server, "/test.Streams/Subscribe");
    let stream = streams.recv_timeout(LONG).unwrap();
    stream.send(&number(1)).unwrap();
    let report = server.shutdown();
    assert!(report.took < LONG, "{report}");
    assert_eq!(report.calls, calls(|it| it.cut = 1), "{report}");
    // What its client has sent meanwhile nobody can know.
    assert_eq!(report.connections_cut, 1, "{report}");
    assert_eq!(report.exit_code(), exit_code::FORCED, "{report}");
    drop((stream, socket));
}

#[test]
fn an_answer_that_nobody_takes_is_counted_as_undelivered() {
    let (service, streams) = subscriptions();
    let plan = plan().with_grace_period(Duration::from_millis(100));
    let server = builder(service).plan(plan).start().unwrap();
    let socket = raw_call_without_window(&server, "/test.Streams/Subscribe");
    let stream = streams.recv_timeout(LONG).unwrap();
    stream.send(&number(1)).unwrap();
    stream.finish(Ok(()));
    let report = server.shutdown();
    assert_eq!(report.exit_code(), exit_code::FORCED, "{report}");
    assert_eq!(report.calls, calls(|it| it.undelivered = 1), "{report}");
    drop(socket);
}

/// Passes on how calls end.
struct Listens(Sender<(String, Code)>);

impl Interceptor for Listens {
    fn after(&self, call: &Call, status: &Status) {
        let _ = self.0.send((call.method().to_owned(), status.code()));
    }
}

#[test]
fn interceptors_hear_of_a_cut_what_the_callers_hear() {
    let (service, gate) = gated();
    let (streaming, streams) = subscriptions();
    let (listens, heard) = unbounded();
    let policy = DrainPolicy::Stream { goodbye: EARLY };
    let server = builder(service.policy(SAY_TO_ECHO, DrainPolicy::CutEarly))
        .service(streaming.policy(SUBSCRIBE, policy))
        .interceptor(Listens(listens))
        .plan(plan())
        .cut_early_after(0.1)
        .start()
        .unwrap();
    let client = client(&server);
    let answer = in_background(&client);
    begun(&gate);
    let mut replies = subscribe(&client);
    let stream = streams.recv_timeout(LONG).unwrap();
    server.lifecycle().shutdown("test");
    cut(answer);
    let status = replies.next().unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    gate.release.send(()).unwrap();
    assert_eq!(
        heard.recv_timeout(LONG).unwrap(),
        (SAY.to_owned(), Code::Unavailable)
    );
    drop(stream);
    assert_eq!(
        heard.recv_timeout(LONG).unwrap(),
        ("/test.Streams/Subscribe".to_owned(), Code::Unavailable)
    );
    let report = server.wait();
    assert_eq!(report.calls, calls(|it| it.cut = 2), "{report}");
    assert!(heard.try_recv().is_err());
}

#[test]
fn interceptors_hear_once_of_a_stream_that_broke_off_in_its_handler() {
    let service = Service::builder("test.Streams")
        .server_streaming(
            "Subscribe",
            |_: &Call, _: UInt32Value, replies: Replies<UInt32Value>| {
                drop(replies.detach());
                Err(Status::not_found("no such channel"))
            },
        )
        .build();
    let (listens, heard) = unbounded();
    let server = builder(service)
        .interceptor(Listens(listens))
        .start()
        .unwrap();
    let client = client(&server);
    let status = subscribe(&client).next().unwrap().unwrap_err();
    let report = server.shutdown();
    assert_eq!(report.calls, calls(|it| it.completed = 1), "{report}");
    let heard: Vec<_> = heard.try_iter().map(|(_, code)| code).collect();
    assert_eq!(heard, [status.code()]);
}

#[test]
fn a_handler_that_runs_before_the_program_is_ready_is_told_of_the_stop() {
    let (began, begun) = unbounded();
    let (end, ended) = unbounded();
    let service = unary(move |call, request| {
        let token = call.token();
        began.send(()).unwrap();
        end.send(token.wait_timeout(LONG)).unwrap();
        Ok(request)
    });
    let lifecycle = Lifecycle::builder().plan(plan()).build().unwrap();
    let server = builder(service).start_with(&lifecycle).unwrap();
    let client = client(&server);
    let answer = in_background(&client);
    begun.recv_timeout(LONG).unwrap();
    let report = server.shutdown();
    assert_eq!(
        answer.join().unwrap().unwrap_err().code(),
        Code::Unavailable
    );
    assert!(ended.recv_timeout(LONG).unwrap(), "{report}");
    assert_eq!(report.calls, calls(|it| it.abandoned = 1), "{report}");
    assert_eq!(report.exit_code(), exit_code::FORCED, "{report}");
}

#[test]
fn what_a_handler_throws_may_panic_as_it_is_dropped() {
    struct Thrown(u32);
    impl Drop for Thrown {
        fn drop(&mut self) {
            if self.0 > 0 {
                panic::resume_unwind(Box::new(Thrown(self.0 - 1)));
            }
        }
    }
    let service = unary(|_, _| panic::resume_unwind(Box::new(Thrown(2))));
    let server = builder(service).start().unwrap();
    let status = say(&client(&server), "").unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    let report = server.shutdown();
    assert_eq!(report.calls, calls(|it| it.completed = 1), "{report}");
}
