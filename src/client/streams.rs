//! The streams of a call: requests that go out, replies that come in.

use std::fmt;
use std::iter::FusedIterator;

use futures_util::{SinkExt, Stream, StreamExt};
use grpcio::{ClientDuplexReceiver, ClientDuplexSender, ClientSStreamReceiver, WriteFlags};
use protobuf::Message;

use super::wait::{begin, wait};
use super::{only_reply, status};
use crate::Status;

/// The replies of a call, as they come. Dropped before its end, it cancels the call.
pub struct Replies<R> {
    receiver: Receiver<R>,
    ended: bool,
}

pub(super) enum Receiver<R> {
    OfMany(ClientSStreamReceiver<R>),
    OfBoth(ClientDuplexReceiver<R>),
}

impl<R> Replies<R> {
    pub(super) fn new(receiver: Receiver<R>) -> Self {
        let ended = false;
        Self { receiver, ended }
    }
}

/// Blocks until there is a reply, or the call has ended. An `Err` is the status with which the call ended, and
/// the last item; success ends the iteration. A deadline that passes may overtake a reply that has arrived, which
/// is lost then.
impl<R: Message> Iterator for Replies<R> {
    type Item = Result<R, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        fn next<R>(
            stream: &mut (impl Stream<Item = grpcio::Result<R>> + Unpin),
        ) -> Option<Result<R, Status>> {
            wait(stream.next()).map(|it| it.map_err(status))
        }
        if self.ended {
            return None;
        }
        let reply = match &mut self.receiver {
            Receiver::OfMany(stream) => next(stream),
            Receiver::OfBoth(stream) => next(stream),
        };
        // `grpcio` would go on with what the status has overtaken.
        self.ended = !matches!(reply, Some(Ok(_)));
        reply
    }
}

impl<R: Message> FusedIterator for Replies<R> {}

impl<R> fmt::Debug for Replies<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Replies").finish_non_exhaustive()
    }
}

/// A stream of requests that is answered with one reply. Dropped before
/// [`finish`](Self::finish), it cancels the call.
pub struct Upload<Q, R> {
    // grpcio's own receiver of a single reply panics where there is none.
    pub(super) sender: ClientDuplexSender<Q>,
    pub(super) receiver: ClientDuplexReceiver<R>,
}

impl<Q: Message, R: Message> Upload<Q, R> {
    /// Sends a request. Blocks while the server is slow to take it.
    ///
    /// # Errors
    ///
    /// The call is over; [`finish`](Self::finish) tells how it ended.
    pub fn send(&mut self, request: Q) -> Result<(), Status> {
        wait(self.sender.send((request, WriteFlags::default()))).map_err(status)
    }

    /// Says that this was the last request, and waits for the reply.
    ///
    /// # Errors
    ///
    /// The status with which the call ended; INTERNAL, if it ended with success and other than one reply.
    pub fn finish(mut self) -> Result<R, Status> {
        // If the server has ended the call early, its status says more than this would.
        let _ = wait(self.sender.close());
        wait(only_reply(&mut self.receiver))
    }
}

impl<Q, R> fmt::Debug for Upload<Q, R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Upload").finish_non_exhaustive()
    }
}

/// The requests of a call that streams both ways. Dropped, it says that there are no more.
pub struct Requests<Q> {
    pub(super) sender: ClientDuplexSender<Q>,
}

impl<Q: Message> Requests<Q> {
    /// Sends a request. Blocks while the server is slow to take it.
    ///
    /// # Errors
    ///
    /// The call is over; its [`Replies`] tell how it ended.
    pub fn send(&mut self, request: Q) -> Result<(), Status> {
        wait(self.sender.send((request, WriteFlags::default()))).map_err(status)
    }
}

impl<Q> Drop for Requests<Q> {
    fn drop(&mut self) {
        // Without this, the sender's own drop would cancel the call. Nothing is being sent any more, so the
        // end of the requests goes out at once, and need not be waited for.
        begin(self.sender.close());
    }
}

impl<Q> fmt::Debug for Requests<Q> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Requests").finish_non_exhaustive()
    }
}
