//! Ledgers that are wrong, each in one way, for the check to find. They stop as the right one does.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use touchdown::lifecycle::Plan;
use touchdown::{Call, Server, Status};

use crate::ledger::{ledger_service, BalanceReply, BalanceRequest, Ledger};
use crate::ledger::{TransferReply, TransferRequest};

/// What a ledger can do wrong.
#[derive(Clone, Copy, Debug)]
pub enum Mistake {
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

pub struct WrongLedger {
    mistake: Mistake,
    connection: Arc<Mutex<Connection>>,
}

impl WrongLedger {
    /// The child's part: serves until it is stopped.
    pub fn serve(role: &str) -> ! {
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
            .plan(Plan::new().with_grace_period(grace))
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
