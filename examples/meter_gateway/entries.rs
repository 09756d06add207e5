//! A file to which entries are added, and from which none is lost.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Mutex;

use touchdown::Status;

use crate::meter::Entry;

/// A line for each entry. Two processes may write to it in a hot restart: each adds whole lines, by one system call.
pub struct Ledger {
    path: PathBuf,
    file: Mutex<Option<File>>,
}

impl Ledger {
    pub fn new(path: &str) -> Ledger {
        Ledger {
            path: path.into(),
            file: Mutex::default(),
        }
    }

    /// Opens it, and ends a line that a power cut has torn: nobody was told that this one is written.
    pub fn open(&self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .append(true)
            .create(true)
            .open(&self.path)?;
        let mut last = [b'\n'];
        if file.metadata()?.len() > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        if last != [b'\n'] {
            file.write_all(b"\n")?;
        }
        *self.file.lock().unwrap() = Some(file);
        Ok(())
    }

    /// Returns once the entries are on the disk. After an error nobody knows; so they are to be sent again.
    pub fn book(&self, entries: &[Entry]) -> Result<(), Status> {
        let is_bad = |it: &Entry| it.id.is_empty() || it.id.contains(char::is_whitespace);
        if entries.iter().any(is_bad) {
            return Err(Status::invalid_argument("an entry needs an id of one word"));
        }
        let lines: String = entries
            .iter()
            .map(|it| format!("{} {}\n", it.id, it.cents))
            .collect();
        let mut file = self.file.lock().unwrap();
        let file = file
            .as_mut()
            .ok_or_else(|| Status::unavailable("the ledger is not open"))?;
        let written = file
            .write_all(lines.as_bytes())
            .and_then(|()| file.sync_data());
        written.map_err(|error| Status::internal(format!("the ledger: {error}")))
    }
}
