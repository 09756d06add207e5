//! Call observers: told of every call and every connection, refused ones included.

use std::sync::Arc;
use std::time::Duration;

use super::call::{Call, Peer};
use super::kind::CallKind;
use super::status::Code;

/// Is told how each call fares, from its arrival to its end, and each connection.
///
/// # When to use
///
/// For metrics, traces and call logs. An [`Interceptor`](super::Interceptor) sees the calls that are run, and can
/// change what becomes of them. An observer changes nothing, and sees all: those that were refused because the
/// backlog was full or the server was shutting down, those whose deadline passed before a worker was free, those of
/// methods that do not exist, and those of [health](super::Health) checks.
///
/// # What is told
///
/// For each call [`arrived`](Self::arrived) is called once, first. [`begun`](Self::begun) is called when its handler
/// is about to run. Last comes exactly one of [`ended`](Self::ended), if the call was begun or was cut while it
/// waited, and [`refused`](Self::refused). A drain does not end before the observers were told of the end of all
/// calls that it has waited for. A call whose handler never returns ends as [`CallOutcome::Abandoned`] when the
/// server gives it up; there is no second `ended` if the handler returns after all. If that happens in the moment in
/// which the handler is about to run, `begun` may follow.
///
/// # Where it runs
///
/// On the thread that does what is told, before that goes on:
///
/// | method | thread |
/// |---|---|
/// | `arrived`, `begun` | the worker that polls, and that may run the handler |
/// | `ended`, `refused` | a worker that polls; or the one that ended the call, which is the program's own for a detached stream |
/// | `ended` with [`CallOutcome::Abandoned`] | the one that stops the server |
/// | `connection` | the one that accepts, or a worker that polls, which may hold locks of the connection |
///
/// So an observer **must not block**: while it does, nobody polls, and no call is answered. It must not call into
/// gRPC either, neither as a client nor at this server's calls. It may use atomics, short locks, and channels that it
/// does not wait for. What takes longer (a file, a socket) belongs on a thread of its own, behind such a channel.
///
/// A panic in an observer is caught. It costs this observer this event. It is logged, once a second at the most, and
/// the call goes on as if nothing had happened.
///
/// # What it costs
///
/// A server without observers reads no clock for them and keeps no numbers. With observers, a call takes one more
/// look at the clock and one allocation.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use std::sync::Arc;
/// use touchdown::{Call, CallEnd, CallObserver, CallRefusal, Code, Server};
///
/// #[derive(Default)]
/// struct Failures(AtomicU64);
///
/// impl CallObserver for Failures {
///     fn ended(&self, _: &Call, end: &CallEnd) {
///         if end.code != Code::Ok {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
///
///     fn refused(&self, _: &Call, _: &CallRefusal) {
///         self.0.fetch_add(1, Ordering::Relaxed);
///     }
/// }
///
/// let failures = Arc::new(Failures::default());
/// let builder = Server::builder().observer(Arc::clone(&failures));
/// # drop(builder);
/// assert_eq!(failures.0.load(Ordering::Relaxed), 0);
/// ```
pub trait CallObserver: Send + Sync + 'static {
    /// A call has arrived. If its method does not exist, [`Call::method`] is the path that the caller has asked for,
    /// and [`Call::kind`] is [`CallKind::UnknownMethod`].
    fn arrived(&self, call: &Call) {
        let _ = call;
    }

    /// The call's handler is about to run, so long after the call's arrival.
    fn begun(&self, call: &Call, waited: Duration) {
        let _ = (call, waited);
    }

    /// The call is over: its status is with the kernel and nobody works on it any more.
    fn ended(&self, call: &Call, end: &CallEnd) {
        let _ = (call, end);
    }

    /// The call is over, and was refused: no handler has seen it.
    fn refused(&self, call: &Call, refusal: &CallRefusal) {
        let _ = (call, refusal);
    }

    /// Something has become of a connection.
    fn connection(&self, event: &ConnectionEvent) {
        let _ = event;
    }
}

impl<O: CallObserver + ?Sized> CallObserver for Arc<O> {
    fn arrived(&self, call: &Call) {
        (**self).arrived(call);
    }

    fn begun(&self, call: &Call, waited: Duration) {
        (**self).begun(call, waited);
    }

    fn ended(&self, call: &Call, end: &CallEnd) {
        (**self).ended(call, end);
    }

    fn refused(&self, call: &Call, refusal: &CallRefusal) {
        (**self).refused(call, refusal);
    }

    fn connection(&self, event: &ConnectionEvent) {
        (**self).connection(event);
    }
}

/// How a call ended that was not refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallEnd {
    /// The status code that the server has sent. A caller that left, or whose deadline passed, saw another.
    pub code: Code,
    /// Whether it ended as its handler said.
    pub outcome: CallOutcome,
    /// The time from its arrival until its handler was begun.
    pub waited: Duration,
    /// The time from then until its status was given to the transport; zero if it was not begun. What a handler
    /// does after its call was cut is not counted.
    pub ran: Duration,
    /// What the handler has received.
    pub received: Traffic,
    /// What was given to the transport for the caller.
    pub sent: Traffic,
    /// What sort of call it was.
    pub kind: CallKind,
}

/// What became of a call that was not refused. The server's [report](crate::lifecycle::Calls) counts the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallOutcome {
    /// It ended as its handler said, with whatever status.
    Completed,
    /// The caller did not wait for the end.
    CallerLeft,
    /// It had ended, or could have, but its connection was cut before the answer had gone out.
    Undelivered,
    /// The server ended it because its time in the drain was over; see [`DrainPolicy`](super::DrainPolicy).
    Cut,
    /// It ended after it had been told to stop.
    ToldToStop,
    /// Its handler did not return, and the server did not wait for it any longer.
    Abandoned,
}

/// How a call ended that no handler has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallRefusal {
    /// Why it was refused.
    pub reason: RefusalReason,
    /// The status code that the server has sent.
    pub code: Code,
    /// The time from its arrival until it was refused.
    pub waited: Duration,
    /// The request that had come with it.
    pub received: Traffic,
    /// What sort of call it was.
    pub kind: CallKind,
}

/// Why a call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalReason {
    /// The method does not exist.
    UnknownMethod,
    /// The request ended before its message was whole.
    NoRequest,
    /// All workers were busy, and the backlog was full.
    BacklogFull,
    /// Too many callers did not take their answers.
    AnswersNotTaken,
    /// The deadline passed while the call waited for a worker.
    Expired,
    /// Less time was left than the method takes at the least; see
    /// [`Service::minimum_time`](super::Service::minimum_time).
    TooLittleTime,
    /// The server was shutting down.
    ShuttingDown,
}

/// How much went one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// How many messages.
    pub messages: u64,
    /// How many bytes they have on the wire: compressed if they are, and without the five bytes that stand before
    /// each message.
    pub bytes: u64,
}

/// What became of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionEvent {
    /// It was accepted, and is served from now on. The number is this server's for it, and no other gets it.
    #[non_exhaustive]
    Opened {
        /// The connection's number.
        number: u64,
        /// Who is at the other end.
        peer: Peer,
        /// Whether it is encrypted. The handshake has not begun yet.
        encrypted: bool,
    },
    /// It is closed. For each `Opened` there is one `Closed`.
    #[non_exhaustive]
    Closed {
        /// The connection's number.
        number: u64,
        /// Who was at the other end.
        peer: Peer,
    },
    /// It was closed as soon as it was accepted. It has no number.
    #[non_exhaustive]
    Refused {
        /// Who is at the other end.
        peer: Peer,
        /// Why it was closed.
        reason: ConnectionRefusal,
    },
    /// Its client is told to make no more calls on it, while the server goes on. `Closed` will follow; if the client closes
    /// it in this very moment, that may be told first.
    #[non_exhaustive]
    SentAway {
        /// The connection's number.
        number: u64,
        /// Why it has to go.
        reason: SentAwayReason,
    },
    /// Its TLS handshake has failed. `Closed` will follow.
    #[non_exhaustive]
    HandshakeFailed {
        /// Who is at the other end.
        peer: Peer,
        /// Why it has failed, as the log says it.
        reason: String,
    },
}

/// Why a connection was sent away while the server went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SentAwayReason {
    /// It was as old as [`ServerBuilder::max_connection_age`](super::ServerBuilder::max_connection_age) lets it become.
    Age,
    /// It had no call for [`ServerBuilder::max_connection_idle`](super::ServerBuilder::max_connection_idle).
    Idle,
    /// It was idle, and another wanted its place.
    Room,
    /// A call on it stood still for [`ServerBuilder::progress_timeout`](super::ServerBuilder::progress_timeout).
    NoProgress,
    /// For as long, hardly anything was taken of what had been written to its socket.
    NotTaken,
    /// Clients had more calls open than [`ServerBuilder::memory_limit`](super::ServerBuilder::memory_limit) has room for,
    /// and this one the most.
    TooManyCalls,
}

/// Why a connection was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectionRefusal {
    /// As many are open as [`ServerBuilder::max_connections`](super::ServerBuilder::max_connections) allows.
    LimitReached,
    /// Its address has as many as
    /// [`ServerBuilder::max_connections_per_address`](super::ServerBuilder::max_connections_per_address) allows.
    AddressLimit,
    /// The process, or the system, had no descriptor left for it.
    NoDescriptor,
}
