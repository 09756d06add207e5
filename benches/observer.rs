//! What call observers cost a call: processor time of the server, without one and with one that counts.
//!
//! `cargo bench --bench observer`. Needs h2load (nghttp2-client).

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{getrusage, UsageWho};
use nix::sys::time::TimeVal;
use touchdown::protobuf::well_known_types::wrappers::StringValue;
use touchdown::{Call, CallEnd, CallObserver, CallRefusal, Server, Service, Status};

const CALLS: u64 = 20_000;
const ROUNDS: usize = 15;

/// What most observers do: count what happens, and add up how long it took.
#[derive(Default)]
struct Counter {
    arrived: AtomicU64,
    ended: AtomicU64,
    refused: AtomicU64,
    nanoseconds: AtomicU64,
}

impl CallObserver for Counter {
    fn arrived(&self, _: &Call) {
        self.arrived.fetch_add(1, Ordering::Relaxed);
    }

    fn ended(&self, _: &Call, end: &CallEnd) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        let ran = end.ran.as_nanos() as u64;
        self.nanoseconds.fetch_add(ran, Ordering::Relaxed);
    }

    fn refused(&self, _: &Call, _: &CallRefusal) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

fn start(counters: &[Arc<Counter>]) -> Server {
    let echo = Service::builder("demo.Echo")
        .unary("Say", |_: &Call, request: StringValue| {
            Ok::<_, Status>(request)
        })
        .build();
    let builder = Server::builder().address("127.0.0.1:0").service(echo);
    let observe =
        |builder: touchdown::ServerBuilder, it: &Arc<Counter>| builder.observer(Arc::clone(it));
    let builder = counters.iter().fold(builder, observe);
    builder.start().expect("the server starts")
}

/// The processor time of this process; h2load is another.
fn processor_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("it is there");
    let of =
        |time: TimeVal| Duration::from_micros((time.tv_sec() * 1_000_000 + time.tv_usec()) as u64);
    of(usage.user_time()) + of(usage.system_time())
}

/// The processor time that a call takes, in nanoseconds.
fn measure(server: &Server, request: &Path) -> f64 {
    let before = processor_time();
    let output = Command::new("h2load")
        .args(["-n", &CALLS.to_string(), "-c", "2", "-m", "32", "-d"])
        .arg(request)
        .args(["-H", "content-type: application/grpc", "-H", "te: trailers"])
        .arg(format!("http://{}/demo.Echo/Say", server.address()))
        .output()
        .expect("h2load is installed");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(&format!("{CALLS} succeeded")), "{said}");
    (processor_time() - before).as_nanos() as f64 / CALLS as f64
}

fn main() {
    let request = env::temp_dir().join(format!("touchdown-bench-{}", std::process::id()));
    fs::write(&request, b"\0\0\0\0\x07\n\x05hello").expect("there is room");
    let counters: Vec<Arc<Counter>> = (0..4).map(|_| Arc::default()).collect();
    let servers = [start(&[]), start(&counters[..1]), start(&counters)];
    let mut least = [f64::MAX; 3];
    for _ in 0..ROUNDS {
        // Turn by turn, so that a change of the clock rate meets all.
        for (server, least) in servers.iter().zip(&mut least) {
            *least = least.min(measure(server, &request));
        }
    }
    let _ = fs::remove_file(&request);
    let calls = CALLS * ROUNDS as u64;
    assert_eq!(counters[0].ended.load(Ordering::Relaxed), 2 * calls);
    println!(
        "processor time a call of the server, 2 connections x 32 streams, best of {ROUNDS} rounds"
    );
    for (observers, time) in [0, 1, 4].into_iter().zip(least) {
        println!(
            "{observers} observers: {time:6.0} ns, {:+5.0} ns, ratio {:.3}",
            time - least[0],
            time / least[0]
        );
    }
}
