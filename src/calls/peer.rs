//! How the address of a caller is written: for C-core, and for people.

use std::net::SocketAddr;

use crate::sockets::accepted::Accepted;

/// In the place of an address, for the connection that a program has made to its own server.
pub(crate) const OWN: &str = "unix:smoke-test";

/// A peer's address in the form of gRPC's naming document.
pub(super) fn address(accepted: &Accepted) -> String {
    match accepted.peer {
        Some(SocketAddr::V4(peer)) => format!("ipv4:{peer}"),
        Some(SocketAddr::V6(peer)) => format!("ipv6:%5B{}%5D:{}", peer.ip(), peer.port()),
        None if accepted.info.is_own => OWN.to_owned(),
        None => "unix:".to_owned(),
    }
}

/// What [`address`] has written, in the one spelling that people see: `127.0.0.1:4711`, `[::1]:4711`, `unix`.
pub(crate) fn for_people(address: &str) -> String {
    match address.split_once(':') {
        Some(("unix", _)) if address == OWN => "smoke test".to_owned(),
        Some(("unix", _)) => "unix".to_owned(),
        Some(("ipv4", address)) => address.to_owned(),
        // A zone is written `%25eth0`.
        Some(("ipv6", address)) => address
            .replace("%5B", "[")
            .replace("%5D", "]")
            .replace("%25", "%"),
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets::peer::PeerInfo;

    fn accepted(peer: Option<&str>, is_own: bool) -> Accepted {
        Accepted {
            // No socket is needed, but a descriptor.
            socket: std::fs::File::open("/dev/null").unwrap().into(),
            peer: peer.map(|it| it.parse().unwrap()),
            info: PeerInfo {
                is_own,
                ..PeerInfo::default()
            },
            unanswered: None,
            is_public: false,
            #[cfg(feature = "tls")]
            encryption: None,
        }
    }

    #[test]
    fn addresses_are_written_as_grpc_does_and_shown_plainly() {
        for (peer, is_own, written, shown) in [
            (
                Some("127.0.0.1:80"),
                false,
                "ipv4:127.0.0.1:80",
                "127.0.0.1:80",
            ),
            (Some("[::1]:80"), false, "ipv6:%5B::1%5D:80", "[::1]:80"),
            (None, false, "unix:", "unix"),
            (None, true, OWN, "smoke test"),
        ] {
            assert_eq!(address(&accepted(peer, is_own)), written);
            assert_eq!(for_people(written), shown);
        }
    }
}
