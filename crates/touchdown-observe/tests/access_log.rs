//! The access log: which calls it has, what a line says, and that nobody waits for who reads it.
#![cfg(feature = "access-log")]

mod log_support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use log_support::{bound, Json, Python, LONG};
use touchdown::client::{CallOptions, Client, Metadata};
use touchdown::lifecycle::{exit_code, Lifecycle, Report};
use touchdown::protobuf::well_known_types::wrappers::StringValue;
use touchdown::testing::{self, TestServer};
use touchdown::{
    Call, Code, DrainPolicy, MethodName, Replies, Server, ServerBuilder, Service, Status,
};
use touchdown_observe::access_log::{AccessLog, Counts};
use touchdown_observe::ObserveServer;

const SAY: &str = "/test.Echo/Say";

/// What was written.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line of the access log, read by Python.
type Line = BTreeMap<String, Json>;

fn text(line: &Line, key: &str) -> String {
    match line.get(key) {
        Some(Json::Text(text)) => text.clone(),
        other => panic!("{key} is {other:?} in {line:?}"),
    }
}

fn number(line: &Line, key: &str) -> u64 {
    match line.get(key) {
        Some(Json::Number(number)) => number.parse().unwrap(),
        other => panic!("{key} is {other:?} in {line:?}"),
    }
}

fn read(text: &str) -> Vec<Line> {
    let mut python = Python::new();
    let lines = text.split_inclusive('\n');
    lines
        .map(|it| python.read(it).into_iter().collect())
        .collect()
}

impl Written {
    fn lines(&self) -> Vec<Line> {
        read(std::str::from_utf8(&self.0.lock().unwrap()).unwrap())
    }

    /// How many lines each method and code has.
    fn calls(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for line in self.lines() {
            let call = format!(
                "{} {}",
                text(&line, "rpc.method"),
                text(&line, "rpc.status_code")
            );
            *counts.entry(call).or_default() += 1;
        }
        counts
    }
}

fn calls<const N: usize>(counts: [(&str, usize); N]) -> BTreeMap<String, usize> {
    counts.map(|(call, count)| (call.to_owned(), count)).into()
}

/// `Say` returns its request, `Fail` and `Break` do not, `Wait` says that it has begun and waits until it is let, `Count`
/// streams three replies.
fn echo(begun: Sender<()>, released: Receiver<()>) -> Service {
    let (begun, released) = (Mutex::new(begun), Mutex::new(released));
    Service::builder("test.Echo")
        .unary("Say", |_: &Call, request: StringValue| {
            Ok::<_, Status>(request)
        })
        .unary("Fail", |_: &Call, _: StringValue| {
            Err::<StringValue, _>(Status::not_found("no \"sensor\"\n\u{1b}[31m"))
        })
        .unary("Break", |_: &Call, _: StringValue| {
            Err::<StringValue, _>(Status::internal("broken"))
        })
        .unary("Wait", move |_: &Call, request: StringValue| {
            begun.lock().unwrap().send(()).unwrap();
            let _ = released.lock().unwrap().recv_timeout(LONG);
            Ok::<_, Status>(request)
        })
        .server_streaming(
            "Count",
            |_: &Call, request: StringValue, replies: Replies<StringValue>| {
                (0..3).try_for_each(|_| replies.send(&request))
            },
        )
        .build()
        .policy(MethodName::new("test.Echo", "Wait"), DrainPolicy::CutEarly)
}

struct Stage {
    server: TestServer,
    client: Client,
    counts: Counts,
    begun: Receiver<()>,
    release: Sender<()>,
}

/// No call is slow, unless a test says so: a machine that is busy is no reason to fail.
fn access_log() -> AccessLog {
    AccessLog::new().slow(Duration::MAX)
}

impl Stage {
    fn new(access_log: AccessLog) -> Stage {
        Stage::with(access_log, |builder| builder)
    }

    fn with(access_log: AccessLog, set: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Stage {
        let (began, begun) = channel();
        let (release, released) = channel();
        let counts = access_log.counts();
        let builder = Server::builder().service(echo(began, released));
        let server = TestServer::start(set(builder).access_log(access_log)).unwrap();
        Stage {
            client: server.client(),
            server,
            counts,
            begun,
            release,
        }
    }

    fn call(&self, path: &'static str) -> Result<StringValue, Status> {
        call(&self.client, path)
    }

    fn say(&self, times: usize) {
        for _ in 0..times {
            self.call(SAY).unwrap();
        }
    }

    fn stop(self) -> (Report, Counts) {
        drop(self.release);
        (self.server.stop(), self.counts)
    }
}

fn options() -> CallOptions {
    CallOptions::new().timeout(LONG)
}

fn call(client: &Client, path: &'static str) -> Result<StringValue, Status> {
    let mut request = StringValue::new();
    request.value = "hello".to_owned();
    client.unary(path, &request, options())
}

fn eventually(what: &str, happened: impl Fn() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < LONG, "never happened: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn with_one_in_one_each_call_has_a_line() {
    let _bound = bound();
    let written = Written::default();
    let stage = Stage::new(access_log().one_in(1).to(written.clone()));
    stage.say(200);
    for _ in 0..20 {
        assert_eq!(
            stage.call("/test.Echo/Fail").unwrap_err().code(),
            Code::NotFound
        );
    }
    let mut request = StringValue::new();
    request.value = "hello".to_owned();
    let replies =
        stage
            .client
            .server_streaming::<_, StringValue>("/test.Echo/Count", &request, options());
    assert_eq!(replies.unwrap().count(), 3);
    let (report, counts) = stage.stop();
    assert_eq!(report.exit_code(), exit_code::CLEAN);
    let expected = [
        ("test.Echo/Say OK", 200),
        ("test.Echo/Fail NOT_FOUND", 20),
        ("test.Echo/Count OK", 1),
    ];
    assert_eq!(written.calls(), calls(expected));
    assert_eq!((counts.written(), counts.dropped()), (221, 0));
}

#[test]
fn one_in_ten_of_a_thousand_is_a_hundred() {
    let _bound = bound();
    let written = Written::default();
    // One worker ends all calls.
    let access_log = access_log().to(written.clone()).one_in(10);
    let stage = Stage::with(
        access_log.one_in_of(MethodName::new("test.Echo", "Count"), 0),
        |it| it.workers(1),
    );
    stage.say(1000);
    let (_, counts) = stage.stop();
    assert_eq!(written.calls(), calls([("test.Echo/Say OK", 100)]));
    assert_eq!((counts.written(), counts.dropped()), (100, 0));
    assert!(written
        .lines()
        .iter()
        .all(|it| number(it, "touchdown.one_in") == 10));
}

#[test]
fn with_several_workers_each_keeps_back_less_than_one_line() {
    const WORKERS: usize = 4;
    let _bound = bound();
    let written = Written::default();
    let stage = Stage::with(access_log().to(written.clone()).one_in(10), |it| {
        it.workers(WORKERS)
    });
    let client = &stage.client;
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..250).for_each(|_| drop(call(client, SAY).unwrap())));
        }
    });
    stage.stop();
    let logged = written.calls()["test.Echo/Say OK"];
    // There may be more threads than workers for a moment; they hand on what they have counted as they end.
    assert!((200 - 2 * WORKERS..=200).contains(&logged), "{logged}");
}

#[test]
fn what_failed_or_was_slow_is_logged_whatever_the_rate() {
    let _bound = bound();
    let written = Written::default();
    let access_log = AccessLog::new()
        .one_in(0)
        .slow(Duration::from_millis(30))
        .to(written.clone());
    let stage = Stage::new(access_log);
    for _ in 0..5 {
        let _ = stage.call("/test.Echo/Fail");
        let _ = stage.call("/test.Echo/Break");
        let _ = stage.call("/test.Nothing/Say");
    }
    thread::scope(|scope| {
        let client = stage.client.clone();
        let slow = scope.spawn(move || call(&client, "/test.Echo/Wait"));
        stage.begun.recv().unwrap();
        thread::sleep(Duration::from_millis(31));
        stage.release.send(()).unwrap();
        slow.join().unwrap().unwrap();
    });
    stage.stop();
    let expected = [
        ("test.Echo/Fail NOT_FOUND", 5),
        ("test.Echo/Break INTERNAL", 5),
        ("test.Nothing/Say UNIMPLEMENTED", 5),
        ("test.Echo/Wait OK", 1),
    ];
    assert_eq!(written.calls(), calls(expected));
    for line in written.lines() {
        let is_ok = text(&line, "rpc.status_code") == "OK";
        assert_eq!(
            text(&line, "event.outcome"),
            if is_ok { "success" } else { "failure" }
        );
        assert_eq!(
            text(&line, "log.level"),
            if is_ok { "info" } else { "warn" }
        );
        assert!(
            !is_ok || number(&line, "event.duration") >= 30_000_000,
            "{line:?}"
        );
        assert!(!line.contains_key("touchdown.one_in"), "{line:?}");
    }
}

#[test]
fn a_code_that_is_nobodys_business_is_a_call_like_others() {
    let _bound = bound();
    let written = Written::default();
    let access_log = access_log()
        .one_in(0)
        .errors(AccessLog::SERVER_FAULTS)
        .to(written.clone());
    let stage = Stage::new(access_log);
    let _ = stage.call("/test.Echo/Fail");
    let _ = stage.call("/test.Echo/Break");
    stage.say(1);
    stage.stop();
    assert_eq!(written.calls(), calls([("test.Echo/Break INTERNAL", 1)]));
}

#[test]
fn refused_and_cut_calls_have_lines_that_say_why() {
    let _bound = bound();
    let written = Written::default();
    let access_log = access_log().one_in(0).to(written.clone());
    let stage = Stage::with(access_log, |builder| {
        builder
            .workers(1)
            .backlog(1)
            .cut_early_after(Duration::ZERO)
    });
    let (first, waiting, refused) = thread::scope(|scope| {
        let (one, two) = (stage.client.clone(), stage.client.clone());
        let first = scope.spawn(move || call(&one, "/test.Echo/Wait"));
        stage.begun.recv().unwrap();
        let waiting = scope.spawn(move || call(&two, SAY));
        eventually("a call waits", || stage.server.load().waiting == 1);
        let refused = stage.call(SAY);
        stage.server.lifecycle().shutdown("the test is over");
        // It is cut though its handler goes on, and holds the only worker.
        let first = first.join().unwrap();
        stage.release.send(()).unwrap();
        (first, waiting.join().unwrap(), refused)
    });
    assert_eq!(refused.unwrap_err().code(), Code::ResourceExhausted);
    assert_eq!(first.unwrap_err().code(), Code::Unavailable);
    waiting.unwrap();
    stage.server.wait();
    let lines = written.lines();
    let of = |outcome: &str| {
        lines
            .iter()
            .find(|it| text(it, "touchdown.outcome") == outcome)
    };
    let refused = of("refused").unwrap();
    assert_eq!(text(refused, "touchdown.reason"), "backlog_full");
    assert_eq!(
        text(refused, "error.message"),
        "all workers are busy and the backlog is full"
    );
    assert_eq!(text(refused, "event.outcome"), "failure");
    let cut = of("cut").unwrap();
    assert_eq!(text(cut, "rpc.method"), "test.Echo/Wait");
    assert_eq!(text(cut, "rpc.status_code"), "UNAVAILABLE");
    assert_eq!(lines.len(), 2, "{lines:?}");
}

#[test]
fn health_checks_are_logged_only_if_they_are_asked_for() {
    let _bound = bound();
    const CHECK: &str = "/grpc.health.v1.Health/Check";
    for is_asked in [false, true] {
        let written = Written::default();
        let access_log = access_log()
            .one_in(1)
            .health_checks(is_asked)
            .to(written.clone());
        let stage = Stage::new(access_log);
        let request = StringValue::new();
        for _ in 0..5 {
            stage
                .client
                .unary::<_, StringValue>(CHECK, &request, options())
                .ok();
        }
        // An error of theirs is one of theirs.
        let mut unknown = StringValue::new();
        unknown.value = "no.such.Service".to_owned();
        let error = stage
            .client
            .unary::<_, StringValue>(CHECK, &unknown, options())
            .unwrap_err();
        assert_eq!(error.code(), Code::NotFound);
        stage.say(1);
        stage.stop();
        let lines = written.lines();
        assert_eq!(lines.len(), if is_asked { 7 } else { 1 }, "{lines:?}");
        let health = lines
            .iter()
            .filter(|it| text(it, "touchdown.kind") == "health");
        assert_eq!(health.count(), lines.len() - 1);
    }
}

#[test]
fn a_line_has_what_is_known_of_the_call() {
    let _bound = bound();
    let written = Written::default();
    let access_log = access_log()
        .one_in(1)
        .error_messages(true)
        .service_name("echo")
        .to(written.clone());
    let stage = Stage::new(access_log);
    let mut request = StringValue::new();
    request.value = "hello".to_owned();
    let traced = |header: &str| {
        let metadata = Metadata::new().with("traceparent", header).unwrap();
        let _: StringValue = stage
            .client
            .unary(SAY, &request, options().metadata(metadata))
            .unwrap();
    };
    traced("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    traced("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01");
    let _ = stage.call("/test.Echo/Fail");
    stage.stop();
    let [ok, untraced, failed] = <[Line; 3]>::try_from(written.lines()).unwrap();
    for (key, value) in [
        ("log.level", "info"),
        ("service.name", "echo"),
        ("log.logger", "touchdown::access"),
        ("event.dataset", "touchdown.access"),
        ("event.outcome", "success"),
        ("rpc.method", "test.Echo/Say"),
        ("rpc.status_code", "OK"),
        ("client.address", "127.0.0.1"),
        ("touchdown.kind", "unary"),
        ("touchdown.outcome", "completed"),
        ("trace.id", "0af7651916cd43dd8448eb211c80319c"),
        ("span.id", "b7ad6b7169203331"),
    ] {
        assert_eq!(text(&ok, key), value, "{key}");
    }
    assert_eq!(text(&ok, "@timestamp"), text(&ok, "event.end"));
    assert!(
        text(&ok, "message").starts_with("/test.Echo/Say OK in "),
        "{ok:?}"
    );
    assert!(number(&ok, "client.port") > 0);
    // "hello" as a StringValue is 7 bytes.
    for (key, value) in [
        ("client.bytes", 7),
        ("server.bytes", 7),
        ("touchdown.requests", 1),
        ("touchdown.replies", 1),
        ("touchdown.one_in", 1),
    ] {
        assert_eq!(number(&ok, key), value, "{key}");
    }
    let (wait, duration) = (
        number(&ok, "touchdown.queue_wait"),
        number(&ok, "event.duration"),
    );
    assert!(wait < duration && duration < 60_000_000_000, "{ok:?}");
    assert!(!ok.contains_key("error.message"), "{ok:?}");
    assert!(!untraced.contains_key("trace.id"), "{untraced:?}");
    assert_eq!(text(&failed, "error.message"), r#"no "sensor"\n\u{1b}[31m"#);
    assert_eq!(text(&failed, "log.level"), "warn");
}

#[test]
fn a_unix_socket_is_an_address_without_a_port() {
    let _bound = bound();
    let written = Written::default();
    let stage = Stage::with(access_log().one_in(1).to(written.clone()), |it| {
        it.address(testing::unix_address())
    });
    stage.say(1);
    stage.stop();
    let line = written.lines().remove(0);
    assert_eq!(text(&line, "client.address"), "unix");
    assert!(!line.contains_key("client.port"));
}

/// Calls a method of this name, as no client library does, and waits until the server has ended the call.
fn call_by_hand(address: &str, path: &[u8]) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let header = [
            length[1], length[2], length[3], kind, flags, 0, 0, 0, stream,
        ];
        [&header[..], payload].concat()
    };
    // Literals that are not indexed (RFC 7541, 6.2.2), with names of the static table or new ones.
    let mut block = vec![0x83, 0x86, 0x04, 0x7f];
    // A length of 127 and more goes on in groups of seven bits.
    let mut rest = path.len() - 127;
    while rest >= 128 {
        block.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    block.push(rest as u8);
    block.extend_from_slice(path);
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
        block.push(0);
        for text in [name, value] {
            block.push(text.len() as u8);
            block.extend_from_slice(text.as_bytes());
        }
    }
    socket
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .unwrap();
    socket.write_all(&frame(4, 0, 0, &[])).unwrap();
    socket.write_all(&frame(4, 1, 0, &[])).unwrap();
    socket.write_all(&frame(1, 4, 1, &block)).unwrap();
    socket
        .write_all(&frame(0, 1, 1, b"\0\0\0\0\x07\n\x05hello"))
        .unwrap();
    loop {
        let mut header = [0; 9];
        if socket.read_exact(&mut header).is_err() {
            return;
        }
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; length as usize];
        socket.read_exact(&mut payload).unwrap();
        let (kind, flags, stream) = (header[3], header[4], header[8]);
        if kind == 3 || kind == 7 || (stream == 1 && flags & 1 != 0) {
            return;
        }
    }
}

#[test]
fn a_method_that_strangers_have_named_makes_one_line_of_a_bounded_length() {
    let _bound = bound();
    let written = Written::default();
    let stage = Stage::new(access_log().one_in(1).to(written.clone()));
    let address = stage.server.address().to_string();
    let forged = "\",\"event.outcome\":\"success\"}\n{\"message\":\"forged";
    let names = [
        format!("/{}", "x".repeat(3000)),
        format!("/test.Echo/{forged}{}", "y".repeat(200)),
        format!("/test.Echo/\u{1b}[2J\u{1b}]0;title\u{7}{}", "z".repeat(200)),
        format!("/test.Echo/quote\"back\\slash=and space{}", "w".repeat(200)),
        format!("/test.Echo/\u{202e}\u{2028}ü{}", "v".repeat(200)),
        format!("/{}", "a/".repeat(200)),
    ];
    for name in &names {
        call_by_hand(&address, name.as_bytes());
    }
    // Not even text.
    call_by_hand(
        &address,
        &[&b"/test.Echo/\xff\xfe"[..], &[b'u'; 200]].concat(),
    );
    stage.say(1);
    stage.stop();
    let lines = written.lines();
    assert_eq!(lines.len(), names.len() + 2, "{lines:?}");
    for line in &lines {
        let method = text(line, "rpc.method");
        assert!(
            method.len() <= 256 && !method.contains(char::is_control),
            "{method:?}"
        );
        let is_ours = method == "test.Echo/Say";
        assert_eq!(
            text(line, "event.outcome"),
            if is_ours { "success" } else { "failure" }
        );
        assert!(
            !text(line, "message").contains(char::is_control),
            "{line:?}"
        );
    }
    let long = lines
        .iter()
        .filter(|it| text(it, "rpc.method").ends_with('…'));
    assert_eq!(long.count(), 3, "{lines:?}");
    assert!(
        text(&lines[4], "rpc.method").starts_with(r"test.Echo/\u{202e}\u{2028}ü"),
        "{:?}",
        lines[4]
    );
}

/// Takes nothing until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>, Written);

impl Gate {
    fn open(&self) {
        *self.0 .0.lock().unwrap() = true;
        self.0 .1.notify_all();
    }
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let closed = self.0 .0.lock().unwrap();
        drop(self.0 .1.wait_while(closed, |is_open| !*is_open).unwrap());
        self.1.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_stops_holds_up_no_call_and_what_is_dropped_is_said() {
    let _bound = bound();
    let gate = Gate::default();
    let stage = Stage::new(access_log().one_in(1).queue(10).to(gate.clone()));
    stage.say(500);
    // The last may be told a moment after its answer. One is in the writer's hands, ten wait.
    let counts = stage.counts.clone();
    eventually("what has no room is dropped", || counts.dropped() >= 489);
    gate.open();
    eventually("what waited is written", || {
        counts.written() + counts.dropped() == 500
    });
    let dropped = counts.dropped();
    assert!((489..=490).contains(&dropped), "{dropped}");
    // There is room again.
    stage.say(5);
    let (report, counts) = stage.stop();
    assert_eq!(report.exit_code(), exit_code::CLEAN);
    assert_eq!(
        (counts.written(), counts.dropped()),
        (505 - dropped, dropped)
    );
    let lines = gate.1.lines();
    let said: Vec<u64> = lines
        .iter()
        .filter(|it| it.contains_key("log.dropped"))
        .map(|it| number(it, "log.dropped"))
        .collect();
    assert_eq!(said.iter().sum::<u64>(), dropped, "{said:?}");
    assert_eq!(lines.len(), 505 - dropped as usize + said.len());
}

#[test]
fn a_pipe_that_nobody_reads_holds_up_neither_calls_nor_the_stop() {
    const CALLS: usize = 3000;
    let _bound = bound();
    // It has room for some hundreds of lines.
    let (_reader, pipe) = UnixStream::pair().unwrap();
    let stage = Stage::new(access_log().one_in(1).queue(50).to(pipe));
    stage.say(CALLS);
    let began = Instant::now();
    let (report, counts) = stage.stop();
    let took = began.elapsed();
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    // The plan of a test leaves 5 s to close. The hook gives up long before.
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(counts.dropped() > 0 && counts.written() > 0, "{counts:?}");
    assert_eq!(counts.written() + counts.dropped(), CALLS as u64);
}

#[test]
fn a_plan_that_leaves_little_time_is_kept() {
    let _bound = bound();
    let gate = Gate::default();
    let plan = testing::plan().with_closing(Duration::from_secs(2));
    let stage = Stage::with(access_log().one_in(1).to(gate.clone()), |builder| {
        builder.lifecycle(Lifecycle::builder().plan(plan))
    });
    stage.say(3);
    let (report, counts) = stage.stop();
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    assert_eq!((counts.written(), counts.dropped()), (0, 3));
    // What is written afterwards is not counted twice.
    gate.open();
    eventually("the line in its hands is written", || {
        gate.1 .0.lock().unwrap().ends_with(b"\n")
    });
    assert_eq!((counts.written(), counts.dropped()), (0, 3));
}

#[test]
fn what_waits_is_written_before_the_program_ends() {
    let _bound = bound();
    /// Takes its time.
    struct Slow(Written);
    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            thread::sleep(Duration::from_millis(2));
            self.0.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let written = Written::default();
    let stage = Stage::new(access_log().one_in(1).to(Slow(written.clone())));
    stage.say(300);
    let (_, counts) = stage.stop();
    assert_eq!((counts.written(), counts.dropped()), (300, 0));
    assert_eq!(written.lines().len(), 300);
}

#[test]
fn a_full_disk_is_counted_and_costs_no_call() {
    let _bound = bound();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let stage = Stage::new(access_log().one_in(1).to(full));
    stage.say(100);
    let (report, counts) = stage.stop();
    assert_eq!(report.exit_code(), exit_code::CLEAN);
    assert_eq!((counts.written(), counts.dropped()), (0, 100));
}

#[test]
fn a_writer_that_panics_costs_the_line() {
    let _bound = bound();
    struct Panics(Written, usize);
    impl Write for Panics {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 += 1;
            if self.1 == 2 {
                std::panic::resume_unwind(Box::new("no more"));
            }
            self.0.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let written = Written::default();
    let stage = Stage::new(access_log().one_in(1).to(Panics(written.clone(), 0)));
    stage.say(10);
    let (_, counts) = stage.stop();
    assert_eq!((counts.written(), counts.dropped()), (9, 1));
    let dropped: Vec<u64> = written
        .lines()
        .iter()
        .filter(|it| it.contains_key("log.dropped"))
        .map(|it| number(it, "log.dropped"))
        .collect();
    assert_eq!(dropped, [1]);
}

#[test]
fn two_servers_of_a_program_have_one_each() {
    let _bound = bound();
    let lifecycle = Lifecycle::builder().plan(testing::plan()).build().unwrap();
    let start = |written: &Written| {
        let (began, _begun) = channel();
        let (_release, released) = channel();
        let builder = Server::builder()
            .address("127.0.0.1:0")
            .workers(1)
            .service(echo(began, released));
        let access_log = access_log().one_in(2).to(written.clone());
        builder
            .access_log(access_log)
            .start_with(&lifecycle)
            .unwrap()
    };
    let (one, two) = (Written::default(), Written::default());
    let servers = [start(&one), start(&two)];
    lifecycle.ready().unwrap();
    for (server, calls) in servers.iter().zip([10, 20]) {
        let channel = touchdown::client::Channel::connect(server.address().to_string()).unwrap();
        let client = Client::new(&channel);
        (0..calls).for_each(|_| drop(call(&client, SAY).unwrap()));
    }
    lifecycle.shutdown("the test is over");
    assert_eq!(lifecycle.wait().exit_code(), exit_code::CLEAN);
    let counts = [one, two].map(|it| it.lines().len());
    assert_eq!(counts, [5, 10]);
}

#[test]
fn a_rate_for_a_method_that_is_not_there_keeps_the_server_from_starting() {
    let _bound = bound();
    let access_log = access_log().one_in_of(MethodName::new("test.Echo", "Sya"), 1);
    let (began, _begun) = channel();
    let (_release, released) = channel();
    let builder = Server::builder()
        .service(echo(began, released))
        .access_log(access_log);
    let error = TestServer::start(builder).unwrap_err().to_string();
    assert!(error.contains("/test.Echo/Sya"), "{error}");
}

/// How often threads of this name were taken off a processor, and how many there are.
fn switches(name: &str) -> (usize, u64) {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let status = tasks.filter_map(|it| fs::read_to_string(it.ok()?.path().join("status")).ok());
    let threads: Vec<u64> = status
        .filter(|it| it.starts_with(&format!("Name:\t{name}\n")))
        .map(|it| {
            let counts = it.lines().filter_map(|it| it.split_once("ctxt_switches:"));
            counts.map(|it| it.1.trim().parse::<u64>().unwrap()).sum()
        })
        .collect();
    (threads.len(), threads.iter().sum())
}

#[test]
fn a_log_that_has_nothing_to_write_wakes_nobody() {
    let _bound = bound();
    // Others have such threads, too.
    if !log_support::is_child() {
        let child = log_support::child("a_log_that_has_nothing_to_write_wakes_nobody");
        let mut child = child;
        log_support::end(child.spawn().unwrap());
        return;
    }
    let written = Written::default();
    let stage = Stage::new(access_log().one_in(1).to(written.clone()));
    stage.say(10);
    eventually("all is written", || stage.counts.written() == 10);
    let settled = || {
        let before = switches("td-access-log");
        thread::sleep(Duration::from_millis(200));
        before == switches("td-access-log")
    };
    eventually("the thread waits", settled);
    let before = switches("td-access-log");
    assert_eq!(before.0, 1);
    thread::sleep(Duration::from_secs(3));
    assert_eq!(switches("td-access-log"), before);
    stage.stop();
    eventually("the thread has ended", || switches("td-access-log").0 == 0);
}

/// What a child does whose log goes to the standard error.
#[cfg(feature = "log")]
mod through_the_log {
    use log_support::{child, end, is_child, tell};

    use super::*;

    #[test]
    fn by_itself_it_goes_to_the_programs_log() {
        let _bound = bound();
        if is_child() {
            touchdown_observe::log::Setup::new()
                .default_filter("touchdown::access=info")
                .init();
            let stage = Stage::new(access_log().one_in(1));
            stage.say(3);
            let _ = stage.call("/test.Echo/Fail");
            stage.stop();
            return;
        }
        let test = "through_the_log::by_itself_it_goes_to_the_programs_log";
        let mut command = child(test);
        command.env("TOUCHDOWN_LOG_FORMAT", "json");
        let stderr = end(command.spawn().unwrap()).1;
        let lines = read(&stderr);
        let methods: Vec<String> = lines.iter().map(|it| text(it, "rpc.method")).collect();
        assert_eq!(
            methods,
            [
                "test.Echo/Say",
                "test.Echo/Say",
                "test.Echo/Say",
                "test.Echo/Fail"
            ]
        );
        for line in &lines {
            assert_eq!(text(line, "log.logger"), "touchdown::access");
            assert_eq!(text(line, "process.thread.name"), "td-access-log");
            assert!(number(line, "event.duration") > 0);
        }
        // Who wants no more than warnings gets the failures.
        let mut command = child(test);
        command
            .env("RUST_LOG", "touchdown::access=warn")
            .env("TOUCHDOWN_LOG_FORMAT", "journal");
        let stderr = end(command.spawn().unwrap()).1;
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(
            stderr.starts_with("<4>touchdown::access: /test.Echo/Fail NOT_FOUND in "),
            "{stderr}"
        );
    }

    #[test]
    fn a_standard_error_that_nobody_reads_holds_up_neither_calls_nor_the_stop() {
        const CALLS: usize = 3000;
        let _bound = bound();
        if is_child() {
            touchdown_observe::log::init();
            let stage = Stage::new(access_log().one_in(1).queue(50));
            stage.say(CALLS);
            let began = Instant::now();
            let (report, counts) = stage.stop();
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "{:?}",
                began.elapsed()
            );
            let sum = counts.written() + counts.dropped();
            tell(format_args!(
                "{} {sum} {}",
                report.exit_code(),
                counts.dropped() > 0
            ));
            return;
        }
        let (_reader, stderr) = UnixStream::pair().unwrap();
        let mut command = child(
            "through_the_log::a_standard_error_that_nobody_reads_holds_up_neither_calls_nor_the_stop",
        );
        command.stderr(std::os::fd::OwnedFd::from(stderr));
        assert_eq!(end(command.spawn().unwrap()).0, ["0 3000 true"]);
    }

    #[test]
    fn a_disk_that_is_full_is_said_in_the_programs_log_and_not_for_each_line() {
        let _bound = bound();
        if is_child() {
            touchdown_observe::log::init();
            let full = File::options().write(true).open("/dev/full").unwrap();
            let stage = Stage::new(access_log().one_in(1).to(full));
            stage.say(100);
            stage.stop();
            return;
        }
        let mut command =
            child("through_the_log::a_disk_that_is_full_is_said_in_the_programs_log_and_not_for_each_line");
        command
            .env("RUST_LOG", "touchdown::access")
            .env("TOUCHDOWN_LOG_FORMAT", "journal");
        let stderr = end(command.spawn().unwrap()).1;
        let line = "<4>touchdown::access: the access log cannot be written: No space left on device (os error 28) \
                    error.message=\"No space left on device (os error 28)\"\n";
        assert_eq!(stderr, line);
    }
}
