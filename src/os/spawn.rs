//! Starts a program that gets descriptors of this one, and speaks to it.
//!
//! `std::process::Command` returns once the new process has come to its program, and until then says nothing of it, not
//! even its number. That is for ever if the file lies on a card or a network that hangs. So here the caller gets
//! the process at once, and may ask later whether it has come to its program, or end it.

use std::ffi::{c_char, CString, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::ptr;

/// From here on descriptors are none of the standard streams.
const FIRST: RawFd = 3;

/// What a process ends with that could not become a program; a shell has the same. Nobody but a tracer sees it: the
/// reason is told otherwise.
const NO_PROGRAM: libc::c_int = 127;

/// Starts the program in this file with these arguments, of which the first is its name, and this
/// environment. It gets the standard streams and the descriptors of `passed`, which keep their
/// numbers. No other descriptor of this process gets there, however it was opened. These signals it
/// ignores, beside those that this process does, and it blocks none.
///
/// Returns at once. Whether the process has come to its program says [`Child::begun`].
///
/// # Errors
///
/// Those of fork(2) and pipe(2). Those of execve(2) come later. What is no program is not given to a shell.
pub(crate) fn spawn(
    file: &Path,
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    passed: Vec<RawFd>,
    ignored: Vec<libc::c_int>,
) -> io::Result<Child> {
    let environment = environment.into_iter().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name.into_vec()
    });
    let (reads, writes) = pipe()?;
    let mut kept = passed.clone();
    kept.push(writes.as_raw_fd());
    kept.sort_unstable();
    let program = Program {
        path: CString::new(file.as_os_str().as_bytes())?,
        arguments: Strings::new(arguments.into_iter().map(OsStringExt::into_vec))?,
        environment: Strings::new(environment)?,
        passed,
        kept,
        ignored,
        trouble: writes.as_raw_fd(),
        limit: descriptor_limit(),
    };
    // A handler of this process that ran in the other would act for this one: they share sockets.
    let id = {
        let _held = AllSignals::hold();
        // SAFETY: between fork and exec only system calls are made, on memory that was there before.
        match unsafe { libc::fork() } {
            0 => program.run(),
            id => id,
        }
    };
    match id {
        -1 => Err(io::Error::last_os_error()),
        id => Ok(Child {
            id,
            ended: None,
            trouble: File::from(reads),
            begun: None,
        }),
    }
}

/// A process that was started here. If it is dropped before it was waited for, it goes on.
#[derive(Debug)]
pub(crate) struct Child {
    id: libc::pid_t,
    /// Known once it was waited for; from then on its number may be another's.
    ended: Option<ExitStatus>,
    /// Says why it could not come to its program; or ends once it has.
    trouble: File,
    begun: Option<Result<(), i32>>,
}

impl Child {
    pub(crate) fn process_id(&self) -> u32 {
        self.id.unsigned_abs()
    }

    /// Whether it has come to its program, or why it could not. `None` as long as neither is clear: then the
    /// system stands at the program's file.
    pub(crate) fn begun(&mut self) -> Option<io::Result<()>> {
        if self.begun.is_none() {
            let mut error = [0; size_of::<i32>()];
            self.begun = match self.trouble.read(&mut error) {
                Ok(0) => Some(Ok(())),
                Ok(_) => Some(Err(i32::from_ne_bytes(error))),
                Err(_) => None,
            };
        }
        let begun = self.begun?;
        Some(begun.map_err(io::Error::from_raw_os_error))
    }

    /// How it ended, if it has.
    pub(crate) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.wait_with(libc::WNOHANG)
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&mut self) -> io::Result<()> {
        self.wait_with(0).map(drop)
    }

    fn wait_with(&mut self, flags: libc::c_int) -> io::Result<Option<ExitStatus>> {
        while self.ended.is_none() {
            let mut status = 0;
            // SAFETY: a system call that writes to a local variable.
            match unsafe { libc::waitpid(self.id, &raw mut status, flags) } {
                0 => break,
                -1 => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
                _ => self.ended = Some(ExitStatus::from_raw(status)),
            }
        }
        Ok(self.ended)
    }

    /// Sends it a signal, unless it is known to have ended. One that ends it holds for a process in which the
    /// system stands, too: as soon as that goes on, it ends.
    pub(crate) fn signal(&self, signal: libc::c_int) {
        if self.ended.is_none() {
            // SAFETY: a system call without memory. It has not been waited for, so the number is its own.
            unsafe { libc::kill(self.id, signal) };
        }
    }
}

/// What a process needs to become a program, in memory that is there before it is.
struct Program {
    path: CString,
    arguments: Strings,
    environment: Strings,
    passed: Vec<RawFd>,
    /// Those of `passed`, and `trouble`, in their order.
    kept: Vec<RawFd>,
    ignored: Vec<libc::c_int>,
    /// Takes the number of the error if this fails, and is closed if it does not.
    trouble: RawFd,
    limit: RawFd,
}

impl Program {
    /// Runs in the new process. Only system calls, since other threads may have held any lock at the fork.
    fn run(&self) -> ! {
        let error = self.try_to_run();
        // SAFETY: system calls, with memory that lives as long as they take.
        unsafe {
            let error = (&raw const error).cast();
            libc::write(self.trouble, error, size_of::<libc::c_int>());
            libc::_exit(NO_PROGRAM)
        }
    }

    /// Returns the number of the error.
    fn try_to_run(&self) -> libc::c_int {
        forget_handlers();
        // SAFETY: system calls, with memory that lives as long as they take.
        unsafe {
            for signal in &self.ignored {
                libc::signal(*signal, libc::SIG_IGN);
            }
            // The Rust runtime ignores it, and programs do not expect that.
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            let mut none = MaybeUninit::uninit();
            libc::sigemptyset(none.as_mut_ptr());
            libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
            // And not only on exec, which may be long in coming: a connection that this program closes
            // has to be closed.
            close_all_but(&self.kept, self.limit);
            for fd in &self.passed {
                if libc::fcntl(*fd, libc::F_SETFD, 0) == -1 {
                    return last_error();
                }
            }
            libc::execve(
                self.path.as_ptr(),
                self.arguments.as_ptr(),
                self.environment.as_ptr(),
            );
        }
        last_error()
    }
}

fn last_error() -> libc::c_int {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Signals that a program handles have their default action from now on. Only system calls.
fn forget_handlers() {
    for signal in 1..=libc::SIGRTMAX() {
        let mut action = MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: system calls, with memory of this function. Those that are not to be had fail.
        unsafe {
            if libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) == 0 {
                let handler = action.assume_init().sa_sigaction;
                if handler != libc::SIG_DFL && handler != libc::SIG_IGN {
                    libc::signal(signal, libc::SIG_DFL);
                }
            }
        }
    }
}

/// While this lives, no signal is handled on the calling thread.
struct AllSignals(libc::sigset_t);

impl AllSignals {
    fn hold() -> AllSignals {
        let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: writes to memory of this function. Neither can fail with these arguments.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            AllSignals(before.assume_init())
        }
    }
}

impl Drop for AllSignals {
    fn drop(&mut self) {
        // SAFETY: the mask that the thread had before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
    }
}

/// Its ends for reading, which does not wait, and for writing. Both are closed by an exec.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: writes two descriptors, which are new and nobody else's.
    unsafe {
        if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

/// Strings as C wants them: an array of pointers that ends with a null pointer.
struct Strings {
    /// What the pointers point at.
    _strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

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

/// Writes to a socket whose other end may be gone, or stand still: an error says so. There is no SIGPIPE, which the
/// standard library does without only in later versions than the one that this crate needs, and no wait.
pub(crate) struct AtOnce<'a>(pub(crate) &'a UnixStream);

impl Write for AtOnce<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let (socket, start) = (self.0.as_raw_fd(), data.as_ptr().cast());
        // SAFETY: a system call on a socket that is open, with memory that is borrowed for it.
        let sent = unsafe {
            libc::send(
                socket,
                start,
                data.len(),
                libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Closes every descriptor but the standard streams and these, which are in their order. Only system calls.
fn close_all_but(kept: &[RawFd], limit: RawFd) {
    let mut from = FIRST;
    for fd in kept {
        close_range(from, *fd - 1, limit);
        from = from.max(*fd + 1);
    }
    close_range(from, RawFd::MAX, limit);
}

fn close_range(first: RawFd, last: RawFd, limit: RawFd) {
    if first > last {
        return;
    }
    // SAFETY: a system call without memory. This process, which is about to become a program, uses none of them.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
        return;
    }
    // Linux before 5.9.
    for fd in first..=last.min(limit) {
        // SAFETY: as above; it fails for what is not open.
        unsafe { libc::close(fd) };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(file: &str, arguments: &[&str]) -> Child {
        let arguments = arguments.iter().map(OsString::from);
        spawn(Path::new(file), arguments, [], Vec::new(), Vec::new()).unwrap()
    }

    #[test]
    fn a_process_that_has_come_to_its_program_says_so_and_can_be_ended() {
        let mut child = begin("/bin/sleep", &["sleep", "1000"]);
        while child.begun().is_none() {
            std::thread::yield_now();
        }
        assert!(child.begun().unwrap().is_ok());
        assert_eq!(child.try_wait().unwrap(), None);
        child.signal(libc::SIGTERM);
        child.wait().unwrap();
        let ended = child.try_wait().unwrap().unwrap();
        assert_eq!(ended.signal(), Some(libc::SIGTERM));
    }

    #[test]
    fn a_process_without_a_program_says_why() {
        let mut child = begin("/does/not/exist", &["nothing"]);
        child.wait().unwrap();
        let error = child.begun().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let ended = child.try_wait().unwrap().unwrap();
        assert_eq!(ended.code(), Some(NO_PROGRAM));
    }
}
