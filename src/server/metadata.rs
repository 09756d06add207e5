//! Metadata: what travels beside the messages.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use crate::calls;

/// The metadata that came with a request.
///
/// Names are in lower case. Those that end in `-bin` have bytes as values, all others printable
/// ASCII without spaces at the ends. A name may occur more than once.
///
/// Other text is not here: gRPC says that a tab, or a byte beyond ASCII, must not fail a call, and may be thrown away. What
/// HTTP does not allow in a value either (a line break, zero) fails the call with INTERNAL before any handler runs.
#[derive(Clone, Copy)]
pub struct Metadata<'a> {
    call: &'a calls::Call,
}

impl<'a> Metadata<'a> {
    pub(super) fn new(call: &'a calls::Call) -> Metadata<'a> {
        Metadata { call }
    }

    /// The first value of a text entry. Case does not matter in `name`.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.get_all(name).next()
    }

    /// All values of a text entry, in the order in which they came.
    pub fn get_all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.values(name).filter_map(text)
    }

    /// The first value of a binary entry, whose name ends in `-bin`.
    pub fn get_bin(&self, name: &str) -> Option<&'a [u8]> {
        self.values(name).next()
    }

    /// Every name and value, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        let pairs = self.call.metadata();
        pairs.filter_map(|(name, value)| {
            Some((std::str::from_utf8(name).ok()?, legal(name, value)?))
        })
    }

    fn values<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let pairs = self.call.metadata();
        pairs
            .filter(move |(it, _)| it.eq_ignore_ascii_case(name.as_bytes()))
            .filter_map(|(name, value)| legal(name, value))
    }
}

/// A value as it is given out under this name.
fn legal<'a>(name: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    match name.ends_with(b"-bin") {
        true => Some(value),
        false => text(value).map(str::as_bytes),
    }
}

/// A value as text, without the spaces at its ends; `None` if it is not printable ASCII.
fn text(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    let is_printable = text.bytes().all(|it| matches!(it, b' '..=b'~'));
    is_printable.then(|| text.trim_matches(' '))
}

impl fmt::Debug for Metadata<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self
            .iter()
            .map(|(name, value)| (name, String::from_utf8_lossy(value)));
        formatter.debug_map().entries(pairs).finish()
    }
}

/// A value of metadata to be sent: text for most names, bytes for those that end in `-bin`.
///
/// Made from strings and byte slices by `into()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value<'a>(Cow<'a, [u8]>);

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value(Cow::Borrowed(text.as_bytes()))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Value(Cow::Owned(text.into_bytes()))
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Value(Cow::Borrowed(bytes))
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Value<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Value(Cow::Borrowed(bytes))
    }
}

impl From<Vec<u8>> for Value<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Value(Cow::Owned(bytes))
    }
}

impl Value<'_> {
    /// The name and the value as they are sent, if they may be.
    pub(crate) fn checked(self, name: &str) -> Result<(String, Vec<u8>), MetadataError> {
        checked(name, self)
    }
}

/// Why metadata could not be set.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetadataError {
    /// The name is empty, has a character other than `a-z`, `0-9`, `_`, `-` and `.`, or is one
    /// that gRPC (`grpc-…`, `content-type`, `te`, `user-agent`, `lb-token`, `lb-cost-bin`,
    /// `endpoint-load-metrics-bin` but as a trailer) or HTTP (`content-length`, `host`, `connection`,
    /// `keep-alive`, `proxy-connection`, `transfer-encoding`, `upgrade`) keeps for itself.
    Name(String),
    /// The value of this text entry has a character that is not printable ASCII. A name that ends
    /// in `-bin` takes any bytes.
    Value(String),
    /// It is too late for this one: they were sent.
    Sent(String),
}

impl fmt::Display for MetadataError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetadataError::Name(name) => write!(
                formatter,
                "{name:?} cannot be the name of metadata: use a-z, 0-9, '_', '-' and '.', and \
                 none that gRPC or HTTP/2 keeps for itself"
            ),
            MetadataError::Value(name) => write!(
                formatter,
                "the value of {name:?} is not printable ASCII; a name that ends in -bin takes bytes"
            ),
            MetadataError::Sent(name) => {
                write!(formatter, "too late to set {name:?}: already sent")
            }
        }
    }
}

impl Error for MetadataError {}

/// What nobody may set: gRPC's own, what C-core takes for its own and drops without a word (a length,
/// load reports, all but one of several values), and what would make the response malformed for a
/// strict client ([RFC 9113, 8.2.2](https://www.rfc-editor.org/rfc/rfc9113#section-8.2.2)).
const RESERVED: [&str; 13] = [
    "connection",
    "content-length",
    "content-type",
    "endpoint-load-metrics-bin",
    "host",
    "keep-alive",
    "lb-cost-bin",
    "lb-token",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// The [load report](https://github.com/grpc/proposal/blob/master/A51-custom-backend-metrics.md), which a server sends as a
/// trailer. C-core sends one, and keeps it from a client's program.
const LOAD_REPORT: &str = "endpoint-load-metrics-bin";

/// As `checked`, for a trailer.
pub(super) fn checked_trailer(
    name: &str,
    value: Value<'_>,
) -> Result<(String, Vec<u8>), MetadataError> {
    match name {
        LOAD_REPORT => Ok((name.to_owned(), value.0.into_owned())),
        name => checked(name, value),
    }
}

/// Checks a name and a value against the rules of
/// [gRPC over HTTP/2](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
pub(super) fn checked(name: &str, value: Value<'_>) -> Result<(String, Vec<u8>), MetadataError> {
    let name = name.to_ascii_lowercase();
    let legal = |it: u8| matches!(it, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.');
    let reserved = name.starts_with("grpc-") || RESERVED.contains(&&*name);
    if name.is_empty() || reserved || !name.bytes().all(legal) {
        return Err(MetadataError::Name(name));
    }
    let text = !name.ends_with("-bin");
    if text && !value.0.iter().all(|it| matches!(it, 0x20..=0x7e)) {
        return Err(MetadataError::Value(name));
    }
    Ok((name, value.0.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_checked() {
        let check = |name: &str, value: &[u8]| checked(name, value.into());
        assert_eq!(
            check("X-Id", b"7").unwrap(),
            ("x-id".to_owned(), b"7".to_vec())
        );
        assert!(check("raw-bin", &[0, 255]).is_ok());
        for name in [
            "",
            "a b",
            "ä",
            ":path",
            "grpc-status",
            "te",
            "Connection",
            "a\0",
        ] {
            assert_eq!(
                check(name, b"").unwrap_err(),
                MetadataError::Name(name.to_lowercase())
            );
        }
        let report = |name| checked_trailer(name, (&[0, 255]).into());
        assert!(report(LOAD_REPORT).is_ok());
        assert!(report("lb-cost-bin").is_err());
        assert!(checked(LOAD_REPORT, (&[0, 255]).into()).is_err());
        for value in [&b"\n"[..], &[0], &[0x7f], "ü".as_bytes()] {
            assert_eq!(
                check("text", value).unwrap_err(),
                MetadataError::Value("text".into())
            );
        }
    }
}
