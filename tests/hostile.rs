//! Clients that mean harm, or know no better.
#![cfg(feature = "client")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Duration;

use common::*;
use touchdown::client::{CallOptions, Client};
use touchdown::lifecycle::exit_code;
use touchdown::protobuf::well_known_types::wrappers::{StringValue, UInt32Value};
use touchdown::{Call, Replies, Server, Service, ServingStatus};

/// A connection on which HTTP/2 is written by hand.
fn raw_client(server: &Server) -> TcpStream {
    let mut client = TcpStream::connect(server.address().to_string()).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    client.write_all(PREFACE).unwrap();
    // The server's settings hold once they are acknowledged.
    let mut header = [0; 9];
    client.read_exact(&mut header).unwrap();
    let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
    client.read_exact(&mut vec![0; length as usize]).unwrap();
    assert_eq!(header[3..5], [4, 0], "SETTINGS come first");
    client.write_all(&frame(4, 1, 0, &[])).unwrap();
    client
}

/// The HEADERS of a call, which go on until END_STREAM if `is_whole`.
fn headers(method: &str, stream: u8, is_whole: bool) -> Vec<u8> {
    let block = call_headers(method, "/test.Echo/Say");
    frame(1, 4 | u8::from(is_whole), stream, &block)
}

/// Reads until `text` has come. C-core's own header compression leaves text as it is.
fn read_until(client: &mut TcpStream, text: &str) {
    let mut read = Vec::new();
    let mut buffer = [0; 1024];
    while !read.windows(text.len()).any(|it| it == text.as_bytes()) {
        let count = client.read(&mut buffer).expect("the answer comes");
        assert!(count > 0, "closed before {text:?}");
        read.extend_from_slice(&buffer[..count]);
    }
}

/// Who is new must not be given up for the time in which there was nobody.
#[test]
fn a_client_that_comes_after_a_rest_has_its_time_to_speak() {
    let time = unhurried(1000);
    let server = builder(echo()).handshake_timeout(time).start().unwrap();
    for _ in 0..4 {
        std::thread::sleep(time + time / 2);
        let client = Client::new(&channel_to(&server.address().to_string()));
        assert_eq!(say(&client, "hello"), Ok("hello".to_owned()));
    }
}

#[test]
fn only_post_makes_a_call() {
    let server = start(echo());
    let mut client = raw_client(&server);
    client.write_all(&headers("GET", 1, true)).unwrap();
    read_until(&mut client, "another HTTP method than POST");
    eventually("it is counted", || server.calls().refused == 1);
    // The connection is as good as before.
    client.write_all(&headers("POST", 3, true)).unwrap();
    read_until(&mut client, "the request ended before its message");
}

/// Strict clients drop the connection, and every call on it, if the trailers of one come twice.
#[test]
fn too_much_metadata_is_answered_once() {
    let server = builder(echo()).max_metadata_size(1000).start().unwrap();
    let mut client = raw_client(&server);
    let mut block = call_headers("POST", "/test.Echo/Say");
    for _ in 0..10 {
        block.extend(field("padding", &"x".repeat(120)));
    }
    client.write_all(&frame(1, 4, 1, &block)).unwrap();
    let mut kinds = Vec::new();
    loop {
        let mut header = [0; 9];
        client.read_exact(&mut header).unwrap();
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        client.read_exact(&mut vec![0; length as usize]).unwrap();
        match (header[3], header[4]) {
            // The ack of the ping that follows the answer: what there was has been written.
            (6, 1) => break,
            (kind, _) if header[5..] == [0, 0, 0, 1] => {
                if matches!(kind, 1 | 3) && !kinds.contains(&1) {
                    eventually("the call is over", || server.in_flight() == 0);
                    client.write_all(&frame(6, 0, 0, b"the end?")).unwrap();
                }
                kinds.push(kind);
            }
            _ => {}
        }
    }
    let headers = kinds.iter().filter(|it| **it == 1).count();
    assert_eq!(headers, 1, "frames of the kinds {kinds:?}");
}

#[test]
fn host_may_stand_for_authority() {
    let server = start(echo());
    let mut client = raw_client(&server);
    let fields = [
        field(":method", "POST"),
        field(":scheme", "http"),
        field(":path", "/test.Echo/Say"),
        field("host", "test"),
        field("content-type", "application/grpc"),
        field("te", "trailers"),
    ];
    client.write_all(&frame(1, 4, 1, &fields.concat())).unwrap();
    let request = [&[0, 0, 0, 0, 6][..], &[10, 4], b"host"].concat();
    client.write_all(&frame(0, 1, 1, &request)).unwrap();
    read_until(&mut client, "host");
}

/// CVE-2023-44487.
#[test]
fn a_client_that_begins_calls_only_to_reset_them_is_sent_away() {
    let server = start(echo());
    let mut attacker = raw_client(&server);
    let begin = headers("POST", 1, false);
    let reset = frame(3, 0, 1, &8u32.to_be_bytes());
    let mut flood = Vec::new();
    for stream in (1u32..40_000).step_by(2) {
        for frame in [&begin, &reset] {
            let start = flood.len();
            flood.extend_from_slice(frame);
            flood[start + 5..start + 9].copy_from_slice(&stream.to_be_bytes());
        }
    }
    // Either fails when the server closes.
    let _ = attacker.write_all(&flood);
    let _ = attacker.read_to_end(&mut Vec::new());
    eventually("the attacker is gone", || server.connections() == 0);
    let calls = server.calls();
    assert!(calls.refused < 5_000, "{calls:?}");
    assert_eq!(say(&client(&server), "still there").unwrap(), "still there");
}

/// Its kernel answers every probe, and its HTTP/2 allows everything; it just never reads.
#[test]
fn a_client_that_takes_no_answer_is_sent_away_after_the_keepalive() {
    let (ended, end) = mpsc::channel();
    let endless = move |_: &Call, request: StringValue, replies: Replies<StringValue>| {
        while replies.send(&request).is_ok() {}
        let _ = ended.send(());
        Ok(())
    };
    let service = Service::builder("test.Echo")
        .server_streaming("Say", endless)
        .build();
    let half_a_second = Duration::from_millis(500);
    let server = builder(service)
        .keepalive(half_a_second, half_a_second)
        .start()
        .unwrap();
    let mut client = raw_client(&server);
    // SETTINGS_INITIAL_WINDOW_SIZE, and WINDOW_UPDATE for the connection.
    let largest = i32::MAX as u32;
    let settings = [&[0, 4][..], &largest.to_be_bytes()].concat();
    client.write_all(&frame(4, 0, 0, &settings)).unwrap();
    let more = (largest - 65_535).to_be_bytes();
    client.write_all(&frame(8, 0, 0, &more)).unwrap();
    let text = [b'x'; 100];
    let request = [&[0, 0, 0, 0, 102, 10, 100][..], &text].concat();
    client.write_all(&headers("POST", 1, false)).unwrap();
    client.write_all(&frame(0, 1, 1, &request)).unwrap();
    end.recv_timeout(LONG).expect("the handler is told");
    eventually("the client is gone", || server.connections() == 0);
    assert_eq!(server.shutdown().exit_code(), exit_code::CLEAN);
}

/// A client that grants no window: the server may send it headers and trailers, and not one message.
fn client_without_window(server: &Server) -> TcpStream {
    let mut client = raw_client(server);
    // SETTINGS_INITIAL_WINDOW_SIZE: RFC 9113, 6.5.2.
    client
        .write_all(&frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]))
        .unwrap();
    client
}

/// A health check, of the server as a whole.
fn health_call(method: &str, stream: u8) -> Vec<u8> {
    let path = format!("/grpc.health.v1.Health/{method}");
    let headers = frame(1, 4, stream, &call_headers("POST", &path));
    [headers, frame(0, 1, stream, &[0; 5])].concat()
}

#[test]
fn a_watcher_that_takes_nothing_costs_little_and_holds_no_drain() {
    // A drain that waited for it would take this long, and be forced in the end.
    let plan = quick_plan().with_grace_period(LONG);
    let server = builder(echo()).lifecycle(planned(plan)).start().unwrap();
    let mut watcher = client_without_window(&server);
    for stream in [1, 3, 5] {
        watcher.write_all(&health_call("Watch", stream)).unwrap();
    }
    // The headers of the first.
    read_until(&mut watcher, "application/grpc");
    for _ in 0..1000 {
        server.health().set("", ServingStatus::NotServing);
        server.health().set("", ServingStatus::Serving);
    }
    assert_eq!(say(&client(&server), "hello").unwrap(), "hello");
    let report = server.shutdown();
    assert!(report.took < LONG, "{report}");
    let lost = (report.calls.undelivered, report.connections_cut);
    assert_eq!((report.calls.completed, lost), (1, (0, 1)), "{report}");
}

#[test]
fn health_that_nobody_takes_is_answered_up_to_a_limit() {
    let builder = builder(echo()).workers(1).backlog(0).max_connections(1);
    let server = builder.start().unwrap();
    let mut asking = client_without_window(&server);
    // Two watchers for the connection, as many answers as calls may run and wait, and what each connection may have.
    for stream in [1, 3, 5, 7, 9, 11] {
        asking.write_all(&health_call("Check", stream)).unwrap();
    }
    read_until(&mut asking, "too many callers do not take their answers");
    drop(asking);
    eventually("the connection is gone", || server.connections() == 0);
    // On the wire the messages are these.
    let (client, options) = (client(&server), CallOptions::default().timeout(LONG));
    let check = "/grpc.health.v1.Health/Check";
    let state = client.unary::<StringValue, UInt32Value>(check, &text(""), options);
    assert_eq!(state.unwrap().value, 1);
}
