//! What call observers are told: of every call its arrival and one end, and of every connection.
#![cfg(feature = "client")]

mod common;

use std::collections::HashMap;
use std::io::Write;
use std::net::TcpStream;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::*;
use crossbeam_channel::{unbounded, Receiver, Sender};
use proptest::collection::vec;
use proptest::prelude::*;
use touchdown::client::{CallOptions, Client};
use touchdown::lifecycle::{Calls, Report};
use touchdown::protobuf::well_known_types::wrappers::{StringValue, UInt32Value};
use touchdown::{
    Call, CallEnd, CallKind, CallObserver, CallOutcome, CallRefusal, Code, ConnectionEvent,
    ConnectionRefusal, DetachedReplies, DrainPolicy, MethodName, Peer, RefusalReason, Replies,
    Requests, Server, Service, Status,
};

#[derive(Clone, Debug)]
enum Event {
    Arrived(String, CallKind),
    Begun,
    Ended(CallEnd),
    Refused(CallRefusal),
}

/// The number that a recorder has given to a call.
struct Number(u64);

/// Keeps what it is told, by call.
#[derive(Default)]
struct Recorder {
    next: AtomicU64,
    calls: Mutex<HashMap<u64, Vec<Event>>>,
    connections: Mutex<Vec<ConnectionEvent>>,
}

impl Recorder {
    fn note(&self, call: &Call, event: Event) {
        let number = call.extensions().get::<Number>();
        let number = number.expect("its arrival was told, and its end was not").0;
        self.calls
            .lock()
            .unwrap()
            .entry(number)
            .or_default()
            .push(event);
    }

    /// What was told of each call, in the order of their arrival.
    fn calls(&self) -> Vec<Vec<Event>> {
        let calls = self.calls.lock().unwrap();
        let mut calls: Vec<_> = calls.iter().collect();
        calls.sort_by_key(|it| it.0);
        calls.into_iter().map(|it| it.1.clone()).collect()
    }

    /// How the only call of the test has ended.
    fn end(&self) -> CallEnd {
        match self.calls().as_slice() {
            [events] => match events.last() {
                Some(Event::Ended(end)) => end.clone(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    fn refusals(&self) -> Vec<CallRefusal> {
        let calls = self.calls().into_iter().flatten();
        let refusals = calls.filter_map(|it| match it {
            Event::Refused(refusal) => Some(refusal),
            _ => None,
        });
        refusals.collect()
    }

    fn is_refused(&self, reason: RefusalReason) -> bool {
        self.refusals().iter().any(|it| it.reason == reason)
    }

    fn connections(&self) -> Vec<ConnectionEvent> {
        self.connections.lock().unwrap().clone()
    }
}

impl CallObserver for Recorder {
    fn arrived(&self, call: &Call) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let before = call.extensions().insert(Number(number));
        assert!(before.is_none(), "it has arrived twice");
        self.note(call, Event::Arrived(call.method().to_owned(), call.kind()));
    }

    fn begun(&self, call: &Call, waited: Duration) {
        assert!(waited < LONG);
        self.note(call, Event::Begun);
    }

    fn ended(&self, call: &Call, end: &CallEnd) {
        self.note(call, Event::Ended(end.clone()));
    }

    fn refused(&self, call: &Call, refusal: &CallRefusal) {
        self.note(call, Event::Refused(refusal.clone()));
    }

    fn connection(&self, event: &ConnectionEvent) {
        self.connections.lock().unwrap().push(event.clone());
    }
}

/// A server that a recorder observes.
fn observed(
    service: Service,
    set: impl FnOnce(touchdown::ServerBuilder) -> touchdown::ServerBuilder,
) -> (Server, Arc<Recorder>) {
    let recorder = Arc::<Recorder>::default();
    let builder = builder(service).observer(Arc::clone(&recorder));
    (set(builder).start().unwrap(), recorder)
}

/// `/test.Echo/Say` that ends when it is let.
fn gated() -> (Service, Receiver<Call>, Sender<()>) {
    let (began, begun) = unbounded();
    let (release, released) = unbounded();
    let service = unary(move |call, request| {
        began.send(call.clone()).unwrap();
        let _ = released.recv_timeout(LONG);
        Ok(request)
    });
    (service, begun, release)
}

fn in_background(client: &Client) -> thread::JoinHandle<Result<String, Status>> {
    let client = client.clone();
    thread::spawn(move || say(&client, "hello"))
}

#[test]
fn a_call_is_told_from_its_arrival_to_its_end_with_all_that_went_each_way() {
    let (server, recorder) = observed(unary(|_, _| Ok(text("x".repeat(100)))), |it| it);
    say(&client(&server), "hello").unwrap();
    server.shutdown();
    let calls = recorder.calls();
    let [Event::Arrived(method, CallKind::Unary), Event::Begun, Event::Ended(_)] = &calls[0][..]
    else {
        panic!("{calls:?}");
    };
    assert_eq!(method, "/test.Echo/Say");
    let end = recorder.end();
    assert_eq!((end.code, end.outcome), (Code::Ok, CallOutcome::Completed));
    // A tag and a length of a byte each stand before the text.
    assert_eq!((end.received.messages, end.received.bytes), (1, 7));
    assert_eq!((end.sent.messages, end.sent.bytes), (1, 102));
    assert!(end.waited < LONG && end.ran < LONG, "{end:?}");
}

#[test]
fn the_messages_of_streams_are_counted_each() {
    let double = |_: &Call, requests: Requests<StringValue>, replies: Replies<StringValue>| {
        for request in requests {
            let request = request?;
            replies.send(&request)?;
            replies.send(&request)?;
        }
        Err(Status::aborted("enough"))
    };
    let service = Service::builder("test.Streams").bidirectional("Double", double);
    let (server, recorder) = observed(service.build(), |it| it);
    let client = client(&server);
    let (mut requests, replies) = client
        .bidirectional("/test.Streams/Double", CallOptions::default())
        .unwrap();
    for _ in 0..5 {
        requests.send(text("12345678")).unwrap();
    }
    drop(requests);
    // The status overtakes replies that the client has not read.
    let last = replies.last().unwrap() as Result<StringValue, Status>;
    assert_eq!(last.unwrap_err().code(), Code::Aborted);
    server.shutdown();
    let end = recorder.end();
    assert_eq!(end.kind, CallKind::Streaming);
    assert_eq!(
        (end.code, end.outcome),
        (Code::Aborted, CallOutcome::Completed)
    );
    assert_eq!((end.received.messages, end.received.bytes), (5, 50));
    assert_eq!((end.sent.messages, end.sent.bytes), (10, 100));
}

#[test]
fn a_call_that_waited_says_how_long_and_one_that_ran_too() {
    let (service, begun, release) = gated();
    let (server, recorder) = observed(service, |it| it.workers(1));
    let client = client(&server);
    let first = in_background(&client);
    begun.recv_timeout(LONG).unwrap();
    let second = in_background(&client);
    let lifecycle = server.lifecycle().clone();
    eventually("the second one waits", || {
        lifecycle.describe().contains("1 calls wait")
    });
    let held = Duration::from_millis(20);
    thread::sleep(held);
    release.send(()).unwrap();
    begun.recv_timeout(LONG).unwrap();
    thread::sleep(held);
    release.send(()).unwrap();
    for call in [first, second] {
        call.join().unwrap().unwrap();
    }
    server.shutdown();
    let calls = recorder.calls();
    let ends: Vec<&CallEnd> = calls
        .iter()
        .map(|it| match it.last() {
            Some(Event::Ended(end)) => end,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ends[0].waited, Duration::ZERO);
    assert!(
        ends[0].ran >= held && ends[1].waited >= held && ends[1].ran >= held,
        "{ends:?}"
    );
}

#[test]
fn an_unknown_method_is_told_by_its_path() {
    let (server, recorder) = observed(echo(), |it| it);
    let client = client(&server);
    let options = CallOptions::default().timeout(LONG);
    let status = client
        .unary::<_, StringValue>("/test.Echo/Whisper", &text("x"), options)
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    let report = server.shutdown();
    let calls = recorder.calls();
    let [Event::Arrived(path, CallKind::UnknownMethod), Event::Refused(refusal)] = &calls[0][..]
    else {
        panic!("{calls:?}");
    };
    assert_eq!(path, "/test.Echo/Whisper");
    assert_eq!(refusal.reason, RefusalReason::UnknownMethod);
    assert_eq!(refusal.code, Code::Unimplemented);
    assert_eq!(report.calls.refused, 1);
}

#[test]
fn what_does_not_fit_into_the_backlog_is_told_and_what_expires_there_too() {
    /// Keeps the calls that have arrived.
    #[derive(Default)]
    struct Keeper(Mutex<Vec<Call>>);
    impl CallObserver for Keeper {
        fn arrived(&self, call: &Call) {
            self.0.lock().unwrap().push(call.clone());
        }
    }
    let (service, begun, release) = gated();
    let keeper = Arc::<Keeper>::default();
    let (server, recorder) = observed(service, |it| {
        it.workers(1).backlog(1).observer(Arc::clone(&keeper))
    });
    let client = client(&server);
    let first = in_background(&client);
    begun.recv_timeout(LONG).unwrap();
    let waiting = {
        let client = client.clone();
        let options = CallOptions::default().timeout(unhurried(100));
        thread::spawn(move || say_with(&client, "late", options))
    };
    eventually("one waits", || keeper.0.lock().unwrap().len() == 2);
    let late = keeper.0.lock().unwrap()[1].clone();
    let refused = say(&client, "too much").unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let status = waiting.join().unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    // The server's clock may be a moment behind the client's.
    eventually("it has expired", || {
        late.time_remaining() == Some(Duration::ZERO)
    });
    release.send(()).unwrap();
    drop(late);
    keeper.0.lock().unwrap().clear();
    first.join().unwrap().unwrap();
    server.shutdown();
    let refusals = recorder.refusals();
    let full = refusals
        .iter()
        .find(|it| it.reason == RefusalReason::BacklogFull);
    let full = full.expect("one was refused");
    assert_eq!(
        (full.code, full.received.messages),
        (Code::ResourceExhausted, 1)
    );
    assert!(recorder.is_refused(RefusalReason::Expired));
    assert_eq!(refusals.len(), 2, "{refusals:?}");
}

#[test]
fn a_call_with_too_little_time_is_told_and_so_is_one_that_comes_too_late() {
    let (service, begun, release) = gated();
    let service = service.minimum_time(MethodName::new("test.Echo", "Say"), LONG * 10);
    let (server, recorder) = observed(service, |it| it);
    let status = say(&client(&server), "x").unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    server.shutdown();
    assert!(recorder.is_refused(RefusalReason::TooLittleTime));
    drop((begun, release));

    let (service, begun, release) = gated();
    let service = service.policy(MethodName::new("test.Echo", "Say"), DrainPolicy::CutEarly);
    let (server, recorder) = observed(service, |it| it.workers(1).cut_early_after(Duration::ZERO));
    let client = client(&server);
    let calls = [in_background(&client), in_background(&client)];
    begun.recv_timeout(LONG).unwrap();
    let lifecycle = server.lifecycle().clone();
    eventually("one waits", || {
        lifecycle.describe().contains("1 calls wait")
    });
    lifecycle.shutdown("test");
    for call in calls {
        assert_eq!(call.join().unwrap().unwrap_err().code(), Code::Unavailable);
    }
    drop(release);
    let report = server.wait();
    assert_eq!((report.calls.cut, report.calls.refused), (1, 1));
    assert!(recorder.is_refused(RefusalReason::ShuttingDown));
    let calls = recorder.calls();
    let cut = calls.iter().flatten().find_map(|it| match it {
        Event::Ended(end) => Some((end.code, end.outcome)),
        _ => None,
    });
    assert_eq!(cut, Some((Code::Unavailable, CallOutcome::Cut)));
}

#[test]
fn a_call_whose_handler_does_not_return_is_told_as_abandoned_once() {
    let (service, begun, release) = gated();
    let plan = quick_plan()
        .with_grace_period(Duration::ZERO)
        .with_force_period(Duration::ZERO);
    let (server, recorder) = observed(service, |it| it.lifecycle(planned(plan)));
    let call = in_background(&client(&server));
    // It goes with the call's extensions.
    let (kept, gone) = unbounded::<()>();
    let handle = begun.recv_timeout(LONG).unwrap();
    handle.extensions().insert(kept);
    drop(handle);
    let report = server.shutdown();
    assert_eq!(report.calls.abandoned, 1);
    let end = recorder.end();
    assert_eq!(
        (end.code, end.outcome),
        (Code::Unavailable, CallOutcome::Abandoned)
    );
    assert!(call.join().unwrap().is_err());
    assert!(gone.try_recv().is_err_and(|it| !it.is_disconnected()));
    release.send(()).unwrap();
    let landed = gone.recv_timeout(LONG).unwrap_err();
    assert!(landed.is_disconnected(), "the handler has returned");
    assert_eq!(recorder.calls()[0].len(), 3);
}

#[test]
fn a_detached_call_whose_handler_does_not_return_is_abandoned_once() {
    let (hand_out, handed_out) = unbounded::<DetachedReplies<StringValue>>();
    let (release, released) = unbounded::<()>();
    let subscribe = move |_: &Call, _: StringValue, replies: Replies<StringValue>| {
        hand_out.send(replies.detach()).unwrap();
        let _ = released.recv_timeout(LONG);
        Ok(())
    };
    let service = Service::builder("test.News").server_streaming("Read", subscribe);
    let plan = quick_plan()
        .with_grace_period(Duration::ZERO)
        .with_force_period(Duration::ZERO);
    let (server, recorder) = observed(service.build(), |it| it.lifecycle(planned(plan)));
    let client = client(&server);
    let stream = client
        .server_streaming::<_, StringValue>("/test.News/Read", &text(""), CallOptions::default())
        .unwrap();
    let replies = handed_out.recv_timeout(LONG).unwrap();
    let report = server.shutdown();
    assert_eq!(report.calls.abandoned, 1);
    assert_eq!(recorder.calls()[0].len(), 3, "{:?}", recorder.calls());
    assert_eq!(recorder.end().outcome, CallOutcome::Abandoned);
    drop((stream, replies, release));
}

#[test]
fn a_caller_that_left_is_told_as_such() {
    let wait = |call: &Call, _: StringValue, replies: Replies<StringValue>| {
        replies.send(&text("first"))?;
        assert!(call.token().wait_timeout(LONG));
        Ok(())
    };
    let service = Service::builder("test.News").server_streaming("Read", wait);
    let (server, recorder) = observed(service.build(), |it| it);
    let client = client(&server);
    let mut stream = client
        .server_streaming::<_, StringValue>("/test.News/Read", &text(""), CallOptions::default())
        .unwrap();
    stream.next().unwrap().unwrap();
    drop(stream);
    eventually("it has ended", || server.in_flight() == 0);
    server.shutdown();
    assert_eq!(recorder.end().outcome, CallOutcome::CallerLeft);
}

#[test]
fn a_detached_stream_ends_when_it_is_finished_and_keeps_its_extensions_until_then() {
    struct Note(&'static str);
    let (hand_out, handed_out) = unbounded::<DetachedReplies<StringValue>>();
    let subscribe = move |call: &Call, _: StringValue, replies: Replies<StringValue>| {
        call.extensions().insert(Note("of the handler"));
        hand_out.send(replies.detach()).unwrap();
        Ok(())
    };
    let service = Service::builder("test.News").server_streaming("Read", subscribe);
    let (server, recorder) = observed(service.build(), |it| it);
    let client = client(&server);
    let stream = client
        .server_streaming::<_, StringValue>("/test.News/Read", &text(""), CallOptions::default())
        .unwrap();
    let replies = handed_out.recv_timeout(LONG).unwrap();
    replies.send(&text("news")).unwrap();
    let call = replies.call();
    let note = call.extensions().get::<Note>().unwrap();
    assert_eq!(note.0, "of the handler");
    replies.finish(Ok(()));
    assert_eq!(stream.count(), 1);
    server.shutdown();
    let end = recorder.end();
    assert_eq!((end.kind, end.sent.messages), (CallKind::Detached, 1));
    assert_eq!((end.code, end.outcome), (Code::Ok, CallOutcome::Completed));
    assert!(call.extensions().get::<Note>().is_none());
    assert_eq!(Arc::strong_count(&note), 1);
}

#[test]
fn health_calls_are_told_and_told_apart() {
    const CHECK: &str = "/grpc.health.v1.Health/Check";
    const WATCH: &str = "/grpc.health.v1.Health/Watch";
    let (server, recorder) = observed(echo(), |it| it);
    let client = client(&server);
    let options = || CallOptions::default().timeout(LONG);
    client
        .unary::<_, StringValue>(CHECK, &text(""), options())
        .ok();
    let mut watch = client
        .server_streaming::<_, UInt32Value>(WATCH, &text(""), options())
        .unwrap();
    watch.next().unwrap().unwrap();
    drop(watch);
    eventually("both have ended", || {
        let calls = recorder.calls();
        calls.len() == 2 && calls.iter().all(|it| it.len() == 3)
    });
    let report = server.shutdown();
    assert_eq!(report.calls, Calls::default());
    for events in recorder.calls() {
        assert!(matches!(&events[0], Event::Arrived(_, CallKind::Health)));
        let Some(Event::Ended(end)) = events.last() else {
            panic!("{events:?}");
        };
        assert_eq!((end.kind, end.sent.messages), (CallKind::Health, 1));
    }
}

#[test]
fn an_observer_that_panics_harms_neither_the_call_nor_the_other_observers() {
    struct Panics;
    // Without the hook, which writes a backtrace for each: that takes seconds where there is much to look up.
    fn panics(what: &'static str) {
        resume_unwind(Box::new(what));
    }
    impl CallObserver for Panics {
        fn arrived(&self, _: &Call) {
            panics("arrived");
        }
        fn begun(&self, _: &Call, _: Duration) {
            panics("begun");
        }
        fn ended(&self, _: &Call, _: &CallEnd) {
            panics("ended");
        }
        fn refused(&self, _: &Call, _: &CallRefusal) {
            panics("refused");
        }
        fn connection(&self, _: &ConnectionEvent) {
            panics("connection");
        }
    }
    let recorder = Arc::<Recorder>::default();
    let server = builder(echo())
        .observer(Panics)
        .observer(Arc::clone(&recorder))
        .observer(Panics)
        .start()
        .unwrap();
    let client = client(&server);
    for _ in 0..10 {
        say(&client, "hello").unwrap();
    }
    let options = CallOptions::default().timeout(LONG);
    let unknown = client.unary::<_, StringValue>("/test.Echo/No", &text(""), options);
    assert_eq!(unknown.unwrap_err().code(), Code::Unimplemented);
    drop(client);
    server.shutdown();
    assert_eq!(recorder.calls().len(), 11);
    assert_eq!(recorder.connections().len(), 2);
}

#[test]
fn connections_are_told_from_their_opening_to_their_end_and_so_is_what_is_turned_away() {
    let (server, recorder) = observed(echo(), |it| it.max_connections(1));
    let address = server.address().to_string();
    let mut first = TcpStream::connect(&address).unwrap();
    // With a call, of which only the headers come: without one it would make room.
    let headers = frame(1, 4, 1, &call_headers("POST", "/test.Echo/Say"));
    first.write_all(&[PREFACE, &headers].concat()).unwrap();
    eventually("it is open", || server.connections() == 1);
    let second = TcpStream::connect(&address).unwrap();
    eventually("the second one is refused", || {
        recorder.connections().len() == 2
    });
    let peer = |socket: &TcpStream| Peer::Tcp(socket.local_addr().unwrap());
    match &recorder.connections()[..] {
        [ConnectionEvent::Opened {
            number: 1,
            peer: one,
            encrypted: false,
            ..
        }, ConnectionEvent::Refused {
            peer: two, reason, ..
        }] => {
            assert_eq!((one, two), (&peer(&first), &peer(&second)));
            assert_eq!(*reason, ConnectionRefusal::LimitReached);
        }
        other => panic!("{other:?}"),
    }
    let expected = peer(&first);
    drop((first, second));
    eventually("it is closed", || recorder.connections().len() == 3);
    assert!(matches!(
        &recorder.connections()[2],
        ConnectionEvent::Closed { number: 1, peer, .. } if *peer == expected
    ));
    server.shutdown();
}

/// A call of the property, as its client makes it.
#[derive(Clone, Copy, Debug)]
enum Script {
    /// Takes so many milliseconds.
    Unary(u64),
    Fails,
    FailsWithOk,
    Panics,
    Unknown,
    /// Takes longer than its deadline.
    Late,
    /// So many replies.
    Stream(u32),
    /// The caller leaves after the first reply.
    Left,
    /// Its replies are detached, and finished by another thread.
    Detached(u64),
    /// They are dropped.
    BrokenOff,
    Health,
}

fn any_script() -> impl Strategy<Value = Script> {
    prop_oneof![
        (0..20_u64).prop_map(Script::Unary),
        Just(Script::Fails),
        Just(Script::FailsWithOk),
        Just(Script::Panics),
        Just(Script::Unknown),
        Just(Script::Late),
        (0..20_u32).prop_map(Script::Stream),
        Just(Script::Left),
        (0..20_u64).prop_map(Script::Detached),
        Just(Script::BrokenOff),
        Just(Script::Health),
    ]
}

/// Does what the scripts say.
fn scripted() -> Service {
    fn wait(milliseconds: u64) {
        thread::sleep(Duration::from_millis(milliseconds));
    }
    let say = |_: &Call, request: StringValue| match request.value.as_str() {
        "fails" => Err(Status::not_found("nothing")),
        "fails with OK" => Err(Status::ok()),
        "panics" => panic!("as it was told"),
        milliseconds => {
            wait(milliseconds.parse().unwrap());
            Ok(request)
        }
    };
    let count = |_: &Call, up_to: UInt32Value, replies: Replies<UInt32Value>| {
        (0..up_to.value).try_for_each(|it| replies.send(&number(it)))
    };
    let detach = |_: &Call, request: StringValue, replies: Replies<UInt32Value>| {
        let replies = replies.detach();
        let milliseconds = request.value.parse();
        thread::spawn(move || {
            if let Ok(milliseconds) = milliseconds {
                wait(milliseconds);
                let _ = replies.try_send(&number(1));
                replies.finish(Ok(()));
            }
        });
        Ok(())
    };
    Service::builder("test.Echo")
        .unary("Say", say)
        .server_streaming("Count", count)
        .server_streaming("Detach", detach)
        .build()
        .policy(MethodName::new("test.Echo", "Count"), DrainPolicy::CutEarly)
}

fn play(client: &Client, script: Script) {
    let options = || CallOptions::default().timeout(LONG);
    let say = |what: &str, options| drop(say_with(client, what, options));
    let stream = |path: &'static str, what: &StringValue| {
        client.server_streaming::<_, UInt32Value>(path, what, options())
    };
    match script {
        Script::Unary(milliseconds) => say(&milliseconds.to_string(), options()),
        Script::Fails => say("fails", options()),
        Script::FailsWithOk => say("fails with OK", options()),
        Script::Panics => say("panics", options()),
        Script::Unknown => {
            let _ = client.unary::<_, StringValue>("/test.Echo/No", &text(""), options());
        }
        Script::Late => say(
            "30",
            CallOptions::default().timeout(Duration::from_millis(10)),
        ),
        Script::Stream(count) => {
            let count = number(count);
            let path = "/test.Echo/Count";
            if let Ok(it) = client.server_streaming::<_, UInt32Value>(path, &count, options()) {
                it.for_each(drop);
            }
        }
        Script::Left => {
            let path = "/test.Echo/Count";
            let many = number(100_000);
            if let Ok(mut it) = client.server_streaming::<_, UInt32Value>(path, &many, options()) {
                it.next();
            }
        }
        Script::Detached(milliseconds) => {
            let what = text(milliseconds.to_string());
            if let Ok(it) = stream("/test.Echo/Detach", &what) {
                it.for_each(drop);
            }
        }
        Script::BrokenOff => {
            if let Ok(it) = stream("/test.Echo/Detach", &text("not")) {
                it.for_each(drop);
            }
        }
        Script::Health => {
            let path = "/grpc.health.v1.Health/Check";
            let _ = client.unary::<_, UInt32Value>(path, &text(""), options());
        }
    }
}

/// Checks that each call that has arrived was told an end, and one, in the order that is promised.
fn check_rule(recorder: &Recorder, report: &Report) {
    let (mut calls, mut told) = (report.calls, Calls::default());
    for events in recorder.calls() {
        let kind = match &events[..] {
            [Event::Arrived(_, kind), Event::Begun, Event::Ended(_)]
            | [Event::Arrived(_, kind), Event::Ended(_)]
            | [Event::Arrived(_, kind), Event::Refused(_)] => *kind,
            other => panic!("{other:?}"),
        };
        if kind == CallKind::Health {
            continue;
        }
        *match events.last() {
            Some(Event::Ended(end)) => match end.outcome {
                CallOutcome::Completed => &mut told.completed,
                CallOutcome::CallerLeft => &mut told.caller_left,
                CallOutcome::Undelivered => &mut told.undelivered,
                CallOutcome::Cut => &mut told.cut,
                CallOutcome::ToldToStop => &mut told.told_to_stop,
                CallOutcome::Abandoned => &mut told.abandoned,
                other => panic!("{other:?}"),
            },
            _ => &mut told.refused,
        } += 1;
    }
    // An answer that was lost after its call had ended is found later, and counted as such by the report alone.
    let lost = calls.undelivered - told.undelivered;
    calls.undelivered -= lost;
    calls.completed += lost;
    assert_eq!(told, calls);
    let connections = recorder.connections();
    let mut open = Vec::new();
    for event in connections {
        match event {
            ConnectionEvent::Opened { number, .. } => open.push(number),
            ConnectionEvent::Closed { number, .. } => {
                let place = open.iter().position(|it| *it == number);
                open.remove(place.expect("it was opened, and not closed"));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(open.is_empty(), "not closed: {open:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if SLOW { 4 } else { 24 }))]

    #[test]
    fn every_call_that_arrives_is_told_one_end_however_the_server_stops(
        scripts in vec(any_script(), 1..40),
        stop_after in 0..40_u64,
        grace_period in proptest::sample::select(vec![0, 10, 2000_u64]),
        workers in 1..4_usize,
        backlog in 0..8_usize,
    ) {
        let plan = quick_plan()
            .with_grace_period(Duration::from_millis(grace_period))
            .with_force_period(unhurried(2000));
        let (server, recorder) = observed(scripted(), |it| {
            it.lifecycle(planned(plan)).workers(workers).backlog(backlog)
        });
        let client = client(&server);
        let report = thread::scope(|scope| {
            for script in &scripts {
                let client = client.clone();
                scope.spawn(move || play(&client, *script));
            }
            thread::sleep(Duration::from_millis(stop_after));
            server.lifecycle().shutdown("test");
            drop(client);
            server.wait()
        });
        check_rule(&recorder, &report);
    }
}
