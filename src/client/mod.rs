//! Clients that block.
//!
//! Generated client stubs are thin: a typed function for each method, and [`Client`] below. A stub is made on a
//! [`Channel`], and takes [`CallOptions`] for a call that needs them:
//!
#![cfg_attr(feature = "client", doc = "```no_run")]
#![cfg_attr(not(feature = "client"), doc = "```ignore")]
//! use std::time::Duration;
//! use touchdown::client::{CallOptions, Channel, Client};
//! use touchdown::protobuf::well_known_types::wrappers::StringValue;
//!
//! let channel = Channel::connect("127.0.0.1:50051")?;
//! // With a stub: GreeterClient::new(&channel).say_hello_with(&request, options)
//! let options = CallOptions::new().timeout(Duration::from_secs(5));
//! let request = StringValue::new();
//! let reply: StringValue = Client::new(&channel).unary("/demo.Echo/Say", &request, options)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! To connect needs the feature `client`. Without it there are only channels over sockets that are connected already
//! ([`Channel::over`]), such as those on which a server tests itself
//! ([`ServerBuilder::smoke_test`](crate::ServerBuilder::smoke_test)).

mod around;
mod channel;
#[cfg(feature = "client")]
mod channel_builder;
mod metadata;
mod options;
mod streams;
mod wait;

use std::fmt;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use grpcio::{Marshaller, Method, MethodType};
use protobuf::Message;

pub use self::around::{Kind, Next, Outgoing};
pub use self::channel::Channel;
#[cfg(feature = "client")]
pub use self::channel_builder::ChannelBuilder;
pub use self::metadata::Metadata;
pub use self::options::CallOptions;
pub use self::streams::{Replies, Requests, Upload};

use self::around::{call, Around};
use self::streams::Receiver;
use self::wait::wait;
use crate::{Code, Status};

/// What generated client stubs call. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    client: grpcio::Client,
    around: Arc<[Arc<Around>]>,
}

impl Client {
    /// A client on this channel.
    pub fn new(channel: &Channel) -> Client {
        // The channel keeps C-core started.
        crate::engine::end_spare_threads();
        Client {
            client: grpcio::Client::new(channel.inner.clone()),
            around: Arc::new([]),
        }
    }

    /// A client with something of the program's own around each call: another try, a breaker, a count, a
    /// deadline for all. Generated stubs are made from it: `GreeterClient::from(client)`.
    ///
    /// `around` sees what is about to be called, and makes the call by [`Next::run`]: once, several times,
    /// or not at all. What it returns is what the caller gets; with `Ok`, the reply of the last run. It runs
    /// on the thread that calls, and may block it. Put around such a client, another one is outside of it.
    ///
    /// ```
    /// use touchdown::client::{Client, Kind, Next, Outgoing};
    /// use touchdown::{Code, Status};
    ///
    /// /// A call that found no server is made once more.
    /// fn try_twice(call: &Outgoing<'_>, next: &mut Next<'_>) -> Result<(), Status> {
    ///     match next.run(call.options()) {
    ///         Err(status) if status.code() == Code::Unavailable && call.kind() == Kind::Unary => {
    ///             next.run(call.options())
    ///         }
    ///         result => result,
    ///     }
    /// }
    ///
    /// # fn with(channel: &touchdown::client::Channel) {
    /// let client = Client::new(channel).around(try_twice);
    /// # }
    /// ```
    pub fn around(
        self,
        around: impl Fn(&Outgoing<'_>, &mut Next<'_>) -> Result<(), Status> + Send + Sync + 'static,
    ) -> Client {
        let inner = self.around.iter().cloned();
        let outermost: Arc<Around> = Arc::new(around);
        Client {
            around: inner.chain([outermost]).collect(),
            client: self.client,
        }
    }

    /// One request, one reply.
    ///
    /// # Errors
    ///
    /// The status with which the call ended; INTERNAL, if it ended with success and other than one reply.
    pub fn unary<Q: Message, R: Message>(
        &self,
        path: &'static str,
        request: &Q,
        options: CallOptions,
    ) -> Result<R, Status> {
        // As a stream of replies: grpcio's own receiver of a single reply panics where there is none.
        let method = method(MethodType::ServerStreaming, path);
        call(&self.around, path, Kind::Unary, options, |options| {
            let options = options.into_grpcio().map_err(status)?;
            let replies = self.client.server_streaming(&method, request, options);
            wait(only_reply(&mut replies.map_err(status)?))
        })
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
        call(
            &self.around,
            path,
            Kind::ServerStreaming,
            options,
            |options| {
                let options = options.into_grpcio().map_err(status)?;
                let receiver = self.client.server_streaming(&method, request, options);
                Ok(Replies::new(Receiver::OfMany(receiver.map_err(status)?)))
            },
        )
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
        let method = method(MethodType::Duplex, path);
        call(
            &self.around,
            path,
            Kind::ClientStreaming,
            options,
            |options| {
                let options = options.into_grpcio().map_err(status)?;
                let call = self.client.duplex_streaming(&method, options);
                let (sender, receiver) = call.map_err(status)?;
                Ok(Upload { sender, receiver })
            },
        )
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
        call(
            &self.around,
            path,
            Kind::Bidirectional,
            options,
            |options| {
                let options = options.into_grpcio().map_err(status)?;
                let call = self.client.duplex_streaming(&method, options);
                let (sender, receiver) = call.map_err(status)?;
                let replies = Replies::new(Receiver::OfBoth(receiver));
                Ok((Requests { sender }, replies))
            },
        )
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").finish_non_exhaustive()
    }
}

/// The reply of a call that has one.
async fn only_reply<R>(
    replies: &mut (impl Stream<Item = grpcio::Result<R>> + Unpin),
) -> Result<R, Status> {
    let reply = replies.next().await.transpose().map_err(status)?;
    let Some(reply) = reply else {
        return Err(Status::internal("the server said OK and sent no reply"));
    };
    match replies.next().await.transpose().map_err(status)? {
        None => Ok(reply),
        Some(_) => Err(Status::internal("the server sent more than one reply")),
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
        grpcio::Error::Codec(error) => Status::internal(format!(
            "the reply cannot be decoded: {error}; compare this client's .proto with the server's"
        )),
        grpcio::Error::RemoteStopped | grpcio::Error::RpcFinished(None) => {
            Status::unavailable("the server has ended the call")
        }
        other => Status::unknown(other.to_string()),
    }
}
