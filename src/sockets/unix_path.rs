//! Unix sockets at paths: bound so that at no moment a process can connect that must not, and so that nothing is
//! ever removed at which another process listens, or which is no socket.

use std::fs::{self, OpenOptions};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{chown, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::options::listen;
use super::path_lock::PathLock;

/// Who may connect: nothing is changed of what is not set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) mode: Option<u32>,
    pub(crate) owner: Option<(u32, u32)>,
}

/// A socket at a path.
#[derive(Clone, Debug)]
pub(crate) struct SocketPath {
    path: PathBuf,
    identity: Identity,
}

impl SocketPath {
    /// `None` if no socket is there.
    pub(crate) fn of(path: &Path) -> Option<SocketPath> {
        let identity = identity(path)?;
        Some(SocketPath {
            path: path.into(),
            identity,
        })
    }

    /// Whether it lies at this path, too, which may be another way to write its own.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        fs::canonicalize(path).is_ok_and(|it| identity(&it) == Some(self.identity))
    }

    /// Does nothing if another socket has been put there since.
    pub(crate) fn remove(self) {
        if identity(&self.path) == Some(self.identity) {
            let _ = fs::remove_file(self.path);
        }
    }
}

/// What lies at a path. File systems give the inode of what was removed to what is created next, so
/// the number alone does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    created: Option<SystemTime>,
}

/// Of the socket at the path; `None` if none is there.
fn identity(path: &Path) -> Option<Identity> {
    let metadata = fs::symlink_metadata(path).ok()?;
    metadata.file_type().is_socket().then(|| Identity {
        device: metadata.dev(),
        inode: metadata.ino(),
        created: metadata.created().ok(),
    })
}

/// Listens at a path. A socket that lies there and on which nobody listens is removed.
pub(crate) fn bind(path: &Path, access: Access, queue: libc::c_int) -> io::Result<UnixListener> {
    // Of two processes that start, the second would take the first one's socket for abandoned before
    // the first one listens.
    let _lock = PathLock::of(path)?;
    let socket = new_socket()?;
    match call_with_address(libc::bind, &socket, path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path) => {
            fs::remove_file(path)?;
            call_with_address(libc::bind, &socket, path)?;
        }
        other => other?,
    }
    // Until it listens, the kernel refuses everybody. So there is no moment in which the mode that
    // the umask leaves would let somebody in.
    let listened = allow(path, access).and_then(|()| listen(&socket, queue));
    if let Err(error) = listened {
        let _ = fs::remove_file(path);
        return Err(error);
    }
    Ok(UnixListener::from(socket))
}

/// Whether this is who may connect to the socket at a path.
pub(crate) fn is_allowed(path: &Path, access: Access) -> io::Result<bool> {
    if access == Access::default() {
        return Ok(true);
    }
    let metadata = fs::symlink_metadata(path)?;
    let (mode, owner) = (metadata.mode() & 0o7777, (metadata.uid(), metadata.gid()));
    Ok(access.mode.is_none_or(|it| it == mode) && access.owner.is_none_or(|it| it == owner))
}

/// Sets who may connect to the socket at a path.
pub(crate) fn allow(path: &Path, access: Access) -> io::Result<()> {
    if is_allowed(path, access)? {
        return Ok(());
    }
    // Nobody can lead this to another file, neither by a link nor by a replacement.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
        .open(path)?;
    if !file.metadata()?.file_type().is_socket() {
        return Err(io::Error::other("somebody has replaced the socket"));
    }
    let file_itself = format!("/proc/self/fd/{}", file.as_raw_fd());
    if let Some(mode) = access.mode {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(&file_itself, mode).map_err(|it| explain("set the mode", &it))?;
    }
    if let Some((uid, gid)) = access.owner {
        chown(&file_itself, Some(uid), Some(gid)).map_err(|it| explain("set the owner", &it))?;
    }
    Ok(())
}

fn explain(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {what}: {error}"))
}

/// Whether a socket lies at the path and nobody listens on it.
fn is_abandoned(path: &Path) -> bool {
    // It does not block, so the queue of a program that is busy does not hold this up.
    let connect = || call_with_address(libc::connect, &new_socket()?, path);
    identity(path).is_some()
        && connect().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn new_socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: a system call; its result is checked and owned.
    match unsafe { libc::socket(libc::AF_UNIX, kind, 0) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: new, and nobody else's.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}

type WithAddress =
    unsafe extern "C" fn(libc::c_int, *const libc::sockaddr, libc::socklen_t) -> libc::c_int;

/// Calls `bind` or `connect`.
fn call_with_address(function: WithAddress, socket: &OwnedFd, path: &Path) -> io::Result<()> {
    // Says what is wrong with paths that do not fit.
    SocketAddr::from_pathname(path)?;
    // SAFETY: a C struct of integers.
    let mut address: libc::sockaddr_un = unsafe { mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, from) in address.sun_path.iter_mut().zip(path.as_os_str().as_bytes()) {
        *to = *from as libc::c_char;
    }
    let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: the kernel reads the address, which is so long.
    match unsafe { function(socket.as_raw_fd(), (&raw const address).cast(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let name = format!("touchdown-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn socket(&self) -> PathBuf {
            self.0.join("it.sock")
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            let name = |it: io::Result<fs::DirEntry>| it.unwrap().file_name().into_string();
            entries.map(|it| name(it).unwrap()).collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn bind(path: &Path) -> io::Result<UnixListener> {
        super::bind(path, Access::default(), 16)
    }

    #[test]
    fn of_those_that_start_at_the_same_time_exactly_one_listens() {
        let folder = Folder::new("race");
        let path = folder.socket();
        for turn in 0..100 {
            // Every other time something is left over from a crash.
            if turn % 2 == 0 {
                drop(UnixListener::bind(&path).unwrap());
            }
            let begin = Barrier::new(4);
            let start = || {
                begin.wait();
                bind(&path)
            };
            let results: Vec<_> = thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
                threads.into_iter().map(|it| it.join().unwrap()).collect()
            });
            let listening: Vec<_> = results.iter().flatten().collect();
            assert_eq!(listening.len(), 1, "{results:?}");
            for error in results.iter().filter_map(|it| it.as_ref().err()) {
                assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{error}");
            }
            UnixStream::connect(&path).expect("the one that listens is the one at the path");
            listening[0].accept().unwrap();
            assert_eq!(folder.names(), ["it.sock"], "no lock is left");
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn what_is_not_an_abandoned_socket_is_never_removed() {
        let folder = Folder::new("others");
        let path = folder.socket();
        let refused = || {
            let error = bind(&path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{error}");
        };
        fs::write(&path, "somebody's").unwrap();
        refused();
        assert_eq!(fs::read(&path).unwrap(), b"somebody's");
        fs::remove_file(&path).unwrap();

        fs::create_dir(&path).unwrap();
        refused();
        fs::remove_dir(&path).unwrap();

        let datagrams = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        refused();
        assert!(identity(&path).is_some());
        drop(datagrams);
        fs::remove_file(&path).unwrap();

        // A link to a socket on which nobody listens.
        let elsewhere = folder.0.join("elsewhere");
        drop(UnixListener::bind(&elsewhere).unwrap());
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        refused();
        assert!(path.is_symlink() && identity(&elsewhere).is_some());
    }

    #[test]
    fn a_live_socket_with_a_full_queue_is_neither_removed_nor_waited_for() {
        let folder = Folder::new("full");
        let path = folder.socket();
        let _listener = super::bind(&path, Access::default(), 0).unwrap();
        let mut waiting = Vec::new();
        loop {
            let socket = new_socket().unwrap();
            match call_with_address(libc::connect, &socket, &path) {
                Ok(()) => waiting.push(socket),
                Err(error) => break assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(identity(&path).is_some());
    }

    #[test]
    fn the_mode_is_exactly_what_was_asked_for() {
        let folder = Folder::new("mode");
        let path = folder.socket();
        for mode in [0o600, 0o660, 0o666, 0o777, 0o000] {
            let access = Access {
                mode: Some(mode),
                owner: None,
            };
            let listener = super::bind(&path, access, 16).unwrap();
            let metadata = fs::symlink_metadata(&path).unwrap();
            assert_eq!(metadata.mode() & 0o7777, mode);
            drop(listener);
        }
    }

    #[test]
    fn the_owner_is_what_was_asked_for_or_nothing_is_left() {
        let folder = Folder::new("owner");
        let path = folder.socket();
        let own = folder.0.metadata().unwrap();
        let owned_by = |uid, gid| Access {
            mode: None,
            owner: Some((uid, gid)),
        };
        drop(super::bind(&path, owned_by(own.uid(), own.gid()), 16).unwrap());
        // Root may give it to anybody, others may not.
        match super::bind(&path, owned_by(12345, 54321), 16) {
            Ok(_) => {
                let metadata = fs::symlink_metadata(&path).unwrap();
                assert_eq!((metadata.uid(), metadata.gid()), (12345, 54321));
            }
            Err(error) => {
                assert!(error.to_string().contains("set the owner"), "{error}");
                assert!(folder.names().is_empty());
            }
        }
    }

    #[test]
    fn another_socket_at_the_path_is_another_one() {
        let folder = Folder::new("identity");
        let path = folder.socket();
        let _first = bind(&path).unwrap();
        let first = identity(&path).unwrap();
        assert_eq!(identity(&path), Some(first));
        fs::remove_file(&path).unwrap();
        assert_eq!(identity(&path), None);
        let _second = bind(&path).unwrap();
        // Some file systems do not know when a file was created.
        if first.created.is_some() {
            assert_ne!(identity(&path), Some(first));
        }
    }

    #[test]
    fn a_path_that_cannot_be_is_refused() {
        let folder = Folder::new("paths");
        let long = folder.0.join("x".repeat(120));
        assert_eq!(bind(&long).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let nowhere = folder.0.join("missing/it.sock");
        assert_eq!(bind(&nowhere).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(folder.names().is_empty());
    }
}
