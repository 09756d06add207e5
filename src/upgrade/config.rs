//! What a user says of a hot restart: its settings, and how to begin it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{UpgradeError, Upgrades};
use crate::lifecycle::{Builder, Remote};

/// How a program replaces itself by a new process, without refusing or losing a call.
///
/// It is begun by SIGUSR2, for a lifecycle that listens to the
/// [process's signals](crate::lifecycle::Signals::process), or by
/// [`Upgrade::begin`]. Then:
///
/// 1. The program's file is started anew, as a child of this process, and gets the listening
///    sockets of its servers and acceptors.
/// 2. The new process starts up, finds the sockets when it asks for their addresses, and runs its
///    smoke test (`ServerBuilder::smoke_test`). It accepts no connection yet.
/// 3. It says that it is ready, and both processes accept connections for the
///    [settling time](Self::settle).
/// 4. It is asked whether it still works. Within 5 s a thread that polls has to answer for each of its servers,
///    and one that accepts for each [`Acceptor`](crate::acceptor::Acceptor).
/// 5. This process stops by its plan. Clients on its connections are told to go, and reach the new
///    process at the same address.
///
/// If the new process cannot be started, exits, fails its smoke test, is not ready
/// [in time](Self::ready_within), ends within the settling time, or does not answer after it, it is ended, and this
/// process goes on as if nothing had happened. The log says why. Time in which this process stands still, because it was
/// stopped or frozen, counts for none of these limits.
///
/// | the new process gets | |
/// |---|---|
/// | file | the path from which this process was started, so that it may have been replaced meanwhile; or [`program`](Self::program) |
/// | arguments | those of this process, or [`arguments`](Self::arguments) |
/// | environment | that of this process, but for `TOUCHDOWN_UPGRADE`, which says what it has got, and without systemd's `LISTEN_PID`, `LISTEN_FDS`, `LISTEN_FDNAMES` and `WATCHDOG_PID`, which are meant for this process |
/// | working directory, user, limits, ignored signals | those of this process; SIGPIPE has its default action |
/// | blocked signals | none |
/// | descriptors | the standard streams, the listening sockets, and a socket to the old process. No other, even if it was opened without `O_CLOEXEC` |
#[derive(Clone, Debug)]
#[must_use = "it does nothing until a lifecycle or a server is built with it"]
pub struct Upgrade {
    pub(super) program: Option<PathBuf>,
    pub(super) arguments: Option<Vec<OsString>>,
    pub(super) ready_within: Duration,
    pub(super) settle: Duration,
    pub(super) under_any_supervisor: bool,
}

impl Upgrade {
    /// The program by the path from which it was started, with its arguments; ready within 60 s;
    /// settled after 1 s.
    pub fn new() -> Self {
        Self {
            program: None,
            arguments: None,
            // Less than systemd waits for a service that it starts: DefaultTimeoutStartSec= is 90 s.
            ready_within: Duration::from_secs(60),
            // What crashes with the first calls does so by then.
            settle: Duration::from_secs(1),
            under_any_supervisor: false,
        }
    }

    /// Sets the file to start. Default: the one that this process was started from.
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = Some(path.into());
        self
    }

    /// Sets the arguments of the new process. Default: those of this process.
    pub fn arguments<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments = Some(arguments.into_iter().map(Into::into).collect());
        self
    }

    /// Sets how long the new process may take until it is ready, its smoke test included, and the time that the
    /// system takes to come to its file.
    pub fn ready_within(mut self, time: Duration) -> Self {
        self.ready_within = time;
        self
    }

    /// Sets how long both processes serve side by side before this one asks the new one whether it works, and
    /// stops. If the new one ends meanwhile, this one goes on.
    pub fn settle(mut self, time: Duration) -> Self {
        self.settle = time;
        self
    }

    /// Allows it where it is [refused](UpgradeError::Supervisor) by default, because the supervisor of the process
    /// waits for its end and would start a second copy. For programs whose supervisor does not: a service under procd
    /// without `respawn`, say, or under runit with a `finish` script that waits for the process in the pid file.
    pub fn under_any_supervisor(mut self) -> Self {
        self.under_any_supervisor = true;
        self
    }

    /// Replaces the program by a new process, as SIGUSR2 does. Returns the new process's id once that is in charge and
    /// this one has begun to stop, with [`Reason::Replaced`](crate::lifecycle::Reason::Replaced).
    ///
    /// Blocks until the new process was ready and has settled, which may take minutes. Must not be called from an
    /// observer or a hook.
    ///
    /// ```no_run
    /// use touchdown::lifecycle::Lifecycle;
    /// use touchdown::Upgrade;
    ///
    /// let lifecycle = Lifecycle::builder().upgrade(Upgrade::new()).build()?;
    /// lifecycle.ready()?;
    /// let id = Upgrade::begin(&lifecycle)?;
    /// println!("replaced by process {id}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`UpgradeError`], and then the program goes on as before; or is stopping.
    pub fn begin(program: &impl AsRef<Remote>) -> Result<u32, UpgradeError> {
        let program = program.as_ref();
        let upgrades = program.attached::<Upgrades>();
        upgrades
            .ok_or(UpgradeError::NotConfigured)?
            .replace_and_log(&program.handover())
    }
}

impl Default for Upgrade {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// Lets another process take over, when SIGUSR2 arrives or [`Upgrade::begin`] is called; and
    /// lets this process take over from the one that has started it so. Default: neither, and
    /// SIGUSR2 is left as it is.
    ///
    /// One lifecycle of a process may have it, the one with the servers. Servers that start with it
    /// accept no connection before [`Lifecycle::ready`](crate::lifecycle::Lifecycle::ready) while they are to
    /// replace others.
    pub fn upgrade(self, upgrade: Upgrade) -> Self {
        self.succession(move || Arc::new(Upgrades::new(upgrade)))
    }
}

/// The path from which this process was started: as it was written, if that is a path, so that a
/// link that points elsewhere later is followed anew.
pub(super) fn started_from() -> io::Result<PathBuf> {
    let file = as_it_was(std::env::current_exe()?);
    let written = std::env::args_os().next().map(PathBuf::from);
    let path = written.filter(|it| it.components().count() > 1);
    let path = path.and_then(|it| std::path::absolute(it).ok());
    let is_same = |it: &PathBuf| it.canonicalize().is_ok_and(|it| it == file);
    Ok(path.filter(is_same).unwrap_or(file))
}

/// The path of a file that may have been replaced since it was started: Linux marks it then. proc(5).
fn as_it_was(file: PathBuf) -> PathBuf {
    let path = file.as_os_str().as_bytes();
    match path.strip_suffix(b" (deleted)") {
        Some(path) if !file.exists() => OsStr::from_bytes(path).into(),
        _ => file,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_program_that_was_replaced_before_it_looked_finds_its_path() {
        let name = format!("touchdown-replaced-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        let folder = folder.canonicalize().unwrap();
        let program = folder.join("program");
        fs::copy("/bin/sleep", &program).unwrap();
        let mut child = Command::new(&program).arg("1000").spawn().unwrap();
        let started = || fs::read_link(format!("/proc/{}/exe", child.id())).unwrap();
        assert_eq!(as_it_was(started()), program);
        fs::copy("/bin/sleep", folder.join("new")).unwrap();
        fs::rename(folder.join("new"), &program).unwrap();
        assert_ne!(started(), program);
        assert_eq!(as_it_was(started()), program);
        child.kill().unwrap();
        child.wait().unwrap();
        // Somebody may call a file so.
        let strange = folder.join("program (deleted)");
        fs::copy("/bin/sleep", &strange).unwrap();
        assert_eq!(as_it_was(strange.clone()), strange);
        fs::remove_dir_all(&folder).unwrap();
    }
}
