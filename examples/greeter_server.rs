//! A server with all four kinds of call.
//!
//!     cargo run --example greeter_server -- 127.0.0.1:50051
//!
//! With a certificate, its key, and, if clients must show a certificate, too, their CA:
//!
//!     cargo run --example greeter_server --features tls -- 0.0.0.0:50051 chain.pem key.pem ca.pem
//!
//! Stop it with Ctrl-C or `kill`: calls in flight end as they should. Or build it anew, and let the new
//! one take over with `kill -USR2`: no call is refused.

touchdown::include_protos!();

use std::time::Duration;

use greeter::{greeter_service, Greeter, HelloReply, HelloRequest, ManyHellosRequest};
use touchdown::lifecycle::{Builder, Lifecycle, Report, Signals};
#[cfg(feature = "tls")]
use touchdown::Tls;
use touchdown::{Call, Listen, Replies, Requests, Server, Status, Upgrade};

struct Polite;

impl Greeter for Polite {
    fn say_hello(&self, call: &Call, request: HelloRequest) -> Result<HelloReply, Status> {
        // Waits, like a handler that asks a sensor, but not for a caller who has left.
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

/// Reads the certificates, now and whenever SIGHUP comes.
#[cfg(feature = "tls")]
fn with_tls(
    listen: Listen,
    lifecycle: Builder,
    files: Vec<String>,
) -> Result<(Listen, Builder), Box<dyn std::error::Error>> {
    let [chain, key, ca @ ..] = &files[..] else {
        return Ok((listen, lifecycle));
    };
    let files = Tls::from_pem_files(chain, key);
    let tls = match ca {
        [] => files,
        [ca, ..] => files.client_ca(ca),
    };
    let tls = tls.load()?;
    let listen = listen.tls(tls.clone());
    Ok((
        listen,
        lifecycle.on_reload("tls", move || Ok(tls.reload()?)),
    ))
}

#[cfg(not(feature = "tls"))]
fn with_tls(
    listen: Listen,
    lifecycle: Builder,
    files: Vec<String>,
) -> Result<(Listen, Builder), Box<dyn std::error::Error>> {
    match files.is_empty() {
        true => Ok((listen, lifecycle)),
        false => Err("certificates need the feature `tls`".into()),
    }
}

fn main() -> Result<Report, Box<dyn std::error::Error>> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or("127.0.0.1:50051".to_owned());
    let lifecycle = Lifecycle::builder().signals(Signals::process());
    let (listen, lifecycle) = with_tls(Listen::new(address), lifecycle, arguments.collect())?;

    // `serve()` instead of `start_with()` does all of this, but for printing the address.
    let lifecycle = lifecycle.upgrade(Upgrade::new()).build()?;
    #[cfg(feature = "systemd")]
    touchdown::systemd::Notify::attach(&lifecycle)?;
    let builder = Server::builder()
        .listen(listen)
        .service(greeter_service(Polite));
    let server = match builder.start_with(&lifecycle) {
        Ok(server) => server,
        Err(error) => {
            // Changes nothing if a signal has begun the stop already.
            lifecycle.fail(error);
            return Ok(lifecycle.wait());
        }
    };
    println!("listening at {}", server.address());
    // Refused if a signal has begun the stop already; then there is nothing to do but wait for it.
    let _ = lifecycle.serving();
    Ok(server.wait())
}
