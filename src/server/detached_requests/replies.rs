//! What a stream without a thread sends.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use protobuf::Message as Protobuf;

use crate::server::codec::encode;
use crate::server::status::Status;
use crate::server::stream_error::TrySendError;

use super::outbox::{Outbox, Put, ROOM};

/// The replies of a stream whose [handler](super::StreamHandler) has a thread only while there is something to do.
///
/// Sending does not block. What the network has not taken waits, up to 64 KiB of it and one reply more: as much as an HTTP/2
/// stream takes from a sender without a word of its reader (RFC 9113, 6.9.2). The next request comes when nothing waits
/// any more. So a handler that sends a reply or a few to each request needs to know nothing of this, and its caller, if it
/// does not read, gets to say nothing more.
///
/// A clone is the same, and may be handed to other threads and to other streams' handlers, who send what this caller
/// is to hear beside the replies to its requests. It keeps nothing of the call, and may outlive it.
pub struct StreamReplies<R> {
    outbox: Arc<Outbox>,
    message: PhantomData<fn(R)>,
}

impl<R: Protobuf> StreamReplies<R> {
    pub(super) fn new(outbox: &Arc<Outbox>) -> StreamReplies<R> {
        StreamReplies {
            outbox: Arc::clone(outbox),
            message: PhantomData,
        }
    }

    /// Sends a reply.
    ///
    /// # Errors
    ///
    /// A [`Status`] for the handler to return: RESOURCE_EXHAUSTED if there is [no room](Self::try_send); or the stream is over or has
    /// to be, or the reply cannot be encoded.
    pub fn send(&self, reply: &R) -> Result<(), Status> {
        self.try_send(reply).map_err(|error| match error {
            TrySendError::Ended(status) => status,
            TrySendError::Full => Status::resource_exhausted(format!(
                "too slow: {} KiB of replies wait for this caller",
                ROOM / 1024
            )),
        })
    }

    /// Sends a reply if there is room.
    ///
    /// # Errors
    ///
    /// [`TrySendError::Full`] if more than 64 KiB wait. Nothing is lost by that: the reply is the program's still, to be
    /// left out, or sent again when the handler is told that it [has room](super::StreamHandler::has_room).
    /// [`TrySendError::Ended`] with a status for the handler to return.
    pub fn try_send(&self, reply: &R) -> Result<(), TrySendError> {
        let message = encode(reply).map_err(TrySendError::Ended)?;
        match self.outbox.put(&message) {
            Put::Taken => Ok(()),
            Put::Full => Err(TrySendError::Full),
            Put::Over => Err(TrySendError::Ended(self.outbox.why_over())),
        }
    }
}

impl<R> StreamReplies<R> {
    /// Ends the stream once everything was sent. No request comes any more, and the handler is dropped. An error whose code is
    /// [`Ok`](crate::Code::Ok) is taken for `INTERNAL`, and logged. Does nothing if the stream is over, or its end was
    /// said before.
    pub fn finish(&self, result: Result<(), Status>) {
        self.outbox.finish(result);
    }

    /// Whether nothing more can be sent.
    pub fn is_over(&self) -> bool {
        self.outbox.is_over()
    }
}

impl<R> Clone for StreamReplies<R> {
    fn clone(&self) -> StreamReplies<R> {
        StreamReplies {
            outbox: Arc::clone(&self.outbox),
            message: PhantomData,
        }
    }
}

impl<R> fmt::Debug for StreamReplies<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("StreamReplies")
            .field("outbox", &self.outbox)
            .finish()
    }
}
