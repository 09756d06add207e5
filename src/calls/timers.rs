//! Deadlines of calls whose handlers want to be told, or wait for a message to come
//! or go. Other calls have no entry here.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use crate::os::wake::Wake;

pub(super) type Key = (Instant, u64);

pub(super) struct Timers<T: ?Sized> {
    entries: Mutex<Entries<T>>,
    wake: Arc<Wake>,
}

struct Entries<T: ?Sized> {
    due: BTreeMap<Key, Weak<T>>,
    next: u64,
}

impl<T: ?Sized> Timers<T> {
    pub(super) fn new(wake: Arc<Wake>) -> Timers<T> {
        let entries = Entries {
            due: BTreeMap::new(),
            next: 0,
        };
        Timers {
            entries: Mutex::new(entries),
            wake,
        }
    }

    pub(super) fn expire_at(&self, at: Instant, call: &Arc<T>) -> Key {
        let mut entries = self.entries.lock();
        entries.next += 1;
        let key = (at, entries.next);
        let is_first = entries
            .due
            .first_key_value()
            .is_none_or(|(first, _)| key < *first);
        entries.due.insert(key, Arc::downgrade(call));
        drop(entries);
        if is_first {
            self.wake.wake();
        }
        key
    }

    pub(super) fn remove(&self, key: Key) {
        self.entries.lock().due.remove(&key);
    }

    /// Has everything expire that is due. Returns when to come again.
    pub(super) fn run(&self, now: Instant, expire: impl Fn(&Arc<T>)) -> Option<Instant> {
        loop {
            let mut entries = self.entries.lock();
            let (&key, _) = entries.due.first_key_value()?;
            if key.0 > now {
                return Some(key.0);
            }
            let call = entries.due.remove(&key);
            drop(entries);
            if let Some(call) = call.and_then(|call| call.upgrade()) {
                expire(&call);
            }
        }
    }
}
