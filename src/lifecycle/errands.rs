//! Errands: what the guard thread has another thread do.
//!
//! The guard thread keeps the hard deadline, whatever the other threads are at. One of them may hold the lock of the
//! memory allocator and stand still: then every thread that wants memory, or gives some back, stands still with it. So the
//! guard does neither, and takes no lock under which others do. Whatever needs memory or such a lock it leaves to this
//! thread, `td-errands`, for which it never waits longer than it must. What that does with them is in errand_run.rs.

use std::collections::VecDeque;

use crate::sync::atomic::{AtomicU8, Ordering};
use crate::sync::{BareCondvar, BareMutex};

/// How many errands wait at the most: each kind once, and more than one signal to stop for.
const ROOM: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Errand {
    /// Begin the stop, for this signal.
    Stop(i32),
    /// End the wait for what is in flight.
    Hurry,
    Reload,
    /// Write what the program is at.
    State,
    /// Have another process take over.
    Replace,
    /// Say what holds up the walk.
    Blocked,
    /// Say that the program serves and is not ready, if it does.
    Unready,
    /// Tell those who asked that the guard thread works.
    Answer,
    /// Say what was running: the process is about to exit with this code.
    LastWords(Why, u8),
}

/// Why the process exits on the spot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    HardDeadline,
    ThirdSignal(i32),
}

/// How much of the last words is said.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Said {
    Nothing,
    /// What runs.
    Words,
    /// And where in the code.
    Stacks,
}

pub(super) struct Errands {
    queue: BareMutex<Queue>,
    /// Goes with `queue`: there is something to do.
    news: BareCondvar,
    said: AtomicU8,
}

struct Queue {
    /// Has its memory from the beginning.
    list: VecDeque<Errand>,
    is_closed: bool,
}

impl Errands {
    pub(super) fn new() -> Self {
        Self {
            queue: BareMutex::new(Queue {
                list: VecDeque::with_capacity(ROOM),
                is_closed: false,
            }),
            news: BareCondvar::new(),
            said: AtomicU8::new(Said::Nothing as u8),
        }
    }

    /// Takes no memory, and does not wait for the errand. One that waits already, however often it is given, is done once.
    pub(super) fn give(&self, errand: Errand) {
        let mut queue = self.queue.lock();
        if queue.list.len() < ROOM && !queue.list.contains(&errand) {
            queue.list.push_back(errand);
        }
        drop(queue);
        self.news.notify_one();
    }

    /// The thread ends when it has done what there is.
    pub(super) fn close(&self) {
        self.queue.lock().is_closed = true;
        self.news.notify_one();
    }

    /// Whether this much of the last words is said.
    pub(super) fn have_said(&self, said: Said) -> bool {
        // Pairs with the Release in `say_so`; nothing hangs on it but the order of the two.
        self.said.load(Ordering::Acquire) >= said as u8
    }

    pub(super) fn say_so(&self, said: Said) {
        self.said.store(said as u8, Ordering::Release);
    }

    /// Waits for the next; `None` once this is closed and nothing is left.
    pub(super) fn next(&self) -> Option<Errand> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(errand) = queue.list.pop_front() {
                return Some(errand);
            }
            if queue.is_closed {
                return None;
            }
            queue = self.news.wait(queue);
        }
    }
}
