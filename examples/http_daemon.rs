//! A plain HTTP daemon with a thread for each connection, which is replaced by a new version of itself without a
//! connection refused or cut. It needs neither gRPC nor a C++ compiler:
//!
//! ```sh
//! cargo run --no-default-features --features upgrade --example http_daemon -- --pid-file /tmp/http_daemon.pid
//! curl http://127.0.0.1:8080/
//! kill -USR2 "$(cat /tmp/http_daemon.pid)"
//! ```

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process;
use std::thread;
use std::time::Duration;

use touchdown::acceptor::{Acceptor, Connection};
use touchdown::lifecycle::{Lifecycle, Report, Signals};
use touchdown::{Listen, Upgrade};

const USAGE: &str = "\
Usage: http_daemon [--pid-file PATH] [ADDRESS]

Answers HTTP requests at ADDRESS: 127.0.0.1:8080 (the default), unix:/run/http.sock, or
systemd:NAME for what a socket unit of systemd has passed.

SIGUSR2 has a new process of the same file take over; SIGTERM stops the program.";

/// How long a client may take for its request, and how long that may be.
const REQUEST_TIME: Duration = Duration::from_secs(10);
const LONGEST_REQUEST: u64 = 16 << 10;

fn main() -> Result<Report, Box<dyn Error>> {
    let logger = env_logger::Env::default().default_filter_or("info");
    env_logger::Builder::from_env(logger).init();
    let mut address = "127.0.0.1:8080".to_owned();
    let mut lifecycle = Lifecycle::builder();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--help" | "-h" => {
                println!("{USAGE}");
                process::exit(0);
            }
            "--pid-file" => lifecycle = lifecycle.pid_file(arguments.next().ok_or(USAGE)?),
            option if option.starts_with('-') => Err(USAGE)?,
            _ => address = argument,
        }
    }
    let lifecycle = lifecycle
        .signals(Signals::process())
        .upgrade(Upgrade::new());
    let lifecycle = lifecycle.build()?;
    #[cfg(feature = "systemd")]
    touchdown::systemd::Notify::attach(&lifecycle)?;
    match Listen::new(address).bind(&lifecycle) {
        Ok(acceptor) => serve(&acceptor, &lifecycle),
        // A process that this one was to replace hears of it, and goes on.
        Err(error) => lifecycle.fail(error),
    }
    Ok(lifecycle.wait())
}

fn serve(acceptor: &Acceptor, lifecycle: &Lifecycle) {
    // Returns once this process may serve. If it stops before, so does `accept`.
    let _ = lifecycle.ready();
    while let Some(connection) = acceptor.accept() {
        let answer = thread::Builder::new().name("http".to_owned());
        let answer = answer.spawn(move || answer_to(&connection).map_err(|it| log::warn!("{it}")));
        if let Err(error) = answer {
            log::error!("cannot start a thread: {error}");
        }
    }
}

/// Answers one request, and closes the connection.
fn answer_to(mut connection: &Connection) -> io::Result<()> {
    connection.set_read_timeout(Some(REQUEST_TIME))?;
    connection.set_write_timeout(Some(REQUEST_TIME))?;
    // All of it is read: what is left unread when a connection is closed has the kernel reset it.
    for line in BufReader::new(connection.take(LONGEST_REQUEST)).lines() {
        if line?.is_empty() {
            let text = format!("Hello from process {}.\n", process::id());
            let length = text.len();
            return write!(
                connection,
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{text}"
            );
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}
