//! Streams of messages, both ways, for threads that block.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protobuf::Message as Protobuf;

use crate::calls::log_limit::LogLimit;
use crate::calls::{self, Ending, Handled, Retry, SendError, Wait};
use crate::lifecycle::Token;
use crate::logging;

use super::call::Call;
use super::codec::{decode_seen, encode};
use super::interceptor::failure;
use super::status::Status;
use super::stream_error::{RecvTimeoutError, SendTimeoutError, TrySendError};

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

    /// The next request; `None` when the caller has sent its last. Blocks until either comes.
    ///
    /// # Errors
    ///
    /// A [`Status`] for the handler to return: the call is over or has to be, or the request could not be read.
    pub fn recv(&mut self) -> Result<Option<Q>, Status> {
        self.next().transpose()
    }

    /// The next request, waited for no longer than `time`; `None` when the caller has sent its last. With
    /// [`Duration::ZERO`] it does not block.
    ///
    /// # Errors
    ///
    /// [`RecvTimeoutError::Timeout`] if none has come by then, by which nothing is lost;
    /// [`RecvTimeoutError::Ended`] with a status for the handler to return.
    pub fn recv_timeout(&mut self, time: Duration) -> Result<Option<Q>, RecvTimeoutError> {
        match self.receive(until(time)) {
            None => Err(RecvTimeoutError::Timeout),
            Some(None) => Ok(None),
            Some(Some(request)) => request.map(Some).map_err(RecvTimeoutError::Ended),
        }
    }

    /// Waits for the next request, or until one of `tokens` is cancelled, whatever comes first.
    ///
    /// A token that is cancelled comes before a request that is there; the request stays, and can be received next. So
    /// a caller that sends without a pause does not hide that the server drains. The tokens of the call itself need no
    /// place in the list: if the caller leaves, the deadline passes or the server is cancelling, this returns an error
    /// anyway.
    ///
    /// ```
    /// # use protobuf::well_known_types::wrappers::StringValue;
    /// use touchdown::{Call, Received, Replies, Requests, Status};
    ///
    /// fn chat(
    ///     call: &Call,
    ///     mut requests: Requests<StringValue>,
    ///     replies: Replies<StringValue>,
    /// ) -> Result<(), Status> {
    ///     let draining = call.draining();
    ///     loop {
    ///         match requests.recv_until(&[&draining])? {
    ///             Received::Request(request) => replies.send(&request)?,
    ///             Received::End => return Ok(()),
    ///             Received::Cancelled(_) => {
    ///                 return replies.send(&StringValue { value: "goodbye".into(), ..Default::default() });
    ///             }
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// A [`Status`] for the handler to return: the call is over or has to be, or the request could not be read.
    pub fn recv_until(&mut self, tokens: &[&Token]) -> Result<Received<Q>, Status> {
        if let Some(index) = tokens.iter().position(|it| it.is_cancelled()) {
            return Ok(Received::Cancelled(index));
        }
        if self.ended {
            return Ok(Received::End);
        }
        let tokens: Vec<_> = tokens.iter().map(|it| it.receiver()).collect();
        match self.core.receive_or(&tokens) {
            Ok(received) => {
                let request = self.decoded(received).flatten().transpose()?;
                Ok(request.map_or(Received::End, Received::Request))
            }
            Err(index) => Ok(Received::Cancelled(index)),
        }
    }

    /// The call that this belongs to.
    pub fn call(&self) -> Call {
        Call::new(Arc::clone(&self.core))
    }

    fn receive(&mut self, wait: Wait) -> Option<Option<Result<Q, Status>>> {
        if self.ended {
            return Some(None);
        }
        let received = self.core.receive(wait);
        self.decoded(received)
    }

    /// What has come, as the handler gets it; `None` if nothing has.
    fn decoded(&mut self, received: calls::Received) -> Option<Option<Result<Q, Status>>> {
        let message = match received {
            calls::Received::TimedOut => return None,
            calls::Received::Message(message) => message,
            calls::Received::End => {
                self.ended = true;
                return Some(None);
            }
            calls::Received::Ended => {
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

/// What a handler that waits for a request and for tokens gets first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received<Q> {
    /// A request.
    Request(Q),
    /// The caller has sent its last request.
    End,
    /// The token at this place in the list is cancelled. If several are, it is the first of them.
    Cancelled(usize),
}

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
        send(&self.core, reply)
    }

    /// Sends a reply if the one before it has been taken by the network. Does not block.
    ///
    /// # Errors
    ///
    /// [`TrySendError::Full`] if the caller is slow. Nothing is lost by that: the reply is the program's still, to be
    /// sent again or left out. [`TrySendError::Ended`] with a status for the handler to return.
    pub fn try_send(&self, reply: &R) -> Result<(), TrySendError> {
        try_send(&self.core, reply)
    }

    /// Sends a reply, waiting for the one before it no longer than `time`.
    ///
    /// # Errors
    ///
    /// [`SendTimeoutError::Timeout`] if the caller is slow. Nothing is lost by that: the reply is the program's still,
    /// to be sent again or left out. [`SendTimeoutError::Ended`] with a status for the handler to return.
    pub fn send_timeout(&self, reply: &R, time: Duration) -> Result<(), SendTimeoutError> {
        send_timeout(&self.core, reply, time)
    }

    /// Lets the call outlive its handler: a thousand subscribers then need no thousand threads.
    ///
    /// When the handler has returned `Ok`, the call goes on until [`DetachedReplies::finish`] is
    /// called, from any thread. It is in flight as long, and a drain waits for it: end such streams
    /// when [`Lifecycle::draining`](crate::lifecycle::Lifecycle::draining) is cancelled. An error from
    /// the handler, or a panic, ends the call there and then. For many callers that get the same messages, there is
    /// [`Broadcast`](super::Broadcast), which does all of that.
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

    pub(super) fn core(&self) -> &Arc<calls::Call> {
        &self.core
    }

    /// Blocks until the network has taken what was sent last.
    pub(super) fn until_taken(&self) -> Result<(), Status> {
        self.core.until_taken().map_err(|_| why_ended(&self.core))
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
        send(&self.core, reply)
    }

    /// Sends a reply if the one before it has been taken by the network, as [`Replies::try_send`] does.
    ///
    /// # Errors
    ///
    /// [`TrySendError::Full`] if the caller is slow, [`TrySendError::Ended`] if the call is over.
    pub fn try_send(&self, reply: &R) -> Result<(), TrySendError> {
        try_send(&self.core, reply)
    }

    /// Sends a reply, waiting for the one before it no longer than `time`, as [`Replies::send_timeout`] does.
    ///
    /// # Errors
    ///
    /// [`SendTimeoutError::Timeout`] if the caller is slow, [`SendTimeoutError::Ended`] if the call is over.
    pub fn send_timeout(&self, reply: &R, time: Duration) -> Result<(), SendTimeoutError> {
        send_timeout(&self.core, reply, time)
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

    pub(super) fn core(&self) -> &Arc<calls::Call> {
        &self.core
    }

    /// The status for a call that is over.
    pub(super) fn why_ended(&self) -> Status {
        why_ended(&self.core)
    }
}

impl<R> Drop for DetachedReplies<R> {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        static LIMIT: LogLimit = LogLimit::new();
        // Of one whose caller has left, nobody expects more.
        let is_expected = !self.core.has_ended() && !self.core.has_to_end();
        if let Some(skipped) = is_expected.then(|| LIMIT.admits()).flatten() {
            let more = match skipped {
                0 => String::new(),
                _ => format!(" ({skipped} more were not logged)"),
            };
            logging::warn!(
                "{}: a detached stream was dropped without DetachedReplies::finish; its caller got INTERNAL{more}",
                self.core.path()
            );
        }
        let status = Status::internal("the server has dropped this stream without finishing it");
        end(&self.core, &status);
    }
}

impl<R> fmt::Debug for DetachedReplies<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DetachedReplies")
            .finish_non_exhaustive()
    }
}

fn send<R: Protobuf>(core: &Arc<calls::Call>, reply: &R) -> Result<(), Status> {
    // Who waits for as long as it takes hears of nothing but the end.
    core.send(encode(reply)?, Wait::Forever)
        .map_err(|_| why_ended(core))
}

fn try_send<R: Protobuf>(core: &Arc<calls::Call>, reply: &R) -> Result<(), TrySendError> {
    let message = encode(reply).map_err(TrySendError::Ended)?;
    core.send(message, Wait::Never)
        .map_err(|error| match error {
            SendError::Full => TrySendError::Full,
            SendError::Ended => TrySendError::Ended(why_ended(core)),
        })
}

fn send_timeout<R: Protobuf>(
    core: &Arc<calls::Call>,
    reply: &R,
    time: Duration,
) -> Result<(), SendTimeoutError> {
    let message = encode(reply).map_err(SendTimeoutError::Ended)?;
    core.send(message, until(time))
        .map_err(|error| match error {
            SendError::Full => SendTimeoutError::Timeout,
            SendError::Ended => SendTimeoutError::Ended(why_ended(core)),
        })
}

fn until(time: Duration) -> Wait {
    Instant::now()
        .checked_add(time)
        .map_or(Wait::Forever, Wait::Until)
}

/// The status for a handler whose call is over.
pub(super) fn why_ended(core: &calls::Call) -> Status {
    if core.told_to_stop() && !core.is_draining() {
        Status::unavailable("the server ends the connection of this call")
    } else if core.told_to_stop() {
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
