//! The status codes that the server gives by itself, and what codes of HTTP/2 are called. See gRPC's
//! [`statuscodes.md`](https://github.com/grpc/grpc/blob/master/doc/statuscodes.md).

pub(super) const CANCELLED: i32 = 1;
pub(super) const DEADLINE_EXCEEDED: i32 = 4;
pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
pub(super) const UNIMPLEMENTED: i32 = 12;
pub(super) const INTERNAL: i32 = 13;
pub(super) const UNAVAILABLE: i32 = 14;

/// An error code as RFC 9113, section 7, calls it.
pub(super) fn error_name(code: u32) -> &'static str {
    match code {
        0 => "NO_ERROR",
        1 => "PROTOCOL_ERROR",
        3 => "FLOW_CONTROL_ERROR",
        4 => "SETTINGS_TIMEOUT",
        6 => "FRAME_SIZE_ERROR",
        11 => "ENHANCE_YOUR_CALM",
        _ => "another error",
    }
}
