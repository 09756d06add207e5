//! All sockets of one server or acceptor, its owner, and what other threads decide about them: whether the owner accepts
//! connections yet, and whether another process accepts them from now on.

use std::io;
#[cfg(any(feature = "server", test))]
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
#[cfg(any(feature = "server", test))]
use std::os::unix::net::UnixStream;

use super::accepted::Accepted;
use super::inherited::Inherited;
use super::listener::Listener;
#[cfg(any(feature = "server", test))]
use super::peer::PeerInfo;
use super::stored::BoundSocket;
use super::unix_path::SocketPath;

/// The listening sockets of one owner, and whose the connections are that come in there.
pub(crate) struct Listeners {
    listeners: Vec<Listener>,
    accepting: bool,
    /// A successor listens, too, and accepts what the owner does not.
    handed_over: bool,
    /// Connections that the program has made by [`connect`](Self::connect).
    given: Vec<Accepted>,
    closed: bool,
    /// The paths that were left to another process as the owner ended to listen.
    left: Vec<SocketPath>,
}

impl Listeners {
    pub(crate) fn new(listeners: Vec<Listener>, accepting: bool) -> Listeners {
        let mut all = Listeners {
            listeners,
            accepting: false,
            handed_over: false,
            given: Vec::new(),
            closed: false,
            left: Vec::new(),
        };
        if accepting {
            all.accept();
            all.own_paths();
        }
        all
    }

    /// From now on connections are accepted.
    pub(crate) fn accept(&mut self) {
        self.accepting = true;
    }

    /// From now on the paths of unix sockets are the owner's, which removes them if it has ended to
    /// listen.
    pub(crate) fn own_paths(&mut self) {
        self.listeners.iter_mut().for_each(Listener::own_path);
        self.left.drain(..).for_each(SocketPath::remove);
    }

    /// The sockets for a successor. Nothing changes for the owner.
    pub(crate) fn hand_over(&self) -> io::Result<Vec<Inherited>> {
        if self.closed {
            return Err(closed());
        }
        self.listeners.iter().map(Listener::hand_over).collect()
    }

    /// The sockets that this process has bound itself, for a store that outlives it. The paths of unix
    /// sockets stay from now on.
    pub(crate) fn store(&mut self) -> io::Result<Vec<BoundSocket>> {
        if self.closed {
            return Err(closed());
        }
        let bound = self.listeners.iter_mut().filter(|it| !it.is_inherited());
        bound
            .map(|listener| {
                let Inherited { name, socket, .. } = listener.hand_over()?;
                listener.keep_path();
                Ok(BoundSocket::new(name, socket))
            })
            .collect()
    }

    /// Sets whether the sockets are a successor's, who accepts.
    pub(crate) fn set_handed_over(&mut self, handed_over: bool) {
        self.handed_over = handed_over;
        match handed_over {
            true => self.listeners.iter_mut().for_each(Listener::leave_path),
            false => self.own_paths(),
        }
    }

    #[cfg(feature = "server")]
    pub(crate) fn is_handed_over(&self) -> bool {
        self.handed_over
    }

    /// Makes a connection to the owner without any of its sockets.
    #[cfg(any(feature = "server", test))]
    pub(crate) fn connect(&mut self) -> io::Result<OwnedFd> {
        if self.closed {
            return Err(closed());
        }
        let (ours, theirs) = UnixStream::pair()?;
        let mut own = Accepted::from_unix(ours)?;
        // An interceptor that lets the program's own user in is not to take the program for that.
        own.info = PeerInfo::with(None);
        #[cfg(feature = "server")]
        {
            own.info.is_own = true;
        }
        self.given.push(own);
        Ok(theirs.into())
    }

    pub(crate) fn take_given(&mut self) -> Vec<Accepted> {
        std::mem::take(&mut self.given)
    }

    /// The sockets on which connections are to be waited for, and their indices; with those at which TLS is spoken, or
    /// without.
    pub(crate) fn waited_for(&self, encrypted: bool) -> impl Iterator<Item = (usize, RawFd)> + '_ {
        let accepting = self.accepting && !self.handed_over;
        let listeners = self.listeners.iter().enumerate();
        let meant = listeners.filter(move |(_, it)| accepting && (encrypted || !it.is_encrypted()));
        meant.map(|(index, it)| (index, it.as_raw_fd()))
    }

    /// Whether TLS is spoken there.
    #[cfg(feature = "server")]
    pub(crate) fn is_encrypted(&self, index: usize) -> bool {
        self.listeners
            .get(index)
            .is_some_and(Listener::is_encrypted)
    }

    /// How many sockets have a queue of connections that is the owner's to empty.
    pub(crate) fn own_queues(&self) -> usize {
        match self.accepting && !self.handed_over {
            true => self.listeners.len(),
            false => 0,
        }
    }

    pub(crate) fn accept_from(&self, index: usize) -> io::Result<Option<Accepted>> {
        match self.listeners.get(index) {
            Some(listener) => listener.accept(),
            None => Ok(None),
        }
    }

    /// Ends listening, for good. Returns the connections that were given and not yet taken.
    pub(crate) fn close(&mut self) -> Vec<Accepted> {
        self.closed = true;
        let listeners = self.listeners.drain(..);
        self.left.extend(listeners.filter_map(Listener::end));
        self.take_given()
    }
}

fn closed() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotConnected,
        "the program has stopped to listen there",
    )
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{ErrorKind, Read, Write};
    use std::net::TcpStream;
    use std::os::unix::fs::OpenOptionsExt;

    use parking_lot::Mutex;

    use super::*;
    use crate::sockets::bind::{bind_all, bind_with};
    use crate::sockets::listener::ListenOptions;

    fn listen(address: &str) -> Vec<Listener> {
        bind_all(&[ListenOptions::new(address.to_owned())]).unwrap()
    }

    /// Accepts all connections that are there. One is in the kernel's queue as soon as `connect` returns.
    fn accept_all(all: &Listeners) -> Vec<Accepted> {
        let accept = |index| std::iter::from_fn(move || all.accept_from(index).unwrap());
        (0..all.waited_for(true).count()).flat_map(accept).collect()
    }

    #[test]
    fn nothing_but_its_own_connections_is_accepted_before_it_accepts() {
        let mut all = Listeners::new(listen("127.0.0.1:0"), false);
        let address = all.listeners[0].address().to_string();
        let _public = TcpStream::connect(address).unwrap();
        let mut own = UnixStream::from(all.connect().unwrap());
        assert_eq!(accept_all(&all).len(), 0, "it waits in the kernel");
        let mut given = all.take_given();
        assert_eq!(given.len(), 1);
        own.write_all(b"!").unwrap();
        let mut heard = [0];
        let mut theirs = UnixStream::from(given.remove(0).socket);
        theirs.set_nonblocking(false).unwrap();
        theirs.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"!");
        all.accept();
        assert_eq!(accept_all(&all).len(), 1);
        all.close();
        for error in [all.connect().err(), all.hand_over().err()] {
            assert_eq!(error.unwrap().kind(), ErrorKind::NotConnected);
        }
    }

    #[test]
    fn a_successor_accepts_what_the_old_one_has_not() {
        let path = std::env::temp_dir().join(format!("touchdown-{}-old.sock", std::process::id()));
        let address = format!("unix:{}", path.display());
        let mut old = Listeners::new(listen(&address), false);
        let handed = Mutex::new(old.hand_over().unwrap());
        let successors = bind_with(&[ListenOptions::new(address)], &handed).unwrap();
        let mut new = Listeners::new(successors, false);
        let connect = || UnixStream::connect(&path).unwrap();
        let _before = connect();
        new.accept();
        assert_eq!(accept_all(&new).len(), 1);
        old.accept();
        old.own_paths();
        let _both = connect();
        assert_eq!(accept_all(&old).len(), 1);
        old.set_handed_over(true);
        new.own_paths();
        let _left = connect();
        assert_eq!(accept_all(&old).len(), 0, "it is the successor's");
        old.close();
        drop(old);
        let _after = connect();
        assert_eq!(accept_all(&new).len(), 2);
        new.close();
        assert!(!path.exists(), "the successor's end is the path's end");
    }

    #[test]
    fn the_queue_is_the_successors_once_it_was_handed_over() {
        let mut listening = Listeners::new(listen("127.0.0.1:0"), false);
        assert_eq!(listening.own_queues(), 0);
        listening.accept();
        assert_eq!(listening.own_queues(), 1);
        listening.set_handed_over(true);
        assert_eq!(listening.own_queues(), 0);
        assert_eq!(listening.waited_for(true).count(), 0);
        listening.set_handed_over(false);
        assert_eq!(listening.own_queues(), 1, "it came back");
    }

    #[test]
    fn a_path_that_was_left_to_nobody_goes_after_the_end_of_listening() {
        let name = format!("touchdown-{}-left.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let address = format!("unix:{}", path.display());
        let left = || {
            let mut listening = Listeners::new(listen(&address), true);
            listening.set_handed_over(true);
            listening.close();
            assert!(path.exists());
            listening
        };
        left().set_handed_over(false);
        assert!(!path.exists());
        let mut old = left();
        // So that the next one has another inode.
        let _first = File::options()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
            .open(&path)
            .unwrap();
        let others = Listeners::new(listen(&address), true);
        old.set_handed_over(false);
        assert!(path.exists(), "somebody else listens there by now");
        drop(others);
        assert!(!path.exists());
    }
}
