//! Wakes a thread that waits in `poll`.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// An eventfd: any number of wakes before the sleeper looks are one.
pub(crate) struct Wake(OwnedFd);

impl Wake {
    pub(crate) fn new() -> io::Result<Wake> {
        // SAFETY: a system call; its result is checked and owned.
        match unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) } {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: new, and nobody else's.
            fd => Ok(Wake(unsafe { OwnedFd::from_raw_fd(fd) })),
        }
    }

    pub(crate) fn wake(&self) {
        let one = 1u64;
        // SAFETY: writes eight bytes. It fails only when the counter is full, and
        // then the sleeper is awake anyway.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// Makes the next `poll` wait again.
    pub(crate) fn clear(&self) {
        let mut count = 0u64;
        // SAFETY: reads eight bytes, or nothing.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), 8) };
    }

    pub(crate) fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
