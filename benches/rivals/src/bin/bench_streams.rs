//! How many messages of 32 bytes a server streams a second, in one direction.
//!
//!     bench_streams ADDRESS down|up SECONDS
//!
//! One connection and one call at a time, of 10,000 messages each. Requests share DATA frames, as those of
//! gRPC clients do that have more to send than goes out at once; tonic takes many small frames for an
//! attack, and closes the connection. The client speaks HTTP/2 by itself, so that it takes little of the time:
//! clients made for use take more for a message than most servers do. It does not decode the status, it
//! counts what came: all messages, or a reply of the right length.

use std::env;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const MESSAGES: usize = 10_000;
/// What this side lets a server send ahead, on the connection and on each stream. As much as tonic does.
const WINDOW: u32 = 1 << 20;
/// The size of a DATA frame that every peer takes.
const FRAME: i64 = 16 << 10;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [address, direction, seconds] = arguments.as_slice() else {
        return Err("usage: bench_streams ADDRESS down|up SECONDS".into());
    };
    let time = Duration::from_secs_f64(seconds.parse()?);
    let call = match direction.as_str() {
        "down" => Connection::download,
        "up" => Connection::upload,
        _ => return Err("the direction is up or down".into()),
    };
    let mut connection = Connection::open(address)?;
    let start = Instant::now();
    let mut messages = 0;
    while start.elapsed() < time {
        call(&mut connection)?;
        messages += MESSAGES;
    }
    println!("{messages} messages in {} s", start.elapsed().as_secs_f64());
    Ok(())
}

struct Connection {
    address: String,
    socket: TcpStream,
    /// What was read and is not yet taken apart: `input[start..end]`.
    input: Vec<u8>,
    start: usize,
    end: usize,
    output: Vec<u8>,
    stream: u32,
    /// What the server lets this side send: on any stream at first, on the connection, on the stream.
    initial_window: i64,
    connection_window: i64,
    stream_window: i64,
    /// Bytes received for which the server has not been given new ones.
    connection_taken: u32,
    stream_taken: u32,
    /// Of the current call: what came in, and whether that was all.
    messages: usize,
    payload: usize,
    prefix: Vec<u8>,
    to_skip: usize,
    ended: bool,
}

impl Connection {
    fn open(address: &str) -> Result<Connection> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        // So that a server which stops in the middle is an error.
        socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut connection = Connection {
            address: address.to_owned(),
            socket,
            input: vec![0; 256 << 10],
            start: 0,
            end: 0,
            output: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            // The next has the number 1.
            stream: u32::MAX,
            initial_window: 65_535,
            connection_window: 65_535,
            stream_window: 0,
            connection_taken: 0,
            stream_taken: 0,
            messages: 0,
            payload: 0,
            prefix: Vec::new(),
            to_skip: 0,
            ended: false,
        };
        let mut settings = Vec::new();
        for (name, value) in [(2u16, 0), (4, WINDOW)] {
            settings.extend(name.to_be_bytes());
            settings.extend(value.to_be_bytes());
        }
        connection.frame(SETTINGS, 0, 0, &settings);
        connection.frame(WINDOW_UPDATE, 0, 0, &(WINDOW - 65_535).to_be_bytes());
        Ok(connection)
    }

    /// One request, many replies.
    fn download(&mut self) -> Result<()> {
        self.begin("/greeter.Greeter/SayManyHellos");
        // The text is "Hello, …!", 30 bytes; with tag and length the reply is 32.
        let mut request = message(&[b'x'; 22]);
        request.push(0x10);
        let mut count = MESSAGES;
        while count > 0x7f {
            request.push((count & 0x7f) as u8 | 0x80);
            count >>= 7;
        }
        request.push(count as u8);
        let stream = self.stream;
        self.frame(DATA, END_STREAM, stream, &with_prefix(&request));
        while !self.ended {
            self.flush()?;
            self.read()?;
        }
        self.expect(MESSAGES, MESSAGES * 32)
    }

    /// Many requests, one reply.
    fn upload(&mut self) -> Result<()> {
        self.begin("/greeter.Greeter/GreetEverybody");
        let request = with_prefix(&message(&[b'x'; 30]));
        let stream = self.stream;
        let mut left = MESSAGES;
        while left > 0 {
            let window = self.stream_window.min(self.connection_window);
            let count = left.min(window.clamp(0, FRAME) as usize / request.len());
            if count == 0 {
                self.flush()?;
                self.read()?;
                continue;
            }
            left -= count;
            let payload = request.repeat(count);
            self.stream_window -= payload.len() as i64;
            self.connection_window -= payload.len() as i64;
            let flags = if left == 0 { END_STREAM } else { 0 };
            self.frame(DATA, flags, stream, &payload);
            self.flush()?;
            self.read_what_is_there()?;
        }
        while !self.ended {
            self.flush()?;
            self.read()?;
        }
        // All the names, and " and " between them.
        let text = MESSAGES * 30 + (MESSAGES - 1) * 5 + "Hello, !".len();
        self.expect(1, text + 1 + 3)
    }

    fn begin(&mut self, path: &str) {
        self.stream = self.stream.wrapping_add(2);
        self.stream_window = self.initial_window;
        self.stream_taken = 0;
        self.messages = 0;
        self.payload = 0;
        self.ended = false;
        // HPACK's static table: ":method: POST" and ":scheme: http"; the others are literals.
        let mut block = vec![0x83, 0x86];
        for (name, value) in [
            (":path", path),
            (":authority", self.address.as_str()),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ] {
            block.push(0);
            for text in [name, value] {
                block.push(text.len() as u8);
                block.extend(text.as_bytes());
            }
        }
        self.frame(HEADERS, END_HEADERS, self.stream, &block);
    }

    fn expect(&self, messages: usize, payload: usize) -> Result<()> {
        if (self.messages, self.payload) != (messages, payload) {
            return Err(format!(
                "{} messages of {} bytes came instead of {messages} of {payload}",
                self.messages, self.payload
            )
            .into());
        }
        Ok(())
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.output
            .extend(&(payload.len() as u32).to_be_bytes()[1..]);
        self.output.extend([kind, flags]);
        self.output.extend(stream.to_be_bytes());
        self.output.extend(payload);
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            self.socket.write_all(&self.output)?;
            self.output.clear();
        }
        Ok(())
    }

    /// Waits for input, and takes it apart.
    fn read(&mut self) -> Result<()> {
        let count = self.socket.read(&mut self.input[self.end..])?;
        if count == 0 {
            return Err("the server closed the connection".into());
        }
        self.end += count;
        self.take_apart()
    }

    /// Answers the server's pings, by which it measures the path, while there is still a lot to send.
    fn read_what_is_there(&mut self) -> Result<()> {
        self.socket.set_nonblocking(true)?;
        let count = self.socket.read(&mut self.input[self.end..]);
        self.socket.set_nonblocking(false)?;
        match count {
            Ok(0) => Err("the server closed the connection".into()),
            Ok(count) => {
                self.end += count;
                self.take_apart()
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn take_apart(&mut self) -> Result<()> {
        while self.end - self.start >= 9 {
            let head: [u8; 9] = self.input[self.start..self.start + 9].try_into()?;
            let size = number(&head[..3]) as usize;
            if self.end - self.start < 9 + size {
                break;
            }
            let from = self.start + 9;
            self.start = from + size;
            self.received(head[3], head[4], number(&head[5..]), from..from + size)?;
        }
        // The largest frame is 16 KiB, as this side did not allow more, so that it always fits.
        self.input.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        Ok(())
    }

    fn received(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        at: std::ops::Range<usize>,
    ) -> Result<()> {
        match kind {
            DATA => {
                if flags & PADDED != 0 {
                    return Err("padding is not known here".into());
                }
                self.taken(at.len() as u32);
                self.count(at);
            }
            SETTINGS if flags & ACK == 0 => {
                for setting in self.input[at].chunks_exact(6) {
                    if number(&setting[..2]) == 4 {
                        let window = i64::from(number(&setting[2..]));
                        self.stream_window += window - self.initial_window;
                        self.initial_window = window;
                    }
                }
                self.frame(SETTINGS, ACK, 0, &[]);
            }
            PING if flags & ACK == 0 => {
                let payload = self.input[at].to_vec();
                self.frame(PING, ACK, 0, &payload);
            }
            WINDOW_UPDATE => {
                let more = i64::from(number(&self.input[at]));
                if stream == 0 {
                    self.connection_window += more;
                } else if stream == self.stream {
                    self.stream_window += more;
                }
            }
            // After a reply in full this is a server that needs no more requests.
            RST_STREAM if !self.ended => return Err("the server reset the call".into()),
            GOAWAY => {
                let reason = String::from_utf8_lossy(&self.input[at]);
                return Err(format!("the server said GOAWAY: {reason:?}").into());
            }
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            self.ended = true;
        }
        Ok(())
    }

    /// Gives the server as much to send again, in large steps.
    fn taken(&mut self, bytes: u32) {
        self.connection_taken += bytes;
        self.stream_taken += bytes;
        if self.connection_taken >= WINDOW / 2 {
            let more = self.connection_taken.to_be_bytes();
            self.frame(WINDOW_UPDATE, 0, 0, &more);
            self.connection_taken = 0;
        }
        if self.stream_taken >= WINDOW / 2 {
            let more = self.stream_taken.to_be_bytes();
            self.frame(WINDOW_UPDATE, 0, self.stream, &more);
            self.stream_taken = 0;
        }
    }

    /// Counts the messages in a piece of a stream.
    fn count(&mut self, mut at: std::ops::Range<usize>) {
        while !at.is_empty() {
            if self.to_skip > 0 {
                let size = self.to_skip.min(at.len());
                self.to_skip -= size;
                at.start += size;
                continue;
            }
            self.prefix.push(self.input[at.start]);
            at.start += 1;
            if self.prefix.len() == 5 {
                self.to_skip = number(&self.prefix[1..]) as usize;
                self.messages += 1;
                self.payload += self.to_skip;
                self.prefix.clear();
            }
        }
    }
}

/// A message whose field 1 is this string.
fn message(text: &[u8]) -> Vec<u8> {
    let mut message = vec![0x0a, text.len() as u8];
    message.extend(text);
    message
}

/// A message as it goes on the wire: not compressed, and so long.
fn with_prefix(message: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend((message.len() as u32).to_be_bytes());
    bytes.extend(message);
    bytes
}

fn number(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}
