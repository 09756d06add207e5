//! A call as a span, by OpenTelemetry's conventions for RPC 1.45, in which they are stable.
//!
//! <https://opentelemetry.io/docs/specs/semconv/rpc/rpc-spans/>

use std::sync::Arc;

use touchdown::{CallOutcome, Code, RefusalReason};

use super::context::TraceContext;
use super::ids::SpanId;

/// Where the names below are defined, in the version that has them so.
pub(super) const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.45.0";

/// The names of attributes.
pub(super) mod attribute {
    pub(in crate::otel) const SYSTEM: &str = "rpc.system.name";
    pub(in crate::otel) const METHOD: &str = "rpc.method";
    /// Up to 1.44 it was `rpc.response.status_code`.
    pub(in crate::otel) const STATUS_CODE: &str = "rpc.status_code";
    pub(in crate::otel) const ERROR_TYPE: &str = "error.type";
    pub(in crate::otel) const PEER_ADDRESS: &str = "network.peer.address";
    pub(in crate::otel) const PEER_PORT: &str = "network.peer.port";
    /// Of the event of this name, in seconds.
    pub(in crate::otel) const QUEUE_WAIT: &str = "touchdown.queue_wait.duration";
    /// Of a call that was refused, in the words of [`RefusalReason`](touchdown::RefusalReason).
    pub(in crate::otel) const REFUSAL_REASON: &str = "touchdown.refusal.reason";
}

/// The only value of [`attribute::SYSTEM`] here, and the name of a span whose method does not exist.
pub(super) const GRPC: &str = "grpc";

/// The value of [`attribute::METHOD`] for methods that do not exist: strangers choose their names.
pub(super) const OTHER: &str = "_OTHER";

/// A call that has ended.
pub(super) struct Span {
    pub(super) context: Arc<TraceContext>,
    pub(super) parent: Option<SpanId>,
    /// `package.Service/Method`; `None` if it does not exist.
    pub(super) method: Option<Box<str>>,
    /// In nanoseconds since 1970, as all points in time here.
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) peer: Option<PeerAddress>,
    pub(super) code: Code,
    /// What the caller was told beside the code; empty if that is not known.
    pub(super) message: Box<str>,
    pub(super) events: Vec<Event>,
}

/// Where the caller is: an IP address with a port, or the path of a unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PeerAddress {
    pub(super) address: Box<str>,
    pub(super) port: Option<u16>,
}

/// Something that happened to the call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Event {
    pub(super) name: &'static str,
    pub(super) at: u64,
    pub(super) attribute: Option<(&'static str, Value)>,
}

/// The value of an attribute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    Text(&'static str),
    Seconds(f64),
}

impl Event {
    pub(super) fn new(name: &'static str, at: u64) -> Event {
        Event {
            name,
            at,
            attribute: None,
        }
    }

    pub(super) fn with(self, key: &'static str, value: Value) -> Event {
        Event {
            attribute: Some((key, value)),
            ..self
        }
    }
}

/// Whether this code says that the server is at fault. The conventions have
/// [these six](https://opentelemetry.io/docs/specs/semconv/rpc/grpc/) for the server's side.
pub(super) fn is_error(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// The name of the event for a call that did not end as its handler said.
pub(super) fn event_of(outcome: CallOutcome) -> Option<&'static str> {
    match outcome {
        CallOutcome::CallerLeft => Some("touchdown.caller_left"),
        CallOutcome::Undelivered => Some("touchdown.undelivered"),
        CallOutcome::Cut => Some("touchdown.cut"),
        CallOutcome::ToldToStop => Some("touchdown.told_to_stop"),
        CallOutcome::Abandoned => Some("touchdown.abandoned"),
        // And what touchdown does not know yet.
        _ => None,
    }
}

/// Why a call was refused, as attributes spell it.
pub(super) fn word_for(reason: RefusalReason) -> &'static str {
    match reason {
        RefusalReason::UnknownMethod => "unknown_method",
        RefusalReason::NoRequest => "no_request",
        RefusalReason::Malformed => "malformed",
        RefusalReason::BacklogFull => "backlog_full",
        RefusalReason::AnswersNotTaken => "answers_not_taken",
        RefusalReason::Expired => "expired",
        RefusalReason::TooLittleTime => "too_little_time",
        RefusalReason::ShuttingDown => "shutting_down",
        _ => OTHER,
    }
}
