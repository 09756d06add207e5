//! What ten thousand open streams cost that have no thread: memory, and the time that unary calls take beside them.
//!
//! `cargo bench --bench quiet_streams`, or with other numbers: `cargo bench --bench quiet_streams -- STREAMS SECONDS`
//!
//! Two servers with 4 workers each run in processes of their own. One has the streams, each of which says something every
//! 10 s and gets an answer. Unary calls are made by turns, second by second, so that whatever else the machine does meets
//! all: to the server without streams while those are silent, to the same while they talk (what the clients of the streams
//! take from a small machine is in that, and what their server takes), and to the server that has them. At the end that
//! server stops, and every stream has to say goodbye.
//!
//! Fails if the 99th percentile on the server with streams is more than 1.5 times the first, if a stream takes more than 16 KiB
//! of the server's memory, or if one was not told.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use touchdown::client::{CallOptions, Channel, Client, Replies, Requests};
use touchdown::lifecycle::{Lifecycle, Plan};
use touchdown::protobuf::well_known_types::wrappers::UInt32Value;
use touchdown::{Call, Server, Service, Status, StreamHandler, StreamReplies};

const WORKERS: usize = 4;
const CONNECTIONS: usize = 10;
/// How often each stream says something.
const PAUSE: Duration = Duration::from_secs(10);
/// How many calls are made at a time, and how long each caller waits between two.
const CALLERS: usize = 2;
const THINK: Duration = Duration::from_millis(1);
const GOODBYE: u32 = u32::MAX;

const MOST_RATIO: f64 = 1.5;
const MOST_KIB: f64 = 16.0;

fn number(value: u32) -> UInt32Value {
    UInt32Value {
        value,
        ..Default::default()
    }
}

/// Answers with what it is told, counted.
struct Talk(u32);

impl StreamHandler<UInt32Value, UInt32Value> for Talk {
    fn request(
        &mut self,
        request: UInt32Value,
        replies: &StreamReplies<UInt32Value>,
    ) -> Result<(), Status> {
        self.0 += request.value;
        replies.send(&number(self.0))
    }

    fn draining(&mut self, replies: &StreamReplies<UInt32Value>) -> Result<(), Status> {
        replies.send(&number(GOODBYE))?;
        replies.finish(Ok(()));
        Ok(())
    }
}

fn serve(streams: usize) -> ExitCode {
    let service = Service::builder("bench.Streams")
        .unary("Say", |_: &Call, request: UInt32Value| {
            Ok::<_, Status>(request)
        })
        .bidirectional(
            "Talk",
            |_: &Call, requests: touchdown::Requests<UInt32Value>, replies| {
                requests.detach(replies, Talk(0))
            },
        )
        .build();
    let plan = Plan::default().with_grace_period(Duration::from_secs(60));
    let report = Server::builder()
        .address("127.0.0.1:0")
        .service(service)
        .workers(WORKERS)
        .max_concurrent_streams(streams.div_ceil(CONNECTIONS).max(1))
        .lifecycle(Lifecycle::builder().plan(plan))
        .on_listening(|server| println!("{}", server.address()))
        .serve();
    eprintln!("{report}");
    match report.calls.completed >= streams as u64 && report.exit_code() == 0 {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// A server in a process of its own.
struct Process {
    child: Child,
    address: String,
}

impl Process {
    fn start(streams: usize) -> Process {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["serve", &streams.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.next().expect("it listens").unwrap();
        Process { child, address }
    }

    fn client(&self) -> Client {
        let builder = Channel::builder().own_connection().threads(1);
        Client::new(&builder.connect(&self.address).unwrap())
    }

    /// How much memory is its own, in KiB.
    fn memory(&self) -> u64 {
        let path = format!("/proc/{}/smaps_rollup", self.child.id());
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text.lines().filter(|it| it.starts_with("Private_"));
        let numbers = lines.filter_map(|it| it.split_whitespace().nth(1)?.parse::<u64>().ok());
        numbers.sum()
    }

    fn threads(&self) -> usize {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id()));
        tasks.unwrap().count()
    }

    fn stop(&self) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-TERM", &id]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type Stream = (Requests<UInt32Value>, Replies<UInt32Value>);

/// Calls for as long, and says how long each call took.
fn call_for(client: &Client, time: Duration) -> Vec<Duration> {
    let begin = Instant::now();
    let mut took = Vec::new();
    while begin.elapsed() < time {
        let before = Instant::now();
        let reply: Result<UInt32Value, _> =
            client.unary("/bench.Streams/Say", &number(1), CallOptions::default());
        took.push(before.elapsed());
        assert!(reply.is_ok(), "{reply:?}");
        thread::sleep(THINK);
    }
    took
}

fn calls(clients: &[Client], time: Duration) -> Vec<Duration> {
    thread::scope(|scope| {
        let callers: Vec<_> = clients
            .iter()
            .map(|client| scope.spawn(move || call_for(client, time)))
            .collect();
        let took = callers.into_iter().flat_map(|it| it.join().unwrap());
        took.collect()
    })
}

/// Has one stream after the other say something while `talks`, as often as that each does so once in a pause. Returns how
/// many messages were answered.
fn talk(streams: &mut [Stream], talks: &AtomicBool, is_over: &AtomicBool) -> usize {
    let mut answered = 0;
    let mut open = VecDeque::new();
    let each = PAUSE / streams.len() as u32;
    let mut next = 0;
    let mut due = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        if !talks.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
            due = Instant::now();
            continue;
        }
        if let Some(early) = due.checked_duration_since(Instant::now()) {
            thread::sleep(early);
        }
        due += each;
        streams[next].0.send(number(1)).unwrap();
        open.push_back(next);
        next = (next + 1) % streams.len();
        // It has had time enough to be answered, so that this is not waited for.
        if open.len() > 50 {
            let first = open.pop_front().unwrap();
            streams[first].1.next().unwrap().unwrap();
            answered += 1;
        }
    }
    for first in open {
        streams[first].1.next().unwrap().unwrap();
        answered += 1;
    }
    answered
}

fn percentile(took: &mut [Duration], hundredths: usize) -> f64 {
    took.sort_unstable();
    let micros = took[took.len() * hundredths / 100].as_micros();
    micros as f64
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|it| !it.starts_with('-'))
        .collect();
    let numbers: Vec<usize> = words.iter().filter_map(|it| it.parse().ok()).collect();
    if words.first().is_some_and(|it| it == "serve") {
        return serve(numbers[0]);
    }
    let count = numbers.first().copied().unwrap_or(10_000);
    let seconds = numbers.get(1).copied().unwrap_or(60);

    let (mut with, mut without) = (Process::start(count), Process::start(0));
    let clients = |it: &Process| (0..CALLERS).map(|_| it.client()).collect::<Vec<_>>();
    let (callers_with, callers_without) = (clients(&with), clients(&without));
    // Whatever is made once is there.
    calls(&callers_with, Duration::from_secs(1));
    calls(&callers_without, Duration::from_secs(1));
    let (before, threads_before) = (with.memory(), with.threads());

    let connections: Vec<_> = (0..CONNECTIONS).map(|_| with.client()).collect();
    let mut streams: Vec<Stream> = connections
        .iter()
        .cycle()
        .take(count)
        .map(|it| {
            it.bidirectional("/bench.Streams/Talk", CallOptions::default())
                .unwrap()
        })
        .collect();
    for (requests, replies) in &mut streams {
        requests.send(number(1)).unwrap();
        replies.next().unwrap().unwrap();
    }

    let (mut took_with, mut took_without, mut took_beside) = (Vec::new(), Vec::new(), Vec::new());
    let (talks, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    let answered = thread::scope(|scope| {
        let talking = scope.spawn(|| talk(&mut streams, &talks, &is_over));
        for _ in 0..seconds.div_ceil(3) {
            let second = Duration::from_secs(1);
            took_without.extend(calls(&callers_without, second));
            talks.store(true, Ordering::Relaxed);
            took_beside.extend(calls(&callers_without, second));
            took_with.extend(calls(&callers_with, second));
            talks.store(false, Ordering::Relaxed);
        }
        is_over.store(true, Ordering::Relaxed);
        talking.join().unwrap()
    });
    let (after, threads_after) = (with.memory(), with.threads());

    with.stop();
    let mut goodbyes = 0;
    for (_requests, replies) in streams {
        let last: Vec<_> = replies.collect();
        let is_goodbye = matches!(last.last(), Some(Ok(it)) if it.value == GOODBYE);
        goodbyes += usize::from(is_goodbye);
    }
    without.stop();
    let is_clean = [&mut with, &mut without].map(|it| it.child.wait().unwrap().success());

    let each = (after.saturating_sub(before)) as f64 / count as f64;
    let line = |name: &str, took: &mut [Duration]| {
        let (half, most) = (percentile(took, 50), percentile(took, 99));
        println!("{name}: {} calls, p50 {half} us, p99 {most} us", took.len());
        most
    };
    let without_p99 = line("no streams              ", &mut took_without);
    let beside_p99 = line("they talk to the other  ", &mut took_beside);
    let with_p99 = line("they talk to this server", &mut took_with);
    let (ratio, of_server) = (with_p99 / without_p99, with_p99 / beside_p99);
    println!(
        "ratio of the p99: {ratio:.2} (at most {MOST_RATIO}); {of_server:.2} of it is the server's own"
    );
    println!("{answered} messages were answered on {count} streams, {WORKERS} workers");
    println!("threads of the server: {threads_before} before, {threads_after} after");
    println!(
        "memory of the server: {before} KiB before, {after} KiB after, {each:.1} KiB a stream (at most {MOST_KIB})"
    );
    println!("{goodbyes} of {count} said goodbye, the servers ended well: {is_clean:?}");
    match ratio <= MOST_RATIO && each <= MOST_KIB && goodbyes == count && is_clean == [true, true] {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
