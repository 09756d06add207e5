//! Clients that send frames which cost the server more than them, or which HTTP/2 does not allow; and what becomes of
//! the others meanwhile.
#![cfg(feature = "client")]

mod common;
#[cfg(feature = "tls")]
mod tls_support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use touchdown::client::CallOptions;
use touchdown::{Call, CallObserver, Code, ConnectionEvent, SentAwayReason, Server};

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const SETTINGS_TIMEOUT: u32 = 4;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

/// What a client has got: kind, flags, stream and payload of each frame.
type Frames = Vec<(u8, u8, u32, Vec<u8>)>;

fn frames(mut bytes: &[u8]) -> Frames {
    let mut frames = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
        let Some(payload) = rest.get(..length) else {
            break;
        };
        frames.push((header[3], header[4], stream, payload.to_vec()));
        bytes = &rest[length..];
    }
    frames
}

/// The error code and the text of the last GOAWAY.
fn goaway(frames: &Frames) -> Option<(u32, String)> {
    let (_, _, _, payload) = frames.iter().rev().find(|it| it.0 == 7)?;
    let code = u32::from_be_bytes(payload[4..8].try_into().unwrap());
    Some((code, String::from_utf8_lossy(&payload[8..]).into_owned()))
}

/// A frame on a stream of any number.
fn on(stream: u32, mut frame: Vec<u8>) -> Vec<u8> {
    frame[5..9].copy_from_slice(&stream.to_be_bytes());
    frame
}

fn headers(stream: u32, is_whole: bool) -> Vec<u8> {
    let block = call_headers("POST", "/test.Echo/Say");
    on(stream, frame(1, 4 | u8::from(is_whole), 1, &block))
}

/// A whole call.
fn call_on(stream: u32) -> Vec<u8> {
    let message = [prefix(3), b"\x0a\x01x".to_vec()].concat();
    [headers(stream, false), on(stream, frame(0, 1, 1, &message))].concat()
}

fn reset(stream: u32) -> Vec<u8> {
    on(stream, frame(3, 0, 1, &8u32.to_be_bytes()))
}

/// `\0` and the length, as they stand before a message.
fn prefix(length: u32) -> Vec<u8> {
    [&[0][..], &length.to_be_bytes()].concat()
}

/// A connection on which HTTP/2 is written by hand, and whose frames are kept as they come.
struct Raw {
    socket: TcpStream,
    got: Arc<Mutex<Vec<u8>>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Raw {
    /// The server's settings are not acknowledged.
    fn silent(server: &Server) -> Raw {
        let mut socket = TcpStream::connect(server.address().to_string()).unwrap();
        socket.set_write_timeout(Some(LONG)).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket.write_all(PREFACE).unwrap();
        let got = Arc::new(Mutex::new(Vec::new()));
        let (mut ear, kept) = (socket.try_clone().unwrap(), Arc::clone(&got));
        let reader = thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(count @ 1..) = ear.read(&mut buffer) {
                kept.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Raw {
            socket,
            got,
            reader: Some(reader),
        }
    }

    fn new(server: &Server) -> Raw {
        let mut raw = Raw::silent(server);
        raw.send(&frame(4, 1, 0, &[]));
        raw
    }

    fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    fn got(&self) -> Frames {
        frames(&self.got.lock().unwrap())
    }

    fn goaway(&self) -> Option<(u32, String)> {
        goaway(&self.got())
    }

    /// Waits for the server to close.
    fn end(mut self) -> Frames {
        self.reader.take().unwrap().join().unwrap();
        self.got()
    }

    /// That of the last frame of the call; C-core's own compression leaves text as it is.
    fn trailers(&self, stream: u32) -> Vec<Vec<u8>> {
        let frames = self.got().into_iter();
        let ends = frames.filter(|it| (it.0, it.2) == (1, stream) && it.1 & 1 != 0);
        ends.map(|it| it.3).collect()
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|it| it == text.as_bytes())
}

/// Says hello again and again on a connection of its own, until it is dropped.
struct Victim {
    is_over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<(usize, usize, Duration)>>,
}

impl Victim {
    fn new(server: &Server) -> Victim {
        let client = client(server);
        assert_eq!(say(&client, "before").unwrap(), "before");
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let (mut calls, mut refused, mut longest) = (0, 0, Duration::ZERO);
            while !over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let options = CallOptions::default().timeout(LONG);
                match say_with(&client, "hello", options) {
                    Ok(reply) => {
                        assert_eq!(reply, "hello");
                        calls += 1;
                    }
                    Err(status) => {
                        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                        refused += 1;
                    }
                }
                longest = longest.max(begun.elapsed());
            }
            (calls, refused, longest)
        });
        Victim {
            is_over,
            thread: Some(thread),
        }
    }

    /// How many calls have landed, how many were refused, and how long the longest took.
    fn end(mut self) -> (usize, usize, Duration) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

/// How long somebody floods who is not cut.
const FLOOD: Duration = unhurried(15_000);

/// How long a call of another client may take meanwhile: a second for the last words of who is cut, and some for a machine
/// that is busy.
const BESIDE: Duration = unhurried(3_000);

/// Sends the beginning, then again and again what comes next, until the server closes. Says what came back, and how others
/// have fared.
fn flood(server: &Server, begin: &[u8], mut next: impl FnMut() -> Vec<u8>) -> Frames {
    let victim = Victim::new(server);
    let mut attacker = Raw::new(server);
    attacker.send(begin);
    let begun = Instant::now();
    while begun.elapsed() < FLOOD && attacker.socket.write_all(&next()).is_ok() {}
    let lasted = begun.elapsed();
    let (calls, refused, longest) = victim.end();
    println!("{calls} calls, and {refused} refused, of another client in {lasted:?}, the longest took {longest:?}");
    assert!(lasted < FLOOD, "the flood was not ended");
    assert!(calls > 0, "nobody else was served");
    assert!(longest < BESIDE, "a call took {longest:?}");
    eventually("it is gone", || server.connections() <= 1);
    attacker.end()
}

/// So many times the same.
fn times(count: usize, frame: Vec<u8>) -> impl FnMut() -> Vec<u8> {
    let chunk = frame.repeat(count);
    move || chunk.clone()
}

fn is_calmed(frames: &Frames, text: &str) {
    let (code, why) = goaway(frames).expect("GOAWAY");
    assert_eq!((code, &*why), (ENHANCE_YOUR_CALM, text));
}

const UNNEEDED: &str = "too many frames that nobody needs";

#[test]
fn a_flood_of_settings_is_ended() {
    let server = start(echo());
    let settings = frame(4, 0, 0, &[0, 4, 0, 1, 0, 0]);
    is_calmed(&flood(&server, &[], times(1000, settings)), UNNEEDED);
}

#[test]
fn a_flood_of_priority_is_ended() {
    let server = start(echo());
    let priority = frame(2, 0, 1, &[0, 0, 0, 0, 15]);
    is_calmed(&flood(&server, &[], times(1000, priority)), UNNEEDED);
}

#[test]
fn a_flood_of_unknown_frames_is_ended() {
    let server = start(echo());
    let unknown = frame(0xbe, 0, 0, &[7; 200]);
    is_calmed(&flood(&server, &[], times(500, unknown)), UNNEEDED);
}

#[test]
fn a_flood_of_window_updates_is_ended() {
    let server = start(echo());
    let update = frame(8, 0, 0, &1u32.to_be_bytes());
    is_calmed(&flood(&server, &[], times(1000, update)), UNNEEDED);
}

#[test]
fn a_flood_of_goaways_is_ended() {
    let server = start(echo());
    let goaway = frame(7, 0, 0, &[0; 8]);
    is_calmed(&flood(&server, &[], times(1000, goaway)), UNNEEDED);
}

#[test]
fn a_flood_of_pings_is_ended() {
    let server = start(echo());
    let ping = frame(6, 0, 0, b"are you?");
    is_calmed(&flood(&server, &[], times(1000, ping)), "too_many_pings");
}

#[test]
fn a_flood_of_empty_data_is_ended() {
    let server = start(echo());
    let empty = frame(0, 0, 1, &[]);
    let frames = flood(&server, &headers(1, false), times(1000, empty));
    is_calmed(&frames, UNNEEDED);
}

#[test]
fn a_message_in_pieces_of_a_byte_is_ended() {
    let server = start(echo());
    let begin = [headers(1, false), frame(0, 0, 1, &prefix(4 << 20))].concat();
    let frames = flood(&server, &begin, times(1000, frame(0, 0, 1, &[7])));
    is_calmed(&frames, UNNEEDED);
}

#[test]
fn a_block_of_headers_that_does_not_end_is_ended() {
    let server = start(echo());
    let begin = frame(1, 0, 1, &call_headers("POST", "/test.Echo/Say"));
    for piece in [vec![0x82; 1000], vec![]] {
        let frames = flood(&server, &begin, times(100, frame(9, 0, 1, &piece)));
        is_calmed(&frames, "a block of headers is too large");
    }
}

/// C-core resets each of these calls by itself: it refuses padding.
fn reset_by_the_server(stream: u32) -> Vec<u8> {
    [headers(stream, false), on(stream, frame(0, 8, 1, &[0]))].concat()
}

/// Each of these calls is refused, with a status.
fn bad_headers(stream: u32) -> Vec<u8> {
    let bad = field("x-bin", "this is no base64 !");
    let block = [call_headers("POST", "/test.Echo/Say"), bad].concat();
    on(stream, frame(1, 5, 1, &block))
}

/// Frames of one call after the other.
fn calls(each: impl Fn(u32) -> Vec<u8>) -> impl FnMut() -> Vec<u8> {
    let mut stream = 1;
    move || {
        let mut bytes = Vec::new();
        for _ in 0..200 {
            bytes.extend(each(stream));
            stream += 2;
        }
        bytes
    }
}

/// Because there were too many; or, if the server takes long to answer, more at once than it allows.
fn is_ended_for_its_calls(frames: &Frames) {
    let codes = frames.iter().filter(|it| it.0 == 7);
    let codes: Vec<u32> = codes.map(|it| it.3[7].into()).collect();
    let is_meant = |code: &u32| matches!(*code, ENHANCE_YOUR_CALM | PROTOCOL_ERROR);
    assert!(codes.first().is_some_and(is_meant), "{codes:?}");
}

#[test]
fn calls_that_the_server_must_reset_count_as_the_clients() {
    let server = start(echo());
    let frames = flood(&server, &[], calls(reset_by_the_server));
    is_ended_for_its_calls(&frames);
    let resets = frames.iter().filter(|it| it.0 == 3).count();
    // A client that reads slowly is read from until 10,000 frames wait for it (C-core).
    assert!(resets < 15_000, "{resets}");
}

#[test]
fn calls_whose_headers_cannot_be_read_count_as_calls_that_are_reset() {
    let server = start(echo());
    let frames = flood(&server, &[], calls(bad_headers));
    is_ended_for_its_calls(&frames);
}

/// CVE-2025-8671: what makes the server reset comes behind a whole request.
#[test]
fn a_call_that_is_whole_and_then_spoilt_counts_too() {
    let server = start(echo());
    let frames = flood(
        &server,
        &[],
        calls(|stream| {
            let message = [prefix(3), b"\x0a\x01x".to_vec()].concat();
            let spoilt = on(stream, frame(0, 9, 1, &[0]));
            let data = on(stream, frame(0, 0, 1, &message));
            [headers(stream, false), data, spoilt].concat()
        }),
    );
    is_ended_for_its_calls(&frames);
}

#[test]
fn a_batch_that_is_cancelled_at_once_costs_no_other_call() {
    let (service, begun, release) = gated();
    let server = start(service);
    let mut client = Raw::new(&server);
    let message = [prefix(3), b"\x0a\x01x".to_vec()].concat();
    client.send(&headers(1, false));
    client.send(&frame(0, 1, 1, &message));
    begun.recv_timeout(LONG).expect("the call runs");
    // What comes back meanwhile is not enough, however slow this is.
    let batch = (0..4_000).map(|it| 2 * it + 3);
    let batch: Vec<u8> = batch
        .flat_map(|it| [headers(it, false), reset(it)].concat())
        .collect();
    client.send(&batch);
    eventually("GOAWAY comes", || client.goaway().is_some());
    assert_eq!(client.goaway().unwrap().0, ENHANCE_YOUR_CALM);
    // What is begun behind it is not run.
    let after = [headers(9_001, false), on(9_001, frame(0, 1, 1, &message))].concat();
    client.send(&after);
    client.send(&frame(6, 0, 0, b"was read"));
    eventually("that was read", || client.got().iter().any(|it| it.0 == 6));
    assert!(begun.is_empty(), "it runs");
    release.send(()).unwrap();
    let frames = client.end();
    let data = frames.iter().find(|it| it.0 == 0).expect("the answer");
    assert_eq!((data.2, &data.3[5..]), (1, &b"\x0a\x01x"[..]));
    assert!(frames.iter().all(|it| it.2 != 9_001), "{frames:?}");
    let last = frames.iter().rev().find(|it| it.0 == 7).unwrap();
    let last = u32::from_be_bytes(last.3[..4].try_into().unwrap());
    // A client may repeat elsewhere what is above.
    assert!((2_001..9_001).contains(&last), "{last}");
}

#[test]
fn a_graceful_stop_waits_for_the_call_beside_a_cancelled_batch() {
    let (service, begun, release) = gated();
    let server = start(service);
    let mut client = Raw::new(&server);
    client.send(&headers(1, false));
    client.send(&frame(
        0,
        1,
        1,
        &[prefix(3), b"\x0a\x01x".to_vec()].concat(),
    ));
    begun.recv_timeout(LONG).expect("the call runs");
    // What comes back meanwhile is not enough, however slow this is.
    let batch = (0..4_000).map(|it| 2 * it + 3);
    let batch: Vec<u8> = batch
        .flat_map(|it| [headers(it, false), reset(it)].concat())
        .collect();
    client.send(&batch);
    eventually("GOAWAY comes", || client.goaway().is_some());
    let stopping = thread::spawn(move || server.shutdown());
    thread::sleep(Duration::from_millis(50));
    release.send(()).unwrap();
    let report = stopping.join().unwrap();
    assert!(client.end().iter().any(|it| it.0 == 0), "the answer");
    let lost = (
        report.calls.undelivered,
        report.connections_cut,
        report.forced,
    );
    assert_eq!(lost, (0, 0, false), "{report}");
    assert!(report.took < LONG / 4, "{report}");
}

/// They come in turns, between which the drain begins.
#[test]
fn all_calls_of_a_large_batch_are_served_in_a_drain() {
    let builder = builder(echo()).backlog(1_000);
    let server = builder.max_concurrent_streams(1_000).start().unwrap();
    let mut client = Raw::new(&server);
    let message = [prefix(3), b"\x0a\x01x".to_vec()].concat();
    let call = |it| [headers(it, false), on(it, frame(0, 1, 1, &message))].concat();
    let batch: Vec<u8> = (0..900).flat_map(|it| call(2 * it + 1)).collect();
    client.send(&batch);
    eventually("the first runs", || server.calls().completed > 0);
    let report = server.shutdown();
    let frames = client.end();
    let answers = frames.iter().filter(|it| it.0 == 0).count();
    assert_eq!((answers, report.calls.completed), (900, 900), "{report}");
    assert_eq!(
        (report.forced, report.connections_cut),
        (false, 0),
        "{report}"
    );
}

#[test]
fn limits_hold_before_the_client_has_acknowledged_them() {
    let (service, begun, release) = gated();
    let server = builder(service).max_concurrent_streams(4).start().unwrap();
    let mut client = Raw::silent(&server);
    for stream in [1, 3, 5, 7, 9, 11, 13, 15] {
        client.send(&call_on(stream));
    }
    (0..4).for_each(|_| begun.recv_timeout(LONG).expect("a call runs"));
    // Those that have begun are served to their end. Others are refused, which says that they have not been run.
    (0..4).for_each(|_| release.send(()).unwrap());
    let of_kind = |client: &Raw, kind| {
        let frames = client.got().into_iter().filter(move |it| it.0 == kind);
        let mut streams: Vec<u32> = frames.map(|it| it.2).collect();
        streams.sort_unstable();
        streams
    };
    let refused = |client: &Raw| {
        let frames = client.got().into_iter();
        let resets = frames.filter(|it| it.0 == 3 && it.3 == REFUSED_STREAM.to_be_bytes());
        resets.map(|it| it.2).collect::<Vec<_>>()
    };
    eventually("four are answered", || of_kind(&client, 0).len() == 4);
    assert_eq!(of_kind(&client, 0), [1, 3, 5, 7]);
    eventually("others are refused", || refused(&client).len() == 4);
    assert_eq!(refused(&client), [9, 11, 13, 15]);
    assert!(begun.is_empty());
    assert!(client.goaway().is_none());
    // There is room again.
    client.send(&call_on(17));
    begun.recv_timeout(LONG).expect("a call runs");
    release.send(()).unwrap();
    eventually("it is answered", || of_kind(&client, 0).len() == 5);
}

/// Who keeps as many calls open as may be begins the next as soon as the end of one is there.
#[test]
fn a_client_at_its_limit_of_calls_is_not_taken_for_one_above_it() {
    const CALLS: u32 = 4;
    let server = builder(echo())
        .max_concurrent_streams(CALLS as usize)
        .start()
        .unwrap();
    let mut client = Raw::new(&server);
    let settings = |client: &Raw| client.got().into_iter().find(|it| it.0 == 4);
    eventually("SETTINGS come", || settings(&client).is_some());
    let (.., settings) = settings(&client).unwrap();
    let most = settings.chunks(6).find(|it| it[..2] == [0, 3]).unwrap();
    assert_eq!(most[2..], CALLS.to_be_bytes());
    let mut begun = 0;
    let mut ended = 0;
    while ended < 600 {
        while begun < ended + CALLS {
            client.send(&call_on(2 * begun + 1));
            begun += 1;
        }
        let got = client.got();
        ended = got.iter().filter(|it| it.0 == 1 && it.1 & 1 != 0).count() as u32;
        assert_eq!(goaway(&got), None);
    }
}

/// C-core would end them all in one go, and hears of them in turns.
#[test]
fn a_client_that_leaves_with_many_calls_has_all_of_them_ended() {
    let service = unary(|call, request| {
        call.token().wait();
        Ok(request)
    });
    let server = builder(service).start().unwrap();
    for has_more_of_a_frame in [false, true] {
        let mut client = Raw::new(&server);
        (0..200).for_each(|it| client.send(&call_on(2 * it + 1)));
        eventually("they are there", || server.in_flight() == 200);
        if has_more_of_a_frame {
            client.send(&frame(0, 0, 1, &[0; 100])[..50]);
        }
        client.socket.shutdown(Shutdown::Write).unwrap();
        eventually("none is left", || server.in_flight() == 0);
        client.end();
    }
}

#[test]
fn metadata_is_limited_before_the_client_has_acknowledged_that() {
    let server = builder(echo()).max_metadata_size(1000).start().unwrap();
    let mut client = Raw::silent(&server);
    let mut block = call_headers("POST", "/test.Echo/Say");
    (0..10).for_each(|_| block.extend(field("padding", &"x".repeat(120))));
    client.send(&frame(1, 5, 1, &block));
    eventually("it is refused", || !client.trailers(1).is_empty());
    assert_eq!(server.calls().completed, 0);
    let mut whole = Raw::silent(&server);
    whole.send(&small_call(1));
    eventually("others are served", || !whole.trailers(1).is_empty());
}

#[test]
fn the_servers_settings_must_be_acknowledged() {
    let server = builder(echo())
        .handshake_timeout(unhurried(500))
        .start()
        .unwrap();
    let (mut silent, mut late) = (Raw::silent(&server), Raw::silent(&server));
    silent.send(&small_call(1));
    late.send(&small_call(1));
    eventually("calls are served", || !silent.trailers(1).is_empty());
    late.send(&frame(4, 1, 0, &[]));
    assert_eq!(goaway(&silent.end()).map(|it| it.0), Some(SETTINGS_TIMEOUT));
    late.send(&small_call(3));
    eventually("who has done so is served on", || {
        !late.trailers(3).is_empty()
    });
}

#[test]
fn a_block_of_headers_must_come_in_time() {
    let server = start(echo());
    let mut client = Raw::new(&server);
    let begin = frame(1, 4, 1, &call_headers("POST", "/test.Echo/Say"));
    client.send(&begin[..30]);
    let frames = client.end();
    is_calmed(&frames, "a block of headers does not end");
}

/// Whoever has begun a call loses it for no acknowledgement.
#[test]
fn a_call_is_waited_for_although_the_settings_are_not_acknowledged() {
    let (service, begun, release) = gated();
    let time = unhurried(300);
    let server = builder(service).handshake_timeout(time).start().unwrap();
    let mut client = Raw::silent(&server);
    client.send(&small_call(1));
    begun.recv_timeout(LONG).expect("the call runs");
    thread::sleep(time * 2);
    release.send(()).unwrap();
    let frames = client.end();
    assert!(frames.iter().any(|it| it.0 == 0), "the answer");
    assert_eq!(goaway(&frames).map(|it| it.0), Some(SETTINGS_TIMEOUT));
}

/// Its bytes are not taken, and the connection is as good as before.
#[test]
fn a_message_that_is_too_long_is_refused_when_its_length_is_known() {
    let server = start(echo());
    let mut client = Raw::new(&server);
    client.send(&headers(1, false));
    // With hardly anything behind.
    let start = [prefix(300 << 20), vec![7; 20]].concat();
    client.send(&frame(0, 0, 1, &start));
    eventually("it is refused", || !client.trailers(1).is_empty());
    // As much as fits into the first window of a connection, and the next call behind it.
    let rest = [
        &frame(0, 0, 1, &[7; 16_000]).repeat(4)[..],
        &frame(0, 0, 1, &[7; 1494]),
    ]
    .concat();
    client.send(&rest);
    client.send(&small_call(3));
    eventually("the next is served", || !client.trailers(3).is_empty());
    let trailers = client.trailers(1);
    assert_eq!(trailers.len(), 1);
    let limit = "the request has 314572800 bytes, and this server takes 4194304 at most";
    assert!(has(&trailers[0], limit));
    // RESOURCE_EXHAUSTED.
    assert!(
        has(&trailers[0], "grpc-status\x018"),
        "{:?}",
        String::from_utf8_lossy(&trailers[0])
    );
    eventually("both are over", || server.in_flight() == 0);
    assert!(client.goaway().is_none());
}

/// C-core has a part of the length by then, and would wait for the rest of the message.
#[test]
fn a_message_that_is_far_too_long_and_whose_length_comes_in_pieces_or_alone_ends_with_goaway() {
    let server = start(echo());
    let mut client = Raw::new(&server);
    let start = prefix(300 << 20);
    let pieces = [frame(0, 0, 1, &start[..2]), frame(0, 0, 1, &start[2..])];
    client.send(&[headers(1, false), pieces.concat()].concat());
    is_calmed(&client.end(), "a message is far too long");
    // Its length alone leaves no room for what C-core is to get instead.
    let mut client = Raw::new(&server);
    client.send(&[headers(1, false), frame(0, 0, 1, &start)].concat());
    is_calmed(&client.end(), "a message is far too long");
}

/// Each is as long as it may be, and none comes whole.
#[test]
fn messages_that_are_still_arriving_have_a_share_of_the_memory() {
    let server = touchdown::Server::builder()
        .address("127.0.0.1:0")
        .memory_limit(16 << 20)
        .service(echo())
        .start()
        .unwrap();
    let mut client = Raw::new(&server);
    // Two of them are half of the memory.
    for stream in [1u8, 3] {
        let start = [prefix(4 << 20), vec![7; 100]].concat();
        client.send(&[headers(stream.into(), false), frame(0, 0, stream, &start)].concat());
    }
    let start = [prefix(1000), vec![7; 100]].concat();
    client.send(&[headers(5, false), frame(0, 0, 5, &start)].concat());
    eventually("the third is refused", || !client.trailers(5).is_empty());
    let trailers = client.trailers(5);
    let text = "the messages of this connection that are still arriving leave no room for another";
    assert!(has(&trailers[0], text));
    // RESOURCE_EXHAUSTED.
    assert!(has(&trailers[0], "grpc-status\x018"));
    client.send(&small_call(7));
    eventually("a whole one is served", || !client.trailers(7).is_empty());
    assert!(!has(&client.trailers(7)[0], "grpc-status\x018"));
    // CANCEL.
    client.send(&frame(3, 0, 1, &8u32.to_be_bytes()));
    client.send(&[headers(9, false), frame(0, 0, 9, &start)].concat());
    client.send(&frame(0, 1, 9, &[7; 900]));
    eventually("there is room again", || !client.trailers(9).is_empty());
    assert!(!has(&client.trailers(9)[0], "grpc-status\x018"));
    assert!(client.goaway().is_none());
}

#[test]
fn a_long_message_of_a_stream_ends_the_stream() {
    let (ended, end) = std::sync::mpsc::channel();
    let service = touchdown::Service::builder("test.Echo")
        .client_streaming(
            "Say",
            move |_: &Call, mut requests: touchdown::Requests<_>| {
                let mut count = 0;
                while let Some(request) = requests.recv()? {
                    let _: touchdown::protobuf::well_known_types::wrappers::StringValue = request;
                    count += 1;
                }
                ended.send(count).unwrap();
                Ok(number(count))
            },
        )
        .build();
    let server = start(service);
    let mut client = Raw::new(&server);
    client.send(&headers(1, false));
    client.send(&frame(0, 0, 1, b"\0\0\0\0\x03\x0a\x01x"));
    client.send(&frame(0, 0, 1, &[prefix(u32::MAX), vec![7; 20]].concat()));
    eventually("it is refused", || !client.trailers(1).is_empty());
    eventually("the handler has left", || server.in_flight() == 0);
    assert!(end.try_recv().is_err(), "it was told of an error");
    assert_eq!(client.trailers(1).len(), 1);
}

/// As clients on C-core do with a call whose deadline passes before it is sent. The others are to land.
#[test]
fn a_call_that_is_reset_before_it_is_begun_costs_nobody_anything() {
    let server = start(echo());
    let mut client = Raw::new(&server);
    client.send(&[reset(1), headers(3, false), reset(5)].concat());
    client.send(&[frame(0, 1, 3, &prefix(0)), reset(9)].concat());
    client.send(&[headers(7, false), frame(0, 1, 7, &prefix(0))].concat());
    for stream in [3, 7] {
        let ended = || client.trailers(stream).len() == 1;
        eventually("it is answered", ended);
    }
    assert!(client.goaway().is_none());
}

#[test]
fn what_http2_does_not_allow_ends_with_the_code_that_it_gives() {
    let server = start(echo());
    let window = frame(8, 0, 0, &i32::MAX.to_be_bytes());
    let cases = [
        (
            "HEADERS on an even stream",
            headers(2, true),
            PROTOCOL_ERROR,
        ),
        ("DATA on stream 0", frame(0, 0, 0, b"x"), PROTOCOL_ERROR),
        ("DATA before HEADERS", frame(0, 0, 5, b"x"), PROTOCOL_ERROR),
        ("RST_STREAM on an even stream", reset(2), PROTOCOL_ERROR),
        (
            "RST_STREAM of 3 bytes",
            [headers(1, false), frame(3, 0, 1, b"abc")].concat(),
            FRAME_SIZE_ERROR,
        ),
        (
            "WINDOW_UPDATE before HEADERS",
            frame(8, 0, 5, &[0, 0, 0, 1]),
            PROTOCOL_ERROR,
        ),
        (
            "WINDOW_UPDATE by 0",
            frame(8, 0, 0, &[0; 4]),
            PROTOCOL_ERROR,
        ),
        ("a window above 2^31", window, FLOW_CONTROL_ERROR),
        (
            "PUSH_PROMISE",
            frame(5, 4, 1, &[0, 0, 0, 2]),
            PROTOCOL_ERROR,
        ),
        ("PING on a stream", frame(6, 0, 1, &[0; 8]), PROTOCOL_ERROR),
        ("PING of 7 bytes", frame(6, 0, 0, &[0; 7]), FRAME_SIZE_ERROR),
        ("SETTINGS on a stream", frame(4, 0, 1, &[]), PROTOCOL_ERROR),
        (
            "SETTINGS of 5 bytes",
            frame(4, 0, 0, &[0; 5]),
            FRAME_SIZE_ERROR,
        ),
        (
            "a long acknowledgement",
            frame(4, 1, 0, &[0; 6]),
            FRAME_SIZE_ERROR,
        ),
        (
            "GOAWAY on a stream",
            frame(7, 0, 1, &[0; 8]),
            PROTOCOL_ERROR,
        ),
        (
            "CONTINUATION of nothing",
            frame(9, 4, 1, &[]),
            PROTOCOL_ERROR,
        ),
        (
            "PRIORITY on stream 0",
            frame(2, 0, 0, &[0; 5]),
            PROTOCOL_ERROR,
        ),
        (
            "another frame in a block of headers",
            [frame(1, 0, 1, &[]), frame(6, 0, 0, &[0; 8])].concat(),
            PROTOCOL_ERROR,
        ),
    ];
    for (what, bytes, code) in cases {
        let mut client = Raw::new(&server);
        client.send(&bytes);
        let frames = client.end();
        assert_eq!(goaway(&frames).map(|it| it.0), Some(code), "{what}");
    }
    assert_eq!(say(&client(&server), "hello").unwrap(), "hello");
}

/// Too large for C-core, which would leave without a word.
#[test]
fn a_frame_that_is_too_large_ends_with_goaway() {
    let server = start(echo());
    let mut client = Raw::new(&server);
    client.send(&headers(1, false));
    client.send(&frame(0, 0, 1, &vec![0; 5 << 20])[..9 + 100]);
    let frames = client.end();
    assert_eq!(goaway(&frames).map(|it| it.0), Some(FRAME_SIZE_ERROR));
}

/// Twice as many as a client's keepalive sends in a minute.
#[test]
fn pings_of_a_keepalive_are_served() {
    let server = start(echo());
    let mut client = Raw::new(&server);
    (0..10).for_each(|_| client.send(&frame(6, 0, 0, b"are you?")));
    eventually("they are answered", || {
        client.got().iter().filter(|it| it.0 == 6).count() == 10
    });
    // Each call allows some more.
    for stream in [1, 3, 5, 7] {
        client.send(&small_call(stream));
        eventually("it is served", || {
            !client.trailers(stream.into()).is_empty()
        });
        (0..20).for_each(|_| client.send(&frame(6, 0, 0, b"are you?")));
    }
    eventually("they are answered", || {
        client.got().iter().filter(|it| it.0 == 6).count() == 90
    });
    assert!(client.goaway().is_none());
}

struct Seen(Mutex<Vec<(String, bool)>>);

impl CallObserver for Seen {
    fn connection(&self, event: &ConnectionEvent) {
        if let ConnectionEvent::SentAway {
            reason: SentAwayReason::Misconduct { what, is_cut, .. },
            ..
        } = event
        {
            self.0.lock().unwrap().push((what.clone(), *is_cut));
        }
    }
}

#[test]
fn who_is_sent_away_is_seen_once() {
    let seen = Arc::new(Seen(Mutex::default()));
    let server = builder(echo()).observer(Arc::clone(&seen)).start().unwrap();
    flood(&server, &[], times(1000, frame(4, 0, 0, &[])));
    let seen = seen.0.lock().unwrap();
    let expected = format!("{UNNEEDED} (ENHANCE_YOUR_CALM)");
    assert_eq!(*seen, [(expected, true)]);
}

#[cfg(feature = "tls")]
mod encrypted {
    use super::*;
    use tls_support::{Folder, Wish};

    /// Sends again and again what comes next, until the server closes.
    fn flood(begin: &[u8], mut next: impl FnMut() -> Vec<u8>) {
        let folder = Folder::new();
        let server = tls_support::start(echo(), folder.tls());
        let ca = folder.file("ca.pem");
        let mut victim = tls_support::client(&server, &Wish::new(&ca));
        let mut attacker = tls_support::client(&server, &Wish::new(&ca));
        attacker.stream.sock.set_write_timeout(Some(LONG)).unwrap();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let calls = scope.spawn(|| {
                let (mut calls, mut longest) = (0, Duration::ZERO);
                while !is_over.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    match victim.say("hello") {
                        Ok(reply) => assert_eq!(reply, "hello"),
                        // Refused: there is no reply.
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Other, "{error}"),
                    }
                    longest = longest.max(begun.elapsed());
                    calls += 1;
                }
                (calls, longest)
            });
            attacker.stream.write_all(begin).unwrap();
            let begun = Instant::now();
            while begun.elapsed() < FLOOD && attacker.stream.write_all(&next()).is_ok() {}
            let lasted = begun.elapsed();
            is_over.store(true, Ordering::Relaxed);
            let (calls, longest) = calls.join().unwrap();
            println!("{calls} calls of another client in {lasted:?}, the longest took {longest:?}");
            assert!(lasted < FLOOD, "the flood was not ended");
            assert!(calls > 0 && longest < BESIDE, "{calls} {longest:?}");
        });
    }

    #[test]
    fn a_flood_of_settings_is_ended() {
        flood(&frame(4, 1, 0, &[]), times(1000, frame(4, 0, 0, &[])));
    }

    #[test]
    fn a_block_of_headers_that_does_not_end_is_ended() {
        let begin = frame(1, 0, 1, &call_headers("POST", "/test.Echo/Say"));
        flood(&begin, times(100, frame(9, 0, 1, &[0x82; 1000])));
    }

    #[test]
    fn calls_that_the_server_must_reset_count_as_the_clients() {
        flood(&[], calls(bad_headers));
    }
}
