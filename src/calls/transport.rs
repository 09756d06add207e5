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
//! | [`Wire::receive_in_turn`] | [`Call::received_in_turn`] |
//! | [`Wire::send`], [`Told::Directly`] | [`Call::sent`] |
//! | [`Wire::send`], [`Told::InTurn`] | [`Call::sent_in_turn`] |
//! | [`Wire::send_headers`] | nothing |
//! | [`Wire::finish`] | [`Call::written`] |
//!
//! `received` and `sent` may be called on any thread, also before the function that has begun the operation returns,
//! and while the thread holds locks of other calls. The others are called by [`Transport::next`] and
//! [`Transport::try_next`], on the thread that asks, with no lock held.

use std::sync::Arc;
use std::time::Duration;

pub(crate) use super::call::wire::{Finish, Told, Wire};
pub(crate) use super::connections::Newcomer;
pub(crate) use super::link::{Finished, Link, Span, View};

use super::call::ground::Ground;
use super::call::Call;
use super::fault::Fault;
use super::message::Message;

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
    /// How many bytes a message of a client may have, as it is sent.
    pub(crate) message_size: usize,
    /// How long a client may take to speak HTTP/2.
    pub(crate) handshake: Duration,
    /// With how many open calls on all connections together [`Guest::crowded`](super::Guest::crowded) is called.
    pub(crate) open_calls: usize,
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

    /// How many calls are open on all connections: begun by a client, and ended by neither side.
    fn open_calls(&self) -> usize;

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
    /// A step of this call is due.
    Step(Arc<Call>),
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
    /// What is wrong with the request, if that is known: then there is no message, and no handler is to see the call.
    pub(crate) fault: Option<Fault>,
}
