//! Spans that wait to be sent: between the threads that serve, which never wait, and the one that sends.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use touchdown::lifecycle::Canceller;

use super::span::Span;

/// Takes no more than it has room for.
pub(super) struct Queue {
    limits: Limits,
    state: Mutex<State>,
    changed: Condvar,
    /// Cancelled once nobody takes anything out any more.
    over: Canceller,
}

/// How many spans wait, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How many wait at the most. At least 1.
    pub(super) capacity: usize,
    /// How many are sent at once at the most; that many are sent at once. From 1 to the capacity.
    pub(super) batch: usize,
    /// For how long the first of them waits for others.
    pub(super) delay: Duration,
}

#[derive(Default)]
struct State {
    spans: VecDeque<Span>,
    /// When the first of them has waited long enough.
    due: Option<Instant>,
    /// Once the end has begun.
    closing: Option<Closing>,
    /// Nobody takes anything out any more.
    is_over: bool,
}

struct Closing {
    /// Until when what is there may be sent.
    deadline: Instant,
    /// To be cancelled when all of it was.
    done: Canceller,
}

impl Queue {
    pub(super) fn new(limits: Limits) -> Queue {
        Queue {
            limits,
            state: Mutex::default(),
            changed: Condvar::new(),
            over: Canceller::new(),
        }
    }

    /// Cancelled once nobody takes anything out any more.
    pub(super) fn over(&self) -> &Canceller {
        &self.over
    }

    /// False if there is no room for it.
    #[must_use]
    pub(super) fn push(&self, span: Span) -> bool {
        let mut state = self.state.lock();
        if state.is_over || state.spans.len() >= self.limits.capacity {
            return false;
        }
        state.spans.push_back(span);
        let count = state.spans.len();
        if count == 1 {
            state.due = Instant::now().checked_add(self.limits.delay);
        }
        drop(state);
        // The thread that sends waits for the first to come, and then for a batch to be full.
        if count == 1 || count == self.limits.batch {
            self.changed.notify_one();
        }
        true
    }

    /// Waits for spans to be sent. Without a span it waits without an end, so nothing wakes a program that has nothing
    /// to do. `None` once there will be no more.
    pub(super) fn next_batch(&self) -> Option<Vec<Span>> {
        let mut state = self.state.lock();
        loop {
            let is_closing = state.closing.is_some();
            let count = state.spans.len();
            let is_due = |it: Instant| Instant::now() >= it;
            if count == 0 && is_closing {
                return None;
            }
            if count >= self.limits.batch
                || count > 0 && (is_closing || state.due.is_some_and(is_due))
            {
                let batch = state.spans.drain(..count.min(self.limits.batch)).collect();
                state.due = match state.spans.is_empty() {
                    true => None,
                    // Less than a batch that is left waits for others again.
                    false => Instant::now().checked_add(self.limits.delay),
                };
                return Some(batch);
            }
            match state.due.filter(|_| count > 0) {
                Some(due) => drop(self.changed.wait_until(&mut state, due)),
                None => self.changed.wait(&mut state),
            }
        }
    }

    /// All that is there.
    #[cfg(test)]
    pub(super) fn next_batch_now(&self) -> Vec<Span> {
        self.state.lock().spans.drain(..).collect()
    }

    /// Waits until then, or until the end begins.
    pub(super) fn pause_until(&self, time: Instant) {
        let mut state = self.state.lock();
        while state.closing.is_none() && !self.changed.wait_until(&mut state, time).timed_out() {}
    }

    /// Until when what is there may be sent, once the end has begun.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let state = self.state.lock();
        state.closing.as_ref().map(|it| it.deadline)
    }

    /// Lets what is there be sent until then. Cancels `done` once that is over. May be called again, with less time.
    pub(super) fn close(&self, deadline: Instant, done: Canceller) {
        let mut state = self.state.lock();
        if state.is_over {
            done.cancel();
            return;
        }
        state.closing = Some(Closing { deadline, done });
        drop(state);
        self.changed.notify_one();
    }

    /// Takes nothing any more, and throws away what is there: so many.
    pub(super) fn end(&self) -> usize {
        let mut state = self.state.lock();
        state.is_over = true;
        let left = std::mem::take(&mut state.spans);
        if let Some(closing) = &state.closing {
            closing.done.cancel();
        }
        drop(state);
        self.over.cancel();
        left.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;
    use crate::otel::encode::tests::span;

    const LONG: Duration = Duration::from_secs(3600);

    fn queue(capacity: usize, batch: usize, delay: Duration) -> Arc<Queue> {
        let limits = Limits {
            capacity,
            batch,
            delay,
        };
        Arc::new(Queue::new(limits))
    }

    fn push(queue: &Queue, count: usize) -> usize {
        (0..count).filter(|_| queue.push(span())).count()
    }

    fn next(queue: &Queue) -> Option<usize> {
        queue.next_batch().map(|it| it.len())
    }

    #[test]
    fn it_takes_what_there_is_room_for() {
        let queue = queue(3, 3, LONG);
        assert_eq!(push(&queue, 5), 3);
        assert_eq!(next(&queue), Some(3));
        assert_eq!(push(&queue, 1), 1);
    }

    #[test]
    fn full_batches_are_given_out_at_once_and_the_rest_at_the_end() {
        let queue = queue(10, 4, LONG);
        push(&queue, 10);
        assert_eq!((next(&queue), next(&queue)), (Some(4), Some(4)));
        queue.close(Instant::now(), Canceller::new());
        assert_eq!((next(&queue), next(&queue)), (Some(2), None));
    }

    #[test]
    fn the_rest_waits_for_others_again() {
        let delay = Duration::from_millis(20);
        let queue = queue(10, 4, delay);
        push(&queue, 6);
        assert_eq!(next(&queue), Some(4));
        let begun = Instant::now();
        assert_eq!(next(&queue), Some(2));
        assert!(begun.elapsed() >= delay / 2, "{:?}", begun.elapsed());
    }

    #[test]
    fn fewer_are_given_out_when_the_first_has_waited_long_enough() {
        let queue = queue(10, 4, Duration::from_millis(20));
        let begun = Instant::now();
        push(&queue, 2);
        assert_eq!(next(&queue), Some(2));
        assert!(begun.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn a_thread_that_waits_is_woken_by_a_batch_and_by_the_end() {
        let queue = queue(10, 4, LONG);
        let taken = thread::spawn({
            let queue = Arc::clone(&queue);
            move || (next(&queue), next(&queue), next(&queue))
        });
        push(&queue, 4);
        let done = Canceller::new();
        // The first batch may be taken before or after these, and they are a batch of their own all the same.
        while push(&queue, 1) == 0 {}
        queue.close(Instant::now() + LONG, done.clone());
        assert_eq!(taken.join().unwrap(), (Some(4), Some(1), None));
        assert!(!done.is_cancelled());
        assert_eq!(queue.end(), 0);
        assert!(done.is_cancelled());
    }

    #[test]
    fn what_comes_after_the_end_is_refused_and_what_was_there_is_counted() {
        let queue = queue(10, 4, LONG);
        push(&queue, 3);
        assert_eq!(queue.end(), 3);
        assert_eq!(push(&queue, 1), 0);
        let done = Canceller::new();
        queue.close(Instant::now(), done.clone());
        assert!(done.is_cancelled());
    }

    #[test]
    fn a_pause_ends_at_its_time_or_with_the_end() {
        let queue = queue(10, 4, LONG);
        queue.pause_until(Instant::now() + Duration::from_millis(1));
        let paused = thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.pause_until(Instant::now() + LONG)
        });
        queue.close(Instant::now(), Canceller::new());
        paused.join().unwrap();
    }
}
