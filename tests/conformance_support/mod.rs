//! What the tests of conformance share: a service of all four kinds, and calls of it, written by hand.
#![allow(dead_code)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use touchdown::protobuf::well_known_types::wrappers::StringValue;
use touchdown::{Call, Replies, Requests, Server, Service, Status};

use super::common::h2::{Answer, RawClient, END_HEADERS, END_STREAM};
use super::common::*;

// The codes of gRPC's statuscodes.md.
pub const OK: u32 = 0;
pub const DEADLINE_EXCEEDED: u32 = 4;
pub const UNIMPLEMENTED: u32 = 12;
pub const INTERNAL: u32 = 13;

pub const UNARY: &str = "/test.Echo/Say";
pub const REQUESTS: &str = "/test.Echo/Join";
pub const REPLIES: &str = "/test.Echo/Repeat";
pub const BOTH: &str = "/test.Echo/Chat";
pub const CHECK: &str = "/grpc.health.v1.Health/Check";

/// What the handlers have seen.
#[derive(Default)]
pub struct Seen {
    pub begun: AtomicUsize,
    /// The requests, and the ends of streams of them that were no error.
    pub requests: AtomicUsize,
}

/// A service of all four kinds, which answers with what it gets.
pub fn service(seen: &Arc<Seen>) -> Service {
    let begin = |seen: &Arc<Seen>| {
        let seen = Arc::clone(seen);
        move || {
            seen.begun.fetch_add(1, Ordering::SeqCst);
            let seen = Arc::clone(&seen);
            move || {
                seen.requests.fetch_add(1, Ordering::SeqCst);
            }
        }
    };
    let (unary, repeat, join, chat) = (begin(seen), begin(seen), begin(seen), begin(seen));
    Service::builder("test.Echo")
        .unary("Say", move |_: &Call, request: StringValue| {
            unary()();
            Ok::<_, Status>(request)
        })
        .server_streaming(
            "Repeat",
            move |_: &Call, request: StringValue, replies: Replies<StringValue>| {
                repeat()();
                replies.send(&request)
            },
        )
        .client_streaming("Join", move |_: &Call, requests: Requests<StringValue>| {
            let count = join();
            let mut all = String::new();
            for request in requests {
                all += &request?.value;
                count();
            }
            count();
            Ok::<_, Status>(text(all))
        })
        .bidirectional(
            "Chat",
            move |_: &Call, requests: Requests<StringValue>, replies: Replies<StringValue>| {
                let count = chat();
                for request in requests {
                    replies.send(&request?)?;
                    count();
                }
                count();
                Ok(())
            },
        )
        .build()
}

pub fn serve() -> (Server, Arc<Seen>) {
    let seen = Arc::default();
    (start(service(&seen)), seen)
}

/// The headers of a call, with these in the place of those of the same name; without those whose value is `None`.
pub fn headers(path: &str, others: &[(&str, Option<&str>)]) -> Vec<u8> {
    let usual = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "test"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ];
    let is_other = |name: &str| others.iter().any(|it| it.0 == name);
    // Pseudo headers first.
    let (pseudo, usual) = usual.split_at(4);
    let mut block = Vec::new();
    for (name, value) in pseudo {
        match others.iter().find(|it| it.0 == *name) {
            Some((_, value)) => block.extend(value.map(|it| field(name, it)).unwrap_or_default()),
            None => block.extend(field(name, value)),
        }
    }
    for (name, value) in usual.iter().filter(|it| !is_other(it.0)) {
        block.extend(field(name, value));
    }
    for (name, value) in others.iter().filter(|it| !it.0.starts_with(':')) {
        block.extend(value.map(|it| field(name, it)).unwrap_or_default());
    }
    block
}

/// A message with the byte in front of it that is given.
pub fn message(flag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    [&[flag][..], &length.to_be_bytes(), body].concat()
}

/// The text `hi`.
pub const HI: [u8; 4] = [0x0a, 2, b'h', b'i'];

/// Begins a call on stream 1.
pub fn begin(server: &Server, path: &str, others: &[(&str, Option<&str>)]) -> RawClient {
    let mut client = RawClient::new(server);
    client.send(&frame(1, END_HEADERS, 1, &headers(path, others)));
    client
}

/// Makes a call on stream 1, with these DATA frames, of which the last ends the request. All of it goes out at once.
pub fn call(
    server: &Server,
    path: &str,
    others: &[(&str, Option<&str>)],
    frames: &[&[u8]],
) -> (RawClient, Answer) {
    let mut client = RawClient::new(server);
    let mut request = frame(1, END_HEADERS, 1, &headers(path, others));
    let last = frames.len() - 1;
    for (number, data) in frames.iter().enumerate() {
        let end = if number == last { END_STREAM } else { 0 };
        request.extend(frame(0, end, 1, data));
    }
    client.send(&request);
    let answer = client.answer(1);
    (client, answer)
}

/// The connection is as good as before.
pub fn goes_on(mut client: RawClient) {
    client.send(&frame(1, END_HEADERS, 101, &headers(UNARY, &[])));
    client.send(&frame(0, END_STREAM, 101, &message(0, &HI)));
    let answer = client.answer(101);
    assert_eq!((answer.code(), &*answer.data), (OK, &*message(0, &HI)));
}
