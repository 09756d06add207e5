//! Records calls: what is told of them becomes spans.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use touchdown::{
    Address, Answer, Call, CallEnd, CallKind, CallObserver, CallOutcome, CallRefusal, Interceptor,
    Next, Peer, Status,
};

use super::context::{state_of, Caller, TraceContext, RANDOM, SAMPLED};
use crate::text::shortened;

use super::counts::SpanCounts;
use super::ids::{SpanId, TraceId};
use super::kept::{within, Kept};
use super::queue::Queue;
use super::recording::Recording;
use super::roots;
use super::sampling::{Cap, Decision, Sampler};
use super::span::{attribute, event_of, is_error, word_for, Event, PeerAddress, Span, Value};

/// How much of a status message a span has, in bytes. It is for people to read, and there may be as many as the queue
/// holds.
const MESSAGE: usize = 256;

/// Observes a server. It blocks nowhere: what takes time is the exporter's.
pub(super) struct Recorder {
    sampler: Arc<Sampler>,
    cap: Cap,
    queue: Arc<Queue>,
    counts: SpanCounts,
    /// How many calls are being recorded. While there are none, no call is looked at as it ends, for that takes memory:
    /// [`Call::extensions`] makes room for some.
    recording: AtomicUsize,
    /// When the server began to drain, since 1970.
    draining: OnceLock<Duration>,
}

impl Recorder {
    pub(super) fn new(
        sampler: Arc<Sampler>,
        cap: Cap,
        queue: Arc<Queue>,
        counts: SpanCounts,
    ) -> Recorder {
        Recorder {
            sampler,
            cap,
            queue,
            counts,
            recording: AtomicUsize::new(0),
            draining: OnceLock::new(),
        }
    }

    pub(super) fn sampler(&self) -> &Arc<Sampler> {
        &self.sampler
    }

    /// The server began to drain so long ago.
    pub(super) fn drains(&self, ago: Duration) {
        let _ = self.draining.set(now().saturating_sub(ago));
    }

    /// Whether one more call may be recorded now.
    fn admits(&self) -> bool {
        let is_admitted = self.cap.admits();
        if !is_admitted {
            self.counts.add_capped();
        }
        is_admitted
    }

    fn begin(&self, call: &Call, caller: Option<Caller>, trace: TraceId) {
        let peer = call.peer();
        if peer == Peer::SmokeTest {
            return;
        }
        // A stranger's flags are not looked at: `caller` is `None` then.
        let flags = caller.map_or(RANDOM, |it| it.flags) | SAMPLED;
        let state = caller.map_or_else(Box::default, |_| state_of(call));
        let context = TraceContext::new(trace, SpanId::random(), flags, state);
        // The thread that ends the call comes after this one.
        self.recording.fetch_add(1, Ordering::Relaxed);
        call.extensions().insert(Kept {
            context: Arc::new(context),
            recording: Some(Recording {
                parent: caller.map(|it| it.span),
                start: now().saturating_sub(call.elapsed()),
                peer: address_of(call, &peer),
                message: OnceLock::new(),
            }),
        });
    }

    /// So long after its arrival the server began to drain, if the call was there yet.
    fn drained_after(&self, call: &Call, recording: &Recording, end: &End) -> Option<Duration> {
        let after = match self.draining.get() {
            Some(began) => began.checked_sub(recording.start)?,
            // Not told yet, or never.
            None => Duration::MAX,
        };
        // The server cuts the first calls before it is told that it drains.
        let is_cut = || end.is_stopped && call.is_draining();
        (after <= end.took || is_cut()).then_some(after.min(end.took))
    }

    /// The span of a call that has ended.
    fn end(&self, call: &Call, kept: &Kept, recording: &Recording, end: End) {
        let at = |after: Duration| nanoseconds(recording.start.saturating_add(after));
        let mut events = Vec::new();
        if let Some(waited) = end.waited.filter(|it| !it.is_zero()) {
            let waited_for = Value::Seconds(waited.as_secs_f64());
            let event = Event::new("touchdown.queue_wait", at(waited));
            events.push(event.with(attribute::QUEUE_WAIT, waited_for));
        }
        if let Some(after) = self.drained_after(call, recording, &end) {
            events.push(Event::new("touchdown.draining", at(after)));
        }
        events.extend(end.event.map(|it| Event {
            at: at(end.took),
            ..it
        }));
        events.sort_by_key(|it| it.at);
        let is_known = end.kind != CallKind::UnknownMethod;
        let method = call.method();
        let span = Span {
            context: Arc::clone(&kept.context),
            parent: recording.parent,
            method: is_known.then(|| method.strip_prefix('/').unwrap_or(method).into()),
            start: nanoseconds(recording.start),
            end: at(end.took),
            peer: recording.peer.clone(),
            code: end.code,
            message: recording.message.get().cloned().unwrap_or_default(),
            events,
        };
        if !self.queue.push(span) {
            self.counts.add_dropped(1);
        }
    }
}

/// How a call ended, as far as spans have it.
struct End {
    code: touchdown::Code,
    kind: CallKind,
    /// If its handler was begun.
    waited: Option<Duration>,
    /// From its arrival to its end.
    took: Duration,
    /// What happened at its end.
    event: Option<Event>,
    /// Whether the server has ended it.
    is_stopped: bool,
}

impl CallObserver for Recorder {
    fn arrived(&self, call: &Call) {
        // Those who watch a server have no use for spans of their own probes.
        if call.kind() == CallKind::Health {
            return;
        }
        let caller = Caller::of(call);
        match (self.sampler.decide(caller), caller) {
            (Decision::Child { is_sampled }, Some(caller)) => {
                if is_sampled && self.admits() {
                    self.begin(call, Some(caller), caller.trace);
                }
            }
            (
                Decision::Root {
                    is_sampled,
                    randomness,
                },
                stranger,
            ) => {
                if is_sampled && self.admits() {
                    self.begin(call, None, TraceId::random_with(randomness));
                } else if stranger.is_some() {
                    // What a stranger has sent goes no further. Of a call that nobody says anything of, ids are made
                    // once they are wanted.
                    call.extensions().insert(Kept {
                        context: roots::unsampled(&self.sampler),
                        recording: None,
                    });
                }
            }
            (Decision::Child { .. }, None) => {}
        }
    }

    fn ended(&self, call: &Call, end: &CallEnd) {
        self.record(call, || {
            let is_begun = end.ran > Duration::ZERO;
            End {
                code: end.code,
                kind: end.kind,
                waited: is_begun.then_some(end.waited),
                took: end.waited.saturating_add(end.ran),
                event: event_of(end.outcome).map(|name| Event::new(name, 0)),
                is_stopped: matches!(
                    end.outcome,
                    CallOutcome::Cut | CallOutcome::ToldToStop | CallOutcome::Abandoned
                ),
            }
        });
    }

    fn refused(&self, call: &Call, refusal: &CallRefusal) {
        self.record(call, || {
            let why = Value::Text(word_for(refusal.reason));
            let event = Event::new("touchdown.refused", 0).with(attribute::REFUSAL_REASON, why);
            End {
                code: refusal.code,
                kind: refusal.kind,
                waited: None,
                took: refusal.waited,
                event: Some(event),
                is_stopped: false,
            }
        });
    }
}

impl Recorder {
    fn record(&self, call: &Call, end: impl FnOnce() -> End) {
        if self.recording.load(Ordering::Relaxed) == 0 || call.kind() == CallKind::Health {
            return;
        }
        let Some(kept) = call.extensions().get::<Kept>() else {
            return;
        };
        if let Some(recording) = &kept.recording {
            self.recording.fetch_sub(1, Ordering::Relaxed);
            self.end(call, &kept, recording, end());
        }
    }
}

/// Lets the handler's outgoing calls find the call that they are a part of, and sees what its caller is told.
pub(super) struct Around;

impl Interceptor for Around {
    fn around(&self, call: &Call, next: Next<'_>) -> Result<Answer, Status> {
        within(call, || next.run())
    }

    fn after(&self, call: &Call, status: &Status) {
        if !is_error(status.code()) || status.message().is_empty() {
            return;
        }
        let kept = call.extensions().get::<Kept>();
        if let Some(recording) = kept.as_ref().and_then(|it| it.recording.as_ref()) {
            let _ = recording
                .message
                .set(shortened(status.message(), MESSAGE).into());
        }
    }
}

fn address_of(call: &Call, peer: &Peer) -> Option<PeerAddress> {
    match peer {
        Peer::Tcp(peer) => Some(PeerAddress {
            address: peer.ip().to_string().into(),
            port: Some(peer.port()),
        }),
        // The conventions have the path of the socket, which is the server's: what connects there has none.
        Peer::Unix => match call.listener()? {
            Address::Unix(path) => Some(PeerAddress {
                address: path.to_string_lossy().into(),
                port: None,
            }),
            Address::Abstract(name) => Some(PeerAddress {
                address: format!("@{name}").into(),
                port: None,
            }),
            _ => None,
        },
        _ => None,
    }
}

/// Since 1970.
fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_cut_between_characters() {
        assert_eq!(shortened("short", MESSAGE), "short");
        let long = format!("{}ä", "a".repeat(MESSAGE - 1));
        assert_eq!(shortened(&long, MESSAGE), "a".repeat(MESSAGE - 1));
        assert_eq!(shortened(&"a".repeat(MESSAGE + 1), MESSAGE).len(), MESSAGE);
    }
}
