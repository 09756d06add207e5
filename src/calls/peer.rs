//! How the address of a caller is written.

use std::net::SocketAddr;

/// A peer's address in the form of gRPC's naming document; `None` stands for a unix socket.
pub(super) fn address(peer: Option<SocketAddr>) -> String {
    match peer {
        Some(SocketAddr::V4(peer)) => format!("ipv4:{peer}"),
        Some(SocketAddr::V6(peer)) => format!("ipv6:%5B{}%5D:{}", peer.ip(), peer.port()),
        None => "unix:".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_grpc_does() {
        let written = |it: &str| address(Some(it.parse().unwrap()));
        assert_eq!(written("127.0.0.1:80"), "ipv4:127.0.0.1:80");
        assert_eq!(written("[::1]:80"), "ipv6:%5B::1%5D:80");
        assert_eq!(address(None), "unix:");
    }
}
