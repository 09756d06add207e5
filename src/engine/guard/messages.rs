//! Where the messages are in what a client sends: each has a prefix of five bytes, which says how long it is
//! (gRPC over HTTP/2, Length-Prefixed-Message), and may come in any number of DATA frames.

/// How far a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Nothing of it has come.
    Nothing,
    /// So many bytes of its prefix, and of its length what they say.
    Prefix { count: u8, length: u32 },
    /// Its prefix, and of the rest all but so many bytes.
    Body { left: u32 },
}

const PREFIX: u8 = 5;

/// The messages of one connection. Something is kept only of those that have come in part.
pub(super) struct Messages {
    /// By stream, in order.
    parts: Vec<(u32, Part)>,
    /// Of the frame that is coming: its stream, the message, whether it is the last frame, and whether all of it so far
    /// is of a message that had begun before.
    stream: u32,
    part: Part,
    is_last: bool,
    goes_on: bool,
}

impl Messages {
    pub(super) fn new() -> Messages {
        Messages {
            parts: Vec::new(),
            stream: 0,
            part: Part::Nothing,
            is_last: false,
            goes_on: false,
        }
    }

    /// A DATA frame begins that has bytes.
    pub(super) fn begin(&mut self, stream: u32, is_last: bool) {
        self.stream = stream;
        self.is_last = is_last;
        self.part = self.take(stream).unwrap_or(Part::Nothing);
        self.goes_on = self.part != Part::Nothing;
    }

    /// More of that frame. Returns the length of the first message in it that announces more than `limit` bytes.
    pub(super) fn go_on(&mut self, mut bytes: &[u8], limit: u32) -> Option<u32> {
        let mut too_long = None;
        while let Some((&first, rest)) = bytes.split_first() {
            match self.part {
                Part::Body { left } => {
                    let taken = bytes.len().min(left as usize);
                    bytes = &bytes[taken..];
                    self.set_body(left - taken as u32);
                }
                Part::Nothing => {
                    // The flags.
                    self.part = Part::Prefix {
                        count: 1,
                        length: 0,
                    };
                    bytes = rest;
                }
                Part::Prefix { count, length } => {
                    bytes = rest;
                    let length = length << 8 | u32::from(first);
                    let count = count + 1;
                    if count < PREFIX {
                        self.part = Part::Prefix { count, length };
                        continue;
                    }
                    self.set_body(length);
                    if length > limit && too_long.is_none() {
                        too_long = Some(length);
                    }
                }
            }
        }
        too_long
    }

    /// That frame ends. Returns whether all of it is of a message that had begun before and goes on.
    pub(super) fn end(&mut self) -> bool {
        if self.part == Part::Nothing || self.is_last {
            return false;
        }
        match self.parts.binary_search_by_key(&self.stream, |it| it.0) {
            Ok(at) => self.parts[at].1 = self.part,
            Err(at) => self.parts.insert(at, (self.stream, self.part)),
        }
        self.goes_on
    }

    /// Nothing is kept of the stream any more.
    pub(super) fn remove(&mut self, stream: u32) {
        self.take(stream);
    }

    fn take(&mut self, stream: u32) -> Option<Part> {
        if self.parts.is_empty() {
            return None;
        }
        let at = self.parts.binary_search_by_key(&stream, |it| it.0).ok()?;
        Some(self.parts.remove(at).1)
    }

    fn set_body(&mut self, left: u32) {
        self.part = match left {
            0 => {
                self.goes_on = false;
                Part::Nothing
            }
            left => Part::Body { left },
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(length: u32) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(length.to_be_bytes());
        bytes.resize(bytes.len() + length as usize, 7);
        bytes
    }

    #[test]
    fn nothing_is_kept_of_whole_messages() {
        let mut messages = Messages::new();
        messages.begin(1, false);
        assert_eq!(messages.go_on(&message(10), 10), None);
        assert_eq!(messages.go_on(&message(0), 10), None);
        assert!(!messages.end());
        assert!(messages.parts.is_empty());
    }

    #[test]
    fn a_long_message_is_found_when_its_prefix_is_there() {
        let mut messages = Messages::new();
        let bytes = message(11);
        messages.begin(3, false);
        assert_eq!(messages.go_on(&bytes[..4], 10), None);
        assert!(!messages.end());
        messages.begin(3, false);
        assert_eq!(messages.go_on(&bytes[4..5], 10), Some(11));
        assert!(messages.end());
        assert!(messages.take(3).is_some());
        assert!(messages.parts.is_empty());
    }

    proptest! {
        /// However messages are cut into frames, and frames into pieces, the same ones are too long, and nothing is left.
        #[test]
        fn messages_are_found_in_any_pieces(
            lengths in prop::collection::vec(0u32..600, 1..8),
            cuts in prop::collection::vec(1usize..400, 1..20),
        ) {
            let whole: Vec<u8> = lengths.iter().flat_map(|it| message(*it)).collect();
            let limit = 300;
            let mut messages = Messages::new();
            let (mut at, mut found) = (0, 0);
            for (number, cut) in cuts.iter().cycle().enumerate() {
                if at == whole.len() {
                    break;
                }
                let end = (at + cut).min(whole.len());
                messages.begin(5, false);
                let half = at + (end - at) / 2;
                for piece in [&whole[at..half], &whole[half..end]] {
                    found += usize::from(messages.go_on(piece, limit).is_some());
                }
                messages.end();
                // Another stream's do not disturb.
                messages.begin(7, number % 2 == 0);
                messages.go_on(&[0, 0, 0, 0, 9, 1], limit);
                messages.end();
                messages.remove(7);
                at = end;
            }
            prop_assert!(messages.parts.is_empty());
            let long = lengths.iter().filter(|it| **it > limit).count();
            // Two in one piece are found together.
            prop_assert!(found <= long && (found > 0) == (long > 0), "{found} of {long}");
        }
    }
}
