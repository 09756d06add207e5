//! Where to listen, and how that is written.

use std::fmt;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

use super::address_error::{AddressError, Wrong};

/// How addresses begin that stand for what systemd has passed.
pub(super) const SYSTEMD: &str = "systemd:";

/// Where a program listens.
///
/// ```
/// use touchdown::Address;
///
/// let address: Address = "127.0.0.1:50051".parse()?;
/// assert_eq!(address.port(), Some(50051));
/// # Ok::<(), touchdown::AddressError>(())
/// ```
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

/// As the program writes it: `127.0.0.1:50051`, `[::1]:50051`,
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

/// Reads what [`Display`](fmt::Display) writes. A host's name is none: see [`Listen`](super::Listen), which looks it up.
impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let wrong = match Written::read(text) {
            Ok(Written::Address(address)) => return Ok(address),
            Ok(Written::Name) => Wrong::Name(host_of(text).to_owned()),
            Ok(Written::Systemd) => Wrong::Systemd,
            Err(wrong) => wrong,
        };
        Err(AddressError::new(text, wrong))
    }
}

/// What a program has written, as far as that is known without asking anybody.
pub(super) enum Written {
    Address(Address),
    /// A host's name, and a port.
    Name,
    /// The name of sockets that systemd passes.
    Systemd,
}

impl Written {
    pub(super) fn read(text: &str) -> Result<Written, Wrong> {
        if let Some(name) = text.strip_prefix("unix-abstract:") {
            return match name.is_empty() || name.contains('\0') {
                true => Err(Wrong::AbstractName),
                false => Ok(Written::Address(Address::Abstract(name.to_owned()))),
            };
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path.is_empty() {
                true => Err(Wrong::NoPath),
                false => Ok(Written::Address(Address::Unix(path.into()))),
            };
        }
        if let Some(name) = text.strip_prefix(SYSTEMD) {
            return match name.is_empty() {
                true => Err(Wrong::SystemdName),
                false => Ok(Written::Systemd),
            };
        }
        match text.parse() {
            Ok(address) => Ok(Written::Address(Address::Tcp(address))),
            Err(_) => read_name(text).map(|()| Written::Name),
        }
    }
}

/// Whether this is the name of a host, and a port.
fn read_name(text: &str) -> Result<(), Wrong> {
    let owned = str::to_owned;
    if text.is_empty() {
        return Err(Wrong::Empty);
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.split('/').next().unwrap_or_default();
        let (scheme, rest) = (owned(scheme), owned(rest));
        return Err(Wrong::Scheme { scheme, rest });
    }
    if text.contains('/') {
        return Err(Wrong::Path(owned(text)));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        let (host, port) = (owned(text), "50051".to_owned());
        return Err(Wrong::NoBrackets { host, port });
    }
    let (host, port) = match text.rsplit_once(':') {
        None if is_number(text) => return Err(Wrong::PortAlone(owned(text))),
        None => return Err(Wrong::NoPort(owned(text))),
        Some(("", port)) if is_number(port) => return Err(Wrong::PortAlone(owned(port))),
        Some((host, port)) => (host, port),
    };
    if host.parse::<Ipv6Addr>().is_ok() {
        let (host, port) = (owned(host), owned(port));
        return Err(Wrong::NoBrackets { host, port });
    }
    let is_part = |it: char| it.is_alphanumeric() || matches!(it, '-' | '_' | '.');
    if host.is_empty() || !host.chars().all(is_part) {
        return Err(Wrong::Host(owned(host)));
    }
    match port.parse::<u16>() {
        Ok(_) if is_number(port) => Ok(()),
        _ => {
            let (host, port) = (owned(host), owned(port));
            Err(Wrong::Port { host, port })
        }
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit())
}

fn host_of(text: &str) -> &str {
    text.rsplit_once(':').map_or(text, |it| it.0)
}

/// What a client may connect to, of what C-core takes.
#[cfg(feature = "client")]
const TARGETS: [&str; 5] = ["dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:"];

impl AddressError {
    /// What keeps a client from connecting to this.
    #[cfg(feature = "client")]
    pub(crate) fn in_target(text: &str) -> Option<AddressError> {
        let has_scheme = TARGETS.iter().any(|it| text.starts_with(it) && text != *it);
        let wrong = match Written::read(text) {
            _ if text.contains('\0') => Wrong::Host(text.to_owned()),
            _ if has_scheme => return None,
            Ok(Written::Address(_) | Written::Name) => return None,
            Ok(Written::Systemd) => Wrong::Systemd,
            Err(wrong) => wrong,
        };
        Some(AddressError::new(text, Wrong::ToConnect(Box::new(wrong))))
    }
}

/// The addresses that a name stands for. One with a host's name may take as long as the network does.
pub(super) fn addresses(name: &str) -> io::Result<Vec<Address>> {
    let wrong = |wrong| io::Error::new(io::ErrorKind::InvalidInput, wrong);
    match Written::read(name).map_err(wrong)? {
        Written::Address(address) => Ok(vec![address]),
        Written::Systemd => Ok(Vec::new()),
        Written::Name => match name.to_socket_addrs() {
            Ok(found) => Ok(each_once(found)),
            Err(error) => Err(io::Error::new(
                error.kind(),
                format!(
                    "the name {} cannot be looked up ({error}): is it spelled right, and in /etc/hosts or in DNS? An \
                     address of IPv4 or IPv6 needs no look-up",
                    host_of(name)
                ),
            )),
        },
    }
}

/// A hosts file that names an address twice is no reason to listen there twice.
fn each_once(found: impl Iterator<Item = SocketAddr>) -> Vec<Address> {
    let mut addresses = Vec::new();
    for address in found.map(Address::Tcp) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

pub(super) fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sentence about a text to listen at.
    fn wrong(text: &str) -> String {
        Written::read(text).map(drop).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_address_is_told_how_to_write_it() {
        for (text, words) in [
            ("", "write HOST:PORT, such as 127.0.0.1:50051, or unix:PATH"),
            (
                "50951",
                "a port without a host: write 127.0.0.1:50951 for callers on this machine",
            ),
            (":50961", "or 0.0.0.0:50961 or [::]:50961 for all"),
            (
                "http://localhost:50051/x",
                "it begins with http://, as a URL: write localhost:50051",
            ),
            (
                "https://a.b",
                "write a.b:50051 (TLS is a setting of the listener)",
            ),
            (
                "grpc://",
                "it begins with grpc://, as a URL: write HOST:PORT",
            ),
            ("localhost", "it has no port: write localhost:50051"),
            ("127.0.0.1", "it has no port: write 127.0.0.1:50051"),
            ("::1", "stands in brackets: write [::1]:50051"),
            ("fe80::1:50961", "stands in brackets: write [fe80::1]:50961"),
            (
                "localhost:99999",
                "its port is \"99999\", and must be a number up to 65535",
            ),
            ("localhost:", "its port is \"\""),
            ("localhost:+1", "its port is \"+1\""),
            ("/run/greeter.sock", "write unix:/run/greeter.sock"),
            ("no host:1", "\"no host\" is neither the name of a host nor"),
            (":", "\"\" is neither"),
            ("unix:", "a path must follow unix:"),
            ("unix-abstract:", "must follow unix-abstract:"),
            ("systemd:", "a name must follow systemd:"),
        ] {
            assert!(wrong(text).contains(words), "{text:?}: {}", wrong(text));
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for text in [
            "127.0.0.1:80",
            "[::1]:80",
            "unix:/run/x",
            "unix:x",
            "unix-abstract:x",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        let error = |text: &str| text.parse::<Address>().unwrap_err().to_string();
        assert!(error("localhost:80").contains("localhost is a name"));
        assert!(error("systemd:x").contains("give it to Listen"));
        assert!(error("80").starts_with("\"80\" is no address: it is a port"));
    }

    #[test]
    fn a_name_that_cannot_be_looked_up_is_named() {
        // No label of a name is that long, which a resolver knows without asking anybody.
        let name = "x".repeat(70);
        let error = addresses(&format!("{name}:80")).unwrap_err();
        let words = format!("the name {name} cannot be looked up (");
        assert!(error.to_string().starts_with(&words), "{error}");
    }

    #[cfg(feature = "client")]
    #[test]
    fn clients_connect_to_names_and_to_what_c_core_takes() {
        for text in [
            "localhost:80",
            "[::1]:80",
            "dns:///localhost:80",
            "ipv4:127.0.0.1:80,127.0.0.1:81",
            "unix:/run/x",
        ] {
            assert_eq!(AddressError::in_target(text), None, "{text}");
        }
        for (text, words) in [
            ("50051", "is a port without a host: write localhost:50051"),
            ("http://localhost:50051", "write localhost:50051"),
            ("systemd:x", "systemd: is for servers"),
            ("dns:", "its port is"),
            ("localhost:8\00", "neither"),
        ] {
            let error = AddressError::in_target(text).unwrap().to_string();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }

    #[test]
    fn what_a_name_stands_for_twice_is_one_address() {
        let found = ["127.0.0.1:80", "[::1]:80", "127.0.0.1:80"].map(|it| it.parse().unwrap());
        let addresses = each_once(found.into_iter()).into_iter();
        let written: Vec<_> = addresses.map(|it| it.to_string()).collect();
        assert_eq!(written, ["127.0.0.1:80", "[::1]:80"]);
    }
}
