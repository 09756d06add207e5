//! The file that says which process is in charge.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;

pub(super) struct PidFile(PathBuf);

impl PidFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes this process's id. Whoever reads the file finds a whole one, the old or the new.
    pub(super) fn write(&self) -> io::Result<()> {
        let id = process::id();
        let mut new = self.0.clone().into_os_string();
        new.push(format!(".{id}"));
        fs::write(&new, format!("{id}\n"))
            .and_then(|()| fs::rename(&new, &self.0))
            .inspect_err(|_| drop(fs::remove_file(&new)))
    }

    /// Removes the file if it is this process's. Not for a process that is being replaced: the other one
    /// may write it in between.
    pub(super) fn remove(&self) {
        let written = fs::read_to_string(&self.0);
        if written.is_ok_and(|id| id.trim() == process::id().to_string()) {
            let _ = fs::remove_file(&self.0);
        }
    }
}
