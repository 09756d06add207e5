//! What a process was passed, held against the addresses that its program asks for: which socket is the one that is meant,
//! and which one is in the way.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::address::{Address, SYSTEMD};
use super::inherited::Inherited;
use super::options;
use super::unix_path::SocketPath;

/// The place of a socket that was given for this address. Its name comes first: port 0 tells nothing.
pub(super) fn find(given: &[Inherited], name: &str, wanted: &Address) -> io::Result<Option<usize>> {
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

/// The place of a socket that listens at more than this address, and is taken if none listens at just that:
/// `[::]:50051` where `0.0.0.0:50051` is asked for. For systemd a port alone is the first of them. One address of
/// the machine is not served like that: who asks for 127.0.0.1 wants no callers from elsewhere.
pub(super) fn find_wider(given: &[Inherited], wanted: &Address) -> Option<usize> {
    let Address::Tcp(SocketAddr::V4(wanted)) = wanted else {
        return None;
    };
    if wanted.port() == 0 || !wanted.ip().is_unspecified() {
        return None;
    }
    given.iter().position(|it| match it.address() {
        Ok(Address::Tcp(local)) => {
            local.port() == wanted.port() && local.ip().is_unspecified() && it.takes_ipv4()
        }
        _ => false,
    })
}

/// Whether a socket at the address `local` is what is wanted.
fn fits(local: &Address, wanted: &Address) -> bool {
    match (local, wanted) {
        (Address::Tcp(local), Address::Tcp(wanted)) => {
            local.ip() == wanted.ip() && (wanted.port() == 0 || local.port() == wanted.port())
        }
        // It may be written in another way, as systemd does it for /var/run. Nobody can reach it if its path is gone.
        (Address::Unix(path), Address::Unix(wanted)) => {
            let socket = SocketPath::of(path);
            socket.is_some_and(|it| path == wanted || it.is_at(wanted))
        }
        (local, wanted) => local == wanted,
    }
}

/// What to do about a socket that was given and that nothing has taken, if it is the one that keeps this process from
/// the port of `wanted`.
pub(super) fn in_the_way(given: &[Inherited], wanted: &Address) -> Option<String> {
    let Address::Tcp(wanted) = wanted else {
        return None;
    };
    let (it, local) = given.iter().find_map(|it| match it.address() {
        Ok(Address::Tcp(local)) if collides(&local, it, wanted) => Some((it, local)),
        _ => None,
    })?;
    Some(match it.name.strip_prefix(SYSTEMD) {
        Some(_) => format!(
            "systemd has passed {local} to this process, which has the port: listen at {} or at {local}, or write \
             ListenStream={wanted} in the socket unit",
            it.name
        ),
        None if it.in_use => format!(
            "the process before this one has handed over {local}, which has the port: listen at {local}, or stop the \
             program and start it again instead of a hot restart"
        ),
        None => format!(
            "systemd's store has kept {local} for this process, which has the port: listen at {local}, or stop the \
             service and start it again, which empties the store"
        ),
    })
}

/// Whether the kernel lets nobody listen at `wanted` as long as the socket listens at `local`.
fn collides(local: &SocketAddr, socket: &Inherited, wanted: &SocketAddr) -> bool {
    let (own, other) = (wanted.ip(), local.ip());
    // A socket of IPv6 that listens everywhere takes IPv4, too, unless it was told not to. The one that this process would
    // bind is like that, too.
    let overlap = match (own, other) {
        (IpAddr::V4(_), IpAddr::V6(other)) => other.is_unspecified() && socket.takes_ipv4(),
        (IpAddr::V6(own), IpAddr::V4(_)) => own.is_unspecified(),
        _ => own == other || own.is_unspecified() || other.is_unspecified(),
    };
    wanted.port() == local.port() && overlap
}

impl Inherited {
    /// Whether it is a socket of IPv6 to which callers come by IPv4, too (`IPV6_V6ONLY` in ipv6(7)).
    fn takes_ipv4(&self) -> bool {
        options::get(&self.socket, libc::SOL_SOCKET, libc::SO_DOMAIN)
            .is_ok_and(|it| it == libc::AF_INET6)
            && options::get(&self.socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY)
                .is_ok_and(|it| it == 0)
    }
}

/// That there is no socket of the name that the program asks for.
pub(super) fn not_passed(given: &[Inherited]) -> io::Error {
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
