//! Listening sockets that the process did not make but was given: by systemd, or by the process
//! that it replaces. They wait here until a server asks for their address.

use std::env;
use std::io;
use std::mem::ManuallyDrop;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixListener;
use std::process;
use std::sync::OnceLock;

use parking_lot::{Mutex, MutexGuard};

use super::listener::Address;

/// How addresses begin that stand for what systemd has passed.
pub(super) const SYSTEMD: &str = "systemd:";

/// The first descriptor that systemd passes: `SD_LISTEN_FDS_START`.
const FIRST: RawFd = 3;

/// A listening stream socket that the process was given.
#[derive(Debug)]
pub(crate) struct Inherited {
    /// The address as it was written for the server that listened there; `systemd:NAME` for what
    /// systemd has named NAME.
    pub(crate) name: String,
    pub(crate) socket: OwnedFd,
    /// The path of a unix socket is not this process's to remove, ever: systemd goes on listening
    /// there.
    pub(crate) path_stays: bool,
}

/// What the process was given and no server has taken yet. The first call takes in what systemd
/// has passed.
pub(crate) fn inherited() -> MutexGuard<'static, Vec<Inherited>> {
    static SOCKETS: OnceLock<Mutex<Vec<Inherited>>> = OnceLock::new();
    SOCKETS.get_or_init(|| Mutex::new(from_systemd())).lock()
}

/// Adds what the process that this one replaces has handed over.
#[allow(dead_code)]
pub(crate) fn inherit(sockets: impl IntoIterator<Item = Inherited>) {
    inherited().extend(sockets);
}

/// The protocol of sd_listen_fds(3).
fn from_systemd() -> Vec<Inherited> {
    let variable = |name| env::var(name).unwrap_or_default();
    let names = variable("LISTEN_FDNAMES");
    let passed = passed(
        &variable("LISTEN_PID"),
        &variable("LISTEN_FDS"),
        &names,
        process::id(),
    );
    let mut sockets = Vec::new();
    for (fd, name) in passed {
        // What this process starts has no use for it.
        // SAFETY: a system call that fails if there is no such descriptor.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
            log::error!("LISTEN_FDS promises the descriptor {fd}, which is not open");
            break;
        }
        sockets.push(Inherited {
            name: format!("{SYSTEMD}{name}"),
            // SAFETY: it is open, and whoever set LISTEN_PID to this process has passed it to be
            // owned here. It is asked for once.
            socket: unsafe { OwnedFd::from_raw_fd(fd) },
            path_stays: true,
        });
    }
    sockets
}

/// The descriptors that systemd says it has passed to the process `this`, with their names.
fn passed<'a>(
    pid: &str,
    count: &str,
    names: &'a str,
    this: u32,
) -> impl Iterator<Item = (RawFd, &'a str)> {
    let is_ours = pid.parse() == Ok(this);
    let count = if is_ours {
        count.parse().unwrap_or(0)
    } else {
        0
    };
    let names = names.split(':').filter(|it| !it.is_empty());
    (FIRST..)
        .take(count)
        .zip(names.chain(std::iter::repeat("unknown")))
}

impl Inherited {
    /// Where it listens.
    ///
    /// # Errors
    ///
    /// If it is anything else than a listening stream socket of a known family.
    pub(super) fn address(&self) -> io::Result<Address> {
        let wrong = |what: &str| {
            let message = format!("{}, which was passed to this process, {what}", self.name);
            io::Error::new(io::ErrorKind::InvalidInput, message)
        };
        let Ok(family) = self.option(libc::SO_DOMAIN) else {
            return Err(wrong("is no socket"));
        };
        if self.option(libc::SO_TYPE)? != libc::SOCK_STREAM {
            return Err(wrong("is no stream socket"));
        }
        if self.option(libc::SO_ACCEPTCONN)? == 0 {
            return Err(wrong("does not listen"));
        }
        let fd = self.socket.as_raw_fd();
        match family {
            libc::AF_INET | libc::AF_INET6 => {
                // SAFETY: it is not dropped, so the descriptor stays its owner's.
                let socket = ManuallyDrop::new(unsafe { TcpListener::from_raw_fd(fd) });
                Ok(Address::Tcp(socket.local_addr()?))
            }
            libc::AF_UNIX => {
                // SAFETY: as above.
                let socket = ManuallyDrop::new(unsafe { UnixListener::from_raw_fd(fd) });
                let local = socket.local_addr()?;
                let path = local.as_pathname().map(|it| Address::Unix(it.to_owned()));
                let name = local.as_abstract_name();
                let name = name.map(|it| Address::Abstract(String::from_utf8_lossy(it).into()));
                path.or(name)
                    .ok_or_else(|| wrong("is a unix socket without an address"))
            }
            _ => Err(wrong("is neither a TCP nor a unix socket")),
        }
    }

    fn option(&self, option: libc::c_int) -> io::Result<libc::c_int> {
        let mut value: libc::c_int = 0;
        let mut length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the kernel writes an int.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw mut value).cast(),
                &mut length,
            )
        };
        match result {
            0 => Ok(value),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_says_is_read_as_sd_listen_fds_does() {
        let read = |pid: &str, count: &str, names: &'static str| -> Vec<(RawFd, &'static str)> {
            passed(pid, count, names, 7).collect()
        };
        assert_eq!(read("7", "2", "web:admin"), [(3, "web"), (4, "admin")]);
        assert_eq!(read("7", "2", "web"), [(3, "web"), (4, "unknown")]);
        assert_eq!(read("7", "1", ""), [(3, "unknown")]);
        assert_eq!(read("8", "2", "web:admin"), [], "another process's");
        assert_eq!(read("", "", ""), []);
        assert_eq!(read("7", "-1", "web"), []);
    }
}
