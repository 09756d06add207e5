//! All observers of a server: what is told below goes to each of them, and no panic of theirs comes back.

use std::fmt;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::calls::{self, Connection, Landed, Moved, Record, Refusal, TurnedAway, Why};
use crate::logging;
use crate::thrown::message_of;

use super::call::{Call, Peer};
use super::context;
use super::kind::CallKind;
use super::observer::{
    CallEnd, CallObserver, CallOutcome, CallRefusal, ConnectionEvent, ConnectionRefusal,
    RefusalReason, SentAwayReason, Traffic,
};
use super::status::Code;

/// How often a panic is logged at the most.
const LOG_PAUSE: Duration = Duration::from_secs(1);

/// The observers, in the order in which they were added.
pub(super) struct Observers {
    observers: Vec<Box<dyn CallObserver>>,
    panics: AtomicU64,
    /// When the last panic was logged.
    logged: Mutex<Option<Instant>>,
}

impl Observers {
    /// `None` if there are none.
    pub(super) fn new(observers: Vec<Box<dyn CallObserver>>) -> Option<Arc<Observers>> {
        (!observers.is_empty()).then(|| {
            Arc::new(Observers {
                observers,
                panics: AtomicU64::new(0),
                logged: Mutex::new(None),
            })
        })
    }

    fn tell(&self, tell: impl Fn(&dyn CallObserver)) {
        for observer in &self.observers {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| tell(&**observer))) {
                self.caught(&message_of(panic));
            }
        }
    }

    fn caught(&self, text: &dyn fmt::Display) {
        self.panics.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut logged = self.logged.lock();
        if logged.is_none_or(|it| now.saturating_duration_since(it) >= LOG_PAUSE) {
            *logged = Some(now);
            let panics = self.panics.swap(0, Ordering::Relaxed);
            logging::error!("call observers panicked {panics} times, at last: {text}");
        }
    }
}

impl calls::Observer for Observers {
    fn arrived(&self, core: &Arc<calls::Call>) {
        let call = Call::new(Arc::clone(core));
        self.tell(|it| it.arrived(&call));
    }

    fn begun(&self, core: &Arc<calls::Call>) {
        let waited = core.record().map_or(Duration::ZERO, Record::waited);
        let call = Call::new(Arc::clone(core));
        self.tell(|it| it.begun(&call, waited));
    }

    fn ended(&self, core: &Arc<calls::Call>, landed: Landed) {
        let Some(record) = core.record() else {
            return;
        };
        let call = Call::new(Arc::clone(core));
        let code = Code::from_number(record.code());
        let kind = CallKind::of(core);
        let outcome = match landed {
            Landed::Completed => CallOutcome::Completed,
            Landed::CallerLeft => CallOutcome::CallerLeft,
            Landed::Undelivered => CallOutcome::Undelivered,
            Landed::Cut => CallOutcome::Cut,
            Landed::ToldToStop => CallOutcome::ToldToStop,
            Landed::Abandoned => CallOutcome::Abandoned,
            Landed::Refused => {
                let refusal = CallRefusal {
                    reason: reason(record.refusal()),
                    code,
                    waited: record.waited(),
                    received: record.requests().into(),
                    kind,
                };
                self.tell(|it| it.refused(&call, &refusal));
                context::landed_if_uncounted(core);
                return;
            }
        };
        let end = CallEnd {
            code,
            outcome,
            waited: record.waited(),
            ran: record.ran().unwrap_or_default(),
            received: record.requests().into(),
            sent: record.replies().into(),
            kind,
        };
        self.tell(|it| it.ended(&call, &end));
        context::landed_if_uncounted(core);
    }

    fn connection(&self, event: Connection<'_>) {
        let event = match event {
            Connection::Opened {
                number,
                peer,
                encrypted,
            } => ConnectionEvent::Opened {
                number,
                peer: Peer::parse(peer),
                encrypted,
            },
            Connection::Closed { number, peer } => ConnectionEvent::Closed {
                number,
                peer: Peer::parse(peer),
            },
            Connection::Refused { peer, why } => ConnectionEvent::Refused {
                peer: Peer::parse(peer),
                reason: match why {
                    TurnedAway::LimitReached => ConnectionRefusal::LimitReached,
                    TurnedAway::AddressLimit => ConnectionRefusal::AddressLimit,
                    TurnedAway::NoDescriptor => ConnectionRefusal::NoDescriptor,
                },
            },
            Connection::SentAway { number, why } => ConnectionEvent::SentAway {
                number,
                reason: match why {
                    Why::Age => SentAwayReason::Age,
                    Why::Idle => SentAwayReason::Idle,
                    Why::Room => SentAwayReason::Room,
                    Why::NoProgress => SentAwayReason::NoProgress,
                    Why::NotTaken => SentAwayReason::NotTaken,
                    Why::Crowd => SentAwayReason::TooManyCalls,
                },
            },
            Connection::Misconduct {
                number,
                why,
                is_cut,
            } => ConnectionEvent::SentAway {
                number,
                reason: SentAwayReason::Misconduct {
                    what: why.to_owned(),
                    is_cut,
                },
            },
            #[cfg(feature = "tls")]
            Connection::HandshakeFailed { peer, why } => ConnectionEvent::HandshakeFailed {
                peer: Peer::parse(peer),
                reason: why.to_owned(),
            },
        };
        self.tell(|it| it.connection(&event));
    }
}

fn reason(refusal: Option<Refusal>) -> RefusalReason {
    match refusal {
        Some(Refusal::UnknownMethod) => RefusalReason::UnknownMethod,
        Some(Refusal::NoMessage) => RefusalReason::NoRequest,
        Some(Refusal::Malformed) => RefusalReason::Malformed,
        Some(Refusal::BacklogFull) => RefusalReason::BacklogFull,
        Some(Refusal::AnswersNotTaken) => RefusalReason::AnswersNotTaken,
        Some(Refusal::ArrivedLate | Refusal::Expired) => RefusalReason::Expired,
        Some(Refusal::DeadlineTooNear | Refusal::ShutdownTooNear) => RefusalReason::TooLittleTime,
        Some(Refusal::ShuttingDown) | None => RefusalReason::ShuttingDown,
    }
}

impl From<Moved> for Traffic {
    fn from(moved: Moved) -> Traffic {
        Traffic {
            messages: moved.messages,
            bytes: moved.bytes,
        }
    }
}
