//! Connections that are sent away while the server goes on, and what becomes of the calls on them.
#![cfg(feature = "client")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use touchdown::client::CallOptions;
use touchdown::lifecycle::exit_code;
use touchdown::protobuf::well_known_types::wrappers::StringValue;
use touchdown::{
    Call, CallObserver, Code, ConnectionEvent, ConnectionRefusal, Listen, Replies, Requests,
    SentAwayReason, Server, Service,
};

/// A second, or longer where everything takes longer: the least that `progress_timeout` may be.
const PROGRESS: Duration = unhurried(1000);

#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    opened: usize,
    sent_away: Vec<(u64, SentAwayReason)>,
    refused: Vec<ConnectionRefusal>,
}

impl Recorder {
    fn sent_away(&self) -> Vec<SentAwayReason> {
        let told = self.0.lock().unwrap();
        told.sent_away.iter().map(|it| it.1.clone()).collect()
    }

    /// The numbers of those.
    fn numbers(&self) -> Vec<u64> {
        let told = self.0.lock().unwrap();
        told.sent_away.iter().map(|it| it.0).collect()
    }

    fn opened(&self) -> usize {
        self.0.lock().unwrap().opened
    }

    fn refused(&self) -> Vec<ConnectionRefusal> {
        self.0.lock().unwrap().refused.clone()
    }
}

impl CallObserver for Recorder {
    fn connection(&self, event: &ConnectionEvent) {
        let mut told = self.0.lock().unwrap();
        match event {
            ConnectionEvent::Opened { .. } => told.opened += 1,
            ConnectionEvent::SentAway { number, reason, .. } => {
                told.sent_away.push((*number, reason.clone()))
            }
            ConnectionEvent::Refused { reason, .. } => told.refused.push(*reason),
            _ => {}
        }
    }
}

/// A connection on which HTTP/2 is written by hand, and whose server has said its settings.
fn raw_client(server: &Server) -> TcpStream {
    let mut client = TcpStream::connect(server.address().to_string()).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    client.write_all(PREFACE).unwrap();
    client.write_all(&frame(4, 1, 0, &[])).unwrap();
    client
}

/// On a stream with a number of any size.
fn on_stream(mut frame: Vec<u8>, stream: u32) -> Vec<u8> {
    frame[5..9].copy_from_slice(&stream.to_be_bytes());
    frame
}

/// The headers of a call, of which nothing more comes.
fn only_headers(path: &str, stream: u32) -> Vec<u8> {
    on_stream(frame(1, 4, 0, &call_headers("POST", path)), stream)
}

/// The kinds of the frames until the end.
fn kinds_until_the_end(client: &mut impl Read) -> Vec<u8> {
    let mut kinds = Vec::new();
    let mut header = [0; 9];
    while client.read_exact(&mut header).is_ok() {
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        kinds.push(header[3]);
        if client.read_exact(&mut vec![0; length as usize]).is_err() {
            break;
        }
    }
    kinds
}

const GOAWAY: u8 = 7;

/// What `Say` answers, and a stream of requests that may say nothing.
fn echo_and_listen() -> Service {
    let echo = |_: &Call, request: StringValue| Ok(request);
    let listen = |_: &Call, requests: Requests<StringValue>| {
        let count = requests.filter(Result::is_ok).count();
        Ok(text(count.to_string()))
    };
    Service::builder("test.Echo")
        .unary("Say", echo)
        .client_streaming("Listen", listen)
        .build()
}

#[test]
fn who_has_been_idle_the_longest_makes_room_for_a_new_connection_and_loses_no_call() {
    let recorder = Recorder::default();
    let (service, begun, release) = gated();
    let builder = builder(service)
        .max_connections(3)
        .observer(recorder.clone());
    let server = builder.start().unwrap();
    let (busy, first, second) = (client(&server), client(&server), client(&server));
    drop(release);
    for it in [&busy, &first, &second] {
        assert_eq!(say(it, "hello").unwrap(), "hello");
        begun.recv().unwrap();
    }
    // Who has come just now does not have to go.
    eventually("there is room", || say(&client(&server), "new").is_ok());
    let refused = recorder.refused();
    assert!(
        refused
            .iter()
            .all(|it| *it == ConnectionRefusal::LimitReached),
        "{refused:?}"
    );
    assert_eq!(recorder.sent_away()[0], SentAwayReason::Room);
    assert_eq!(
        recorder.numbers()[0],
        1,
        "the connection that had been idle the longest"
    );
    assert_eq!(say(&second, "still there").unwrap(), "still there");
    assert_eq!(server.shutdown().exit_code(), exit_code::CLEAN);
}

/// Many come at once, as after a restart, or from somebody who holds connections for nothing.
#[test]
fn who_never_had_a_call_makes_room_before_a_newcomer_is_refused() {
    let recorder = Recorder::default();
    let builder = builder(echo())
        .max_connections(2)
        .observer(recorder.clone());
    let server = builder.start().unwrap();
    for number in 0..20 {
        let unused = [raw_client(&server), raw_client(&server)];
        assert_eq!(say(&client(&server), "new").unwrap(), "new", "{number}");
        drop(unused);
    }
    assert_eq!(recorder.refused(), []);
    assert_eq!(recorder.sent_away()[0], SentAwayReason::Room);
    assert_eq!(server.shutdown().exit_code(), exit_code::CLEAN);
}

#[test]
fn who_has_a_call_makes_no_room() {
    let recorder = Recorder::default();
    let (service, begun, release) = gated();
    let builder = builder(service)
        .max_connections(1)
        .observer(recorder.clone());
    let server = builder.start().unwrap();
    let busy = client(&server);
    thread::scope(|scope| {
        let call = scope.spawn(|| say(&busy, "busy"));
        begun.recv().unwrap();
        let since = Instant::now();
        eventually("it is long enough for an idle one", || {
            let mut other = TcpStream::connect(server.address().to_string()).unwrap();
            assert_eq!(other.read(&mut [0]).unwrap_or(0), 0, "it is closed");
            since.elapsed() > Duration::from_millis(1500)
        });
        drop(release);
        assert_eq!(call.join().unwrap().unwrap(), "busy");
    });
    assert_eq!(recorder.sent_away(), []);
    assert!(!recorder.refused().is_empty());
}

#[test]
fn one_address_has_its_share_of_the_connections_and_a_unix_socket_has_none() {
    let recorder = Recorder::default();
    let path = std::env::temp_dir().join(format!("touchdown-share-{}.sock", std::process::id()));
    let unix = format!("unix:{}", path.display());
    let builder = builder(echo()).max_connections_per_address(2);
    let server = builder
        .listen(Listen::new(&unix))
        .observer(recorder.clone())
        .start()
        .unwrap();
    // With calls, or they would make room.
    let mut raw: Vec<_> = (0..2).map(|_| raw_client(&server)).collect();
    for it in &mut raw {
        it.write_all(&only_headers("/test.Echo/Say", 1)).unwrap();
    }
    eventually("both are served", || server.connections() == 2);
    let mut over = TcpStream::connect(server.address().to_string()).unwrap();
    assert_eq!(over.read(&mut [0]).unwrap_or(0), 0, "it is closed");
    assert_eq!(recorder.refused(), [ConnectionRefusal::AddressLimit]);
    let local: Vec<_> = (0..4)
        .map(|_| UnixStream::connect(&path).unwrap())
        .collect();
    eventually("all are served", || server.connections() == 6);
    for it in &mut raw {
        it.write_all(&frame(3, 0, 1, &8u32.to_be_bytes())).unwrap();
    }
    // When they have been idle for some time, one of them makes room.
    eventually("there is room", || say(&client(&server), "new").is_ok());
    assert_eq!(recorder.sent_away()[0], SentAwayReason::Room);
    drop((raw, local));
}

/// Its old connection may have a call that takes its time.
#[test]
fn who_is_sent_away_may_come_again_though_its_address_has_its_share() {
    let (service, begun, release) = gated();
    let builder = builder(service).max_connections_per_address(1);
    let builder = builder.max_connection_age(unhurried(300), LONG);
    let recorder = Recorder::default();
    let server = builder.observer(recorder.clone()).start().unwrap();
    let client = client(&server);
    thread::scope(|scope| {
        let first = scope.spawn(|| say(&client, "first"));
        begun.recv_timeout(LONG).unwrap();
        eventually("its connection is old", || recorder.sent_away().len() == 1);
        let second = scope.spawn(|| say(&client, "second"));
        begun.recv_timeout(LONG).expect("it came again");
        drop(release);
        assert_eq!(first.join().unwrap().unwrap(), "first");
        assert_eq!(second.join().unwrap().unwrap(), "second");
    });
    assert_eq!(recorder.refused(), []);
}

#[test]
fn a_public_listener_has_limits_of_its_own() {
    let recorder = Recorder::default();
    let server = Server::builder()
        .service(echo())
        .lifecycle(planned(quick_plan()))
        .listen(Listen::new("127.0.0.1:0").public())
        .max_connections(8)
        .observer(recorder.clone())
        .start()
        .unwrap();
    let mut first = raw_client(&server);
    // SETTINGS: a client may have 100 calls.
    let mut settings = [0; 200];
    let count = first.read(&mut settings).unwrap();
    let streams = [0, 3, 0, 0, 0, 100];
    assert!(
        settings[..count].windows(6).any(|it| it == streams),
        "{:?}",
        &settings[..count]
    );
    // With a call, or it would make room.
    first.write_all(&only_headers("/test.Echo/Say", 1)).unwrap();
    let mut over = TcpStream::connect(server.address().to_string()).unwrap();
    assert_eq!(over.read(&mut [0]).unwrap_or(0), 0, "an eighth of 8");
    assert_eq!(recorder.refused(), [ConnectionRefusal::AddressLimit]);
}

#[test]
fn connections_that_are_old_are_sent_away_and_no_call_is_lost() {
    let recorder = Recorder::default();
    let slow = unary(|_, request| {
        if request.value == "slow" {
            thread::sleep(unhurried(1000));
        }
        Ok(request)
    });
    let builder = builder(slow).max_connection_age(unhurried(300), LONG);
    let server = builder.observer(recorder.clone()).start().unwrap();
    let clients: Vec<_> = (0..3).map(|_| client(&server)).collect();
    thread::scope(|scope| {
        let server = &server;
        let call = scope.spawn(move || say(&client(server), "slow"));
        for it in &clients {
            let recorder = &recorder;
            scope.spawn(move || {
                while recorder.opened() < 12 {
                    assert_eq!(say(it, "quick"), Ok("quick".to_owned()));
                }
            });
        }
        assert_eq!(
            call.join().unwrap(),
            Ok("slow".to_owned()),
            "though it took longer"
        );
    });
    let sent_away = recorder.sent_away();
    assert!(sent_away.len() >= 8, "{sent_away:?}");
    assert!(
        sent_away.iter().all(|it| *it == SentAwayReason::Age),
        "{sent_away:?}"
    );
    let calls = server.calls();
    assert_eq!(
        (calls.caller_left, calls.cut, calls.refused),
        (0, 0, 0),
        "{calls:?}"
    );
    assert_eq!(server.shutdown().exit_code(), exit_code::CLEAN);
}

#[test]
fn what_runs_on_an_old_connection_when_its_grace_is_over_is_told_and_ended() {
    let (told, is_told) = mpsc::channel();
    let endless = unary(move |call, request| {
        call.token().wait();
        told.send(()).unwrap();
        Ok(request)
    });
    let builder = builder(endless).max_connection_age(unhurried(100), unhurried(300));
    let server = builder.start().unwrap();
    let status = say(&client(&server), "endless").unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("ends the connection"), "{status}");
    is_told.recv_timeout(LONG).unwrap();
    eventually("it is counted", || server.calls().cut == 1);
    eventually("the connection is gone", || server.connections() == 0);
}

#[test]
fn who_makes_no_call_is_sent_away_and_comes_again_and_a_quiet_stream_is_a_call() {
    let recorder = Recorder::default();
    let builder = builder(echo_and_listen()).max_connection_idle(unhurried(300));
    let server = builder.observer(recorder.clone()).start().unwrap();
    let (idle, streams) = (client(&server), client(&server));
    let mut upload = streams
        .client_streaming::<StringValue, StringValue>("/test.Echo/Listen", CallOptions::default())
        .unwrap();
    upload.send(text("one")).unwrap();
    for _ in 0..3 {
        let before = recorder.sent_away().len();
        assert_eq!(say(&idle, "hello").unwrap(), "hello");
        eventually("it is sent away", || recorder.sent_away().len() > before);
        eventually("only the stream is left", || server.connections() == 1);
    }
    upload.send(text("two")).unwrap();
    assert_eq!(upload.finish().unwrap().value, "2");
    let sent_away = recorder.sent_away();
    assert!(
        sent_away.iter().all(|it| *it == SentAwayReason::Idle),
        "{sent_away:?}"
    );
    assert_eq!(server.calls().caller_left, 0);
}

#[test]
fn requests_that_do_not_come_have_their_connection_sent_away_and_quiet_streams_have_not() {
    let recorder = Recorder::default();
    let builder = builder(echo_and_listen()).progress_timeout(PROGRESS);
    let server = builder.observer(recorder.clone()).start().unwrap();
    // One is quiet for as long as it likes; of the other nothing comes but headers.
    let mut quiet = raw_client(&server);
    quiet
        .write_all(&only_headers("/test.Echo/Listen", 1))
        .unwrap();
    let mut stuck = raw_client(&server);
    let begun = Instant::now();
    stuck.write_all(&only_headers("/test.Echo/Say", 1)).unwrap();
    let kinds = kinds_until_the_end(&mut stuck);
    assert!(begun.elapsed() >= PROGRESS, "{:?}", begun.elapsed());
    assert!(kinds.contains(&GOAWAY), "it was told: {kinds:?}");
    assert_eq!(recorder.sent_away(), [SentAwayReason::NoProgress]);
    assert_eq!(recorder.numbers(), [2]);
    eventually("the other is there still", || server.connections() == 1);
    assert_eq!(say(&client(&server), "hello").unwrap(), "hello");
    assert_eq!(server.in_flight(), 1);
}

/// A header block without end, and a frame.
#[test]
fn what_has_come_in_part_holds_no_connection() {
    let recorder = Recorder::default();
    let builder = builder(echo())
        .progress_timeout(PROGRESS)
        .max_connection_idle(PROGRESS);
    let server = builder.observer(recorder.clone()).start().unwrap();
    let (mut block, mut part) = (raw_client(&server), raw_client(&server));
    // HEADERS without END_HEADERS.
    block
        .write_all(&frame(1, 0, 1, &call_headers("POST", "/test.Echo/Say")))
        .unwrap();
    part.write_all(&frame(0xbb, 0, 0, &[0; 9])[..12]).unwrap();
    eventually("they are there", || recorder.opened() == 2);
    eventually("they are gone", || server.connections() == 0);
    let sent_away = recorder.sent_away();
    assert!(
        sent_away.contains(&SentAwayReason::NoProgress),
        "{sent_away:?}"
    );
    assert!(sent_away.contains(&SentAwayReason::Idle), "{sent_away:?}");
}

#[test]
fn a_watch_stream_does_not_hold_an_old_connection() {
    let recorder = Recorder::default();
    let builder = builder(echo()).max_connection_age(unhurried(300), unhurried(300));
    let server = builder.observer(recorder.clone()).start().unwrap();
    let mut watcher = raw_client(&server);
    let headers = call_headers("POST", "/grpc.health.v1.Health/Watch");
    watcher.write_all(&frame(1, 4, 1, &headers)).unwrap();
    watcher.write_all(&frame(0, 1, 1, &[0; 5])).unwrap();
    let kinds = kinds_until_the_end(&mut watcher);
    assert!(kinds.contains(&GOAWAY), "{kinds:?}");
    assert_eq!(recorder.sent_away(), [SentAwayReason::Age]);
    eventually("it is gone", || server.connections() == 0);
}

#[test]
fn a_request_that_comes_slowly_comes() {
    let recorder = Recorder::default();
    let builder = builder(echo()).progress_timeout(PROGRESS);
    let server = builder.observer(recorder.clone()).start().unwrap();
    let mut slow = raw_client(&server);
    slow.write_all(&only_headers("/test.Echo/Say", 1)).unwrap();
    // Less than what it may send without the server's leave.
    let (pieces, piece) = (12_u32, 5_000_u32);
    let length = pieces * piece;
    let [.., a, b, c] = (length - 4).to_be_bytes();
    let varint = [
        c & 0x7f | 0x80,
        (b << 1 | c >> 7) & 0x7f | 0x80,
        a << 2 | b >> 6,
    ];
    let mut message = [&[0][..], &length.to_be_bytes(), &[10], &varint].concat();
    message.resize(5 + length as usize, b'x');
    let begun = Instant::now();
    for (number, part) in message.chunks(piece as usize).enumerate() {
        // A quarter of the time for each, so that it has that much in any.
        eventually("it is time", || {
            begun.elapsed() > PROGRESS / 4 * number as u32
        });
        let is_last = number + 1 == message.len().div_ceil(piece as usize);
        slow.write_all(&frame(0, is_last.into(), 1, part)).unwrap();
    }
    assert!(begun.elapsed() > PROGRESS * 2);
    eventually("it was answered", || server.calls().completed == 1);
    assert_eq!(recorder.sent_away(), []);
}

#[test]
fn answers_that_are_not_taken_have_their_connection_sent_away_and_others_are_served() {
    let recorder = Recorder::default();
    let builder = builder(echo()).progress_timeout(PROGRESS);
    let server = builder.observer(recorder.clone()).start().unwrap();
    let mut greedy = raw_client(&server);
    // SETTINGS_INITIAL_WINDOW_SIZE: RFC 9113, 6.5.2.
    greedy
        .write_all(&frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]))
        .unwrap();
    for stream in (1..40).step_by(2) {
        greedy.write_all(&small_call(stream)).unwrap();
    }
    let kinds = kinds_until_the_end(&mut greedy);
    assert!(kinds.contains(&GOAWAY), "it was told: {kinds:?}");
    assert_eq!(recorder.sent_away(), [SentAwayReason::NoProgress]);
    assert_eq!(say(&client(&server), "hello").unwrap(), "hello");
    eventually("nothing is left of it", || server.in_flight() == 0);
}

#[test]
fn who_does_not_read_from_a_unix_socket_is_cut() {
    let recorder = Recorder::default();
    let (ended, end) = mpsc::channel();
    let endless = move |_: &Call, request: StringValue, replies: Replies<StringValue>| {
        let large = text("x".repeat(1000) + &request.value);
        while replies.send(&large).is_ok() {}
        ended.send(()).unwrap();
        Ok(())
    };
    let service = Service::builder("test.Echo")
        .server_streaming("Say", endless)
        .build();
    let path = std::env::temp_dir().join(format!("touchdown-unread-{}.sock", std::process::id()));
    let server = Server::builder()
        .service(service)
        .lifecycle(planned(quick_plan()))
        .address(format!("unix:{}", path.display()))
        .progress_timeout(PROGRESS)
        .observer(recorder.clone())
        .start()
        .unwrap();
    let mut deaf = UnixStream::connect(&path).unwrap();
    deaf.write_all(PREFACE).unwrap();
    // As much as there is: SETTINGS_INITIAL_WINDOW_SIZE, and WINDOW_UPDATE for the connection.
    let largest = i32::MAX as u32;
    let settings = [&[0, 4][..], &largest.to_be_bytes()].concat();
    deaf.write_all(&frame(4, 0, 0, &settings)).unwrap();
    deaf.write_all(&frame(8, 0, 0, &(largest - 65_535).to_be_bytes()))
        .unwrap();
    deaf.write_all(&small_call(1)).unwrap();
    end.recv_timeout(LONG).expect("the handler is told");
    assert_eq!(recorder.sent_away(), [SentAwayReason::NotTaken]);
    eventually("the connection is gone", || server.connections() == 0);
}

/// Its kernel acknowledges everything, and it reads: a few bytes now and then.
#[test]
fn who_hardly_reads_is_cut() {
    let recorder = Recorder::default();
    let endless = |_: &Call, request: StringValue, replies: Replies<StringValue>| {
        let large = text("x".repeat(1000) + &request.value);
        while replies.send(&large).is_ok() {}
        Ok(())
    };
    let service = Service::builder("test.Echo")
        .server_streaming("Say", endless)
        .build();
    let builder = builder(service).progress_timeout(PROGRESS);
    let server = builder.observer(recorder.clone()).start().unwrap();
    let mut slow = raw_client(&server);
    let largest = i32::MAX as u32;
    let settings = [&[0, 4][..], &largest.to_be_bytes()].concat();
    slow.write_all(&frame(4, 0, 0, &settings)).unwrap();
    slow.write_all(&frame(8, 0, 0, &(largest - 65_535).to_be_bytes()))
        .unwrap();
    slow.write_all(&small_call(1)).unwrap();
    let pause = PROGRESS / 20;
    eventually("it is cut", || {
        thread::sleep(pause);
        let _ = slow.read(&mut [0; 20]);
        !recorder.sent_away().is_empty()
    });
    assert_eq!(recorder.sent_away(), [SentAwayReason::NotTaken]);
    eventually("the connection is gone", || server.connections() == 0);
}

#[test]
fn who_has_the_most_calls_open_goes_when_there_is_no_memory_for_all() {
    let recorder = Recorder::default();
    let (service, begun, release) = gated();
    // For 1,024 calls.
    let builder = builder(service)
        .memory_limit(16 << 20)
        .max_concurrent_streams(1000)
        .observer(recorder.clone());
    let server = builder.start().unwrap();
    let innocent = client(&server);
    thread::scope(|scope| {
        let call = scope.spawn(|| say(&innocent, "innocent"));
        begun.recv().unwrap();
        let flood = |calls: u32| {
            let mut client = raw_client(&server);
            let streams = (1..2 * calls).step_by(2);
            let calls = streams.flat_map(|it| only_headers("/test.Echo/Say", it));
            client.write_all(&calls.collect::<Vec<u8>>()).unwrap();
            client
        };
        let (small, mut large) = (flood(300), flood(900));
        let kinds = kinds_until_the_end(&mut large);
        assert!(kinds.contains(&GOAWAY), "it was told: {kinds:?}");
        assert_eq!(recorder.sent_away(), [SentAwayReason::TooManyCalls]);
        assert_eq!(recorder.numbers(), [3]);
        eventually("only that one has gone", || server.connections() == 2);
        drop(release);
        assert_eq!(call.join().unwrap().unwrap(), "innocent");
        drop(small);
    });
}

#[test]
fn health_has_as_many_watches_as_are_set() {
    let server = builder(echo()).max_health_watches(2).start().unwrap();
    let mut client = raw_client(&server);
    let headers = |stream| {
        on_stream(
            frame(
                1,
                4,
                0,
                &call_headers("POST", "/grpc.health.v1.Health/Watch"),
            ),
            stream,
        )
    };
    for stream in [1_u32, 3, 5] {
        client.write_all(&headers(stream)).unwrap();
        client
            .write_all(&on_stream(frame(0, 1, 0, &[0; 5]), stream))
            .unwrap();
    }
    let mut read = Vec::new();
    let mut buffer = [0; 1024];
    let words = b"too many watch this server";
    while !read.windows(words.len()).any(|it| it == words) {
        let count = client.read(&mut buffer).expect("the answer comes");
        assert!(count > 0, "closed before");
        read.extend_from_slice(&buffer[..count]);
    }
}

#[test]
fn a_stop_waits_for_the_calls_of_connections_that_are_sent_away() {
    let recorder = Recorder::default();
    let (service, begun, release) = gated();
    let builder = builder(service).max_connection_age(unhurried(100), LONG);
    let server = builder.observer(recorder.clone()).start().unwrap();
    let clients = [client(&server), client(&server)];
    thread::scope(|scope| {
        let calls: Vec<_> = clients
            .iter()
            .map(|it| scope.spawn(|| say(it, "on it")))
            .collect();
        clients.iter().for_each(|_| begun.recv().unwrap());
        eventually("both have to go", || recorder.sent_away().len() == 2);
        let lifecycle = server.lifecycle().clone();
        let stop = scope.spawn(|| server.shutdown());
        eventually("it drains", || {
            lifecycle.phase() == touchdown::lifecycle::Phase::Draining
        });
        drop(release);
        for call in calls {
            assert_eq!(call.join().unwrap(), Ok("on it".to_owned()));
        }
        let report = stop.join().unwrap();
        assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
        assert_eq!(report.calls.completed, 2, "{report}");
    });
}
