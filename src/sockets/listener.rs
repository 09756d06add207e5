//! One listening socket of the process: bound here, or inherited; what it accepts; and what becomes of a unix socket's
//! path at its end.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixSocketAddr, UnixListener};
use std::sync::Arc;

use super::accepted::{Accepted, TcpOptions};
use super::address::{invalid, Address};
#[cfg(feature = "tls")]
use super::encryption::Encryption;
use super::inherited::Inherited;
use super::options::listen;
use super::unix_path::{self, Access, SocketPath};
use crate::logging;

/// What listening at an address is to be like.
#[derive(Clone, Debug)]
pub(crate) struct ListenOptions {
    /// As the program has written it. It may stand for several addresses.
    pub(crate) address: String,
    /// For the path of a unix socket.
    pub(crate) access: Access,
    pub(crate) tcp: TcpOptions,
    /// Whether anybody may connect there; for a gRPC server.
    pub(crate) is_public: bool,
    #[cfg(feature = "tls")]
    pub(crate) encryption: Option<Arc<Encryption>>,
}

impl ListenOptions {
    pub(crate) fn new(address: String) -> ListenOptions {
        ListenOptions {
            address,
            access: Access::default(),
            tcp: TcpOptions::default(),
            is_public: false,
            #[cfg(feature = "tls")]
            encryption: None,
        }
    }
}

pub(crate) struct Listener {
    socket: Socket,
    address: Arc<Address>,
    /// The address as the program has written it, by which a successor finds the socket.
    name: String,
    is_inherited: bool,
    tcp: TcpOptions,
    #[cfg(feature = "server")]
    is_public: bool,
    /// What lies at the path of a unix socket, so that only this socket's is ever removed.
    path: Option<SocketPath>,
    /// Whether the end of the listener is the end of the path.
    owns_path: bool,
    /// Whether the path is somebody else's for ever; see [`Inherited::path_stays`].
    path_stays: bool,
    /// See [`Inherited::of_unit`].
    of_unit: bool,
    /// Who may connect, once the path is this listener's.
    access_then: Option<Access>,
    #[cfg(feature = "tls")]
    encryption: Option<Arc<Encryption>>,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// How many connections the kernel may keep until they are accepted. It takes less if
/// `net.core.somaxconn` is less; 4096 is the default of that since Linux 5.4.
pub(crate) const QUEUE: libc::c_int = 4096;

impl Listener {
    /// Binds a socket of the program's own.
    pub(super) fn bind_anew(address: &Address, options: &ListenOptions) -> io::Result<Listener> {
        let (socket, address) = match address {
            Address::Tcp(address) => {
                let socket = TcpListener::bind(address)?;
                let address = Address::Tcp(socket.local_addr()?);
                (Socket::Tcp(socket), address)
            }
            Address::Unix(path) => {
                let socket = unix_path::bind(path, options.access, QUEUE)?;
                (Socket::Unix(socket), address.clone())
            }
            Address::Abstract(name) => {
                let name = UnixSocketAddr::from_abstract_name(name)?;
                let socket = UnixListener::bind_addr(&name)?;
                (Socket::Unix(socket), address.clone())
            }
        };
        let listener = Listener {
            path: socket_path(&address),
            socket,
            address: Arc::new(address),
            name: options.address.clone(),
            tcp: options.tcp,
            #[cfg(feature = "server")]
            is_public: options.is_public,
            is_inherited: false,
            owns_path: true,
            path_stays: false,
            of_unit: false,
            access_then: None,
            #[cfg(feature = "tls")]
            encryption: options.encryption.clone(),
        };
        // For more than the standard library does (128), which many clients that reconnect at the same
        // time would overflow.
        listen(&listener.as_raw_fd(), QUEUE)?;
        listener.set_nonblocking()?;
        Ok(listener)
    }

    /// Listens with a copy of what was given.
    pub(super) fn inherit(given: &Inherited, options: &ListenOptions) -> io::Result<Listener> {
        let address = given.address()?;
        let socket = given.socket.try_clone()?;
        match &address {
            // Until this process is in charge, the one before it says who may connect.
            Address::Unix(_) if given.in_use && !given.of_unit => {}
            Address::Unix(path) if !given.of_unit => unix_path::allow(path, options.access)?,
            Address::Unix(path) if !unix_path::is_allowed(path, options.access)? => {
                return Err(invalid(
                    "systemd has given it another mode or owner: set SocketMode=, SocketUser= and \
                     SocketGroup= in the socket's unit",
                ));
            }
            _ => {}
        }
        let listener = Listener {
            socket: match address {
                Address::Tcp(_) => Socket::Tcp(socket.into()),
                Address::Unix(_) | Address::Abstract(_) => Socket::Unix(socket.into()),
            },
            path: socket_path(&address),
            address: Arc::new(address),
            // It may have had another, and goes by this one from now on.
            name: options.address.clone(),
            tcp: options.tcp,
            #[cfg(feature = "server")]
            is_public: options.is_public,
            is_inherited: true,
            owns_path: false,
            path_stays: given.path_stays,
            of_unit: given.of_unit,
            access_then: (given.in_use && !given.of_unit).then_some(options.access),
            #[cfg(feature = "tls")]
            encryption: options.encryption.clone(),
        };
        listener.set_nonblocking()?;
        Ok(listener)
    }

    /// Another descriptor of the socket, for a successor.
    pub(crate) fn hand_over(&self) -> io::Result<Inherited> {
        let socket = match &self.socket {
            Socket::Tcp(socket) => socket.try_clone()?.into(),
            Socket::Unix(socket) => socket.try_clone()?.into(),
        };
        Ok(Inherited {
            name: self.name.clone(),
            socket,
            path_stays: self.path_stays,
            of_unit: self.of_unit,
            in_use: true,
        })
    }

    /// The path of a unix socket is to go with this listener, which says who may connect.
    pub(crate) fn own_path(&mut self) {
        self.owns_path = !self.path_stays;
        if let (Some(access), Address::Unix(path)) = (self.access_then.take(), &*self.address) {
            if let Err(error) = unix_path::allow(path, access) {
                logging::error!(
                    "who may connect to {} stays as it was: {error}",
                    self.address
                );
            }
        }
    }

    /// Whether the process was given the socket.
    pub(crate) fn is_inherited(&self) -> bool {
        self.is_inherited
    }

    /// The path of a unix socket is to outlive the process.
    pub(crate) fn keep_path(&mut self) {
        (self.owns_path, self.path_stays) = (false, true);
    }

    /// Somebody else listens at the path of a unix socket when this listener is gone.
    pub(crate) fn leave_path(&mut self) {
        self.owns_path = false;
    }

    /// Ends listening. Returns the path that is left to somebody else, who may not come.
    pub(crate) fn end(self) -> Option<SocketPath> {
        let is_left = !self.owns_path && !self.path_stays;
        self.path.clone().filter(|_| is_left)
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    #[cfg(feature = "tls")]
    pub(crate) fn encryption(&self) -> Option<&Arc<Encryption>> {
        self.encryption.as_ref()
    }

    pub(crate) fn as_raw_fd(&self) -> RawFd {
        match &self.socket {
            Socket::Tcp(socket) => socket.as_raw_fd(),
            Socket::Unix(socket) => socket.as_raw_fd(),
        }
    }

    fn set_nonblocking(&self) -> io::Result<()> {
        match &self.socket {
            Socket::Tcp(socket) => socket.set_nonblocking(true),
            Socket::Unix(socket) => socket.set_nonblocking(true),
        }
    }

    /// Whether TLS is spoken there.
    pub(super) fn is_encrypted(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.encryption.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }

    /// The next connection; `None` if there is none at the moment.
    pub(crate) fn accept(&self) -> io::Result<Option<Accepted>> {
        let accepted = match &self.socket {
            Socket::Tcp(listener) => listener
                .accept()
                .and_then(|(socket, peer)| Accepted::from_tcp(socket, peer, &self.tcp)),
            Socket::Unix(listener) => listener
                .accept()
                .and_then(|(socket, _)| Accepted::from_unix(socket)),
        };
        match accepted {
            #[cfg(feature = "server")]
            Ok(mut accepted) => {
                accepted.info.listener = Some(Arc::clone(&self.address));
                accepted.is_public = self.is_public;
                #[cfg(feature = "tls")]
                accepted.encryption.clone_from(&self.encryption);
                Ok(Some(accepted))
            }
            #[cfg(not(feature = "server"))]
            Ok(accepted) => Ok(Some(accepted)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let (true, Some(path)) = (self.owns_path, self.path.take()) {
            path.remove();
        }
    }
}

/// The socket at the address's path, if it has one and it is there.
fn socket_path(address: &Address) -> Option<SocketPath> {
    match address {
        Address::Unix(path) => SocketPath::of(path),
        Address::Tcp(_) | Address::Abstract(_) => None,
    }
}

#[cfg(test)]
mod tests;
