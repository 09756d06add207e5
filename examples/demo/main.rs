//! Restarts a server under load and counts what becomes of the calls.
//!
//!     make demo
//!
//! The greeter of `greeter_server.rs` runs as a process of its own. Several clients make calls of
//! all four kinds, without pause and without retries. In the middle of it the server gets SIGTERM;
//! once it has exited, the next one starts on the same port, while the clients go on.

mod load;
mod options;
mod server;
mod terminal;

use std::error::Error;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use touchdown::lifecycle::{Lifecycle, Signals, Token};

use load::{Counts, Load};
use options::Options;
use server::{Exit, Server};
use terminal::{number, percent, seconds, Terminal};

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

/// One server's stop.
struct Stop {
    in_flight: u64,
    turned_away: u64,
    lost: u64,
    exit: Exit,
}

/// Says whether all went well.
fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    // Ctrl-C ends the demo early, with the verdict on what there is.
    let lifecycle = Lifecycle::builder().signals(Signals::process()).build()?;
    lifecycle.serving()?;

    let terminal = Terminal::new();
    terminal.line(format!(
        "{} servers, one after the other; {} clients with {} callers each; handlers of up to {} ms; \
         no retries",
        options.servers, options.clients, options.callers, options.think_ms
    ));
    let mut server = Server::start(1, "127.0.0.1:0", options, &terminal)?;
    let address = server.address().to_owned();
    let load = Load::start(&address, options);

    let mut stops = Vec::new();
    loop {
        let interrupted = watch(&load, options.serve_for, lifecycle.stopping(), &terminal);
        stops.push(stop(server, &load, &terminal)?);
        if interrupted || stops.len() == options.servers {
            break;
        }
        server = Server::start(stops.len() + 1, &address, options, &terminal)?;
    }
    let (counts, losses) = load.finish();
    Ok(verdict(&stops, counts, &losses))
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
        terminal.line(format!(
            "{:>9} sent {:>9} landed {:>5} in flight {:>5} lost",
            number(counts.sent()),
            number(counts.landed),
            number(counts.in_flight()),
            number(counts.lost)
        ));
    }
}

fn stop(server: Server, load: &Load, terminal: &Terminal) -> Result<Stop, Box<dyn Error>> {
    let before = load.counts();
    terminal.line(format!(
        "SIGTERM to server {}, with {} calls in flight",
        server.number(),
        before.in_flight()
    ));
    let exit = server.terminate()?;
    // The last replies are with the clients' kernel; let their threads read them.
    thread::sleep(Duration::from_millis(50));
    let after = load.counts();
    Ok(Stop {
        in_flight: before.in_flight(),
        turned_away: after.turned_away - before.turned_away,
        lost: after.lost - before.lost,
        exit,
    })
}

fn verdict(stops: &[Stop], counts: Counts, losses: &[String]) -> bool {
    println!("\nstop   in flight at SIGTERM   SIGTERM to exit   exit code    lost");
    for (place, stop) in stops.iter().enumerate() {
        println!(
            "{:>4}   {:>20}   {:>15}   {:>9}   {:>5}",
            place + 1,
            number(stop.in_flight),
            seconds(stop.exit.took),
            stop.exit.code(),
            number(stop.lost)
        );
    }
    println!("\ncalls sent   {:>12}", number(counts.sent()));
    println!("      landed {:>12}", number(counts.landed));
    println!(
        "      lost   {:>12}   {}",
        number(counts.lost),
        percent(counts.lost, counts.sent())
    );
    println!(
        "\nTurned away while no server listened, so never sent: {}.",
        number(counts.turned_away)
    );
    if let Some(completed) = stops
        .iter()
        .map(|it| it.exit.completed)
        .sum::<Option<u64>>()
    {
        println!(
            "The servers' own count of completed calls: {}.",
            number(completed)
        );
    }
    for loss in losses {
        println!("lost: {loss}");
    }
    let clean = stops.iter().all(|stop| stop.exit.status.success());
    match (counts.lost, clean) {
        _ if counts.landed == 0 => println!("\nNo call landed, so this shows nothing."),
        (0, true) => println!("\nNo call was lost in {} stops.", stops.len()),
        (0, false) => println!("\nNo call was lost, but not every server stopped cleanly."),
        (lost, _) => println!("\n{} calls were lost.", number(lost)),
    }
    counts.lost == 0 && clean && counts.landed > 0
}
