//! What is wrong with a request that came in a form that gRPC does not have.

use super::call::ending::Ending;
use super::codes::{INTERNAL, RESOURCE_EXHAUSTED, UNIMPLEMENTED};

/// Why a request, or a message of a stream, is none. The codes are those of gRPC's
/// [`statuscodes.md`](https://github.com/grpc/grpc/blob/master/doc/statuscodes.md) and
/// [`compression.md`](https://github.com/grpc/grpc/blob/master/doc/compression.md); where they say nothing, it is
/// INTERNAL, which stands for what breaks the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Another HTTP method than POST.
    Method,
    /// Another content-type than gRPC's, or none.
    ContentType,
    /// A grpc-timeout that is none.
    Timeout,
    /// A grpc-encoding that the server does not know.
    Encoding,
    /// A header that cannot be read.
    Header,
    /// A value of metadata with characters that HTTP does not allow.
    Metadata,
    /// The byte in front of a message is neither 0 nor 1.
    Flag,
    /// A message is compressed, and nobody has said how.
    NoEncoding,
    /// The request has ended in the midst of a message.
    CutShort,
    /// There is more than one message, and the method takes one.
    More,
    /// The connection's messages that are still arriving leave no room for this one.
    NoRoom,
}

impl Fault {
    pub(crate) fn code(self) -> i32 {
        match self {
            Fault::Method | Fault::Encoding | Fault::More => UNIMPLEMENTED,
            Fault::NoRoom => RESOURCE_EXHAUSTED,
            _ => INTERNAL,
        }
    }

    pub(crate) fn text(self) -> &'static str {
        match self {
            Fault::Method => "another HTTP method than POST is not implemented here",
            Fault::ContentType => "the content-type is not application/grpc",
            Fault::Timeout => {
                "grpc-timeout is malformed: it has 1 to 8 digits and one of the units H, M, S, m, u and n"
            }
            Fault::Encoding => {
                "the grpc-encoding is not supported here; identity, deflate and gzip are"
            }
            Fault::Header => {
                "a header cannot be read: its name is none, or its value none that the name allows, such as Base64 for -bin"
            }
            Fault::Metadata => {
                "a value of the metadata has a character that HTTP does not allow (RFC 9110, 5.5)"
            }
            Fault::Flag => "the Compressed-Flag of a message is neither 0 nor 1",
            Fault::NoEncoding => {
                "the Compressed-Flag of a message is 1, without a grpc-encoding other than identity"
            }
            Fault::CutShort => "the request ended in the midst of a message",
            Fault::More => "the method takes one message, and the request has more than one",
            Fault::NoRoom => {
                "the messages of this connection that are still arriving leave no room for another (memory_limit): send \
                 fewer at once"
            }
        }
    }

    /// How a call ends that no handler has seen because of this.
    pub(super) fn ending(self) -> Ending<'static> {
        Ending::new(self.code(), self.text())
    }
}
