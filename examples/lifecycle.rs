//! A plain threaded program that stops without losing a job.
//!
//! One thread makes jobs, four work on them, and a journal is flushed at the end. Run it, then
//! press Ctrl-C: no new jobs, those begun are finished, the journal is written.
//!
//! `cargo run --no-default-features --example lifecycle`

use std::error::Error;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{bounded, select, Receiver};
use touchdown::lifecycle::{Hook, Lifecycle, OwnedGuard, Plan, Report, Signals};

/// A job, and the guard that keeps the program from closing before the job is done.
struct Job {
    number: u32,
    in_flight: OwnedGuard,
}

fn main() -> Result<Report, Box<dyn Error>> {
    let journal = Arc::new(Mutex::new(Vec::new()));
    let lifecycle = Lifecycle::builder()
        .plan(Plan::new().grace_period(Duration::from_secs(5)))
        .signals(Signals::process())
        .observe(|transition| println!("{transition}"))
        .hook(flush(Arc::clone(&journal)))
        .build()?;

    let (sender, jobs) = bounded(8);
    for _ in 0..4 {
        let (jobs, journal, lifecycle) = (jobs.clone(), Arc::clone(&journal), lifecycle.clone());
        thread::spawn(move || work(&jobs, &journal, &lifecycle));
    }

    // Everything is ready. An error here means that a signal came first; then it only remains to
    // wait.
    if lifecycle.serving().is_ok() {
        println!("running, press Ctrl-C to stop");
    }

    // From here on this thread makes jobs, until the drain begins: then the gate refuses.
    for number in 1.. {
        let Ok(in_flight) = lifecycle.in_flight().enter_owned() else {
            break;
        };
        // A full queue must not keep this thread from hearing of the drain.
        select! {
            send(sender, Job { number, in_flight }) -> _ => {}
            recv(lifecycle.draining().receiver()) -> _ => break,
        }
        thread::sleep(Duration::from_millis(50));
    }

    let report = lifecycle.wait();
    println!("{report}");
    Ok(report)
}

/// Works until there are no more jobs.
fn work(jobs: &Receiver<Job>, journal: &Mutex<Vec<u32>>, lifecycle: &Lifecycle) {
    for job in jobs {
        // The job itself takes 150 ms. It waits on the token rather than sleep, so that it hears
        // if the grace period is over before it is done.
        let told_to_stop = lifecycle
            .cancelling()
            .wait_timeout(Duration::from_millis(150));
        if !told_to_stop {
            journal.lock().unwrap().push(job.number);
        }
        drop(job.in_flight);
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
