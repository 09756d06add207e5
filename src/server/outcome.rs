//! What a handler has made of its call.

use crate::calls::Outgoing;

use super::status::Status;

/// How the handler of one call has ended it.
pub(super) enum Outcome {
    Reply(Outgoing),
    Done,
    /// The call goes on, and is ended by the part of the server that the handler gave it to.
    Later,
    Failed(Status),
}

impl From<Result<(), Status>> for Outcome {
    fn from(result: Result<(), Status>) -> Outcome {
        match result {
            Ok(()) => Outcome::Done,
            Err(status) => Outcome::Failed(status),
        }
    }
}
