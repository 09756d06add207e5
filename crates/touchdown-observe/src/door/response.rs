//! What is answered, and how that is written.

use std::fmt::Write as _;

/// What browsers may do with an answer: show it, with the style that is in it. There are no scripts in it, nothing is
/// loaded for it, and no other page has it in a frame.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// The media type of plain text.
const TEXT: &str = "text/plain; charset=utf-8";

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    /// The status code of HTTP.
    pub(crate) status: u16,
    /// The media type of the body.
    pub(crate) content_type: &'static str,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// Plain text.
    pub(crate) fn text(status: u16, body: impl Into<String>) -> Response {
        Response {
            status,
            content_type: TEXT,
            body: body.into().into_bytes(),
        }
    }

    /// The answer as it goes to the client; without the body, but with its length, if only the head is wanted.
    pub(super) fn into_bytes(self, is_head: bool) -> Vec<u8> {
        let mut head = String::with_capacity(512);
        let reason = reason(self.status);
        let length = self.body.len();
        let lines = write!(
            head,
            "HTTP/1.1 {} {reason}\r\n\
             Content-Type: {}\r\n\
             Content-Length: {length}\r\n\
             Cache-Control: no-store\r\n\
             Connection: close\r\n\
             Content-Security-Policy: {POLICY}\r\n\
             Cross-Origin-Resource-Policy: same-origin\r\n\
             Referrer-Policy: no-referrer\r\n\
             X-Content-Type-Options: nosniff\r\n",
            self.status, self.content_type,
        );
        debug_assert!(lines.is_ok(), "a string takes all");
        if self.status == 405 {
            head.push_str("Allow: GET, HEAD\r\n");
        }
        head.push_str("\r\n");
        let mut bytes = match is_head {
            true => Vec::new(),
            false => self.body,
        };
        bytes.splice(..0, head.into_bytes());
        bytes
    }
}

/// Why a request gets to no handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    status: u16,
    text: &'static str,
}

impl Refusal {
    pub(super) const MALFORMED: Refusal = Refusal {
        status: 400,
        text: "This is no request of HTTP/1.1.\n",
    };
    pub(super) const TLS: Refusal = Refusal {
        status: 400,
        text: "Plain HTTP is spoken here, without TLS.\n",
    };
    pub(super) const HOST: Refusal = Refusal {
        status: 400,
        text: "A request of HTTP/1.1 has one header Host.\n",
    };
    pub(super) const PATH: Refusal = Refusal {
        status: 400,
        text: "This path cannot be decoded.\n",
    };
    pub(super) const CUT: Refusal = Refusal {
        status: 400,
        text: "The request has ended before it was whole.\n",
    };
    pub(super) const METHOD: Refusal = Refusal {
        status: 405,
        text: "Only GET and HEAD are understood here.\n",
    };
    pub(super) const LATE: Refusal = Refusal {
        status: 408,
        text: "The request has taken too long.\n",
    };
    pub(super) const BODY: Refusal = Refusal {
        status: 413,
        text: "No body is read here.\n",
    };
    pub(super) const MISDIRECTED: Refusal = Refusal {
        status: 421,
        text: "This address is asked as localhost, or by its IP address.\n",
    };
    pub(super) const TOO_LARGE: Refusal = Refusal {
        status: 431,
        text: "The request has too many bytes or headers.\n",
    };
    pub(super) const VERSION: Refusal = Refusal {
        status: 505,
        text: "HTTP/1.1 is spoken here. gRPC has another port.\n",
    };

    /// As it goes to the client, who is not known to want only the head of it.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        Response::from(self).into_bytes(false)
    }
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Response {
        Response::text(refusal.status, refusal.text)
    }
}

/// RFC 9110, section 15. Clients go by the number.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        413 => "Content Too Large",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Status",
    }
}
