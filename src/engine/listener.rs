//! The process's own listening sockets. C-core never sees them: it is handed
//! the connections one by one, so listening can end before anything else does,
//! and the number of connections can be bounded.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::linux::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// An address and port of IPv4 or IPv6.
    Tcp(SocketAddr),
    /// The path of a unix socket.
    Unix(PathBuf),
}

impl Address {
    /// The port, or `None` for a unix socket.
    pub fn port(&self) -> Option<u16> {
        match self {
            Address::Tcp(address) => Some(address.port()),
            Address::Unix(_) => None,
        }
    }
}

/// As it is written for the builder: `127.0.0.1:50051`, `[::1]:50051`,
/// `unix:/run/greeter.sock`.
impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(formatter, "{address}"),
            Address::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

pub(crate) struct Listener {
    socket: Socket,
    address: Address,
}

enum Socket {
    Tcp(TcpListener),
    /// With the inode of its path, so that only this socket's is ever removed.
    Unix(UnixListener, u64),
}

/// A connection that was accepted.
pub(super) struct Accepted {
    pub(super) socket: OwnedFd,
    /// The peer's address in the form of gRPC's naming document.
    pub(super) peer: String,
}

/// How many connections the kernel may keep until they are accepted. It takes less if
/// `net.core.somaxconn` is less; 4096 is the default of that since Linux 5.4.
pub(super) const QUEUE: libc::c_int = 4096;

impl Listener {
    /// Listens at every address that `name` stands for.
    pub(crate) fn bind(name: &str) -> io::Result<Vec<Listener>> {
        match name.strip_prefix("unix:") {
            Some(path) => {
                let path = path.strip_prefix("//").unwrap_or(path);
                Ok(vec![Listener::bind_unix(Path::new(path))?])
            }
            None => name.to_socket_addrs()?.map(Listener::bind_tcp).collect(),
        }
    }

    fn bind_tcp(address: SocketAddr) -> io::Result<Listener> {
        let socket = TcpListener::bind(address)?;
        lengthen_queue(&socket)?;
        socket.set_nonblocking(true)?;
        Ok(Listener {
            address: Address::Tcp(socket.local_addr()?),
            socket: Socket::Tcp(socket),
        })
    }

    fn bind_unix(path: &Path) -> io::Result<Listener> {
        let socket = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path) => {
                std::fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
            other => other?,
        };
        lengthen_queue(&socket)?;
        socket.set_nonblocking(true)?;
        let inode = std::fs::metadata(path)?.st_ino();
        Ok(Listener {
            socket: Socket::Unix(socket, inode),
            address: Address::Unix(path.to_owned()),
        })
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn as_raw_fd(&self) -> RawFd {
        match &self.socket {
            Socket::Tcp(socket) => socket.as_raw_fd(),
            Socket::Unix(socket, _) => socket.as_raw_fd(),
        }
    }

    /// The next connection; `None` if there is none at the moment.
    pub(super) fn accept(&self) -> io::Result<Option<Accepted>> {
        let accepted = match &self.socket {
            Socket::Tcp(listener) => listener.accept().and_then(|(socket, peer)| {
                socket.set_nonblocking(true)?;
                // Replies are written whole; waiting for more to send only delays them.
                // It fails for a connection that is gone again, and then does not matter.
                let _ = socket.set_nodelay(true);
                let peer = match peer {
                    SocketAddr::V4(peer) => format!("ipv4:{peer}"),
                    SocketAddr::V6(peer) => format!("ipv6:%5B{}%5D:{}", peer.ip(), peer.port()),
                };
                Ok(Accepted {
                    socket: socket.into(),
                    peer,
                })
            }),
            Socket::Unix(listener, _) => listener.accept().and_then(|(socket, _)| {
                socket.set_nonblocking(true)?;
                Ok(Accepted {
                    socket: socket.into(),
                    peer: "unix:".to_owned(),
                })
            }),
        };
        match accepted {
            Ok(accepted) => Ok(Some(accepted)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let (Socket::Unix(_, inode), Address::Unix(path)) = (&self.socket, &self.address) else {
            return;
        };
        // A successor may listen there already.
        if std::fs::metadata(path).is_ok_and(|it| it.st_ino() == *inode) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Asks for a longer queue than the standard library does (128), which many clients that
/// reconnect at the same time would overflow.
fn lengthen_queue(listener: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: a system call on a socket that is open and listens.
    match unsafe { libc::listen(listener.as_raw_fd(), QUEUE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether a socket lies at the path and nobody listens on it.
fn is_abandoned(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket())
        && UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}
