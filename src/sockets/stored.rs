//! The names of listening sockets in systemd's file descriptor store, from which the next process gets
//! them with LISTEN_FDS. They carry the address, as it was written for the server that listened there.

#[cfg(any(feature = "systemd", test))]
use std::fmt::Write as _;

/// By this what this crate has stored is told from what a socket unit or others pass on.
const PREFIX: &str = "touchdown/";

/// The longest name that systemd takes; see `FDNAME` in sd_notify(3).
#[cfg(any(feature = "systemd", test))]
const LONGEST: usize = 255;

/// The name for an address; `None` if it is too long. systemd takes printable ASCII without colons; what
/// is not is written as in a URL.
#[cfg(any(feature = "systemd", test))]
pub(crate) fn name_of(address: &str) -> Option<String> {
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
        let name = |address| name_of(address).unwrap();
        assert_eq!(name("0.0.0.0:50051"), "touchdown/0.0.0.0%3a50051");
        assert_eq!(
            name("unix:/run/a b%.sock"),
            "touchdown/unix%3a/run/a%20b%25.sock"
        );
    }

    #[test]
    fn what_is_too_long_has_no_name() {
        assert!(name_of(&"x".repeat(245)).is_some());
        assert_eq!(name_of(&"x".repeat(246)), None);
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
            if let Some(name) = name_of(&address) {
                prop_assert!(name.bytes().all(|it| (b'!'..127).contains(&it) && it != b':'));
                prop_assert_eq!(address_of(&name), Some(address));
            }
        }
    }
}
