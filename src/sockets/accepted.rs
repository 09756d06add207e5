//! Connections that were accepted, and what the kernel is told about them.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
#[cfg(feature = "tls")]
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "tls")]
use super::encryption::Encryption;
use super::options;
use super::peer::{PeerCredentials, PeerInfo};

/// What the connections of a TCP socket are to be like; what is not set is left
/// to the kernel, or to the owner of the listener.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TcpOptions {
    pub(crate) keepalive: Option<TcpKeepalive>,
    pub(crate) user_timeout: Option<Duration>,
}

/// In whole seconds, as the kernel has them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TcpKeepalive {
    pub(crate) idle: u16,
    pub(crate) interval: u16,
    pub(crate) probes: u8,
}

impl TcpOptions {
    /// How long a peer may leave unanswered what it is sent, if that is set.
    pub(super) fn unanswered(&self) -> Option<Duration> {
        // If there is a user timeout, the kernel goes by that and not by the number of probes.
        let by_probes = |it: TcpKeepalive| {
            let seconds = u64::from(it.idle) + u64::from(it.interval) * u64::from(it.probes);
            Duration::from_secs(seconds)
        };
        self.user_timeout.or(self.keepalive.map(by_probes))
    }
}

/// A connection that was accepted.
pub(crate) struct Accepted {
    pub(crate) socket: OwnedFd,
    /// The peer's address; `None` if it came by a unix socket.
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) info: PeerInfo,
    /// How long the peer may leave unanswered what it is sent, if its listener says so.
    pub(crate) unanswered: Option<Duration>,
    /// Whether its listener is on an open network.
    #[cfg(feature = "server")]
    pub(crate) is_public: bool,
    #[cfg(feature = "tls")]
    pub(crate) encryption: Option<Arc<Encryption>>,
}

impl Accepted {
    /// Whether TLS is spoken on it.
    #[cfg(feature = "server")]
    pub(crate) fn is_encrypted(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.encryption.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }

    /// Has the kernel close it when its peer leaves what it is sent unanswered for too long, if its listener says so.
    pub(crate) fn limit_unanswered(&self) {
        if let (Some(limit), Some(_)) = (self.unanswered, self.peer) {
            let milliseconds = libc::c_int::try_from(limit.as_millis()).unwrap_or(libc::c_int::MAX);
            let (level, name) = (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT);
            // It fails only for a connection that is gone.
            let _ = options::set(&self.socket, level, name, milliseconds);
        }
    }

    pub(super) fn from_tcp(
        socket: TcpStream,
        peer: SocketAddr,
        options: &TcpOptions,
    ) -> io::Result<Accepted> {
        socket.set_nonblocking(true)?;
        // Answers are written whole: to wait for more to send only delays them.
        // It fails for a connection that is gone again, and then does not matter.
        let _ = socket.set_nodelay(true);
        if let Some(keepalive) = options.keepalive {
            probe(&socket, keepalive);
        }
        Ok(Accepted {
            socket: socket.into(),
            peer: Some(peer),
            info: PeerInfo::default(),
            unanswered: options.unanswered(),
            #[cfg(feature = "server")]
            is_public: false,
            #[cfg(feature = "tls")]
            encryption: None,
        })
    }

    pub(crate) fn from_unix(socket: UnixStream) -> io::Result<Accepted> {
        socket.set_nonblocking(true)?;
        let credentials = PeerCredentials::of(&socket);
        Ok(Accepted {
            socket: socket.into(),
            peer: None,
            info: PeerInfo::with(credentials),
            unanswered: None,
            #[cfg(feature = "server")]
            is_public: false,
            #[cfg(feature = "tls")]
            encryption: None,
        })
    }
}

/// Whether it is a single connection that failed as it was accepted: the next one may be fine. accept(2).
pub(crate) fn is_of_connection(error: &io::Error) -> bool {
    let codes = [
        libc::ECONNABORTED,
        libc::EINTR,
        libc::ENETDOWN,
        libc::EPROTO,
        libc::ENOPROTOOPT,
        libc::EHOSTDOWN,
        libc::ENONET,
        libc::EHOSTUNREACH,
        libc::EOPNOTSUPP,
        libc::ENETUNREACH,
    ];
    error
        .raw_os_error()
        .is_some_and(|code| codes.contains(&code))
}

/// Has the kernel probe whether the peer is there. It fails only for a connection that is gone.
fn probe(socket: &TcpStream, keepalive: TcpKeepalive) {
    let options = [
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, keepalive.idle.into()),
        (
            libc::IPPROTO_TCP,
            libc::TCP_KEEPINTVL,
            keepalive.interval.into(),
        ),
        (
            libc::IPPROTO_TCP,
            libc::TCP_KEEPCNT,
            keepalive.probes.into(),
        ),
    ];
    for (level, name, value) in options {
        let _ = options::set(socket, level, name, value);
    }
}
