//! `examples/greeter_server.rs` with what a benchmark sets: the number of workers, and room for as many
//! connections and waiting calls as it opens. Everything else is at its default.
//!
//!     bench_touchdown ADDRESS [WORKERS]

touchdown::include_protos!();

use std::time::Duration;

use greeter::{greeter_service, Greeter, HelloReply, HelloRequest, ManyHellosRequest};
use touchdown::lifecycle::Report;
use touchdown::{Call, Replies, Requests, Server, Status};

struct Polite;

impl Greeter for Polite {
    fn say_hello(&self, call: &Call, request: HelloRequest) -> Result<HelloReply, Status> {
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
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().expect("ADDRESS [WORKERS]");
    let mut server = Server::builder()
        .address(address)
        .max_connections(8_192)
        .backlog(8_192)
        .service(greeter_service(Polite));
    if let Some(workers) = arguments.next() {
        server = server.workers(workers.parse().expect("a number of workers"));
    }
    server.serve()
}
