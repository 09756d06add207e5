//! The program's side: who runs the handlers, and is told what becomes of calls.

use std::sync::Arc;

use super::call::{Call, Landed};
use super::message::Message;
use super::observer::Observer;

/// Who runs the handlers.
pub(crate) trait Host: Send + Sync + 'static {
    /// A call has arrived, and is in flight from now on.
    fn arrived(&self);

    /// Runs a call to its end, or detaches it; on a thread that may block. It
    /// must not panic, and must finish the call or have somebody else do so.
    fn run(&self, call: &Arc<Call>, message: Option<Message>);

    /// Runs the next step of a call that goes on in steps; on a thread that may block. It must not panic. One step of a
    /// call runs at a time, the first after `run`.
    fn step(&self, call: &Arc<Call>);

    /// A call was refused, and will land by itself.
    fn refused(&self, call: &Arc<Call>);

    /// A call has landed: its status is with the kernel and nobody works on it.
    fn landed(&self, call: &Arc<Call>, landed: Landed);

    /// Who is told of each call and connection; asked once, at the start.
    fn observer(&self) -> Option<Arc<dyn Observer>> {
        None
    }

    /// How many calls are in flight.
    fn in_flight(&self) -> usize;

    /// A message that was sent with [`Call::send_and_tell`] is on its way.
    fn sent(&self, call: &Arc<Call>);

    /// The clients have had the time to hear of a drain, and to go.
    fn clients_know(&self);

    /// So many connections were cut on which something may have been lost, with so many answers that had
    /// been given to the kernel and have not reached the peer's. Their calls have landed already.
    fn cut(&self, connections: u64, answers: u64);

    /// A drain is over: no connection is left that could bring a call.
    fn drained(&self);
}
