//! Waiting for the caller's next message and for something else in one place.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use crossbeam_channel::{bounded, Receiver, Select, TryRecvError};

use super::messages::{Received, Wait};
use super::Call;
use crate::calls::aside;

impl Call {
    /// Waits for the caller's next message, or until one of `others`, on which nothing is ever sent, is disconnected;
    /// `Err` is which. That comes first if both are so.
    pub(crate) fn receive_or<T>(
        self: &Arc<Self>,
        others: &[&Receiver<T>],
    ) -> Result<Received, usize> {
        if let Some(first) = self.first_of(others) {
            return first;
        }
        let (bell, rung) = bounded(1);
        // Pairs with the load in `notify`: either that sees this, and rings, or the look below sees the change.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.inbox.lock().bell = Some(bell);
        self.keep_deadline(&mut self.stream.lock());
        let mut select = Select::new();
        select.recv(&rung);
        for other in others {
            select.recv(other);
        }
        let first = loop {
            if let Some(first) = self.first_of(others) {
                break first;
            }
            aside::waiting(self.key(), || select.ready());
            let _ = rung.try_recv();
        };
        self.inbox.lock().bell = None;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        first
    }

    /// What is there of these, if anything is.
    fn first_of<T>(self: &Arc<Self>, others: &[&Receiver<T>]) -> Option<Result<Received, usize>> {
        let is_over = |it: &&Receiver<T>| matches!(it.try_recv(), Err(TryRecvError::Disconnected));
        if let Some(index) = others.iter().position(is_over) {
            return Some(Err(index));
        }
        match self.receive(Wait::Never) {
            Received::TimedOut => None,
            received => Some(Ok(received)),
        }
    }
}
