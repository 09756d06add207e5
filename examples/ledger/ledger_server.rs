//! A ledger in SQLite, which stops without losing a transfer or leaving half of one.
//!
//!     cargo run -p touchdown-ledger --example ledger_server -- 127.0.0.1:50051 ledger.sqlite
//!
//! `docs/stopping-well.md` explains it; `make ledger` stops it a hundred times, with `kill -9` too.

#[path = "../arguments/mod.rs"]
mod arguments;
touchdown::include_protos!();

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use ledger::{ledger_service, BalanceReply, BalanceRequest};
use ledger::{Ledger, TransferReply, TransferRequest};
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use rusqlite::Connection;
use touchdown::lifecycle::{Hook, Lifecycle, Plan, Report};
use touchdown::{Call, Server, Status};
use touchdown_observe::{HealthCheck, Observe, ObserveServer};

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

    /// Whether the database can be read. What takes long before it, or holds the lock for long, is found, too.
    fn check(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        let connection = self.0.lock();
        let connection = connection.as_ref().ok_or("the ledger is closed")?;
        let query = "SELECT count(*) FROM (SELECT 1 FROM account LIMIT 1)";
        Ok(connection
            .query_row(query, (), |row| row.get::<_, i64>(0))
            .map(drop)?)
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

fn main() -> Result<Report, Box<dyn Error>> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let words = arguments::words(USAGE);
    if words.len() > 3 || words.iter().any(|it| it.starts_with('-')) {
        arguments::wrong(USAGE);
    }
    let word = |number: usize, default| words.get(number).map_or(default, String::as_str);
    let grace = Duration::from_millis(word(2, "10000").parse()?);
    let connection = Connection::open(word(1, "ledger.sqlite"))?;

    connection.execute_batch(OPEN)?;
    let accounts = Arc::new(Accounts(Mutex::new(Some(connection))));
    let ledger = ledger_service(Arc::clone(&accounts));
    let checked = Arc::clone(&accounts);
    let database = HealthCheck::for_readiness("database", move || checked.check());
    let lifecycle = Lifecycle::builder()
        .plan(Plan::new().with_grace_period(grace))
        .hook(Hook::new("database", move || accounts.close()));
    Ok(Server::builder()
        .address(word(0, "127.0.0.1:50051"))
        // More would only wait for the same lock; what waits in the backlog needs no thread.
        .workers(4)
        .backlog(256)
        .service(ledger)
        // While it fails, health checks of gRPC say NOT_SERVING. `Observe::at` would add an HTTP door.
        .observe(Observe::new().check(database))
        .lifecycle(lifecycle)
        .serve())
}
