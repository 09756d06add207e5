//! What a handler can know and say of its call, beside the messages.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::calls;
use crate::calls::peer::{for_people, OWN};
use crate::lifecycle::{Canceller, Token};
use crate::sockets::peer::PeerCredentials;
use crate::sockets::Address;

use super::context;
use super::extensions::Extensions;
use super::kind::CallKind;
use super::metadata::{checked, checked_trailer, Metadata, MetadataError, Value};
#[cfg(feature = "tls")]
use super::peer_certificate::PeerCertificate;

/// One call, as its handler sees it.
///
/// Nothing here costs anything until it is asked for. A clone is the same call, and may be taken
/// to another thread; it does not keep the call open.
#[derive(Clone)]
pub struct Call {
    pub(super) core: Arc<calls::Call>,
}

impl Call {
    pub(super) fn new(core: Arc<calls::Call>) -> Call {
        Call { core }
    }

    /// The full name of the method: `/package.Service/Method`.
    pub fn method(&self) -> &str {
        self.core.path()
    }

    /// The full name of the service: `package.Service`. Of a call of a method that does not exist, what the
    /// path has before its last slash.
    pub fn service(&self) -> &str {
        self.split_path().0
    }

    /// The name of the method in its service: `Method`.
    pub fn method_name(&self) -> &str {
        self.split_path().1
    }

    /// The place of its method in the list of [`ServerHandle::methods`](super::ServerHandle::methods); `None` if the
    /// method does not exist. For who counts by method, and looks no name up.
    pub fn method_number(&self) -> Option<usize> {
        self.core.method().map(|it| it as usize)
    }

    fn split_path(&self) -> (&str, &str) {
        let path = self.method();
        let path = path.strip_prefix('/').unwrap_or(path);
        path.rsplit_once('/').unwrap_or(("", path))
    }

    /// The time since the call arrived, that in which it waited for a worker included.
    pub fn elapsed(&self) -> Duration {
        self.core.arrived_at().elapsed()
    }

    /// Where the caller has connected: one of the [addresses](super::ServerHandle::addresses) of the server. `None` for
    /// the [smoke test](Peer::SmokeTest), and if nothing is known of the connection any more. So a
    /// service can do more for those who come by a unix socket:
    ///
    /// ```
    /// # use touchdown::{Address, Call, Status};
    /// fn only_locally(call: &Call) -> Result<(), Status> {
    ///     match call.listener() {
    ///         Some(Address::Unix(_)) => Ok(()),
    ///         _ => Err(Status::permission_denied("only at the unix socket")),
    ///     }
    /// }
    /// ```
    pub fn listener(&self) -> Option<Address> {
        let info = self.core.connection_info()?;
        info.listener.as_deref().cloned()
    }

    /// The caller's address.
    pub fn peer(&self) -> Peer {
        Peer::parse(&self.core.peer())
    }

    /// The user, group and process of a caller at a unix socket, as the kernel saw them when it
    /// connected; `None` for a caller that came by TCP, for the [smoke test](Peer::SmokeTest), and if nothing is known of
    /// the connection any more. So refuse a caller of whom nothing is known:
    ///
    /// ```
    /// # use touchdown::{Call, Interceptor, Status};
    /// struct OnlyRoot;
    ///
    /// impl Interceptor for OnlyRoot {
    ///     fn before(&self, call: &Call) -> Result<(), Status> {
    ///         match call.peer_credentials() {
    ///             Some(peer) if peer.uid == 0 => Ok(()),
    ///             Some(_) => Err(Status::permission_denied("for root only")),
    ///             None => Err(Status::unauthenticated("at the unix socket only")),
    ///         }
    ///     }
    /// }
    /// ```
    pub fn peer_credentials(&self) -> Option<PeerCredentials> {
        self.core.connection_info()?.credentials
    }

    /// The caller's certificate, if its listener [asks](super::TlsFiles::client_ca) for one and it
    /// has one; `None` also once the call's connection is gone. So refuse a caller of whom nothing is known:
    ///
    /// ```
    /// # use touchdown::{Call, Interceptor, Status};
    /// struct OnlyTheFleet;
    ///
    /// impl Interceptor for OnlyTheFleet {
    ///     fn before(&self, call: &Call) -> Result<(), Status> {
    ///         match call.peer_certificate() {
    ///             Some(peer) if peer.dns_names().iter().any(|it| it.ends_with(".fleet")) => Ok(()),
    ///             Some(_) => Err(Status::permission_denied("for the fleet only")),
    ///             None => Err(Status::unauthenticated("a certificate is needed")),
    ///         }
    ///     }
    /// }
    /// ```
    #[cfg(feature = "tls")]
    pub fn peer_certificate(&self) -> Option<PeerCertificate> {
        let info = self.core.connection_info()?;
        let certificate = info.certificate_as(PeerCertificate::parse)?;
        Some(PeerCertificate::clone(&certificate))
    }

    /// Whether the request that was read last came compressed. Most services need not know: they
    /// get it decompressed.
    pub fn is_request_compressed(&self) -> bool {
        self.core.came_compressed()
    }

    /// The metadata that came with the request.
    pub fn metadata(&self) -> Metadata<'_> {
        Metadata::new(&self.core)
    }

    /// Adds a response header. They are sent with the first reply, or with the status if there is
    /// none.
    ///
    /// # Errors
    ///
    /// [`MetadataError`] if the name or the value is not legal, or the headers were sent.
    pub fn set_header<'a>(
        &self,
        name: &str,
        value: impl Into<Value<'a>>,
    ) -> Result<(), MetadataError> {
        let (name, value) = checked(name, value.into())?;
        match self.core.add_header(name.clone(), value) {
            true => Ok(()),
            false => Err(MetadataError::Sent(name)),
        }
    }

    /// Sends the response headers now, and does not wait for the first reply. For a stream whose
    /// first message may take its time: some clients do not go on before they have the headers.
    /// Does nothing if they were sent already, or the call has ended.
    pub fn send_headers(&self) {
        self.core.send_headers();
    }

    /// Adds a response trailer. They are sent with the status. `endpoint-load-metrics-bin`, the
    /// [load report](https://github.com/grpc/proposal/blob/master/A51-custom-backend-metrics.md), is sent once: the last that
    /// was added.
    ///
    /// # Errors
    ///
    /// [`MetadataError`] if the name or the value is not legal, or the call has ended.
    pub fn set_trailer<'a>(
        &self,
        name: &str,
        value: impl Into<Value<'a>>,
    ) -> Result<(), MetadataError> {
        let (name, value) = checked_trailer(name, value.into())?;
        match self.core.add_trailer(name.clone(), value) {
            true => Ok(()),
            false => Err(MetadataError::Sent(name)),
        }
    }

    /// The time left, zero once it is over; `None` if it is not limited. It is the time until the
    /// caller's deadline; once the server drains, until the end of what the call's
    /// [`DrainPolicy`](super::DrainPolicy) leaves it, if that is nearer.
    pub fn time_remaining(&self) -> Option<Duration> {
        self.core.time_remaining()
    }

    /// When [`time_remaining`](Self::time_remaining) is over, for what takes a point in time and not a duration; `None` if
    /// it is not limited. It may be in the past.
    pub fn deadline(&self) -> Option<Instant> {
        Instant::now().checked_add(self.time_remaining()?)
    }

    /// Whether there is no point in going on: the caller left, the deadline passed, or the server
    /// is cancelling what remains. A long handler should ask now and then.
    ///
    /// The first time a unary call asks, the engine begins to look out for the caller; the news
    /// that it left may come a moment later.
    pub fn is_cancelled(&self) -> bool {
        self.core.told_to_stop() || self.core.deadline_passed() || self.core.caller_left()
    }

    /// A token that is cancelled when [`is_cancelled`](Self::is_cancelled) becomes true: to wait
    /// on, to use in `select!`, or to make children of. It is the same each time.
    pub fn token(&self) -> Token {
        let token = context::of(&self.core).token.get_or_init(|| {
            let canceller = Canceller::new();
            let token = canceller.token();
            self.core.on_cancel(move || canceller.cancel());
            token
        });
        token.clone()
    }

    /// What interceptors, observers and the handler hand each other with this call.
    pub fn extensions(&self) -> &Extensions {
        &context::of(&self.core).extensions
    }

    /// What sort of call it is.
    pub fn kind(&self) -> CallKind {
        CallKind::of(&self.core)
    }
}

impl Call {
    /// Whether the server drains: it takes in no new calls, and waits for this one only as long
    /// as [`time_remaining`](Self::time_remaining) says. A stream should now come to an end.
    pub fn is_draining(&self) -> bool {
        self.core.is_draining()
    }

    /// A token that is cancelled when [`is_draining`](Self::is_draining) becomes true. It is the same each time.
    pub fn draining(&self) -> Token {
        let token = context::of(&self.core).draining.get_or_init(|| {
            let canceller = Canceller::new();
            let token = canceller.token();
            self.core.on_drain(move || canceller.cancel());
            token
        });
        token.clone()
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Call")
            .field("method", &self.method())
            .field("peer", &self.peer())
            .finish_non_exhaustive()
    }
}

/// Where a call comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// From an address and port of IPv4 or IPv6.
    Tcp(SocketAddr),
    /// Through a unix socket. What connects there has no address.
    Unix,
    /// The program itself: the [smoke test](super::ServerBuilder::smoke_test) of a server that is to replace another, on a
    /// connection that came by no listener. It has neither [credentials](Call::peer_credentials) nor
    /// a certificate. An interceptor that lets in only callers that it knows has to let it in, or the test fails.
    SmokeTest,
    /// From elsewhere, in C-core's words.
    Other(String),
}

impl Peer {
    /// Reads the forms of
    /// [gRPC's naming document](https://github.com/grpc/grpc/blob/master/doc/naming.md).
    pub(super) fn parse(uri: &str) -> Peer {
        let address = match uri.split_once(':') {
            Some(("unix", _)) if uri == OWN => return Peer::SmokeTest,
            Some(("unix", _)) => return Peer::Unix,
            // Std reads numbers of zones only.
            Some(("ipv4" | "ipv6", _)) => for_people(uri).parse(),
            _ => return Peer::Other(uri.to_owned()),
        };
        address.map_or_else(|_| Peer::Other(for_people(uri)), Peer::Tcp)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => address.fmt(formatter),
            Peer::Unix => formatter.write_str("unix"),
            Peer::SmokeTest => formatter.write_str("smoke test"),
            Peer::Other(uri) => formatter.write_str(uri),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_read_in_every_form() {
        let tcp = |it: &str| Peer::Tcp(it.parse().unwrap());
        assert_eq!(Peer::parse("ipv4:127.0.0.1:80"), tcp("127.0.0.1:80"));
        assert_eq!(Peer::parse("ipv6:%5B::1%5D:80"), tcp("[::1]:80"));
        assert_eq!(Peer::parse("ipv6:[::1]:80"), tcp("[::1]:80"));
        assert_eq!(Peer::parse("unix:"), Peer::Unix);
        assert_eq!(Peer::parse(OWN), Peer::SmokeTest);
        assert_eq!(Peer::parse("vsock:1:2"), Peer::Other("vsock:1:2".into()));
    }

    #[test]
    fn a_peer_is_spelled_as_in_the_log() {
        for uri in [
            "ipv4:127.0.0.1:80",
            "ipv6:%5B::1%5D:80",
            "ipv6:%5Bfe80::1%25eth0%5D:80",
            "unix:",
            OWN,
            "vsock:1:2",
        ] {
            assert_eq!(Peer::parse(uri).to_string(), for_people(uri));
        }
    }
}
