//! Calls whose trailers are looked at: C-core's clients, touchdown's among them, keep the load report to themselves.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use touchdown::protobuf::well_known_types::empty::Empty;
use touchdown::protobuf::{Message, UnknownValueRef};
use touchdown::testing::TestServer;

pub const LONG: Duration = Duration::from_secs(60);

const TRAILER: &[u8] = b"endpoint-load-metrics-bin";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// An `OrcaLoadReport`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    pub calls: f64,
    pub faults: f64,
    pub utilization: f64,
}

impl Report {
    fn decode(bytes: &[u8]) -> Report {
        let message = Empty::parse_from_bytes(bytes).unwrap();
        let mut report = Report::default();
        for (number, value) in message.special_fields.unknown_fields().iter() {
            let field = match number {
                6 => &mut report.calls,
                7 => &mut report.faults,
                9 => &mut report.utilization,
                _ => panic!("field {number}"),
            };
            let UnknownValueRef::Fixed64(bits) = value else {
                panic!("field {number} is no double");
            };
            *field = f64::from_bits(bits);
        }
        report
    }
}

/// A connection on which HTTP/2 is written by hand.
pub struct Caller {
    socket: TcpStream,
    stream: u32,
}

impl Caller {
    pub fn new(server: &TestServer) -> Caller {
        let mut socket = TcpStream::connect(server.address().to_string()).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .unwrap();
        // GRPC_ALLOW_TRUE_BINARY_METADATA: bytes as they are, behind a zero, and neither base64 nor Huffman's code.
        write_frame(&mut socket, SETTINGS, 0, 0, &[0xfe, 3, 0, 0, 0, 1]);
        let (kind, flags, _, _) = read_frame(&mut socket);
        assert_eq!((kind, flags), (SETTINGS, 0));
        write_frame(&mut socket, SETTINGS, 1, 0, &[]);
        Caller { socket, stream: 1 }
    }

    /// Calls with an empty message, and returns the report in the trailers.
    pub fn call(&mut self, path: &str) -> Option<Report> {
        let Caller { socket, stream } = self;
        let mut block = Vec::new();
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "test"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ] {
            // A literal with a name that is one, too. (RFC 7541, 6.2.2)
            block.push(0);
            for text in [name, value] {
                block.push(text.len().try_into().unwrap());
                block.extend_from_slice(text.as_bytes());
            }
        }
        write_frame(socket, HEADERS, END_HEADERS, *stream, &block);
        write_frame(socket, DATA, END_STREAM, *stream, &[0; 5]);
        let trailers = loop {
            let (kind, flags, on, payload) = read_frame(socket);
            assert!(![RST_STREAM, GOAWAY].contains(&kind), "{payload:?}");
            if (kind, on) == (HEADERS, *stream) && flags & END_STREAM != 0 {
                break payload;
            }
        };
        *stream += 2;
        let mut places = trailers.windows(TRAILER.len());
        let place = places.position(|it| it == TRAILER)?;
        let value = &trailers[place + TRAILER.len()..];
        let length = usize::from(value[0]);
        assert_eq!((length < 127, value[1]), (true, 0));
        Some(Report::decode(&value[2..=length]))
    }

    /// Calls again until the report is as it is to be. Panics if it never is.
    pub fn call_until(&mut self, path: &str, is_so: impl Fn(&Report) -> bool) -> Report {
        let end = std::time::Instant::now() + LONG;
        loop {
            let report = self.call(path).expect("a report");
            if is_so(&report) {
                return report;
            }
            assert!(std::time::Instant::now() < end, "{report:?}");
        }
    }
}

fn write_frame(socket: &mut TcpStream, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    socket.write_all(&frame).unwrap();
}

fn read_frame(socket: &mut TcpStream) -> (u8, u8, u32, Vec<u8>) {
    let mut header = [0; 9];
    socket.read_exact(&mut header).unwrap();
    let [a, b, c, kind, flags, stream @ ..] = header;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    socket.read_exact(&mut payload).unwrap();
    (kind, flags, u32::from_be_bytes(stream), payload)
}
