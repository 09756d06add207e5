//! A plain threaded program that stops without losing a job.
//!
//! One thread makes jobs, four work on them, and a journal is flushed at the end. Run it, then
//! press Ctrl-C: no new jobs, those begun are finished, the journal is written.
//!
//! `cargo run --no-default-features --example lifecycle`

use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{bounded, select, Receiver, Sender};
use touchdown::lifecycle::{Hook, Lifecycle, Plan, Report, Signals, Token, Worker};

fn main() -> Result<Report, Box<dyn Error>> {
    let journal = Arc::new(Mutex::new(Vec::new()));
    let lifecycle = Lifecycle::builder()
        .plan(Plan::new().with_grace_period(Duration::from_secs(5)))
        .signals(Signals::process())
        .observe(|transition| println!("{transition}"))
        .hook(flush(Arc::clone(&journal)))
        .build()?;

    match start(&lifecycle, &journal) {
        Ok(()) => println!("running, press Ctrl-C to stop"),
        // Says nothing if it failed only because a signal came first.
        Err(error) => lifecycle.fail(error),
    }
    let report = lifecycle.wait();
    println!("{report}");
    Ok(report)
}

/// Starts five workers. The drain waits for all of them.
fn start(lifecycle: &Lifecycle, journal: &Arc<Mutex<Vec<u32>>>) -> Result<(), Box<dyn Error>> {
    let (sender, jobs) = bounded(8);
    let workers = lifecycle.workers("jobs");
    workers.spawn(Worker::new("make", move |token| make(&sender, token)))?;
    for number in 1..=4 {
        let (jobs, journal) = (jobs.clone(), Arc::clone(journal));
        let cancelling = lifecycle.cancelling().clone();
        let work = move |_: &Token| work(&jobs, &journal, &cancelling);
        workers.spawn(Worker::new(format!("work {number}"), work))?;
    }
    Ok(lifecycle.ready()?)
}

/// Makes jobs until it is told to stop, when the drain begins.
fn make(jobs: &Sender<u32>, token: &Token) {
    for job in 1.. {
        // A full queue must not keep it from hearing of the drain.
        select! {
            send(jobs, job) -> _ => {}
            recv(token.receiver()) -> _ => return,
        }
        if token.wait_timeout(Duration::from_millis(50)) {
            return;
        }
    }
}

/// Works until there are no more jobs, which is soon after nobody makes them any more.
fn work(jobs: &Receiver<u32>, journal: &Mutex<Vec<u32>>, cancelling: &Token) {
    for job in jobs {
        // The job itself takes 150 ms. It waits on the token rather than sleep, so that it hears
        // if the grace period is over before it is done.
        if !cancelling.wait_timeout(Duration::from_millis(150)) {
            journal.lock().unwrap().push(job);
        }
    }
}

/// Runs when nothing is in flight any more, so the journal is complete.
fn flush(journal: Arc<Mutex<Vec<u32>>>) -> Hook {
    let write = move || {
        println!(
            "journal: {} jobs done",
            journal.lock().map_err(|error| error.to_string())?.len()
        );
        Ok(())
    };
    Hook::new("journal", write).time_limit(Duration::from_secs(2))
}
