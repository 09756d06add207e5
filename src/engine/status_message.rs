//! Status messages in the form of the wire.

use std::borrow::Cow;
use std::fmt::Write;

/// A status message as it goes over the wire: what is neither a space nor a visible
/// character of ASCII, and the percent sign, as `%XX`. See "Status-Message" in
/// [gRPC over HTTP/2](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
/// Spaces at its ends as well: no header field may have them there (RFC 9113, 8.2.1), and
/// some clients drop one that does.
pub(super) fn percent_encoded(message: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'%';
    let inside = message.trim_matches(' ');
    if inside.len() == message.len() && message.bytes().all(is_plain) {
        return Cow::Borrowed(message);
    }
    let begin = message.len() - message.trim_start_matches(' ').len();
    let inside = begin..begin + inside.len();
    let mut encoded = String::with_capacity(message.len() * 2);
    for (place, byte) in message.bytes().enumerate() {
        if is_plain(byte) && inside.contains(&place) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    Cow::Owned(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_message_is_percent_encoded() {
        assert_eq!(percent_encoded("plain text ~"), "plain text ~");
        assert_eq!(percent_encoded(" spaces  around "), "%20spaces  around%20");
        assert_eq!(percent_encoded("  "), "%20%20");
        assert_eq!(percent_encoded("100 %\n"), "100 %25%0A");
        // From gRPC's special_status_message interop test.
        assert_eq!(
            percent_encoded("\t\ntest with whitespace\r\nand Unicode BMP \u{263a} and non-BMP \u{1f608}\t\n"),
            "%09%0Atest with whitespace%0D%0Aand Unicode BMP %E2%98%BA and non-BMP %F0%9F%98%88%09%0A"
        );
    }
}
