//! The socket of a client.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use touchdown::acceptor::{Connection, ConnectionGuard, Stream};

use super::client::Duplex;

/// A client's socket, which never blocks.
pub(super) struct Socket {
    stream: Either,
    /// What counts the connection as open.
    _guard: ConnectionGuard,
}

enum Either {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// `None` for a socket of a kind that is not known here, or that is gone already.
    pub(super) fn new(connection: Connection) -> Option<Socket> {
        let (stream, guard) = connection.into_parts();
        let (stream, set) = match stream {
            Stream::Tcp(stream) => {
                let set = stream.set_nonblocking(true);
                (Either::Tcp(stream), set)
            }
            Stream::Unix(stream) => {
                let set = stream.set_nonblocking(true);
                (Either::Unix(stream), set)
            }
            _ => return None,
        };
        set.ok()?;
        Some(Socket {
            stream,
            _guard: guard,
        })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.stream {
            Either::Tcp(stream) => stream.as_fd(),
            Either::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Duplex for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.stream {
            Either::Tcp(stream) => stream.read(buffer),
            Either::Unix(stream) => stream.read(buffer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.stream {
            Either::Tcp(stream) => stream.write(bytes),
            Either::Unix(stream) => stream.write(bytes),
        }
    }

    fn end_output(&mut self) -> io::Result<()> {
        match &self.stream {
            Either::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Either::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}
