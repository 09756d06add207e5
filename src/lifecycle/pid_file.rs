//! The file that says which process is in charge.

use std::fs::{self, File};
use std::io::{self, Write};
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

    /// Writes this process's id. A reader of the file finds a whole one, the old or the new.
    pub(super) fn write(&self) -> io::Result<()> {
        self.prepare()?;
        self.rename().inspect_err(|_| self.remove_prepared())
    }

    /// Writes this process's id beside the file, so that a disk that is full, or not to be written, is found out
    /// while another process is in charge still.
    pub(super) fn prepare(&self) -> io::Result<()> {
        let id = process::id();
        let write = || {
            let mut file = File::create(self.beside(id))?;
            file.write_all(format!("{id}\n").as_bytes())?;
            // Some file systems look for room only now.
            file.sync_all()
        };
        write().inspect_err(|_| self.remove_prepared())
    }

    /// Has the file say what was prepared. If this fails, it may be tried again.
    pub(super) fn publish(&self) -> io::Result<()> {
        match self.rename() {
            // Somebody has tidied up.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.prepare()?;
                self.rename()
            }
            result => result,
        }
    }

    fn rename(&self) -> io::Result<()> {
        fs::rename(self.beside(process::id()), &self.0)
    }

    /// Removes the file if it is this process's, and what was prepared. Not for a process that is being
    /// replaced: the other one may write the file in between.
    pub(super) fn remove(&self) {
        self.remove_prepared();
        let written = fs::read_to_string(&self.0);
        if written.is_ok_and(|id| id.trim() == process::id().to_string()) {
            let _ = fs::remove_file(&self.0);
        }
    }

    fn remove_prepared(&self) {
        self.remove_prepared_by(process::id());
    }

    /// Removes what a process has prepared that has ended since.
    pub(super) fn remove_prepared_by(&self, process: u32) {
        let _ = fs::remove_file(self.beside(process));
    }

    fn beside(&self, process: u32) -> PathBuf {
        let mut path = self.0.clone().into_os_string();
        path.push(format!(".{process}"));
        path.into()
    }
}
