//! Streams whose handlers have a worker only while there is something to do.
#![cfg(feature = "client")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use common::*;
use crossbeam_channel::{bounded, unbounded, Receiver, Sender};
use touchdown::client::{CallOptions, Client, Upload};
use touchdown::lifecycle::exit_code;
use touchdown::protobuf::well_known_types::wrappers::{BytesValue, StringValue, UInt32Value};
use touchdown::protobuf::Message;
use touchdown::{
    Call, CallEnd, CallKind, CallObserver, Code, DrainPolicy, Interceptor, MethodName, Replies,
    Requests, ServerBuilder, Service, Status, StreamHandler, StreamReplies, TrySendError,
    UploadHandler,
};

const CHAT: MethodName = MethodName::new("test.Streams", "Chat");
const GOODBYE: u32 = 99;

/// `/test.Streams/Chat` is detached with what this makes, and `/test.Echo/Say` is not far.
fn chat<Q: Message, R: Message, H: StreamHandler<Q, R>>(
    handler: impl Fn(&Call) -> H + Send + Sync + 'static,
) -> ServerBuilder {
    let detach = move |call: &Call, requests: Requests<Q>, replies: Replies<R>| {
        requests.detach(replies, handler(call))
    };
    serve(
        Service::builder("test.Streams")
            .bidirectional("Chat", detach)
            .build(),
    )
}

fn serve(service: Service) -> ServerBuilder {
    keep_the_log();
    builder(service).service(echo())
}

/// `/test.Streams/Sum` is detached with what this makes.
fn uploads<H: UploadHandler<UInt32Value, UInt32Value>>(
    handler: impl Fn(&Call) -> H + Send + Sync + 'static,
) -> ServerBuilder {
    let detach =
        move |call: &Call, requests: Requests<UInt32Value>| requests.detach_upload(handler(call));
    serve(
        Service::builder("test.Streams")
            .client_streaming("Sum", detach)
            .build(),
    )
}

type ClientSide<Q, R> = (
    touchdown::client::Requests<Q>,
    touchdown::client::Replies<R>,
);

fn open<Q: Message, R: Message>(client: &Client) -> ClientSide<Q, R> {
    open_for(client, LONG * 2)
}

fn open_for<Q: Message, R: Message>(client: &Client, time: Duration) -> ClientSide<Q, R> {
    let options = CallOptions::default().timeout(time);
    client.bidirectional("/test.Streams/Chat", options).unwrap()
}

fn upload(client: &Client) -> Upload<UInt32Value, UInt32Value> {
    let options = CallOptions::default().timeout(LONG * 2);
    client
        .client_streaming("/test.Streams/Sum", options)
        .unwrap()
}

fn value(reply: Option<Result<UInt32Value, Status>>) -> u32 {
    reply.expect("a reply").unwrap().value
}

fn end<R: Message>(replies: touchdown::client::Replies<R>) -> Status {
    let mut end = replies.filter_map(Result::err);
    end.next().unwrap_or_else(Status::ok)
}

/// What a handler has seen.
#[derive(Debug, PartialEq)]
enum Seen {
    Begin,
    Request(u32),
    End,
    Draining,
    Cancelled(Code),
    Dropped,
}

/// Tells all that it sees, and answers each request with its double; at the drain it says goodbye if it is to.
struct Doubler {
    seen: Sender<Seen>,
    says_goodbye: bool,
}

impl StreamHandler<UInt32Value, UInt32Value> for Doubler {
    fn begin(&mut self, _: &StreamReplies<UInt32Value>) -> Result<(), Status> {
        let _ = self.seen.send(Seen::Begin);
        Ok(())
    }

    fn request(
        &mut self,
        request: UInt32Value,
        replies: &StreamReplies<UInt32Value>,
    ) -> Result<(), Status> {
        let _ = self.seen.send(Seen::Request(request.value));
        replies.send(&number(request.value * 2))
    }

    fn end(self, replies: &StreamReplies<UInt32Value>) -> Result<(), Status> {
        let _ = self.seen.send(Seen::End);
        replies.send(&number(GOODBYE))
    }

    fn draining(&mut self, replies: &StreamReplies<UInt32Value>) -> Result<(), Status> {
        let _ = self.seen.send(Seen::Draining);
        if self.says_goodbye {
            replies.send(&number(GOODBYE))?;
            replies.finish(Ok(()));
        }
        Ok(())
    }

    fn cancelled(&mut self, why: &Status) {
        let _ = self.seen.send(Seen::Cancelled(why.code()));
    }
}

impl Drop for Doubler {
    fn drop(&mut self) {
        let _ = self.seen.send(Seen::Dropped);
    }
}

fn doubler(says_goodbye: bool) -> (ServerBuilder, Receiver<Seen>) {
    let (seen, was_seen) = unbounded();
    let server = chat(move |_| Doubler {
        seen: seen.clone(),
        says_goodbye,
    });
    (server, was_seen)
}

fn next(seen: &Receiver<Seen>) -> Seen {
    seen.recv_timeout(LONG).expect("the handler sees something")
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn a_handler_gets_the_requests_in_their_order_and_the_end() {
    let (server, seen) = doubler(false);
    let server = server.start().unwrap();
    let client = client(&server);
    let (mut requests, mut replies) = open(&client);
    for it in 1..=100 {
        requests.send(number(it)).unwrap();
    }
    drop(requests);
    for it in 1..=100 {
        assert_eq!(value(replies.next()), it * 2);
    }
    assert_eq!(value(replies.next()), GOODBYE);
    assert_eq!(replies.next(), None);
    assert_eq!(next(&seen), Seen::Begin);
    (1..=100).for_each(|it| assert_eq!(next(&seen), Seen::Request(it)));
    assert_eq!(next(&seen), Seen::End);
    assert_eq!(next(&seen), Seen::Dropped);
    let report = server.shutdown();
    assert_eq!(
        (report.exit_code(), report.calls.completed),
        (exit_code::CLEAN, 1),
        "{report}"
    );
    assert!(seen.try_recv().is_err());
}

#[test]
fn a_thousand_streams_take_no_thread_and_each_says_goodbye_at_the_drain() {
    const STREAMS: usize = 1000;
    let (server, seen) = doubler(true);
    let plan = quick_plan().with_grace_period(LONG);
    let server = server.workers(2).lifecycle(planned(plan)).start().unwrap();
    let clients: Vec<Client> = (0..20).map(|_| client(&server)).collect();
    let before = threads();
    let mut streams: Vec<_> = clients.iter().cycle().take(STREAMS).map(open).collect();
    for round in 1..=3 {
        for (requests, _) in &mut streams {
            requests.send(number(round)).unwrap();
        }
        for (_, replies) in &mut streams {
            assert_eq!(value(replies.next()), round * 2);
        }
    }
    // Of the server's, and of the clients' as they connect.
    let taken = threads().saturating_sub(before);
    assert!(taken < 100, "{taken} threads for {STREAMS} streams");
    assert_eq!(say(&clients[0], "unary").as_deref(), Ok("unary"));

    server.lifecycle().shutdown("test");
    for (_requests, mut replies) in streams {
        assert_eq!(value(replies.next()), GOODBYE);
        assert_eq!(replies.next(), None);
    }
    let report = server.wait();
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    assert_eq!(report.calls.completed, STREAMS as u64 + 1, "{report}");
    let told = seen.try_iter().filter(|it| *it == Seen::Draining).count();
    assert_eq!(told, STREAMS);
}

#[test]
fn a_closure_is_a_handler_and_one_stream_is_not_held_up_by_another() {
    let (waits, release) = bounded::<()>(0);
    let server = chat(move |_| {
        let release = release.clone();
        move |request: UInt32Value, replies: &StreamReplies<UInt32Value>| {
            if request.value == 0 {
                let _ = release.recv_timeout(LONG);
            }
            replies.send(&request)
        }
    });
    let server = server.workers(2).start().unwrap();
    let client = client(&server);
    let (mut slow, mut slow_replies) = open(&client);
    let (mut quick, mut quick_replies) = open(&client);
    slow.send(number(0)).unwrap();
    for it in 1..10 {
        quick.send(number(it)).unwrap();
        assert_eq!(value(quick_replies.next()), it);
    }
    drop(waits);
    assert_eq!(value(slow_replies.next()), 0);
}

/// Adds up; says so far at the drain if it is to.
struct Sum {
    sum: u32,
    limit: u32,
    ends_early: bool,
    cancelled: Sender<Code>,
}

impl UploadHandler<UInt32Value, UInt32Value> for Sum {
    fn request(&mut self, request: UInt32Value) -> Result<(), Status> {
        self.sum += request.value;
        match self.sum <= self.limit {
            true => Ok(()),
            false => Err(Status::out_of_range("too much")),
        }
    }

    fn end(self) -> Result<UInt32Value, Status> {
        Ok(number(self.sum))
    }

    fn draining(&mut self) -> Result<Option<UInt32Value>, Status> {
        Ok(self.ends_early.then(|| number(self.sum)))
    }

    fn cancelled(&mut self, why: &Status) {
        self.cancelled.send(why.code()).unwrap();
    }
}

fn sums(ends_early: bool) -> (ServerBuilder, Receiver<Code>) {
    let (cancelled, codes) = unbounded();
    let server = uploads(move |_| Sum {
        sum: 0,
        limit: 1000,
        ends_early,
        cancelled: cancelled.clone(),
    });
    (server, codes)
}

#[test]
fn an_upload_gets_its_reply_at_the_end() {
    let (server, _) = sums(false);
    let server = server.start().unwrap();
    let client = client(&server);
    let mut all: Vec<_> = (0..100).map(|_| upload(&client)).collect();
    for it in 1..=10 {
        all.iter_mut().for_each(|one| one.send(number(it)).unwrap());
    }
    for one in all {
        assert_eq!(one.finish(), Ok(number(55)));
    }
    assert_eq!(upload(&client).finish(), Ok(number(0)));
    let mut too_much = upload(&client);
    let _ = too_much.send(number(1001));
    assert_eq!(
        too_much.finish().unwrap_err(),
        Status::out_of_range("too much")
    );
}

#[test]
fn an_upload_may_end_early_at_the_drain() {
    let (server, _) = sums(true);
    let server = server.start().unwrap();
    let client = client(&server);
    let mut one = upload(&client);
    one.send(number(7)).unwrap();
    eventually("it has come", || server.in_flight() == 1);
    server.lifecycle().shutdown("test");
    // What had not come by then may be missing.
    let sum = one.finish().unwrap().value;
    assert!(sum == 7 || sum == 0, "{sum}");
    let report = server.wait();
    assert_eq!(
        (report.exit_code(), report.calls.completed),
        (exit_code::CLEAN, 1),
        "{report}"
    );
}

#[test]
fn a_panic_ends_its_stream_alone_and_is_logged() {
    let server = chat(|_| {
        |request: UInt32Value, replies: &StreamReplies<UInt32Value>| match request.value {
            13 => panic!("unlucky"),
            _ => replies.send(&request),
        }
    });
    let server = server.start().unwrap();
    let client = client(&server);
    let (mut unlucky, unlucky_replies) = open::<_, UInt32Value>(&client);
    let (mut other, mut other_replies) = open(&client);
    // Its end may be there before this is.
    let _ = unlucky.send(number(13));
    let end = end(unlucky_replies);
    assert_eq!(end.code(), Code::Internal, "{end}");
    assert!(!end.message().contains("unlucky"), "{end}");
    eventually("it is logged", || {
        !lines_that(|_, it| it.contains("/test.Streams/Chat") && it.contains("unlucky")).is_empty()
    });
    other.send(number(14)).unwrap();
    assert_eq!(value(other_replies.next()), 14);
}

#[test]
fn a_handler_hears_that_its_caller_has_left_and_that_its_deadline_has_passed() {
    let (server, seen) = doubler(false);
    let server = server.start().unwrap();
    let client = client(&server);
    let (_requests, replies) = open::<UInt32Value, UInt32Value>(&client);
    assert_eq!(next(&seen), Seen::Begin);
    drop(replies);
    assert_eq!(next(&seen), Seen::Cancelled(Code::Cancelled));
    assert_eq!(next(&seen), Seen::Dropped);

    let (requests, replies) = open_for::<UInt32Value, UInt32Value>(&client, unhurried(50));
    assert_eq!(next(&seen), Seen::Begin);
    assert_eq!(end(replies).code(), Code::DeadlineExceeded);
    // The client's own cancellation may come first.
    match next(&seen) {
        Seen::Cancelled(Code::DeadlineExceeded | Code::Cancelled) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(next(&seen), Seen::Dropped);
    drop(requests);
    eventually("nothing is in flight", || server.in_flight() == 0);
}

#[test]
fn an_idle_stream_that_says_no_goodbye_is_told_to_stop() {
    let (seen, was_seen) = unbounded();
    let detach = move |_: &Call, requests: Requests<UInt32Value>, replies| {
        let seen = seen.clone();
        requests.detach(
            replies,
            Doubler {
                seen,
                says_goodbye: false,
            },
        )
    };
    let service = Service::builder("test.Streams")
        .bidirectional("Chat", detach)
        .build();
    let idle = unhurried(100);
    let plan = quick_plan().with_grace_period(LONG);
    let server = serve(service.policy(CHAT, DrainPolicy::FinishUnlessIdle { idle }));
    let server = server.lifecycle(planned(plan)).start().unwrap();
    let client = client(&server);
    let (_requests, replies) = open::<UInt32Value, UInt32Value>(&client);
    assert_eq!(next(&was_seen), Seen::Begin);
    server.lifecycle().shutdown("test");
    assert_eq!(next(&was_seen), Seen::Draining);
    assert_eq!(end(replies).code(), Code::Unavailable);
    assert_eq!(next(&was_seen), Seen::Cancelled(Code::Unavailable));
    assert_eq!(next(&was_seen), Seen::Dropped);
    let report = server.wait();
    assert_eq!(
        (report.exit_code(), report.calls.told_to_stop),
        (exit_code::CLEAN, 1),
        "{report}"
    );
    assert!(report.took < LONG / 2, "{report}");
}

#[test]
fn a_stream_whose_time_in_the_drain_is_over_is_cut_and_hears_why() {
    let (seen, was_seen) = unbounded();
    let detach = move |_: &Call, requests: Requests<UInt32Value>, replies| {
        let seen = seen.clone();
        requests.detach(
            replies,
            Doubler {
                seen,
                says_goodbye: false,
            },
        )
    };
    let service = Service::builder("test.Streams")
        .bidirectional("Chat", detach)
        .build();
    let goodbye = unhurried(50);
    let server = serve(service.policy(CHAT, DrainPolicy::Stream { goodbye }))
        .start()
        .unwrap();
    let client = client(&server);
    let (_requests, replies) = open::<UInt32Value, UInt32Value>(&client);
    assert_eq!(next(&was_seen), Seen::Begin);
    server.lifecycle().shutdown("test");
    assert_eq!(next(&was_seen), Seen::Draining);
    assert_eq!(next(&was_seen), Seen::Cancelled(Code::Unavailable));
    assert_eq!(next(&was_seen), Seen::Dropped);
    assert_eq!(end(replies).code(), Code::Unavailable);
    let report = server.wait();
    assert_eq!(
        (report.exit_code(), report.calls.cut),
        (exit_code::CLEAN, 1),
        "{report}"
    );
}

#[test]
fn a_callback_that_does_not_return_is_abandoned_and_its_caller_answered() {
    let (blocked, is_blocked) = bounded(1);
    let (waits, release) = bounded::<()>(0);
    let server = chat(move |_| {
        let (blocked, release) = (blocked.clone(), release.clone());
        move |_: UInt32Value, _: &StreamReplies<UInt32Value>| {
            blocked.send(()).unwrap();
            let _ = release.recv_timeout(LONG);
            Ok(())
        }
    });
    let plan = quick_plan()
        .with_grace_period(unhurried(50))
        .with_force_period(unhurried(50));
    let server = server.lifecycle(planned(plan)).start().unwrap();
    let client = client(&server);
    let (mut requests, replies) = open::<_, UInt32Value>(&client);
    requests.send(number(1)).unwrap();
    is_blocked.recv_timeout(LONG).unwrap();
    server.lifecycle().shutdown("test");
    assert_eq!(end(replies).code(), Code::Unavailable);
    let report = server.wait();
    assert_eq!(report.calls.abandoned, 1, "{report}");
    drop(waits);
}

/// More than a stream and its connection hold of what nobody reads.
fn large(number: u8) -> BytesValue {
    BytesValue {
        value: vec![number; 1 << 20],
        ..Default::default()
    }
}

#[test]
fn who_reads_nothing_gets_to_say_no_more_and_holds_no_worker() {
    let taken = Arc::new(AtomicUsize::new(0));
    let server = chat({
        let taken = Arc::clone(&taken);
        move |_| {
            let taken = Arc::clone(&taken);
            move |request: UInt32Value, replies: &StreamReplies<BytesValue>| {
                taken.fetch_add(1, Ordering::SeqCst);
                replies.send(&large(request.value as u8))
            }
        }
    });
    let server = server.workers(1).start().unwrap();
    let client = client(&server);
    let other = common::client(&server);
    let (mut requests, replies) = open::<_, BytesValue>(&client);
    for it in 0..40 {
        requests.send(number(it)).unwrap();
    }
    drop(requests);
    eventually("requests are taken", || taken.load(Ordering::SeqCst) > 0);
    // The one worker is free all the time. A client takes some megabytes without being asked.
    for _ in 0..200 {
        assert_eq!(say(&other, "unary").as_deref(), Ok("unary"));
    }
    let held_up = taken.load(Ordering::SeqCst);
    assert!(held_up < 30, "{held_up} requests were taken");
    let seen = replies.map(|it| it.unwrap().value[0]);
    assert!(seen.eq(0..40));
}

/// Answers one request with so many replies, as there is room.
struct Counter {
    next: u32,
    until: u32,
    full: Arc<AtomicUsize>,
}

impl Counter {
    fn count(&mut self, replies: &StreamReplies<StringValue>) -> Result<(), Status> {
        while self.next < self.until {
            match replies.try_send(&text(format!("{:01000}", self.next))) {
                Ok(()) => self.next += 1,
                Err(TrySendError::Full) => {
                    self.full.fetch_add(1, Ordering::SeqCst);
                    return Ok(());
                }
                Err(TrySendError::Ended(status)) => return Err(status),
            }
        }
        Ok(())
    }
}

impl StreamHandler<UInt32Value, StringValue> for Counter {
    fn request(
        &mut self,
        request: UInt32Value,
        replies: &StreamReplies<StringValue>,
    ) -> Result<(), Status> {
        self.until += request.value;
        self.count(replies)
    }

    fn has_room(&mut self, replies: &StreamReplies<StringValue>) -> Result<(), Status> {
        self.count(replies)
    }
}

#[test]
fn a_handler_that_has_much_to_say_goes_on_when_there_is_room() {
    let full = Arc::new(AtomicUsize::new(0));
    let server = chat({
        let full = Arc::clone(&full);
        move |_| Counter {
            next: 0,
            until: 0,
            full: Arc::clone(&full),
        }
    });
    let server = server.start().unwrap();
    let client = client(&server);
    let (mut requests, replies) = open::<_, StringValue>(&client);
    requests.send(number(500)).unwrap();
    requests.send(number(500)).unwrap();
    drop(requests);
    let seen = replies.map(|it| it.unwrap().value.parse::<u32>().unwrap());
    assert!(seen.eq(0..1000));
    assert!(
        full.load(Ordering::SeqCst) > 0,
        "a megabyte has not filled it"
    );
}

#[test]
fn a_handler_that_sends_too_much_at_once_is_told_so() {
    let (tried, has_tried) = unbounded();
    let server = chat(move |_| {
        let tried = tried.clone();
        move |_: UInt32Value, replies: &StreamReplies<StringValue>| {
            let sent = (0..1000).try_for_each(|it| replies.send(&text(format!("{it:01000}"))));
            tried.send(()).unwrap();
            sent
        }
    });
    let server = server.start().unwrap();
    let client = client(&server);
    let (mut requests, replies) = open::<_, StringValue>(&client);
    let _ = requests.send(number(1));
    // A client that takes them may be as fast as the handler.
    has_tried.recv_timeout(LONG).unwrap();
    let end = end(replies);
    assert_eq!(end.code(), Code::ResourceExhausted, "{end}");
}

/// Hands its replies out.
struct Shares(Sender<StreamReplies<UInt32Value>>);

impl StreamHandler<UInt32Value, UInt32Value> for Shares {
    fn begin(&mut self, replies: &StreamReplies<UInt32Value>) -> Result<(), Status> {
        self.0.send(replies.clone()).unwrap();
        Ok(())
    }

    fn request(
        &mut self,
        request: UInt32Value,
        replies: &StreamReplies<UInt32Value>,
    ) -> Result<(), Status> {
        replies.send(&request)
    }
}

#[test]
fn others_send_on_a_stream_too_and_end_it() {
    let (shares, shared) = unbounded();
    let server = chat(move |_| Shares(shares.clone())).start().unwrap();
    let client = client(&server);
    let (mut requests, mut replies) = open(&client);
    let of_others = shared.recv_timeout(LONG).unwrap();
    of_others.send(&number(1)).unwrap();
    assert_eq!(value(replies.next()), 1);
    requests.send(number(2)).unwrap();
    assert_eq!(value(replies.next()), 2);
    std::thread::scope(|scope| {
        for it in [10, 20, 30, 40] {
            let of_others = &of_others;
            scope.spawn(move || of_others.send(&number(it)).unwrap());
        }
    });
    // A client throws away what it has not read when an error comes.
    let mut seen: Vec<_> = (0..4).map(|_| value(replies.next())).collect();
    seen.sort_unstable();
    assert_eq!(seen, [10, 20, 30, 40]);
    of_others.finish(Err(Status::aborted("enough")));
    assert!(of_others.is_over());
    assert_eq!(
        of_others.send(&number(3)).unwrap_err().code(),
        Code::Cancelled
    );
    assert_eq!(end(replies), Status::aborted("enough"));
    eventually("nothing is in flight", || server.in_flight() == 0);
}

#[test]
fn what_was_sent_and_received_before_comes_first_and_what_was_waited_for_is_not_lost() {
    let detach = |_: &Call, mut requests: Requests<UInt32Value>, replies: Replies<UInt32Value>| {
        let first = requests.recv()?.expect("a request");
        replies.send(&first)?;
        // The second is on its way to this handler when it goes.
        let soon = Duration::from_millis(1);
        assert!(requests.recv_timeout(soon).is_err());
        replies.send(&number(0))?;
        requests.detach(
            replies,
            |request: UInt32Value, replies: &StreamReplies<_>| replies.send(&request),
        )
    };
    let service = Service::builder("test.Streams")
        .bidirectional("Chat", detach)
        .build();
    let server = serve(service).start().unwrap();
    let client = client(&server);
    for _ in 0..20 {
        let (mut requests, mut replies) = open(&client);
        requests.send(number(1)).unwrap();
        assert_eq!(value(replies.next()), 1);
        assert_eq!(value(replies.next()), 0);
        for it in 2..5 {
            requests.send(number(it)).unwrap();
            assert_eq!(value(replies.next()), it);
        }
        drop(requests);
        assert_eq!(replies.next(), None);
    }
}

#[test]
fn a_handler_that_fails_after_all_ends_the_call_and_drops_what_it_has_made() {
    let (seen, was_seen) = unbounded();
    let detach = move |_: &Call, requests: Requests<UInt32Value>, replies| {
        let seen = seen.clone();
        requests.detach(
            replies,
            Doubler {
                seen,
                says_goodbye: false,
            },
        )?;
        Err(Status::not_found("not here after all"))
    };
    let service = Service::builder("test.Streams")
        .bidirectional("Chat", detach)
        .build();
    let server = serve(service).start().unwrap();
    let client = client(&server);
    let (_requests, replies) = open::<UInt32Value, UInt32Value>(&client);
    assert_eq!(end(replies), Status::not_found("not here after all"));
    assert_eq!(next(&was_seen), Seen::Dropped);
    eventually("nothing is in flight", || server.in_flight() == 0);
}

#[test]
fn requests_cannot_be_detached_with_the_replies_of_another_call_nor_when_it_is_too_late() {
    let (kept, keeps) = unbounded::<(Requests<UInt32Value>, Replies<UInt32Value>)>();
    let handler =
        move |_: &Call, requests: Requests<UInt32Value>, replies: Replies<UInt32Value>| {
            let nothing = |_: UInt32Value, _: &StreamReplies<UInt32Value>| Ok(());
            match keeps.try_recv() {
                Ok((others_requests, others_replies)) => {
                    let late = others_requests.detach(others_replies, nothing).unwrap_err();
                    assert_eq!(late.code(), Code::Internal, "{late}");
                    Err(late)
                }
                Err(_) => {
                    kept.send((requests, replies)).unwrap();
                    Ok(())
                }
            }
        };
    let service = Service::builder("test.Streams")
        .bidirectional("Chat", handler)
        .build();
    let server = serve(service).start().unwrap();
    let client = client(&server);
    let (_first, replies) = open::<UInt32Value, UInt32Value>(&client);
    assert!(end(replies).is_ok());
    let (_second, replies) = open::<UInt32Value, UInt32Value>(&client);
    // The one is over, or its handler has returned.
    let code = end(replies).code();
    assert!(matches!(code, Code::Internal | Code::Cancelled), "{code:?}");
}

/// Interceptors and observers, as told.
struct Around(Sender<String>);

impl Interceptor for Around {
    fn before(&self, call: &Call) -> Result<(), Status> {
        call.extensions().insert(7_u32);
        Ok(())
    }

    fn after(&self, call: &Call, status: &Status) {
        let seven = call.extensions().get::<u32>();
        self.0
            .send(format!("after {} {seven:?}", status.code()))
            .unwrap();
    }
}

struct Watches(Sender<(CallKind, Code, u64, u64)>);

impl CallObserver for Watches {
    fn ended(&self, call: &Call, end: &CallEnd) {
        let told = (
            call.kind(),
            end.code,
            end.received.messages,
            end.sent.messages,
        );
        self.0.send(told).unwrap();
    }
}

#[test]
fn interceptors_and_observers_are_told_of_the_end_and_the_call_is_there() {
    let (after, is_after) = unbounded();
    let (observed, is_observed) = unbounded();
    let server = chat(|call| {
        let call = call.clone();
        move |request: UInt32Value, replies: &StreamReplies<UInt32Value>| {
            assert_eq!(call.extensions().get::<u32>().as_deref(), Some(&7));
            call.set_trailer("x-seen", "yes").unwrap();
            replies.send(&request)
        }
    });
    let server = server
        .interceptor(Around(after))
        .observer(Watches(observed))
        .start()
        .unwrap();
    let client = client(&server);
    let (mut requests, mut replies) = open(&client);
    for it in 0..3 {
        requests.send(number(it)).unwrap();
        assert_eq!(value(replies.next()), it);
    }
    assert!(is_after.is_empty());
    drop(requests);
    assert_eq!(replies.next(), None);
    assert_eq!(is_after.recv_timeout(LONG).unwrap(), "after OK Some(7)");
    let told = is_observed.recv_timeout(LONG).unwrap();
    assert_eq!(told, (CallKind::Detached, Code::Ok, 3, 3));
    assert!(is_after.is_empty() && is_observed.is_empty());
}

#[test]
fn interceptors_are_told_of_the_end_of_an_upload_once_detached_or_not() {
    let (after, is_after) = unbounded();
    let handler = |_: &Call, mut requests: Requests<UInt32Value>| {
        let first = requests.recv()?.expect("a request");
        match first.value {
            0 => Ok(number(0)),
            1 => Err(Status::not_found("nothing")),
            sum => requests.detach_upload(Sum {
                sum,
                limit: 10,
                ends_early: false,
                cancelled: unbounded().0,
            }),
        }
    };
    let service = Service::builder("test.Streams")
        .client_streaming("Sum", handler)
        .build();
    let server = serve(service).interceptor(Around(after)).start().unwrap();
    let client = client(&server);
    let call = |numbers: &[u32]| {
        let mut upload = upload(&client);
        for it in numbers {
            // The call may have ended by then.
            let _ = upload.send(number(*it));
        }
        upload.finish().map(|it| it.value)
    };
    assert_eq!(call(&[0]), Ok(0));
    assert_eq!(is_after.recv_timeout(LONG).unwrap(), "after OK Some(7)");
    assert_eq!(call(&[1]), Err(Status::not_found("nothing")));
    assert_eq!(
        is_after.recv_timeout(LONG).unwrap(),
        "after NOT_FOUND Some(7)"
    );
    assert_eq!(call(&[2, 3]), Ok(5));
    assert_eq!(is_after.recv_timeout(LONG).unwrap(), "after OK Some(7)");
    assert_eq!(call(&[2, 9]), Err(Status::out_of_range("too much")));
    assert_eq!(
        is_after.recv_timeout(LONG).unwrap(),
        "after OUT_OF_RANGE Some(7)"
    );
    assert!(is_after.is_empty());
}

#[test]
fn a_request_that_cannot_be_read_ends_the_stream() {
    let server = chat(|_| {
        |request: StringValue, replies: &StreamReplies<StringValue>| replies.send(&request)
    });
    let server = server.max_receive_message_size(100).start().unwrap();
    let client = client(&server);
    let sent = |value: &[u8]| {
        let (mut requests, replies) = open::<BytesValue, StringValue>(&client);
        let value = value.to_vec();
        let request = BytesValue {
            value,
            ..Default::default()
        };
        let _ = requests.send(request);
        end(replies).code()
    };
    assert_eq!(sent(&[b'x'; 101]), Code::ResourceExhausted);
    assert_eq!(sent(b"\xff is no UTF-8"), Code::Internal);
    eventually("nothing is in flight", || server.in_flight() == 0);
}

#[test]
fn a_server_that_is_stopped_by_force_ends_its_streams() {
    let (server, seen) = doubler(false);
    let server = server.start().unwrap();
    let client = client(&server);
    let streams: Vec<_> = (0..50)
        .map(|_| open::<UInt32Value, UInt32Value>(&client))
        .collect();
    eventually("all have begun", || seen.len() == 50);
    let plan_is_cut_short = server.lifecycle();
    plan_is_cut_short.shutdown("test");
    plan_is_cut_short.shutdown("test, at once");
    drop(server);
    for (_, replies) in streams {
        let code = end(replies).code();
        assert!(
            matches!(code, Code::Unavailable | Code::Cancelled),
            "{code:?}"
        );
    }
    let seen: Vec<_> = seen.try_iter().collect();
    let dropped = seen.iter().filter(|it| **it == Seen::Dropped).count();
    assert_eq!(dropped, 50, "{seen:?}");
}
