//! The sorts of calls that are told apart.

use crate::calls;

/// What sort of call it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallKind {
    /// One request, one reply.
    Unary,
    /// A stream, one way or both.
    Streaming,
    /// A stream that goes on, or went on, without its handler; see [`Replies::detach`](super::Replies::detach)
    /// and [`Requests::detach`](super::Requests::detach).
    Detached,
    /// Of the health service that is built in. The server's own counts leave it out.
    Health,
    /// Of a method that does not exist.
    UnknownMethod,
}

impl CallKind {
    pub(super) fn of(core: &calls::Call) -> CallKind {
        match () {
            () if core.method().is_none() => CallKind::UnknownMethod,
            () if core.is_prompt() => CallKind::Health,
            () if core.is_detached() => CallKind::Detached,
            () if core.is_streaming() => CallKind::Streaming,
            () => CallKind::Unary,
        }
    }
}
