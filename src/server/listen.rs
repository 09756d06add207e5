//! Where a server listens, and how.

use crate::engine::ListenOptions;

#[cfg(feature = "tls")]
use super::tls::Tls;

/// An address to listen at, with settings of its own. For [`ServerBuilder::listen`].
///
/// | address | where |
/// |---|---|
/// | `0.0.0.0:50051`, `[::]:50051`, `localhost:50051` | at a port of IPv4 or IPv6, and of every address that the name stands for; with port 0 the kernel chooses one, see [`Server::address`](super::Server::address) |
/// | `unix:/run/greeter.sock` | at a unix socket |
/// | `unix-abstract:greeter` | at a unix socket in Linux's abstract namespace: it has no path, and no permissions, so any process of the machine (of its network namespace) can connect |
/// | `systemd:greeter` | at every socket that systemd has passed to this process under that name (`FileDescriptorName=` in the socket unit, by default the unit's name with `.socket`); it is an error if there is none |
///
/// If systemd has passed a socket that listens at an address which is written out, that socket is
/// used as well, and nothing is bound. The path of a socket of systemd is left alone; that of a
/// socket which the server has bound is removed at its end.
///
/// [`ServerBuilder::listen`]: super::ServerBuilder::listen
#[derive(Clone, Debug)]
#[must_use = "give it to `ServerBuilder::listen`"]
pub struct Listen {
    pub(super) options: ListenOptions,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<Tls>,
}

impl Listen {
    /// Listens at this address.
    pub fn new(address: impl Into<String>) -> Listen {
        Listen {
            options: ListenOptions::new(address),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Encrypts what goes over its connections. A client that does not is told so, and refused.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: Tls) -> Listen {
        self.options.encryption = Some(tls.encryption());
        self.tls = Some(tls);
        self
    }
}
