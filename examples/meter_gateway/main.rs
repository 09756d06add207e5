//! A gateway from gRPC to an electricity meter on a serial line, with a ledger that must not lose an entry. It is replaced by
//! a new version of itself, stopped and started without losing a call.
//!
//! ```sh
//! cargo run --features admin,systemd,tls --example meter_gateway -- --serial /dev/ttyUSB0 --ledger ledger.txt \
//!     --listen unix:/run/meter.sock --admin /run/meter-admin.sock
//! ```
//!
//! `tests/meter_gateway.rs` restarts it under load, with a meter that is a program.

#[path = "../arguments/mod.rs"]
mod arguments;
mod entries;
mod serial;

touchdown::include_protos!();

use std::error::Error;
use std::process;
use std::sync::Arc;
use std::time::Duration;

use touchdown::admin::Admin;
use touchdown::lifecycle::{
    self, Hook, Lifecycle, Opened, Remote, Report, StartupHook, Token, Worker,
};
use touchdown::{
    Broadcast, Call, Code, Health, Listen, OrStatus, Received, Replies, Requests, Server,
    ServerBuilder, ServingStatus, SlowSubscriber, Status, Tls,
};

use entries::Ledger;
use meter::{
    meter_methods, meter_service, Entry, Meter, ReadRequest, Reading, Receipt, Summary,
    WatchRequest,
};
use serial::Port;

const USAGE: &str = "usage: meter_gateway --serial DEVICE --ledger FILE [OPTIONS]

  --listen ADDRESS          HOST:PORT, unix:PATH or systemd:NAME; may be there more than once
  --tls ADDRESS CHAIN KEY   listen there with these PEM files, too; SIGHUP reads them again
  --admin PATH              serve the admin service on a unix socket
  --pid-file PATH           write the process's id to this file

SIGTERM stops it, SIGUSR2 has the program, built anew, take over, SIGUSR1 says what it is at.";

/// How often the meter is asked, for those who watch.
const INTERVAL: Duration = Duration::from_millis(500);

/// How long a caller without a deadline waits for the meter.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone)]
struct Gateway {
    port: Arc<Port>,
    ledger: Opened<Ledger>,
    readings: Broadcast<Reading>,
    health: Health,
}

impl Meter for Gateway {
    fn read(&self, call: &Call, _: ReadRequest) -> Result<Reading, Status> {
        // In a hot restart the port is the old process's until that has gone: this waits for it.
        self.ask(call.time_remaining().unwrap_or(PATIENCE))
    }

    fn watch(&self, _: &Call, _: WatchRequest, replies: Replies<Reading>) -> Result<(), Status> {
        self.readings.subscribe(replies)
    }

    fn upload(&self, _: &Call, requests: Requests<Entry>) -> Result<Summary, Status> {
        let entries = requests.collect::<Result<Vec<_>, Status>>()?;
        self.write_down(&entries)?;
        Ok(Summary {
            entries: entries.len() as u32,
            cents: entries.iter().map(|it| it.cents).sum(),
            ..Default::default()
        })
    }

    fn book(
        &self,
        call: &Call,
        mut requests: Requests<Entry>,
        replies: Replies<Receipt>,
    ) -> Result<(), Status> {
        let draining = call.draining();
        loop {
            match requests.recv_until(&[&draining])? {
                Received::Request(entry) => {
                    self.write_down(std::slice::from_ref(&entry))?;
                    let id = entry.id;
                    replies.send(&Receipt {
                        id,
                        ..Default::default()
                    })?;
                }
                // What was not acknowledged the caller sends elsewhere.
                Received::End | Received::Cancelled(_) => return Ok(()),
            }
        }
    }
}

impl Gateway {
    fn write_down(&self, entries: &[Entry]) -> Result<(), Status> {
        let ledger = self.ledger.get();
        let ledger = ledger.or_status(Code::Unavailable, "the ledger is not open")?;
        ledger.book(entries)
    }

    fn ask(&self, patience: Duration) -> Result<Reading, Status> {
        Ok(Reading {
            watt_hours: self.port.ask(patience)?,
            process: process::id(),
            ..Default::default()
        })
    }

    /// Asks the meter for all who watch, until the program drains. Only the process in charge may open the port.
    fn poll(&self, program: &Remote, token: &Token) {
        let open = || self.port.open();
        if program
            .open_in_charge("serial port", INTERVAL, open)
            .is_err()
        {
            return;
        }
        while !token.wait_timeout(INTERVAL) {
            let reading = match self.port.open() {
                Ok(()) => self.ask(Duration::ZERO),
                Err(error) => Err(error.into()),
            };
            let status = match reading {
                Ok(_) => ServingStatus::Serving,
                Err(_) => ServingStatus::NotServing,
            };
            // Not before: a process that says NOT_SERVING of itself replaces no other.
            self.health.set(meter_methods::SERVICE, status);
            if let Err(error) = reading.and_then(|it| self.readings.publish(&it)) {
                log::warn!("{error}");
            }
        }
    }
}

/// Reads the command line, and sets what it asks for.
struct Options {
    serial: String,
    ledger: String,
    server: ServerBuilder,
    lifecycle: lifecycle::Builder,
}

impl Options {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Options, Box<dyn Error>> {
        let (mut serial, mut ledger) = (None, None);
        let (mut server, mut lifecycle) = (Server::builder(), Lifecycle::builder());
        while let Some(word) = words.next() {
            let mut next = || {
                words
                    .next()
                    .ok_or_else(|| format!("{word} needs more words"))
            };
            match word.as_str() {
                "--serial" => serial = Some(next()?),
                "--ledger" => ledger = Some(next()?),
                "--listen" => server = server.address(next()?),
                "--tls" => {
                    let listen = Listen::new(next()?);
                    let tls = Tls::from_pem_files(next()?, next()?).load()?;
                    server = server.listen(listen.tls(tls));
                }
                "--admin" => server = server.admin(Admin::at(next()?)),
                "--pid-file" => lifecycle = lifecycle.pid_file(next()?),
                _ => return Err(format!("what is {word}?").into()),
            }
        }
        Ok(Options {
            serial: serial.ok_or("--serial is missing")?,
            ledger: ledger.ok_or("--ledger is missing")?,
            server,
            lifecycle,
        })
    }
}

fn main() -> Report {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let options = Options::read(arguments::words(USAGE).into_iter()).unwrap_or_else(|error| {
        eprintln!("{error}");
        arguments::wrong(USAGE)
    });
    let (opens, ledger) = StartupHook::opens("ledger", move || Ledger::open(&options.ledger));
    let gateway = Gateway {
        port: Arc::new(Port::new(&options.serial)),
        ledger,
        readings: Broadcast::new(16, SlowSubscriber::DropOldest),
        health: Health::new(),
    };
    let (port, poller) = (gateway.port.clone(), gateway.clone());
    let close = Hook::new("serial port", move || {
        port.close();
        Ok(())
    });
    options
        .server
        .health(gateway.health.clone())
        .service(meter_service(gateway))
        .lifecycle(options.lifecycle.startup(opens).hook(close))
        .set_up(move |lifecycle| {
            let program = lifecycle.remote();
            let poll = Worker::new("meter", move |token| poller.poll(&program, token));
            Ok(lifecycle.workers("serial").spawn(poll)?)
        })
        .systemd()
        .on_listening(|server| println!("listening at {}", server.address()))
        .serve()
}
