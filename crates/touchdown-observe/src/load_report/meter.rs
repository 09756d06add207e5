//! How much work there is, and the report of it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use touchdown::WeakServerHandle;

use super::report::Report;
use super::window::{Point, Window, WINDOW};
use super::work::Work;

/// How long a report is good for, in µs. Clients look at theirs once a second, and ten times if they are told to.
const GOOD_FOR: u64 = 100_000;

/// Measures calls. All times are in µs since one window before it was made, as if the server had been idle before.
pub(super) struct Meter {
    began: Instant,
    work: Work,
    calls: AtomicU64,
    faults: AtomicU64,
    /// When the report is to be made anew.
    due: AtomicU64,
    report: RwLock<Report>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    window: Window,
    server: Option<WeakServerHandle>,
}

impl Meter {
    pub(super) fn new() -> Meter {
        Meter {
            began: Instant::now(),
            work: Work::default(),
            calls: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            due: AtomicU64::new(0),
            report: RwLock::default(),
            state: Mutex::default(),
        }
    }

    /// From now on it asks this server what else there is to do.
    pub(super) fn look_at(&self, server: Option<WeakServerHandle>) {
        let before = std::mem::replace(&mut self.state.lock().server, server);
        // Not under the lock.
        drop(before);
    }

    /// A handler takes a worker.
    pub(super) fn begin(&self) {
        self.work.begin(self.now());
    }

    /// A call ends; `is_on_worker` if it has begun with `begin`.
    pub(super) fn end(&self, is_on_worker: bool, is_fault: bool) {
        let now = self.now();
        if is_on_worker {
            self.work.end(now);
        }
        if is_fault {
            self.faults.fetch_add(1, Relaxed);
        }
        self.calls.fetch_add(1, Relaxed);
        if now >= self.due.load(Relaxed) {
            self.renew(now);
        }
    }

    pub(super) fn report(&self) -> Report {
        *self.report.read()
    }

    fn now(&self) -> u64 {
        let since = self.began.elapsed() + Duration::from_micros(WINDOW);
        since.as_micros() as u64
    }

    /// Makes the report anew, unless somebody else does.
    fn renew(&self, now: u64) {
        let Some(mut state) = self.state.try_lock() else {
            return;
        };
        if now < self.due.load(Relaxed) {
            return;
        }
        self.due.store(now + GOOD_FOR, Relaxed);
        let State { window, server } = &mut *state;
        let Some(load) = server.as_ref().and_then(WeakServerHandle::load) else {
            return;
        };
        let (running, work) = self.work.read(now);
        // The worker that comes here is busy, too, with a call that is no longer measured.
        let others = load.busy.saturating_sub(running + 1);
        let rates = window.move_to(Point {
            at: now,
            work,
            waiting: others + load.waiting,
            calls: self.calls.load(Relaxed),
            faults: self.faults.load(Relaxed),
        });
        *self.report.write() = Report {
            calls: rates.calls,
            // A call may have come between the two counts.
            faults: rates.faults.min(rates.calls),
            utilization: rates.load / load.workers.max(1) as f64,
        };
    }
}
