//! Properties of calls: every metadata and every status arrives as it was sent, or is refused.
//!
//! Percent-encoding and base64 are C-core's work, on both sides; the tests with clients in other
//! languages see to it that others read the same.
#![cfg(feature = "client")]

mod common;

use std::sync::{Arc, Mutex};

use common::*;
use proptest::collection::vec;
use proptest::prelude::*;
use touchdown::client::{CallOptions, Client};
use touchdown::protobuf::well_known_types::wrappers::{StringValue, UInt32Value};
use touchdown::{Call, Code, Interceptor, MetadataError, Replies, Service, Status};

type Pair = (String, Vec<u8>);

/// What gRPC over HTTP/2 allows as a name of custom metadata: `Header-Name` in
/// [PROTOCOL-HTTP2.md](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md), but for what it
/// and HTTP/2 keep for themselves.
fn is_name(name: &str) -> bool {
    const LEGAL: &str = "abcdefghijklmnopqrstuvwxyz0123456789_-.";
    let legal = !name.is_empty() && name.chars().all(|it| LEGAL.contains(it));
    legal && !name.starts_with("grpc-") && !KEPT.contains(&name)
}

const KEPT: &[&str] = &[
    "te",
    "content-type",
    "content-length",
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
    "host",
    "user-agent",
    "lb-token",
    "lb-cost-bin",
];

/// `Binary-Header` takes anything, `ASCII-Value` what can be printed.
fn is_value(name: &str, value: &[u8]) -> bool {
    name.ends_with("-bin") || value.iter().all(|it| (b' '..=b'~').contains(it))
}

fn good_name() -> impl Strategy<Value = String> {
    // Of these, HTTP or other parts of gRPC know something as well.
    const KNOWN: &[&str] = &[
        "accept-encoding",
        "authorization",
        "cookie",
        "date",
        "server",
        "trailer",
        "via",
    ];
    prop_oneof![
        4 => "[a-z0-9_.-]{1,20}(-bin)?".prop_filter("a name", |it| is_name(it)),
        1 => proptest::sample::select(KNOWN).prop_map(str::to_owned),
    ]
}

fn any_name() -> impl Strategy<Value = String> {
    const OTHERS: &[&str] = &["grpc-status", "grpc-x", "grpc-", ":path", ""];
    prop_oneof![
        4 => good_name(),
        2 => "[A-Za-z0-9_.-]{1,10}(-bin|-BIN)?",
        2 => "[ -~]{0,10}",
        2 => any::<String>(),
        1 => vec(any::<char>(), 0..6).prop_map(|it| it.into_iter().collect::<String>()),
        1 => proptest::sample::select(OTHERS).prop_map(str::to_owned),
        1 => proptest::sample::select(KEPT).prop_map(str::to_owned),
    ]
}

fn any_value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => "[!-~]([ -~]{0,60}[!-~])?".prop_map(String::into_bytes),
        1 => "[ -~]{0,20}".prop_map(String::into_bytes),
        2 => vec(any::<u8>(), 0..100),
    ]
}

fn any_pairs() -> impl Strategy<Value = Vec<Pair>> {
    vec((any_name(), any_value()), 0..8)
}

/// Spaces around a text may be taken away on the way: the specification leaves it open.
fn without_outer_spaces((name, value): &Pair) -> Pair {
    let value = if name.ends_with("-bin") {
        value
    } else {
        value.trim_ascii()
    };
    (name.clone(), value.to_vec())
}

/// What a client of grpcio has received of these names, in the order in which it came.
fn received(metadata: &grpcio::Metadata, sent: &[Pair]) -> Vec<Pair> {
    metadata
        .iter()
        .filter(|(name, _)| sent.iter().any(|it| it.0 == *name))
        .map(|(name, value)| without_outer_spaces(&(name.to_owned(), value.to_vec())))
        .collect()
}

fn sorted(mut pairs: Vec<Pair>) -> Vec<Pair> {
    // The order among values of one name counts, and this keeps it.
    pairs.sort_by(|one, other| one.0.cmp(&other.0));
    pairs
}

#[test]
fn metadata_is_refused_or_arrives() {
    /// What the handler is to send, and what came of it.
    #[derive(Default)]
    struct Case {
        headers: Vec<Pair>,
        trailers: Vec<Pair>,
        results: Vec<Result<(), MetadataError>>,
        seen: Vec<Pair>,
    }
    let case = Arc::new(Mutex::new(Case::default()));
    let server = start(unary({
        let case = Arc::clone(&case);
        move |call, request| {
            let case = &mut *case.lock().unwrap();
            let seen = call.metadata().iter();
            case.seen = seen
                .map(|(name, value)| (name.to_owned(), value.to_vec()))
                .collect();
            let headers = case.headers.iter().map(|it| call.set_header(&it.0, &*it.1));
            case.results = headers.collect();
            let trailers = case
                .trailers
                .iter()
                .map(|it| call.set_trailer(&it.0, &*it.1));
            case.results.extend(trailers);
            Ok(request)
        }
    }));
    let client = grpcio_client(&server);
    let method = unary_method("/test.Echo/Say");
    let legal = |pairs: &[Pair]| -> Vec<Pair> {
        let lower = pairs
            .iter()
            .map(|it| (it.0.to_ascii_lowercase(), it.1.clone()));
        lower
            .filter(|it| is_name(&it.0) && is_value(&it.0, &it.1))
            .collect()
    };
    proptest!(|(headers in any_pairs(), trailers in any_pairs(), requested in any_pairs())| {
        *case.lock().unwrap() = Case {
            headers: headers.clone(),
            trailers: trailers.clone(),
            ..Case::default()
        };
        let requested = legal(&requested);
        let mut metadata = grpcio::MetadataBuilder::new();
        for (name, value) in &requested {
            match name.ends_with("-bin") {
                true => metadata.add_bytes(name, value).unwrap(),
                false => metadata.add_str(name, std::str::from_utf8(value).unwrap()).unwrap(),
            };
        }
        let options = grpcio::CallOption::default().headers(metadata.build()).timeout(LONG);
        let mut receiver = client.unary_call_async(&method, &text("hello"), options).unwrap();
        let (got_headers, reply, got_trailers) = receiver.receive_sync().unwrap();
        prop_assert_eq!(&reply.value, "hello");

        let case = case.lock().unwrap();
        for ((name, value), result) in headers.iter().chain(&trailers).zip(&case.results) {
            let lower = name.to_ascii_lowercase();
            let right = if !is_name(&lower) {
                Err(MetadataError::Name(lower))
            } else if !is_value(&lower, value) {
                Err(MetadataError::Value(lower))
            } else {
                Ok(())
            };
            prop_assert_eq!(result, &right, "{:?}: {:?}", name, value);
        }
        prop_assert_eq!(case.results.len(), headers.len() + trailers.len());

        for (sent, got) in [(legal(&headers), &got_headers), (legal(&trailers), &got_trailers)] {
            let got = received(got, &sent);
            let sent = sent.iter().map(without_outer_spaces).collect();
            prop_assert_eq!(sorted(got), sorted(sent));
        }
        let seen = case.seen.iter().filter(|it| requested.iter().any(|other| other.0 == it.0));
        prop_assert_eq!(
            sorted(seen.map(without_outer_spaces).collect()),
            sorted(requested.iter().map(without_outer_spaces).collect())
        );
    });
}

/// Every character of Unicode, and those that an encoding might trip over.
fn any_text() -> impl Strategy<Value = String> {
    let char = prop_oneof![
        any::<char>(),
        proptest::char::range('\0', '\u{ff}'),
        proptest::sample::select(
            &['%', ' ', '\0', '\r', '\n', '"', '\u{7f}', 'ü', '\u{10ffff}'][..]
        ),
    ];
    vec(char, 0..120).prop_map(|it| it.into_iter().collect())
}

/// Refuses what it is told to refuse.
struct Refuses(Arc<Mutex<Option<Status>>>);

impl Interceptor for Refuses {
    fn before(&self, _: &Call) -> Result<(), Status> {
        self.0.lock().unwrap().clone().map_or(Ok(()), Err)
    }
}

/// Where the status comes from.
#[derive(Clone, Copy, Debug)]
enum By {
    Interceptor,
    Handler,
    /// After so many replies.
    Stream(u32),
    /// Of a stream that was detached.
    Detached(u32),
}

fn any_way() -> impl Strategy<Value = By> {
    prop_oneof![
        Just(By::Interceptor),
        Just(By::Handler),
        (0..4_u32).prop_map(By::Stream),
        (0..4_u32).prop_map(By::Detached),
    ]
}

#[test]
fn a_status_arrives_as_it_was_sent_whoever_sends_it() {
    let told = Arc::new(Mutex::new((By::Handler, Status::ok())));
    let refusal = Arc::new(Mutex::new(None));
    let service = Service::builder("test.Echo")
        .unary("Say", {
            let told = Arc::clone(&told);
            move |_: &Call, _: StringValue| -> Result<StringValue, Status> {
                Err(told.lock().unwrap().1.clone())
            }
        })
        .server_streaming("Count", {
            let told = Arc::clone(&told);
            move |_: &Call, _: UInt32Value, replies: Replies<UInt32Value>| {
                let (by, status) = told.lock().unwrap().clone();
                match by {
                    By::Stream(count) => {
                        (0..count).try_for_each(|it| replies.send(&number(it)))?;
                        Err(status)
                    }
                    By::Detached(count) => {
                        let replies = replies.detach();
                        (0..count).try_for_each(|it| replies.send(&number(it)))?;
                        replies.finish(Err(status));
                        Ok(())
                    }
                    _ => unreachable!("this is not a stream's"),
                }
            }
        })
        .build();
    let server = builder(service)
        .interceptor(Refuses(Arc::clone(&refusal)))
        .start()
        .unwrap();
    let client = client(&server);
    let details = vec(any::<u8>(), 0..200);
    proptest!(|(number in 1..=16_i32, message in any_text(), details in details, by in any_way())| {
        let status = Status::new(Code::from_number(number), message).with_details(details);
        *told.lock().unwrap() = (by, status.clone());
        *refusal.lock().unwrap() = matches!(by, By::Interceptor).then(|| status.clone());
        let end = match by {
            By::Interceptor | By::Handler => say(&client, "").unwrap_err(),
            By::Stream(count) | By::Detached(count) => {
                let (replies, end) = read_to_the_end(&client);
                // grpcio's client may drop replies that it has not read when an error arrives.
                prop_assert!(replies <= count);
                end
            }
        };
        prop_assert_eq!(end, status);
    });
    let report = server.shutdown();
    assert_eq!(report.exit_code(), 0, "{report}");
}

/// How many replies came, and how the stream ended.
fn read_to_the_end(client: &Client) -> (u32, Status) {
    let options = CallOptions::default().timeout(LONG);
    let replies = client
        .server_streaming("/test.Echo/Count", &number(0), options)
        .unwrap();
    let mut count = 0;
    for reply in replies {
        match reply {
            Ok(UInt32Value { value, .. }) if value == count => count += 1,
            Ok(other) => panic!("{other:?} is not the reply number {count}"),
            Err(status) => return (count, status),
        }
    }
    (count, Status::ok())
}
