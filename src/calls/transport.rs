//! What a transport is: connections in, calls and messages up, answers and GOAWAY down, and one place to wait.
//!
//! This is all that the rest of the crate knows of HTTP/2. A transport implements [`Transport`] for a server,
//! [`Wire`] for each call and [`Link`] for each connection. It learns of what is to be served by [`Settings`] and
//! the list of [methods](super::Method), makes a [`Call`] for each call that arrives, and tells that call what becomes
//! of the operations that were begun on it:
//!
//! | begun by | its end is told by |
//! |---|---|
//! | [`Wire::watch`] | [`Call::closed`] |
//! | [`Wire::receive`] | [`Call::received`] |
//! | [`Wire::send`], [`Told::Directly`] | [`Call::sent`] |
//! | [`Wire::send`], [`Told::InTurn`] | [`Call::sent_in_turn`] |
//! | [`Wire::send_headers`] | nothing |
//! | [`Wire::finish`] | [`Call::written`] |
//!
//! `received` and `sent` may be called on any thread, also before the function that has begun the operation returns,
//! and while the thread holds locks of other calls. The others are called by [`Transport::next`] and
//! [`Transport::try_next`], on the thread that asks, with no lock held.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::call::{Call, Pair};
use super::connections::Guest;
use super::ground::Ground;
use super::message::Message;
use super::outgoing::Outgoing;
#[cfg(feature = "tls")]
use crate::sockets::peer::PeerInfo;

/// What a server is to be like, as far as its transport goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// How many calls a client may have open on one connection.
    pub(crate) concurrent_streams: u32,
    /// How large the metadata of a request may be, in bytes.
    pub(crate) metadata_size: u32,
    /// After how long without a byte a connection is probed.
    pub(crate) keepalive_interval: Duration,
    /// How long the answer to that may take.
    pub(crate) keepalive_timeout: Duration,
    /// How many bytes may be taken for what has not fully arrived, all connections together.
    pub(crate) memory: usize,
}

/// The transport of one server. Any number of threads use it.
pub(crate) trait Transport: Send + Sync {
    /// Begins to take calls in. To be called once, before everything else.
    fn start(&self);

    /// Blocks until something happens. Meanwhile this thread does the transport's input and output.
    fn next(&self, ground: &Arc<Ground>) -> Event;

    /// As `next`, but says `None` instead of blocking.
    fn try_next(&self, ground: &Arc<Ground>) -> Option<Event>;

    /// An arrival that `next` has given was dealt with. To be called once for each.
    fn arrival_is_over(&self);

    /// Whether a call may arrive still, or somebody is at work on an arrival.
    fn expects_arrivals(&self) -> bool;

    /// Has the thread that polls next get this check; drops it after the [end](Self::end).
    fn post(&self, check: Check);

    /// Has the thread that polls next get [`Event::Renewal`].
    fn renew(&self);

    /// Lets threads of the transport's own be replaced that have nothing to do, if it has any.
    fn renew_threads(&self);

    /// Serves a connection. Its guest is told that it is open before this returns.
    fn add_connection(&self, newcomer: Newcomer);

    /// Sends the graceful GOAWAY on every connection: calls that are on the wire are still served, and a connection
    /// ends by itself once its client has acknowledged that and its last call is over.
    fn send_goaways(&self);

    /// Lets what this thread writes wait for [`uncork`](Self::uncork).
    fn cork(&self);

    /// Writes everything that waits, whichever thread has corked it.
    fn uncork(&self);

    /// As `uncork`, and lets nothing wait any more that is written by threads that have corked before the last call
    /// of this.
    fn uncork_old(&self);

    /// Takes no call any more: [`Event::Stopped`] follows once all connections are gone. May block for a while.
    fn shut_down(&self);

    /// Cancels every call that is left. After `shut_down`.
    fn cancel_all_calls(&self);

    /// Lets `next` say [`Event::End`] once nothing is outstanding. Nothing may be begun on a call afterwards. May be
    /// called more than once.
    fn end(&self);
}

/// What a thread that polls is told.
pub(crate) enum Event {
    Arrival(Arrival),
    /// Something that was begun on a call has ended, and the call was told.
    Told,
    /// One call less is expected: the transport is shut down.
    NoArrival,
    Check(Check),
    /// Another thread is to take this one's place, if there can be one.
    Renewal,
    /// The transport is shut down.
    Stopped,
    /// The transport is at its end: there will be no more events.
    End,
}

/// What the thread does that polls next.
pub(crate) type Check = Box<dyn FnOnce() + Send>;

/// A call that has arrived.
pub(crate) struct Arrival {
    pub(crate) call: Arc<Call>,
    /// The request, unless its method takes a stream of them. `None` for others if the call has ended without one.
    pub(crate) message: Option<Message>,
    /// The path, if it is no method's.
    pub(crate) unknown: Option<String>,
}

/// A connection that is to be served.
pub(crate) struct Newcomer {
    /// Connected, and non-blocking.
    pub(crate) socket: OwnedFd,
    /// The peer's address in the form of gRPC's naming document.
    pub(crate) peer: String,
    /// Gets the peer's certificate, once that is known.
    #[cfg(feature = "tls")]
    pub(crate) info: Arc<PeerInfo>,
    #[cfg(feature = "tls")]
    pub(crate) encryption: Option<Arc<crate::sockets::encryption::Encryption>>,
    /// Who is told what becomes of it.
    pub(crate) guest: Guest,
}

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

/// The transport's side of a connection. It may be over while somebody holds on to it.
pub(crate) trait Link: Send + Sync {
    /// Makes system calls, but does not block. No lock may be held that a [`Guest`] takes.
    fn look(&self) -> View;

    /// Ends the wait for the peer to acknowledge GOAWAY, and tells it which call is the last. No lock may be held that
    /// a [`Guest`] takes.
    fn finish(&self) -> Finished;

    /// Shuts the socket down in both directions, unless it is closed.
    fn shut_down(&self);

    /// The round trip that the kernel has measured; zero if it does not know.
    fn round_trip(&self) -> Duration;
}

/// What came of telling a peer which call is the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finished {
    /// It is on its way; with the last call the connection ends.
    Told,
    /// Something has come that was not read yet. It decides which call is the last.
    NotYet,
    /// A frame has come in part: nothing can be told before it is whole.
    MidFrame,
}

/// What is known of a connection at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct View {
    /// The bytes that have been read of what the peer has sent; behind TLS, of what it means.
    pub(crate) received: u64,
    /// The bytes that have reached the peer's kernel; for a unix socket, those that the peer has read.
    pub(crate) arrived: u64,
    /// The calls that the peer has begun.
    pub(crate) calls: u64,
    /// Those of them of which neither side has sent the end.
    pub(crate) open: u32,
    /// The calls whose end was given to the kernel, and has not reached the peer's. For a unix socket there are none:
    /// what is written is there.
    pub(crate) undelivered: u32,
    /// The calls whose end is in the write that is under way, and has not reached the peer's kernel.
    pub(crate) writing: u32,
    /// Those of which it has, though the write has not ended.
    pub(crate) arrived_of_write: u32,
    /// The bytes that have come and were not read yet.
    pub(crate) unread: i32,
    /// The bytes, and FIN, that the peer's kernel has not acknowledged. For a unix socket there are none, as above.
    pub(crate) unacknowledged: i32,
    /// Whether a part of a frame has come, or of a TLS record, and the rest not yet.
    pub(crate) mid_frame: bool,
    /// Whether the peer has acknowledged the ping behind GOAWAY.
    pub(crate) acknowledged: bool,
    /// Whether that ping has reached the peer's kernel.
    pub(crate) ping_arrived: bool,
    /// Whether the connection is over on both sides: nothing can come any more. Somebody may hold on to a call of it
    /// still.
    pub(crate) over: bool,
    /// Whether it is closed, and nothing else of this is true.
    pub(crate) gone: bool,
}
