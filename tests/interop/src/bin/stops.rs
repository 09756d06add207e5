//! A server whose calls do what their callers say, for tests of what becomes of them when it stops:
//!
//!     stops ADDRESS WORKERS GRACE_MS
//!
//! Calls are cut early after half of the grace period, streams have a quarter of it to say goodbye, the
//! force period is a quarter of it, and `Slow` takes half of it at the least. On standard output are: the
//! address, a line when a handler begins and one when it ends, and the report as JSON.

use std::io::Write;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use touchdown::lifecycle::{Plan, Report, Signals};
use touchdown::protobuf::well_known_types::wrappers::StringValue;
use touchdown::{Call, DetachedReplies, DrainPolicy, MethodName, Replies, Server, Service, Status};

fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    let told = writeln!(out, "{line}").and_then(|()| out.flush());
    told.expect("the test listens");
}

/// Does what the request says: `for MILLISECONDS`, `for ever`, `until told`, `until left` (told, too)
/// or `until draining`.
fn obey(call: &Call, request: &str) {
    match request.split_once(' ') {
        Some(("for", "ever")) => loop {
            thread::park();
        },
        Some(("for", time)) => {
            let time = time.parse().expect("a number of milliseconds");
            thread::sleep(Duration::from_millis(time));
        }
        Some(("until", "told" | "left")) => call.token().wait(),
        Some(("until", "draining")) => call.draining().wait(),
        _ => panic!("{request}?"),
    }
}

fn work(call: &Call, request: StringValue) -> Result<StringValue, Status> {
    tell(&format!("begun {} {}", call.method(), request.value));
    obey(call, &request.value);
    tell(&format!("ended {} {}", call.method(), request.value));
    Ok(request)
}

/// Tells when it has begun, and says goodbye at the end, or leaves the stream as it is.
fn stream(call: &Call, request: StringValue, replies: Replies<StringValue>) -> Result<(), Status> {
    static IDLE: Mutex<Vec<DetachedReplies<StringValue>>> = Mutex::new(Vec::new());
    tell(&format!("begun {} {}", call.method(), request.value));
    if request.value == "idle" {
        IDLE.lock().unwrap().push(replies.detach());
        return Ok(());
    }
    obey(call, &request.value);
    let goodbye = StringValue {
        value: "goodbye".to_owned(),
        ..Default::default()
    };
    replies.send(&goodbye)?;
    tell(&format!("ended {} {}", call.method(), request.value));
    Ok(())
}

const fn method(name: &'static str) -> MethodName {
    MethodName::new("test.Stops", name)
}

fn main() -> Report {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, workers, grace] = arguments.as_slice() else {
        panic!("usage: stops ADDRESS WORKERS GRACE_MS");
    };
    let grace = Duration::from_millis(grace.parse().expect("milliseconds"));
    let service = Service::builder("test.Stops")
        .unary("Finish", work)
        .unary("CutEarly", work)
        .unary("Slow", work)
        .server_streaming("Stream", stream)
        .build()
        .policy(method("CutEarly"), DrainPolicy::CutEarly)
        .policy(method("Stream"), DrainPolicy::Stream { goodbye: grace / 4 })
        .minimum_time(method("Slow"), grace / 2);
    let server = Server::builder()
        .address(address)
        .service(service)
        .workers(workers.parse().expect("a number"))
        .plan(
            Plan::new()
                .with_grace_period(grace)
                .with_force_period(grace / 4),
        )
        .signals(Signals::process())
        .start()
        .expect("it starts");
    tell(&server.address().to_string());
    let report = server.wait();
    tell(&report.to_json());
    report
}
