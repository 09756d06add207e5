//! What the kernel is told about a socket: options that are numbers, and the length of a queue.

use std::io;
use std::os::fd::AsRawFd;

use libc::{c_int, socklen_t};

pub(crate) fn get(socket: &impl AsRawFd, level: c_int, name: c_int) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let mut length = size_of::<c_int>() as socklen_t;
    let to = (&raw mut value).cast();
    // SAFETY: the kernel writes no more than an int.
    match unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, to, &mut length) } {
        0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}

pub(crate) fn set(
    socket: &impl AsRawFd,
    level: c_int,
    name: c_int,
    value: c_int,
) -> io::Result<()> {
    let length = size_of::<c_int>() as socklen_t;
    let from = (&raw const value).cast();
    // SAFETY: the kernel reads an int.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, from, length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Listens, with room for so many connections that the program has not accepted yet.
pub(crate) fn listen(socket: &impl AsRawFd, queue: libc::c_int) -> io::Result<()> {
    // SAFETY: a system call on a socket that is open.
    match unsafe { libc::listen(socket.as_raw_fd(), queue) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
