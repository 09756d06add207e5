//! The process's own listening sockets. C-core never sees them: it is handed
//! the connections one by one, so listening can end before anything else does,
//! and the number of connections can be bounded.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixSocketAddr, UnixListener, UnixStream};
use std::path::PathBuf;
#[cfg(feature = "tls")]
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "tls")]
use super::encryption::Encryption;
use super::inherited::{inherited, Inherited, SYSTEMD};
use super::options;
use super::peer::{PeerCredentials, PeerInfo};
use super::unix_path::{self, Access, SocketPath};
use crate::logging;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// An address and port of IPv4 or IPv6.
    Tcp(SocketAddr),
    /// The path of a unix socket.
    Unix(PathBuf),
    /// The name of a unix socket in Linux's abstract namespace, without the zero byte before it.
    Abstract(String),
}

impl Address {
    /// The port, or `None` for a unix socket.
    pub fn port(&self) -> Option<u16> {
        match self {
            Address::Tcp(address) => Some(address.port()),
            Address::Unix(_) | Address::Abstract(_) => None,
        }
    }
}

/// As it is written for the builder: `127.0.0.1:50051`, `[::1]:50051`,
/// `unix:/run/greeter.sock`, `unix-abstract:greeter`.
impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(formatter, "{address}"),
            Address::Unix(path) => write!(formatter, "unix:{}", path.display()),
            Address::Abstract(name) => write!(formatter, "unix-abstract:{name}"),
        }
    }
}

/// What listening at an address is to be like.
#[derive(Clone, Debug)]
pub(crate) struct ListenOptions {
    /// As the program has written it. It may stand for several addresses.
    pub(crate) address: String,
    /// For the path of a unix socket.
    pub(crate) access: Access,
    pub(crate) tcp: TcpOptions,
    #[cfg(feature = "tls")]
    pub(crate) encryption: Option<Arc<Encryption>>,
}

impl ListenOptions {
    pub(crate) fn new(address: String) -> ListenOptions {
        ListenOptions {
            address,
            access: Access::default(),
            tcp: TcpOptions::default(),
            #[cfg(feature = "tls")]
            encryption: None,
        }
    }
}

/// What the connections of a TCP socket are to be like; what is not set is as the kernel, or the
/// server, has it.
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
    fn unanswered(&self) -> Option<Duration> {
        // If there is a user timeout, the kernel goes by that and not by the number of probes.
        let by_probes = |it: TcpKeepalive| {
            let seconds = u64::from(it.idle) + u64::from(it.interval) * u64::from(it.probes);
            Duration::from_secs(seconds)
        };
        self.user_timeout.or(self.keepalive.map(by_probes))
    }
}

pub(crate) struct Listener {
    socket: Socket,
    address: Address,
    /// The address as the program has written it, by which a successor finds the socket.
    name: String,
    is_inherited: bool,
    tcp: TcpOptions,
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

/// A connection that was accepted.
pub(crate) struct Accepted {
    pub(crate) socket: OwnedFd,
    /// The peer's address in the form of gRPC's naming document.
    pub(crate) peer: String,
    pub(crate) info: PeerInfo,
    /// How long the peer may leave unanswered what it is sent, if its listener says so.
    pub(crate) unanswered: Option<Duration>,
    #[cfg(feature = "tls")]
    pub(crate) encryption: Option<Arc<Encryption>>,
}

impl Accepted {
    /// Whether TLS is spoken on it.
    pub(crate) fn is_encrypted(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.encryption.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }

    fn from_tcp(socket: TcpStream, peer: SocketAddr, options: &TcpOptions) -> io::Result<Accepted> {
        socket.set_nonblocking(true)?;
        // Replies are written whole; waiting for more to send only delays them.
        // It fails for a connection that is gone again, and then does not matter.
        let _ = socket.set_nodelay(true);
        if let Some(keepalive) = options.keepalive {
            probe(&socket, keepalive);
        }
        let peer = match peer {
            SocketAddr::V4(peer) => format!("ipv4:{peer}"),
            SocketAddr::V6(peer) => format!("ipv6:%5B{}%5D:{}", peer.ip(), peer.port()),
        };
        Ok(Accepted {
            socket: socket.into(),
            peer,
            info: PeerInfo::default(),
            unanswered: options.unanswered(),
            #[cfg(feature = "tls")]
            encryption: None,
        })
    }

    pub(crate) fn from_unix(socket: UnixStream) -> io::Result<Accepted> {
        socket.set_nonblocking(true)?;
        let credentials = PeerCredentials::of(&socket);
        Ok(Accepted {
            socket: socket.into(),
            peer: "unix:".to_owned(),
            info: PeerInfo::with(credentials),
            unanswered: None,
            #[cfg(feature = "tls")]
            encryption: None,
        })
    }
}

/// How many connections the kernel may keep until they are accepted. It takes less if
/// `net.core.somaxconn` is less; 4096 is the default of that since Linux 5.4.
pub(crate) const QUEUE: libc::c_int = 4096;

impl Listener {
    /// Listens at all addresses, with what the process was given as far as that fits.
    ///
    /// # Errors
    ///
    /// The address that fails, and why. What the process was given is kept for another try.
    pub(crate) fn bind_all(wanted: &[ListenOptions]) -> Result<Vec<Listener>, (String, io::Error)> {
        let mut given = inherited();
        let mut listeners = Vec::new();
        for options in wanted {
            if let Err(error) = Listener::bind(options, &mut given, &mut listeners) {
                given.extend(listeners.into_iter().filter_map(Listener::into_inherited));
                return Err((options.address.clone(), error));
            }
        }
        Ok(listeners)
    }

    /// Listens at every address that the options stand for. What fits is taken out of `given`, and
    /// only what is missing is bound anew.
    fn bind(
        options: &ListenOptions,
        given: &mut Vec<Inherited>,
        listeners: &mut Vec<Listener>,
    ) -> io::Result<()> {
        let name = &options.address;
        if name.starts_with(SYSTEMD) {
            let before = listeners.len();
            while let Some(index) = given.iter().position(|it| it.name == *name) {
                listeners.push(Listener::inherit(&given[index], options)?);
                given.remove(index);
            }
            return match listeners.len() > before {
                true => Ok(()),
                false => Err(not_passed(given)),
            };
        }
        for address in addresses(name)? {
            let listener = match find(given, name, &address)? {
                Some(index) => {
                    let listener = Listener::inherit(&given[index], options)?;
                    given.remove(index);
                    listener
                }
                None => Listener::bind_anew(&address, options)?,
            };
            listeners.push(listener);
        }
        Ok(())
    }

    /// Listens with default options.
    #[cfg(test)]
    pub(crate) fn bind_from(name: &str, given: &mut Vec<Inherited>) -> io::Result<Vec<Listener>> {
        let options = ListenOptions::new(name.to_owned());
        let mut listeners = Vec::new();
        Listener::bind(&options, given, &mut listeners)?;
        Ok(listeners)
    }

    fn bind_anew(address: &Address, options: &ListenOptions) -> io::Result<Listener> {
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
            address,
            name: options.address.clone(),
            tcp: options.tcp,
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

    /// Listens with what was given; that stays where it is.
    fn inherit(given: &Inherited, options: &ListenOptions) -> io::Result<Listener> {
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
            address,
            // It may have had another, and goes by this one from now on.
            name: options.address.clone(),
            tcp: options.tcp,
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

    /// The socket as it was given; `None` if it was not.
    fn into_inherited(self) -> Option<Inherited> {
        let in_use = self.access_then.is_some();
        let given = self.is_inherited.then(|| self.hand_over().ok()).flatten()?;
        Some(Inherited { in_use, ..given })
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
        if let (Some(access), Address::Unix(path)) = (self.access_then.take(), &self.address) {
            if let Err(error) = unix_path::allow(path, access) {
                logging::error!(
                    "who may connect to {} stays as it was: {error}",
                    self.address
                );
            }
        }
    }

    /// Whether the process was given the socket.
    #[cfg(feature = "systemd")]
    pub(crate) fn is_inherited(&self) -> bool {
        self.is_inherited
    }

    /// The path of a unix socket is to outlive the process.
    #[cfg(feature = "systemd")]
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
            #[cfg(feature = "tls")]
            Ok(accepted) => Ok(Some(Accepted {
                encryption: self.encryption.clone(),
                ..accepted
            })),
            #[cfg(not(feature = "tls"))]
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

/// What an address stands for, as it is written for the builder.
fn addresses(name: &str) -> io::Result<Vec<Address>> {
    if let Some(name) = name.strip_prefix("unix-abstract:") {
        return match name.is_empty() || name.contains('\0') {
            true => Err(invalid(
                "a name without zero bytes must follow unix-abstract:",
            )),
            false => Ok(vec![Address::Abstract(name.to_owned())]),
        };
    }
    if let Some(path) = name.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return match path.is_empty() {
            true => Err(invalid("a path must follow unix:")),
            false => Ok(vec![Address::Unix(path.into())]),
        };
    }
    Ok(each_once(name.to_socket_addrs()?))
}

/// A hosts file that says something twice is no reason to listen there twice.
fn each_once(found: impl Iterator<Item = SocketAddr>) -> Vec<Address> {
    let mut addresses = Vec::new();
    for address in found.map(Address::Tcp) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

/// The place of a socket that was given for this address, by its name first: port 0 tells nothing.
fn find(given: &[Inherited], name: &str, wanted: &Address) -> io::Result<Option<usize>> {
    for (index, it) in given.iter().enumerate().filter(|(_, it)| it.name == name) {
        if fits(&it.address()?, wanted) {
            return Ok(Some(index));
        }
    }
    let listens_there = |it: &Inherited| it.address().is_ok_and(|it| fits(&it, wanted));
    Ok(match wanted.port() {
        Some(0) => None,
        _ => given.iter().position(listens_there),
    })
}

/// Whether a socket at the address `local` is what is wanted.
fn fits(local: &Address, wanted: &Address) -> bool {
    match (local, wanted) {
        (Address::Tcp(local), Address::Tcp(wanted)) => {
            local.ip() == wanted.ip() && (wanted.port() == 0 || local.port() == wanted.port())
        }
        // Nobody can reach it if its path is gone.
        (Address::Unix(_), _) if socket_path(local).is_none() => false,
        (local, wanted) => local == wanted,
    }
}

fn not_passed(given: &[Inherited]) -> io::Error {
    let names = given.iter().filter_map(|it| it.name.strip_prefix(SYSTEMD));
    let names: Vec<&str> = names.collect();
    let message = match names.is_empty() {
        true => "systemd has passed no socket to this process (see LISTEN_FDS in sd_listen_fds(3))"
            .to_owned(),
        false => format!(
            "systemd has passed no socket of this name (FileDescriptorName=), only: {}",
            names.join(", ")
        ),
    };
    io::Error::new(io::ErrorKind::NotFound, message)
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// The socket at the address's path, if it has one and it is there.
fn socket_path(address: &Address) -> Option<SocketPath> {
    match address {
        Address::Unix(path) => SocketPath::of(path),
        Address::Tcp(_) | Address::Abstract(_) => None,
    }
}

/// Listens with room for so many connections that nobody has accepted.
pub(crate) fn listen(socket: &impl AsRawFd, queue: libc::c_int) -> io::Result<()> {
    // SAFETY: a system call on a socket that is open.
    match unsafe { libc::listen(socket.as_raw_fd(), queue) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn bind_one(address: &str, given: &mut Vec<Inherited>) -> Listener {
        let mut listeners = Listener::bind_from(address, given).unwrap();
        assert_eq!(listeners.len(), 1);
        listeners.remove(0)
    }

    fn given(name: &str, socket: impl Into<OwnedFd>) -> Inherited {
        Inherited {
            name: name.to_owned(),
            socket: socket.into(),
            path_stays: false,
            of_unit: false,
            in_use: false,
        }
    }

    fn temporary_path(name: &str) -> PathBuf {
        let file = format!("touchdown-{}-{name}.sock", std::process::id());
        std::env::temp_dir().join(file)
    }

    #[test]
    fn what_a_name_stands_for_twice_is_one_address() {
        let found = ["127.0.0.1:80", "[::1]:80", "127.0.0.1:80"].map(|it| it.parse().unwrap());
        let addresses = each_once(found.into_iter()).into_iter();
        let written: Vec<_> = addresses.map(|it| it.to_string()).collect();
        assert_eq!(written, ["127.0.0.1:80", "[::1]:80"]);
    }

    #[test]
    fn a_successor_finds_its_sockets_by_the_names_they_had() {
        let mut none = Vec::new();
        let old = ["127.0.0.1:0", "127.0.0.1:0", "[::1]:0"].map(|it| bind_one(it, &mut none));
        let mut handed = old.each_ref().map(|it| it.hand_over().unwrap()).into();
        let second = bind_one("127.0.0.1:0", &mut handed);
        assert_eq!(second.address(), old[0].address());
        let third = bind_one("127.0.0.1:0", &mut handed);
        assert_eq!(third.address(), old[1].address());
        let other = bind_one("127.0.0.1:0", &mut handed);
        assert_ne!(other.address(), old[0].address(), "there were two");
        let six = bind_one("[::1]:0", &mut handed);
        assert_eq!(six.address(), old[2].address());
        assert!(handed.is_empty());
    }

    #[test]
    fn a_socket_is_found_by_its_address_too() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let mut sockets = vec![given("systemd:web", socket)];
        let listener = bind_one(&address, &mut sockets);
        assert_eq!(listener.address().to_string(), address);
        // Under this name its own successor looks for it.
        assert_eq!(listener.hand_over().unwrap().name, address);
        assert!(sockets.is_empty());
    }

    #[test]
    fn systemd_sockets_go_by_their_names_whatever_they_are() {
        let path = temporary_path("systemd");
        let name = UnixSocketAddr::from_abstract_name(path.to_str().unwrap()).unwrap();
        let mut sockets = vec![
            given("systemd:web", TcpListener::bind("127.0.0.1:0").unwrap()),
            given("systemd:other", TcpListener::bind("127.0.0.1:0").unwrap()),
            given("systemd:web", UnixListener::bind(&path).unwrap()),
            given("systemd:web", UnixListener::bind_addr(&name).unwrap()),
        ];
        // A service in a root directory of its own does not see it.
        std::fs::remove_file(path).unwrap();
        let listeners = Listener::bind_from("systemd:web", &mut sockets).unwrap();
        let kinds: Vec<_> = listeners.iter().map(Listener::address).collect();
        assert!(
            matches!(
                kinds[..],
                [Address::Tcp(_), Address::Unix(_), Address::Abstract(_)]
            ),
            "{kinds:?}"
        );
        let error = Listener::bind_from("systemd:web", &mut sockets)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("only: other"), "{error}");
        sockets.clear();
        let error = Listener::bind_from("systemd:web", &mut sockets)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("has passed no socket"), "{error}");
    }

    #[test]
    fn what_is_no_listening_socket_is_named_in_the_error() {
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let (connected, _other) = UnixStream::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let wrong = [
            (given("systemd:it", datagrams), "no stream socket"),
            (given("systemd:it", connected), "does not listen"),
            (given("systemd:it", file), "no socket"),
        ];
        for (socket, why) in wrong {
            let error = Listener::bind_from("systemd:it", &mut vec![socket])
                .err()
                .unwrap();
            let error = error.to_string();
            assert!(
                error.contains("systemd:it") && error.contains(why),
                "{error}"
            );
        }
    }

    #[test]
    fn the_access_to_a_path_holds_for_what_was_given_too() {
        let path = temporary_path("access");
        let address = format!("unix:{}", path.display());
        let mut options = ListenOptions::new(address.clone());
        options.access.mode = Some(0o640);
        let mode = || {
            use std::os::unix::fs::PermissionsExt;
            let permissions = std::fs::metadata(&path).unwrap().permissions();
            permissions.mode() & 0o7777
        };
        let old = bind_one(&address, &mut Vec::new());
        assert_ne!(mode(), 0o640);
        // systemd's is not this program's to change, and not lost either.
        let mut systemds = vec![Inherited {
            path_stays: true,
            of_unit: true,
            ..old.hand_over().unwrap()
        }];
        let mut listeners = Vec::new();
        let error = Listener::bind(&options, &mut systemds, &mut listeners).unwrap_err();
        assert!(error.to_string().contains("SocketMode="), "{error}");
        assert_eq!((systemds.len(), listeners.len()), (1, 0));
        let mut handed = vec![old.hand_over().unwrap()];
        Listener::bind(&options, &mut handed, &mut listeners).unwrap();
        assert_eq!(handed.len(), 0);
        listeners[0].own_path();
        assert_eq!(mode(), 0o640);
    }

    #[test]
    fn whoever_listens_last_removes_the_path() {
        let path = temporary_path("handed-over");
        let address = format!("unix:{}", path.display());
        let mut old = bind_one(&address, &mut Vec::new());
        // A successor that gave up before it accepted anything.
        drop(bind_one(&address, &mut vec![old.hand_over().unwrap()]));
        assert!(path.exists());
        let mut new = bind_one(&address, &mut vec![old.hand_over().unwrap()]);
        old.leave_path();
        new.own_path();
        drop(old);
        UnixStream::connect(&path).unwrap();
        assert!(new.accept().unwrap().is_some());
        let stays = Inherited {
            path_stays: true,
            ..new.hand_over().unwrap()
        };
        new.leave_path();
        drop(new);
        let mut systemds = bind_one(&address, &mut vec![stays]);
        systemds.own_path();
        drop(systemds);
        assert!(path.exists(), "systemd's path stays");
        std::fs::remove_file(path).unwrap();
    }

    fn with_mode(address: &str, mode: u32, given: &mut Vec<Inherited>) -> io::Result<Listener> {
        let mut options = ListenOptions::new(address.to_owned());
        options.access.mode = Some(mode);
        let mut listeners = Vec::new();
        Listener::bind(&options, given, &mut listeners)?;
        Ok(listeners.remove(0))
    }

    fn mode(path: &PathBuf) -> u32 {
        use std::os::unix::fs::MetadataExt;
        std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn who_may_connect_is_the_successors_to_say_once_it_is_in_charge() {
        let path = temporary_path("mode");
        let address = format!("unix:{}", path.display());
        let mut old = with_mode(&address, 0o660, &mut Vec::new()).unwrap();
        let handed = || vec![old.hand_over().unwrap()];
        drop(with_mode(&address, 0o600, &mut handed()).unwrap());
        assert_eq!(mode(&path), 0o660, "the successor has failed");
        let mut new = with_mode(&address, 0o600, &mut handed()).unwrap();
        old.leave_path();
        new.own_path();
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn who_may_connect_to_a_stored_socket_is_the_programs_to_say() {
        let path = temporary_path("stored-mode");
        let address = format!("unix:{}", path.display());
        let stored = || Inherited {
            path_stays: true,
            ..given(&address, UnixListener::bind(&path).unwrap())
        };
        let listener = with_mode(&address, 0o640, &mut vec![stored()]).unwrap();
        assert_eq!(mode(&path), 0o640);
        drop(listener);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn connections_get_the_tcp_options_of_their_listener() {
        let keepalive = TcpKeepalive {
            idle: 30,
            interval: 7,
            probes: 4,
        };
        let tcp = TcpOptions {
            keepalive: Some(keepalive),
            user_timeout: None,
        };
        let options = ListenOptions {
            tcp,
            ..ListenOptions::new("127.0.0.1:0".to_owned())
        };
        let mut listeners = Vec::new();
        Listener::bind(&options, &mut Vec::new(), &mut listeners).unwrap();
        let _client = TcpStream::connect(listeners[0].address().to_string()).unwrap();
        let accepted = listeners[0].accept().unwrap().unwrap();
        let get = |level, name| options::get(&accepted.socket, level, name).unwrap();
        assert_eq!(get(libc::SOL_SOCKET, libc::SO_KEEPALIVE), 1);
        assert_eq!(get(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE), 30);
        assert_eq!(get(libc::IPPROTO_TCP, libc::TCP_KEEPINTVL), 7);
        assert_eq!(get(libc::IPPROTO_TCP, libc::TCP_KEEPCNT), 4);
        assert_eq!(accepted.unanswered, Some(Duration::from_secs(58)));
        let user_timeout = Some(Duration::from_secs(9));
        let tcp = TcpOptions {
            user_timeout,
            ..tcp
        };
        assert_eq!(tcp.unanswered(), user_timeout);
        assert_eq!(TcpOptions::default().unanswered(), None);
    }

    #[test]
    fn a_socket_without_its_path_is_not_used() {
        let path = temporary_path("gone");
        let address = format!("unix:{}", path.display());
        let socket = UnixListener::bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let listener = bind_one(&address, &mut vec![given(&address, socket)]);
        UnixStream::connect(&path).unwrap();
        assert!(listener.accept().unwrap().is_some());
        drop(listener);
        assert!(!path.exists());
    }
}
