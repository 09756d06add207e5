//! Where to listen, and how that is written.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

/// Where a program listens.
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

/// The addresses that a name stands for. One with a host's name may take as long as the network does.
pub(super) fn addresses(name: &str) -> io::Result<Vec<Address>> {
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

    #[test]
    fn what_a_name_stands_for_twice_is_one_address() {
        let found = ["127.0.0.1:80", "[::1]:80", "127.0.0.1:80"].map(|it| it.parse().unwrap());
        let addresses = each_once(found.into_iter()).into_iter();
        let written: Vec<_> = addresses.map(|it| it.to_string()).collect();
        assert_eq!(written, ["127.0.0.1:80", "[::1]:80"]);
    }
}
