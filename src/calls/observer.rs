//! What an observer is told: how each call fares, and each connection.
//!
//! A host without an [`Observer`] costs a call one look at an empty option, and no clock.

use std::sync::Arc;

use super::call::{Call, Landed};
use super::leaving::Why;

/// Who is told. It runs on the threads that poll, work or accept, some of which hold locks of the transport or of a
/// connection's TLS. So it must neither block nor panic, nor use the server.
pub(crate) trait Observer: Send + Sync + 'static {
    /// A call has arrived, of whatever method. There is exactly one [`ended`](Self::ended) for it, unless the
    /// process ends before its handler does.
    fn arrived(&self, call: &Arc<Call>);

    /// Its handler runs, from now on.
    fn begun(&self, call: &Arc<Call>);

    /// It is over. The host has not yet been told that it has landed; so a drain does not end before this.
    fn ended(&self, call: &Arc<Call>, landed: Landed);

    fn connection(&self, event: Connection<'_>);
}

/// What became of a connection.
pub(crate) enum Connection<'a> {
    Opened {
        number: u64,
        peer: &'a str,
        encrypted: bool,
    },
    /// After `Opened`, once.
    Closed { number: u64, peer: &'a str },
    /// It was closed as soon as it was accepted. There is no `Opened` for it.
    Refused { peer: &'a str, why: TurnedAway },
    /// After `Opened`, once at the most; and before `Closed`, unless the peer closes it in this very moment.
    SentAway { number: u64, why: Why },
    /// Between `Opened` and `Closed`.
    #[cfg(feature = "tls")]
    HandshakeFailed { peer: &'a str, why: &'a str },
}

/// Why a connection is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TurnedAway {
    LimitReached,
    AddressLimit,
    NoDescriptor,
}
