//! A server with what it needs on a board: TLS, an admin socket, a pid file, systemd, hot restart.
//!
//!     cargo run --features admin,systemd,tls --example board_server -- --help

touchdown::include_protos!();

use std::process::ExitCode;
use std::time::Duration;

use greeter::{HelloReply, HelloRequest};
use touchdown::admin::Admin;
use touchdown::lifecycle::{Lifecycle, Report, Signals};
use touchdown::systemd::Notify;
use touchdown::{Call, Listen, Server, Service, Status, Tls, Upgrade};

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
    Ok(HelloReply {
        text: format!("Hello, {}!", name.unwrap_or(request.name)),
        ..Default::default()
    })
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
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    if std::env::args().any(|it| it == "--help") {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let Some(options) = Options::read(std::env::args().skip(1)) else {
        eprintln!("{HELP}");
        return ExitCode::from(2);
    };
    match serve(options) {
        Ok(report) => report.into(),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: Options) -> Result<Report, Box<dyn std::error::Error>> {
    let mut lifecycle = Lifecycle::builder()
        .signals(Signals::process())
        .upgrade(Upgrade::new());
    let greeter = Service::builder("greeter.Greeter").unary("SayHello", say_hello);
    let mut builder = Server::builder().service(greeter.build());
    let mut listens: Vec<Listen> = options.addresses.into_iter().map(Listen::new).collect();
    if let Some((chain, key)) = options.tls {
        let files = Tls::from_pem_files(chain, key);
        let tls = match options.client_ca {
            Some(ca) => files.client_ca(ca).load()?,
            None => files.load()?,
        };
        listens = listens.into_iter().map(|it| it.tls(tls.clone())).collect();
        lifecycle = lifecycle.on_reload("tls", move || Ok(tls.reload()?));
    }
    if let Some(path) = options.pid_file {
        lifecycle = lifecycle.pid_file(path);
    }
    if let Some(path) = options.admin {
        builder = builder.admin(Admin::at(path));
    }
    for listen in listens {
        builder = builder.listen(listen);
    }
    let lifecycle = lifecycle.build()?;
    Notify::attach(&lifecycle)?;
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
    let _ = lifecycle.ready();
    Ok(server.wait())
}
