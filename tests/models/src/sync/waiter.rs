//! One thread that waits, for somebody or for a moment in time, whichever comes first.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::Arc;

use shuttle::current::{self, TaskId};
use shuttle_engine::runtime::execution::ExecutionState;
use shuttle_engine::runtime::thread;

use super::time::{self, Instant};

const WAITING: u8 = 0;
const WOKEN: u8 = 1;
const TIMED_OUT: u8 = 2;

pub(super) struct Waiter {
    task: TaskId,
    state: AtomicU8,
}

impl Waiter {
    /// The thread that calls this is going to [`wait`](Self::wait), before it lets others run.
    pub(super) fn new(deadline: Option<Instant>) -> Arc<Self> {
        let is_over = deadline.is_some_and(time::is_over);
        let waiter = Arc::new(Self {
            task: current::me(),
            state: AtomicU8::new(if is_over { TIMED_OUT } else { WAITING }),
        });
        if let Some(deadline) = deadline.filter(|_| !is_over) {
            time::expire_at(deadline, &waiter);
        }
        waiter
    }

    /// Blocks until woken or out of time. Returns whether it was woken.
    pub(super) fn wait(&self) -> bool {
        while self.is_waiting() {
            ExecutionState::with(|state| state.current_mut().block(false));
            thread::switch();
        }
        self.state.load(Ordering::SeqCst) == WOKEN
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.state.load(Ordering::SeqCst) == WAITING
    }

    /// Returns whether this ended the wait.
    pub(super) fn wake(&self) -> bool {
        self.end(WOKEN)
    }

    pub(super) fn expire(&self) -> bool {
        self.end(TIMED_OUT)
    }

    fn end(&self, how: u8) -> bool {
        let ended = self.is_waiting();
        if ended {
            self.state.store(how, Ordering::SeqCst);
            // Fails only once the execution is over.
            let _ = ExecutionState::try_with(|state| state.get_mut(self.task).unblock());
        }
        ended
    }
}
