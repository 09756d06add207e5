//! What is said of frames: their headers, what is to be done about them, and why GOAWAY is sent.

use std::ffi::CStr;

/// Types and flags of frames. RFC 9113, 6.
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;

/// The header of a frame that has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) length: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    /// Whether the stream is that of a call of which neither side has sent RST_STREAM, nor the server the end; and of HEADERS
    /// that come first, whether fewer calls are open than may be.
    pub(super) is_open: bool,
}

impl Frame {
    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// What is to be done about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    /// Pass, and show what is in it.
    Look,
    /// Pass, and C-core's settings are acknowledged behind it.
    Open,
    /// C-core does not get it: it is the client's acknowledgement.
    Swallow,
    /// C-core gets it for a stream that is nobody's: it belongs to a call that fails.
    Divert,
    /// GOAWAY; the calls that have begun go on.
    SendAway,
    /// GOAWAY, and the end.
    Cut,
}

/// Why GOAWAY is sent: an error code (RFC 9113, 7), and what the client and the log are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: u32,
    pub(super) text: &'static CStr,
}

pub(super) const fn fault(code: u32, text: &'static CStr) -> Fault {
    Fault { code, text }
}

/// Whether it may come before a block of headers is whole. In a drain the acknowledgement of a ping is held back until then;
/// otherwise C-core says that it may not.
pub(super) fn may_interrupt(frame: Frame) -> bool {
    frame.kind == CONTINUATION || (frame.kind == PING && frame.has(ACK))
}

pub(super) const NO_ERROR: u32 = 0;
pub(super) const PROTOCOL_ERROR: u32 = 1;
pub(super) const FLOW_CONTROL_ERROR: u32 = 3;
pub(super) const SETTINGS_TIMEOUT: u32 = 4;
pub(super) const FRAME_SIZE_ERROR: u32 = 6;
pub(super) const ENHANCE_YOUR_CALM: u32 = 11;
