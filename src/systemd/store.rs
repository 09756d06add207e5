//! Listeners in systemd's file descriptor store, which outlives the process.

use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use sd_notify::NotifyState;

use super::messenger::Messenger;

/// By this what this crate has stored is told from what a socket unit or others pass on.
const PREFIX: &str = "touchdown/";

/// The longest name that systemd takes; see `FDNAME` in sd_notify(3).
const LONGEST: usize = 255;

/// A socket to be stored.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) socket: OwnedFd,
}

/// The name under which the listener at an address is stored. systemd takes printable ASCII without
/// colons; what is not is written as in a URL.
///
/// # Errors
///
/// If it is too long.
pub(super) fn name_of(address: &str) -> io::Result<String> {
    let mut name = PREFIX.to_owned();
    for byte in address.bytes() {
        match byte {
            b':' | b'%' | ..=b' ' | 127.. => {
                let _ = write!(name, "%{byte:02x}");
            }
            byte => name.push(char::from(byte)),
        }
    }
    if name.len() > LONGEST {
        let why = format!("the address {address} is too long to name a stored descriptor");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    Ok(name)
}

impl Messenger {
    /// Has systemd keep these, in place of what it keeps under the same names.
    pub(super) fn store(&mut self, entries: Vec<Entry>) -> io::Result<()> {
        if self.is_silent() {
            self.hold_back(entries);
            return Ok(());
        }
        for Entry { name, socket } in entries {
            let name = NotifyState::FdName(&name);
            self.send(&[NotifyState::FdStoreRemove, name.clone()])?;
            let stored =
                sd_notify::notify_with_fds(&[NotifyState::FdStore, name], &[socket.as_fd()]);
            self.note(stored)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_systemd_takes() {
        let name = |address| name_of(address).unwrap();
        assert_eq!(name("0.0.0.0:50051"), "touchdown/0.0.0.0%3a50051");
        assert_eq!(
            name("unix:/run/a b%.sock"),
            "touchdown/unix%3a/run/a%20b%25.sock"
        );
        assert_eq!(name("unix:/run/ü\n"), "touchdown/unix%3a/run/%c3%bc%0a");
        let is_legal = |name: &str| {
            name.bytes()
                .all(|it| (b' '..127).contains(&it) && it != b':')
        };
        let all: String = (0..=255_u8).map(char::from).collect();
        for address in all.chars() {
            assert!(is_legal(&name(&address.to_string())), "{address:?}");
        }
    }

    #[test]
    fn different_addresses_have_different_names() {
        let name = |address| name_of(address).unwrap();
        assert_ne!(name("a:1"), name("a%3a1"));
    }

    #[test]
    fn what_is_too_long_is_refused() {
        assert!(name_of(&"x".repeat(245)).is_ok());
        let error = name_of(&"x".repeat(246)).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
    }
}
