//! Why an address cannot be listened at: what the system's error comes to, and what to do about it.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::address::Address;
use super::holder::Holder;
use super::path_lock;

/// How long the path of a unix socket may be: `sun_path` in unix(7), without the zero byte at its end.
const LONGEST_PATH: usize = 107;

/// The error with words that say what is wrong with this address, where it is known; of the same kind.
pub(super) fn explained(address: &Address, error: io::Error) -> io::Error {
    let words = match address {
        Address::Tcp(wanted) => of_tcp(address, wanted, &error),
        Address::Unix(path) => of_path(address, path, &error),
        Address::Abstract(_) if error.kind() == ErrorKind::AddrInUse => {
            let what = "the name is in use";
            Some(in_use(address, what, "choose another name"))
        }
        Address::Abstract(_) => None,
    };
    match words {
        Some(words) => io::Error::new(error.kind(), words),
        None => error,
    }
}

/// Whether the address is one that this machine does not have now.
pub(super) fn is_missing(error: &io::Error) -> bool {
    error.kind() == ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

/// Whether that is because the machine does without IPv6, as many boards do.
pub(super) fn is_without_ipv6(address: &Address, error: &io::Error) -> bool {
    let Address::Tcp(SocketAddr::V6(wanted)) = address else {
        return false;
    };
    is_missing(error)
        && (*wanted.ip() == Ipv6Addr::LOCALHOST || error.raw_os_error() == Some(libc::EAFNOSUPPORT))
}

fn in_use(address: &Address, what: &str, else_what: &str) -> String {
    match Holder::of(address) {
        Some(holder) if holder.is_this_process() => {
            format!("{what} by this process itself: give each address once, or {else_what}")
        }
        Some(holder) => format!("{what} by {holder}: end it, or {else_what}"),
        None => format!(
            "{what} by a process that this one may not look at (as root, `ss -lxtnp` shows it): end it, or {else_what}"
        ),
    }
}

fn of_tcp(address: &Address, wanted: &SocketAddr, error: &io::Error) -> Option<String> {
    let port = wanted.port();
    match error.kind() {
        ErrorKind::AddrInUse => Some(in_use(
            address,
            "the port is in use",
            "listen at another port (with port 0 the kernel chooses one)",
        )),
        ErrorKind::PermissionDenied => {
            let from = first_unprivileged();
            (port < from).then(|| {
                format!(
                    "ports below {from} are for processes with the capability CAP_NET_BIND_SERVICE: take a port from \
                     {from} on, or give it to the process (in a systemd unit, \
                     AmbientCapabilities=CAP_NET_BIND_SERVICE)"
                )
            })
        }
        _ if is_without_ipv6(address, error) => Some(format!(
            "IPv6 is off on this machine: listen at 127.0.0.1:{port} or 0.0.0.0:{port}"
        )),
        ErrorKind::AddrNotAvailable => {
            let all = if wanted.is_ipv4() { "0.0.0.0" } else { "[::]" };
            Some(format!(
                "no network interface of this machine has that address now: wait until it is up, or listen at \
                 {all}:{port}, which is every one"
            ))
        }
        _ => None,
    }
}

fn first_unprivileged() -> u16 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let number = text.ok().and_then(|it| it.trim().parse().ok());
    number.unwrap_or(1024)
}

fn of_path(address: &Address, path: &Path, error: &io::Error) -> Option<String> {
    let length = path.as_os_str().as_bytes().len();
    if length > LONGEST_PATH {
        return Some(format!(
            "the path has {length} bytes, and that of a unix socket has {LONGEST_PATH} at the most: choose a shorter \
             one"
        ));
    }
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let shown = folder.display();
    match error.kind() {
        ErrorKind::NotFound => Some(format!(
            "the folder {shown} does not exist: make it before the start (in a systemd unit, RuntimeDirectory=), or \
             choose another path"
        )),
        ErrorKind::NotADirectory => Some(format!("{shown} is not a folder: choose another path")),
        ErrorKind::ReadOnlyFilesystem => Some(format!(
            "the folder {shown} is on a file system that is read-only: choose a path below /run"
        )),
        ErrorKind::PermissionDenied => Some(forbidden(path, folder)),
        ErrorKind::AddrInUse => match fs::symlink_metadata(path).ok()?.file_type() {
            kind if kind.is_socket() => Some(in_use(
                address,
                "the socket is in use",
                "choose another path",
            )),
            kind => {
                let what = match () {
                    () if kind.is_dir() => "a folder",
                    () if kind.is_symlink() => "a link",
                    () if kind.is_file() => "a regular file",
                    () => "something else",
                };
                Some(format!(
                    "{what} lies there, and only a socket that nobody uses is replaced: remove it, or choose another \
                     path"
                ))
            }
        },
        _ => None,
    }
}

fn forbidden(path: &Path, folder: &Path) -> String {
    // As the user that counts for files.
    let user = fs::metadata("/proc/self").map(|it| it.uid());
    let user = user.map_or_else(|_| String::new(), |it| format!(" (user {it})"));
    let lock = path_lock::beside(path);
    match fs::symlink_metadata(&lock) {
        Ok(found) => format!(
            "this process{user} may not open {}, which a process of user {} has made: remove it if nobody uses it, or \
             choose another path",
            lock.display(),
            found.uid()
        ),
        Err(_) => format!(
            "this process{user} may not make files in the folder {}: change its owner or mode (in a systemd unit, \
             RuntimeDirectory= and User=), or choose another path",
            folder.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(address: &str, kind: ErrorKind) -> String {
        explained(&address.parse().unwrap(), kind.into()).to_string()
    }

    #[test]
    fn a_port_for_root_alone_is_told_from_which_on_it_is_not() {
        let from = first_unprivileged();
        if from > 0 {
            let words = words("127.0.0.1:0", ErrorKind::PermissionDenied);
            assert!(
                words.contains(&format!("take a port from {from} on")),
                "{words}"
            );
            assert!(words.contains("CAP_NET_BIND_SERVICE"), "{words}");
        }
        let other = words("127.0.0.1:65535", ErrorKind::PermissionDenied);
        assert_eq!(other, ErrorKind::PermissionDenied.to_string());
    }

    #[test]
    fn an_address_that_is_not_here_is_told_which_is() {
        let words = |address| words(address, ErrorKind::AddrNotAvailable);
        assert!(words("192.0.2.1:7").ends_with("or listen at 0.0.0.0:7, which is every one"));
        assert!(words("[2001:db8::1]:7").ends_with("or listen at [::]:7, which is every one"));
    }

    #[test]
    fn a_kernel_without_ipv6_is_told_of() {
        let error = io::Error::from_raw_os_error(libc::EAFNOSUPPORT);
        let words = explained(&"[::1]:7".parse().unwrap(), error).to_string();
        assert!(
            words.starts_with("IPv6 is off on this machine: listen at 127.0.0.1:7"),
            "{words}"
        );
    }

    #[test]
    fn a_machine_whose_ipv6_was_switched_off_is_told_of() {
        let words = words("[::1]:7", ErrorKind::AddrNotAvailable);
        assert!(words.starts_with("IPv6 is off on this machine"), "{words}");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let forbidden = words("unix:/nowhere/x.sock", ErrorKind::PermissionDenied);
        assert!(
            forbidden.contains("may not make files in the folder /nowhere"),
            "{forbidden}"
        );
        let read_only = words("unix:/nowhere/x.sock", ErrorKind::ReadOnlyFilesystem);
        assert!(read_only.contains("a path below /run"), "{read_only}");
        let here = words("unix:x.sock", ErrorKind::PermissionDenied);
        assert!(here.contains("in the folder .:"), "{here}");
    }
}
