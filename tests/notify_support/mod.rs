//! A manager of services, as far as the notify socket goes: it starts a test's child, and hears what that tells.

// Each test file uses a part of this.
#![allow(dead_code)]

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::lifecycle_support::{child_as, Process, LIMIT};

/// A folder that goes with its test.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("touchdown-notify-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub struct Manager {
    pub folder: Folder,
    pub socket: UnixDatagram,
}

impl Manager {
    pub fn new() -> Manager {
        let folder = Folder::new();
        let socket = UnixDatagram::bind(folder.join("notify")).unwrap();
        socket.set_read_timeout(Some(LIMIT / 2)).unwrap();
        Manager { folder, socket }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.join("notify")
    }

    /// The command for a child that plays this part of the test.
    pub fn command(&self, role: &str, test: &str) -> Command {
        let mut command = child_as(role, test);
        self.prepare(&mut command);
        command
    }

    pub fn prepare(&self, command: &mut Command) {
        command
            .env("NOTIFY_SOCKET", self.path())
            .env_remove("WATCHDOG_USEC")
            .env_remove("WATCHDOG_PID")
            .stdin(Stdio::piped());
    }

    pub fn start(&self, test: &str) -> Process {
        Process::spawn(self.command("1", test))
    }

    /// The lines of the next message.
    pub fn hear(&self) -> Vec<String> {
        self.try_hear().expect("no message came")
    }

    /// As `hear`, but `None` if the socket's time is over.
    pub fn try_hear(&self) -> Option<Vec<String>> {
        let mut buffer = [0; 4096];
        let received = loop {
            match self.socket.recv(&mut buffer) {
                // By a signal that another test sent.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                received => break received,
            }
        };
        match received {
            Ok(length) => Some(
                String::from_utf8(buffer[..length].to_vec())
                    .unwrap()
                    .lines()
                    .map(str::to_owned)
                    .collect(),
            ),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Hears exactly this.
    pub fn expect(&self, message: &[&str]) {
        assert_eq!(self.hear(), message);
    }

    /// Hears these lines and then an extension, which it returns.
    pub fn expect_extended(&self, message: &[&str]) -> Duration {
        let mut heard = self.hear();
        let extension = extension_of(&heard);
        heard.pop();
        assert_eq!(heard, message);
        extension.unwrap_or_else(|| panic!("no extension with {message:?}"))
    }

    /// Hears a status that begins so, and returns for how long systemd is asked to wait.
    pub fn expect_status(&self, beginning: &str) -> Option<Duration> {
        let heard = self.hear();
        let status = heard[0].strip_prefix("STATUS=");
        assert!(
            status.is_some_and(|it| it.starts_with(beginning)),
            "{heard:?} is not about {beginning:?}"
        );
        assert_eq!(heard.len(), 1 + usize::from(extension_of(&heard).is_some()));
        extension_of(&heard)
    }

    /// What was heard and not read yet.
    pub fn rest(&self) -> Vec<Vec<String>> {
        self.socket.set_nonblocking(true).unwrap();
        let rest = std::iter::from_fn(|| self.try_hear()).collect();
        self.socket.set_nonblocking(false).unwrap();
        rest
    }

    /// Hears nothing but that the watchdog is fed, this often.
    pub fn expect_fed(&self, times: usize) {
        (0..times).for_each(|_| self.expect(&["WATCHDOG=1"]));
    }
}

/// For how long this message asks systemd to wait.
pub fn extension_of(message: &[String]) -> Option<Duration> {
    let last = message.last()?.strip_prefix("EXTEND_TIMEOUT_USEC=")?;
    Some(Duration::from_micros(last.parse().unwrap()))
}

/// Sends a message of the test's own to who listens at NOTIFY_SOCKET.
pub fn shout(message: &str) {
    let path = std::env::var_os("NOTIFY_SOCKET").unwrap();
    let socket = UnixDatagram::unbound().unwrap();
    socket
        .send_to(message.as_bytes(), Path::new(&path))
        .unwrap();
}

/// The next line of the standard input; `None` at its end.
pub fn order() -> Option<String> {
    let mut line = String::new();
    let count = std::io::stdin().read_line(&mut line).unwrap();
    (count > 0).then(|| line.trim_end().to_owned())
}
