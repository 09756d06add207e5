//! The bytes of a request, until they are whole.

use super::response::Refusal;
use super::HEAD_LIMIT;

/// How TLS begins: a handshake record. Its version, which comes next, begins with 3.
const TLS_HANDSHAKE: u8 = 0x16;

/// What has come of a request so far. Nothing is parsed before it is whole, so a client that sends single bytes costs
/// no more than another.
#[derive(Debug, Default)]
pub(super) struct Head {
    bytes: Vec<u8>,
    /// All that came, with the empty lines before the request.
    taken: usize,
}

/// What becomes of a request with some more bytes.
#[derive(Debug)]
pub(super) enum Step<'a> {
    /// It is not whole.
    More,
    /// The request, up to the empty line at its end. Whatever came after that is left out.
    Whole(&'a [u8]),
    /// It cannot become one.
    Refused(Refusal),
}

impl Head {
    /// Whether nothing has come yet.
    pub(super) fn is_untouched(&self) -> bool {
        self.taken == 0
    }

    pub(super) fn take(&mut self, bytes: &[u8]) -> Step<'_> {
        let room = HEAD_LIMIT - self.taken;
        let is_too_much = bytes.len() > room;
        let mut bytes = &bytes[..bytes.len().min(room)];
        self.taken += bytes.len();
        if self.bytes.is_empty() {
            // RFC 9112, section 2.2: a server should ignore empty lines before a request.
            bytes = trim_empty_lines(bytes);
            match bytes.first() {
                Some(&TLS_HANDSHAKE) => return Step::Refused(Refusal::TLS),
                Some(first) if !first.is_ascii_alphabetic() => {
                    return Step::Refused(Refusal::MALFORMED)
                }
                _ => {}
            }
        }
        let searched = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        match self.end(searched) {
            Some(end) => Step::Whole(&self.bytes[..end]),
            None if is_too_much || self.taken == HEAD_LIMIT => Step::Refused(Refusal::TOO_LARGE),
            None => Step::More,
        }
    }

    /// Where the first empty line ends. It is not before `searched`.
    fn end(&self, searched: usize) -> Option<usize> {
        (searched..self.bytes.len())
            .filter(|index| self.bytes[*index] == b'\n')
            .map(|index| index + 1)
            .find(|end| {
                let line = &self.bytes[..end - 1];
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                line.ends_with(b"\n")
            })
    }
}

fn trim_empty_lines(bytes: &[u8]) -> &[u8] {
    let first = bytes.iter().position(|it| !matches!(it, b'\r' | b'\n'));
    &bytes[first.unwrap_or(bytes.len())..]
}
