//! What a client makes of servers that do not keep to the rules, of other executors, and of what stands around its
//! calls.
#![cfg(feature = "client")]

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::*;
use touchdown::client::{CallOptions, Client, Kind, Metadata, Next, Outgoing};
use touchdown::protobuf::well_known_types::wrappers::StringValue;
use touchdown::{Call, Code, Replies, Requests, Service, Status};

const REPLY: &[u8] = b"\0\0\0\0\x03\x0a\x01x";

/// Serves one connection: each call is answered with these messages and a status of its own making.
fn server_that_answers(messages: usize, trailers_only: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut preface = [0; 24];
        connection.read_exact(&mut preface).unwrap();
        connection.write_all(&frame(4, 0, 0, &[])).unwrap();
        while let Some((kind, flags, stream)) = next_frame(&mut connection) {
            match (kind, flags & 1) {
                (4, 0) => connection.write_all(&frame(4, 1, 0, &[])).unwrap(),
                (6, 0) => connection.write_all(&frame(6, 1, 0, &[0; 8])).unwrap(),
                (0 | 1, 1) => {
                    let answer = answer(stream, messages, trailers_only);
                    connection.write_all(&answer).unwrap();
                }
                _ => {}
            }
        }
    });
    address
}

fn next_frame(connection: &mut TcpStream) -> Option<(u8, u8, u8)> {
    let mut header = [0; 9];
    connection.read_exact(&mut header).ok()?;
    let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
    connection.read_exact(&mut vec![0; length as usize]).ok()?;
    Some((header[3], header[4], header[8]))
}

fn answer(stream: u8, messages: usize, trailers_only: bool) -> Vec<u8> {
    let head = [
        field(":status", "200"),
        field("content-type", "application/grpc"),
    ]
    .concat();
    let status = field("grpc-status", "0");
    if trailers_only {
        return frame(1, 5, stream, &[head, status].concat());
    }
    let head = frame(1, 4, stream, &head);
    let messages = frame(0, 0, stream, REPLY).repeat(messages);
    [head, messages, frame(1, 5, stream, &status)].concat()
}

fn upload(client: &Client) -> Result<String, Status> {
    let options = CallOptions::default().timeout(LONG);
    let mut upload =
        client.client_streaming::<StringValue, StringValue>("/test.Echo/Up", options)?;
    upload.send(text("x"))?;
    Ok(upload.finish()?.value)
}

#[test]
fn success_without_a_reply_is_internal() {
    for trailers_only in [false, true] {
        let address = server_that_answers(0, trailers_only);
        let client = Client::new(&channel_to(&address));
        for _ in 0..2 {
            assert_eq!(say(&client, "x").unwrap_err().code(), Code::Internal);
            assert_eq!(upload(&client).unwrap_err().code(), Code::Internal);
        }
    }
}

#[test]
fn success_with_two_replies_is_internal_and_with_one_it_is_a_reply() {
    let two = Client::new(&channel_to(&server_that_answers(2, false)));
    assert_eq!(say(&two, "x").unwrap_err().code(), Code::Internal);
    assert_eq!(upload(&two).unwrap_err().code(), Code::Internal);
    let one = Client::new(&channel_to(&server_that_answers(1, false)));
    assert_eq!(say(&one, "x"), Ok("x".to_owned()));
    assert_eq!(upload(&one), Ok("x".to_owned()));
}

/// What executors of futures do around what they run.
fn inside_another_executor<T>(what: impl FnOnce() -> T) -> T {
    futures_executor::block_on(async { what() })
}

#[test]
fn a_client_may_be_used_and_dropped_inside_another_executor() {
    let joined = |_: &Call, requests: Requests<StringValue>, replies: Replies<StringValue>| {
        let all: Result<Vec<_>, _> = requests.map(|it| it.map(|it| it.value)).collect();
        replies.send(&text(all?.join(" ")))?;
        Ok(())
    };
    let service = Service::builder("test.Echo")
        .unary("Say", |_: &Call, it: StringValue| Ok::<_, Status>(it))
        .bidirectional("Join", joined)
        .build();
    let server = start(service);
    let client = client(&server);
    let options = || CallOptions::default().timeout(LONG);
    let (replies, said) = inside_another_executor(|| {
        let said = say(&client, "hello");
        let (mut requests, replies) = client
            .bidirectional::<StringValue, StringValue>("/test.Echo/Join", options())
            .unwrap();
        requests.send(text("a")).unwrap();
        requests.send(text("b")).unwrap();
        drop(requests);
        (replies, said)
    });
    assert_eq!(said, Ok("hello".to_owned()));
    let all: Result<Vec<_>, _> = replies.map(|it| it.map(|it| it.value)).collect();
    assert_eq!(
        all,
        Ok(vec!["a b".to_owned()]),
        "the end of the requests came"
    );
}

#[test]
fn a_call_is_made_again_by_what_stands_around_it() {
    let tries = Arc::new(AtomicUsize::new(0));
    let service = unary({
        let tries = Arc::clone(&tries);
        move |_, request| match tries.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => Err(Status::unavailable("not yet")),
            _ => Ok(request),
        }
    });
    let server = start(service);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let client = client(&server).around({
        let seen = Arc::clone(&seen);
        move |call: &Outgoing<'_>, next: &mut Next<'_>| loop {
            let result = next.run(call.options());
            let code = result.as_ref().err().map(Status::code);
            seen.lock().unwrap().push((call.path(), call.kind(), code));
            if code != Some(Code::Unavailable) {
                return result;
            }
        }
    });
    assert_eq!(say(&client, "hello"), Ok("hello".to_owned()));
    assert_eq!(tries.load(Ordering::SeqCst), 3);
    let once = |code| ("/test.Echo/Say", Kind::Unary, code);
    let unavailable = Some(Code::Unavailable);
    assert_eq!(
        *seen.lock().unwrap(),
        [once(unavailable), once(unavailable), once(None)]
    );
}

/// A breaker refuses without a call; another program's mistake, success without a call, is no panic.
#[test]
fn a_call_may_be_left_out() {
    let server = start(echo());
    let refused = Status::unavailable("the breaker is open");
    let breaker = client(&server).around({
        let refused = refused.clone();
        move |_: &Outgoing<'_>, _: &mut Next<'_>| Err(refused.clone())
    });
    assert_eq!(say(&breaker, "hello"), Err(refused));
    let wrong = client(&server).around(|_: &Outgoing<'_>, _: &mut Next<'_>| Ok(()));
    assert_eq!(say(&wrong, "hello").unwrap_err().code(), Code::Internal);
    assert_eq!(server.calls().completed, 0);
}

/// The last one that was put around is outermost, and what it changes of the options reaches the others and the
/// server. The client from which it was made is as it was.
#[test]
fn what_stands_around_is_nested_and_changes_options() {
    let service = unary(|call, _| {
        let all: Vec<_> = call.metadata().get("by").into_iter().collect();
        Ok(text(all.join(" ")))
    });
    let server = start(service);
    let named = |name: &'static str| {
        move |call: &Outgoing<'_>, next: &mut Next<'_>| {
            let before = call.metadata().get("by").unwrap_or_default();
            let all = Metadata::new().with("by", format!("{before}{name}"));
            next.run(&call.options().clone().metadata(all.unwrap()))
        }
    };
    let plain = client(&server);
    let inner = plain.clone().around(named("inner"));
    let both = inner.clone().around(named("outer,"));
    assert_eq!(say(&both, "x"), Ok("outer,inner".to_owned()));
    assert_eq!(say(&inner, "x"), Ok("inner".to_owned()));
    assert_eq!(say(&plain, "x"), Ok(String::new()));
}

/// Of a stream, what stands around the client sees the beginning.
#[test]
fn streams_are_begun_with_what_stands_around() {
    let service = Service::builder("test.Echo")
        .server_streaming(
            "Count",
            |_: &Call, it: StringValue, replies: Replies<StringValue>| replies.send(&it),
        )
        .client_streaming("Up", |_: &Call, requests: Requests<StringValue>| {
            Ok::<_, Status>(text(requests.count().to_string()))
        })
        .build();
    let server = start(service);
    let kinds = Arc::new(Mutex::new(Vec::new()));
    let client = client(&server).around({
        let kinds = Arc::clone(&kinds);
        move |call: &Outgoing<'_>, next: &mut Next<'_>| {
            kinds.lock().unwrap().push(call.kind());
            // The stream of the first run is given up.
            next.run(call.options())?;
            next.run(&call.options().clone().timeout(Duration::from_secs(60)))
        }
    });
    let counted = client
        .server_streaming::<StringValue, StringValue>(
            "/test.Echo/Count",
            &text("x"),
            CallOptions::default(),
        )
        .unwrap();
    assert_eq!(
        counted.map(|it| it.unwrap().value).collect::<Vec<_>>(),
        ["x"]
    );
    assert_eq!(upload(&client), Ok("1".to_owned()));
    assert_eq!(
        *kinds.lock().unwrap(),
        [Kind::ServerStreaming, Kind::ClientStreaming]
    );
}
