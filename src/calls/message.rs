//! Messages, as they come off a wire: in pieces that stay where the transport has put them.

use std::fmt;
use std::io::{self, BufRead, Read};

/// How a message is compressed on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    Identity,
    Deflate,
    Gzip,
}

/// The bytes of a message, where the transport has them.
pub(crate) trait Pieces: Send + Sync {
    /// The size of all pieces together, in bytes.
    fn len(&self) -> usize;

    fn compression(&self) -> Compression;

    /// The pieces, in their order; `None` behind the last.
    fn piece(&self, index: usize) -> Option<&[u8]>;
}

/// A message as it came off the wire.
pub(crate) struct Message(Box<dyn Pieces>);

impl Message {
    pub(crate) fn new(pieces: impl Pieces + 'static) -> Message {
        Message(Box::new(pieces))
    }

    /// The size in bytes as received, so compressed if it is.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn compression(&self) -> Compression {
        self.0.compression()
    }

    /// The whole message, if it lies in one piece.
    pub(crate) fn contiguous(&self) -> Option<&[u8]> {
        match (self.0.piece(0), self.0.piece(1)) {
            (None, _) => Some(&[]),
            (only, None) => only,
            _ => None,
        }
    }

    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader {
            pieces: &*self.0,
            index: 0,
            offset: 0,
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bytes, {:?}", self.len(), self.compression())
    }
}

/// Reads a message piece by piece.
pub(crate) struct Reader<'a> {
    pieces: &'a dyn Pieces,
    index: usize,
    offset: usize,
}

impl BufRead for Reader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while let Some(piece) = self.pieces.piece(self.index) {
            if self.offset < piece.len() {
                return Ok(&piece[self.offset..]);
            }
            self.index += 1;
            self.offset = 0;
        }
        Ok(&[])
    }

    fn consume(&mut self, amount: usize) {
        self.offset += amount;
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let amount = available.len().min(out.len());
        out[..amount].copy_from_slice(&available[..amount]);
        self.consume(amount);
        Ok(amount)
    }
}

/// Pieces that lie in this process's memory.
#[cfg(test)]
pub(crate) struct InMemory {
    pub(crate) pieces: Vec<Vec<u8>>,
    pub(crate) compression: Compression,
}

#[cfg(test)]
impl Pieces for InMemory {
    fn len(&self) -> usize {
        self.pieces.iter().map(Vec::len).sum()
    }

    fn compression(&self) -> Compression {
        self.compression
    }

    fn piece(&self, index: usize) -> Option<&[u8]> {
        self.pieces.get(index).map(Vec::as_slice)
    }
}

#[cfg(test)]
impl Message {
    /// A message that has come in these pieces, compressed like this.
    pub(crate) fn of_pieces<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
        compression: Compression,
    ) -> Message {
        Message::new(InMemory {
            pieces: pieces.into_iter().map(<[u8]>::to_vec).collect(),
            compression,
        })
    }
}

/// What any kind of pieces has to keep to: what is read of `message` is `whole`.
#[cfg(test)]
pub(crate) fn is_read_whole_in_steps(message: &Message, whole: &[u8], steps: &[usize]) {
    assert_eq!(message.len(), whole.len());
    if let Some(bytes) = message.contiguous() {
        assert_eq!(bytes, whole);
    }
    let (mut reader, mut read) = (message.reader(), Vec::new());
    for step in steps.iter().cycle() {
        let mut out = vec![0; *step];
        let amount = reader.read(&mut out).unwrap();
        if amount == 0 {
            break;
        }
        read.extend_from_slice(&out[..amount]);
    }
    assert_eq!(read, whole);

    let (mut reader, mut read) = (message.reader(), Vec::new());
    for step in steps.iter().cycle() {
        let available = reader.fill_buf().unwrap();
        if available.is_empty() {
            break;
        }
        let amount = available.len().min(*step);
        read.extend_from_slice(&available[..amount]);
        reader.consume(amount);
    }
    assert_eq!(read, whole);
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_in_pieces_is_read_whole() {
        let long = [7u8; 100];
        let message =
            Message::of_pieces([b"ab".as_slice(), b"", &long, b"z"], Compression::Identity);
        let mut read = Vec::new();
        message.reader().read_to_end(&mut read).unwrap();
        assert_eq!(message.len(), 103);
        assert_eq!(read, [b"ab".as_slice(), &long, b"z"].concat());
        assert!(message.contiguous().is_none());
    }

    proptest! {
        #[test]
        fn any_pieces_are_read_whole_in_any_steps(
            pieces in vec(vec(any::<u8>(), 0..60), 0..8),
            steps in vec(1..50_usize, 1..8),
        ) {
            let slices = pieces.iter().map(Vec::as_slice);
            let message = Message::of_pieces(slices, Compression::Identity);
            prop_assert_eq!(message.contiguous().is_some(), pieces.len() < 2);
            is_read_whole_in_steps(&message, &pieces.concat(), &steps);
        }
    }
}
