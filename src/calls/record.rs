//! What is kept of a call for an observer, and why a call may be refused.

use std::sync::atomic::{AtomicI32, AtomicU64, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::call::ending::{Ending, SHUTTING_DOWN};
use super::codes::{DEADLINE_EXCEEDED, INTERNAL, RESOURCE_EXHAUSTED, UNIMPLEMENTED};

/// Why the server has refused a call, which no handler has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Refusal {
    UnknownMethod = 1,
    /// The request ended without a message.
    NoMessage,
    /// The request is none; a [fault](super::Fault) says why.
    Malformed,
    BacklogFull,
    AnswersNotTaken,
    /// The deadline had passed when it arrived.
    ArrivedLate,
    /// The deadline passed while it waited for a worker.
    Expired,
    /// The deadline is nearer than the method's minimum.
    DeadlineTooNear,
    /// The end of its time in the drain is nearer than the method's minimum.
    ShutdownTooNear,
    ShuttingDown,
}

impl Refusal {
    /// All of them, by their numbers.
    const ALL: [Refusal; 10] = [
        Refusal::UnknownMethod,
        Refusal::NoMessage,
        Refusal::Malformed,
        Refusal::BacklogFull,
        Refusal::AnswersNotTaken,
        Refusal::ArrivedLate,
        Refusal::Expired,
        Refusal::DeadlineTooNear,
        Refusal::ShutdownTooNear,
        Refusal::ShuttingDown,
    ];

    /// What the caller is told.
    pub(super) fn ending(self) -> Ending<'static> {
        match self {
            Refusal::UnknownMethod => Ending::new(UNIMPLEMENTED, "the method is not implemented"),
            // "Request cardinality violation", in the words of statuscodes.md.
            Refusal::NoMessage => Ending::new(
                UNIMPLEMENTED,
                "the method takes one message, and the request ended before its message",
            ),
            Refusal::Malformed => Ending::new(INTERNAL, "the request is malformed"),
            Refusal::BacklogFull => Ending::new(
                RESOURCE_EXHAUSTED,
                "all workers are busy and the backlog is full",
            ),
            Refusal::AnswersNotTaken => Ending::new(
                RESOURCE_EXHAUSTED,
                "too many callers do not take their answers",
            ),
            Refusal::ArrivedLate => Ending::new(
                DEADLINE_EXCEEDED,
                "the deadline had passed when the call arrived",
            ),
            Refusal::Expired => Ending::new(
                DEADLINE_EXCEEDED,
                "the deadline passed while the call waited for a worker",
            ),
            Refusal::DeadlineTooNear => Ending::new(
                DEADLINE_EXCEEDED,
                "the deadline is nearer than the shortest time that the method takes",
            ),
            Refusal::ShutdownTooNear => Ending {
                message: "the server is shutting down sooner than the method could end",
                ..SHUTTING_DOWN
            },
            Refusal::ShuttingDown => SHUTTING_DOWN,
        }
    }
}

/// What is kept of a call for an observer.
///
/// Written by the thread that does what it counts, and read once the call is over: the flags of the call, by which it
/// gets there, order the two. So each number is relaxed.
pub(crate) struct Record {
    arrived: Instant,
    begun: Moment,
    ended: Moment,
    code: AtomicI32,
    refusal: AtomicU8,
    received: Amount,
    sent: Amount,
    /// The path, if the method is not registered.
    unknown: Option<Box<str>>,
}

/// Messages, and their bytes as they are on the wire: compressed if they are, and without the five bytes before
/// each.
#[derive(Default)]
struct Amount {
    messages: AtomicU64,
    bytes: AtomicU64,
}

/// As in [`Record`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

/// How long after the call's arrival something happened, in nanoseconds and one more; zero if it has not.
#[derive(Default)]
struct Moment(AtomicU64);

impl Moment {
    fn set(&self, after: Duration) {
        let nanoseconds = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX - 1);
        self.0
            .store(nanoseconds.saturating_add(1), Ordering::Relaxed);
    }

    fn get(&self) -> Option<Duration> {
        let nanoseconds = self.0.load(Ordering::Relaxed).checked_sub(1)?;
        Some(Duration::from_nanos(nanoseconds))
    }
}

impl Amount {
    /// One thread at a time does this: the one that has the lock of the call's stream, or the only one there is.
    fn add(&self, bytes: usize) {
        let add = |to: &AtomicU64, more: u64| {
            to.store(to.load(Ordering::Relaxed) + more, Ordering::Relaxed);
        };
        add(&self.messages, 1);
        add(&self.bytes, bytes as u64);
    }

    fn get(&self) -> Moved {
        Moved {
            messages: self.messages.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

impl Record {
    /// Of a call that arrives now.
    pub(super) fn begin(arrived: Instant, unknown: Option<&str>) -> Record {
        Record {
            arrived,
            begun: Moment::default(),
            ended: Moment::default(),
            code: AtomicI32::new(0),
            refusal: AtomicU8::new(0),
            received: Amount::default(),
            sent: Amount::default(),
            unknown: unknown.map(Box::from),
        }
    }

    fn since_arrival(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.arrived)
    }

    pub(super) fn begun(&self, now: Instant) {
        // Most begin at once.
        let waited = match now == self.arrived {
            true => Duration::ZERO,
            false => self.since_arrival(now),
        };
        self.begun.set(waited);
    }

    /// To be called before it is known whether the call had ended already.
    pub(super) fn refused(&self, why: Refusal) {
        self.refusal.store(why as u8, Ordering::Relaxed);
    }

    pub(super) fn ended(&self, code: i32) {
        self.code.store(code, Ordering::Relaxed);
        self.ended.set(self.since_arrival(Instant::now()));
    }

    pub(super) fn received(&self, bytes: usize) {
        self.received.add(bytes);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.sent.add(bytes);
    }

    pub(super) fn unknown(&self) -> Option<&str> {
        self.unknown.as_deref()
    }

    /// From its arrival until its handler was begun; if it was not, until its end.
    pub(crate) fn waited(&self) -> Duration {
        let until = self.begun.get().or(self.ended.get());
        until.unwrap_or_default()
    }

    /// From the beginning of its handler until its status was given to the transport; `None` if it was not begun.
    pub(crate) fn ran(&self) -> Option<Duration> {
        let ended = self.ended.get()?;
        Some(ended.saturating_sub(self.begun.get()?))
    }

    /// The status code that was given to the transport.
    pub(crate) fn code(&self) -> i32 {
        self.code.load(Ordering::Relaxed)
    }

    /// Why it was refused, if it has landed so.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        let number = self.refusal.load(Ordering::Relaxed);
        Refusal::ALL.into_iter().find(|it| *it as u8 == number)
    }

    /// What was received, as far as the handler has taken it.
    pub(crate) fn requests(&self) -> Moved {
        self.received.get()
    }

    /// What was given to the transport.
    pub(crate) fn replies(&self) -> Moved {
        self.sent.get()
    }
}
