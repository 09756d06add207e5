//! Where lines go: something that may be full, and then counts what it could not take.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use super::lines::writer::LineWriter;

/// Writes so many lost lines as a line.
pub(super) type Say = Box<dyn Fn(&mut String, u64) + Send>;

/// What env_logger writes to. It writes each line at once, and heeds no error.
pub(super) struct Sink {
    writer: LineWriter<Box<dyn Write + Send>>,
    lost: Arc<AtomicU64>,
    /// Lost, and not said yet.
    unsaid: u64,
    say: Say,
}

impl Sink {
    pub(super) fn new(to: Box<dyn Write + Send>, say: Say) -> Sink {
        Sink {
            writer: LineWriter::new(to),
            lost: Arc::default(),
            unsaid: 0,
            say,
        }
    }

    /// How many lines could not be written so far.
    pub(super) fn lost(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.lost)
    }

    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.unsaid > 0 {
            let mut said = String::new();
            (self.say)(&mut said, self.unsaid);
            self.writer.write_line(said.as_bytes())?;
            self.unsaid = 0;
        }
        self.writer.write_line(line)
    }
}

impl Write for Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.write_line(line).is_err() {
            self.unsaid += 1;
            // It stands for itself: nothing is read by it.
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
