//! The words in labels: those of go-grpc-middleware, which dashboards and rules are written for, and our own.

use touchdown::lifecycle::Phase;
use touchdown::{Code, ConnectionRefusal, RefusalReason, SentAwayReason, ServedMethod};

/// How many status codes there are.
pub(super) const CODES: usize = 17;

/// As Go's `codes.Code.String()` spells them.
const CODE_NAMES: [&str; CODES] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// Codes that every method has from the start, so that a rule sees the first error: OK, and those that the rules of etcd and
/// Thanos ask for.
pub(super) const WATCHED: [Code; 9] = [
    Code::Ok,
    Code::Unknown,
    Code::DeadlineExceeded,
    Code::ResourceExhausted,
    Code::FailedPrecondition,
    Code::Unimplemented,
    Code::Internal,
    Code::Unavailable,
    Code::DataLoss,
];

pub(super) fn place_of(code: Code) -> usize {
    // Codes have the numbers 0 to 16.
    (code as usize).min(CODES - 1)
}

pub(super) fn code_name(place: usize) -> &'static str {
    CODE_NAMES[place]
}

/// `grpc_type`.
pub(super) fn type_of(method: &ServedMethod) -> &'static str {
    match (method.streams_requests, method.streams_replies) {
        (false, false) => "unary",
        (true, false) => "client_stream",
        (false, true) => "server_stream",
        (true, true) => "bidi_stream",
    }
}

/// All reasons for which a call is refused, by their places.
pub(super) const REFUSALS: [&str; 9] = [
    "unknown_method",
    "no_request",
    "malformed",
    "backlog_full",
    "answers_not_taken",
    "expired",
    "too_little_time",
    "shutting_down",
    "other",
];

pub(super) fn refusal(reason: RefusalReason) -> usize {
    match reason {
        RefusalReason::UnknownMethod => 0,
        RefusalReason::NoRequest => 1,
        RefusalReason::Malformed => 2,
        RefusalReason::BacklogFull => 3,
        RefusalReason::AnswersNotTaken => 4,
        RefusalReason::Expired => 5,
        RefusalReason::TooLittleTime => 6,
        RefusalReason::ShuttingDown => 7,
        _ => 8,
    }
}

/// All reasons for which a connection is refused.
pub(super) const CONNECTION_REFUSALS: [&str; 4] =
    ["limit_reached", "address_limit", "no_descriptor", "other"];

pub(super) fn connection_refusal(reason: ConnectionRefusal) -> usize {
    match reason {
        ConnectionRefusal::LimitReached => 0,
        ConnectionRefusal::AddressLimit => 1,
        ConnectionRefusal::NoDescriptor => 2,
        _ => 3,
    }
}

/// All reasons for which a connection is sent away.
pub(super) const SENT_AWAY: [&str; 8] = [
    "age",
    "idle",
    "room",
    "no_progress",
    "not_taken",
    "too_many_calls",
    "misconduct",
    "other",
];

pub(super) fn sent_away(reason: &SentAwayReason) -> usize {
    match reason {
        SentAwayReason::Age => 0,
        SentAwayReason::Idle => 1,
        SentAwayReason::Room => 2,
        SentAwayReason::NoProgress => 3,
        SentAwayReason::NotTaken => 4,
        SentAwayReason::TooManyCalls => 5,
        SentAwayReason::Misconduct { .. } => 6,
        _ => 7,
    }
}

/// All phases, with their words in labels.
pub(super) const PHASES: [(Phase, &str); 7] = [
    (Phase::Starting, "starting"),
    (Phase::Serving, "serving"),
    (Phase::LameDuck, "lame_duck"),
    (Phase::Draining, "draining"),
    (Phase::Cancelling, "cancelling"),
    (Phase::Closing, "closing"),
    (Phase::Stopped, "stopped"),
];
