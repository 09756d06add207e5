//! Channels with the interface of crossbeam-channel, as far as the modelled sources need it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{RecvError, RecvTimeoutError, SendError, TryRecvError};

use super::switch;
use super::time::{self, Instant};
use super::waiter::Waiter;

struct Channel<T> {
    /// Held between two scheduling points only, so nobody ever waits for it.
    state: Mutex<State<T>>,
    is_rendezvous: bool,
}

struct State<T> {
    queue: VecDeque<T>,
    senders: usize,
    receivers: usize,
    waiters: Vec<Arc<Waiter>>,
}

impl<T> Channel<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn wake_all(&mut self) {
        for waiter in self.waiters.drain(..) {
            waiter.wake();
        }
    }
}

pub struct Sender<T>(Arc<Channel<T>>);

pub struct Receiver<T>(Arc<Channel<T>>);

pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    channel(false)
}

/// The modelled sources use channels without capacity only to be told of their end.
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert_eq!(capacity, 0, "the models have no channel with a capacity");
    channel(true)
}

fn channel<T>(is_rendezvous: bool) -> (Sender<T>, Receiver<T>) {
    let channel = Arc::new(Channel {
        state: Mutex::new(State {
            queue: VecDeque::new(),
            senders: 1,
            receivers: 1,
            waiters: Vec::new(),
        }),
        is_rendezvous,
    });
    (Sender(Arc::clone(&channel)), Receiver(channel))
}

impl<T> Sender<T> {
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        assert!(
            !self.0.is_rendezvous,
            "the models have no channel that hands over"
        );
        switch();
        let mut state = self.0.state();
        if state.receivers == 0 {
            return Err(SendError(value));
        }
        state.queue.push_back(value);
        state.wake_all();
        Ok(())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.state().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        switch();
        let mut state = self.0.state();
        state.senders -= 1;
        if state.senders == 0 {
            state.wake_all();
        }
    }
}

impl<T> Receiver<T> {
    pub fn recv(&self) -> Result<T, RecvError> {
        self.recv_unless_over(None).map_err(|_| RecvError)
    }

    pub fn recv_timeout(&self, time: Duration) -> Result<T, RecvTimeoutError> {
        self.recv_unless_over(Instant::now().checked_add(time))
    }

    pub fn recv_deadline(&self, deadline: Instant) -> Result<T, RecvTimeoutError> {
        self.recv_unless_over(Some(deadline))
    }

    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        switch();
        let mut state = self.0.state();
        match state.queue.pop_front() {
            Some(value) => Ok(value),
            None if state.senders == 0 => Err(TryRecvError::Disconnected),
            None => Err(TryRecvError::Empty),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = T> + '_ {
        std::iter::from_fn(|| self.recv().ok())
    }

    pub fn try_iter(&self) -> impl Iterator<Item = T> + '_ {
        std::iter::from_fn(|| self.try_recv().ok())
    }

    fn recv_unless_over(&self, deadline: Option<Instant>) -> Result<T, RecvTimeoutError> {
        loop {
            match self.try_recv() {
                Ok(value) => return Ok(value),
                Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) if deadline.is_some_and(time::is_over) => {
                    return Err(RecvTimeoutError::Timeout);
                }
                Err(TryRecvError::Empty) => {}
            }
            let waiter = Waiter::new(deadline);
            self.0.state().waiters.push(Arc::clone(&waiter));
            waiter.wait();
            self.0
                .state()
                .waiters
                .retain(|other| !Arc::ptr_eq(other, &waiter));
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.0.state().receivers += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        switch();
        let mut state = self.0.state();
        state.receivers -= 1;
        // Dropped last, with the lock released.
        let left = match state.receivers {
            0 => std::mem::take(&mut state.queue),
            _ => VecDeque::new(),
        };
        drop(state);
        drop(left);
    }
}
