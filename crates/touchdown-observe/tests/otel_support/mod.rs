//! What the tests of traces share: a collector, what it was sent, and servers that send it.
#![allow(dead_code, unused_imports)]

mod collector;
mod spans;

use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use touchdown::client::{CallOptions, Channel, Client, Metadata};
use touchdown::protobuf::well_known_types::wrappers::StringValue;
use touchdown::testing::TestServer;
use touchdown::{Call, Server, ServerBuilder, Service, Status};
use touchdown_observe::otel::{SpanCounts, Traces};
use touchdown_observe::ObserveServer;

pub use self::collector::{Collector, Reply, Request};
pub use self::spans::{Span, Value};

/// A test that takes longer than this hangs.
pub const LONG: Duration = Duration::from_secs(30);

/// A traceparent whose trace is recorded, and one whose trace is not.
pub const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
pub const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

pub fn text(value: impl Into<String>) -> StringValue {
    StringValue {
        value: value.into(),
        ..Default::default()
    }
}

/// `/demo.Echo/Say` does what it is told.
pub fn unary(
    handler: impl Fn(&Call, StringValue) -> Result<StringValue, Status> + Send + Sync + 'static,
) -> Service {
    Service::builder("demo.Echo").unary("Say", handler).build()
}

/// `/demo.Echo/Say` returns its request.
pub fn echo() -> Service {
    unary(|_, request| Ok(request))
}

/// A service whose handlers say that they have begun, and end when they are let, or when the sender is dropped.
pub fn gated() -> (Service, Receiver<Call>, Sender<()>) {
    let (began, begun) = channel();
    let (release, released) = channel();
    let (began, released) = (Mutex::new(began), Mutex::new(released));
    let service = unary(move |call, request| {
        let _ = began.lock().unwrap().send(call.clone());
        let _ = released.lock().unwrap().recv_timeout(LONG);
        Ok(request)
    });
    (service, begun, release)
}

/// All traces that begin here, to this collector, and soon.
pub fn all_to(collector: &Collector) -> Traces {
    Traces::new(collector.url())
        .sample(1.0)
        .delay(Duration::from_millis(1))
}

/// A server whose calls are traced.
pub fn traced(service: Service, traces: Traces) -> (TestServer, SpanCounts) {
    traced_with(service, traces, |it| it)
}

pub fn traced_with(
    service: Service,
    traces: Traces,
    set: impl FnOnce(ServerBuilder) -> ServerBuilder,
) -> (TestServer, SpanCounts) {
    let counts = traces.counts();
    let builder = set(Server::builder().service(service).traces(traces));
    (TestServer::start(builder).unwrap(), counts)
}

/// Calls `/demo.Echo/Say`, and returns what comes back.
pub fn say(client: &Client, metadata: Metadata) -> Result<String, Status> {
    let options = CallOptions::new().timeout(LONG).metadata(metadata);
    let reply: StringValue = client.unary("/demo.Echo/Say", &text("hello"), options)?;
    Ok(reply.value)
}

/// Metadata with this trace.
pub fn with(traceparent: &str) -> Metadata {
    Metadata::new().with("traceparent", traceparent).unwrap()
}

/// On a connection of its own, for a server that is known by its address.
pub fn client_of(address: &str) -> Client {
    let channel = Channel::builder()
        .own_connection()
        .threads(1)
        .connect(address);
    Client::new(&channel.unwrap())
}

/// Waits for something that will come true soon.
pub fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_true() {
        assert!(Instant::now() < deadline, "still not true: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
