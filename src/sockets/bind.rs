//! Listens at all addresses of a program: with the sockets that it was given, as far as they fit, and with new ones
//! where none does.

use std::io;

use parking_lot::Mutex;

use super::address::{addresses, Address, SYSTEMD};
use super::bind_error::explained;
use super::inherited::{inherited, Inherited};
use super::listener::{ListenOptions, Listener};
use super::unix_path::SocketPath;

/// Listens at all addresses.
///
/// # Errors
///
/// The address that fails, and why. What the process was given is kept for another try.
pub(crate) fn bind_all(wanted: &[ListenOptions]) -> Result<Vec<Listener>, (String, io::Error)> {
    bind_with(wanted, inherited())
}

pub(super) fn bind_with(
    wanted: &[ListenOptions],
    given: &Mutex<Vec<Inherited>>,
) -> Result<Vec<Listener>, Failed> {
    // A resolver may take its time. Nobody else waits for it.
    let wanted: Result<Vec<_>, _> = wanted.iter().map(Wanted::of).collect();
    let wanted = wanted?;
    let mut places = Vec::new();
    let chosen = {
        let mut given = given.lock();
        let mut all = wanted.iter();
        all.try_for_each(|it| it.choose(&mut given, &mut places))
    };
    let listeners = chosen.and_then(|()| places.iter().map(Place::listen).collect());
    if listeners.is_err() {
        let taken = places.into_iter().filter_map(|it| it.given);
        given.lock().extend(taken);
    }
    listeners
}

type Failed = (String, io::Error);

/// What the program asks for at one address, as far as that is known without a look at what it was given.
struct Wanted<'a> {
    options: &'a ListenOptions,
    /// Empty if systemd says where.
    addresses: Vec<Address>,
}

/// A socket to be.
struct Place<'a> {
    options: &'a ListenOptions,
    address: Address,
    /// To listen with, if there is one that fits.
    given: Option<Inherited>,
}

impl Wanted<'_> {
    fn of(options: &ListenOptions) -> Result<Wanted<'_>, Failed> {
        let name = &options.address;
        let addresses = addresses(name).map_err(|error| (name.clone(), error))?;
        Ok(Wanted { options, addresses })
    }
}

impl<'a> Wanted<'a> {
    /// Takes what fits out of `given`.
    fn choose(
        &self,
        given: &mut Vec<Inherited>,
        places: &mut Vec<Place<'a>>,
    ) -> Result<(), Failed> {
        let name = &self.options.address;
        let failed = |error| (name.clone(), error);
        let mut add = |address, given| {
            let options = self.options;
            places.push(Place {
                options,
                address,
                given,
            });
        };
        if !name.starts_with(SYSTEMD) {
            for address in &self.addresses {
                let index = find(given, name, address).map_err(failed)?;
                add(address.clone(), index.map(|it| given.remove(it)));
            }
            return Ok(());
        }
        let is_named = |it: &Inherited| it.name == *name;
        if !given.iter().any(is_named) {
            return Err(failed(not_passed(given)));
        }
        while let Some(index) = given.iter().position(is_named) {
            let address = given[index].address().map_err(failed)?;
            add(address, Some(given.remove(index)));
        }
        Ok(())
    }
}

impl Place<'_> {
    fn listen(&self) -> Result<Listener, Failed> {
        let listener = match &self.given {
            Some(given) => Listener::inherit(given, self.options),
            None => Listener::bind_anew(&self.address, self.options)
                .map_err(|error| explained(&self.address, error)),
        };
        listener.map_err(|error| (self.options.address.clone(), error))
    }
}

/// The place of a socket that was given for this address. Its name comes first: port 0 tells nothing.
fn find(given: &[Inherited], name: &str, wanted: &Address) -> io::Result<Option<usize>> {
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

/// Whether a socket at the address `local` is what is wanted.
fn fits(local: &Address, wanted: &Address) -> bool {
    match (local, wanted) {
        (Address::Tcp(local), Address::Tcp(wanted)) => {
            local.ip() == wanted.ip() && (wanted.port() == 0 || local.port() == wanted.port())
        }
        // Nobody can reach it if its path is gone.
        (Address::Unix(path), _) if SocketPath::of(path).is_none() => false,
        (local, wanted) => local == wanted,
    }
}

fn not_passed(given: &[Inherited]) -> io::Error {
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_name_is_looked_up_while_nobody_else_waits() {
        // As another thread would that listens at the same time.
        let _held = inherited().lock();
        let (sender, result) = mpsc::channel();
        std::thread::spawn(move || {
            // It stands for no address, which only the look-up says, without asking anybody.
            let options = ListenOptions::new(format!("{}:1", "x".repeat(70)));
            let _ = sender.send(bind_all(&[options]).map(drop));
        });
        let (_, error) = result
            .recv_timeout(Duration::from_secs(20))
            .expect("the look-up does not wait for what was given")
            .unwrap_err();
        assert!(error.to_string().contains("looked up"), "{error}");
    }
}
