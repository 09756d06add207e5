//! The calls that go on without a worker.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::call::Call;
use super::seats::Running;

#[derive(Default)]
pub(super) struct Detached {
    /// Since when they do, by their address.
    calls: Mutex<HashMap<usize, (Arc<Call>, Instant)>>,
    /// As many as `calls` has; a number to compare with, no more.
    count: AtomicUsize,
}

impl Detached {
    pub(super) fn add(&self, call: &Arc<Call>) {
        let detached = (Arc::clone(call), Instant::now());
        self.calls.lock().insert(call.key(), detached);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn remove(&self, call: &Arc<Call>) {
        let removed = self.calls.lock().remove(&call.key());
        if removed.is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(super) fn has(&self, call: &Arc<Call>) -> bool {
        self.calls.lock().contains_key(&call.key())
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) fn calls(&self) -> Vec<Arc<Call>> {
        let calls = self.calls.lock();
        calls.values().map(|(call, _)| Arc::clone(call)).collect()
    }

    /// What of them is to be shown, without waiting for the lock.
    pub(super) fn running(&self) -> Vec<Running> {
        let Some(calls) = self.calls.try_lock() else {
            return Vec::new();
        };
        let running = calls.values();
        running
            .map(|(call, since)| Running::new(call, *since, "detached, not finished"))
            .collect()
    }
}
