//! What is known of a call that is to be logged, and how a line says it.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use log::kv::{ToValue, Value};
use touchdown::{
    Call, CallEnd, CallKind, CallOutcome, CallRefusal, Code, Peer, RefusalReason, Traffic,
};

use super::lines::escape::escaped;
use super::lines::time;
use super::messages::Message;
use super::trace::{self, Ids};

/// How many bytes of a method's name a line has: of one that does not exist, strangers choose it.
const METHOD: usize = 256;

/// How many bytes of an address that is none of IP.
const ADDRESS: usize = 128;

pub(super) struct Entry {
    at: SystemTime,
    /// It is logged because it has failed.
    pub(super) is_failure: bool,
    method: String,
    code: Code,
    peer: Peer,
    duration: Duration,
    queue_wait: Duration,
    received: Traffic,
    sent: Traffic,
    kind: CallKind,
    fate: Fate,
    /// How many calls it stands for; 0 if it stands for itself.
    one_in: u32,
    message: Option<Cow<'static, str>>,
    ids: Option<Ids>,
}

#[derive(Clone, Copy)]
enum Fate {
    Ended(CallOutcome),
    Refused(RefusalReason),
}

/// A value of a line.
pub(super) enum Field {
    Number(u64),
    Text(Cow<'static, str>),
}

impl ToValue for Field {
    fn to_value(&self) -> Value<'_> {
        match self {
            Field::Number(number) => Value::from(*number),
            Field::Text(text) => Value::from(&**text),
        }
    }
}

impl From<u64> for Field {
    fn from(number: u64) -> Field {
        Field::Number(number)
    }
}

impl From<Duration> for Field {
    /// In nanoseconds, as ECS has it.
    fn from(time: Duration) -> Field {
        Field::Number(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl From<&'static str> for Field {
    fn from(text: &'static str) -> Field {
        Field::Text(text.into())
    }
}

impl From<String> for Field {
    fn from(text: String) -> Field {
        Field::Text(text.into())
    }
}

impl Entry {
    pub(super) fn ended(call: &Call, end: &CallEnd, is_failure: bool, one_in: u32) -> Entry {
        let message = call.extensions().get::<Message>();
        Entry {
            fate: Fate::Ended(end.outcome),
            duration: end.waited.saturating_add(end.ran),
            sent: end.sent,
            one_in,
            message: message.map(|it| it.0.clone().into()),
            ..Entry::of(
                call,
                end.code,
                end.kind,
                end.waited,
                end.received,
                is_failure,
            )
        }
    }

    pub(super) fn refused(call: &Call, refusal: &CallRefusal) -> Entry {
        let (code, kind, waited) = (refusal.code, refusal.kind, refusal.waited);
        Entry {
            fate: Fate::Refused(refusal.reason),
            message: Some(words(refusal.reason).1.into()),
            ..Entry::of(call, code, kind, waited, refusal.received, true)
        }
    }

    fn of(
        call: &Call,
        code: Code,
        kind: CallKind,
        waited: Duration,
        received: Traffic,
        is_failure: bool,
    ) -> Entry {
        let path = call.method();
        Entry {
            at: SystemTime::now(),
            is_failure,
            method: escaped(METHOD, path.strip_prefix('/').unwrap_or(path)),
            code,
            peer: call.peer(),
            duration: waited,
            queue_wait: waited,
            received,
            sent: Traffic::default(),
            kind,
            fate: Fate::Ended(CallOutcome::Completed),
            one_in: 0,
            message: None,
            ids: trace::ids_of(call),
        }
    }

    pub(super) fn at(&self) -> SystemTime {
        self.at
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let Entry {
            method,
            code,
            duration,
            ..
        } = self;
        format!("/{method} {code} in {duration:.1?}")
    }

    /// For machines.
    pub(super) fn pairs(&self) -> Vec<(&'static str, Field)> {
        let mut pairs: Vec<(&'static str, Field)> = Vec::with_capacity(22);
        let mut add = |key, field: Field| pairs.push((key, field));
        let mut end = String::new();
        time::push(&mut end, self.at);
        add("event.dataset", "touchdown.access".into());
        add("event.end", end.into());
        add("event.duration", self.duration.into());
        add("event.outcome", self.outcome().into());
        add("rpc.method", self.method.clone().into());
        add("rpc.status_code", self.code.as_str().into());
        let (address, port) = self.client();
        add("client.address", address.into());
        if let Some(port) = port {
            add("client.port", u64::from(port).into());
        }
        add("client.bytes", self.received.bytes.into());
        add("server.bytes", self.sent.bytes.into());
        add("touchdown.requests", self.received.messages.into());
        add("touchdown.replies", self.sent.messages.into());
        add("touchdown.queue_wait", self.queue_wait.into());
        add("touchdown.kind", kind(self.kind).into());
        add("touchdown.outcome", self.fate().into());
        if let Fate::Refused(reason) = self.fate {
            add("touchdown.reason", words(reason).0.into());
        }
        if self.one_in > 0 {
            add("touchdown.one_in", u64::from(self.one_in).into());
        }
        if let Some(message) = &self.message {
            add("error.message", Field::Text(message.clone()));
        }
        if let Some(ids) = &self.ids {
            add("trace.id", ids.trace().to_owned().into());
            add("span.id", ids.span().to_owned().into());
        }
        pairs
    }

    fn client(&self) -> (String, Option<u16>) {
        match &self.peer {
            Peer::Tcp(address) => (address.ip().to_string(), Some(address.port())),
            other => (escaped(ADDRESS, other), None),
        }
    }

    /// Whether the caller has got an answer, and that was OK.
    fn outcome(&self) -> &'static str {
        let has_answer = matches!(
            self.fate,
            Fate::Ended(CallOutcome::Completed | CallOutcome::ToldToStop)
        );
        match has_answer && self.code == Code::Ok {
            true => "success",
            false => "failure",
        }
    }

    fn fate(&self) -> &'static str {
        match self.fate {
            Fate::Refused(_) => "refused",
            Fate::Ended(CallOutcome::Completed) => "completed",
            Fate::Ended(CallOutcome::CallerLeft) => "caller_left",
            Fate::Ended(CallOutcome::Undelivered) => "undelivered",
            Fate::Ended(CallOutcome::Cut) => "cut",
            Fate::Ended(CallOutcome::ToldToStop) => "told_to_stop",
            Fate::Ended(CallOutcome::Abandoned) => "abandoned",
            Fate::Ended(_) => "unknown",
        }
    }
}

fn kind(kind: CallKind) -> &'static str {
    match kind {
        CallKind::Unary => "unary",
        CallKind::Streaming => "streaming",
        CallKind::Detached => "detached",
        CallKind::Health => "health",
        CallKind::UnknownMethod => "unknown_method",
        _ => "unknown",
    }
}

/// In one word, and for people.
fn words(reason: RefusalReason) -> (&'static str, &'static str) {
    match reason {
        RefusalReason::UnknownMethod => ("unknown_method", "the method does not exist"),
        RefusalReason::NoRequest => ("no_request", "the request ended without a message"),
        RefusalReason::Malformed => ("malformed", "the request is none that gRPC has"),
        RefusalReason::BacklogFull => (
            "backlog_full",
            "all workers are busy and the backlog is full",
        ),
        RefusalReason::AnswersNotTaken => ("answers_not_taken", "too many answers were not taken"),
        RefusalReason::Expired => ("expired", "the deadline passed before a worker was free"),
        RefusalReason::TooLittleTime => (
            "too_little_time",
            "less time was left than the method takes",
        ),
        RefusalReason::ShuttingDown => ("shutting_down", "the server is shutting down"),
        _ => ("unknown", "refused"),
    }
}
