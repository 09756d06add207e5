//! Clients that block, over the channels of `grpcio`.
//!
//! Generated client stubs are thin: a typed function for each method, and this below. Channels
//! are made with `ChannelBuilder` and an `Environment`, which brings the threads that do a
//! client's input and output; one environment serves any number of channels. Both need the
//! feature `client`: without it there are only the channels on which a server tests itself
//! ([`ServerBuilder::smoke_test`](crate::ServerBuilder::smoke_test)).
//!
#![cfg_attr(feature = "client", doc = "```")]
#![cfg_attr(not(feature = "client"), doc = "```ignore")]
//! use std::sync::Arc;
//! use touchdown::client::{ChannelBuilder, Environment};
//!
//! let environment = Arc::new(Environment::new(1));
//! let channel = ChannelBuilder::new(environment).connect("127.0.0.1:50051");
//! // let greeter = GreeterClient::new(&channel);
//! # drop(channel);
//! ```

use std::fmt;
use std::iter::FusedIterator;
use std::time::Duration;

use futures_executor::block_on;
use futures_util::{SinkExt, Stream, StreamExt};
use grpcio::{
    ClientCStreamReceiver, ClientCStreamSender, ClientDuplexReceiver, ClientDuplexSender,
    ClientSStreamReceiver, Marshaller, Method, MethodType, WriteFlags,
};
use protobuf::Message;

pub use grpcio::{CallOption as CallOptions, Channel, Metadata, MetadataBuilder};
#[cfg(feature = "client")]
pub use grpcio::{ChannelBuilder, Environment};

use crate::{Code, Status};

/// What generated client stubs call. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    client: grpcio::Client,
}

impl Client {
    /// A client on this channel.
    pub fn new(channel: &Channel) -> Client {
        // The channel keeps C-core started.
        crate::engine::end_spare_threads();
        Client {
            client: grpcio::Client::new(channel.clone()),
        }
    }

    /// One request, one reply.
    ///
    /// # Errors
    ///
    /// The status with which the call ended.
    pub fn unary<Q: Message, R: Message + Unpin>(
        &self,
        path: &'static str,
        request: &Q,
        options: CallOptions,
    ) -> Result<R, Status> {
        let method = method(MethodType::Unary, path);
        self.client
            .unary_call(&method, request, options)
            .map_err(status)
    }

    /// One request, a stream of replies.
    ///
    /// # Errors
    ///
    /// A status, if the call could not be begun.
    pub fn server_streaming<Q: Message, R: Message>(
        &self,
        path: &'static str,
        request: &Q,
        options: CallOptions,
    ) -> Result<Replies<R>, Status> {
        let method = method(MethodType::ServerStreaming, path);
        let receiver = self
            .client
            .server_streaming(&method, request, options)
            .map_err(status)?;
        Ok(Replies::new(Receiver::OfMany(receiver)))
    }

    /// A stream of requests, one reply.
    ///
    /// # Errors
    ///
    /// A status, if the call could not be begun.
    pub fn client_streaming<Q: Message, R: Message>(
        &self,
        path: &'static str,
        options: CallOptions,
    ) -> Result<Upload<Q, R>, Status> {
        let method = method(MethodType::ClientStreaming, path);
        let (sender, receiver) = self
            .client
            .client_streaming(&method, options)
            .map_err(status)?;
        Ok(Upload { sender, receiver })
    }

    /// Streams both ways.
    ///
    /// # Errors
    ///
    /// A status, if the call could not be begun.
    pub fn bidirectional<Q: Message, R: Message>(
        &self,
        path: &'static str,
        options: CallOptions,
    ) -> Result<(Requests<Q>, Replies<R>), Status> {
        let method = method(MethodType::Duplex, path);
        let (sender, receiver) = self
            .client
            .duplex_streaming(&method, options)
            .map_err(status)?;
        let replies = Replies::new(Receiver::OfBoth(receiver));
        Ok((Requests { sender }, replies))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").finish_non_exhaustive()
    }
}

/// Options with a deadline this far from now.
pub fn deadline(after: Duration) -> CallOptions {
    CallOptions::default().timeout(after)
}

/// The replies of a call, as they come. Dropped before its end, it cancels the call.
pub struct Replies<R> {
    receiver: Receiver<R>,
    ended: bool,
}

enum Receiver<R> {
    OfMany(ClientSStreamReceiver<R>),
    OfBoth(ClientDuplexReceiver<R>),
}

impl<R> Replies<R> {
    fn new(receiver: Receiver<R>) -> Self {
        let ended = false;
        Self { receiver, ended }
    }
}

/// Blocks until there is one. An `Err` is the status with which the call ended, and the last; success ends the
/// iteration. A deadline that passes may overtake a reply that has arrived: that is lost then.
impl<R: Message> Iterator for Replies<R> {
    type Item = Result<R, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        fn next<R>(
            stream: &mut (impl Stream<Item = grpcio::Result<R>> + Unpin),
        ) -> Option<Result<R, Status>> {
            block_on(stream.next()).map(|it| it.map_err(status))
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
    sender: ClientCStreamSender<Q>,
    receiver: ClientCStreamReceiver<R>,
}

impl<Q: Message, R: Message + Unpin> Upload<Q, R> {
    /// Sends a request. Blocks while the server is slow to take it.
    ///
    /// # Errors
    ///
    /// The call is over; [`finish`](Self::finish) tells how it ended.
    pub fn send(&mut self, request: Q) -> Result<(), Status> {
        block_on(self.sender.send((request, WriteFlags::default()))).map_err(status)
    }

    /// Says that this was the last request, and waits for the reply.
    ///
    /// # Errors
    ///
    /// The status with which the call ended.
    pub fn finish(mut self) -> Result<R, Status> {
        // If the server has ended the call early, its status says more than this would.
        let _ = block_on(self.sender.close());
        block_on(&mut self.receiver).map_err(status)
    }
}

impl<Q, R> fmt::Debug for Upload<Q, R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Upload").finish_non_exhaustive()
    }
}

/// The requests of a call that streams both ways. Dropped, it says that there are no more.
pub struct Requests<Q> {
    sender: ClientDuplexSender<Q>,
}

impl<Q: Message> Requests<Q> {
    /// Sends a request. Blocks while the server is slow to take it.
    ///
    /// # Errors
    ///
    /// The call is over; its [`Replies`] tell how it ended.
    pub fn send(&mut self, request: Q) -> Result<(), Status> {
        block_on(self.sender.send((request, WriteFlags::default()))).map_err(status)
    }
}

impl<Q> Drop for Requests<Q> {
    fn drop(&mut self) {
        // Without this, the sender's own drop would cancel the call.
        let _ = block_on(self.sender.close());
    }
}

impl<Q> fmt::Debug for Requests<Q> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Requests").finish_non_exhaustive()
    }
}

fn method<Q: Message, R: Message>(kind: MethodType, path: &'static str) -> Method<Q, R> {
    Method {
        ty: kind,
        name: path,
        req_mar: Marshaller {
            ser: grpcio::pb_ser,
            de: grpcio::pb_de,
        },
        resp_mar: Marshaller {
            ser: grpcio::pb_ser,
            de: grpcio::pb_de,
        },
    }
}

fn status(error: grpcio::Error) -> Status {
    match error {
        grpcio::Error::RpcFailure(status) | grpcio::Error::RpcFinished(Some(status)) => {
            let code = Code::from_number(status.code().into());
            Status::new(code, status.message().to_owned()).with_details(status.details())
        }
        grpcio::Error::Codec(error) => Status::internal(format!("cannot be decoded: {error}")),
        grpcio::Error::RemoteStopped | grpcio::Error::RpcFinished(None) => {
            Status::unavailable("the server has ended the call")
        }
        other => Status::unknown(other.to_string()),
    }
}
