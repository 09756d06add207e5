//! A server with all four kinds of call.
//!
//!     cargo run --example greeter_server -- 127.0.0.1:50051
//!
//! Stop it with Ctrl-C or `kill`: calls in flight end as they should. Or build it anew, and let the new
//! one take over with `kill -USR2`: no call is refused.

touchdown::include_protos!();

use std::time::Duration;

use greeter::{greeter_service, Greeter, HelloReply, HelloRequest, ManyHellosRequest};
use touchdown::lifecycle::{Lifecycle, Report, Signals};
use touchdown::{Call, Replies, Requests, Server, Status, Upgrade};

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

/// Says how the program is called: because it is asked, or because it was called otherwise.
fn usage(arguments: &[String]) -> ! {
    if arguments.iter().any(|it| it == "--help") {
        println!("{USAGE}");
        std::process::exit(0);
    }
    eprintln!("{USAGE}");
    std::process::exit(2);
}

fn main() -> Report {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let address = match arguments.as_slice() {
        [] => "127.0.0.1:50051",
        [address] if !address.starts_with('-') => address,
        _ => usage(&arguments),
    };

    // `serve()` instead of `start_with()` does all of this, but for printing the address.
    let lifecycle = Lifecycle::builder()
        .signals(Signals::process())
        .upgrade(Upgrade::new())
        .build();
    let lifecycle = match lifecycle {
        Ok(lifecycle) => lifecycle,
        Err(error) => return Report::failed_start(error),
    };
    let builder = Server::builder()
        .address(address)
        .service(greeter_service(Polite));
    let server = match builder.start_with(&lifecycle) {
        Ok(server) => server,
        Err(error) => {
            // Changes nothing if a signal has begun the stop already.
            lifecycle.fail(error);
            return lifecycle.wait();
        }
    };
    println!("listening at {}", server.address());
    // Refused if a signal has begun the stop already; then there is nothing to do but wait for it.
    let _ = lifecycle.ready();
    server.wait()
}
