//! What a handler of a stream can wait for, and what it is told when that does not come.
#![cfg(feature = "client")]

mod common;

use std::sync::Mutex;
use std::time::Duration;

use common::*;
use crossbeam_channel::{bounded, unbounded, Receiver, Sender};
use touchdown::client::CallOptions;
use touchdown::lifecycle::exit_code;
use touchdown::protobuf::well_known_types::wrappers::{BytesValue, UInt32Value};
use touchdown::{
    Call, Code, Received, RecvTimeoutError, Replies, Requests, SendTimeoutError, Service, Status,
    TrySendError,
};

const SOON: Duration = Duration::from_millis(5);

type In = Requests<UInt32Value>;
type Out = Replies<UInt32Value>;

/// `/test.Streams/Chat` does this.
fn chat(handler: impl Fn(&Call, In, Out) -> Result<(), Status> + Send + Sync + 'static) -> Service {
    Service::builder("test.Streams")
        .bidirectional("Chat", handler)
        .build()
}

type ClientSide = (
    touchdown::client::Requests<UInt32Value>,
    touchdown::client::Replies<UInt32Value>,
);

fn open(client: &touchdown::client::Client) -> ClientSide {
    let options = CallOptions::default().timeout(LONG);
    client.bidirectional("/test.Streams/Chat", options).unwrap()
}

fn value(reply: Option<Result<UInt32Value, Status>>) -> u32 {
    reply.expect("a reply").unwrap().value
}

#[test]
fn a_request_is_waited_for_no_longer_than_that_and_none_is_lost() {
    let server = start(chat(|_, mut requests, replies| {
        assert_eq!(requests.recv_timeout(SOON), Err(RecvTimeoutError::Timeout));
        // The caller hears of that, and sends.
        replies.send(&number(0))?;
        let one = requests.recv_timeout(LONG).unwrap();
        let two = requests.recv()?;
        assert_eq!([one, two], [Some(number(1)), Some(number(2))]);
        assert_eq!(
            requests.recv_timeout(Duration::ZERO),
            Err(RecvTimeoutError::Timeout)
        );
        replies.send(&number(3))?;
        assert_eq!(requests.recv_timeout(LONG), Ok(None));
        assert_eq!(requests.recv(), Ok(None));
        Ok(())
    }));
    let client = client(&server);
    let (mut requests, mut replies) = open(&client);
    assert_eq!(value(replies.next()), 0);
    requests.send(number(1)).unwrap();
    requests.send(number(2)).unwrap();
    assert_eq!(value(replies.next()), 3);
    drop(requests);
    assert_eq!(replies.next(), None);
}

#[test]
fn who_waits_for_a_request_with_a_limit_hears_that_the_caller_has_left() {
    let (told, is_told) = bounded(1);
    let (begins, has_begun) = bounded(1);
    let server = start(chat(move |_, mut requests, _| {
        begins.send(()).unwrap();
        told.send(requests.recv_timeout(LONG)).unwrap();
        Ok(())
    }));
    let client = client(&server);
    let call = open(&client);
    has_begun.recv_timeout(LONG).unwrap();
    drop(call.1);
    match is_told.recv_timeout(LONG).unwrap() {
        Err(RecvTimeoutError::Ended(status)) => assert_eq!(status.code(), Code::Cancelled),
        other => panic!("{other:?}"),
    }
}

/// A handler that waits for requests and for the drain in one place, and then says goodbye.
fn says_goodbye() -> Service {
    chat(|call, mut requests, replies| {
        let draining = call.draining();
        loop {
            match requests.recv_until(&[&draining])? {
                Received::Request(request) => replies.send(&number(request.value * 2))?,
                Received::End => return Ok(()),
                Received::Cancelled(index) => {
                    assert_eq!(index, 0);
                    return replies.send(&number(99));
                }
            }
        }
    })
}

#[test]
fn who_waits_for_a_request_or_the_drain_can_say_goodbye_at_once() {
    let server = builder(says_goodbye())
        .plan(quick_plan().with_grace_period(LONG))
        .start()
        .unwrap();
    let client = client(&server);
    let (mut requests, mut replies) = open(&client);
    for round in 1..4 {
        requests.send(number(round)).unwrap();
        assert_eq!(value(replies.next()), round * 2);
    }
    server.lifecycle().shutdown("test");
    assert_eq!(value(replies.next()), 99);
    assert_eq!(replies.next(), None);
    let report = server.wait();
    assert!(report.took < LONG / 2, "{report}");
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    assert_eq!(report.calls.completed, 1, "{report}");
}

#[test]
fn who_waits_for_a_request_or_the_drain_hears_of_the_last_request() {
    let server = start(says_goodbye());
    let client = client(&server);
    let (mut requests, mut replies) = open(&client);
    requests.send(number(4)).unwrap();
    drop(requests);
    assert_eq!(value(replies.next()), 8);
    assert_eq!(replies.next(), None);
}

#[test]
fn a_token_comes_before_a_request_that_is_there_which_stays() {
    let (hands_out, handed_out) = unbounded::<Call>();
    let server = start(chat(move |call, mut requests, replies| {
        hands_out.send(call.clone()).unwrap();
        // Cancelled by nobody, and by the test.
        let (never, other) = (call.token(), call.draining());
        let tokens = [&never, &other];
        assert_eq!(requests.recv_until(&tokens), Ok(Received::Cancelled(1)));
        replies.send(&number(0))?;
        // By now the request is there.
        let first = requests.recv_timeout(LONG).unwrap();
        assert_eq!(first, Some(number(7)));
        replies.send(&number(1))?;
        assert_eq!(requests.recv_until(&tokens), Ok(Received::Cancelled(1)));
        assert_eq!(requests.recv_until(&[&never]), Ok(Received::End));
        assert_eq!(requests.recv_until(&[&never]), Ok(Received::End));
        Ok(())
    }));
    let client = client(&server);
    let (mut requests, mut replies) = open(&client);
    handed_out.recv_timeout(LONG).unwrap();
    server.lifecycle().shutdown("test");
    assert_eq!(value(replies.next()), 0);
    requests.send(number(7)).unwrap();
    assert_eq!(value(replies.next()), 1);
    drop(requests);
    assert_eq!(replies.next(), None);
    assert_eq!(server.wait().exit_code(), exit_code::CLEAN);
}

#[test]
fn who_waits_for_a_request_or_a_token_hears_that_the_call_is_over() {
    let (told, is_told) = bounded(2);
    let service = chat(move |call, mut requests, _| {
        let draining = call.draining();
        told.send(requests.recv_until(&[&draining])).unwrap();
        Ok(())
    });
    let server = start(service);
    let client = client(&server);
    let over = |code| match is_told.recv_timeout(LONG).unwrap() {
        Err(status) => assert_eq!(status.code(), code),
        other => panic!("{other:?}"),
    };
    let call = open(&client);
    eventually("it runs", || server.in_flight() == 1);
    drop(call.1);
    over(Code::Cancelled);
    let options = CallOptions::default().timeout(Duration::from_millis(50));
    let call = client
        .bidirectional::<UInt32Value, UInt32Value>("/test.Streams/Chat", options)
        .unwrap();
    match is_told.recv_timeout(LONG).unwrap() {
        // The client cancels when its deadline passes; who is first decides.
        Err(status) => assert!(
            matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled),
            "{status}"
        ),
        other => panic!("{other:?}"),
    }
    drop(call);
}

/// More than a stream and its connection hold of what nobody reads.
fn large(number: u8) -> BytesValue {
    BytesValue {
        value: vec![number; 1 << 20],
        ..Default::default()
    }
}

/// `/test.Large/Read` sends numbered replies as `send` does, which says whether it has; each again until it has.
/// What it could not send at once it counts.
fn numbered(
    send: impl Fn(&Replies<BytesValue>, &BytesValue) -> bool + Send + Sync + 'static,
) -> (Service, Receiver<usize>, Sender<()>) {
    let (tells, told) = unbounded();
    let (go, gone) = unbounded::<()>();
    let gone = Mutex::new(gone);
    let service = Service::builder("test.Large")
        .server_streaming(
            "Read",
            move |_: &Call, _: UInt32Value, replies: Replies<BytesValue>| {
                let mut refused = 0;
                for it in 0..20 {
                    while !send(&replies, &large(it)) {
                        refused += 1;
                        if refused == 1 {
                            tells.send(refused).unwrap();
                            // Until the caller reads.
                            let _ = gone.lock().unwrap().recv_timeout(LONG);
                        }
                        std::thread::yield_now();
                    }
                }
                tells.send(refused).unwrap();
                Ok(())
            },
        )
        .build();
    (service, told, go)
}

fn a_slow_caller_gets_all_in_order((service, told, go): (Service, Receiver<usize>, Sender<()>)) {
    let server = start(service);
    let client = client(&server);
    let replies = client
        .server_streaming::<_, BytesValue>(
            "/test.Large/Read",
            &number(0),
            CallOptions::default().timeout(LONG),
        )
        .unwrap();
    assert_eq!(told.recv_timeout(LONG), Ok(1), "there is no room");
    go.send(()).unwrap();
    let seen: Vec<u8> = replies.map(|it| it.unwrap().value[0]).collect();
    assert!(seen.iter().copied().eq(0..20), "{seen:?}");
    assert!(told.recv_timeout(LONG).unwrap() >= 1);
}

#[test]
fn a_reply_for_which_there_is_no_room_is_not_lost() {
    a_slow_caller_gets_all_in_order(numbered(|replies, reply| match replies.try_send(reply) {
        Ok(()) => true,
        Err(TrySendError::Full) => false,
        Err(error) => panic!("{error}"),
    }));
}

#[test]
fn a_reply_for_which_there_was_no_room_in_time_is_not_lost() {
    a_slow_caller_gets_all_in_order(numbered(|replies, reply| {
        match replies.send_timeout(reply, SOON) {
            Ok(()) => true,
            Err(SendTimeoutError::Timeout) => false,
            Err(error) => panic!("{error}"),
        }
    }));
}

#[test]
fn who_sends_without_waiting_hears_that_the_call_is_over() {
    let (told, is_told) = bounded(1);
    let (begins, has_begun) = bounded(1);
    let service = chat(move |call, _, replies| {
        begins.send(()).unwrap();
        assert!(call.token().wait_timeout(LONG));
        let sent = replies.try_send(&number(1));
        told.send((sent, replies.send_timeout(&number(1), LONG)))
            .unwrap();
        Ok(())
    });
    let server = start(service);
    let client = client(&server);
    let call = open(&client);
    has_begun.recv_timeout(LONG).unwrap();
    drop(call.1);
    let Ok((Err(TrySendError::Ended(first)), Err(SendTimeoutError::Ended(second)))) =
        is_told.recv_timeout(LONG)
    else {
        panic!("the call is over");
    };
    assert_eq!([first.code(), second.code()], [Code::Cancelled; 2]);
}
