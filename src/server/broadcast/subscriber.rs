//! One subscriber of a broadcast: what waits for it, and what is on its way.
//!
//! Two threads come here: the one that publishes, and one that polls, when the message before is on its way. Whoever finds
//! that nothing is on its way sends, under the lock, so each message goes out once and in its order. The program's code
//! (interceptors, as the call ends) and the list of subscribers are never called under it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};
use protobuf::Message as Protobuf;

use crate::calls::{self, Outgoing};
use crate::server::context::Outlet;
use crate::server::status::Status;
use crate::server::stream::DetachedReplies;

type Message = Arc<[u8]>;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// It is on its way, or waits for its turn.
    Taken,
    /// There is no room.
    Full,
    /// The subscriber gets no more messages.
    Over,
}

pub(super) struct Subscriber<R: Protobuf> {
    state: Mutex<State<R>>,
    /// Signalled when there may be room.
    room: Condvar,
    /// Takes it off the list.
    forget: Box<dyn Fn() + Send + Sync>,
}

struct State<R: Protobuf> {
    /// `None` once the call was ended.
    replies: Option<DetachedReplies<R>>,
    /// What waits. Only while something is on its way.
    queue: VecDeque<Message>,
    is_sending: bool,
    /// How the call is to end once everything is sent.
    end: Option<Result<(), Status>>,
}

impl<R: Protobuf> Subscriber<R> {
    pub(super) fn new(
        replies: DetachedReplies<R>,
        forget: impl Fn() + Send + Sync + 'static,
    ) -> Subscriber<R> {
        Subscriber {
            state: Mutex::new(State {
                replies: Some(replies),
                queue: VecDeque::new(),
                is_sending: false,
                end: None,
            }),
            room: Condvar::new(),
            forget: Box::new(forget),
        }
    }

    /// Sends a message, or has it wait.
    pub(super) fn put(&self, message: &Message, capacity: usize) -> Put {
        let mut state = self.state.lock();
        let put = state.put(message, capacity);
        self.end_if_broken_off(state, put);
        put
    }

    /// As `put`. If there is no room, the oldest that waits is left out; or this one, if nothing may wait.
    pub(super) fn put_for_oldest(&self, message: &Message, capacity: usize) {
        let mut state = self.state.lock();
        let mut put = state.put(message, capacity);
        if put == Put::Full && state.queue.pop_front().is_some() {
            put = state.put(message, capacity);
        }
        self.end_if_broken_off(state, put);
    }

    /// As `put`, waiting for room until the deadline; for as long as it takes without one.
    pub(super) fn put_in_time(
        &self,
        message: &Message,
        capacity: usize,
        deadline: Option<Instant>,
    ) -> Put {
        let mut state = self.state.lock();
        loop {
            let put = state.put(message, capacity);
            if put != Put::Full {
                self.end_if_broken_off(state, put);
                return put;
            }
            match deadline {
                None => self.room.wait(&mut state),
                Some(deadline) if Instant::now() >= deadline => return Put::Full,
                Some(deadline) => drop(self.room.wait_until(&mut state, deadline)),
            }
        }
    }

    /// Ends the call. What waits is dropped.
    pub(super) fn end(&self, end: Result<(), Status>) {
        let state = self.state.lock();
        self.end_now(state, end);
    }

    /// Ends the call once everything is sent. Changes nothing if its end was said before.
    pub(super) fn end_when_sent(&self, end: Result<(), Status>) {
        let mut state = self.state.lock();
        if state.is_sending {
            state.end.get_or_insert(end);
            drop(state);
            self.room.notify_all();
        } else {
            self.end_now(state, end);
        }
    }

    /// Whether the call has ended.
    pub(super) fn is_over(&self) -> bool {
        let state = self.state.lock();
        let replies = state.replies.as_ref();
        replies.is_none_or(|it| it.core().has_ended())
    }

    /// If nothing can be sent any more, nobody else may come to say so.
    fn end_if_broken_off(&self, state: MutexGuard<'_, State<R>>, put: Put) {
        if put == Put::Over && state.end.is_none() {
            let why = state.replies.as_ref().map(DetachedReplies::why_ended);
            if let Some(why) = why {
                self.end_now(state, Err(why));
            }
        }
    }

    fn end_now(&self, mut state: MutexGuard<'_, State<R>>, end: Result<(), Status>) {
        let replies = state.replies.take();
        let waiting = std::mem::take(&mut state.queue);
        drop(state);
        self.room.notify_all();
        drop(waiting);
        if let Some(replies) = replies {
            (self.forget)();
            replies.finish(end);
        }
    }
}

impl<R: Protobuf> fmt::Debug for Subscriber<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        let call = state.replies.as_ref().map(DetachedReplies::call);
        formatter
            .debug_struct("Subscriber")
            .field("call", &call)
            .field("waiting", &state.queue.len())
            .finish_non_exhaustive()
    }
}

impl<R: Protobuf> State<R> {
    fn put(&mut self, message: &Message, capacity: usize) -> Put {
        if self.replies.is_none() || self.end.is_some() {
            return Put::Over;
        }
        if !self.is_sending {
            return self.send(message);
        }
        if self.queue.len() >= capacity {
            return Put::Full;
        }
        self.queue.push_back(Arc::clone(message));
        Put::Taken
    }

    /// Begins to send a message, as nothing is on its way.
    fn send(&mut self, message: &Message) -> Put {
        let Some(replies) = &self.replies else {
            return Put::Over;
        };
        let copy = |buffer: &mut Vec<u8>| {
            buffer.extend_from_slice(message);
            Ok::<_, Infallible>(())
        };
        let Ok(outgoing) = Outgoing::write(copy);
        match replies.core().send_and_tell(outgoing) {
            Ok(()) => {
                self.is_sending = true;
                Put::Taken
            }
            Err(_) => Put::Over,
        }
    }
}

impl<R: Protobuf> Outlet for Subscriber<R> {
    fn sent(&self, _: &Arc<calls::Call>) {
        let mut state = self.state.lock();
        state.is_sending = false;
        let next = state.queue.pop_front();
        let put = match &next {
            Some(message) => state.send(message),
            None => Put::Taken,
        };
        match state.end.take() {
            Some(end) if put == Put::Over || !state.is_sending => self.end_now(state, end),
            end => {
                state.end = end;
                self.end_if_broken_off(state, put);
                self.room.notify_all();
            }
        }
    }
}
