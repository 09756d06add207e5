//! Restarts a server under load and counts what becomes of the calls.
//!
//!     make demo
//!
//! The greeter of `greeter_server.rs` runs as a process of its own. Several clients make calls of
//! all four kinds, without pause and without a retry policy. In the middle of it the server gets SIGTERM;
//! once it has exited, the next one starts on the same port, while the clients go on.

mod load;
mod options;
mod server;
mod terminal;

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use touchdown::lifecycle::{Lifecycle, Signals, Token};

use load::{Counts, Load};
use options::{Options, StopSignal};
use server::{Exit, Server};
use terminal::{number, time, Terminal};

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error}\nSee --help.");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::from(2)
        }
    }
}

/// Says whether all went well.
fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    // Ctrl-C ends the demo early, with the verdict on what there is.
    let lifecycle = Lifecycle::builder().signals(Signals::process()).build()?;
    lifecycle.ready()?;

    let terminal = Terminal::new();
    println!(
        "{} servers, one after the other. {} clients with {} callers each make calls of all four\n\
         kinds, which take up to {} ms, without pause and without a retry policy.\n",
        options.servers, options.clients, options.callers, options.think_ms
    );
    let mut server = Server::start(1, "127.0.0.1:0", options, &terminal)?;
    let address = server.address().to_owned();
    let load = Load::start(&address, options, &terminal);

    let mut stops = Vec::new();
    loop {
        let interrupted = watch(&load, options.serve_for, lifecycle.stopping(), &terminal);
        stops.push(stop(server, options.signal, &load, &terminal)?);
        if interrupted || stops.len() == options.servers {
            break;
        }
        server = Server::start(stops.len() + 1, &address, options, &terminal)?;
    }
    Ok(verdict(&stops, load.finish()))
}

/// Shows the counts once a second until the time is over or the user has had enough, and says
/// whether it was the user.
fn watch(load: &Load, time: Duration, enough: &Token, terminal: &Terminal) -> bool {
    let end = Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        if enough.wait_timeout(left.min(Duration::from_secs(1))) {
            return true;
        }
        let counts = load.counts();
        terminal.line(&format!(
            "{:>9} sent {:>9} landed {:>5} in flight {:>5} lost",
            number(counts.sent()),
            number(counts.landed),
            number(counts.in_flight()),
            number(counts.lost)
        ));
    }
}

/// One server's stop.
struct Stop {
    in_flight: u64,
    exit: Exit,
}

fn stop(
    server: Server,
    signal: StopSignal,
    load: &Load,
    terminal: &Terminal,
) -> Result<Stop, Box<dyn Error>> {
    let in_flight = load.counts().in_flight();
    terminal.line(&format!(
        "{signal} to server {}, with {} calls in flight",
        server.number(),
        number(in_flight)
    ));
    let exit = server.stop(signal)?;
    terminal.line(&format!(
        "server exited, {} after {signal}: {}",
        time(exit.took),
        exit.status
    ));
    Ok(Stop { in_flight, exit })
}

fn verdict(stops: &[Stop], counts: Counts) -> bool {
    println!("\nstop   in flight at the signal   signal to exit   exit code");
    for (place, stop) in stops.iter().enumerate() {
        println!(
            "{:>4}   {:>23}   {:>14}   {:>9}",
            place + 1,
            number(stop.in_flight),
            time(stop.exit.took),
            stop.exit.code()
        );
    }
    println!("\ncalls sent   {:>12}", number(counts.sent()));
    println!("      landed {:>12}", number(counts.landed));
    println!("      lost   {:>12}", number(counts.lost));
    println!(
        "\nTurned away while no server was listening, so never sent: {}.",
        number(counts.turned_away)
    );
    let completed = stops.iter().map(|stop| stop.exit.completed);
    if let Some(completed) = completed.sum::<Option<u64>>() {
        println!(
            "Completed by the servers' own count: {}.",
            number(completed)
        );
    }
    let clean = stops.iter().all(|stop| stop.exit.status.success());
    let text = match (counts.landed, counts.lost) {
        (0, _) => "No call landed, so this shows nothing.".to_owned(),
        (_, 0) if clean && stops.len() == 1 => "No call was lost in one stop.".to_owned(),
        (_, 0) if clean => format!("No call was lost in {} stops.", stops.len()),
        (_, 0) => "No call was lost, but not every server stopped cleanly.".to_owned(),
        (_, lost) => format!(
            "{} of {} calls were lost.",
            number(lost),
            number(counts.sent())
        ),
    };
    println!("\n{text}");
    counts.landed > 0 && counts.lost == 0 && clean
}
