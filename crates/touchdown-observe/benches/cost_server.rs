//! A server for `cost.py`, which measures what being observed costs a call.
//!
//!     cost_server MODE ADDRESS
//!
//! MODE is `bare`, `metrics`, or `all`: metrics, an access log of one call in 100, and traces of one in 10, to a collector that
//! is not there.

use std::time::Duration;

use touchdown::lifecycle::Report;
use touchdown::protobuf::well_known_types::wrappers::StringValue;
use touchdown::{Call, Server, Service, Status};
use touchdown_observe::access_log::AccessLog;
use touchdown_observe::otel::Traces;
use touchdown_observe::{Observe, ObserveServer};

fn main() -> Report {
    let mut words = std::env::args().skip(1);
    let (Some(mode), Some(address)) = (words.next(), words.next()) else {
        eprintln!("usage: cost_server bare|metrics|all ADDRESS");
        std::process::exit(2);
    };
    let greeter = Service::builder("greeter.Greeter")
        .unary("SayHello", |_: &Call, request: StringValue| {
            let mut reply = StringValue::new();
            reply.value = format!("Hello, {}!", request.value);
            Ok::<_, Status>(reply)
        })
        .build();
    let builder = Server::builder().address(address).service(greeter);
    let builder = match &*mode {
        "bare" => builder,
        "metrics" => builder.observe(Observe::at("127.0.0.1:0")),
        "all" => {
            let log = AccessLog::new().one_in(100).slow(Duration::from_secs(10));
            builder
                .observe(Observe::at("127.0.0.1:0"))
                .access_log(log.to(std::io::sink()))
                .traces(Traces::new("http://127.0.0.1:9").sample(0.1))
        }
        _ => return Report::failed_start("the mode is bare, metrics or all"),
    };
    builder.serve()
}
