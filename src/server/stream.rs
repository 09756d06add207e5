//! Streams of messages, both ways, for threads that block.

use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protobuf::Message as Protobuf;

use crate::calls::{self, Ending, Handled, Received, Retry, SendError as CoreError, Wait};
use crate::logging;

use super::call::Call;
use super::codec::{decode_seen, encode};
use super::interceptor::failure;
use super::status::Status;

/// The requests of a call, as they come: an iterator that blocks.
///
/// It ends with `None` when the caller has sent its last. An `Err` says that the call is over (the
/// caller left, the server is cancelling) or that a request could not be read; a handler returns
/// it as it is.
///
/// It may be moved to another thread. The call ends when the handler returns, wherever this is;
/// unless the call's [`Replies`] were detached.
pub struct Requests<Q> {
    core: Arc<calls::Call>,
    limit: usize,
    ended: bool,
    message: PhantomData<fn() -> Q>,
}

impl<Q: Protobuf> Requests<Q> {
    pub(super) fn new(core: Arc<calls::Call>, limit: usize) -> Requests<Q> {
        Requests {
            core,
            limit,
            ended: false,
            message: PhantomData,
        }
    }

    /// The next request, waited for no longer than `time`.
    ///
    /// # Errors
    ///
    /// [`ReceiveTimeout`] if it has not come by then. Nothing is lost by that.
    pub fn next_timeout(
        &mut self,
        time: Duration,
    ) -> Result<Option<Result<Q, Status>>, ReceiveTimeout> {
        let wait = Instant::now()
            .checked_add(time)
            .map_or(Wait::Forever, Wait::Until);
        self.receive(wait).ok_or(ReceiveTimeout(()))
    }

    /// The call that this belongs to.
    pub fn call(&self) -> Call {
        Call::new(Arc::clone(&self.core))
    }

    fn receive(&mut self, wait: Wait) -> Option<Option<Result<Q, Status>>> {
        if self.ended {
            return Some(None);
        }
        let message = match self.core.receive(wait) {
            Received::TimedOut => return None,
            Received::Message(message) => message,
            Received::End => {
                self.ended = true;
                return Some(None);
            }
            Received::Ended => {
                self.ended = true;
                return Some(Some(Err(why_ended(&self.core))));
            }
        };
        let look = message.look();
        self.core.note_compression(look.compression);
        let request = decode_seen(&message, &look, self.limit).inspect_err(|status| {
            self.ended = true;
            logging::debug!("{}: {status}", self.core.path());
        });
        Some(Some(request))
    }
}

impl<Q: Protobuf> Iterator for Requests<Q> {
    type Item = Result<Q, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        self.receive(Wait::Forever)
            .expect("waits for as long as it takes")
    }
}

impl<Q> fmt::Debug for Requests<Q> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Requests").finish_non_exhaustive()
    }
}

/// No request has come in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveTimeout(());

impl fmt::Display for ReceiveTimeout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("no request has come in time")
    }
}

impl Error for ReceiveTimeout {}

/// The replies of a call: what is sent here goes to the caller at its pace.
///
/// The call ends when the handler returns, with what it returns. To let it go on without the
/// worker that runs the handler, see [`detach`](Self::detach).
pub struct Replies<R> {
    core: Arc<calls::Call>,
    message: PhantomData<fn(R)>,
}

impl<R: Protobuf> Replies<R> {
    pub(super) fn new(core: Arc<calls::Call>) -> Replies<R> {
        Replies {
            core,
            message: PhantomData,
        }
    }

    /// Sends a reply. Blocks until the one before it has been taken by the network, so a slow
    /// caller slows the handler down and needs no more memory than for two.
    ///
    /// # Errors
    ///
    /// A [`Status`] for the handler to return: the call is over, or has to be, or the reply cannot
    /// be encoded.
    pub fn send(&self, reply: &R) -> Result<(), Status> {
        send(&self.core, reply, Wait::Forever).map_err(|error| error.into_status(&self.core))
    }

    /// Lets the call outlive its handler: a thousand subscribers then need no thousand threads.
    ///
    /// When the handler has returned `Ok`, the call goes on until [`DetachedReplies::finish`] is
    /// called, from any thread. It is in flight as long, and a drain waits for it: end such streams
    /// when [`Lifecycle::draining`](crate::lifecycle::Lifecycle::draining) is cancelled. An error from
    /// the handler, or a panic, ends the call there and then.
    pub fn detach(self) -> DetachedReplies<R> {
        self.core.detach();
        DetachedReplies {
            core: self.core,
            finished: false,
            message: PhantomData,
        }
    }

    /// The call that this belongs to.
    pub fn call(&self) -> Call {
        Call::new(Arc::clone(&self.core))
    }
}

impl<R> fmt::Debug for Replies<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Replies").finish_non_exhaustive()
    }
}

/// The replies of a call that goes on without its handler.
///
/// Dropped without [`finish`](Self::finish), the call ends with `INTERNAL`, so that a caller never
/// takes a stream that broke off for a complete one.
pub struct DetachedReplies<R> {
    core: Arc<calls::Call>,
    finished: bool,
    message: PhantomData<fn(R)>,
}

impl<R: Protobuf> DetachedReplies<R> {
    /// Sends a reply, as [`Replies::send`] does.
    ///
    /// # Errors
    ///
    /// A [`Status`]: the call is over, or has to be, or the reply cannot be encoded.
    pub fn send(&self, reply: &R) -> Result<(), Status> {
        send(&self.core, reply, Wait::Forever).map_err(|error| error.into_status(&self.core))
    }

    /// Sends a reply if the one before it has been taken by the network. Does not block.
    ///
    /// # Errors
    ///
    /// [`SendError::Full`] if the caller is slow, [`SendError::Ended`] if it left.
    pub fn try_send(&self, reply: &R) -> Result<(), SendError> {
        send(&self.core, reply, Wait::Never)
    }

    /// Sends a reply, waiting for the one before it no longer than `time`.
    ///
    /// # Errors
    ///
    /// [`SendError::Full`] if the caller is slow, [`SendError::Ended`] if it left.
    pub fn send_timeout(&self, reply: &R, time: Duration) -> Result<(), SendError> {
        let wait = Instant::now()
            .checked_add(time)
            .map_or(Wait::Forever, Wait::Until);
        send(&self.core, reply, wait)
    }

    /// Ends the call. An error whose code is [`Ok`](super::Code::Ok) is taken for `INTERNAL`, and logged.
    pub fn finish(mut self, result: Result<(), Status>) {
        self.finished = true;
        let status = match result {
            Ok(()) => Status::ok(),
            Err(status) => failure(&self.call(), "a detached stream", status),
        };
        end(&self.core, &status);
    }
}

impl<R> DetachedReplies<R> {
    /// The call that this belongs to.
    pub fn call(&self) -> Call {
        Call::new(Arc::clone(&self.core))
    }
}

impl<R> Drop for DetachedReplies<R> {
    fn drop(&mut self) {
        if !self.finished {
            end(&self.core, &Status::internal("the stream broke off"));
        }
    }
}

impl<R> fmt::Debug for DetachedReplies<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DetachedReplies")
            .finish_non_exhaustive()
    }
}

/// Why a reply was not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The caller has not yet taken what was sent before.
    Full,
    /// The call is over, or has to be.
    Ended(Status),
    /// The reply cannot be encoded.
    Encode(Status),
}

impl SendError {
    fn into_status(self, core: &calls::Call) -> Status {
        match self {
            SendError::Full => why_ended(core),
            SendError::Ended(status) | SendError::Encode(status) => status,
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::Full => formatter.write_str("the caller has not yet taken the last reply"),
            SendError::Ended(status) | SendError::Encode(status) => status.fmt(formatter),
        }
    }
}

impl Error for SendError {}

fn send<R: Protobuf>(core: &Arc<calls::Call>, reply: &R, wait: Wait) -> Result<(), SendError> {
    let message = encode(reply).map_err(SendError::Encode)?;
    core.send(message, wait).map_err(|error| match error {
        CoreError::Full => SendError::Full,
        CoreError::Ended => SendError::Ended(why_ended(core)),
    })
}

/// The status for a handler whose call is over.
pub(super) fn why_ended(core: &calls::Call) -> Status {
    if core.told_to_stop() {
        Status::unavailable("the server is shutting down")
    } else if core.deadline_passed() {
        Status::deadline_exceeded("the caller's deadline has passed")
    } else {
        Status::cancelled("the caller left")
    }
}

/// What the caller got, if the engine has ended the call.
pub(super) fn end_of(core: &calls::Call) -> Option<Status> {
    core.has_ended().then(|| why_ended(core))
}

fn end(core: &Arc<calls::Call>, status: &Status) {
    if let Some(epilogue) = core.take_epilogue() {
        epilogue(ending(&end_of(core).unwrap_or_else(|| status.clone())));
    }
    core.finish(None, ending(status), Handled::Yes);
}

pub(super) fn ending(status: &Status) -> Ending<'_> {
    Ending {
        code: status.code() as i32,
        message: status.message(),
        details: status.details(),
        retry: Retry::Unsaid,
    }
}
