//! The name by which C-core knows a connection: the peer's address as gRPC writes it, and a number by which the
//! connection is found again.

/// Between a peer's address and the number of its connection. No address has it.
const BEFORE_NUMBER: char = ';';

/// The name of a connection: its peer's address and its number.
pub(super) fn numbered(address: &str, number: u64) -> String {
    format!("{address}{BEFORE_NUMBER}{number}")
}

/// The parts of what [`numbered`] has made.
pub(super) fn address_and_number(numbered: &str) -> (&str, Option<u64>) {
    match numbered.rsplit_once(BEFORE_NUMBER) {
        Some((address, number)) => (address, number.parse().ok()),
        None => (numbered, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_found_by_what_c_core_knows_of_it() {
        for peer in ["ipv4:127.0.0.1:80", "ipv6:%5Bfe80::1%25eth0%5D:80", "unix:"] {
            assert_eq!(address_and_number(&numbered(peer, 17)), (peer, Some(17)));
            assert_eq!(address_and_number(peer), (peer, None));
        }
    }
}
