//! What counts the calls. It runs on the threads that serve, so it takes no lock and looks nothing up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use touchdown::{
    Call, CallEnd, CallKind, CallObserver, CallOutcome, CallRefusal, ConnectionEvent, Traffic,
};

use super::names::{connection_refusal, place_of, refusal, sent_away};
use super::shard::{Row, Shard};
use super::Inner;

pub(super) struct Observer(pub(super) Arc<Inner>);

impl Observer {
    fn count(&self, call: &Call, count: impl Fn(&Shard, &Row)) {
        let number = call.method_number();
        self.0.shards.count(|shard| count(shard, shard.row(number)));
    }
}

fn add_traffic(shard: &Shard, row: &Row, received: &Traffic, sent: Option<&Traffic>) {
    shard.add(&row.received, received.messages);
    shard.add(&row.received_bytes, received.bytes);
    if let Some(sent) = sent {
        shard.add(&row.sent, sent.messages);
        shard.add(&row.sent_bytes, sent.bytes);
    }
}

impl CallObserver for Observer {
    fn arrived(&self, call: &Call) {
        if call.kind() != CallKind::Health {
            self.count(call, |shard, row| shard.add(&row.started, 1));
        }
    }

    fn begun(&self, call: &Call, waited: Duration) {
        if call.kind() != CallKind::Health {
            self.0
                .shards
                .count(|shard| shard.add_time(&shard.common.waited, waited));
        }
    }

    fn ended(&self, call: &Call, end: &CallEnd) {
        if end.kind == CallKind::Health {
            return;
        }
        self.count(call, |shard, row| {
            shard.add(&row.handled[place_of(end.code)], 1);
            shard.add_time(&row.times, end.waited + end.ran);
            add_traffic(shard, row, &end.received, Some(&end.sent));
            match end.outcome {
                CallOutcome::Cut => shard.add(&row.cut, 1),
                CallOutcome::Abandoned => shard.add(&shard.common.abandoned, 1),
                CallOutcome::CallerLeft => shard.add(&shard.common.caller_left, 1),
                CallOutcome::Undelivered => shard.add(&shard.common.undelivered, 1),
                _ => {}
            }
        });
    }

    fn refused(&self, call: &Call, refused: &CallRefusal) {
        if refused.kind == CallKind::Health {
            return;
        }
        self.count(call, |shard, row| {
            shard.add(&row.handled[place_of(refused.code)], 1);
            shard.add(&shard.common.refused[refusal(refused.reason)], 1);
            add_traffic(shard, row, &refused.received, None);
        });
    }

    fn connection(&self, event: &ConnectionEvent) {
        let connections = &self.0.connections;
        let add = |count: &AtomicU64| count.fetch_add(1, Ordering::Relaxed);
        match event {
            ConnectionEvent::Opened { .. } => add(&connections.opened),
            ConnectionEvent::Refused { reason, .. } => {
                add(&connections.refused[connection_refusal(*reason)])
            }
            ConnectionEvent::SentAway { reason, .. } => {
                add(&connections.sent_away[sent_away(reason)])
            }
            ConnectionEvent::HandshakeFailed { .. } => add(&connections.handshakes_failed),
            _ => 0,
        };
    }
}
