//! Listens at all addresses of a program: with the sockets that it was given, as far as they fit, and with new ones
//! where none does.

use std::io;

use parking_lot::Mutex;

use super::address::{addresses, Address, SYSTEMD};
use super::bind_error::{explained, is_missing, is_without_ipv6};
use super::inherited::{inherited, Inherited};
use super::listener::{ListenOptions, Listener};
use super::passed::{find, find_wider, in_the_way, not_passed};
use crate::logging;

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
    bind_resolved(wanted?, given)
}

fn bind_resolved(
    mut wanted: Vec<Wanted<'_>>,
    given: &Mutex<Vec<Inherited>>,
) -> Result<Vec<Listener>, Failed> {
    let chosen = choose(&mut wanted, &mut given.lock());
    let listeners = chosen.and_then(|()| {
        let each: Result<Vec<_>, _> = wanted.iter().map(|it| it.listen(given)).collect();
        Ok(each?.into_iter().flatten().collect())
    });
    if listeners.is_err() {
        let places = wanted.into_iter().flat_map(|it| it.places);
        given.lock().extend(places.filter_map(|it| it.given));
    }
    listeners
}

/// Takes what fits out of `given`. What listens at just the address that is asked for goes to that, whoever asks first.
fn choose(wanted: &mut [Wanted<'_>], given: &mut Vec<Inherited>) -> Result<(), Failed> {
    wanted.iter_mut().try_for_each(|it| it.choose(given))?;
    wanted.iter_mut().for_each(|it| it.choose_wider(given));
    Ok(())
}

type Failed = (String, io::Error);

/// What the program asks for at one address as it has written it.
struct Wanted<'a> {
    options: &'a ListenOptions,
    /// What that stands for; nothing as long as it is systemd that says where.
    places: Vec<Place>,
}

/// A socket to be.
struct Place {
    address: Address,
    /// To listen with, if there is one that fits.
    given: Option<Inherited>,
}

impl<'a> Wanted<'a> {
    /// As far as it is known without a look at what the process was given.
    fn of(options: &'a ListenOptions) -> Result<Wanted<'a>, Failed> {
        let name = &options.address;
        let addresses = addresses(name).map_err(|error| (name.clone(), error))?;
        Ok(Wanted::at(options, addresses))
    }

    fn at(options: &'a ListenOptions, addresses: Vec<Address>) -> Wanted<'a> {
        let place = |address| Place {
            address,
            given: None,
        };
        Wanted {
            options,
            places: addresses.into_iter().map(place).collect(),
        }
    }

    fn failed(&self, error: io::Error) -> Failed {
        (self.options.address.clone(), error)
    }

    /// Takes what fits out of `given`.
    fn choose(&mut self, given: &mut Vec<Inherited>) -> Result<(), Failed> {
        let name = &self.options.address;
        let failed = |error| (name.clone(), error);
        for place in &mut self.places {
            let index = find(given, name, &place.address).map_err(failed)?;
            place.given = index.map(|it| given.remove(it));
        }
        if !name.starts_with(SYSTEMD) {
            return Ok(());
        }
        let is_named = |it: &Inherited| it.name == *name;
        if !given.iter().any(is_named) {
            return Err(failed(not_passed(given)));
        }
        while let Some(index) = given.iter().position(is_named) {
            let address = given[index].address().map_err(failed)?;
            let given = Some(given.remove(index));
            self.places.push(Place { address, given });
        }
        Ok(())
    }

    /// Takes out of `given` what serves an address among others, for those that have nothing of their own.
    fn choose_wider(&mut self, given: &mut Vec<Inherited>) {
        for place in self.places.iter_mut().filter(|it| it.given.is_none()) {
            if let Some(index) = find_wider(given, &place.address) {
                place.given = Some(given.remove(index));
            }
        }
    }

    /// Listens everywhere, with what was chosen and with new sockets.
    ///
    /// Of the addresses that a host's name stands for, those may be missing that this machine does not have: hosts files name
    /// `::1` on machines without IPv6, too.
    fn listen(&self, left: &Mutex<Vec<Inherited>>) -> Result<Vec<Listener>, Failed> {
        let mut listeners = Vec::new();
        let mut missing = Vec::new();
        for place in &self.places {
            match place.listen(self.options) {
                Ok(listener) => listeners.push(listener),
                Err(error) if is_missing(&error) => missing.push((&place.address, error)),
                Err(error) => return Err(self.failed(place.explained(error, left))),
            }
        }
        let mut missing = missing.into_iter();
        if listeners.is_empty() {
            if let Some((address, error)) = missing.next() {
                return Err(self.failed(explained(address, error)));
            }
        }
        let name = &self.options.address;
        for (address, error) in missing {
            if is_without_ipv6(address, &error) {
                logging::info!(
                    "{name} stands for {address}, too, where nobody listens: IPv6 is off on this machine"
                );
                continue;
            }
            let error = explained(address, error);
            logging::warn!("{name} stands for {address}, too, where nobody listens: {error}");
        }
        Ok(listeners)
    }
}

impl Place {
    fn listen(&self, options: &ListenOptions) -> io::Result<Listener> {
        let Some(given) = &self.given else {
            return Listener::bind_anew(&self.address, options);
        };
        let listener = Listener::inherit(given, options)?;
        let local = listener.address();
        if let (Address::Tcp(wanted), Address::Tcp(local)) = (&self.address, local) {
            if wanted.ip() != local.ip() {
                logging::info!(
                    "{wanted} is served by the socket that was passed for {local}, which takes IPv4 and IPv6"
                );
            }
        }
        Ok(listener)
    }

    /// `left` is what was given and that nothing has taken.
    fn explained(&self, error: io::Error, left: &Mutex<Vec<Inherited>>) -> io::Error {
        if self.given.is_some() {
            return error;
        }
        let words = match error.kind() {
            io::ErrorKind::AddrInUse => in_the_way(&left.lock(), &self.address),
            _ => None,
        };
        match words {
            Some(words) => io::Error::new(error.kind(), words),
            None => explained(&self.address, error),
        }
    }
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

    #[test]
    fn of_a_name_only_what_this_machine_has_is_listened_at() {
        let options = ListenOptions::new("board:0".to_owned());
        let at = |addresses: &[&str]| {
            let addresses = addresses.iter().map(|it| it.parse().unwrap());
            bind_resolved(
                vec![Wanted::at(&options, addresses.collect())],
                &Mutex::default(),
            )
        };
        // For documentation alone: RFC 5737 and RFC 3849.
        let (not_here, nor_this) = ("192.0.2.1:0", "[2001:db8::1]:0");
        let listeners = at(&[not_here, "127.0.0.1:0", nor_this]).unwrap();
        let [listener] = &listeners[..] else {
            panic!("{} listeners", listeners.len());
        };
        let address = listener.address().to_string();
        assert!(address.starts_with("127.0.0.1:"), "{address}");
        // Nothing at all is an error, and so is an address that somebody else has.
        let error = at(&[not_here, nor_this]).err().unwrap();
        assert!(
            error.1.to_string().contains("no network interface"),
            "{error:?}"
        );
        let error = at(&["127.0.0.1:0", &address]).err().unwrap();
        assert_eq!(error.1.kind(), io::ErrorKind::AddrInUse, "{error:?}");
        assert_eq!(error.0, "board:0");
    }
}
