//! A file to which entries are added, and from which none is lost.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Mutex;

use touchdown::{Code, OrStatus, Status};

use crate::meter::Entry;

/// A line for each entry. Two processes may write to it in a hot restart: each adds whole lines, by one system call.
pub struct Ledger(Mutex<File>);

impl Ledger {
    /// Opens it, and ends a line that a power cut has torn: nobody was told that this one is written.
    pub fn open(path: &str) -> io::Result<Ledger> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).open(path)?;
        let mut last = [b'\n'];
        if file.metadata()?.len() > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        if last != [b'\n'] {
            file.write_all(b"\n")?;
        }
        Ok(Ledger(Mutex::new(file)))
    }

    /// Returns once the entries are on the disk. After an error nobody knows; so they are to be sent again.
    pub fn book(&self, entries: &[Entry]) -> Result<(), Status> {
        let is_bad = |it: &Entry| it.id.is_empty() || it.id.contains(char::is_whitespace);
        if entries.iter().any(is_bad) {
            return Err(Status::invalid_argument("an entry needs an id of one word"));
        }
        let lines = entries.iter().map(|it| format!("{} {}\n", it.id, it.cents));
        let lines: String = lines.collect();
        let mut file = self.0.lock().unwrap();
        let written = file
            .write_all(lines.as_bytes())
            .and_then(|()| file.sync_data());
        written.or_status(Code::Internal, "the ledger cannot be written")
    }
}
