//! Messages, as they come off a wire: in pieces that stay where the transport has put them.

use std::fmt;
use std::io::{self, BufRead, Read};

use super::fault::Fault;

/// How a message is compressed on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    Identity,
    Deflate,
    Gzip,
}

/// Keeps the bytes of messages where the transport has put them.
///
/// A message is no more than its keeper and what the keeper knows it by: it takes no allocation of its own.
pub(crate) trait Keeper: Sync {
    /// The size of all pieces together, in bytes.
    fn len(&self, kept: &Kept) -> usize;

    /// What is asked of every message, at once.
    fn look<'a>(&self, kept: &'a Kept) -> Look<'a>;

    /// The pieces, in their order; `None` behind the last.
    fn piece<'a>(&self, kept: &'a Kept, index: usize) -> Option<&'a [u8]>;

    /// The message is not needed any more. Called once, last.
    fn let_go(&self, kept: &Kept);
}

/// What there is to know of a message before it is read.
pub(crate) struct Look<'a> {
    /// The size of all pieces together, in bytes.
    pub(crate) len: usize,
    pub(crate) compression: Compression,
    /// What is wrong with it, if something is: then nothing else of this says anything.
    pub(crate) fault: Option<Fault>,
    /// The whole message, if it lies in one piece.
    pub(crate) whole: Option<&'a [u8]>,
}

/// What a keeper knows a message by: an address, or a number. A keeper is handed only what it has made into a
/// [message](Message::new) itself, as long as it keeps itself to its own file.
pub(crate) struct Kept(pub(crate) usize);

/// A message as it came off the wire.
pub(crate) struct Message {
    kept: Kept,
    keeper: &'static dyn Keeper,
}

impl Message {
    #[inline]
    pub(crate) fn new(kept: Kept, keeper: &'static dyn Keeper) -> Message {
        Message { kept, keeper }
    }

    /// The size in bytes as received, so compressed if it is.
    pub(crate) fn len(&self) -> usize {
        self.keeper.len(&self.kept)
    }

    #[inline]
    pub(crate) fn look(&self) -> Look<'_> {
        self.keeper.look(&self.kept)
    }

    fn piece(&self, index: usize) -> Option<&[u8]> {
        self.keeper.piece(&self.kept, index)
    }

    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader {
            message: self,
            index: 0,
            offset: 0,
        }
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        self.keeper.let_go(&self.kept);
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let look = self.look();
        write!(formatter, "{} bytes, {:?}", look.len, look.compression)
    }
}

/// Reads a message piece by piece.
pub(crate) struct Reader<'a> {
    message: &'a Message,
    index: usize,
    offset: usize,
}

impl BufRead for Reader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while let Some(piece) = self.message.piece(self.index) {
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

/// Messages that lie in this process's memory, for as long as it runs.
#[cfg(test)]
mod in_memory {
    use parking_lot::Mutex;

    use super::{Compression, Keeper, Kept, Look, Message};

    struct Whole {
        pieces: Vec<Vec<u8>>,
        compression: Compression,
    }

    static ALL: Mutex<Vec<&'static Whole>> = Mutex::new(Vec::new());

    struct InMemory;

    fn whole(kept: &Kept) -> &'static Whole {
        ALL.lock()[kept.0]
    }

    impl Keeper for InMemory {
        fn len(&self, kept: &Kept) -> usize {
            whole(kept).pieces.iter().map(Vec::len).sum()
        }

        fn look<'a>(&self, kept: &'a Kept) -> Look<'a> {
            let message = whole(kept);
            Look {
                len: self.len(kept),
                compression: message.compression,
                fault: None,
                whole: match message.pieces.as_slice() {
                    [] => Some(&[]),
                    [only] => Some(only),
                    _ => None,
                },
            }
        }

        fn piece<'a>(&self, kept: &'a Kept, index: usize) -> Option<&'a [u8]> {
            whole(kept).pieces.get(index).map(Vec::as_slice)
        }

        fn let_go(&self, _: &Kept) {}
    }

    impl Message {
        /// A message that has come in these pieces, compressed like this.
        pub(crate) fn of_pieces<'a>(
            pieces: impl IntoIterator<Item = &'a [u8]>,
            compression: Compression,
        ) -> Message {
            let pieces = pieces.into_iter().map(<[u8]>::to_vec).collect();
            let whole = Whole {
                pieces,
                compression,
            };
            let mut all = ALL.lock();
            all.push(Box::leak(Box::new(whole)));
            Message::new(Kept(all.len() - 1), &InMemory)
        }
    }
}

/// What any keeper has to keep to: what is read of `message` is `whole`.
#[cfg(test)]
pub(crate) fn is_read_whole_in_steps(message: &Message, whole: &[u8], steps: &[usize]) {
    assert_eq!(message.len(), whole.len());
    if let Some(bytes) = message.look().whole {
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
        assert!(message.look().whole.is_none());
    }

    proptest! {
        #[test]
        fn any_pieces_are_read_whole_in_any_steps(
            pieces in vec(vec(any::<u8>(), 0..60), 0..8),
            steps in vec(1..50_usize, 1..8),
        ) {
            let slices = pieces.iter().map(Vec::as_slice);
            let message = Message::of_pieces(slices, Compression::Identity);
            prop_assert_eq!(message.look().whole.is_some(), pieces.len() < 2);
            is_read_whole_in_steps(&message, &pieces.concat(), &steps);
        }
    }
}
