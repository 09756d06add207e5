//! What the tests of the server share: services made by hand, and clients for them.
#![allow(dead_code, unused_imports)]

pub mod h2;
mod notebook;

use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, unbounded, Receiver, Sender};
use touchdown::lifecycle::{self, Lifecycle, Plan};
use touchdown::protobuf::well_known_types::wrappers::{StringValue, UInt32Value};
use touchdown::{Call, Server, ServerBuilder, ServerHandle, Service, Status};

#[cfg(feature = "client")]
pub use clients::*;
pub use notebook::{keep_the_log, lines_that};

/// Sanitizers and QEMU take their time.
pub const SLOW: bool = option_env!("TOUCHDOWN_SLOW_TESTS").is_some();

/// A test that takes longer than this hangs.
pub const LONG: Duration = Duration::from_secs(if SLOW { 120 } else { 20 });

/// So many milliseconds, or more where everything takes longer.
pub const fn unhurried(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds * if SLOW { 10 } else { 1 })
}

pub fn text(value: impl Into<String>) -> StringValue {
    StringValue {
        value: value.into(),
        ..Default::default()
    }
}

pub fn number(value: u32) -> UInt32Value {
    UInt32Value {
        value,
        ..Default::default()
    }
}

/// A plan under which a test that goes wrong ends soon.
pub fn quick_plan() -> Plan {
    Plan::default()
        .with_grace_period(unhurried(5000))
        .with_force_period(unhurried(1000))
        .with_closing(unhurried(5000))
}

/// A lifecycle with this plan.
pub fn planned(plan: Plan) -> lifecycle::Builder {
    Lifecycle::builder().plan(plan)
}

pub fn builder(service: Service) -> ServerBuilder {
    part(service).lifecycle(planned(quick_plan()))
}

/// A server for a lifecycle that it shares.
pub fn part(service: Service) -> ServerBuilder {
    let _ = env_logger::builder().is_test(true).try_init();
    Server::builder().address("127.0.0.1:0").service(service)
}

pub fn start(service: Service) -> Server {
    builder(service).start().expect("the server starts")
}

/// `/test.Echo/Say` returns its request.
pub fn echo() -> Service {
    unary(|_, request| Ok(request))
}

/// `/test.Echo/Say` does what it is told.
pub fn unary(
    handler: impl Fn(&Call, StringValue) -> Result<StringValue, Status> + Send + Sync + 'static,
) -> Service {
    Service::builder("test.Echo").unary("Say", handler).build()
}

/// A service whose handlers say that they have begun, and end when they are let, or when the sender is dropped.
pub fn gated() -> (Service, Receiver<()>, Sender<()>) {
    let (began, begun) = unbounded();
    let (release, released) = bounded(0);
    let service = unary(move |_, request| {
        began.send(()).unwrap();
        let _ = released.recv();
        Ok(request)
    });
    (service, begun, release)
}

/// For what `touchdown::client` hides: response headers, and cancelling.
pub fn unary_method(path: &'static str) -> grpcio::Method<StringValue, StringValue> {
    grpcio::Method {
        ty: grpcio::MethodType::Unary,
        name: path,
        req_mar: grpcio::Marshaller {
            ser: grpcio::pb_ser,
            de: grpcio::pb_de,
        },
        resp_mar: grpcio::Marshaller {
            ser: grpcio::pb_ser,
            de: grpcio::pb_de,
        },
    }
}

/// Waits for something that will come true soon.
pub fn eventually(what: &str, is_true: impl FnMut() -> bool) {
    eventually_within(LONG, what, is_true);
}

pub fn eventually_within(limit: Duration, what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !is_true() {
        assert!(Instant::now() < deadline, "still not true: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// SplitMix64: the same numbers for the same seed.
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut it = self.0;
        it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (it ^ (it >> 31)) % limit
    }

    pub fn microseconds(&mut self, limit: u64) -> Duration {
        Duration::from_micros(self.below(limit))
    }
}

/// How an HTTP/2 client begins: the preface, and empty settings. RFC 9113, 3.4.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A header field in the simplest form of HPACK (RFC 7541, 6.2.2).
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let (name_length, value_length) = (name.len() as u8, value.len() as u8);
    let parts = [
        &[0, name_length],
        name.as_bytes(),
        &[value_length],
        value.as_bytes(),
    ];
    parts.concat()
}

/// A frame of HTTP/2 on a stream with a low number.
pub fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32;
    [
        &length.to_be_bytes()[1..],
        &[kind, flags, 0, 0, 0, stream],
        payload,
    ]
    .concat()
}

/// The header block of a call.
pub fn call_headers(method: &str, path: &str) -> Vec<u8> {
    let fields = [
        field(":method", method),
        field(":scheme", "http"),
        field(":path", path),
        field(":authority", "test"),
        field("content-type", "application/grpc"),
        field("te", "trailers"),
    ];
    fields.concat()
}

/// A whole call of [`echo`], as a client sends it.
pub fn small_call(stream: u8) -> Vec<u8> {
    let headers = frame(1, 4, stream, &call_headers("POST", "/test.Echo/Say"));
    [headers, frame(0, 1, stream, b"\0\0\0\0\x03\x0a\x01x")].concat()
}

#[cfg(feature = "client")]
mod clients {
    use touchdown::client::{CallOptions, Channel, Client};

    use super::*;

    pub fn channel(server: &ServerHandle) -> Channel {
        channel_to(&server.address().to_string())
    }

    pub fn channel_to(address: &str) -> Channel {
        let builder = Channel::builder().own_connection().threads(1);
        builder.connect(address).unwrap()
    }

    /// For what `touchdown::client` hides.
    pub fn grpcio_client(server: &Server) -> grpcio::Client {
        let environment = std::sync::Arc::new(grpcio::Environment::new(1));
        let builder = grpcio::ChannelBuilder::new(environment).use_local_subchannel_pool(true);
        grpcio::Client::new(builder.connect(&server.address().to_string()))
    }

    pub fn client(server: &ServerHandle) -> Client {
        Client::new(&channel(server))
    }

    pub fn say(client: &Client, what: &str) -> Result<String, Status> {
        say_with(client, what, CallOptions::default().timeout(LONG))
    }

    pub fn say_with(client: &Client, what: &str, options: CallOptions) -> Result<String, Status> {
        let reply: StringValue = client.unary("/test.Echo/Say", &text(what), options)?;
        Ok(reply.value)
    }
}
