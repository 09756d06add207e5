//! `docs/stopping-well.md` says of `examples/ledger_server.rs` that no transfer is lost that was
//! answered, and none is half done, however it is stopped. Here it is stopped, again and again, on one
//! database and under load, and at the end the file has to agree with what its callers know.
//!
//! That this can fail is shown by servers that are wrong, each in one way.
#![cfg(feature = "server")]

touchdown::include_protos!();

mod common;
mod lifecycle_support;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{mpsc, Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use ledger::{ledger_service, BalanceReply, BalanceRequest, Ledger, LedgerClient};
use ledger::{TransferReply, TransferRequest};
use lifecycle_support::{child_as, role};
use rusqlite::Connection;
use touchdown::client::deadline;
use touchdown::lifecycle::{exit_code, Plan};
use touchdown::{Call, Code, Server, Status};

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

const CALLERS: u64 = 8;
const ACCOUNTS: u64 = 5;

/// SplitMix64: the same numbers for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut it = self.0;
        it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (it ^ (it >> 31)) % limit
    }

    fn microseconds(&mut self, limit: u64) -> Duration {
        Duration::from_micros(self.below(limit))
    }
}

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

/// What the callers know of their transfers.
#[derive(Default)]
struct Known {
    /// The answer came.
    acknowledged: Vec<TransferRequest>,
    /// The server said that it is not done.
    declined: Vec<TransferRequest>,
    /// Neither: done or not.
    unanswered: Vec<TransferRequest>,
}

impl Known {
    fn add(&mut self, other: Known) {
        self.acknowledged.extend(other.acknowledged);
        self.declined.extend(other.declined);
        self.unanswered.extend(other.unanswered);
    }
}

/// What is wrong with a database.
#[derive(Debug, Default, PartialEq, Eq)]
struct Faults {
    /// Transfers that were acknowledged, and are not there or are there otherwise.
    lost: usize,
    /// Accounts whose balance is not the sum of their transfers: one was done half, or twice.
    wrong_balances: usize,
    /// Transfers that are there though the server said that they are not done.
    done_though_declined: usize,
    /// Transfers that nobody asked for.
    never_asked_for: usize,
    /// What SQLite finds in the file.
    damage: Vec<String>,
}

type Row = (String, String, String, i64);

fn row(it: &TransferRequest) -> Row {
    let (id, payer, payee) = (it.id.clone(), it.payer.clone(), it.payee.clone());
    (id, payer, payee, it.amount)
}

/// Compares the file with what the callers know. Returns how many unanswered transfers were done.
fn check(database: &Path, known: &Known) -> rusqlite::Result<(Faults, usize)> {
    let connection = Connection::open(database)?;
    let damage = connection
        .prepare("PRAGMA integrity_check")?
        .query_map((), |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<String>>>()?;
    let stored: HashSet<Row> = connection
        .prepare("SELECT id, payer, payee, amount FROM transfer")?
        .query_map((), |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?
        .collect::<Result<_, _>>()?;
    let mut balances: HashMap<String, i64> = connection
        .prepare("SELECT name, balance FROM account")?
        .query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (_, payer, payee, amount) in &stored {
        *balances.entry(payer.clone()).or_default() += amount;
        *balances.entry(payee.clone()).or_default() -= amount;
    }
    let is_stored = |it: &&TransferRequest| stored.contains(&row(it));
    let done = |them: &[TransferRequest]| them.iter().filter(is_stored).count();
    let (acknowledged, declined) = (done(&known.acknowledged), done(&known.declined));
    let unanswered = done(&known.unanswered);
    let faults = Faults {
        lost: known.acknowledged.len() - acknowledged,
        wrong_balances: balances.values().filter(|it| **it != 0).count(),
        done_though_declined: declined,
        never_asked_for: stored.len() - acknowledged - declined - unanswered,
        damage: damage.into_iter().filter(|it| it != "ok").collect(),
    };
    Ok((faults, unanswered))
}

/// A server in a process of its own.
struct Program {
    child: Child,
    log: mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Program {
    fn start(mut command: Command) -> Program {
        let mut child = command
            .env("RUST_LOG", "touchdown=info,touchdown::core=off")
            .env("RUST_LOG_STYLE", "never")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (sender, log) = mpsc::channel();
        // A pipe that nobody reads would stop the server in its own way.
        thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Program {
            child,
            log,
            seen: Vec::new(),
        }
    }

    /// Reads the log until a line with this text.
    fn hear(&mut self, text: &str) -> String {
        loop {
            let line = self.log.recv_timeout(LONG).unwrap_or_else(|error| {
                panic!(
                    "the server did not say {text:?} ({error}): {:#?}",
                    self.seen
                )
            });
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("sh")
            .args(["-c", "kill -s \"$0\" \"$1\"", name, &pid])
            .status();
        assert!(status.unwrap().success());
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    fn end(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.seen.extend(self.log.iter());
                return status;
            }
            assert!(begun.elapsed() < LONG, "it does not end: {:#?}", self.seen);
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder for the database, removed at the end of a test that passed.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = format!("touchdown-ledger-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn database(&self) -> PathBuf {
        self.0.join("ledger.sqlite")
    }

    fn log(&self) -> PathBuf {
        self.0.join("ledger.sqlite-wal")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        match thread::panicking() {
            true => eprintln!("the database is left in {}", self.0.display()),
            false => drop(std::fs::remove_dir_all(&self.0)),
        }
    }
}

/// A ledger that is started and stopped, and those who call it.
struct Trial<'a> {
    folder: Folder,
    /// Makes the command that serves a database at 127.0.0.1:0 with a grace period in milliseconds.
    server: &'a dyn Fn(&Path, u64) -> Command,
    chance: Chance,
    known: Known,
    next_id: Arc<AtomicUsize>,
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
                _ => again[self.chance.below(CALLERS) as usize].push(transfer),
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
                server.signal("TERM");
                server.hear("→ cancelling");
                if stop == Stop::TermTermTerm {
                    server.signal("TERM");
                    server.end();
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
        writeln!(
            f,
            "transfers acknowledged    {:7}",
            self.known.acknowledged.len()
        )?;
        writeln!(f, "    of which are lost     {:7}", faults.lost)?;
        writeln!(
            f,
            "declined                  {:7}",
            self.known.declined.len()
        )?;
        writeln!(
            f,
            "    of which are done     {:7}",
            faults.done_though_declined
        )?;
        writeln!(
            f,
            "without an answer         {:7}",
            self.known.unanswered.len()
        )?;
        writeln!(f, "    of which are done     {:7}", unanswered)?;
        writeln!(f, "done that nobody asked for{:7}", faults.never_asked_for)?;
        writeln!(
            f,
            "accounts that are wrong   {:7} of {ACCOUNTS}",
            faults.wrong_balances
        )
    }
}

/// Somebody who makes one transfer after the other.
struct Caller {
    client: LedgerClient,
    chance: Chance,
    next_id: Arc<AtomicUsize>,
    answered: mpsc::Sender<()>,
}

impl Caller {
    /// Asks for these again, then for new ones, until an answer fails to come.
    fn call(mut self, mut again: Vec<TransferRequest>) -> Known {
        let mut known = Known::default();
        let end = loop {
            let (transfer, is_new) = match again.pop() {
                Some(transfer) => (transfer, false),
                None => (self.transfer(), true),
            };
            if let Err(status) = self.ask(&transfer) {
                // What is declined now may have been done when it was first asked for.
                match is_new && status.message().starts_with("not done") {
                    true => known.declined.push(transfer),
                    false => known.unanswered.push(transfer),
                }
                break status;
            }
            let _ = self.answered.send(());
            // One in ten is asked for twice, as by somebody who has lost the answer.
            let twice = match self.chance.below(10) {
                0 => self.ask(&transfer),
                _ => Ok(()),
            };
            known.acknowledged.push(transfer);
            if let Err(status) = twice {
                break status;
            }
        };
        assert_eq!(end.code(), Code::Unavailable, "{end}");
        known.unanswered.extend(again);
        known
    }

    fn ask(&self, transfer: &TransferRequest) -> Result<(), Status> {
        let reply = self.client.transfer_with(transfer, deadline(LONG));
        reply.map(|TransferReply { .. }| ())
    }

    fn transfer(&mut self) -> TransferRequest {
        let (payer, other) = (self.chance.below(ACCOUNTS), self.chance.below(ACCOUNTS - 1));
        let payee = (payer + 1 + other) % ACCOUNTS;
        TransferRequest {
            id: self.next_id.fetch_add(1, Ordering::Relaxed).to_string(),
            payer: format!("account {payer}"),
            payee: format!("account {payee}"),
            // Wide enough that two that are half done do not make up for each other.
            amount: 1 + self.chance.below(1_000_000_000) as i64,
            ..Default::default()
        }
    }
}

/// The example, which cargo puts beside the folder of this test.
fn example(database: &Path, grace: u64) -> Command {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap();
    let program = folder.join("examples/ledger_server");
    let cure = "run `cargo build --example ledger_server`, or `make ledger`";
    let changed = |path: &Path| path.metadata().and_then(|it| it.modified());
    // Cargo has written down what it was made of.
    let sources = std::fs::read_to_string(program.with_extension("d"))
        .unwrap_or_else(|error| panic!("{}: {error}; {cure}", program.display()));
    let built = changed(&program).unwrap_or_else(|_| panic!("no {}; {cure}", program.display()));
    for source in sources.split_whitespace().skip(1) {
        let is_newer = changed(Path::new(source)).is_ok_and(|it| it > built);
        assert!(!is_newer, "{source} is newer than the example; {cure}");
    }
    let mut command = Command::new(program);
    command
        .args(["127.0.0.1:0".as_ref(), database.as_os_str()])
        .arg(grace.to_string());
    command
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

/// What a ledger can do wrong.
#[derive(Clone, Copy, Debug)]
enum Mistake {
    /// It answers, and commits a moment later.
    AnswersFirst,
    /// It writes the rows of a transfer without a transaction around them.
    NoTransaction,
    /// It does what it is asked for a second time a second time.
    ForgetsIds,
}

const MISTAKES: [Mistake; 3] = [
    Mistake::AnswersFirst,
    Mistake::NoTransaction,
    Mistake::ForgetsIds,
];

struct WrongLedger {
    mistake: Mistake,
    connection: Arc<Mutex<Connection>>,
}

impl WrongLedger {
    /// The child's part: serves until it is stopped.
    fn serve(role: &str) -> ! {
        let [mistake, grace, database] = role.splitn(3, ' ').collect::<Vec<_>>()[..] else {
            panic!("{role:?} is no role");
        };
        let mistake = MISTAKES.into_iter().find(|it| format!("{it:?}") == mistake);
        let connection = Connection::open(database).unwrap();
        connection
            .pragma_update(None, "synchronous", "FULL")
            .unwrap();
        let ledger = WrongLedger {
            mistake: mistake.expect("a mistake"),
            connection: Arc::new(Mutex::new(connection)),
        };
        let grace = Duration::from_millis(grace.parse().unwrap());
        env_logger::init();
        let report = Server::builder()
            .address("127.0.0.1:0")
            .service(ledger_service(ledger))
            .plan(Plan::new().grace_period(grace))
            .serve();
        std::process::exit(report.exit_code().into())
    }
}

impl Ledger for WrongLedger {
    fn transfer(&self, _: &Call, request: TransferRequest) -> Result<TransferReply, Status> {
        let (mistake, connection) = (self.mistake, Arc::clone(&self.connection));
        let work = move || book_wrongly(&mut connection.lock().unwrap(), &request, mistake);
        match mistake {
            Mistake::AnswersFirst => drop(thread::spawn(move || work().unwrap())),
            _ => work().map_err(|error| Status::internal(error.to_string()))?,
        }
        Ok(TransferReply::new())
    }

    fn balance(&self, _: &Call, _: BalanceRequest) -> Result<BalanceReply, Status> {
        Err(Status::unimplemented("nobody asks for it"))
    }
}

/// As the example does it, but for the mistake.
fn book_wrongly(
    connection: &mut Connection,
    it: &TransferRequest,
    mistake: Mistake,
) -> rusqlite::Result<()> {
    let transaction = match mistake {
        Mistake::NoTransaction => None,
        _ => Some(connection.unchecked_transaction()?),
    };
    let insert = match mistake {
        Mistake::ForgetsIds => "INSERT OR REPLACE INTO transfer VALUES (?1, ?2, ?3, ?4)",
        _ => "INSERT OR IGNORE INTO transfer VALUES (?1, ?2, ?3, ?4)",
    };
    if connection.execute(insert, (&it.id, &it.payer, &it.payee, it.amount))? == 0 {
        return Ok(());
    }
    let add = "INSERT INTO account VALUES (?1, ?2)
        ON CONFLICT DO UPDATE SET balance = balance + excluded.balance";
    connection.execute(add, (&it.payer, -it.amount))?;
    connection.execute(add, (&it.payee, it.amount))?;
    transaction.map_or(Ok(()), |it| it.commit())
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
    for _ in 0..100 {
        trial.round(Stop::Kill);
        if is_found(&trial.check().0) {
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
