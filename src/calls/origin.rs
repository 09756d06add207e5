//! Where connections come from, and how many come from there.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// What counts as one address: one of IPv4, or a /64 of IPv6, of which a subscriber gets a whole one as a rule (RFC 6177).
/// Processes at a unix socket have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Origin(IpAddr);

impl Origin {
    pub(super) fn of(peer: SocketAddr) -> Origin {
        Origin(match peer.ip().to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            address => address,
        })
    }
}

/// How many connections there are of each.
#[derive(Default)]
pub(super) struct Origins(HashMap<Origin, Count>);

/// How many connections there are, and on how many the TLS handshake is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) connections: usize,
    pub(super) handshakes: usize,
}

impl Origins {
    pub(super) fn of(&self, origin: Option<Origin>) -> Count {
        let count = origin.and_then(|it| self.0.get(&it).copied());
        count.unwrap_or_default()
    }

    /// Changes what is counted of it.
    pub(super) fn change(&mut self, origin: Option<Origin>, change: impl FnOnce(&mut Count)) {
        let Some(origin) = origin else {
            return;
        };
        let count = self.0.entry(origin).or_default();
        change(count);
        if *count == Count::default() {
            self.0.remove(&origin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_counts_as_one_address_and_ipv4_is_the_same_in_both_forms() {
        let of = |text: &str| Origin::of(text.parse().unwrap());
        assert_eq!(of("192.0.2.1:1"), of("192.0.2.1:2"));
        assert_eq!(of("192.0.2.1:1"), of("[::ffff:192.0.2.1]:1"));
        assert_ne!(of("192.0.2.1:1"), of("192.0.2.2:1"));
        assert_eq!(of("[2001:db8::1]:1"), of("[2001:db8::2:3]:1"));
        assert_ne!(of("[2001:db8::1]:1"), of("[2001:db8:0:1::1]:1"));
    }

    #[test]
    fn nothing_is_kept_of_who_has_left() {
        let mut origins = Origins::default();
        let origin = Some(Origin::of("192.0.2.1:1".parse().unwrap()));
        origins.change(origin, |it| it.connections += 1);
        origins.change(None, |it| it.connections += 1);
        assert_eq!(origins.of(origin).connections, 1);
        assert_eq!(origins.of(None).connections, 0);
        origins.change(origin, |it| it.connections -= 1);
        assert!(origins.0.is_empty());
    }
}
