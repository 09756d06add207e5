//! Who polls, who runs a handler, who rests, and what waits for a worker.
//!
//! A thread that took a call off the completion queue runs it itself, after
//! making sure that somebody else polls. There is one thread more than there are
//! workers, so that this can always be done: when every worker is busy, the one
//! thread left polls on and puts what arrives in the backlog. Threads are
//! started when they are first needed.
//!
//! Everything is decided under one lock, in a few instructions, so there is no
//! moment at which a call is in the backlog and a worker free to take it.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

/// How many threads poll at a time, at the most: one more than needed, so that
/// a thread which comes back from a short handler finds that the other has gone
/// on meanwhile, and nobody has to be woken.
const POLLERS: usize = 2;

pub(super) struct Roster<T> {
    workers: usize,
    backlog: usize,
    state: Mutex<State<T>>,
    /// Waited on by resting threads; signalled once for each in `called`.
    called: Condvar,
}

struct State<T> {
    polling: usize,
    running: usize,
    resting: usize,
    /// Of those who rest, how many have been called and have not yet woken up.
    called: usize,
    waiting: VecDeque<T>,
    closed: bool,
}

/// What is to be done with a call that has arrived.
pub(super) enum Decision<T> {
    /// Run it. Somebody else polls.
    Run(T),
    /// Run it, once a new thread has been started to poll.
    RunAndSpawn(T),
    /// It waits; poll on.
    Queued,
    /// There is no room for it; poll on.
    Refused(T),
}

/// What a thread does after a call.
pub(super) enum Next<T> {
    Run(T),
    Poll,
}

impl<T> Roster<T> {
    /// A roster with one thread, which polls.
    pub(super) fn new(workers: usize, backlog: usize) -> Roster<T> {
        Roster {
            workers,
            backlog,
            state: Mutex::new(State {
                polling: 1,
                running: 0,
                resting: 0,
                called: 0,
                waiting: VecDeque::new(),
                closed: false,
            }),
            called: Condvar::new(),
        }
    }

    /// A polling thread has taken a call off the queue.
    pub(super) fn arrived(&self, call: T) -> Decision<T> {
        let mut state = self.state.lock();
        if state.running == self.workers {
            if state.waiting.len() == self.backlog {
                return Decision::Refused(call);
            }
            state.waiting.push_back(call);
            return Decision::Queued;
        }
        state.running += 1;
        state.polling -= 1;
        if state.polling > 0 {
            return Decision::Run(call);
        }
        state.polling = 1;
        if state.resting > state.called {
            state.called += 1;
            drop(state);
            self.called.notify_one();
            return Decision::Run(call);
        }
        Decision::RunAndSpawn(call)
    }

    /// The thread asked for could not be started: the call waits, and the thread
    /// that has it polls on.
    pub(super) fn spawn_failed(&self, call: T) -> Decision<T> {
        let mut state = self.state.lock();
        state.running -= 1;
        if state.waiting.len() == self.backlog || state.running == 0 {
            return Decision::Refused(call);
        }
        state.waiting.push_back(call);
        Decision::Queued
    }

    /// A thread has run a call to its end. Returns when there is something to
    /// do for it.
    pub(super) fn finished(&self) -> Next<T> {
        let mut state = self.state.lock();
        if let Some(call) = state.waiting.pop_front() {
            return Next::Run(call);
        }
        state.running -= 1;
        if state.polling < POLLERS || state.closed {
            state.polling += 1;
            return Next::Poll;
        }
        state.resting += 1;
        while state.called == 0 && !state.closed {
            self.called.wait(&mut state);
        }
        state.resting -= 1;
        if state.called > 0 {
            // Whoever called has counted this thread among those who poll.
            state.called -= 1;
        } else {
            state.polling += 1;
        }
        Next::Poll
    }

    /// Takes everything out of the backlog.
    pub(super) fn take_waiting(&self) -> VecDeque<T> {
        std::mem::take(&mut self.state.lock().waiting)
    }

    /// From now on nobody rests: everybody polls, to see the queue's end.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.called.notify_all();
    }

    /// Whether `close` was called and nobody runs a handler.
    pub(super) fn is_closed_and_idle(&self) -> bool {
        let state = self.state.lock();
        state.closed && state.running == 0
    }
}
