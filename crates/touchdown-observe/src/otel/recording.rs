//! What is kept of a call while it is recorded.

use std::sync::OnceLock;
use std::time::Duration;

use super::ids::SpanId;
use super::span::PeerAddress;

/// What is kept of a call while it is recorded.
pub(super) struct Recording {
    pub(super) parent: Option<SpanId>,
    /// When it arrived, since 1970.
    pub(super) start: Duration,
    pub(super) peer: Option<PeerAddress>,
    /// What its caller is told beside the code, if the server is at fault.
    pub(super) message: OnceLock<Box<str>>,
}
