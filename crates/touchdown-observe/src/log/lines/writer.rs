//! Writes lines whole, or says that it could not.

use std::io::{self, ErrorKind, Write};

/// Writes lines to something that may refuse them: a disk that is full, a pipe that nobody reads any more.
pub(crate) struct LineWriter<W> {
    to: W,
    /// The last line has no end: it was refused in its middle.
    is_torn: bool,
}

impl<W: Write> LineWriter<W> {
    pub(crate) fn new(to: W) -> LineWriter<W> {
        LineWriter { to, is_torn: false }
    }

    /// Writes a line, which has its line break. One that was torn before gets its end first, so that the two are not taken
    /// for one.
    pub(crate) fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.write_all(b"\n")?;
        }
        self.write_all(line)
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.to.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    bytes = bytes.get(count..).unwrap_or_default();
                    self.is_torn = !bytes.is_empty();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, three at a time, and then no more, until it has room again.
    struct Disk {
        room: usize,
        written: Vec<u8>,
    }

    impl Write for &mut Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room).min(3);
            self.room -= count;
            self.written.extend_from_slice(&bytes[..count]);
            match count {
                0 => Err(ErrorKind::StorageFull.into()),
                count => Ok(count),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_was_torn_is_ended_before_the_next() {
        for room in 0..12 {
            let mut disk = Disk {
                room,
                written: Vec::new(),
            };
            let mut writer = LineWriter::new(&mut disk);
            let first = writer.write_line(b"first line\n");
            assert_eq!(first.is_ok(), room >= 11);
            assert!(writer.write_line(b"lost\n").is_err());
            writer.to.room = usize::MAX;
            writer.write_line(b"second\n").unwrap();
            let text = String::from_utf8(disk.written).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines.last(), Some(&"second"), "{text:?}");
            assert!(
                lines.iter().all(|it| "first line".starts_with(it)
                    || "lost".starts_with(it)
                    || *it == "second"),
                "{text:?}"
            );
            assert!(lines.len() <= 3, "{text:?}");
        }
    }
}
