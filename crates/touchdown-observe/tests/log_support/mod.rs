//! What the tests of the two logs share: a bound in time, children that log, a real reader of JSON.

// Each test file uses a part of this.
#![allow(dead_code)]

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{channel, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

/// No test takes this long; one that does hangs.
pub const LONG: Duration = Duration::from_secs(60);

/// Says to a child which test it is to play its part in.
const ROLE: &str = "TOUCHDOWN_LOG_ROLE";

/// Ends the whole test process if a test hangs. Lasts until dropped.
pub struct Bound(#[allow(dead_code)] Sender<()>);

pub fn bound() -> Bound {
    let test = thread::current().name().unwrap_or("test").to_owned();
    let (sender, receiver) = channel();
    thread::spawn(move || {
        if receiver.recv_timeout(LONG) == Err(RecvTimeoutError::Timeout) {
            eprintln!("{test} hangs");
            std::process::exit(99);
        }
    });
    Bound(sender)
}

pub fn is_child() -> bool {
    env::var_os(ROLE).is_some()
}

/// This test, in a process of its own, with nothing in its environment that a log heeds.
pub fn child(test: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ROLE, test)
        .env_remove("RUST_LOG")
        .env_remove("TOUCHDOWN_LOG_FORMAT")
        .env_remove("JOURNAL_STREAM")
        .env_remove("OTEL_SERVICE_NAME")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// What a child says to the test on its standard output, and not to the log.
pub fn tell(what: impl std::fmt::Display) {
    println!("told: {what}");
}

/// What a child has told, and what it has written to its standard error. It must have ended well.
pub fn end(child: Child) -> (Vec<String>, String) {
    let output = child.wait_with_output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "{}\n{stdout}\n{stderr}",
        output.status
    );
    let told = stdout.lines().filter_map(|it| it.split_once("told: "));
    (told.map(|it| it.1.to_owned()).collect(), stderr)
}

/// A value of JSON.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Text(String),
    Number(String),
    Bool(bool),
    Null,
}

/// Python, which reads lines of JSON.
pub struct Python {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

/// Reads a line, and writes its pairs: keys and values in hexadecimal digits, and of which kind each value is.
const READER: &str = r#"
import json, sys

def shown(value):
    if value is None:
        return "z"
    if isinstance(value, bool):
        return "b" + str(int(value))
    if isinstance(value, (int, float)):
        return "n" + repr(value)
    assert isinstance(value, str), value
    return "s" + value.encode("utf-8", "surrogatepass").hex()

for line in sys.stdin.buffer:
    text = line.decode("utf-8")
    assert text.endswith("\n") and len(text.splitlines()) == 1, text
    pairs = json.loads(text, object_pairs_hook=list)
    print(" ".join(k.encode("utf-8").hex() + ":" + shown(v) for k, v in pairs), flush=True)
"#;

impl Python {
    pub fn new() -> Python {
        let mut process = Command::new("python3")
            .args(["-c", READER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is installed");
        let (to, from) = (
            process.stdin.take().unwrap(),
            process.stdout.take().unwrap(),
        );
        Python {
            process,
            to,
            from: BufReader::new(from),
        }
    }

    /// The pairs of an object, in their order. Panics if it is none, or not on one line.
    pub fn read(&mut self, line: &str) -> Vec<(String, Json)> {
        self.to.write_all(line.as_bytes()).unwrap();
        let mut shown = String::new();
        self.from.read_line(&mut shown).unwrap();
        assert!(shown.ends_with('\n'), "Python has refused {line:?}");
        let pairs = shown.trim_end().split(' ').map(|pair| {
            let (key, value) = pair.split_once(':').unwrap();
            let value = match value.split_at(1) {
                ("s", hex) => Json::Text(text(hex)),
                ("n", number) => Json::Number(number.to_owned()),
                ("b", bit) => Json::Bool(bit == "1"),
                _ => Json::Null,
            };
            (text(key), value)
        });
        pairs.collect()
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn text(hex: &str) -> String {
    let digits = hex.as_bytes().chunks(2);
    let bytes = digits.map(|it| u8::from_str_radix(std::str::from_utf8(it).unwrap(), 16).unwrap());
    String::from_utf8(bytes.collect()).unwrap()
}

/// Reads all that comes, until the end.
pub fn read_all(mut from: impl Read) -> String {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}
