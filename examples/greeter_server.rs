//! A server with all four kinds of call, and streams that outlive their handlers.
//!
//!     cargo run --example greeter_server -- 127.0.0.1:50051
//!
//! Stop it with Ctrl-C or `kill`: calls in flight end as they should.

touchdown::include_protos!();

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use greeter::{greeter_service, Greeter, HelloReply, HelloRequest, ManyHellosRequest};
use touchdown::lifecycle::{Lifecycle, Report, Signals};
use touchdown::{Call, DetachedReplies, Replies, Requests, Server, Status};

#[derive(Clone, Default)]
struct Polite {
    subscribers: Arc<Mutex<Vec<DetachedReplies<HelloReply>>>>,
}

impl Greeter for Polite {
    fn say_hello(&self, call: &Call, request: HelloRequest) -> Result<HelloReply, Status> {
        // Waits, like a handler that asks a sensor, but not for a caller who has left.
        if request.think_ms > 0
            && call
                .token()
                .wait_timeout(Duration::from_millis(request.think_ms.into()))
        {
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
        let names = requests
            .map(|request| Ok(request?.name))
            .collect::<Result<Vec<_>, Status>>()?;
        Ok(hello(&names.join(" and ")))
    }

    fn chat(
        &self,
        _: &Call,
        mut requests: Requests<HelloRequest>,
        replies: Replies<HelloReply>,
    ) -> Result<(), Status> {
        requests.try_for_each(|request| replies.send(&hello(&request?.name)))
    }

    fn subscribe(
        &self,
        _: &Call,
        request: HelloRequest,
        replies: Replies<HelloReply>,
    ) -> Result<(), Status> {
        replies.send(&hello(&request.name))?;
        // The worker is free again; `tell_the_time` goes on with this stream.
        self.subscribers.lock().unwrap().push(replies.detach());
        Ok(())
    }
}

fn hello(name: &str) -> HelloReply {
    let name = if name.is_empty() { "you" } else { name };
    HelloReply {
        text: format!("Hello, {name}!"),
        ..Default::default()
    }
}

/// One thread for any number of subscribers. Slow ones miss a message, dead ones are dropped.
fn tell_the_time(greeter: &Polite, lifecycle: &Lifecycle) {
    for second in 1.. {
        let draining = lifecycle.draining().wait_timeout(Duration::from_secs(1));
        let mut subscribers = greeter.subscribers.lock().unwrap();
        if draining {
            subscribers.drain(..).for_each(|it| it.finish(Ok(())));
            return;
        }
        let news = HelloReply {
            text: format!("{second} s"),
            ..Default::default()
        };
        subscribers.retain(|it| !matches!(it.try_send(&news), Err(touchdown::SendError::Ended(_))));
    }
}

fn main() -> Result<Report, Box<dyn std::error::Error>> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let address = std::env::args()
        .nth(1)
        .unwrap_or("127.0.0.1:50051".to_owned());

    let lifecycle = Lifecycle::builder().signals(Signals::process()).build()?;
    let greeter = Polite::default();
    let server = Server::builder()
        .address(address)
        .service(greeter_service(greeter.clone()))
        .start_with(&lifecycle)?;
    println!("listening at {}", server.address());
    lifecycle.serving()?;

    let clock = thread::spawn({
        let lifecycle = lifecycle.clone();
        move || tell_the_time(&greeter, &lifecycle)
    });
    let report = server.wait();
    clock.join().expect("the clock does not panic");
    Ok(report)
}
