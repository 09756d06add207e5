//! `examples/meter_gateway` is replaced three times under load, and stopped: each call that may not fail lands, no stream ends
//! without a word, and every entry that was acknowledged is in the ledger. Its meter is a thread behind a pseudo-terminal.

mod common;
mod lifecycle_support;
mod tls_support;

touchdown::include_protos!();

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Mutex;
use std::thread;

use common::{channel_to, eventually, LONG};
use lifecycle_support::bound;
use meter::{Entry, MeterClient, ReadRequest, WatchRequest};
use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use tls_support::{Client, Folder, Wish};
use touchdown::admin::messages::{StatusRequest, UpgradeRequest};
use touchdown::admin::AdminClient;
use touchdown::client::CallOptions;
use touchdown::lifecycle::exit_code;

/// What callers may expect, and what has become of it.
#[derive(Default)]
struct Seen {
    ended: AtomicBool,
    reads: AtomicU64,
    watched: AtomicU64,
    /// Of those who have asked the meter.
    processes: Mutex<BTreeSet<u32>>,
    acknowledged: Mutex<BTreeSet<String>>,
    failures: Mutex<Vec<String>>,
}

impl Seen {
    fn go_on(&self) -> bool {
        !self.ended.load(Ordering::SeqCst)
    }

    fn fail(&self, what: &str, why: impl ToString) {
        let why = format!("{what}: {}", why.to_string());
        self.failures.lock().unwrap().push(why);
    }
}

fn options() -> CallOptions {
    CallOptions::default().timeout(LONG)
}

/// A meter that has used a watt hour more each time that it is asked. Returns the device at which it is.
fn meter() -> (PathBuf, File) {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let device = PathBuf::from(ptsname_r(&master).unwrap());
    // Without anybody there the other end cannot be read from.
    let held = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&device)
        .unwrap();
    let mut answers = File::from(std::os::fd::OwnedFd::from(master));
    let questions = BufReader::new(answers.try_clone().unwrap());
    thread::spawn(move || {
        let questions = questions.lines().map_while(Result::ok);
        for (used, _) in questions.filter(|it| it.trim() == "READ").enumerate() {
            if writeln!(answers, "{used}").is_err() {
                return;
            }
        }
    });
    (device, held)
}

/// Asks the meter.
fn read(stub: &MeterClient, seen: &Seen) {
    while seen.go_on() {
        match stub.read_with(&ReadRequest::new(), options()) {
            Ok(reading) => {
                seen.processes.lock().unwrap().insert(reading.process);
                seen.reads.fetch_add(1, Ordering::SeqCst);
            }
            Err(status) => seen.fail("read", status),
        }
    }
}

/// Uploads entries, a few at a time.
fn upload(stub: &MeterClient, seen: &Seen, name: &str) {
    for round in 0.. {
        if !seen.go_on() {
            return;
        }
        let ids: Vec<String> = (0..3).map(|it| format!("{name}-{round}-{it}")).collect();
        let summary = stub.upload_with(options()).and_then(|mut upload| {
            ids.iter().try_for_each(|id| upload.send(entry(id)))?;
            upload.finish()
        });
        match summary {
            Ok(summary) if summary.entries == 3 => seen.acknowledged.lock().unwrap().extend(ids),
            Ok(summary) => seen.fail("upload", format!("{summary:?}")),
            Err(status) => seen.fail("upload", status),
        }
    }
}

/// Books entries one after the other, over a stream that is begun anew when the server has ended it.
fn book(stub: &MeterClient, seen: &Seen) {
    let mut number = 0;
    while seen.go_on() {
        let (mut requests, mut receipts) = match stub.book_with(options()) {
            Ok(stream) => stream,
            Err(status) => return seen.fail("book", status),
        };
        // What cannot be sent was not acknowledged: the server has said goodbye.
        while seen.go_on() && requests.send(entry(&format!("book-{number}"))).is_ok() {
            match receipts.next() {
                Some(Ok(receipt)) => {
                    seen.acknowledged.lock().unwrap().insert(receipt.id);
                    number += 1;
                }
                None => break,
                Some(Err(status)) => return seen.fail("book", status),
            }
        }
    }
}

/// Watches the meter, and comes back when the server has said goodbye.
fn watch(stub: &MeterClient, seen: &Seen) {
    while seen.go_on() {
        let readings = match stub.watch_with(&WatchRequest::new(), options()) {
            Ok(readings) => readings,
            Err(status) => return seen.fail("watch", status),
        };
        for reading in readings {
            match reading {
                Ok(_) => drop(seen.watched.fetch_add(1, Ordering::SeqCst)),
                // The deadline of a stream that nothing has ended.
                Err(_) if !seen.go_on() => return,
                Err(status) => return seen.fail("watch", status),
            }
            if !seen.go_on() {
                return;
            }
        }
    }
}

fn entry(id: &str) -> Entry {
    Entry {
        id: id.to_owned(),
        cents: 1,
        ..Default::default()
    }
}

/// Built beside this test.
fn program() -> PathBuf {
    let test = env::current_exe().unwrap();
    let program = test
        .ancestors()
        .nth(2)
        .unwrap()
        .join("examples/meter_gateway");
    assert!(
        program.exists(),
        "{} is missing: cargo build --examples --features admin,systemd,tls",
        program.display()
    );
    program
}

struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_gateway_is_replaced_and_stopped_under_load_and_nothing_is_lost() {
    let _bound = bound();
    let folder = Folder::new();
    let path = |name: &str| folder.file(name).display().to_string();
    let (device, _held) = meter();
    let unix = format!("unix:{}", path("socket"));
    let log = File::create(folder.file("log")).unwrap();
    let mut gateway = Gateway(
        Command::new(program())
            .args([
                "--serial",
                device.to_str().unwrap(),
                "--ledger",
                &path("ledger"),
            ])
            .args([
                "--tls",
                "127.0.0.1:0",
                &path("server.pem"),
                &path("server.key"),
            ])
            .args([
                "--listen",
                &unix,
                "--admin",
                &path("admin"),
                "--pid-file",
                &path("pid"),
            ])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap(),
    );
    let mut said = BufReader::new(gateway.0.stdout.take().unwrap()).lines();
    let listening = said.next().unwrap().unwrap();
    let encrypted = listening.strip_prefix("listening at ").unwrap().to_owned();
    let ca = folder.file("ca.pem");
    let shakes_hands = || {
        let socket = TcpStream::connect(&encrypted).unwrap();
        Client::new(socket, &Wish::new(&ca).config())
            .begin()
            .unwrap();
    };
    shakes_hands();

    let seen = Seen::default();
    let admin = || AdminClient::new(&channel_to(&format!("unix:{}", path("admin"))));
    thread::scope(|scope| {
        let seen = &seen;
        let stub = || MeterClient::new(&channel_to(&unix));
        for name in ["one", "two"] {
            let (reads, uploads) = (stub(), stub());
            scope.spawn(move || read(&reads, seen));
            scope.spawn(move || upload(&uploads, seen, name));
        }
        let (books, watches) = (stub(), stub());
        scope.spawn(move || book(&books, seen));
        scope.spawn(move || watch(&watches, seen));

        let mut processes = BTreeSet::from([gateway.0.id()]);
        for _ in 0..3 {
            let (reads, watched) = (&seen.reads, &seen.watched);
            let before = [reads, watched].map(|it| it.load(Ordering::SeqCst));
            eventually("all goes on", || {
                let now = [reads, watched].map(|it| it.load(Ordering::SeqCst));
                now[0] > before[0] + 10 && now[1] > before[1]
            });
            let process = match admin().upgrade(&UpgradeRequest::new()) {
                Ok(reply) => reply.process,
                Err(status) => {
                    seen.fail("upgrade", status);
                    break;
                }
            };
            assert!(processes.insert(process));
            eventually("the new process has the meter", || {
                seen.processes.lock().unwrap().contains(&process)
            });
            shakes_hands();
        }
        seen.ended.store(true, Ordering::SeqCst);
    });
    let failures = seen.failures.lock().unwrap();
    let log = || fs::read_to_string(folder.file("log")).unwrap_or_default();
    assert!(failures.is_empty(), "{failures:#?}\n{}", log());
    let status = admin().status(&StatusRequest::new()).unwrap();
    assert_eq!(status.phase, "serving");
    // The first process has ended long ago.
    let code = gateway.0.wait().unwrap().code();
    assert_eq!(code, Some(exit_code::CLEAN.into()), "{}", log());

    // SAFETY: a system call without memory.
    assert_eq!(
        unsafe { libc::kill(status.process as i32, libc::SIGTERM) },
        0
    );
    // The standard output is closed by the last process.
    assert_eq!(
        said.map_while(Result::ok)
            .filter(|it| it != &listening)
            .count(),
        0,
        "{}",
        log()
    );
    assert!(!folder.file("pid").exists() && !folder.file("socket").exists());
    let ledger = fs::read_to_string(folder.file("ledger")).unwrap();
    let written: BTreeSet<&str> = ledger
        .lines()
        .filter_map(|it| it.split(' ').next())
        .collect();
    let acknowledged = seen.acknowledged.lock().unwrap();
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|it| !written.contains(&***it))
        .collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert!(acknowledged.len() > 50, "{}", acknowledged.len());
}
