//! Frames that belong to no call, or change how one is served.

use super::frame::*;
use super::{Guard, Opening, Payload};

/// Of frames that nobody needs, so many bytes count as one more.
const BYTES_A_GLITCH: u32 = 1024;
/// What a GOAWAY costs behind the two of a graceful end: it is a client's last word.
const LATE_GOAWAY: u32 = 100;
/// What no window may exceed. RFC 9113, 6.9.1.
const LARGEST_WINDOW: i64 = (1 << 31) - 1;

impl Guard {
    pub(super) fn settings(&mut self, frame: Frame) -> Verdict {
        if frame.stream != 0 {
            return self.cut(PROTOCOL_ERROR, c"SETTINGS on a stream");
        }
        let is_ack = frame.has(ACK);
        if frame.length % 6 != 0 || (is_ack && frame.length > 0) {
            return self.cut(FRAME_SIZE_ERROR, c"SETTINGS of another size");
        }
        match self.opening {
            Opening::Settings => {
                self.opening = Opening::Ack;
                Verdict::Open
            }
            Opening::Ack if is_ack => {
                self.opening = Opening::Done;
                Verdict::Swallow
            }
            _ => self.glitch(1 + frame.length / 48),
        }
    }

    pub(super) fn ping(&mut self, frame: Frame) -> Verdict {
        if frame.stream != 0 {
            return self.cut(PROTOCOL_ERROR, c"PING on a stream");
        }
        if frame.length != 8 {
            return self.cut(FRAME_SIZE_ERROR, c"PING of another size");
        }
        if frame.has(ACK) {
            return self.glitch(1);
        }
        if self.earn() || self.pings.take(1, self.now) {
            return Verdict::Pass;
        }
        // Clients of gRPC know this text, and ping half as often when they come back.
        self.cut(ENHANCE_YOUR_CALM, c"too_many_pings")
    }

    pub(super) fn goaway(&mut self, frame: Frame) -> Verdict {
        if frame.stream != 0 {
            return self.cut(PROTOCOL_ERROR, c"GOAWAY on a stream");
        }
        if frame.length < 8 {
            return self.cut(FRAME_SIZE_ERROR, c"GOAWAY of another size");
        }
        self.goaways += 1;
        let points = if self.goaways > 2 { LATE_GOAWAY } else { 0 };
        self.glitch(points + frame.length / BYTES_A_GLITCH)
    }

    pub(super) fn window_update(&mut self, frame: Frame) -> Verdict {
        if frame.stream != 0 && !self.was_begun(frame.stream) {
            return self.cut(
                PROTOCOL_ERROR,
                c"WINDOW_UPDATE of a stream that was not begun",
            );
        }
        if frame.length != 4 {
            return self.cut(FRAME_SIZE_ERROR, c"WINDOW_UPDATE of another size");
        }
        self.payload = Payload::Window {
            stream: frame.stream,
            left: 4,
            value: 0,
        };
        let points = u32::from(!self.earn());
        self.glitch_or(points, Verdict::Look)
    }

    pub(super) fn unneeded(&mut self, frame: Frame) -> Verdict {
        self.glitch(1 + frame.length / BYTES_A_GLITCH)
    }

    pub(super) fn widen(&mut self, stream: u32, more: u32) -> Verdict {
        if more == 0 {
            return self.cut(PROTOCOL_ERROR, c"WINDOW_UPDATE by nothing");
        }
        if stream == 0 {
            self.window = self.window.saturating_add(i64::from(more));
            if self.window > LARGEST_WINDOW {
                return self.cut(FLOW_CONTROL_ERROR, c"the connection's window is too large");
            }
        }
        Verdict::Pass
    }
}
