//! What a program says of a channel.

use std::sync::Arc;
use std::time::Duration;

use grpcio::{Environment, LbPolicy};

use super::Channel;
use crate::AddressError;

/// The settings of a [`Channel`].
///
/// | setting | default | reason for the default |
/// |---|---|---|
/// | [`threads`](Self::threads) | one, which all channels of the process share that say nothing | it only moves bytes: callers decode and wait on threads of their own |
/// | [`own_connection`](Self::own_connection) | channels of a process to the same address share a connection | less memory on both sides |
/// | [`round_robin`](Self::round_robin) | the first address that can be reached has all calls | one server as a rule |
/// | [`authority`](Self::authority) | the address without its scheme | |
/// | [`user_agent`](Self::user_agent) | grpcio's and C-core's | |
/// | [`keepalive`](Self::keepalive) | off | servers may close connections on which there are too many probes; touchdown's do not |
/// | [`reconnect`](Self::reconnect) | after 1 s, then longer and longer, up to 120 s | as [gRPC has it](https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md) |
/// | [`max_receive_message_size`](Self::max_receive_message_size) | 4 MiB | what one reply may take of a small machine's memory |
/// | [`max_send_message_size`](Self::max_send_message_size) | none | |
/// | [`retries`](Self::retries) | on | what has not reached the server is sent again, and nobody notices |
///
/// ```
/// use std::time::Duration;
/// use touchdown::client::Channel;
///
/// let channel = Channel::builder()
///     .keepalive(Duration::from_secs(60), Duration::from_secs(20))
///     .reconnect(Duration::from_millis(100), Duration::from_secs(5))
///     .connect("127.0.0.1:50051")?;
/// # Ok::<(), touchdown::AddressError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "it does nothing until `connect`"]
pub struct ChannelBuilder {
    threads: Option<usize>,
    own_connection: bool,
    round_robin: bool,
    authority: Option<String>,
    user_agent: Option<String>,
    keepalive: Option<(Duration, Duration)>,
    reconnect: Option<(Duration, Duration)>,
    max_receive_message_size: Option<usize>,
    max_send_message_size: Option<usize>,
    retries: Option<bool>,
}

impl ChannelBuilder {
    /// No settings.
    pub fn new() -> ChannelBuilder {
        ChannelBuilder::default()
    }

    /// Gives the channel so many threads of its own for its input and output, one at the least. Worth it for a client
    /// that fills more than one processor.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads.max(1));
        self
    }

    /// Gives the channel a connection of its own, even if another one of the process is connected to the same address.
    pub fn own_connection(mut self) -> Self {
        self.own_connection = true;
        self
    }

    /// Connects to all addresses that the name stands for, and spreads the calls over them.
    pub fn round_robin(mut self) -> Self {
        self.round_robin = true;
        self
    }

    /// Sets by which name the server is called (`:authority`): for proxies that choose by it.
    ///
    /// A zero byte in it, which cannot be sent, and what follows it, is left out.
    pub fn authority(mut self, name: impl Into<String>) -> Self {
        self.authority = Some(without_zeros(name.into()));
        self
    }

    /// Puts this before the `user-agent` that is sent, by which a server's log knows who calls.
    ///
    /// A zero byte in it, which cannot be sent, and what follows it, is left out.
    pub fn user_agent(mut self, name: impl Into<String>) -> Self {
        self.user_agent = Some(without_zeros(name.into()));
        self
    }

    /// Asks the server whether it is still there when nothing has come from it for `interval`, with or without calls,
    /// and gives the connection up if it does not answer within `timeout`. In milliseconds, up to 24 days.
    ///
    /// For connections that may be cut without a word, as by a router, and for streams on which little is sent.
    pub fn keepalive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.keepalive = Some((interval, timeout));
        self
    }

    /// Sets how long the channel waits before it connects again, at first and at the most. In milliseconds, up to 24
    /// days; C-core waits 100 ms at the least.
    pub fn reconnect(mut self, first: Duration, most: Duration) -> Self {
        self.reconnect = Some((first, most));
        self
    }

    /// Sets how large a reply may be, in bytes, up to 2 GiB. A larger one ends its call with RESOURCE_EXHAUSTED.
    pub fn max_receive_message_size(mut self, bytes: usize) -> Self {
        self.max_receive_message_size = Some(bytes);
        self
    }

    /// Sets how large a request may be, in bytes, up to 2 GiB. A larger one ends its call with RESOURCE_EXHAUSTED.
    pub fn max_send_message_size(mut self, bytes: usize) -> Self {
        self.max_send_message_size = Some(bytes);
        self
    }

    /// Sets whether a call is sent again that no handler can have seen, as when it meets a server's farewell. Without, a call
    /// that has not left its channel when the farewell comes fails with UNAVAILABLE, which no server can prevent.
    pub fn retries(mut self, retries: bool) -> Self {
        self.retries = Some(retries);
        self
    }

    /// The channel. See [`Channel::connect`] for what an address may be.
    ///
    /// # Errors
    ///
    /// The text is no address.
    ///
    /// # Panics
    ///
    /// If the system has no room for another thread.
    pub fn connect(self, address: impl AsRef<str>) -> Result<Channel, AddressError> {
        let address = address.as_ref();
        if let Some(error) = AddressError::in_target(address) {
            return Err(error);
        }
        let environment = match self.threads {
            Some(threads) => Arc::new(Environment::new(threads)),
            None => crate::engine::shared_environment(),
        };
        let inner = self.into_grpcio(environment).connect(address);
        Ok(Channel { inner })
    }

    fn into_grpcio(self, environment: Arc<Environment>) -> grpcio::ChannelBuilder {
        let mut builder = grpcio::ChannelBuilder::new(environment);
        if self.own_connection {
            builder = builder.use_local_subchannel_pool(true);
        }
        if self.round_robin {
            builder = builder.load_balancing_policy(LbPolicy::RoundRobin);
        }
        if let Some(name) = self.authority {
            builder = builder.default_authority(name);
        }
        if let Some(name) = self.user_agent {
            builder = builder.primary_user_agent(&name);
        }
        if let Some((interval, timeout)) = self.keepalive {
            builder = builder
                .keepalive_time(sendable(interval))
                .keepalive_timeout(sendable(timeout))
                .keepalive_permit_without_calls(true)
                .http2_max_pings_without_data(0);
        }
        if let Some((first, most)) = self.reconnect {
            builder = builder
                .initial_reconnect_backoff(sendable(first))
                .max_reconnect_backoff(sendable(most));
        }
        if let Some(bytes) = self.max_receive_message_size {
            builder = builder.max_receive_message_len(number(bytes));
        }
        if let Some(bytes) = self.max_send_message_size {
            builder = builder.max_send_message_len(number(bytes));
        }
        if let Some(retries) = self.retries {
            builder = builder.enable_retry(retries);
        }
        builder
    }
}

/// C-core takes text up to a zero byte.
fn without_zeros(mut text: String) -> String {
    if let Some(zero) = text.find('\0') {
        text.truncate(zero);
    }
    text
}

/// C-core takes milliseconds as a number of 32 bits, and grpcio panics at more.
fn sendable(time: Duration) -> Duration {
    const LONGEST: Duration = Duration::from_millis(i32::MAX as u64);
    time.min(LONGEST)
}

fn number(bytes: usize) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}
