//! Many subscribers on detached streams, and few workers. Some subscribers are slow, and some are dead: their process
//! is stopped, so that their connections stay open and nobody answers.
//!
//! Alone in its file: it counts the threads and the memory of the process.

mod clients;

use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use clients::installed;
use touchdown::lifecycle::Plan;
use touchdown::Server;
use touchdown_interop::feed::Publisher;

const WORKERS: usize = 4;
/// The workers, those of the test, and C-core's, which are some 15.
const FEW_THREADS: usize = 40;
/// What takes longer than this hangs.
const LONG: Duration = Duration::from_secs(60);
/// Slow subscribers have room for four of these: see `STREAM_WINDOW` in the client.
const PADDING: usize = 4 << 10;

/// What the server may take for all of them, in KiB: for each stream an item that waits, its frames and the call, and
/// something for C-core's caches. The kernel's buffers come on top, and are not the server's.
fn memory_bound(streams: usize) -> usize {
    16 * 1024 + 16 * streams
}

struct Crowd {
    healthy: usize,
    slow: usize,
    dead: usize,
    items: u64,
    interval: Duration,
    /// The interval and the time for the answer.
    keepalive: Duration,
}

#[test]
#[ignore = "needs the client on tonic: tests/foreign/setup.sh"]
fn a_hundred_subscribers_do_not_hold_each_other_up() {
    publish(Crowd {
        healthy: 50,
        slow: 40,
        dead: 10,
        items: 30,
        interval: Duration::from_millis(100),
        keepalive: Duration::from_millis(500),
    });
}

#[test]
#[ignore = "takes half a minute, and needs the client on tonic: tests/foreign/setup.sh"]
fn a_thousand_subscribers_do_not_hold_each_other_up() {
    publish(Crowd {
        healthy: 500,
        slow: 400,
        dead: 100,
        items: 25,
        interval: Duration::from_secs(1),
        keepalive: Duration::from_secs(4),
    });
}

fn publish(crowd: Crowd) {
    let publisher = Publisher::default();
    let server = Server::builder()
        .address("127.0.0.1:0")
        .workers(WORKERS)
        .keepalive(crowd.keepalive, crowd.keepalive)
        // For a test that goes wrong with all the streams open.
        .plan(Plan::new().with_grace_period(Duration::from_secs(1)))
        .service(publisher.service())
        .start()
        .expect("the server starts");
    let (_, before_kib) = usage();

    let subscribed = |count| {
        eventually("everybody has subscribed", || {
            publisher.subscribers() == count
        });
    };
    let living = Subscribers::start(&server, crowd.healthy, crowd.slow);
    subscribed(crowd.healthy + crowd.slow);
    let connections = server.connections();
    let dead = Subscribers::start(&server, crowd.dead, 0);
    let all = crowd.healthy + crowd.slow + crowd.dead;
    subscribed(all);
    assert_eq!(server.in_flight(), all);
    assert!(server.connections() > connections);
    dead.signal("STOP");

    let (threads, _) = usage();
    let (mut most_threads, mut most_kib) = (threads, 0);
    let (mut missed, mut left) = (0, 0);
    let began = Instant::now();
    for number in 1..=crowd.items {
        let published = publisher.publish(number, PADDING);
        missed += published.missed;
        left += published.left;
        let (threads, kib) = usage();
        most_threads = most_threads.max(threads);
        most_kib = most_kib.max(kib);
        let due = began + crowd.interval * u32::try_from(number).unwrap();
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }

    // The dead go when the keepalive is not answered, however long that takes on a busy machine.
    let mut number = crowd.items;
    eventually("the dead are gone", || {
        number += 1;
        left += publisher.publish(number, PADDING).left;
        thread::sleep(crowd.interval);
        left >= crowd.dead
    });
    assert_eq!(left, crowd.dead, "others were sent away, too");
    assert_eq!(publisher.subscribers(), crowd.healthy + crowd.slow);
    assert_eq!(
        publisher.slow(),
        crowd.slow,
        "the slow ones are those who missed items"
    );
    assert_eq!(server.in_flight(), crowd.healthy + crowd.slow);
    eventually("their connections are closed", || {
        server.connections() == connections
    });

    publisher.finish();
    let [healthy, slow] = living.finish();
    drop(dead);
    eprintln!(
        "{} MiB and {most_threads} threads ({threads} at first); missed {missed}\n{}\n{}",
        most_kib.saturating_sub(before_kib) / 1024,
        healthy.line,
        slow.line
    );
    assert_eq!((healthy.count, slow.count), (crowd.healthy, crowd.slow));
    assert_eq!(healthy.fewest, usize::try_from(number).unwrap());
    assert_eq!(healthy.missed, 0);
    assert!(healthy.p99 < Duration::from_secs(5), "{}", healthy.line);
    assert!(most_threads < FEW_THREADS, "{most_threads} threads");
    let bound = memory_bound(all);
    assert!(
        most_kib < before_kib + bound,
        "{before_kib}, then {most_kib}"
    );

    eventually("all calls have landed", || server.in_flight() == 0);
    let report = server.shutdown();
    assert_eq!(report.exit_code(), 0, "{report}");
}

/// A process of subscribers, which ends with this.
struct Subscribers(Child);

/// What one kind of them has seen, as the process reports it.
struct Seen {
    count: usize,
    fewest: usize,
    missed: usize,
    p99: Duration,
    line: String,
}

impl Subscribers {
    fn start(server: &Server, healthy: usize, slow: usize) -> Subscribers {
        let client = installed("tonic/debug/touchdown-tonic-client");
        let child = Command::new(&client)
            .args(["subscribe", &server.address().to_string()])
            .args([healthy.to_string(), slow.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", client.display()));
        Subscribers(child)
    }

    fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Waits until they have seen the end.
    fn finish(mut self) -> [Seen; 2] {
        let mut stdout = self.0.stdout.take().expect("a pipe");
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut written = String::new();
            let _ = stdout.read_to_string(&mut written);
            let _ = sender.send(written);
        });
        let written = receiver.recv_timeout(LONG).expect("the subscribers end");
        assert!(self.0.wait().expect("the subscribers end").success());
        let seen: Vec<_> = written.lines().map(Seen::parse).collect();
        seen.try_into().unwrap_or_else(|_| panic!("{written}"))
    }
}

impl Drop for Subscribers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Seen {
    fn parse(line: &str) -> Seen {
        let words: Vec<_> = line.split(' ').collect();
        let after = |name: &str| -> usize {
            let index = words.iter().position(|it| *it == name);
            index.map_or_else(
                || panic!("{name}: {line}"),
                |it| words[it + 1].parse().unwrap(),
            )
        };
        Seen {
            count: words[1].parse().unwrap(),
            fewest: after("fewest"),
            missed: after("missed"),
            p99: Duration::from_millis(after("p99_ms") as u64),
            line: line.to_owned(),
        }
    }
}

/// Threads, and KiB of resident memory.
fn usage() -> (usize, usize) {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let value = |name: &str| -> usize {
        let line = status.lines().find_map(|it| it.strip_prefix(name));
        let word = line.and_then(|it| it.split_whitespace().next());
        word.and_then(|it| it.parse().ok()).expect("a number")
    };
    (value("Threads:"), value("VmRSS:"))
}

fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_true() {
        assert!(Instant::now() < deadline, "still not true: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}
