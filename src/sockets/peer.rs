//! Who is at the other end of a connection.

#[cfg(feature = "tls")]
use std::any::Any;
use std::os::fd::AsRawFd;
#[cfg(feature = "server")]
use std::sync::Arc;
#[cfg(feature = "tls")]
use std::sync::OnceLock;

#[cfg(feature = "server")]
use super::address::Address;

/// What is known of a connection's peer, beside its address.
#[derive(Debug, Default)]
pub(crate) struct PeerInfo {
    /// The program has made the connection to itself, past its sockets.
    #[cfg(feature = "server")]
    pub(crate) is_own: bool,
    /// Where it was accepted; `None` if it was not.
    #[cfg(feature = "server")]
    pub(crate) listener: Option<Arc<Address>>,
    pub(crate) credentials: Option<PeerCredentials>,
    /// In DER, once the handshake is over, if the peer has one.
    #[cfg(feature = "tls")]
    pub(crate) certificate: OnceLock<Box<[u8]>>,
    /// The certificate as somebody has read it.
    #[cfg(feature = "tls")]
    pub(crate) read: OnceLock<Option<Arc<dyn Any + Send + Sync>>>,
}

impl PeerInfo {
    pub(crate) fn with(credentials: Option<PeerCredentials>) -> PeerInfo {
        PeerInfo {
            #[cfg(feature = "server")]
            is_own: false,
            #[cfg(feature = "server")]
            listener: None,
            credentials,
            #[cfg(feature = "tls")]
            certificate: OnceLock::new(),
            #[cfg(feature = "tls")]
            read: OnceLock::new(),
        }
    }

    /// The certificate, read once for all calls of the connection.
    #[cfg(feature = "tls")]
    pub(crate) fn certificate_as<T: Any + Send + Sync>(
        &self,
        read: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Option<Arc<T>> {
        // Nothing is kept before the handshake is over.
        let certificate = self.certificate.get()?;
        let read = || read(certificate).map(|it| Arc::new(it) as Arc<dyn Any + Send + Sync>);
        self.read.get_or_init(read).clone()?.downcast().ok()
    }
}

/// The process at the other end of a unix socket, as the kernel saw it when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PeerCredentials {
    /// Its effective user. One that has no number in this process's user namespace is 65534, or
    /// whatever `/proc/sys/kernel/overflowuid` says.
    pub uid: u32,
    /// Its effective group. As for the user, 65534 may stand for one without a number here.
    pub gid: u32,
    /// Its process id; `None` if this process cannot see it, as from a container to its host. The
    /// process may have ended since, and the number may be another's: do not decide by it.
    pub pid: Option<u32>,
}

impl PeerCredentials {
    /// Of a unix socket's peer.
    pub(crate) fn of(socket: &impl AsRawFd) -> Option<PeerCredentials> {
        let mut found = libc::ucred {
            pid: 0,
            uid: 0,
            gid: 0,
        };
        let mut length = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: the kernel writes no more than `length` bytes, which are integers.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut found).cast(),
                &mut length,
            )
        };
        (result == 0).then(|| PeerCredentials {
            uid: found.uid,
            gid: found.gid,
            pid: u32::try_from(found.pid).ok().filter(|it| *it != 0),
        })
    }
}
