//! Listening sockets for a store that outlives the process, such as systemd's, and their names there. The next process
//! gets them with LISTEN_FDS. The names carry the address, as it was written for the program that listened there.

use std::fmt::Write as _;
use std::io;
use std::os::fd::OwnedFd;

/// By this what this crate has stored is told from what a socket unit or others pass on.
const PREFIX: &str = "touchdown/";

/// The longest name that systemd takes; see `FDNAME` in sd_notify(3).
const LONGEST: usize = 255;

/// What listens at sockets that the process has bound itself: an [`Acceptor`](crate::acceptor::Acceptor), or a `Server`.
pub trait Bound {
    /// Copies of these sockets, to be kept by something that outlives the process and gives them to the next one, as
    /// systemd does. From now on the paths of unix sockets stay when the program ends.
    ///
    /// Sockets that the process was given are left out: what has given them keeps them.
    ///
    /// # Errors
    ///
    /// If there is no descriptor left, or if it has stopped to listen.
    fn bound_sockets(&self) -> io::Result<Vec<BoundSocket>>;
}

/// A listening socket that the process has bound itself.
#[derive(Debug)]
#[non_exhaustive]
pub struct BoundSocket {
    /// As it was written for the program.
    pub address: String,
    /// A copy of the socket.
    pub socket: OwnedFd,
}

impl BoundSocket {
    pub(crate) fn new(address: String, socket: OwnedFd) -> BoundSocket {
        BoundSocket { address, socket }
    }

    /// The name under which the next process has to be given the socket, in LISTEN_FDNAMES, so that it finds the socket by
    /// its address. `None` if the address is too long: 245 bytes, fewer with colons or letters outside of ASCII.
    pub fn stored_name(&self) -> Option<String> {
        stored_name(&self.address)
    }
}

/// The name of an address in a store: see [`BoundSocket::stored_name`].
pub fn stored_name(address: &str) -> Option<String> {
    // systemd takes printable ASCII without colons. What is not is written as in a URL.
    let mut name = PREFIX.to_owned();
    for byte in address.bytes() {
        match byte {
            b':' | b'%' | ..=b' ' | 127.. => {
                let _ = write!(name, "%{byte:02x}");
            }
            byte => name.push(char::from(byte)),
        }
    }
    (name.len() <= LONGEST).then_some(name)
}

/// The address that a name stands for; `None` if this crate has not made it.
pub(crate) fn address_of(name: &str) -> Option<String> {
    let mut parts = name.strip_prefix(PREFIX)?.split('%');
    let mut address = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (number, rest) = part.split_at_checked(2)?;
        address.push(u8::from_str_radix(number, 16).ok()?);
        address.extend(rest.bytes());
    }
    String::from_utf8(address).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_shows_its_address() {
        let name = |address| stored_name(address).unwrap();
        assert_eq!(name("0.0.0.0:50051"), "touchdown/0.0.0.0%3a50051");
        assert_eq!(
            name("unix:/run/a b%.sock"),
            "touchdown/unix%3a/run/a%20b%25.sock"
        );
    }

    #[test]
    fn what_is_too_long_has_no_name() {
        assert!(stored_name(&"x".repeat(245)).is_some());
        assert_eq!(stored_name(&"x".repeat(246)), None);
    }

    #[test]
    fn other_names_are_not_taken_for_addresses() {
        for name in [
            "greeter.socket",
            "touchdown",
            "touchdown/%3",
            "touchdown/%é",
            "touchdown/%ff",
        ] {
            assert_eq!(address_of(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_one_that_systemd_takes_and_leads_back(address in "\\PC{0,60}|[ -~]{0,80}") {
            if let Some(name) = stored_name(&address) {
                prop_assert!(name.bytes().all(|it| (b'!'..127).contains(&it) && it != b':'));
                prop_assert_eq!(address_of(&name), Some(address));
            }
        }
    }
}
