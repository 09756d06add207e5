//! What the callers know, and whether the file agrees.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use rusqlite::Connection;

use crate::ledger::TransferRequest;

/// What the callers know of their transfers.
#[derive(Default)]
pub struct Known {
    /// The answer came.
    pub acknowledged: Vec<TransferRequest>,
    /// The server said that it is not done.
    pub declined: Vec<TransferRequest>,
    /// Neither: done or not.
    pub unanswered: Vec<TransferRequest>,
}

impl Known {
    pub fn add(&mut self, other: Known) {
        self.acknowledged.extend(other.acknowledged);
        self.declined.extend(other.declined);
        self.unanswered.extend(other.unanswered);
    }
}

/// What is wrong with a database.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Transfers that were acknowledged, and are not there or are there otherwise.
    pub lost: usize,
    /// Accounts whose balance is not the sum of their transfers: one was done half, or twice.
    pub wrong_balances: usize,
    /// Transfers that are there though the server said that they are not done.
    pub done_though_declined: usize,
    /// Transfers that nobody asked for.
    pub never_asked_for: usize,
    /// What SQLite finds in the file.
    pub damage: Vec<String>,
}

type Row = (String, String, String, i64);

fn row(it: &TransferRequest) -> Row {
    let (id, payer, payee) = (it.id.clone(), it.payer.clone(), it.payee.clone());
    (id, payer, payee, it.amount)
}

/// Compares the file with what the callers know. Returns how many unanswered transfers were done.
pub fn check(database: &Path, known: &Known) -> rusqlite::Result<(Faults, usize)> {
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
