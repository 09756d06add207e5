//! Starts a program that gets descriptors of this one.

use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// From here on descriptors are none of the standard streams.
const FIRST: libc::c_uint = 3;

/// Starts `command` with the standard streams and the descriptors of `passed`, which keep their
/// numbers. No other descriptor of this process gets there, however it was opened.
pub(crate) fn spawn(mut command: Command, passed: Vec<RawFd>) -> io::Result<Child> {
    let limit = descriptor_limit();
    // SAFETY: between fork and exec only system calls are made, on memory that was there before.
    unsafe {
        command.pre_exec(move || {
            close_all_on_exec(limit);
            for fd in &passed {
                if libc::fcntl(*fd, libc::F_SETFD, 0) == -1 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    command.spawn()
}

/// Only system calls, since other threads may have held any lock at the fork.
fn close_all_on_exec(limit: libc::c_int) {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 1 << 2;
    // SAFETY: a system call without memory.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST,
            libc::c_uint::MAX,
            CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == 0 {
        return;
    }
    // Linux before 5.11.
    for fd in FIRST as libc::c_int..limit {
        // SAFETY: a system call without memory; it fails for what is not open.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// One more than the highest descriptor that the process may have.
fn descriptor_limit() -> libc::c_int {
    // SAFETY: a system call without memory; it says -1 if there is no limit.
    match unsafe { libc::sysconf(libc::_SC_OPEN_MAX) } {
        limit @ 1..=0xF_FFFF => limit as libc::c_int,
        _ => 1 << 20,
    }
}
