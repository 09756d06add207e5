//! Whose shard is whose: each thread that counts has one, and gives it back when it ends. Nothing is ever taken out of the sums.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use super::shard::Shard;

/// The shards of one server's metrics.
pub(super) struct Shards {
    id: u64,
    /// How many methods there are. Nothing is counted before that is known.
    methods: OnceLock<usize>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    all: Vec<Arc<Shard>>,
    free: Vec<Arc<Shard>>,
    /// Of threads that are about to end.
    shared: Option<Arc<Shard>>,
}

/// A shard that a thread has, until it ends.
struct Own {
    id: u64,
    shard: Arc<Shard>,
    home: Weak<Shards>,
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            home.state.lock().free.push(Arc::clone(&self.shard));
        }
    }
}

thread_local! {
    static OWN: RefCell<Vec<Own>> = const { RefCell::new(Vec::new()) };
}

impl Shards {
    pub(super) fn new() -> Arc<Shards> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Arc::new(Shards {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            methods: OnceLock::new(),
            state: Mutex::default(),
        })
    }

    /// From now on calls are counted.
    pub(super) fn begin(&self, methods: usize) {
        let _ = self.methods.set(methods);
    }

    /// Counts something in the shard of this thread.
    #[inline]
    pub(super) fn count(self: &Arc<Self>, count: impl Fn(&Shard)) {
        let counted = OWN.try_with(|own| {
            // It is borrowed already only if a counter counts.
            let own = own.try_borrow().ok()?;
            let own = own.iter().find(|it| it.id == self.id)?;
            count(&own.shard);
            Some(())
        });
        match counted {
            Ok(Some(())) => {}
            Ok(None) => self.count_first(count),
            Err(_) => self.shared().iter().for_each(|it| count(it)),
        }
    }

    #[cold]
    fn count_first(self: &Arc<Self>, count: impl Fn(&Shard)) {
        let Some(methods) = self.methods.get() else {
            return;
        };
        let shard = {
            let mut state = self.state.lock();
            state.free.pop().unwrap_or_else(|| {
                let shard = Arc::new(Shard::new(*methods, false));
                state.all.push(Arc::clone(&shard));
                shard
            })
        };
        count(&shard);
        let own = Own {
            id: self.id,
            shard,
            home: Arc::downgrade(self),
        };
        let _ = OWN.try_with(|all| {
            let mut all = all.borrow_mut();
            // Of servers that are gone.
            all.retain(|it| it.home.strong_count() > 0);
            all.push(own);
        });
    }

    fn shared(&self) -> Option<Arc<Shard>> {
        let methods = *self.methods.get()?;
        let mut state = self.state.lock();
        if let Some(shared) = &state.shared {
            return Some(Arc::clone(shared));
        }
        let shard = Arc::new(Shard::new(methods, true));
        state.all.push(Arc::clone(&shard));
        state.shared = Some(Arc::clone(&shard));
        Some(shard)
    }

    /// All shards that there are, for who reads.
    pub(super) fn all(&self) -> Vec<Arc<Shard>> {
        self.state.lock().all.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn started(shards: &Shards) -> u64 {
        let all = shards.all();
        all.iter()
            .filter_map(|it| it.seen(0))
            .map(|it| it.started.get())
            .sum()
    }

    #[test]
    fn a_thread_that_ends_leaves_its_counts_and_its_shard() {
        let shards = Shards::new();
        shards.begin(1);
        for _ in 0..20 {
            let shards = Arc::clone(&shards);
            let thread = thread::spawn(move || {
                for _ in 0..100 {
                    shards.count(|it| it.add(&it.row(Some(0)).started, 1));
                }
            });
            thread.join().unwrap();
        }
        assert_eq!(started(&shards), 2000);
        assert_eq!(shards.all().len(), 1, "it is used again");
    }

    #[test]
    fn threads_do_not_count_for_another_server() {
        let servers = [Shards::new(), Shards::new()];
        for shards in &servers {
            shards.begin(1);
        }
        for (count, shards) in servers.iter().enumerate() {
            (0..=count).for_each(|_| shards.count(|it| it.add(&it.row(Some(0)).started, 1)));
        }
        assert_eq!(servers.each_ref().map(|it| started(it)), [1, 2]);
    }
}
