//! A program that has nothing to do does nothing: not one of its threads wakes.
#![cfg(feature = "client")]

mod common;
mod lifecycle_support;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use lifecycle_support::{bound, is_child, role, say as tell, Process};
use touchdown::client::{CallOptions, Channel, Client};
use touchdown::lifecycle::{exit_code, Signals};
use touchdown::Server;

/// How long nothing may happen.
const IDLE: Duration = Duration::from_secs(10);

/// Threads of C-core and touchdown that a server has at the most before its first connection: the
/// one that accepts, two workers of which one polls, the lifecycle's three (the walk, the guard and its errands), and
/// C-core's two.
const THREADS: usize = 8;

/// As an example's `main` does it, with no time limit that ends while the test looks on.
fn server() -> Server {
    let builder = builder(echo())
        .handshake_timeout(Duration::from_secs(3600))
        .signals(Signals::process());
    builder.start().expect("it starts")
}

fn wait(server: Server) -> ! {
    let report = server.wait();
    let _: ExitCode = report.clone().into();
    std::process::exit(report.exit_code().into())
}

/// How often each thread was taken off a processor, by number and name. One that sleeps is not.
fn switches(process: u32) -> BTreeMap<String, u64> {
    let mut switches = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{process}/task")).unwrap() {
        let task = task.unwrap();
        // A thread may end meanwhile.
        let Ok(status) = fs::read_to_string(task.path().join("status")) else {
            continue;
        };
        let field = |name: &str| {
            let line = status.lines().find_map(|it| it.strip_prefix(name));
            line.unwrap_or_default().trim_start_matches(':').trim()
        };
        let count = |name: &str| field(name).parse::<u64>().unwrap_or_default();
        let thread = format!("{} {}", task.file_name().to_string_lossy(), field("Name"));
        let count = count("voluntary_ctxt_switches") + count("nonvoluntary_ctxt_switches");
        switches.insert(thread, count);
    }
    switches
}

/// Waits until everything that was begun is done: until no thread has run for a while.
fn settled(process: u32) -> BTreeMap<String, u64> {
    let deadline = Instant::now() + LONG;
    let mut before = switches(process);
    loop {
        thread::sleep(Duration::from_millis(500));
        let now = switches(process);
        if now == before {
            return now;
        }
        assert!(Instant::now() < deadline, "never quiet: {before:?} {now:?}");
        before = now;
    }
}

fn assert_idle(process: u32) -> usize {
    let before = settled(process);
    thread::sleep(IDLE);
    let after = switches(process);
    let woken: Vec<_> = after
        .iter()
        .filter_map(|(thread, count)| Some((thread, count - before.get(thread)?)))
        .filter(|(_, count)| *count > 0)
        .collect();
    assert!(
        woken.is_empty() && after.len() == before.len(),
        "{woken:?} of {after:?}"
    );
    after.len()
}

fn end(child: Process) {
    child.signal("TERM");
    let end = child.end();
    assert_eq!(end.code, Some(exit_code::CLEAN.into()), "{end:?}");
}

#[test]
fn a_server_without_calls_never_wakes() {
    let _bound = bound();
    if is_child() {
        let of_test = switches(std::process::id()).len();
        let server = server();
        tell(&format!("threads {of_test}"));
        tell(&format!("listening at {}", server.address()));
        wait(server);
    }
    let mut child = Process::start("a_server_without_calls_never_wakes");
    let of_test: usize = last_word(&child.hear("threads")).parse().unwrap();
    let address = last_word(&child.hear("listening at"));

    let threads = assert_idle(child.id());
    assert!(
        threads <= of_test + THREADS,
        "{threads} threads, {of_test} of the test"
    );

    // Their keepalive is in a minute.
    let clients: Vec<TcpStream> = (0..10).map(|_| http2_client(&address)).collect();
    let threads_now = assert_idle(child.id());
    assert!(
        threads_now <= threads,
        "{threads_now} threads instead of {threads}"
    );
    drop(clients);
    assert_idle(child.id());
    end(child);
}

#[test]
fn a_client_without_calls_never_wakes() {
    let _bound = bound();
    if let Some(address) = role() {
        let client = Client::new(&channel_to(&address));
        let reply = say_with(&client, "hello", CallOptions::default());
        assert_eq!(reply.unwrap(), "hello");
        tell("answered");
        loop {
            thread::park();
        }
    }
    let server = start(echo());
    let address = server.address().to_string();
    let mut child = Process::start_as(&address, "a_client_without_calls_never_wakes");
    child.hear("answered");
    assert_idle(child.id());
    child.signal("KILL");
    child.end();
}

#[test]
fn a_program_with_both_never_wakes() {
    let _bound = bound();
    if is_child() {
        // Before the process's first server.
        let _first = Channel::connect("127.0.0.1:1").unwrap();
        let server = server();
        let channel = Channel::connect(server.address().to_string()).unwrap();
        let client = Client::new(&channel);
        let reply = say_with(&client, "hello", CallOptions::default());
        assert_eq!(reply.unwrap(), "hello");
        tell("answered");
        wait(server);
    }
    let mut child = Process::start("a_program_with_both_never_wakes");
    child.hear("answered");
    assert_idle(child.id());
    end(child);
}

fn last_word(line: &str) -> String {
    line.rsplit(' ').next().unwrap().to_owned()
}

/// A connection that has said hello, has heard it, and is silent from then on.
fn http2_client(address: &str) -> TcpStream {
    use std::io::{Read, Write};
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(PREFACE).unwrap();
    // Until the acknowledgement of the settings.
    let mut heard = Vec::new();
    while !heard.windows(9).any(|it| it == frame(4, 1, 0, &[])) {
        let mut bytes = [0; 1024];
        let count = stream.read(&mut bytes).unwrap();
        assert!(count > 0, "the server closed the connection");
        heard.extend_from_slice(&bytes[..count]);
    }
    stream.write_all(&frame(4, 1, 0, &[])).unwrap();
    stream
}
