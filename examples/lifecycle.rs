//! A plain threaded program that stops without losing a job.
//!
//! One thread makes jobs, four work on them, and a journal is flushed at the end. Run it, then
//! press Ctrl-C: no new jobs, those begun are finished, the journal is written.
//!
//! `cargo run --no-default-features --example lifecycle`

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{bounded, select, Receiver, Sender};
use touchdown::lifecycle::{Hook, Lifecycle, Plan, Report, Signals, Token, Worker};

fn main() -> Report {
    let journal = Arc::new(Mutex::new(Vec::new()));
    let (sender, jobs) = bounded(8);
    let mut program = Lifecycle::builder()
        .plan(Plan::new().with_grace_period(Duration::from_secs(5)))
        .signals(Signals::process())
        .observe(|transition| println!("{transition}"))
        .hook(flush(Arc::clone(&journal)))
        .worker(Worker::new("make", move |token| make(&sender, token)));
    for number in 1..=4 {
        let (jobs, journal) = (jobs.clone(), Arc::clone(&journal));
        let work = move |_: &Token| work(&jobs, &journal);
        program = program.worker(Worker::new(format!("work {number}"), work));
    }
    let report = program.run(|_| {
        println!("running, press Ctrl-C to stop");
        Ok(())
    });
    println!("{report}");
    report
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
fn work(jobs: &Receiver<u32>, journal: &Mutex<Vec<u32>>) {
    for job in jobs {
        thread::sleep(Duration::from_millis(150));
        journal.lock().unwrap().push(job);
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
