//! A server with all four kinds of call.
//!
//!     cargo run --example greeter_server -- 127.0.0.1:50051
//!
//! Stop it with Ctrl-C or `kill`: calls in flight end as they should. Or build it anew, and let the new
//! one take over with `kill -USR2`: no call is refused.

mod arguments;
touchdown::include_protos!();

use std::time::Duration;

use greeter::{greeter_service, Greeter, HelloReply, HelloRequest, ManyHellosRequest};
use touchdown::lifecycle::Report;
use touchdown::{Call, Replies, Requests, Server, Status};

const USAGE: &str = "usage: greeter_server [ADDRESS]

ADDRESS is HOST:PORT or unix:PATH; 127.0.0.1:50051 without it.";

struct Polite;

impl Greeter for Polite {
    fn say_hello(&self, call: &Call, request: HelloRequest) -> Result<HelloReply, Status> {
        // Waits, like a handler that asks a sensor, but not for a caller that has left.
        let think = Duration::from_millis(request.think_ms.into());
        if !think.is_zero() && call.token().wait_timeout(think) {
            return Err(Status::cancelled("nobody waits for this any more"));
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
    let name = if name.is_empty() { "you" } else { name };
    HelloReply {
        text: format!("Hello, {name}!"),
        ..Default::default()
    }
}

fn main() -> Report {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let words = arguments::words(USAGE);
    let address = match &*words {
        [] => "127.0.0.1:50051",
        [address] if !address.starts_with('-') => address,
        _ => arguments::wrong(USAGE),
    };
    Server::builder()
        .address(address)
        .service(greeter_service(Polite))
        .on_listening(|server| println!("listening at {}", server.address()))
        .serve()
}
