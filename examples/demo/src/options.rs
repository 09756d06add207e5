//! The command line.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

const HELP: &str = "\
Restarts a gRPC server under load and counts what becomes of the calls.

Usage: demo [OPTIONS]

  --servers N     how many servers to start and stop, one after the other  [3]
  --seconds N     how long each serves before SIGTERM                      [3]
  --clients N     how many clients, each with a connection of its own      [4]
  --callers N     how many threads make calls through each client          [4]
  --think MS      the longest that a handler takes, in milliseconds        [20]
  --kill          send SIGKILL, which no server survives, instead of SIGTERM:
                  shows what is counted as lost
  --server PATH   the server's program   [greeter_server, next to this one]
  --help          this text

Exit code: 0 if no call was lost and every server stopped cleanly, 1 if not,
2 if the demo could not be run.
";

pub struct Options {
    pub servers: usize,
    pub serve_for: Duration,
    pub clients: usize,
    pub callers: usize,
    pub think_ms: u32,
    pub signal: StopSignal,
    pub program: Option<PathBuf>,
}

#[derive(Clone, Copy)]
pub enum StopSignal {
    Term,
    Kill,
}

impl StopSignal {
    pub fn number(self) -> libc::c_int {
        match self {
            StopSignal::Term => libc::SIGTERM,
            StopSignal::Kill => libc::SIGKILL,
        }
    }
}

impl fmt::Display for StopSignal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            StopSignal::Term => "SIGTERM",
            StopSignal::Kill => "SIGKILL",
        })
    }
}

impl Options {
    /// `None` if all that was asked for is help, which has been printed.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
        let mut options = Options {
            servers: 3,
            serve_for: Duration::from_secs(3),
            clients: 4,
            callers: 4,
            think_ms: 20,
            signal: StopSignal::Term,
            program: None,
        };
        while let Some(name) = arguments.next() {
            if name == "--help" || name == "-h" {
                print!("{HELP}");
                return Ok(None);
            }
            if name == "--kill" {
                options.signal = StopSignal::Kill;
                continue;
            }
            let value = arguments.next();
            let value = || value.ok_or(format!("{name} wants a value"));
            match name.as_str() {
                "--servers" => options.servers = parse(&name, &value()?, 1)?,
                "--seconds" => {
                    options.serve_for = Duration::from_secs(parse(&name, &value()?, 1)?);
                }
                "--clients" => options.clients = parse(&name, &value()?, 1)?,
                "--callers" => options.callers = parse(&name, &value()?, 1)?,
                "--think" => options.think_ms = parse(&name, &value()?, 0)?,
                "--server" => options.program = Some(value()?.into()),
                _ => return Err(format!("there is no option {name}")),
            }
        }
        Ok(Some(options))
    }
}

fn parse<T: FromStr + PartialOrd>(name: &str, value: &str, least: T) -> Result<T, String> {
    match value.parse() {
        Ok(number) if number >= least => Ok(number),
        _ => Err(format!("{name} {value} makes no sense")),
    }
}
