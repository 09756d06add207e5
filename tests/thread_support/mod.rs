//! Single threads of other processes, stopped.

use std::fs;

/// The threads of a process that have this name.
pub fn threads(process: u32, name: &str) -> Vec<libc::pid_t> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let paths = tasks.map(|it| it.unwrap().path());
    paths
        .filter(|it| fs::read_to_string(it.join("comm")).is_ok_and(|it| it.trim_end() == name))
        .map(|it| it.file_name().unwrap().to_str().unwrap().parse().unwrap())
        .collect()
}

/// One thread of another process, stopped until this is dropped, which has to happen on the thread that
/// has stopped it.
pub struct Stopped(libc::pid_t);

impl Stopped {
    pub fn stop(thread: libc::pid_t) -> std::io::Result<Stopped> {
        let nothing = std::ptr::null_mut::<libc::c_void>;
        // SAFETY: system calls that touch no memory of this process but `status`.
        unsafe {
            if libc::ptrace(libc::PTRACE_SEIZE, thread, nothing(), nothing()) == -1 {
                return Err(std::io::Error::last_os_error());
            }
            let stopped = Stopped(thread);
            let mut status = 0;
            if libc::ptrace(libc::PTRACE_INTERRUPT, thread, nothing(), nothing()) == -1
                || libc::waitpid(thread, &mut status, libc::__WALL) != thread
            {
                return Err(std::io::Error::last_os_error());
            }
            assert!(libc::WIFSTOPPED(status), "{status:x}");
            Ok(stopped)
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let nothing = std::ptr::null_mut::<libc::c_void>;
        // SAFETY: as above.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, nothing(), nothing()) };
    }
}
