//! What a program does around its own calls.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::Status;

use super::{CallOptions, Metadata};

/// How many messages go each way in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One request, one reply.
    Unary,
    /// One request, a stream of replies.
    ServerStreaming,
    /// A stream of requests, one reply.
    ClientStreaming,
    /// Streams both ways.
    Bidirectional,
}

/// A call that a client is about to make, as what stands [around](super::Client::around) it sees it.
#[derive(Clone, Copy)]
pub struct Outgoing<'a> {
    path: &'static str,
    kind: Kind,
    options: &'a CallOptions,
}

impl<'a> Outgoing<'a> {
    /// The service and the method: `/greeter.Greeter/SayHello`.
    pub fn path(&self) -> &'static str {
        self.path
    }

    /// How many messages go each way.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The options, as whatever stands further out left them: to be handed on, or to be cloned and changed.
    pub fn options(&self) -> &'a CallOptions {
        self.options
    }

    /// How long the call may take, if that is set.
    pub fn timeout(&self) -> Option<Duration> {
        self.options.timeout
    }

    /// Whether the call waits for a server that cannot be reached at the moment.
    pub fn waits_for_ready(&self) -> bool {
        self.options.wait_for_ready
    }

    /// What is sent before the request.
    pub fn metadata(&self) -> &'a Metadata {
        &self.options.metadata
    }
}

impl fmt::Debug for Outgoing<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Outgoing")
            .field("path", &self.path)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// The call itself, with what stands further in around it.
pub struct Next<'a> {
    attempt: &'a mut dyn FnMut(&CallOptions) -> Result<(), Status>,
}

impl Next<'_> {
    /// Makes the call with these options. Of a unary call this waits for the end; of the others it
    /// begins the stream, and what becomes of it is not seen here.
    ///
    /// It may be called again, and the request is sent again then. The caller gets the reply, or the
    /// stream, of the last call of this that succeeded; an earlier stream is cancelled.
    ///
    /// # Errors
    ///
    /// The status with which the call ended, or because of which it could not be begun.
    pub fn run(&mut self, options: &CallOptions) -> Result<(), Status> {
        (self.attempt)(options)
    }
}

impl fmt::Debug for Next<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Next").finish_non_exhaustive()
    }
}

/// What stands around the calls of a client: see [`Client::around`](super::Client::around).
pub(super) type Around =
    dyn Fn(&Outgoing<'_>, &mut Next<'_>) -> Result<(), Status> + Send + Sync + 'static;

/// Makes a call with all that stands around it, the last of `around` outermost.
pub(super) fn call<T>(
    around: &[Arc<Around>],
    path: &'static str,
    kind: Kind,
    options: CallOptions,
    attempt: impl Fn(CallOptions) -> Result<T, Status>,
) -> Result<T, Status> {
    if around.is_empty() {
        return attempt(options);
    }
    let mut reply = None;
    walk(around, path, kind, &options, &mut |options| {
        reply = Some(attempt(options.clone())?);
        Ok(())
    })?;
    reply.ok_or_else(|| {
        Status::internal("what stands around the client has made no call, and returned no status")
    })
}

fn walk(
    around: &[Arc<Around>],
    path: &'static str,
    kind: Kind,
    options: &CallOptions,
    attempt: &mut dyn FnMut(&CallOptions) -> Result<(), Status>,
) -> Result<(), Status> {
    let Some((outermost, inner)) = around.split_last() else {
        return attempt(options);
    };
    let outgoing = Outgoing {
        path,
        kind,
        options,
    };
    let mut attempt = |options: &CallOptions| walk(inner, path, kind, options, attempt);
    outermost(
        &outgoing,
        &mut Next {
            attempt: &mut attempt,
        },
    )
}
