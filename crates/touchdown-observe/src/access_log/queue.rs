//! Lines on their way to the thread that writes them. Nobody who puts one in waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::counts::Counts;
use super::entry::Entry;

/// How often the one who closes the queue looks whether to give up.
const LOOK: Duration = Duration::from_millis(50);

pub(super) struct Queue {
    state: Mutex<State>,
    /// There is a line, or the queue is closed. Goes with `state`.
    news: Condvar,
    /// A line was written, or the last. Goes with `state`.
    progress: Condvar,
    /// How many lines wait. It may be a little old for who does not have the lock.
    waiting: AtomicUsize,
    most: usize,
    /// How many were dropped, and the log has not said so yet.
    unsaid: AtomicU64,
    counts: Counts,
}

#[derive(Default)]
struct State {
    /// Each with how many were dropped before it.
    lines: VecDeque<(u64, Entry)>,
    is_closed: bool,
    /// The writer has one in its hands.
    is_writing: bool,
    /// Nobody writes any more, or what is written still is not counted.
    is_over: bool,
    /// How many lines were done with.
    done: u64,
}

/// What there is to write.
pub(super) struct Next {
    /// So many were dropped, and that was not said yet.
    pub(super) dropped: u64,
    /// What came after them; `None` if nothing has so far. [`Queue::done`] wants to know what became of it.
    pub(super) entry: Option<Entry>,
}

impl Queue {
    pub(super) fn counts(&self) -> Counts {
        self.counts.clone()
    }

    pub(super) fn new(most: usize, counts: Counts) -> Queue {
        Queue {
            state: Mutex::default(),
            news: Condvar::new(),
            progress: Condvar::new(),
            waiting: AtomicUsize::new(0),
            most,
            unsaid: AtomicU64::new(0),
            counts,
        }
    }

    /// Puts a line in, or drops it. It is not even made if there is no room.
    pub(super) fn push(&self, make: impl FnOnce() -> Entry) {
        if self.waiting.load(Ordering::Relaxed) >= self.most {
            return self.drop_lines(1);
        }
        let entry = make();
        let mut state = self.state.lock();
        if state.is_closed || state.lines.len() >= self.most {
            drop(state);
            return self.drop_lines(1);
        }
        let dropped = self.unsaid.swap(0, Ordering::Relaxed);
        state.lines.push_back((dropped, entry));
        self.waiting.store(state.lines.len(), Ordering::Relaxed);
        if state.lines.len() == 1 {
            self.news.notify_one();
        }
    }

    /// Counts lines that are not written. Numbers only, by which nothing else is read.
    fn drop_lines(&self, lines: u64) {
        self.counts.add_dropped(lines);
        self.unsaid.fetch_add(lines, Ordering::Relaxed);
    }

    /// Waits for what there is to write. `None` is the end.
    pub(super) fn next(&self) -> Option<Next> {
        let mut state = self.state.lock();
        loop {
            if let Some((dropped, entry)) = state.lines.pop_front() {
                self.waiting.store(state.lines.len(), Ordering::Relaxed);
                state.is_writing = true;
                let entry = Some(entry);
                return Some(Next { dropped, entry });
            }
            let dropped = self.unsaid.swap(0, Ordering::Relaxed);
            if dropped > 0 && !state.is_over {
                let entry = None;
                return Some(Next { dropped, entry });
            }
            if state.is_closed {
                return None;
            }
            self.news.wait(&mut state);
        }
    }

    /// The line that was taken last is written, or lost. Returns whether no other waits.
    pub(super) fn done(&self, is_written: bool) -> bool {
        let mut state = self.state.lock();
        // The one who has given up has counted it.
        if !state.is_over {
            match is_written {
                true => self.counts.add_written(),
                false => self.drop_lines(1),
            }
        }
        state.is_writing = false;
        state.done += 1;
        self.progress.notify_all();
        state.lines.is_empty()
    }

    /// The writer has ended.
    pub(super) fn over(&self) {
        self.give_up();
    }

    /// Takes no more lines, and waits until those that are there are written: so long at the most, for a quarter of it if none
    /// is written meanwhile, and not if it is to hurry. What is left then is dropped.
    pub(super) fn close(&self, time: Duration, is_hurried: impl Fn() -> bool) {
        let mut state = self.state.lock();
        state.is_closed = true;
        self.news.notify_one();
        let (mut waited, mut stalled) = (Duration::ZERO, Duration::ZERO);
        while !state.is_over && waited < time && stalled < time / 4 && !is_hurried() {
            let (done, began) = (state.done, Instant::now());
            self.progress.wait_for(&mut state, LOOK);
            // A process that stood still meanwhile has had no more time than that.
            let passed = began.elapsed().min(LOOK);
            waited += passed;
            stalled = match state.done == done {
                true => stalled + passed,
                false => Duration::ZERO,
            };
        }
        drop(state);
        self.give_up();
    }

    fn give_up(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        if !state.is_over {
            let left = state.lines.len() + usize::from(state.is_writing);
            self.drop_lines(left as u64);
            state.is_over = true;
        }
        let lines = std::mem::take(&mut state.lines);
        self.waiting.store(0, Ordering::Relaxed);
        self.news.notify_one();
        self.progress.notify_all();
        drop(state);
        drop(lines);
    }
}
