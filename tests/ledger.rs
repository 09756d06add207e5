//! `docs/stopping-well.md` says of `examples/ledger/ledger_server.rs` that no transfer is lost that was
//! answered, and none is half done, however it is stopped. Here it is stopped, again and again, on one
//! database and under load, and at the end the file has to agree with what its callers know.
//!
//! That this can fail is shown by servers that are wrong, each in one way.
#![cfg(feature = "client")]

touchdown::include_protos!();

mod common;
mod ledger_support;
mod lifecycle_support;

use std::collections::HashMap;
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicUsize;
use std::sync::{mpsc, Arc};
use std::thread;
use std::time::Duration;

use common::*;
use ledger::{LedgerClient, TransferRequest};
use ledger_support::caller::Caller;
use ledger_support::check::{check, Faults, Known};
use ledger_support::program::{example, Folder, Program};
use ledger_support::wrong::{Mistake, WrongLedger};
use lifecycle_support::{child_as, insisting, role};
use rusqlite::Connection;
use touchdown::lifecycle::exit_code;

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

const CALLERS: u64 = 8;

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stop {
    /// SIGKILL under load.
    Kill,
    /// SIGTERM, and a grace period that may be too short.
    Term,
    /// SIGTERM while a transfer hangs, and SIGKILL: what systemd does at the end of its patience.
    TermKill,
    /// SIGTERM twice while a transfer hangs.
    TermTerm,
    /// SIGTERM three times while a transfer hangs.
    TermTermTerm,
    /// SIGKILL at any moment of the start, when the server may be at work on what an earlier one left.
    KillStart,
}

const STOPS: [Stop; 6] = [
    Stop::Kill,
    Stop::Term,
    Stop::TermKill,
    Stop::TermTerm,
    Stop::TermTermTerm,
    Stop::KillStart,
];

/// A ledger that is started and stopped, and those who call it.
struct Trial<'a> {
    folder: Folder,
    /// Makes the command that serves a database at 127.0.0.1:0 with a grace period in milliseconds.
    server: &'a dyn Fn(&Path, u64) -> Command,
    chance: Chance,
    known: Known,
    next_id: Arc<AtomicUsize>,
    asked_again: usize,
    forced: usize,
    ends: HashMap<(Stop, String), usize>,
}

impl Trial<'_> {
    fn new<'a>(name: &str, seed: u64, server: &'a dyn Fn(&Path, u64) -> Command) -> Trial<'a> {
        let folder = Folder::new(name);
        // The example makes the tables, for wrong servers too.
        let mut first = Program::start(example(&folder.database(), 1000));
        first.hear("listening at");
        first.hear("starting → serving");
        first.signal("TERM");
        let status = first.end();
        assert!(status.success(), "{status}: {:#?}", first.seen);
        Trial {
            folder,
            server,
            chance: Chance(seed),
            known: Known::default(),
            next_id: Arc::default(),
            asked_again: 0,
            forced: 0,
            ends: HashMap::new(),
        }
    }

    /// Starts the server, loads it, and stops it.
    fn round(&mut self, stop: Stop) {
        let grace = match stop {
            // The signals are to end the phases, not the time.
            Stop::TermTerm | Stop::TermTermTerm => LONG.as_millis() as u64,
            _ => [0, 2, 20, 1000][self.chance.below(4) as usize],
        };
        let mut server = Program::start((self.server)(&self.folder.database(), grace));
        let mut became = stop;
        if stop == Stop::KillStart {
            thread::sleep(self.chance.microseconds(30_000));
            server.kill();
        } else {
            let callers = self.call(&mut server);
            became = self.stop(&mut server, stop);
            for caller in callers {
                self.known.add(caller.join().expect("callers do not panic"));
            }
        }
        let status = server.end();
        let is_right = match (became, status.code(), status.signal()) {
            (Stop::Kill | Stop::KillStart | Stop::TermKill, None, signal) => {
                signal == Some(SIGKILL)
            }
            // A killer may come too late.
            (Stop::Term | Stop::TermKill, Some(0), _) => {
                let log = std::fs::metadata(self.folder.log());
                became == Stop::TermKill || log.map_or(0, |it| it.len()) == 0
            }
            (Stop::Term | Stop::TermTerm | Stop::TermKill, Some(code), _) => {
                code == i32::from(exit_code::FORCED)
            }
            (Stop::TermTermTerm, Some(code), _) => {
                code == i32::from(exit_code::third_signal(SIGTERM))
            }
            _ => false,
        };
        let context = format!("{became:?}, grace {grace} ms: {status}");
        assert!(is_right, "{context}: {:#?}", server.seen);
        self.forced += usize::from(!status.success());
        *self.ends.entry((became, status.to_string())).or_default() += 1;
    }

    /// Callers that go on until the server does not answer any more. Returns when some transfers, as
    /// chance has it, were acknowledged.
    fn call(&mut self, server: &mut Program) -> Vec<thread::JoinHandle<Known>> {
        let line = server.hear("listening at");
        let address = line.rsplit(' ').next().unwrap().to_owned();
        // Half of those without an answer are asked for again, under their ids; now or in a later round.
        let mut again: Vec<Vec<TransferRequest>> = Vec::new();
        again.resize_with(CALLERS as usize, Vec::new);
        for transfer in std::mem::take(&mut self.known.unanswered) {
            match self.chance.below(2) {
                0 => self.known.unanswered.push(transfer),
                _ => {
                    again[self.chance.below(CALLERS) as usize].push(transfer);
                    self.asked_again += 1;
                }
            }
        }
        let (answered, answers) = mpsc::channel();
        let callers = again.into_iter().map(|again| {
            let caller = Caller {
                client: LedgerClient::new(&channel_to(&address)),
                chance: Chance(self.chance.below(u64::MAX)),
                next_id: Arc::clone(&self.next_id),
                answered: answered.clone(),
            };
            thread::spawn(move || caller.call(again))
        });
        let callers = callers.collect();
        drop(answered);
        for _ in 0..self.chance.below(100) {
            answers.recv_timeout(LONG).unwrap_or_else(|error| {
                panic!("no transfer is acknowledged ({error}): {:#?}", server.seen)
            });
        }
        callers
    }

    /// Does it, and says what became of it: if nothing hung, it was a plain SIGTERM.
    fn stop(&mut self, server: &mut Program, stop: Stop) -> Stop {
        // Not always right behind an answer.
        thread::sleep(self.chance.microseconds(5_000));
        match stop {
            Stop::Kill | Stop::KillStart => server.kill(),
            Stop::Term => server.signal("TERM"),
            Stop::TermKill | Stop::TermTerm | Stop::TermTermTerm => {
                // Whoever writes now waits for this lock, and so is in flight.
                let lock = Connection::open(self.folder.database()).unwrap();
                lock.busy_timeout(Duration::ZERO).unwrap();
                eventually("nobody writes for a moment", || {
                    lock.execute_batch("BEGIN IMMEDIATE").is_ok()
                });
                server.signal("TERM");
                if server.hear(": draining ").contains(": draining 0 calls") {
                    return Stop::Term;
                }
                if stop == Stop::TermKill {
                    // In the midst of what they do once they can.
                    drop(lock);
                    thread::sleep(self.chance.microseconds(5_000));
                    server.kill();
                    return stop;
                }
                // The same wish twice would be one.
                let process = server.id();
                insisting(process, "TERM", || server.hear("→ cancelling"));
                if stop == Stop::TermTermTerm {
                    insisting(process, "TERM", || server.end());
                }
            }
        }
        stop
    }

    fn check(&self) -> (Faults, usize) {
        check(&self.folder.database(), &self.known).expect("the database can be read")
    }
}

impl fmt::Display for Trial<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (faults, unanswered) = self.check();
        let mut ends: Vec<_> = self.ends.iter().collect();
        ends.sort_by_key(|((stop, status), _)| (STOPS.iter().position(|it| it == stop), status));
        for ((stop, status), count) in ends {
            writeln!(f, "{count:4} × {:13} {status}", format!("{stop:?}"))?;
        }
        let known = &self.known;
        let counts = [
            ("transfers acknowledged", known.acknowledged.len()),
            ("    of which are lost", faults.lost),
            ("declined: \"not done\"", known.declined.len()),
            ("    of which are done", faults.done_though_declined),
            ("asked for again without an answer", self.asked_again),
            ("left without an answer", known.unanswered.len()),
            ("    of which are done", unanswered),
            ("done that nobody asked for", faults.never_asked_for),
            ("balances that are wrong", faults.wrong_balances),
        ];
        counts
            .iter()
            .try_for_each(|(what, count)| writeln!(f, "{what:34} {count:6}"))
    }
}

/// Stops the example so often by force, in all ways, at moments of chance.
fn stops(name: &str, count: usize, seed: u64) {
    let seed = std::env::var("LEDGER_SEED").map_or(seed, |it| it.parse().expect("a number"));
    println!("LEDGER_SEED={seed}");
    let mut trial = Trial::new(name, seed, &example);
    for stop in STOPS.iter().cycle() {
        if trial.forced == count {
            break;
        }
        trial.round(*stop);
    }
    println!("{count} forced stops:\n{trial}");
    assert_eq!(trial.check().0, Faults::default(), "LEDGER_SEED={seed}");
    assert!(!trial.known.acknowledged.is_empty());
}

#[test]
fn no_transfer_is_lost_or_half_done_in_a_dozen_forced_stops() {
    stops("dozen", 12, 1);
}

#[test]
#[ignore = "takes a minute"]
fn no_transfer_is_lost_or_half_done_in_a_hundred_forced_stops() {
    let time = std::time::UNIX_EPOCH.elapsed().unwrap();
    stops("hundred", 100, time.as_secs());
}

/// Kills a wrong server until the check finds what `is_found` looks for.
fn find(mistake: Mistake, test: &str, is_found: fn(&Faults) -> bool) {
    if let Some(role) = role() {
        WrongLedger::serve(&role);
    }
    let server = |database: &Path, grace: u64| {
        child_as(&format!("{mistake:?} {grace} {}", database.display()), test)
    };
    let mut trial = Trial::new(test, 1, &server);
    for count in 1..=100 {
        trial.round(Stop::Kill);
        if is_found(&trial.check().0) {
            println!("{mistake:?} was found at stop {count}:\n{trial}");
            return;
        }
    }
    panic!("{mistake:?} was not found in 100 stops:\n{trial}");
}

#[test]
fn an_answer_before_the_commit_is_found() {
    let test = "an_answer_before_the_commit_is_found";
    find(Mistake::AnswersFirst, test, |it| it.lost > 0);
}

#[test]
fn a_transfer_without_a_transaction_is_found() {
    let test = "a_transfer_without_a_transaction_is_found";
    find(Mistake::NoTransaction, test, |it| {
        it.wrong_balances > 0 && it.lost == 0
    });
}

#[test]
fn a_transfer_that_is_done_twice_is_found() {
    let test = "a_transfer_that_is_done_twice_is_found";
    find(Mistake::ForgetsIds, test, |it| {
        it.wrong_balances > 0 && it.lost == 0
    });
}
