//! What one caller can take of what all need: threads, the backlog, answers that are not taken.
#![cfg(feature = "client")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use common::*;
use crossbeam_channel::{bounded, unbounded};
use touchdown::client::{CallOptions, Client};
use touchdown::protobuf::well_known_types::wrappers::{StringValue, UInt32Value};
use touchdown::{Call, Code, Replies, Requests, Server, Service, Status};

/// A frame of HTTP/2 on any stream.
fn frame_on(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = frame(kind, flags, 0, payload);
    frame[5..9].copy_from_slice(&stream.to_be_bytes());
    frame
}

/// A connection on which HTTP/2 is written by hand, and whose window takes no byte of an answer.
fn without_window(server: &Server) -> TcpStream {
    let mut client = TcpStream::connect(server.address().to_string()).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    client.write_all(PREFACE).unwrap();
    // SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113, 6.5.2), and the acknowledgement of the server's.
    client
        .write_all(&frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]))
        .unwrap();
    client.write_all(&frame(4, 1, 0, &[])).unwrap();
    client
}

/// So many calls, each with a message of one string, and with the end of them if `is_whole`.
fn calls(path: &str, count: u32, is_whole: bool) -> Vec<u8> {
    let block = call_headers("POST", path);
    let call = |stream| {
        let headers = frame_on(1, 4, stream, &block);
        let message = frame_on(0, u8::from(is_whole), stream, b"\0\0\0\0\x03\x0a\x01x");
        [headers, message].concat()
    };
    (0..count).flat_map(|it| call(2 * it + 1)).collect()
}

/// Reads what comes, and drops it, for as long as the other end is there.
fn drain(client: &TcpStream) {
    let mut client = client.try_clone().unwrap();
    thread::spawn(move || while client.read(&mut [0; 4096]).is_ok_and(|it| it > 0) {});
}

/// `Listen` reads to the end, `Talk` sends without end, `Chat` answers each word, `Say` is unary.
fn service() -> Service {
    let listen = |_: &Call, mut requests: Requests<StringValue>| {
        while requests.recv()?.is_some() {}
        Ok(number(1))
    };
    let talk = |_: &Call, word: StringValue, replies: Replies<StringValue>| loop {
        replies.send(&word)?;
    };
    let chat = |_: &Call, mut requests: Requests<StringValue>, replies: Replies<StringValue>| {
        while let Some(word) = requests.recv()? {
            replies.send(&word)?;
        }
        Ok(())
    };
    Service::builder("test.Echo")
        .unary("Say", |_, word: StringValue| Ok(word))
        .client_streaming("Listen", listen)
        .server_streaming("Talk", talk)
        .bidirectional("Chat", chat)
        .build()
}

fn start() -> Server {
    builder(service()).start().unwrap()
}

/// Calls land, one after the other and several at a time, from a client that has come before or comes now.
fn others_are_served(server: &Server) {
    let clients: Vec<Client> = (0..3).map(|_| client(server)).collect();
    thread::scope(|scope| {
        for client in &clients {
            scope.spawn(|| {
                for _ in 0..30 {
                    assert_eq!(say(client, "hello").as_deref(), Ok("hello"));
                }
            });
        }
    });
}

/// What the server says of its threads.
fn state(server: &Server) -> String {
    server
        .lifecycle()
        .describe()
        .lines()
        .find(|it| it.contains("handler threads"))
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn silent_streams_of_one_client_keep_nobody_waiting() {
    for count in [16, 990] {
        for path in ["/test.Echo/Listen", "/test.Echo/Chat"] {
            let server = start();
            let mut silent = without_window(&server);
            drain(&silent);
            silent.write_all(&calls(path, count, false)).unwrap();
            eventually("they are begun", || {
                server.in_flight() >= count.min(200) as usize
            });
            others_are_served(&server);
            drop(silent);
        }
    }
}

#[test]
fn streams_that_are_not_taken_keep_nobody_waiting() {
    for count in [16, 990] {
        let server = start();
        let mut silent = without_window(&server);
        drain(&silent);
        silent
            .write_all(&calls("/test.Echo/Talk", count, true))
            .unwrap();
        eventually("they are begun", || {
            server.in_flight() >= count.min(200) as usize
        });
        others_are_served(&server);
    }
}

#[test]
fn answers_that_are_not_taken_on_two_connections_have_nobody_else_refused() {
    for path in ["/test.Echo/Say", "/grpc.health.v1.Health/Check"] {
        let server = builder(service()).max_concurrent_streams(1_000);
        let server = server.start().unwrap();
        let mut greedy: Vec<TcpStream> = (0..3).map(|_| without_window(&server)).collect();
        for client in &mut greedy {
            drain(client);
            client.write_all(&calls(path, 990, true)).unwrap();
        }
        if path == "/test.Echo/Say" {
            // Those of the third are refused in part.
            eventually("the answers are held back", || server.in_flight() > 1_040);
        }
        others_are_served(&server);
        let (client, options) = (client(&server), CallOptions::default().timeout(LONG));
        for _ in 0..10 {
            let check = "/grpc.health.v1.Health/Check";
            let state = client.unary::<StringValue, UInt32Value>(check, &text(""), options.clone());
            assert_eq!(state.unwrap().value, 1);
        }
    }
}

#[test]
fn well_behaved_clients_keep_many_quiet_streams_open_and_lose_none() {
    let server = start();
    let clients: Vec<Client> = (0..50).map(|_| client(&server)).collect();
    let options = CallOptions::default().timeout(LONG);
    let mut streams = Vec::new();
    for client in &clients {
        for _ in 0..16 {
            let stream = client
                .bidirectional::<StringValue, StringValue>("/test.Echo/Chat", options.clone())
                .unwrap();
            streams.push(stream);
        }
    }
    eventually("all have given their places back", || {
        state(&server).contains("0 of 16 busy, 800 streams on threads of their own, 0 calls wait")
    });
    others_are_served(&server);
    for (requests, replies) in &mut streams {
        requests.send(text("word")).unwrap();
        assert_eq!(replies.next().unwrap().unwrap(), text("word"));
    }
    others_are_served(&server);
    drop(streams);
    let report = server.shutdown();
    assert_eq!(report.calls.cut + report.calls.refused, 0, "{report}");
}

#[test]
fn a_stream_that_has_to_go_is_told_why_and_so_is_its_caller() {
    let (told, is_told) = crossbeam_channel::unbounded();
    let listen =
        move |_: &Call, mut requests: Requests<StringValue>| -> Result<UInt32Value, Status> {
            let status = requests.recv().unwrap_err();
            told.send(status.clone()).unwrap();
            Err(status)
        };
    let service = Service::builder("test.Echo")
        .unary("Say", |_, word: StringValue| Ok(word))
        .client_streaming("Listen", listen)
        .build();
    let server = builder(service)
        .workers(1)
        .max_stream_threads(0)
        .start()
        .unwrap();
    let options = CallOptions::default().timeout(LONG);
    let silent = client(&server);
    let quiet = silent
        .client_streaming::<StringValue, UInt32Value>("/test.Echo/Listen", options)
        .unwrap();
    eventually("it has a place", || state(&server).contains("1 of 1 busy"));
    assert_eq!(say(&client(&server), "hello").as_deref(), Ok("hello"));
    let status = is_told.recv_timeout(LONG).unwrap();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(quiet.finish().unwrap_err(), status);
    let report = server.shutdown();
    assert_eq!(
        (report.calls.completed, report.calls.cut),
        (1, 1),
        "{report}"
    );
}

#[test]
fn its_own_calls_wait_for_a_stream_no_longer_than_the_stall_limit() {
    let stall = Duration::from_millis(300);
    let builder = builder(service()).workers(1).max_stream_threads(0);
    let server = builder.stall_limit(stall).start().unwrap();
    let client = client(&server);
    let options = CallOptions::default().timeout(LONG);
    let quiet = client
        .client_streaming::<StringValue, UInt32Value>("/test.Echo/Listen", options)
        .unwrap();
    eventually("it has a place", || state(&server).contains("1 of 1 busy"));
    let begun = std::time::Instant::now();
    assert_eq!(say(&client, "hello").as_deref(), Ok("hello"));
    assert!(begun.elapsed() >= stall);
    assert_eq!(quiet.finish().unwrap_err().code(), Code::ResourceExhausted);
}

/// Calls that take long, of one client, leave workers to others: a quarter more than there are.
#[test]
fn a_client_whose_calls_take_long_does_not_keep_others_from_calling() {
    let (begun, has_begun) = unbounded();
    let (release, released) = bounded::<()>(0);
    let service = unary(move |_, request: StringValue| {
        if request.value == "slow" {
            begun.send(()).unwrap();
            let _ = released.recv();
        }
        Ok(request)
    });
    let server = builder(service).workers(4).start().unwrap();
    let (slow, other) = (client(&server), client(&server));
    thread::scope(|scope| {
        let calls: Vec<_> = (0..12)
            .map(|_| scope.spawn(|| say(&slow, "slow").unwrap()))
            .collect();
        (0..4).for_each(|_| has_begun.recv_timeout(LONG).unwrap());
        for _ in 0..20 {
            assert_eq!(say(&other, "quick").unwrap(), "quick");
        }
        // The spare place is not for who has many.
        assert!(has_begun.is_empty(), "one more runs");
        // Nor for more than one that takes long.
        let last = scope.spawn(|| say(&other, "slow").unwrap());
        has_begun.recv_timeout(LONG).unwrap();
        drop(release);
        calls
            .into_iter()
            .for_each(|it| assert_eq!(it.join().unwrap(), "slow"));
        assert_eq!(last.join().unwrap(), "slow");
    });
    assert_eq!(server.shutdown().exit_code(), 0);
}
