//! Those who make transfers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{mpsc, Arc};

use touchdown::client::CallOptions;
use touchdown::{Code, Status};

use super::check::Known;
use crate::common::{Chance, LONG};
use crate::ledger::{LedgerClient, TransferReply, TransferRequest};

/// How many accounts there are.
const ACCOUNTS: u64 = 5;

/// Somebody who makes one transfer after the other.
pub struct Caller {
    pub client: LedgerClient,
    pub chance: Chance,
    pub next_id: Arc<AtomicUsize>,
    pub answered: mpsc::Sender<()>,
}

impl Caller {
    /// Asks for these again, then for new ones, until an answer fails to come.
    pub fn call(mut self, mut again: Vec<TransferRequest>) -> Known {
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
        let reply = self
            .client
            .transfer_with(transfer, CallOptions::new().timeout(LONG));
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
