//! Listening sockets that the process did not make but was given: by systemd, or by the process
//! that it replaces. They wait here until the program asks for their address.

use std::env;
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::fs::MetadataExt;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process;
use std::sync::OnceLock;

use parking_lot::Mutex;

use super::address::{Address, SYSTEMD};
use super::options;
use super::stored;
use crate::logging;

/// The first descriptor that systemd passes: `SD_LISTEN_FDS_START`.
const FIRST: RawFd = 3;

/// A listening stream socket that the process was given.
#[derive(Debug)]
pub(crate) struct Inherited {
    /// The address as it was written for the program that listened there; `systemd:NAME` for what
    /// a socket unit of systemd has named NAME.
    pub(crate) name: String,
    pub(crate) socket: OwnedFd,
    /// The path of a unix socket is not this process's to remove, ever: systemd goes on listening
    /// there.
    pub(crate) path_stays: bool,
    /// A socket unit of systemd has made it, and says who may connect.
    pub(crate) of_unit: bool,
    /// Another process serves there, and may go on.
    pub(crate) in_use: bool,
}

/// What the process was given and no part of it has taken yet. The first call takes in what systemd
/// has passed.
pub(super) fn inherited() -> &'static Mutex<Vec<Inherited>> {
    static SOCKETS: OnceLock<Mutex<Vec<Inherited>>> = OnceLock::new();
    SOCKETS.get_or_init(|| Mutex::new(from_systemd()))
}

/// Closes the sockets that a process before this one has left and nothing has taken, so that no client waits in a
/// queue that is never looked at. Returns the addresses.
pub fn close_unused() -> Vec<String> {
    let mut sockets = inherited().lock();
    let is_of_unit = |it: &Inherited| it.name.starts_with(SYSTEMD);
    let (kept, unused): (_, Vec<_>) = std::mem::take(&mut *sockets)
        .into_iter()
        .partition(is_of_unit);
    *sockets = kept;
    unused.into_iter().map(|it| it.name).collect()
}

/// The unix socket that the process was started with under this descriptor, if it is the one with this
/// inode. It is asked for once.
///
/// All sockets have their inodes in one place, so the number tells one socket from all others. It does not tell it
/// from a file, whose inode may have the same number.
pub(crate) fn take_socket(fd: RawFd, inode: u64) -> Option<UnixStream> {
    // SAFETY: system calls that fail if there is no such descriptor. It is dropped only if it is
    // the one that is asked for, which nobody else here knows of.
    let file = ManuallyDrop::new(unsafe { File::from_raw_fd(fd) });
    let metadata = file.metadata().ok()?;
    let is_it = metadata.file_type().is_socket()
        && metadata.st_ino() == inode
        && options::get(&*file, libc::SOL_SOCKET, libc::SO_DOMAIN).ok()? == libc::AF_UNIX
        && options::get(&*file, libc::SOL_SOCKET, libc::SO_TYPE).ok()? == libc::SOCK_STREAM;
    (is_it && close_on_exec(fd)).then(|| OwnedFd::from(ManuallyDrop::into_inner(file)).into())
}

/// Adds what the process that this one replaces has handed over: descriptors that it was started
/// with, and of which nobody else here knows.
pub(crate) fn inherit(fd: RawFd, name: String, path_stays: bool, of_unit: bool) {
    if !close_on_exec(fd) {
        logging::error!("the socket of {name} was handed over as {fd}, which is not open");
        return;
    }
    inherited().lock().push(Inherited {
        name,
        // SAFETY: it is open, and nobody else here knows of it.
        socket: unsafe { OwnedFd::from_raw_fd(fd) },
        path_stays,
        of_unit,
        in_use: true,
    });
}

/// Closes what nothing has taken. Returns the names.
pub(crate) fn drop_inherited() -> Vec<String> {
    let left = std::mem::take(&mut *inherited().lock());
    left.into_iter().map(|it| it.name).collect()
}

/// A program that this process starts does not get it. Says whether it is open.
fn close_on_exec(fd: RawFd) -> bool {
    // SAFETY: a system call that fails if there is no such descriptor.
    unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) != -1 }
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
        if !close_on_exec(fd) {
            logging::error!("LISTEN_FDS promises the descriptor {fd}, which is not open");
            break;
        }
        let stored = stored::address_of(name);
        sockets.push(Inherited {
            of_unit: stored.is_none(),
            in_use: false,
            name: stored.unwrap_or_else(|| format!("{SYSTEMD}{name}")),
            // SAFETY: it is open, and the process that set LISTEN_PID to this one has passed it to be
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
    pub(crate) fn address(&self) -> io::Result<Address> {
        let wrong = |what: &str| {
            let message = format!("{}, which was passed to this process, {what}", self.name);
            io::Error::new(io::ErrorKind::InvalidInput, message)
        };
        let option = |name| options::get(&self.socket, libc::SOL_SOCKET, name);
        let Ok(family) = option(libc::SO_DOMAIN) else {
            return Err(wrong("is no socket"));
        };
        if option(libc::SO_TYPE)? != libc::SOCK_STREAM {
            return Err(wrong("is no stream socket"));
        }
        if option(libc::SO_ACCEPTCONN)? == 0 {
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
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd;

    use super::*;

    #[test]
    fn only_the_socket_that_is_meant_is_taken() {
        let (socket, _other) = UnixStream::pair().unwrap();
        let socket = File::from(OwnedFd::from(socket));
        let inode = socket.metadata().unwrap().st_ino();
        let copy = |file: &File| file.try_clone().unwrap().into_raw_fd();
        assert!(take_socket(copy(&socket), inode).is_some());
        assert!(take_socket(copy(&socket), inode + 1).is_none());
        // A file's number is of another file system, and may be the same.
        let file = File::open("/dev/null").unwrap();
        assert!(take_socket(copy(&file), file.metadata().unwrap().st_ino()).is_none());
        let listens = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listens = File::from(OwnedFd::from(listens));
        let inode = listens.metadata().unwrap().st_ino();
        assert!(take_socket(copy(&listens), inode).is_none(), "not of unix");
    }

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
