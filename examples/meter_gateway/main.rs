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

use crossbeam_channel::select;
use touchdown::admin::Admin;
use touchdown::lifecycle::{Hook, Lifecycle, Report, StartupHook, Token, Worker};
use touchdown::{
    Broadcast, Call, Health, Listen, Received, Replies, Requests, Server, ServingStatus,
    SlowSubscriber, Status, Tls,
};

use entries::Ledger;
use meter::{
    meter_methods, meter_service, Entry, Meter, ReadRequest, Reading, Receipt, Summary,
    WatchRequest,
};
use serial::Port;

const USAGE: &str = "usage: meter_gateway --serial DEVICE --ledger FILE [OPTIONS]

  --listen ADDRESS          HOST:PORT, unix:PATH or systemd:NAME   [127.0.0.1:50051]
  --tls ADDRESS CHAIN KEY   listen there, too, with these PEM files; SIGHUP reads them again
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
    ledger: Arc<Ledger>,
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
        self.ledger.book(&entries)?;
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
                    self.ledger.book(std::slice::from_ref(&entry))?;
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
    fn ask(&self, patience: Duration) -> Result<Reading, Status> {
        Ok(Reading {
            watt_hours: self.port.ask(patience)?,
            process: process::id(),
            ..Default::default()
        })
    }

    /// Asks the meter for all who watch, until the program drains. Only the process in charge may open the port.
    fn poll(&self, in_charge: &Token, token: &Token) {
        select! {
            recv(in_charge.receiver()) -> _ => {}
            recv(token.receiver()) -> _ => return,
        }
        while !token.wait_timeout(INTERVAL) {
            if let Err(error) = self.port.open() {
                log::info!("the meter's port: {error}");
                continue;
            }
            let reading = self.ask(Duration::ZERO);
            // Not before: a process that says NOT_SERVING of itself replaces no other.
            self.health.set(
                meter_methods::SERVICE,
                match reading {
                    Ok(_) => ServingStatus::Serving,
                    Err(_) => ServingStatus::NotServing,
                },
            );
            match reading.and_then(|it| self.readings.publish(&it)) {
                Ok(_) => {}
                Err(status) => log::warn!("{status}"),
            }
        }
    }
}

/// What is asked for on the command line.
#[derive(Default)]
struct Options {
    serial: String,
    ledger: String,
    listen: Vec<Listen>,
    admin: Option<String>,
    pid_file: Option<String>,
}

impl Options {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Options, Box<dyn Error>> {
        let mut options = Options::default();
        while let Some(word) = words.next() {
            let mut next = || {
                words
                    .next()
                    .ok_or_else(|| format!("{word} needs more words"))
            };
            match word.as_str() {
                "--serial" => options.serial = next()?,
                "--ledger" => options.ledger = next()?,
                "--listen" => options.listen.push(Listen::new(next()?)),
                "--tls" => {
                    let listen = Listen::new(next()?);
                    let tls = Tls::from_pem_files(next()?, next()?).load()?;
                    options.listen.push(listen.tls(tls));
                }
                "--admin" => options.admin = Some(next()?),
                "--pid-file" => options.pid_file = Some(next()?),
                _ => return Err(format!("what is {word}?").into()),
            }
        }
        if options.serial.is_empty() || options.ledger.is_empty() {
            return Err("a serial device and a ledger are needed".into());
        }
        if options.listen.is_empty() {
            options.listen.push(Listen::new("127.0.0.1:50051"));
        }
        Ok(options)
    }
}

fn main() -> Result<Report, Box<dyn Error>> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let words = arguments::words(USAGE);
    if words.is_empty() {
        arguments::wrong(USAGE);
    }
    let options = Options::read(words.into_iter())?;
    let gateway = Gateway {
        port: Arc::new(Port::new(&options.serial)),
        ledger: Arc::new(Ledger::new(&options.ledger)),
        readings: Broadcast::new(16, SlowSubscriber::DropOldest),
        health: Health::new(),
    };
    let (ledger, port, health) = (
        gateway.ledger.clone(),
        gateway.port.clone(),
        gateway.health.clone(),
    );
    let poller = gateway.clone();

    let mut lifecycle = Lifecycle::builder()
        .startup(StartupHook::new("ledger", move || Ok(ledger.open()?)))
        .hook(Hook::new("serial port", move || Ok(port.close())));
    if let Some(path) = options.pid_file {
        lifecycle = lifecycle.pid_file(path);
    }
    let mut builder = Server::builder()
        .service(meter_service(gateway))
        .health(health)
        .systemd();
    for listen in options.listen {
        builder = builder.listen(listen);
    }
    if let Some(path) = options.admin {
        builder = builder.admin(Admin::at(path));
    }
    Ok(builder
        .lifecycle(lifecycle)
        .set_up(move |lifecycle| {
            let in_charge = lifecycle.in_charge().clone();
            let poll = Worker::new("meter", move |token: &Token| poller.poll(&in_charge, token));
            Ok(lifecycle.workers("serial").spawn(poll)?)
        })
        .on_listening(|server| println!("listening at {}", server.address()))
        .serve())
}
