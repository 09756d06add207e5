//! What is said of a call that a stop does not wait for any longer.

use std::fmt;
use std::sync::Arc;

use super::call::ending::{Ending, Retry, SHUTTING_DOWN};
use super::call::Call;

/// What to do about detached streams that hold up a stop.
pub(super) const HOW_TO_FINISH: &str =
    "call DetachedReplies::finish when Call::draining() is cancelled, \
     have a Broadcast do so, or give the method DrainPolicy::Stream";

/// A call that was ended over the head of who is at work on it.
pub(crate) struct Abandoned {
    path: String,
    is_left_detached: bool,
}

impl Abandoned {
    /// Abandons a call. `None` if nobody is at work on it any more.
    pub(super) fn try_from_call(call: &Arc<Call>) -> Option<Abandoned> {
        let is_left_detached = call.is_left_detached();
        let message = match is_left_detached {
            true => "the server is shutting down and nobody has finished this stream",
            false => "the server is shutting down and could not wait for the call's end",
        };
        let ending = Ending {
            message,
            retry: Retry::Never,
            ..SHUTTING_DOWN
        };
        call.abandon(ending).then(|| Abandoned {
            path: call.path().to_owned(),
            is_left_detached,
        })
    }
}

impl fmt::Display for Abandoned {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match self.is_left_detached {
            true => write!(
                formatter,
                "{path} is a detached stream that nobody has finished; its caller got UNAVAILABLE; {HOW_TO_FINISH}"
            ),
            false => write!(formatter, "{path} does not return; its caller got UNAVAILABLE"),
        }
    }
}
