//! A greeter that can be seen from outside: checks, an HTTP door, metrics, logs, traces, reflection.
//!
//!     cargo run -p touchdown-observed -- 127.0.0.1:50051 127.0.0.1:9464
//!
//! Then look at http://127.0.0.1:9464/statusz, or let Prometheus scrape http://127.0.0.1:9464/metrics.

#[path = "../../arguments/mod.rs"]
mod arguments;
touchdown::include_protos!();

use std::path::Path;
use std::time::Duration;

use greeter::{greeter_service, Greeter, HelloReply, HelloRequest, ManyHellosRequest};
use touchdown::lifecycle::{Lifecycle, Plan, Report};
use touchdown::{Call, Replies, Requests, Server, Status};
use touchdown_observe::access_log::AccessLog;
use touchdown_observe::load_report::LoadReport;
use touchdown_observe::otel::Traces;
use touchdown_observe::reflection::Reflection;
use touchdown_observe::{HealthCheck, Observe, ObserveServer};

const USAGE: &str = "usage: observed_server [ADDRESS [DOOR [FILE]]]

ADDRESS is where gRPC is spoken: HOST:PORT or unix:PATH; 127.0.0.1:50051 without it.
DOOR is where HTTP is spoken, for probes, Prometheus and people; 127.0.0.1:9464 without it.
FILE is what the server cannot do without: while it is missing the server is not ready.

Traces go where OTEL_EXPORTER_OTLP_ENDPOINT says; http://127.0.0.1:4318 without it. OTEL_SDK_DISABLED=true
turns them off. TOUCHDOWN_LOG_FORMAT is text, json or journal. RUST_LOG says what is logged.";

struct Polite;

impl Greeter for Polite {
    fn say_hello(&self, call: &Call, request: HelloRequest) -> Result<HelloReply, Status> {
        let think = Duration::from_millis(request.think_ms.into());
        if !think.is_zero() && call.token().wait_timeout(think) {
            return Err(Status::cancelled("nobody waits for this any more"));
        }
        if request.name.is_empty() {
            return Err(Status::invalid_argument("whom?"));
        }
        Ok(hello(&request.name))
    }

    fn say_many_hellos(
        &self,
        _: &Call,
        request: ManyHellosRequest,
        replies: Replies<HelloReply>,
    ) -> Result<(), Status> {
        (0..request.count).try_for_each(|_| replies.send(&hello(&request.name)))
    }

    fn greet_everybody(
        &self,
        _: &Call,
        requests: Requests<HelloRequest>,
    ) -> Result<HelloReply, Status> {
        let names: Result<Vec<_>, Status> = requests.map(|it| Ok(it?.name)).collect();
        Ok(hello(&names?.join(" and ")))
    }

    fn chat(
        &self,
        _: &Call,
        mut requests: Requests<HelloRequest>,
        replies: Replies<HelloReply>,
    ) -> Result<(), Status> {
        requests.try_for_each(|request| replies.send(&hello(&request?.name)))
    }
}

fn hello(name: &str) -> HelloReply {
    HelloReply {
        text: format!("Hello, {name}!"),
        ..Default::default()
    }
}

/// The server cannot do without this file.
fn needs(file: String) -> HealthCheck {
    HealthCheck::for_readiness("file", move || match Path::new(&file).try_exists() {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("{file} is missing").into()),
        Err(error) => Err(format!("{file}: {error}").into()),
    })
}

fn main() -> Report {
    touchdown_observe::log::init();
    let words = arguments::words(USAGE);
    if words.len() > 3 || words.iter().any(|it| it.starts_with('-')) {
        arguments::wrong(USAGE);
    }
    let mut words = words.into_iter();
    let address = words.next().unwrap_or_else(|| "127.0.0.1:50051".to_owned());
    let door = words.next().unwrap_or_else(|| "127.0.0.1:9464".to_owned());
    let observe = Observe::at(door).last_scrape(Duration::from_secs(2));
    let observe = match words.next() {
        Some(file) => observe.check(needs(file).interval(Duration::from_secs(1))),
        None => observe,
    };
    // Long enough for those who look every second to hear of it before calls are refused.
    let plan = Plan::new().with_lame_duck(Duration::from_millis(1500));
    Server::builder()
        .lifecycle(Lifecycle::builder().plan(plan))
        .address(address)
        .service(greeter_service(Polite))
        .observe(observe)
        .access_log(AccessLog::new())
        .traces(Traces::from_env())
        .reflection(Reflection::new().descriptors(FILE_DESCRIPTOR_SET))
        .load_report(LoadReport::new())
        .on_listening(|server| println!("listening at {}", server.address()))
        .serve()
}
