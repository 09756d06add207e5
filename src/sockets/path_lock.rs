//! Of the processes that are about to listen at the same path, one at a time.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How long another process may take to bind to the same path. It is a matter of microseconds: a process that takes
/// longer has been stopped in the middle.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Where the file is.
pub(super) fn beside(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".touchdown-lock");
    PathBuf::from(path)
}

/// Keeps other processes that use this crate from binding to a path: a file beside it, locked, and removed at the
/// end.
pub(super) struct PathLock {
    path: PathBuf,
    _file: File,
}

impl PathLock {
    pub(super) fn of(socket: &Path) -> io::Result<PathLock> {
        let path = beside(socket);
        let failed = |error: io::Error| {
            let message = format!("cannot lock {}: {error}", path.display());
            io::Error::new(error.kind(), message)
        };
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&path)
                .map_err(failed)?;
            if try_lock(&file).map_err(failed)? {
                // The process that had it has removed the file, and a third one may have made another.
                if is_at(&file, &path) {
                    return Ok(PathLock { path, _file: file });
                }
            } else if Instant::now() >= deadline {
                let message =
                    "another process has been about to listen here for too long; was it stopped?";
                return Err(failed(io::Error::new(io::ErrorKind::AddrInUse, message)));
            } else {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

impl Drop for PathLock {
    fn drop(&mut self) {
        // Before the lock goes, which closing the file does.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether the lock of the file could be had.
fn try_lock(file: &File) -> io::Result<bool> {
    // SAFETY: a system call on a file that is open.
    match unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } {
        0 => Ok(true),
        _ => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            error if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            error => Err(error),
        },
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let place = |it: fs::Metadata| (it.dev(), it.ino());
    let there = fs::symlink_metadata(path).map(place);
    matches!((file.metadata().map(place), there), (Ok(a), Ok(b)) if a == b)
}
