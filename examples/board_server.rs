//! A server with what it needs on a board: TLS, an admin socket, a pid file, systemd, hot restart.
//!
//!     cargo run --features admin,systemd,tls --example board_server -- --help

mod arguments;
touchdown::include_protos!();

use std::error::Error;
use std::time::Duration;

use greeter::{HelloReply, HelloRequest, ManyHellosRequest};
use touchdown::admin::Admin;
use touchdown::lifecycle::{Lifecycle, Report};
use touchdown::{Call, Listen, Replies, Requests, Server, Service, Status, Tls, TlsError};

const HELP: &str = "\
usage: board_server [OPTIONS] [ADDRESS...]

  ADDRESS                 HOST:PORT, unix:PATH or systemd:NAME   [127.0.0.1:50051]
  --tls CHAIN KEY         speak TLS, with these PEM files; SIGHUP reads them again
  --client-ca FILE        let in only clients with a certificate of this CA
  --admin PATH            serve the admin service on a unix socket
  --pid-file PATH         write the process's id to this file

SIGTERM stops it, SIGUSR2 has the program, built anew, take over, SIGUSR1 says what it is at.";

/// Greets the caller by the name in its certificate, if it has one.
fn say_hello(call: &Call, request: HelloRequest) -> Result<HelloReply, Status> {
    call.token()
        .wait_timeout(Duration::from_millis(request.think_ms.into()));
    let certificate = call.peer_certificate();
    let name = certificate.and_then(|it| it.common_name().map(str::to_owned));
    Ok(hello(&name.unwrap_or(request.name)))
}

fn hello(name: &str) -> HelloReply {
    HelloReply {
        text: format!("Hello, {name}!"),
        ..Default::default()
    }
}

/// Greets the caller as often as it asks for.
fn say_many_hellos(
    _: &Call,
    request: ManyHellosRequest,
    replies: Replies<HelloReply>,
) -> Result<(), Status> {
    (0..request.count).try_for_each(|_| replies.send(&hello(&request.name)))
}

/// Greets all whom the caller names, once it has named them.
fn greet_everybody(_: &Call, requests: Requests<HelloRequest>) -> Result<HelloReply, Status> {
    let names: Result<Vec<_>, Status> = requests.map(|it| Ok(it?.name)).collect();
    Ok(hello(&names?.join(" and ")))
}

#[derive(Default)]
struct Options {
    addresses: Vec<String>,
    tls: Option<(String, String)>,
    client_ca: Option<String>,
    admin: Option<String>,
    pid_file: Option<String>,
}

impl Options {
    fn read(mut words: impl Iterator<Item = String>) -> Option<Options> {
        let mut options = Options::default();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--tls" => options.tls = Some((words.next()?, words.next()?)),
                "--client-ca" => options.client_ca = Some(words.next()?),
                "--admin" => options.admin = Some(words.next()?),
                "--pid-file" => options.pid_file = Some(words.next()?),
                word if word.starts_with('-') => return None,
                _ => options.addresses.push(word),
            }
        }
        if options.addresses.is_empty() {
            options.addresses.push("127.0.0.1:50051".to_owned());
        }
        Some(options)
    }

    /// The certificates. SIGHUP has the server read them again.
    fn tls(&self) -> Result<Option<Tls>, TlsError> {
        let Some((chain, key)) = &self.tls else {
            return Ok(None);
        };
        let files = Tls::from_pem_files(chain, key);
        match &self.client_ca {
            Some(ca) => files.client_ca(ca).load().map(Some),
            None => files.load().map(Some),
        }
    }
}

fn main() -> Result<Report, Box<dyn Error>> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let options = Options::read(arguments::words(HELP).into_iter());
    let options = options.unwrap_or_else(|| arguments::wrong(HELP));

    let greeter = Service::builder("greeter.Greeter")
        .unary("SayHello", say_hello)
        .server_streaming("SayManyHellos", say_many_hellos)
        .client_streaming("GreetEverybody", greet_everybody);
    let mut builder = Server::builder().service(greeter.build()).systemd();
    let tls = options.tls()?;
    for address in options.addresses {
        let listen = Listen::new(address);
        builder = builder.listen(match &tls {
            Some(tls) => listen.tls(tls.clone()),
            None => listen,
        });
    }
    if let Some(path) = options.admin {
        builder = builder.admin(Admin::at(path));
    }
    if let Some(path) = options.pid_file {
        builder = builder.lifecycle(Lifecycle::builder().pid_file(path));
    }
    Ok(builder
        .on_listening(|server| println!("listening at {}", server.address()))
        .serve())
}
