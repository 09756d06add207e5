//! What a stream without a thread does with what happens to it: traits for the program to implement.

use protobuf::Message as Protobuf;

use crate::server::status::Status;

use super::replies::StreamReplies;

/// What happens with a stream both ways whose handler has returned: see [`Requests::detach`](crate::Requests::detach).
///
/// # Stream handlers vs handlers that block
///
/// A handler that blocks has a thread for as long as its stream lives; its state is in its variables. A stream handler has
/// one only while there is something to do, so ten thousand quiet streams need no more threads than a few; its
/// state is in `self`. Its functions are called one at a time, in the order of the requests, by whichever worker is free, so they
/// need no lock. A request is asked for only when the one before it was dealt with and the replies to that were taken by
/// the network: a caller that sends too fast, or reads too slowly, is held up, and costs no memory.
///
/// A closure that takes a request and the replies is a stream handler, too.
///
/// ```
/// # use touchdown::protobuf::well_known_types::wrappers::{StringValue, UInt32Value};
/// use touchdown::{Call, Replies, Requests, Service, Status, StreamHandler, StreamReplies};
///
/// /// Adds up what the caller sends, and says the sum each time.
/// struct Sum(u32);
///
/// impl StreamHandler<UInt32Value, UInt32Value> for Sum {
///     fn request(
///         &mut self,
///         request: UInt32Value,
///         replies: &StreamReplies<UInt32Value>,
///     ) -> Result<(), Status> {
///         self.0 += request.value;
///         replies.send(&UInt32Value { value: self.0, ..Default::default() })
///     }
/// }
///
/// let service = Service::builder("demo.Sums").bidirectional(
///     "Sum",
///     |_: &Call, requests: Requests<UInt32Value>, replies: Replies<UInt32Value>| {
///         requests.detach(replies, Sum(0))
///     },
/// );
/// # service.build();
/// ```
///
/// # The end
///
/// | what happens | what is called | the caller gets |
/// |---|---|---|
/// | the caller has sent its last request | [`end`](Self::end) | the replies, and what `end` returns |
/// | one of the functions returns an error | nothing more | the replies that were sent, and the error |
/// | one of them panics, which is logged | nothing more | the same, and INTERNAL |
/// | [`StreamReplies::finish`] | nothing more | the same, and what it was given |
/// | the caller leaves, the deadline passes, the server cancels or cuts the call | [`cancelled`](Self::cancelled) | CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE |
///
/// After that the handler is dropped, on the same worker. The call is in flight until then, so a drain waits for it. It
/// tells the handler first ([`draining`](Self::draining)); what else becomes of the stream is for the method's
/// [`DrainPolicy`](crate::DrainPolicy), with which one that is idle is told to stop, as if it blocked.
///
/// # Blocking
///
/// The functions run on the server's workers, and may block as handlers may. But each worker that waits serves nobody else.
/// Sending does not block: see [`StreamReplies`].
pub trait StreamHandler<Q: Protobuf, R: Protobuf>: Send + 'static {
    /// Called first, when the handler of the method has returned. For a greeting, or to hand a clone of `replies` to
    /// others who send on this stream, too.
    ///
    /// # Errors
    ///
    /// A [`Status`] ends the stream.
    fn begin(&mut self, replies: &StreamReplies<R>) -> Result<(), Status> {
        let _ = replies;
        Ok(())
    }

    /// Called with each request.
    ///
    /// # Errors
    ///
    /// A [`Status`] ends the stream.
    fn request(&mut self, request: Q, replies: &StreamReplies<R>) -> Result<(), Status>;

    /// Called when the caller has sent its last request. The stream ends after that, with OK if this says nothing else.
    ///
    /// # Errors
    ///
    /// A [`Status`] is how the stream ends.
    fn end(self, replies: &StreamReplies<R>) -> Result<(), Status>
    where
        Self: Sized,
    {
        let _ = replies;
        Ok(())
    }

    /// Called when the server drains, once, or at the beginning if it does already: to say goodbye
    /// ([`StreamReplies::finish`]), or to note that time is short ([`Call::time_remaining`](crate::Call::time_remaining)).
    /// Unless this is written, the stream goes on.
    ///
    /// # Errors
    ///
    /// A [`Status`] ends the stream.
    fn draining(&mut self, replies: &StreamReplies<R>) -> Result<(), Status> {
        let _ = replies;
        Ok(())
    }

    /// Called when the network has taken all replies, if one was [refused](StreamReplies::try_send) because too many
    /// waited. For handlers that answer one request with many replies: they send until there is no more room, and go on
    /// here.
    ///
    /// # Errors
    ///
    /// A [`Status`] ends the stream.
    fn has_room(&mut self, replies: &StreamReplies<R>) -> Result<(), Status> {
        let _ = replies;
        Ok(())
    }

    /// Called when the stream has to end before its time, with what the caller is told, if it is still there. Nothing
    /// can be sent any more.
    fn cancelled(&mut self, why: &Status) {
        let _ = why;
    }
}

impl<Q, R, F> StreamHandler<Q, R> for F
where
    Q: Protobuf,
    R: Protobuf,
    F: FnMut(Q, &StreamReplies<R>) -> Result<(), Status> + Send + 'static,
{
    fn request(&mut self, request: Q, replies: &StreamReplies<R>) -> Result<(), Status> {
        self(request, replies)
    }
}

/// What happens with a stream of requests for one reply whose handler has returned: see
/// [`Requests::detach_upload`](crate::Requests::detach_upload).
///
/// All that is said of [`StreamHandler`] holds here, but for the replies: there is one, at the end.
///
/// ```
/// # use touchdown::protobuf::well_known_types::wrappers::UInt32Value;
/// use touchdown::{Call, Requests, Service, Status, UploadHandler};
///
/// struct Sum(UInt32Value);
///
/// impl UploadHandler<UInt32Value, UInt32Value> for Sum {
///     fn request(&mut self, request: UInt32Value) -> Result<(), Status> {
///         self.0.value += request.value;
///         Ok(())
///     }
///
///     fn end(self) -> Result<UInt32Value, Status> {
///         Ok(self.0)
///     }
/// }
///
/// let service = Service::builder("demo.Sums").client_streaming(
///     "Sum",
///     |_: &Call, requests: Requests<UInt32Value>| requests.detach_upload(Sum(UInt32Value::new())),
/// );
/// # service.build();
/// ```
pub trait UploadHandler<Q: Protobuf, R: Protobuf>: Send + 'static {
    /// Called with each request.
    ///
    /// # Errors
    ///
    /// A [`Status`] ends the stream.
    fn request(&mut self, request: Q) -> Result<(), Status>;

    /// Called when the caller has sent its last request. What this returns is how the call ends.
    ///
    /// # Errors
    ///
    /// A [`Status`] for the caller, instead of the reply.
    fn end(self) -> Result<R, Status>
    where
        Self: Sized;

    /// Called when the server drains, once, or at the beginning if it does already. A reply ends the call at once; without
    /// one, the stream goes on.
    ///
    /// # Errors
    ///
    /// A [`Status`] ends the stream.
    fn draining(&mut self) -> Result<Option<R>, Status> {
        Ok(None)
    }

    /// Called when the stream has to end before its time, with what the caller is told, if it is still there.
    fn cancelled(&mut self, why: &Status) {
        let _ = why;
    }
}
