//! Connections that were accepted and are waited for.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::lifecycle::OwnedGuard;
use crate::sockets::accepted::Accepted;
use crate::sockets::peer::PeerCredentials;

/// A connection, which the program is drained of: the drain waits until it is dropped.
///
/// It can be read and written, by several threads, too, by reference, as the streams of the standard library.
pub struct Connection {
    // Closed before the drain is told.
    stream: Arc<Stream>,
    guard: ConnectionGuard,
}

/// What is spoken on.
#[derive(Debug)]
#[non_exhaustive]
pub enum Stream {
    /// A connection of TCP.
    Tcp(TcpStream),
    /// A connection of a unix socket.
    Unix(UnixStream),
}

/// As long as it lives, the drain waits for its connection.
pub struct ConnectionGuard {
    number: u64,
    peer: Option<SocketAddr>,
    credentials: Option<PeerCredentials>,
    open: Arc<OpenConnections>,
    _in_flight: Option<OwnedGuard>,
}

impl Connection {
    pub(super) fn new(
        accepted: Accepted,
        open: &Arc<OpenConnections>,
        guard: Option<OwnedGuard>,
    ) -> Self {
        accepted.limit_unanswered();
        let (peer, credentials) = (accepted.peer, accepted.info.credentials);
        let stream = Arc::new(match peer {
            Some(_) => Stream::Tcp(accepted.socket.into()),
            None => Stream::Unix(accepted.socket.into()),
        });
        // It fails for no socket that is open.
        let _ = stream.set_blocking();
        Connection {
            guard: ConnectionGuard {
                number: open.add(peer, &stream),
                peer,
                credentials,
                open: Arc::clone(open),
                _in_flight: guard,
            },
            stream,
        }
    }

    /// Sets how long a read may wait for the peer; `None`, the default, is without end. A read whose time is over fails
    /// with [`WouldBlock`](io::ErrorKind::WouldBlock).
    ///
    /// # Errors
    ///
    /// If the time is zero.
    pub fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        match &*self.stream {
            Stream::Tcp(it) => it.set_read_timeout(time),
            Stream::Unix(it) => it.set_read_timeout(time),
        }
    }

    /// Sets how long a write may wait for the peer to take what was written before; `None`, the default, is without
    /// end. A write whose time is over fails with [`WouldBlock`](io::ErrorKind::WouldBlock).
    ///
    /// # Errors
    ///
    /// If the time is zero.
    pub fn set_write_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        match &*self.stream {
            Stream::Tcp(it) => it.set_write_timeout(time),
            Stream::Unix(it) => it.set_write_timeout(time),
        }
    }

    /// The stream, for what only one of its kind has, such as the options of TCP, or a copy of the descriptor.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The peer's address; `None` if it came by a unix socket.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.guard.peer
    }

    /// The process at the other end of a unix socket; `None` if it came by TCP.
    pub fn peer_credentials(&self) -> Option<PeerCredentials> {
        self.guard.credentials
    }

    /// The stream, and what has the drain wait for it: for a library that takes a stream. Such a stream does not end by
    /// itself when the grace period is over.
    pub fn into_parts(self) -> (Stream, ConnectionGuard) {
        let Connection { stream, guard } = self;
        // From now on nobody else makes a copy, not even for a moment.
        guard.open.forget_stream(guard.number);
        let stream = Arc::into_inner(stream).expect("nobody else has the stream");
        (stream, guard)
    }
}

impl Stream {
    fn set_blocking(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(it) => it.set_nonblocking(false),
            Stream::Unix(it) => it.set_nonblocking(false),
        }
    }

    fn end_input(&self) {
        // It fails for a connection that is gone.
        let _ = match self {
            Stream::Tcp(it) => it.shutdown(Shutdown::Read),
            Stream::Unix(it) => it.shutdown(Shutdown::Read),
        };
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).read(buffer),
            Stream::Unix(stream) => (&mut &*stream).read(buffer),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).write(data),
            Stream::Unix(stream) => (&mut &*stream).write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for Stream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        (&*self).write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for &Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.stream).read(buffer)
    }
}

impl Write for &Connection {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        (&*self.stream).write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for Connection {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        (&*self).write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.open.remove(self.number);
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stream.fmt(formatter)
    }
}

impl fmt::Debug for ConnectionGuard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ConnectionGuard")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// What is open of one acceptor's connections.
#[derive(Default)]
pub(super) struct OpenConnections(Mutex<Opened>);

#[derive(Default)]
struct Opened {
    next: u64,
    all: BTreeMap<u64, OpenConnection>,
    /// The grace period is over.
    ended: bool,
}

struct OpenConnection {
    peer: Option<SocketAddr>,
    since: Instant,
    /// Nothing once it is the program's alone.
    stream: Weak<Stream>,
}

impl OpenConnections {
    fn add(&self, peer: Option<SocketAddr>, stream: &Arc<Stream>) -> u64 {
        let mut opened = self.0.lock();
        if opened.ended {
            stream.end_input();
        }
        let number = opened.next;
        opened.next += 1;
        let connection = OpenConnection {
            peer,
            since: Instant::now(),
            stream: Arc::downgrade(stream),
        };
        opened.all.insert(number, connection);
        number
    }

    fn remove(&self, number: u64) {
        self.0.lock().all.remove(&number);
    }

    fn forget_stream(&self, number: u64) {
        if let Some(connection) = self.0.lock().all.get_mut(&number) {
            connection.stream = Weak::new();
        }
    }

    pub(super) fn count(&self) -> usize {
        self.0.lock().all.len()
    }

    /// A line for each, the oldest first; nothing if that would take a wait.
    pub(super) fn describe(&self) -> Vec<String> {
        let Some(opened) = self.0.try_lock() else {
            return Vec::new();
        };
        let describe = |it: &OpenConnection| {
            let peer = it
                .peer
                .map_or("a unix socket".to_owned(), |it| it.to_string());
            format!("connection from {peer}, for {:.1?}", it.since.elapsed())
        };
        opened.all.values().map(describe).collect()
    }

    /// Those that wait for more from their peers read the end of it.
    pub(super) fn end_input(&self) {
        let mut opened = self.0.lock();
        opened.ended = true;
        for stream in opened.all.values().filter_map(|it| it.stream.upgrade()) {
            stream.end_input();
        }
    }
}
