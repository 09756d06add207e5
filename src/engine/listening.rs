//! What a server listens on, as a whole, and what is decided about it from other threads: whether
//! anything is accepted yet, and whether somebody else listens there from now on.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use super::inherited::Inherited;
use super::listener::{Accepted, Listener};

pub(super) struct Listening {
    listeners: Vec<Listener>,
    accepting: bool,
    /// A successor listens, too, and accepts what this server does not.
    handed_over: bool,
    /// Connections that the program has made by [`connect`](Self::connect).
    given: Vec<Accepted>,
    closed: bool,
}

impl Listening {
    pub(super) fn new(listeners: Vec<Listener>, accepting: bool) -> Listening {
        let mut listening = Listening {
            listeners,
            accepting: false,
            handed_over: false,
            given: Vec::new(),
            closed: false,
        };
        if accepting {
            listening.accept();
        }
        listening
    }

    /// From now on connections are accepted, and the paths of unix sockets are this server's.
    pub(super) fn accept(&mut self) {
        self.accepting = true;
        self.listeners.iter_mut().for_each(Listener::own_path);
    }

    /// The sockets for a successor. Nothing changes for this server.
    pub(super) fn hand_over(&self) -> io::Result<Vec<Inherited>> {
        if self.closed {
            return Err(closed());
        }
        self.listeners.iter().map(Listener::hand_over).collect()
    }

    /// The sockets are a successor's now.
    pub(super) fn handed_over(&mut self) {
        self.handed_over = true;
        self.listeners.iter_mut().for_each(Listener::leave_path);
    }

    /// Makes a connection to this server without any of its sockets.
    pub(super) fn connect(&mut self) -> io::Result<OwnedFd> {
        if self.closed {
            return Err(closed());
        }
        let (ours, theirs) = UnixStream::pair()?;
        self.given.push(Accepted::from_unix(ours)?);
        Ok(theirs.into())
    }

    pub(super) fn take_given(&mut self) -> Vec<Accepted> {
        std::mem::take(&mut self.given)
    }

    /// The sockets on which connections are to be waited for.
    pub(super) fn waited_for(&self) -> impl Iterator<Item = RawFd> + '_ {
        let listeners = self.listeners.iter().filter(|_| self.accepting);
        listeners.map(Listener::as_raw_fd)
    }

    /// How many sockets have a queue of connections that is this server's to empty.
    pub(super) fn own_queues(&self) -> usize {
        match self.accepting && !self.handed_over {
            true => self.listeners.len(),
            false => 0,
        }
    }

    pub(super) fn accept_from(&self, index: usize) -> io::Result<Option<Accepted>> {
        match self.listeners.get(index) {
            Some(listener) => listener.accept(),
            None => Ok(None),
        }
    }

    /// Ends listening, for good. Returns the connections that were given and not yet taken.
    pub(super) fn close(&mut self) -> Vec<Accepted> {
        self.closed = true;
        self.listeners.clear();
        self.take_given()
    }
}

fn closed() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotConnected,
        "the server has stopped to listen",
    )
}
