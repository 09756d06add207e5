//! Channels: the ways to servers.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
#[cfg(feature = "client")]
use std::time::Duration;

#[cfg(feature = "client")]
use super::wait::wait;
#[cfg(feature = "client")]
use super::ChannelBuilder;
#[cfg(feature = "client")]
use crate::AddressError;

/// A way to a server, or to several that do the same. Cheap to clone; usable from many threads.
///
/// It connects when it is first used, and again when its connection is lost, after a pause. Any number of calls share
/// the connection. The channel ends when its last clone and the last client on it are dropped.
///
/// ```no_run
/// use touchdown::client::Channel;
///
/// # #[cfg(feature = "client")] {
/// let channel = Channel::connect("127.0.0.1:50051")?;
/// // let greeter = GreeterClient::new(&channel);
/// # }
/// # Ok::<(), touchdown::AddressError>(())
/// ```
///
/// What is sent is not encrypted. For a server on another machine, give the connection to a proxy or a tunnel that
/// encrypts it, or see [`unversioned`](crate::unversioned).
#[derive(Clone)]
pub struct Channel {
    pub(super) inner: grpcio::Channel,
}

impl Channel {
    /// A channel to the server at this address, as [`ChannelBuilder`] makes it without settings.
    ///
    /// | address | the server |
    /// |---|---|
    /// | `127.0.0.1:50051`, `[::1]:50051` | at this address and port |
    /// | `greeter.local:50051` | at the addresses that the name stands for, one of them at a time |
    /// | `unix:/run/greeter.sock`, `unix-abstract:greeter` | at a unix socket |
    /// | `ipv4:10.0.0.1:80,10.0.0.2:80` | at one of these addresses; `ipv6:` is the same |
    ///
    /// This waits for nothing: whether there is a server, the first call tells, or
    /// [`wait_until_connected`](Self::wait_until_connected).
    ///
    /// # Errors
    ///
    /// The text is no address.
    #[cfg(feature = "client")]
    pub fn connect(address: impl AsRef<str>) -> Result<Channel, AddressError> {
        Channel::builder().connect(address)
    }

    /// Begins a channel with settings.
    #[cfg(feature = "client")]
    pub fn builder() -> ChannelBuilder {
        ChannelBuilder::new()
    }

    /// A channel over a socket that is connected already: a stream socket of TCP or unix, or one half of a pair. It is
    /// not connected again.
    ///
    /// ```no_run
    /// use std::os::unix::net::UnixStream;
    /// use touchdown::client::Channel;
    ///
    /// let channel = Channel::over(UnixStream::connect("/run/greeter.sock")?)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The socket cannot be made non-blocking.
    pub fn over(socket: impl Into<OwnedFd>) -> io::Result<Channel> {
        let inner = crate::engine::channel_over(socket.into())?;
        Ok(Channel { inner })
    }

    pub(crate) fn from_grpcio(inner: grpcio::Channel) -> Channel {
        Channel { inner }
    }

    /// Waits until the channel is connected, and connects it if it is not. False if it is not within `limit`.
    ///
    /// Programs rarely need it: a call connects by itself, and waits for a server that is not there yet with
    /// [`CallOptions::wait_for_ready`](super::CallOptions::wait_for_ready).
    #[cfg(feature = "client")]
    pub fn wait_until_connected(&self, limit: Duration) -> bool {
        wait(self.inner.wait_for_connected(limit))
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Channel").finish_non_exhaustive()
    }
}
