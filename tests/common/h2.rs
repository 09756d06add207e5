//! HTTP/2 by hand: frames and header blocks as no client library sends them, and what the server answers.

use std::io::{Read, Write};
use std::net::TcpStream;

use touchdown::Server;

use super::{frame, LONG, PREFACE};

/// END_STREAM, of HEADERS and DATA.
pub const END_STREAM: u8 = 1;
/// END_HEADERS.
pub const END_HEADERS: u8 = 4;

/// The names of HPACK's static table that a server uses (RFC 7541, appendix A); the values of the first fourteen matter
/// only for `:status`.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

type Field = (String, String);

/// A connection on which HTTP/2 is written by hand.
pub struct RawClient {
    pub socket: TcpStream,
    /// HPACK's dynamic table, the newest entry first. Nothing here sends so much that one would be dropped.
    table: Vec<Field>,
}

/// What the server has answered to one call.
#[derive(Debug, Default)]
pub struct Answer {
    /// Headers and trailers, in their order.
    pub fields: Vec<Field>,
    /// What was in DATA frames.
    pub data: Vec<u8>,
    /// The code of RST_STREAM, if that came without the end of the answer.
    pub reset: Option<u32>,
}

impl Answer {
    /// The value of a header or trailer that is there once, or not at all.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|it| it.0 == name);
        let value = values.next().map(|it| &*it.1);
        assert!(values.next().is_none(), "{name} twice: {self:?}");
        value
    }

    /// The status code; panics if there is none.
    pub fn code(&self) -> u32 {
        let status = self.get("grpc-status");
        let status = status.unwrap_or_else(|| panic!("no status: {self:?}"));
        status.parse().unwrap()
    }

    pub fn message(&self) -> &str {
        self.get("grpc-message").unwrap_or_default()
    }
}

impl RawClient {
    pub fn new(server: &Server) -> RawClient {
        let mut socket = TcpStream::connect(server.address().to_string()).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket.write_all(PREFACE).unwrap();
        let mut client = RawClient {
            socket,
            table: Vec::new(),
        };
        let (kind, flags, _, _) = client.read_frame();
        assert_eq!((kind, flags), (4, 0), "SETTINGS come first");
        // The server's settings hold once they are acknowledged.
        client.send(&frame(4, 1, 0, &[]));
        client
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// Type, flags, stream and payload of the next frame.
    pub fn read_frame(&mut self) -> (u8, u8, u32, Vec<u8>) {
        let mut header = [0; 9];
        self.socket.read_exact(&mut header).expect("a frame comes");
        let [_, _, _, kind, flags, stream @ ..] = header;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; length as usize];
        self.socket.read_exact(&mut payload).unwrap();
        (kind, flags, u32::from_be_bytes(stream), payload)
    }

    /// What the server answers on this stream, until it ends or resets it. What comes on others is dropped.
    pub fn answer(&mut self, stream: u8) -> Answer {
        let mut answer = Answer::default();
        loop {
            let (kind, flags, on, payload) = self.read_frame();
            let fields = match kind {
                1 => self.fields(&payload),
                _ => Vec::new(),
            };
            assert_ne!(kind, 7, "GOAWAY: {:?}", String::from_utf8_lossy(&payload));
            if on != u32::from(stream) {
                continue;
            }
            match kind {
                0 => answer.data.extend_from_slice(&payload),
                1 => answer.fields.extend(fields),
                3 => {
                    answer.reset = Some(u32::from_be_bytes(payload.try_into().unwrap()));
                    return answer;
                }
                _ => continue,
            }
            if flags & END_STREAM != 0 {
                return answer;
            }
        }
    }

    /// The fields of a header block. C-core writes strings without Huffman's code.
    fn fields(&mut self, mut block: &[u8]) -> Vec<Field> {
        let mut fields = Vec::new();
        while let [first, ..] = *block {
            match first {
                0x80.. => {
                    let index = number(&mut block, 7);
                    fields.push(self.entry(index));
                }
                0x20..0x40 => drop(number(&mut block, 5)),
                _ => {
                    let is_kept = first >= 0x40;
                    let index = number(&mut block, if is_kept { 6 } else { 4 });
                    let name = match index {
                        0 => string(&mut block),
                        _ => self.entry(index).0,
                    };
                    let field = (name, string(&mut block));
                    if is_kept {
                        self.table.insert(0, field.clone());
                    }
                    fields.push(field);
                }
            }
        }
        fields
    }

    fn entry(&self, index: usize) -> Field {
        match STATIC.get(index - 1) {
            Some((name, value)) => ((*name).to_owned(), (*value).to_owned()),
            None => self.table[index - 1 - STATIC.len()].clone(),
        }
    }
}

/// RFC 7541, 5.1.
fn number(block: &mut &[u8], bits: u32) -> usize {
    let most = (1 << bits) - 1;
    let mut next = || {
        let (first, rest) = block.split_first().expect("a block that is whole");
        *block = rest;
        usize::from(*first)
    };
    let mut number = next() & most;
    if number == most {
        for shift in (0..).step_by(7) {
            let byte = next();
            number += (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    number
}

/// RFC 7541, 5.2.
fn string(block: &mut &[u8]) -> String {
    assert_eq!(block[0] & 0x80, 0, "no Huffman's code");
    let length = number(block, 7);
    let (text, rest) = block.split_at(length);
    *block = rest;
    String::from_utf8(text.to_vec()).unwrap()
}
