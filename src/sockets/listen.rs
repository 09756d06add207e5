//! What a program says of an address to listen at: its settings, and whether they make sense.

#[cfg(feature = "tls")]
use std::any::Any;
use std::str::FromStr;
#[cfg(feature = "tls")]
use std::sync::Arc;
use std::time::Duration;

use super::accepted::TcpKeepalive;
use super::address::{Address, Written};
use super::address_error::AddressError;
#[cfg(feature = "tls")]
use super::encryption::Encryption;
use super::listener::ListenOptions;

/// An address to listen at, with settings of its own. For a gRPC server (`ServerBuilder::listen`), or for a program of
/// any protocol ([`Listen::bind`]).
///
/// | address | where |
/// |---|---|
/// | `0.0.0.0:50051`, `[::]:50051`, `localhost:50051` | at a port of IPv4 or IPv6, of every address that the name stands for; with port 0 the kernel chooses one, see [`Acceptor::address`](crate::acceptor::Acceptor::address) and `Server::address` |
/// | `unix:/run/greeter.sock` | at a unix socket |
/// | `unix-abstract:greeter` | at a unix socket in Linux's abstract namespace: it has no path and no permissions, so every process in the same network namespace can connect |
/// | `systemd:greeter` | at every socket that systemd has passed to this process under that name (`FileDescriptorName=` in the socket unit, by default the unit's name with `.socket`); it is an error if there is none |
///
/// If systemd has passed a socket that listens at an address which is written out, that socket is
/// used, and nothing is bound.
///
/// At a unix socket's path, what a program that crashed has left is removed: a socket on which nobody
/// listens. Anything else there is an error. While the program binds, it keeps others from
/// the path by a file beside the socket, `PATH.touchdown-lock`. At its end it removes the path if
/// that is still its own; the path of a socket of systemd it leaves alone.
///
/// | setting | default | reason for the default |
/// |---|---|---|
/// | [`mode`](Self::mode) | as the umask has it | as for every file |
/// | [`owner`](Self::owner) | the process's user and group | as for every file |
/// | [`tcp_keepalive`](Self::tcp_keepalive) | off | a gRPC server probes by itself (`ServerBuilder::keepalive`), which shows that the peer answers, and not only its kernel |
/// | `public` | no | what strangers' connections may take; for a gRPC server only |
/// | [`tcp_user_timeout`](Self::tcp_user_timeout) | for a gRPC server both times of `ServerBuilder::keepalive` together, 80 s; else the kernel's | a peer that takes nothing is given up when one that answers nothing is |
///
/// ```no_run
/// use touchdown::{lifecycle::Lifecycle, Listen};
///
/// let lifecycle = Lifecycle::builder().build()?;
/// let acceptor = Listen::new("unix:/run/greeter.sock").mode(0o660).owner(0, 44).bind(&lifecycle)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "it listens once it is bound, or a server starts with it"]
pub struct Listen {
    options: ListenOptions,
    keepalive: Option<(Duration, Duration, u32)>,
    /// What has made the encryption, and looks after it.
    #[cfg(feature = "tls")]
    encrypted_by: Option<Arc<dyn Any + Send + Sync>>,
}

/// Listens at the address that is written, if it is one. Nothing is looked up.
impl FromStr for Listen {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Listen, AddressError> {
        match Written::read(text) {
            Ok(_) => Ok(Listen::new(text)),
            Err(wrong) => Err(AddressError::new(text, wrong)),
        }
    }
}

impl From<Address> for Listen {
    fn from(address: Address) -> Listen {
        Listen::new(address.to_string())
    }
}

/// A setting that cannot be kept.
#[derive(Debug)]
pub(crate) struct BadSetting {
    pub(crate) setting: &'static str,
    pub(crate) value: String,
    pub(crate) expected: &'static str,
}

impl Listen {
    /// Listens at this address. If it is none, the error comes when it is bound, or when the server starts. To hear of
    /// it earlier, [parse](str::parse) it: `"127.0.0.1:50051".parse::<Listen>()?`.
    pub fn new(address: impl Into<String>) -> Listen {
        Listen {
            options: ListenOptions::new(address.into()),
            keepalive: None,
            #[cfg(feature = "tls")]
            encrypted_by: None,
        }
    }

    /// Sets whether anybody may connect there.
    #[cfg(feature = "server")]
    pub(crate) fn set_public(mut self) -> Self {
        self.options.is_public = true;
        self
    }

    pub(crate) fn is_public(&self) -> bool {
        self.options.is_public
    }

    /// Encrypts what goes over its connections.
    #[cfg(feature = "tls")]
    pub(crate) fn encrypt<T: Any + Send + Sync>(mut self, with: Arc<Encryption>, by: T) -> Self {
        self.options.encryption = Some(with);
        self.encrypted_by = Some(Arc::new(by));
        self
    }

    #[cfg(feature = "tls")]
    pub(crate) fn is_encrypted(&self) -> bool {
        self.options.encryption.is_some()
    }

    /// What has made the encryption, if it is a `T`.
    #[cfg(feature = "tls")]
    pub(crate) fn encrypted_by<T: Any>(&self) -> Option<&T> {
        self.encrypted_by.as_ref()?.downcast_ref()
    }

    /// Sets the permissions of a unix socket's path: who may write to it may connect. They hold from
    /// the first moment at which anybody can connect. Up to 0o777.
    ///
    /// A path that a predecessor has bound gets them as well. If systemd has bound it, its unit has
    /// to say the same (`SocketMode=`).
    pub fn mode(mut self, mode: u32) -> Self {
        self.options.access.mode = Some(mode);
        self
    }

    /// Sets the user and the group of a unix socket's path, by their numbers. Only root may give it
    /// to another user, and others only to a group that they are in.
    ///
    /// If systemd has bound the path, its unit has to say the same (`SocketUser=`, `SocketGroup=`).
    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        self.options.access.owner = Some((uid, gid));
        self
    }

    /// Has the kernel probe TCP connections on which nothing has come in for `idle`, every
    /// `interval`, and close those that have left `probes` of them unanswered. In whole seconds: what is
    /// between is rounded up. Up to 32,767 s each, and 127 probes, as in tcp(7).
    pub fn tcp_keepalive(mut self, idle: Duration, interval: Duration, probes: u32) -> Self {
        self.keepalive = Some((idle, interval, probes));
        self
    }

    /// Sets how long the peer of a TCP connection may leave unacknowledged what it is sent, or not
    /// take it, before the kernel closes the connection (`TCP_USER_TIMEOUT` in tcp(7)), in
    /// milliseconds. With [`tcp_keepalive`](Self::tcp_keepalive) it also decides when probes have been left
    /// unanswered for too long, whatever their number; so then the default is as long as that says.
    pub fn tcp_user_timeout(mut self, time: Duration) -> Self {
        self.options.tcp.user_timeout = Some(time);
        self
    }

    /// The options, if they make sense.
    pub(crate) fn checked(mut self) -> Result<ListenOptions, BadSetting> {
        let wrong = |setting, value: String, expected| {
            Err(BadSetting {
                setting,
                value,
                expected,
            })
        };
        let has_path = self.options.address.starts_with("unix:");
        let is_unix = has_path || self.options.address.starts_with("unix-abstract:");
        if let Some(mode) = self.options.access.mode {
            if mode > 0o777 {
                return wrong("mode", format!("{mode:#o}"), "no more than 0o777");
            }
            if !has_path {
                return wrong(
                    "mode",
                    format!("{mode:#o}"),
                    "set for a unix socket's path only",
                );
            }
        }
        if let (Some((uid, gid)), false) = (self.options.access.owner, has_path) {
            return wrong(
                "owner",
                format!("{uid}, {gid}"),
                "set for a unix socket's path only",
            );
        }
        if let Some(time) = self.options.tcp.user_timeout {
            let expected = match is_unix {
                true => "set for TCP only",
                false => "from 1 ms to 24 days",
            };
            if is_unix || !(1..=i32::MAX as u128).contains(&time.as_millis()) {
                return wrong("tcp_user_timeout", format!("{time:?}"), expected);
            }
        }
        if let Some((idle, interval, probes)) = self.keepalive {
            let value = format!("{idle:?}, {interval:?}, {probes}");
            if is_unix {
                return wrong("tcp_keepalive", value, "set for TCP only");
            }
            let probes = u8::try_from(probes)
                .ok()
                .filter(|it| (1..=127).contains(it));
            let keepalive = (seconds(idle), seconds(interval), probes);
            let (Some(idle), Some(interval), Some(probes)) = keepalive else {
                return wrong(
                    "tcp_keepalive",
                    value,
                    "from 1 s to 32767 s, and 1 to 127 probes",
                );
            };
            self.options.tcp.keepalive = Some(TcpKeepalive {
                idle,
                interval,
                probes,
            });
        }
        Ok(self.options)
    }
}

/// A time that the kernel takes.
fn seconds(time: Duration) -> Option<u16> {
    let seconds = u16::try_from(time.as_millis().div_ceil(1000)).ok()?;
    (1..=32_767).contains(&seconds).then_some(seconds)
}
