//! Starts a program that gets descriptors of this one, and speaks to it.

use std::ffi::{c_char, CString, OsString};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::ptr;

/// From here on descriptors are none of the standard streams.
const FIRST: libc::c_uint = 3;

/// Starts the program in this file with these arguments, of which the first is its name, and this
/// environment. It gets the standard streams and the descriptors of `passed`, which keep their
/// numbers. No other descriptor of this process gets there, however it was opened. These signals it
/// ignores, beside those that this process does.
///
/// # Errors
///
/// Those of fork(2) and execve(2). What is no program is not given to a shell, as `Command` by itself
/// would.
pub(crate) fn spawn(
    file: &Path,
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    passed: Vec<RawFd>,
    ignored: Vec<libc::c_int>,
) -> io::Result<Child> {
    let limit = descriptor_limit();
    let path = CString::new(file.as_os_str().as_bytes())?;
    let arguments = Strings::new(arguments.into_iter().map(OsStringExt::into_vec))?;
    let environment = environment.into_iter().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name.into_vec()
    });
    let environment = Strings::new(environment)?;
    let mut command = Command::new(file);
    // SAFETY: between fork and exec only system calls are made, on memory that was there before.
    unsafe {
        command.pre_exec(move || {
            close_all_on_exec(limit);
            for fd in &passed {
                if libc::fcntl(*fd, libc::F_SETFD, 0) == -1 {
                    return Err(io::Error::last_os_error());
                }
            }
            for signal in &ignored {
                libc::signal(*signal, libc::SIG_IGN);
            }
            libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr());
            Err(io::Error::last_os_error())
        });
    }
    command.spawn()
}

/// Strings as C wants them: an array of pointers that ends with a null pointer.
struct Strings {
    /// What the pointers point at.
    _strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

// SAFETY: the pointers point into memory that is its own and does not change.
unsafe impl Send for Strings {}
// SAFETY: as above.
unsafe impl Sync for Strings {}

impl Strings {
    fn new(strings: impl Iterator<Item = Vec<u8>>) -> io::Result<Strings> {
        let strings = strings.map(CString::new).collect::<Result<Vec<_>, _>>()?;
        let pointers = strings.iter().map(|it| it.as_ptr());
        Ok(Strings {
            pointers: pointers.chain([ptr::null()]).collect(),
            _strings: strings,
        })
    }

    fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}

/// Writes to a socket whose other end may be gone: an error says so, and not SIGPIPE, which the standard library does
/// without only in later versions than the one that this crate needs.
pub(crate) struct WithoutSignal<'a>(pub(crate) &'a UnixStream);

impl Write for WithoutSignal<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let (socket, start) = (self.0.as_raw_fd(), data.as_ptr().cast());
        // SAFETY: a system call on a socket that is open, with memory that is borrowed for it.
        let sent = unsafe { libc::send(socket, start, data.len(), libc::MSG_NOSIGNAL) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
