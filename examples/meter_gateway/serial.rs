//! A meter on a serial line, which one process at a time may talk to.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::termios::{self, SetArg, SpecialCharacterIndices};
use touchdown::Status;

/// The line to the meter. It is asked with `READ`, and answers with a number of watt hours.
pub struct Port {
    path: PathBuf,
    line: Mutex<Option<Flock<File>>>,
    opened: Condvar,
}

impl Port {
    pub fn new(path: &str) -> Port {
        Port {
            path: path.into(),
            line: Mutex::default(),
            opened: Condvar::new(),
        }
    }

    /// Opens the line, if it is not open, and no other process has it.
    pub fn open(&self) -> io::Result<()> {
        let mut line = self.line();
        if line.is_none() {
            // A hang-up of the line is none of the program.
            let flags = OFlag::O_NOCTTY.bits();
            let mut options = OpenOptions::new();
            let file = options
                .read(true)
                .write(true)
                .custom_flags(flags)
                .open(&self.path)?;
            let file = Flock::lock(file, FlockArg::LockExclusiveNonblock);
            let file = file.map_err(|(_, error)| error)?;
            let mut settings = termios::tcgetattr(&*file)?;
            termios::cfmakeraw(&mut settings);
            // A read ends after a second without an answer.
            settings.control_chars[SpecialCharacterIndices::VMIN as usize] = 0;
            settings.control_chars[SpecialCharacterIndices::VTIME as usize] = 10;
            termios::tcsetattr(&*file, SetArg::TCSAFLUSH, &settings)?;
            *line = Some(file);
            self.opened.notify_all();
        }
        Ok(())
    }

    /// Lets another process have it.
    pub fn close(&self) {
        *self.line() = None;
    }

    /// Asks the meter, once the line is open. An error closes it.
    pub fn ask(&self, patience: Duration) -> Result<u64, Status> {
        let line = self.line();
        let waited = self
            .opened
            .wait_timeout_while(line, patience, |it| it.is_none());
        let (mut line, _) = waited.unwrap();
        let closed = || Status::unavailable("the line to the meter is not open");
        let answer = ask(line.as_mut().ok_or_else(closed)?);
        answer.map_err(|error| {
            *line = None;
            Status::unavailable(format!("the meter: {error}"))
        })
    }

    fn line(&self) -> MutexGuard<'_, Option<Flock<File>>> {
        self.line.lock().unwrap()
    }
}

fn ask(line: &mut File) -> io::Result<u64> {
    line.write_all(b"READ\n")?;
    let (mut answer, mut byte) = (String::new(), [0]);
    loop {
        match (line.read(&mut byte)?, byte[0]) {
            (0, _) => return Err(io::ErrorKind::TimedOut.into()),
            (_, b'\n') => return answer.trim().parse().map_err(io::Error::other),
            (_, byte) => answer.push(char::from(byte)),
        }
    }
}
