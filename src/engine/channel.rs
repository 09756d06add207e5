//! Clients of C-core's: the thread that all share, and those over sockets that are connected already.

use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};

use grpcio::{Channel, ChannelBuilder, Environment};
use parking_lot::Mutex;

/// A client of the server at the other end of a connected stream socket.
///
/// # Errors
///
/// If the socket cannot be made non-blocking.
pub(crate) fn channel_over(socket: OwnedFd) -> io::Result<Channel> {
    let socket = UnixStream::from(socket);
    socket.set_nonblocking(true)?;
    let socket = socket.into_raw_fd();
    let environment = shared_environment();
    // SAFETY: a connected socket, non-blocking, which nobody else has.
    Ok(unsafe { ChannelBuilder::new(environment).connect_from_fd("touchdown", socket) })
}

/// One thread for the input and output of all channels that have none of their own, as long as there are any.
///
/// # Panics
///
/// If there is no room for the thread.
pub(crate) fn shared_environment() -> Arc<Environment> {
    static SHARED: Mutex<Weak<Environment>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock();
    shared.upgrade().unwrap_or_else(|| {
        let environment = Arc::new(Environment::new(1));
        *shared = Arc::downgrade(&environment);
        environment
    })
}
