//! The call log counts exactly what clients have sent, refused and cut calls included.
//!
//! Needs h2load (nghttp2-client), and Python with grpcio: tests/foreign/setup.sh installs it, or TOUCHDOWN_PYTHON
//! names one.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, BufRead, BufReader, Lines, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use touchdown::lifecycle::{Plan, Report};
use touchdown::protobuf::well_known_types::wrappers::StringValue;
use touchdown::{Call, Code, DrainPolicy, MethodName, Server, ServerBuilder, Service, Status};
use touchdown_call_log::log_calls;

const LONG: Duration = Duration::from_secs(60);

/// What was written, for a test to read once the server has stopped.
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

impl Written {
    /// How many lines begin with each of these: ended or refused, the method, the code and why.
    fn counts(&self) -> BTreeMap<String, usize> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let mut counts = BTreeMap::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').take(4).collect();
            *counts.entry(words.join(" ")).or_default() += 1;
        }
        counts
    }
}

fn expected<const N: usize>(counts: [(&str, usize); N]) -> BTreeMap<String, usize> {
    let counts = counts.map(|(what, count)| (what.to_owned(), count));
    counts.into_iter().filter(|it| it.1 > 0).collect()
}

/// `Say` returns its request, `Fail` does not, and `Wait` waits until it is let.
fn service(begun: Sender<Call>, released: Receiver<()>) -> Service {
    let (begun, released) = (Mutex::new(begun), Mutex::new(released));
    Service::builder("test.Echo")
        .unary("Say", |_: &Call, request: StringValue| {
            Ok::<_, Status>(request)
        })
        .unary("Fail", |_: &Call, _: StringValue| {
            Err::<StringValue, _>(Status::new(Code::NotFound, "nothing"))
        })
        .unary("Wait", move |call: &Call, request: StringValue| {
            begun.lock().unwrap().send(call.clone()).unwrap();
            // Whoever has the lock waits for all: each call takes one.
            let _ = released.lock().unwrap().recv_timeout(LONG);
            Ok::<_, Status>(request)
        })
        .build()
        .policy(MethodName::new("test.Echo", "Wait"), DrainPolicy::CutEarly)
}

struct Stage {
    server: Server,
    written: Written,
    begun: Receiver<Call>,
    release: Sender<()>,
}

impl Stage {
    fn new(set: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Stage {
        let written = Written::default();
        let (began, begun) = channel();
        let (release, released) = channel();
        let builder = Server::builder()
            .address("127.0.0.1:0")
            .plan(
                Plan::default()
                    .with_grace_period(LONG)
                    .with_force_period(LONG),
            )
            .cut_early_after(0.0)
            .service(service(began, released));
        let server = log_calls(set(builder), written.clone()).start().unwrap();
        Stage {
            server,
            written,
            begun,
            release,
        }
    }

    fn address(&self) -> String {
        self.server.address().to_string()
    }

    fn wait_until(&self, what: &str, is_so: impl Fn(&Server) -> bool) {
        let deadline = Instant::now() + LONG;
        while !is_so(&self.server) {
            assert!(Instant::now() < deadline, "still not: {what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn end(self) -> (Report, BTreeMap<String, usize>) {
        drop(self.release);
        let report = self.server.shutdown();
        (report, self.written.counts())
    }
}

/// Calls `path` so often, and says how many of them h2load saw end, well or not.
fn h2load(stage: &Stage, path: &str, calls: usize) -> usize {
    // Tests run side by side, and the file must not be written while another reads it.
    let name = format!(
        "touchdown-request-{}-{}",
        std::process::id(),
        stage.server.address()
    );
    let request = env::temp_dir().join(name);
    std::fs::write(&request, b"\0\0\0\0\x07\n\x05hello").unwrap();
    let output = Command::new("h2load")
        .args(["-n", &calls.to_string(), "-c", "4", "-m", "32"])
        .args(["-H", "content-type: application/grpc", "-H", "te: trailers"])
        .arg("-d")
        .arg(&request)
        .arg(format!("http://{}{path}", stage.address()))
        .output()
        .expect("h2load is installed");
    std::fs::remove_file(&request).unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let requests = said.lines().find_map(|it| it.strip_prefix("requests: "));
    let done = requests.and_then(|it| it.split(", ").find_map(|it| it.strip_suffix(" done")));
    done.and_then(|it| it.parse().ok())
        .unwrap_or_else(|| panic!("{said}"))
}

/// clients.py.
struct Python {
    process: Child,
    say: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Python {
    fn start(address: &str) -> Python {
        let mut process = Command::new(python())
            .args(["-B", "tests/clients.py", address])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python is installed");
        Python {
            say: process.stdin.take().unwrap(),
            answers: BufReader::new(process.stdout.take().unwrap()).lines(),
            process,
        }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.say, "{line}").unwrap();
    }

    /// How many of the calls have ended with which code, as JSON.
    fn collect(&mut self) -> String {
        self.tell("collect");
        self.answers.next().expect("an answer").unwrap()
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn python() -> PathBuf {
    let program = env::current_exe().expect("a path");
    let target = program.ancestors().nth(3).expect("target/debug/deps");
    env::var_os("TOUCHDOWN_PYTHON")
        .map_or_else(|| target.join("foreign/venv/bin/python"), PathBuf::from)
}

#[test]
#[ignore = "needs h2load: nghttp2-client"]
fn all_that_h2load_has_sent_is_in_the_log() {
    let stage = Stage::new(|it| it);
    let said = h2load(&stage, "/test.Echo/Say", 5000);
    let failed = h2load(&stage, "/test.Echo/Fail", 300);
    let unknown = h2load(&stage, "/test.Echo/Whisper", 200);
    assert_eq!((said, failed, unknown), (5000, 300, 200));
    let (report, counts) = stage.end();
    let all = expected([
        ("ENDED /test.Echo/Say OK Completed", said),
        ("ENDED /test.Echo/Fail NOT_FOUND Completed", failed),
        (
            "REFUSED /test.Echo/Whisper UNIMPLEMENTED UnknownMethod",
            unknown,
        ),
    ]);
    assert_eq!(counts, all);
    assert_eq!(report.calls.completed, 5300);
}

#[test]
#[ignore = "needs h2load: nghttp2-client"]
fn what_is_too_much_for_the_server_is_in_the_log() {
    let stage = Stage::new(|it| it.workers(1).backlog(2));
    let answered = h2load(&stage, "/test.Echo/Say", 5000);
    let (report, counts) = stage.end();
    let (completed, refused) = (report.calls.completed, report.calls.refused);
    assert_eq!(completed + refused, answered as u64);
    let ended = counts["ENDED /test.Echo/Say OK Completed"];
    assert_eq!(ended as u64, completed);
    // Some find the backlog full, and some that too many of those who found it so have not taken that answer.
    let others = counts.iter().filter(|it| it.0.starts_with("REFUSED"));
    let others: BTreeMap<_, _> = others.collect();
    assert!(
        others.keys().all(|it| it.contains(" RESOURCE_EXHAUSTED ")),
        "{others:?}"
    );
    assert_eq!(others.values().copied().sum::<usize>() as u64, refused);
    assert_eq!(counts.len(), 1 + others.len());
    assert!(refused > 0, "128 calls at once");
}

#[test]
#[ignore = "needs Python with grpcio: tests/foreign/setup.sh"]
fn what_python_says_of_its_calls_is_in_the_log() {
    let stage = Stage::new(|it| it.workers(4).backlog(3));
    let mut python = Python::start(&stage.address());

    python.tell("send /test.Echo/Fail 3 60");
    assert_eq!(python.collect(), r#"{"NOT_FOUND": 3}"#);
    python.tell("send /test.Echo/No 5 60");
    assert_eq!(python.collect(), r#"{"UNIMPLEMENTED": 5}"#);

    // Four run, three wait, and the others are refused. Then the callers leave.
    python.tell("send /test.Echo/Wait 17 60");
    stage.wait_until("ten are refused", |it| it.calls().refused == 5 + 10);
    let mut running: Vec<Call> = (0..4)
        .map(|_| stage.begun.recv_timeout(LONG).unwrap())
        .collect();
    python.tell("await 10");
    python.tell("cancel");
    let codes = python.collect();
    assert!(codes.contains(r#""CANCELLED": 7"#), "{codes}");
    assert!(codes.contains(r#""RESOURCE_EXHAUSTED": 10"#), "{codes}");
    for call in running.drain(..) {
        stage.wait_until("its caller has left", |_| call.is_cancelled());
    }
    (0..4).for_each(|_| stage.release.send(()).unwrap());
    // Those that waited have callers no more, and run all the same.
    for _ in 0..3 {
        let call = stage.begun.recv_timeout(LONG).unwrap();
        stage.wait_until("its caller has left", |_| call.is_cancelled());
        stage.release.send(()).unwrap();
    }
    stage.wait_until("all have landed", |it| it.in_flight() == 0);

    // And four are cut.
    python.tell("send /test.Echo/Wait 4 60");
    (0..4).for_each(|_| drop(stage.begun.recv_timeout(LONG).unwrap()));
    stage.server.lifecycle().shutdown("test");
    assert_eq!(python.collect(), r#"{"UNAVAILABLE": 4}"#);
    (0..4).for_each(|_| stage.release.send(()).unwrap());
    let (report, counts) = stage.end();
    let all = expected([
        ("ENDED /test.Echo/Fail NOT_FOUND Completed", 3),
        ("REFUSED /test.Echo/No UNIMPLEMENTED UnknownMethod", 5),
        ("REFUSED /test.Echo/Wait RESOURCE_EXHAUSTED BacklogFull", 10),
        ("ENDED /test.Echo/Wait OK CallerLeft", 7),
        ("ENDED /test.Echo/Wait UNAVAILABLE Cut", 4),
    ]);
    assert_eq!(counts, all);
    assert_eq!((report.calls.caller_left, report.calls.cut), (7, 4));
}
