//! Telling the streams of requests to end that are idle while the server drains. The rule is in
//! [`quiet`](crate::calls::quiet).

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::Housekeeper;
use crate::calls::call::Call;
use crate::calls::quiet::{Quiet, Seen};
use crate::logging;
use crate::running_time::SLICE;

#[derive(Default)]
pub(super) struct IdleStreams {
    /// By their address, which nobody else has as long as somebody remembers the call.
    seen: HashMap<usize, (Weak<Call>, Quiet)>,
    /// In running time.
    next_look: Duration,
}

impl Housekeeper<'_> {
    /// Returns when to look again, if nobody calls earlier.
    pub(super) fn tell_idle_streams(&mut self, now: Instant) -> Option<Instant> {
        let ground = &self.shared.ground;
        let idle_time = |call: &Call| ground.method(call)?.limit()?.idle;
        let limits = ground.methods.iter().filter_map(|it| it.limit());
        if ground.stopping.is_told() || limits.filter_map(|it| it.idle).next().is_none() {
            return None;
        }
        if self.now < self.idle_streams.next_look {
            return Some(now + self.until(self.idle_streams.next_look));
        }
        let mut before = std::mem::take(&mut self.idle_streams.seen);
        let mut told = 0;
        for call in self.shared.open_calls() {
            let Some(idle) = idle_time(&call) else {
                continue;
            };
            let key = Arc::as_ptr(&call).cast::<()>().addr();
            let seen = Seen {
                waits: call.waits_for_request(),
                changes: call.changes(),
            };
            let (known, mut quiet) = before
                .remove(&key)
                .unwrap_or_else(|| (Arc::downgrade(&call), Quiet::begin(seen, self.now)));
            let line = || ground.connections.line(call.noted_connection()?, self.now);
            if quiet.is_idle(seen, line, self.now, idle) {
                told += usize::from(call.tell_to_stop());
            } else {
                self.idle_streams.seen.insert(key, (known, quiet));
            }
        }
        if told > 0 {
            logging::info!(
                "told {told} streams to end: the server drains, and their callers send nothing"
            );
        }
        self.idle_streams.next_look = self.now + SLICE;
        Some(now + SLICE)
    }
}
