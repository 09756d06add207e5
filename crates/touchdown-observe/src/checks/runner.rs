//! The threads that run checks: one that keeps time, and as many as checks run at once.

use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::board::{Board, Due, Turn};
use crate::text::message_of;

/// The stack of the thread that keeps time, in bytes. It calls the program's logger, hence not less.
const STACK: usize = 128 << 10;

/// Threads that run checks. One waits for the next check; others end when their check has.
#[derive(Default)]
struct Pool {
    state: Mutex<PoolState>,
    changed: Condvar,
}

#[derive(Default)]
struct PoolState {
    due: Vec<Due>,
    waiting: usize,
    is_over: bool,
}

impl Board {
    /// Has the checks run until [`end`](Self::end). Without checks this starts nothing.
    ///
    /// # Errors
    ///
    /// There is no thread to be had.
    pub(crate) fn start(self: &Arc<Self>) -> io::Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let board = Arc::clone(self);
        let timer = thread::Builder::new()
            .name("td-checks".to_owned())
            .stack_size(STACK);
        timer.spawn(move || board.keep_time())?;
        Ok(())
    }

    fn keep_time(self: &Arc<Self>) {
        let pool = Arc::new(Pool::default());
        loop {
            match self.turn(Instant::now()) {
                Turn::Run(due) => due.into_iter().for_each(|it| self.run(&pool, it)),
                Turn::Wait(until) => self.wait(until),
                Turn::Over => break,
            }
        }
        pool.state.lock().is_over = true;
        pool.changed.notify_all();
    }

    fn run(self: &Arc<Self>, pool: &Arc<Pool>, due: Due) {
        {
            let mut state = pool.state.lock();
            if state.waiting > state.due.len() {
                state.due.push(due);
                pool.changed.notify_one();
                return;
            }
        }
        let (board, of_pool) = (Arc::clone(self), Arc::clone(pool));
        let first = Arc::new(Mutex::new(Some(due)));
        let theirs = Arc::clone(&first);
        let runner = thread::Builder::new().name("td-check".to_owned());
        let spawned = runner.spawn(move || {
            let mut next = theirs.lock().take();
            drop(theirs);
            while let Some(due) = next {
                board.run_one(due);
                next = of_pool.next();
            }
        });
        let Err(error) = spawned else { return };
        let due = first.lock().take();
        if let Some(due) = due {
            let why = format!("there is no thread to run it: {error}");
            self.ended(due.index, due.run, Err(why.into()), Instant::now());
        }
    }

    fn run_one(&self, due: Due) {
        let Due {
            index,
            name,
            mut run,
        } = due;
        let result = catch_unwind(AssertUnwindSafe(&mut run));
        let result = result.unwrap_or_else(|panic| {
            let message = message_of(panic);
            Err(format!("the check {name} panicked: {message}").into())
        });
        self.ended(index, run, result, Instant::now());
    }
}

impl Pool {
    /// Waits for another check, unless somebody else does.
    fn next(&self) -> Option<Due> {
        let mut state = self.state.lock();
        if state.waiting > 0 {
            return None;
        }
        state.waiting += 1;
        while state.due.is_empty() && !state.is_over {
            self.changed.wait(&mut state);
        }
        state.waiting -= 1;
        state.due.pop()
    }
}
