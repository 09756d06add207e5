//! A ledger in SQLite, which stops without losing a transfer or leaving half of one.
//!
//!     cargo run --example ledger_server -- 127.0.0.1:50051 ledger.sqlite
//!
//! `docs/stopping-well.md` explains it; `make ledger` stops it a hundred times, with `kill -9` too.

touchdown::include_protos!();

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use ledger::{ledger_service, BalanceReply, BalanceRequest};
use ledger::{Ledger, TransferReply, TransferRequest};
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use rusqlite::Connection;
use touchdown::lifecycle::{Hook, Plan, Report};
use touchdown::{Call, Server, Status};

const USAGE: &str = "usage: ledger_server [ADDRESS [DATABASE [GRACE_MS]]]

ADDRESS is HOST:PORT or unix:PATH; 127.0.0.1:50051 without it. DATABASE is a file; ledger.sqlite. GRACE_MS is how long \
a drain may take, in milliseconds; 10000.";

// With FULL a commit returns when it is on the disk; with NORMAL a power cut may take it back. The
// checkpoint does the same for commits of a process that was killed before they were on the disk.
const OPEN: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA wal_checkpoint(TRUNCATE);
    CREATE TABLE IF NOT EXISTS account (name TEXT PRIMARY KEY, balance INTEGER NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS transfer (id TEXT PRIMARY KEY,
        payer TEXT NOT NULL, payee TEXT NOT NULL, amount INTEGER NOT NULL) STRICT;
";

/// One connection, `None` once it is closed. SQLite writes one transaction at a time however many
/// there are, and each has a cache of its own, of 2 MB. Where reads must not wait for commits, give
/// them a second one.
struct Accounts(Mutex<Option<Connection>>);

impl Ledger for Accounts {
    fn transfer(&self, call: &Call, request: TransferRequest) -> Result<TransferReply, Status> {
        if request.id.is_empty() || request.payer == request.payee || request.amount <= 0 {
            let needed = "a transfer needs an id, two accounts and an amount above zero";
            return Err(Status::invalid_argument(needed));
        }
        match book(&mut *self.turn(call)?, &request).map_err(failed)? {
            true => Ok(TransferReply::new()),
            false => Err(Status::already_exists("the id is of another transfer")),
        }
    }

    fn balance(&self, call: &Call, request: BalanceRequest) -> Result<BalanceReply, Status> {
        let query = "SELECT coalesce(sum(balance), 0) FROM account WHERE name = ?1";
        let connection = self.turn(call)?;
        let row = connection.query_row(query, [request.account], |row| row.get(0));
        let mut reply = BalanceReply::new();
        reply.balance = row.map_err(failed)?;
        Ok(reply)
    }
}

impl Accounts {
    /// Waits for this call's turn. It is the last moment to turn back: what begins now is finished.
    fn turn(&self, call: &Call) -> Result<MappedMutexGuard<'_, Connection>, Status> {
        // From here on the engine looks out for the caller.
        let token = call.token();
        let connection = self.0.lock();
        if token.is_cancelled() {
            return Err(Status::unavailable("not done: it was too late to begin"));
        }
        let closed = |_| Status::unavailable("not done: the ledger is closed");
        MutexGuard::try_map(connection, Option::as_mut).map_err(closed)
    }

    /// Leaves everything in one file, and nothing in the log beside it.
    fn close(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        let connection = self.0.lock().take().ok_or("closed already")?;
        let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
        if connection.query_row(checkpoint, (), |row| row.get(0))? {
            return Err("another program is using the database, so its log stays".into());
        }
        connection.close().map_err(|(_, error)| error.into())
    }
}

/// Three rows or none: without a commit they are rolled back, by the next start if need be. False
/// if the id was used for another transfer.
fn book(connection: &mut Connection, it: &TransferRequest) -> rusqlite::Result<bool> {
    let transaction = connection.transaction()?;
    let insert = "INSERT INTO transfer VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
    let row = (&it.id, &it.payer, &it.payee, it.amount);
    if transaction.execute(insert, row)? == 0 {
        let same = "SELECT (payer, payee, amount) = (?2, ?3, ?4) FROM transfer WHERE id = ?1";
        return transaction.query_row(same, row, |row| row.get(0));
    }
    let add = "INSERT INTO account VALUES (?1, ?2)
        ON CONFLICT DO UPDATE SET balance = balance + excluded.balance";
    transaction.execute(add, (&it.payer, -it.amount))?;
    transaction.execute(add, (&it.payee, it.amount))?;
    transaction.commit().map(|()| true)
}

/// An error of the disk leaves open whether it is done. Asking again, with the same id, is safe.
fn failed(error: rusqlite::Error) -> Status {
    Status::internal(format!("the database: {error}"))
}

/// Says how the program is called: because it is asked, or because it was called otherwise.
fn usage(arguments: &[String]) -> ! {
    if arguments.iter().any(|it| it == "--help") {
        println!("{USAGE}");
        std::process::exit(0);
    }
    eprintln!("{USAGE}");
    std::process::exit(2);
}

fn main() -> Result<Report, Box<dyn Error>> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.len() > 3 || arguments.iter().any(|it| it.starts_with('-')) {
        usage(&arguments);
    }
    let argument = |number: usize, default| arguments.get(number).map_or(default, String::as_str);
    let address = argument(0, "127.0.0.1:50051");
    let grace = Duration::from_millis(argument(2, "10000").parse()?);
    let connection = Connection::open(argument(1, "ledger.sqlite"))?;

    connection.execute_batch(OPEN)?;
    let accounts = Arc::new(Accounts(Mutex::new(Some(connection))));
    let server = Server::builder()
        .address(address)
        // More would only wait for the same lock; what waits in the backlog needs no thread.
        .workers(4)
        .backlog(256)
        .service(ledger_service(Arc::clone(&accounts)))
        .plan(Plan::new().with_grace_period(grace))
        .hook(Hook::new("database", move || accounts.close()));
    Ok(server.serve())
}
