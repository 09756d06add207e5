//! What a client may send on one connection, judged frame by frame: the policy, and nothing else. It neither reads nor
//! writes, and time is passed in.
//!
//! C-core takes in whatever comes as long as it is HTTP/2. What HTTP/2's flow control does not stop (control frames, headers,
//! empty frames) costs the server more than its sender, and a message's limit is looked at only when the
//! message is whole. So every frame passes here first; `engine/cc/connection_guard.cc` does what is said:
//!
//! | what is sent | how much of it | then |
//! |---|---|---|
//! | control frames, empty and tiny DATA, and what else nobody needs to send | [`GLITCHES`] points | cut, ENHANCE_YOUR_CALM |
//! | PING | what the server has sent allows, and [`PINGS`] | cut, ENHANCE_YOUR_CALM, `too_many_pings` |
//! | a block of headers | [`CONTINUATIONS`], and four times what metadata may be | cut, ENHANCE_YOUR_CALM |
//! | calls that are reset, by the client, or by the server for what the client has sent; or whose headers cannot be read; or above those that may be open | [`RESETS`] | sent away, ENHANCE_YOUR_CALM |
//! | such calls, and any calls, behind that | [`LATE_RESETS`] | cut, ENHANCE_YOUR_CALM |
//! | a message that is announced with more bytes than one may have | none | that call fails, RESOURCE_EXHAUSTED, as soon as the length is known |
//! | messages that are still arriving, together | [`Limits::arriving`] | as above |
//! | what RFC 9113 calls an error of the connection | none | cut, the code that it says |
//!
//! *Cut* is GOAWAY, then the end of the connection. *Sent away* is GOAWAY: calls that have begun are served to their end, and
//! others are not begun.
//!
//! C-core keeps to its own limits (streams, metadata) only once the client has acknowledged them. Here it is told so at
//! once ([`Verdict::Open`]), and the client's own acknowledgement, which must come, is swallowed.

mod bucket;
mod control;
pub(super) mod door;
mod frame;
mod messages;
pub(super) mod stand_in;

use std::ffi::CStr;

use self::bucket::Bucket;
use self::frame::*;
use self::messages::{Messages, Room, TooLong};

/// How many points of glitches a connection has, and how many thousandths come back in a second: as many as in nghttp2.
/// Well-behaved clients (C-core, grpc-go, hyper, h2load) stay below a hundred.
const GLITCHES: (u32, u32) = (10_000, 330_000);
/// How many calls may be reset at once, and thousandths in a second. A call that is begun and reset costs the client
/// next to nothing, and does not count against the concurrent streams (CVE-2023-44487). nghttp2 allows 1,000 and 33; clients of
/// gRPC reset every call whose deadline passes, so they get more.
const RESETS: (u32, u32) = (1_000, 500_000);
/// The same once the client has been sent away, with the calls that it begins: what was on its way when GOAWAY came.
/// C-core drops those calls, which costs it little.
const LATE_RESETS: (u32, u32) = (10_000, 500_000);
/// How many pings may come that nothing the server has sent allows, and thousandths in a second. A client's keepalive may
/// ping every ten seconds (the least of grpc-go's), and a network may hold a ping back; so there is twice that.
const PINGS: (u32, u32) = (10, 200);
/// How many pings and window updates each frame of a call that the server has sent allows, and how many may be saved up. Clients
/// measure the bandwidth with the first, and answer DATA with up to two of the second.
const EARNED: u32 = 10;
const MOST_EARNED: u32 = 10_000;
/// How many it allows to begin a call: C-core's clients open the stream's window.
const EARNED_BY_CALL: u32 = 2;
/// How many CONTINUATION frames a block of headers may have, beside those that its most bytes need: as many as nghttp2
/// takes. Clients fill their frames, of 16 KiB.
const CONTINUATIONS: u32 = 8;
const FRAME_SIZE: u32 = 16 << 10;
/// How many bytes a block of headers may have on the wire at the least.
const LEAST_BLOCK: u32 = 64 << 10;
/// Below this many bytes DATA inside a message is tiny: the memory that holds a piece of a message is about as large.
const TINY: u32 = 256;
/// Of tiny DATA behind the end of a call, so many count as one. A client that does not know of the end yet sends as much as
/// a window has room for, which may be thousands of small messages.
const LATE_DATA: u32 = 64;
/// A message that is announced in two pieces is waited for if it has less than so many times what one may have.
const FAR: u32 = 4;
/// The same for all messages that are still arriving, together.
const FAR_TOGETHER: u64 = 2;
/// What headers cost on a stream that is over: they are decompressed, and nobody gets them.
const LATE_HEADERS: u32 = 10;
/// From this stream on the client is asked to connect again: there are no streams above 2^31.
const LAST_STREAM: u32 = 1 << 30;
/// The connection's window at first. RFC 9113, 6.9.2.
const WINDOW: i64 = 65_535;

/// What the connections of a server are held to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How many bytes a message may have.
    pub(super) message: u32,
    /// How many all messages of a connection may have together that are still arriving. One always may be.
    pub(super) arriving: u64,
    /// How many the metadata of a request may have.
    pub(super) metadata: u32,
}

/// Whether the first frames have come.
#[derive(PartialEq, Eq)]
enum Opening {
    Settings,
    Ack,
    Done,
}

/// A block of headers that is not whole.
struct Block {
    stream: u32,
    continuations: u32,
    bytes: u32,
}

/// What the payload of the frame that is coming is looked at for.
enum Payload {
    Nothing,
    Data { left: u32, is_tiny: bool },
    Window { stream: u32, left: u8, value: u32 },
}

/// What is known of what one client has sent.
pub(super) struct Guard {
    limits: Limits,
    opening: Opening,
    block: Option<Block>,
    /// The last stream that the client has begun.
    last: u32,
    glitches: Bucket,
    resets: Bucket,
    pings: Bucket,
    earned: u32,
    goaways: u32,
    /// Tiny frames of that kind since the last that was counted.
    late_data: u32,
    /// How much the server may send. RFC 9113, 5.2.
    window: i64,
    messages: Messages,
    payload: Payload,
    is_sent_away: bool,
    now: u64,
    /// The last fault.
    fault: Fault,
}

impl Guard {
    fn new(limits: Limits) -> Guard {
        let (glitches, resets, pings) = (GLITCHES, RESETS, PINGS);
        Guard {
            limits,
            opening: Opening::Settings,
            block: None,
            last: 0,
            glitches: Bucket::new(glitches.0, glitches.1),
            resets: Bucket::new(resets.0, resets.1),
            pings: Bucket::new(pings.0, pings.1),
            earned: 0,
            goaways: 0,
            late_data: 0,
            window: WINDOW,
            messages: Messages::new(),
            payload: Payload::Nothing,
            is_sent_away: false,
            now: 0,
            fault: fault(NO_ERROR, c""),
        }
    }

    /// A frame begins, at this time in milliseconds.
    fn begins(&mut self, frame: Frame, now: u64) -> Verdict {
        self.now = now;
        self.payload = Payload::Nothing;
        if self.opening == Opening::Settings {
            if frame.kind != SETTINGS || frame.has(ACK) {
                return self.cut(PROTOCOL_ERROR, c"the first frame is not SETTINGS");
            }
        } else if self.block.is_some() && !may_interrupt(frame) {
            return self.cut(PROTOCOL_ERROR, c"a block of headers is interrupted");
        }
        match frame.kind {
            DATA => self.data(frame),
            HEADERS => self.headers(frame),
            CONTINUATION => self.continuation(frame),
            RST_STREAM => self.reset(frame),
            SETTINGS => self.settings(frame),
            PING => self.ping(frame),
            GOAWAY => self.goaway(frame),
            WINDOW_UPDATE => self.window_update(frame),
            PUSH_PROMISE => self.cut(PROTOCOL_ERROR, c"PUSH_PROMISE from a client"),
            PRIORITY if frame.stream == 0 => self.cut(PROTOCOL_ERROR, c"PRIORITY without a stream"),
            // PRIORITY, and what HTTP/2 does not know.
            _ => self.unneeded(frame),
        }
    }

    fn data(&mut self, frame: Frame) -> Verdict {
        if !self.was_begun(frame.stream) {
            return self.cut(PROTOCOL_ERROR, c"DATA on a stream that was not begun");
        }
        let is_last = frame.has(END_STREAM);
        if frame.length == 0 {
            if is_last {
                self.messages.remove(frame.stream);
                return Verdict::Pass;
            }
            return self.glitch(1);
        }
        let is_tiny = frame.length < TINY;
        // What comes behind the end of a call C-core skips. It refuses padding.
        if !frame.is_open || frame.has(PADDED) {
            return self.late_data(is_tiny, Verdict::Pass);
        }
        if self.messages.begin(frame.stream, is_last) {
            return self.late_data(is_tiny, Verdict::Divert);
        }
        self.payload = Payload::Data {
            left: frame.length,
            is_tiny,
        };
        Verdict::Look
    }

    /// What nobody gets any more.
    fn late_data(&mut self, is_tiny: bool, verdict: Verdict) -> Verdict {
        self.late_data += u32::from(is_tiny);
        if self.late_data < LATE_DATA {
            return verdict;
        }
        self.late_data = 0;
        self.glitch_or(1, verdict)
    }

    fn headers(&mut self, frame: Frame) -> Verdict {
        if frame.stream % 2 == 0 {
            return self.cut(
                PROTOCOL_ERROR,
                c"HEADERS on a stream that is not a client's",
            );
        }
        let is_new = frame.stream > self.last;
        if !frame.has(END_HEADERS) {
            self.block = Some(Block {
                stream: frame.stream,
                continuations: 0,
                bytes: frame.length,
            });
        }
        if !is_new {
            if frame.has(END_STREAM) {
                self.messages.remove(frame.stream);
            }
            return match frame.is_open {
                true => Verdict::Pass,
                false => self.glitch(LATE_HEADERS),
            };
        }
        self.last = frame.stream;
        self.earned = (self.earned + EARNED_BY_CALL).min(MOST_EARNED);
        // One above those that may be open is refused: its client may not have known, at first.
        if self.is_sent_away || !frame.is_open {
            return self.reset_calls(1);
        }
        if frame.stream >= LAST_STREAM {
            return self.send_away(NO_ERROR, c"the connection's streams are used up");
        }
        Verdict::Pass
    }

    fn continuation(&mut self, frame: Frame) -> Verdict {
        let most = self.most_of_block();
        let Some(block) = &mut self.block else {
            return self.cut(PROTOCOL_ERROR, c"CONTINUATION of nothing");
        };
        if block.stream != frame.stream {
            return self.cut(PROTOCOL_ERROR, c"CONTINUATION on another stream");
        }
        block.continuations += 1;
        block.bytes = block.bytes.saturating_add(frame.length);
        if block.bytes > most || block.continuations > CONTINUATIONS + most / FRAME_SIZE {
            return self.cut(ENHANCE_YOUR_CALM, c"a block of headers is too large");
        }
        if frame.has(END_HEADERS) {
            self.block = None;
        }
        Verdict::Pass
    }

    fn most_of_block(&self) -> u32 {
        self.limits.metadata.saturating_mul(4).max(LEAST_BLOCK)
    }

    fn reset(&mut self, frame: Frame) -> Verdict {
        // It may be a stream that was not begun, which RFC 9113, 5.1 calls an error of the connection: a client on C-core
        // sends that for a call that ends before its HEADERS are written (`grpc_chttp2_cancel_stream`), and is to
        // keep its other calls.
        if frame.stream % 2 == 0 {
            return self.cut(
                PROTOCOL_ERROR,
                c"RST_STREAM of a stream that is not a client's",
            );
        }
        if frame.length != 4 {
            return self.cut(FRAME_SIZE_ERROR, c"RST_STREAM of another size");
        }
        self.messages.remove(frame.stream);
        self.reset_calls(1)
    }

    /// More of the payload of the frame that is coming.
    fn goes_on(&mut self, bytes: &mut [u8]) -> Verdict {
        match &mut self.payload {
            Payload::Nothing => Verdict::Pass,
            Payload::Data { left, is_tiny } => {
                *left = left.saturating_sub(bytes.len() as u32);
                let limit = self.limits.message;
                let room = Room {
                    message: limit,
                    all: self.limits.arriving.max(u64::from(limit)),
                };
                match self.messages.go_on(bytes, *left, room) {
                    Some(TooLong::Gone(length)) if length / FAR >= limit => {
                        return self.cut(ENHANCE_YOUR_CALM, c"a message is far too long");
                    }
                    _ => {}
                }
                if *left > 0 {
                    return Verdict::Pass;
                }
                let is_tiny = *is_tiny;
                let goes_on = self.messages.end();
                if self.messages.announced() / FAR_TOGETHER > room.all {
                    return self.cut(ENHANCE_YOUR_CALM, c"too many messages are still arriving");
                }
                self.glitch(u32::from(goes_on && is_tiny))
            }
            Payload::Window {
                stream,
                left,
                value,
            } => {
                for byte in bytes.iter() {
                    *value = *value << 8 | u32::from(*byte);
                    *left = left.saturating_sub(1);
                }
                if *left > 0 {
                    return Verdict::Pass;
                }
                let (stream, more) = (*stream, *value & 0x7fff_ffff);
                self.widen(stream, more)
            }
        }
    }

    /// The server sends so many frames of calls, so many bytes of DATA, and resets so many calls for what the client has sent.
    fn written(&mut self, frames: u32, data: u64, resets: u32, now: u64) -> Verdict {
        self.now = now;
        let earned = frames.saturating_mul(EARNED);
        self.earned = self.earned.saturating_add(earned).min(MOST_EARNED);
        let data = i64::try_from(data).unwrap_or(i64::MAX);
        self.window = self.window.saturating_sub(data);
        match resets {
            0 => Verdict::Pass,
            resets => self.reset_calls(resets),
        }
    }

    /// The server has sent the end of a call.
    fn ended(&mut self, stream: u32) {
        self.messages.remove(stream);
    }

    /// The rest of a block of headers, or the acknowledgement of the server's settings, has not come in time.
    fn overdue(&mut self, are_headers: bool) -> Verdict {
        if are_headers {
            return self.cut(ENHANCE_YOUR_CALM, c"a block of headers does not end");
        }
        self.cut(
            SETTINGS_TIMEOUT,
            c"the server's SETTINGS were not acknowledged",
        )
    }

    fn was_begun(&self, stream: u32) -> bool {
        stream % 2 == 1 && stream <= self.last
    }

    fn earn(&mut self) -> bool {
        let has = self.earned > 0;
        self.earned = self.earned.saturating_sub(1);
        has
    }

    fn glitch(&mut self, points: u32) -> Verdict {
        self.glitch_or(points, Verdict::Pass)
    }

    /// Unless it is too much, the verdict is this.
    fn glitch_or(&mut self, points: u32, verdict: Verdict) -> Verdict {
        if points == 0 || self.glitches.take(points, self.now) {
            return verdict;
        }
        self.cut(ENHANCE_YOUR_CALM, c"too many frames that nobody needs")
    }

    fn reset_calls(&mut self, count: u32) -> Verdict {
        if self.resets.take(count, self.now) {
            return Verdict::Pass;
        }
        if self.is_sent_away {
            return self.cut(ENHANCE_YOUR_CALM, c"too many calls were reset after GOAWAY");
        }
        self.resets = Bucket::new(LATE_RESETS.0, LATE_RESETS.1);
        self.send_away(ENHANCE_YOUR_CALM, c"too many calls were reset")
    }

    fn send_away(&mut self, code: u32, text: &'static CStr) -> Verdict {
        self.is_sent_away = true;
        self.fault = fault(code, text);
        Verdict::SendAway
    }

    fn cut(&mut self, code: u32, text: &'static CStr) -> Verdict {
        self.fault = fault(code, text);
        Verdict::Cut
    }
}

#[cfg(test)]
mod tests;
