//! Clients of C-core's, over sockets that are connected already.

use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use grpcio::{Channel, ChannelBuilder, Environment};

/// A client of the server at the other end of a connected stream socket.
///
/// # Errors
///
/// If the socket cannot be made non-blocking.
pub(crate) fn channel_over(socket: OwnedFd) -> io::Result<Channel> {
    let socket = UnixStream::from(socket);
    socket.set_nonblocking(true)?;
    let socket = socket.into_raw_fd();
    let environment = Arc::new(Environment::new(1));
    // SAFETY: a connected socket, non-blocking, which nobody else has.
    Ok(unsafe { ChannelBuilder::new(environment).connect_from_fd("touchdown", socket) })
}
