//! The transport's side of a call, as the call needs it; see [`transport`](crate::calls::transport).

use std::sync::Arc;
use std::time::Duration;

use super::{Call, Pair};
use crate::calls::outgoing::Outgoing;

/// The transport's side of one call.
///
/// A call is `Call<W>` with its wire in it, and is known as `Call<dyn Wire>`, so `call` is always the one that this
/// wire is in. Each kind of operation is begun again only after its end was told, and `watch` no more than once, `finish`
/// included.
pub(crate) trait Wire: Send + Sync {
    /// Name and value of the request's metadata, in the order in which they came; `None` behind the last.
    fn metadata(&self, index: usize) -> Option<(&[u8], &[u8])>;

    /// The caller's address, as a URI of gRPC: `ipv4:127.0.0.1:4711`.
    fn peer(&self) -> String;

    /// The number of the call's connection; `None` if it is gone.
    fn connection(&self) -> Option<u64>;

    /// The time left until the caller's deadline; `None` without a deadline.
    fn time_to_deadline(&self) -> Option<Duration>;

    /// Says, once, whether the caller has left when the call is closed. This is no operation that can fail.
    fn watch(&self, call: &Arc<Call>);

    /// Begins to receive a message. False if that cannot be.
    fn receive(&self, call: &Arc<Call>) -> bool;

    /// As `receive`, and its end is told in turn: by [`Event::Step`](crate::calls::transport::Event::Step).
    fn receive_in_turn(&self, call: &Arc<Call>) -> bool;

    /// Has the thread that polls next get [`Event::Step`](crate::calls::transport::Event::Step) of this call. Does
    /// nothing if the transport is at its end. May be called on any thread, also while that tells of an operation's end.
    fn step(&self, call: &Arc<Call>);

    /// Begins to send a message, behind headers if there are some. False if that cannot be.
    fn send(
        &self,
        call: &Arc<Call>,
        headers: Option<&[Pair]>,
        message: Outgoing,
        told: Told,
    ) -> bool;

    /// Sends the response headers. False if that cannot be.
    fn send_headers(&self, call: &Arc<Call>, headers: &[Pair]) -> bool;

    /// Sends the end of the call. False if that cannot be.
    fn finish(&self, call: &Arc<Call>, finish: Finish<'_>) -> bool;
}

/// How the end of sending a message is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// By [`Call::sent`].
    Directly,
    /// By [`Call::sent_in_turn`].
    InTurn,
}

/// What is sent at the end of a call.
pub(crate) struct Finish<'a> {
    /// `None` if they were sent already.
    pub(crate) headers: Option<&'a [Pair]>,
    pub(crate) message: Option<Outgoing>,
    pub(crate) code: i32,
    /// The status message, as it was said.
    pub(crate) text: &'a str,
    pub(crate) trailers: &'a [Pair],
    /// Whether the call is to be watched by this; see [`Call::written`].
    pub(crate) watch: bool,
}
