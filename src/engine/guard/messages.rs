//! Where the messages are in what a client sends: each has a prefix of five bytes, which says how long it is
//! (gRPC over HTTP/2, Length-Prefixed-Message), and may come in any number of DATA frames.

use super::stand_in;

/// How far a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Nothing of it has come.
    Nothing,
    /// So many bytes of its prefix, and of its length what they say.
    Prefix { count: u8, length: u32 },
    /// Its prefix, and of the `length` bytes of the rest all but so many.
    Body { left: u32, length: u32 },
    /// It is too long: nothing of the stream is taken any more.
    Lost,
}

/// How many bytes messages may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// One message.
    pub(super) message: u32,
    /// All messages of a connection together that have come in part.
    pub(super) all: u64,
}

/// A message with more bytes than there is room for, and how many it is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TooLong {
    /// Its prefix now says so many bytes as are in the frame, of which the last are those of the
    /// [stand-in](super::stand_in).
    Cut,
    /// A part of its prefix has gone already, or the frame has no room for the stand-in's bytes.
    Gone(u32),
}

impl Part {
    fn announced(self) -> u64 {
        match self {
            Part::Body { length, .. } => u64::from(length),
            _ => 0,
        }
    }
}

const PREFIX: u8 = 5;

/// The messages of one connection. Something is kept only of those that have come in part.
pub(super) struct Messages {
    /// By stream, in order.
    parts: Vec<(u32, Part)>,
    /// How many bytes those are to have that have said so.
    announced: u64,
    /// Of the frame that is coming: its stream, the message, whether it is the last frame, and whether all of it so far
    /// is of a message that had begun before.
    stream: u32,
    part: Part,
    is_last: bool,
    goes_on: bool,
    /// What its last bytes are to be.
    end: Option<[u8; stand_in::LENGTH]>,
}

impl Messages {
    pub(super) fn new() -> Messages {
        Messages {
            parts: Vec::new(),
            announced: 0,
            stream: 0,
            part: Part::Nothing,
            is_last: false,
            goes_on: false,
            end: None,
        }
    }

    /// A DATA frame begins that has bytes. Returns whether it comes behind a message that was too long.
    pub(super) fn begin(&mut self, stream: u32, is_last: bool) -> bool {
        self.stream = stream;
        self.is_last = is_last;
        self.end = None;
        if self.parts.is_empty() {
            self.part = Part::Nothing;
            self.goes_on = false;
            return false;
        }
        if self.is_lost(stream) {
            return true;
        }
        self.part = self.take(stream).unwrap_or(Part::Nothing);
        self.goes_on = self.part != Part::Nothing;
        false
    }

    /// More of that frame, which has so many bytes `behind` these. Returns the first message for which there is no room.
    pub(super) fn go_on(&mut self, bytes: &mut [u8], behind: u32, room: Room) -> Option<TooLong> {
        let mut too_long = None;
        let mut at = match self.part {
            Part::Nothing => whole(bytes, room.message),
            _ => 0,
        };
        while at < bytes.len() {
            match self.part {
                Part::Lost => break,
                Part::Body { left, length } => {
                    let taken = (bytes.len() - at).min(left as usize);
                    at += taken;
                    self.set_body(left - taken as u32, length);
                }
                Part::Nothing => {
                    // The flags.
                    self.part = Part::Prefix {
                        count: 1,
                        length: 0,
                    };
                    at += 1;
                }
                Part::Prefix { count, length } => {
                    let length = length << 8 | u32::from(bytes[at]);
                    let count = count + 1;
                    at += 1;
                    if count < PREFIX {
                        self.part = Part::Prefix { count, length };
                        continue;
                    }
                    self.set_body(length, length);
                    let rest = (bytes.len() - at) as u32 + behind;
                    let is_too_long = length > room.message;
                    let fits = length <= rest || self.announced + u64::from(length) <= room.all;
                    // If this is the last frame, the rest of it will not come.
                    if (!is_too_long && fits) || too_long.is_some() || self.is_last {
                        continue;
                    }
                    if at >= usize::from(PREFIX) && rest >= stand_in::LENGTH as u32 {
                        bytes[at - 4..at].copy_from_slice(&rest.to_be_bytes());
                        self.part = Part::Lost;
                        self.end = Some(stand_in::end(if is_too_long { length } else { 0 }));
                        too_long = Some(TooLong::Cut);
                    } else {
                        too_long = Some(TooLong::Gone(length));
                    }
                }
            }
        }
        if let Some(end) = &self.end {
            // Those that come last in the frame, as far as they are here.
            let from_end = behind as usize;
            for (distance, byte) in end.iter().rev().enumerate().skip(from_end) {
                let Some(at) = bytes.len().checked_sub(distance - from_end + 1) else {
                    break;
                };
                bytes[at] = *byte;
            }
        }
        too_long
    }

    /// That frame ends. Returns whether all of it is of a message that had begun before and goes on.
    pub(super) fn end(&mut self) -> bool {
        if self.part == Part::Nothing || self.is_last {
            return false;
        }
        let stream = self.stream;
        self.take(stream);
        let at = self.parts.partition_point(|it| it.0 < stream);
        self.parts.insert(at, (stream, self.part));
        self.announced += self.part.announced();
        self.goes_on
    }

    /// How many bytes the messages are to have that have come in part.
    pub(super) fn announced(&self) -> u64 {
        self.announced
    }

    /// Nothing is kept of the stream any more.
    pub(super) fn remove(&mut self, stream: u32) {
        self.take(stream);
    }

    fn is_lost(&self, stream: u32) -> bool {
        let at = self.parts.binary_search_by_key(&stream, |it| it.0);
        at.is_ok_and(|at| self.parts[at].1 == Part::Lost)
    }

    fn take(&mut self, stream: u32) -> Option<Part> {
        if self.parts.is_empty() {
            return None;
        }
        let at = self.parts.binary_search_by_key(&stream, |it| it.0).ok()?;
        let part = self.parts.remove(at).1;
        self.announced -= part.announced();
        Some(part)
    }

    fn set_body(&mut self, left: u32, length: u32) {
        self.part = match left {
            0 => {
                self.goes_on = false;
                Part::Nothing
            }
            left => Part::Body { left, length },
        };
    }
}

/// How many bytes whole messages have, from the first on: most frames have nothing else.
#[inline]
fn whole(bytes: &[u8], limit: u32) -> usize {
    let mut at = 0;
    while let Some([_, length @ ..]) = bytes[at..].first_chunk::<5>() {
        let length = u32::from_be_bytes(*length);
        let left = bytes.len() - at - usize::from(PREFIX);
        if length > limit || length as usize > left {
            break;
        }
        at += usize::from(PREFIX) + length as usize;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As much as there is, for messages of so many bytes.
    fn each(message: u32) -> Room {
        Room {
            message,
            all: u64::MAX,
        }
    }

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
        assert_eq!(messages.go_on(&mut message(10), 5, each(10)), None);
        assert_eq!(messages.go_on(&mut message(0), 0, each(10)), None);
        assert!(!messages.end());
        assert!(messages.parts.is_empty());
    }

    #[test]
    fn a_long_message_is_found_when_its_prefix_is_there() {
        let mut messages = Messages::new();
        let mut bytes = [message(10), message(30)].concat();
        let end = bytes.len() - 1;
        messages.begin(3, false);
        let found = messages.go_on(&mut bytes[..end], 4, each(10));
        assert_eq!(found, Some(TooLong::Cut));
        // What is in the frame of it.
        assert_eq!(bytes[15..20], [0, 0, 0, 0, 29 + 4]);
        let mut behind = [0; 4];
        assert_eq!(messages.go_on(&mut behind, 0, each(10)), None);
        assert_eq!([&bytes[33..end], &behind].concat(), stand_in::end(30));
        messages.end();
        assert!(messages.begin(3, false), "the rest is not taken");
        messages.remove(3);
        assert!(messages.parts.is_empty());
    }

    #[test]
    fn a_long_message_whose_prefix_is_in_two_pieces_is_left_as_it_is() {
        let mut messages = Messages::new();
        let mut bytes = message(11);
        messages.begin(3, false);
        assert_eq!(messages.go_on(&mut bytes[..4], 0, each(10)), None);
        assert!(!messages.end());
        assert!(!messages.begin(3, false));
        let found = messages.go_on(&mut bytes[4..5], 0, each(10));
        assert_eq!(found, Some(TooLong::Gone(11)));
        assert!(messages.end());
        assert_eq!(bytes, message(11));
        // The last frame of a call: the message will not become whole.
        messages.begin(5, true);
        assert_eq!(messages.go_on(&mut bytes, 0, each(10)), None);
    }

    #[test]
    fn messages_that_come_in_part_have_only_so_much_room() {
        let room = Room {
            message: 100,
            all: 250,
        };
        let mut messages = Messages::new();
        let mut part = |stream, length, bytes: usize, is_last| {
            let mut bytes = message(length)[..5 + bytes].to_vec();
            messages.begin(stream, is_last);
            let found = messages.go_on(&mut bytes, 0, room);
            messages.end();
            (found, bytes, messages.announced())
        };
        assert_eq!(part(1, 100, 30, false).0, None);
        assert_eq!(part(3, 100, 30, false).0, None);
        // There is room for this, and one that has come whole needs none.
        assert_eq!(part(5, 50, 30, false).2, 250);
        assert_eq!(part(7, 100, 100, false).0, None);
        assert_eq!(part(7, 100, 30, true).0, None, "the rest will not come");
        let (found, bytes, announced) = part(9, 60, 30, false);
        assert_eq!((found, announced), (Some(TooLong::Cut), 250));
        assert_eq!(bytes[..5], [0, 0, 0, 0, 30]);
        assert_eq!(bytes[15..], stand_in::end(0));
        // No room for what stands for it: it is taken, and counts.
        let (found, _, announced) = part(11, 60, 3, false);
        assert_eq!((found, announced), (Some(TooLong::Gone(60)), 310));
        for stream in [1, 3, 5, 9, 11] {
            messages.remove(stream);
        }
        assert_eq!((messages.announced(), messages.parts.len()), (0, 0));
    }

    proptest! {
        /// However messages are cut into frames, and frames into pieces: none is taken for too long, and nothing is left.
        #[test]
        fn messages_are_followed_in_any_pieces(
            lengths in prop::collection::vec(0u32..600, 1..8),
            cuts in prop::collection::vec(1usize..400, 1..20),
        ) {
            let mut whole: Vec<u8> = lengths.iter().flat_map(|it| message(*it)).collect();
            let before = whole.clone();
            let limit = *lengths.iter().max().unwrap();
            let mut messages = Messages::new();
            let mut at = 0;
            for (number, cut) in cuts.iter().cycle().enumerate() {
                if at == whole.len() {
                    break;
                }
                let end = (at + cut).min(whole.len());
                prop_assert!(!messages.begin(5, false));
                let half = at + (end - at) / 2;
                let behind = (end - half) as u32;
                prop_assert_eq!(messages.go_on(&mut whole[at..half], behind, each(limit)), None);
                prop_assert_eq!(messages.go_on(&mut whole[half..end], 0, each(limit)), None);
                messages.end();
                // Another stream's do not disturb.
                messages.begin(7, number % 2 == 0);
                messages.go_on(&mut [0, 0, 0, 0, 9, 1], 0, each(600));
                messages.end();
                messages.remove(7);
                at = end;
            }
            prop_assert!(messages.parts.is_empty());
            prop_assert_eq!(whole, before);
        }
    }
}
