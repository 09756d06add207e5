//! Where a server listens, and how.

use std::time::Duration;

use crate::sockets::listener::{ListenOptions, TcpKeepalive};

use super::error::StartError;

#[cfg(feature = "tls")]
use super::tls::Tls;

/// An address to listen at, with settings of its own. For [`ServerBuilder::listen`].
///
/// | address | where |
/// |---|---|
/// | `0.0.0.0:50051`, `[::]:50051`, `localhost:50051` | at a port of IPv4 or IPv6, of every address that the name stands for; with port 0 the kernel chooses one, see [`Server::address`](super::Server::address) |
/// | `unix:/run/greeter.sock` | at a unix socket |
/// | `unix-abstract:greeter` | at a unix socket in Linux's abstract namespace: it has no path and no permissions, so every process in the same network namespace can connect |
/// | `systemd:greeter` | at every socket that systemd has passed to this process under that name (`FileDescriptorName=` in the socket unit, by default the unit's name with `.socket`); it is an error if there is none |
///
/// If systemd has passed a socket that listens at an address which is written out, that socket is
/// used, and nothing is bound.
///
/// At a unix socket's path, what a server that crashed has left is removed: a socket on which nobody
/// listens. Anything else there is an error. While it binds, the server keeps others from
/// it by a file beside the socket, `PATH.touchdown-lock`. At its end the server removes the path if
/// it is still its own; the path of a socket of systemd it leaves alone.
///
/// | setting | default | reason for the default |
/// |---|---|---|
/// | [`mode`](Self::mode) | as the umask has it | as for every file |
/// | [`owner`](Self::owner) | the process's user and group | as for every file |
/// | [`tcp_keepalive`](Self::tcp_keepalive) | off | [`ServerBuilder::keepalive`] probes, too, and shows that the peer itself answers, not only its kernel |
/// | [`tcp_user_timeout`](Self::tcp_user_timeout) | both times of [`ServerBuilder::keepalive`] together: 80 s | who takes nothing is given up when who answers nothing is |
///
/// ```
/// use touchdown::{Listen, Server};
///
/// let builder = Server::builder()
///     .listen(Listen::new("unix:/run/greeter.sock").mode(0o660).owner(0, 44))
///     .address("127.0.0.1:50051");
/// ```
///
/// [`ServerBuilder::listen`]: super::ServerBuilder::listen
/// [`ServerBuilder::keepalive`]: super::ServerBuilder::keepalive
#[derive(Clone, Debug)]
#[must_use = "give it to `ServerBuilder::listen`"]
pub struct Listen {
    pub(super) options: ListenOptions,
    keepalive: Option<(Duration, Duration, u32)>,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<Tls>,
}

impl Listen {
    /// Listens at this address.
    pub fn new(address: impl Into<String>) -> Listen {
        Listen {
            options: ListenOptions::new(address.into()),
            keepalive: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Encrypts what goes over its connections. A client that does not is told so, and refused.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.options.encryption = Some(tls.encryption());
        self.tls = Some(tls);
        self
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
    pub(super) fn into_options(mut self) -> Result<ListenOptions, StartError> {
        let wrong = |setting, value: String, expected| {
            Err(StartError::Setting {
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
