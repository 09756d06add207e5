//! What waits to be sent on a stream without a thread.
//!
//! Several threads come here: the worker that runs a step, others that were handed the replies, and one that polls, when the
//! message before is on its way. Whoever finds that nothing is on its way sends, under the lock, so each message goes out
//! once and in its order. The program's code is never called under it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::calls::{self, Outgoing};
use crate::server::context::Outlet;
use crate::server::status::Status;
use crate::server::stream::why_ended;

/// How many bytes may wait before there is no more room: the window of a stream of HTTP/2 at its beginning (RFC 9113, 6.9.2),
/// rounded up.
pub(super) const ROOM: usize = 64 * 1024;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// It is on its way, or waits for its turn.
    Taken,
    /// There is no room.
    Full,
    /// Nothing more is sent.
    Over,
}

pub(super) struct Outbox {
    /// What the program keeps of this does not keep the call.
    core: Weak<calls::Call>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What waits. Only while something is on its way.
    queue: VecDeque<Box<[u8]>>,
    bytes: usize,
    is_sending: bool,
    /// A message was refused for want of room, and nobody was told of room since.
    was_full: bool,
    /// How the stream is to end once everything is sent.
    end: Option<Result<(), Status>>,
    stage: Stage,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Open,
    /// What was to be sent could not be.
    Broken,
    /// The end was said.
    Closed,
}

impl Outbox {
    pub(super) fn new(core: &Arc<calls::Call>) -> Outbox {
        Outbox {
            core: Arc::downgrade(core),
            state: Mutex::default(),
        }
    }

    /// Sends a message, or has it wait.
    pub(super) fn put(&self, message: &Outgoing) -> Put {
        let Some(core) = self.core.upgrade() else {
            return Put::Over;
        };
        let mut state = self.state.lock();
        if state.stage != Stage::Open || state.end.is_some() {
            return Put::Over;
        }
        if !state.is_sending {
            return state.send(&core, message.as_bytes());
        }
        // One that is larger than all that may wait has to fit somewhere, too.
        if state.bytes >= ROOM {
            state.was_full = true;
            return Put::Full;
        }
        state.bytes += message.as_bytes().len();
        state.queue.push_back(message.as_bytes().into());
        Put::Taken
    }

    /// Says how the stream ends once everything is sent, unless that was said before. The next step ends it.
    pub(super) fn finish(&self, end: Result<(), Status>) {
        let Some(core) = self.core.upgrade() else {
            return;
        };
        if self.note_end(end) {
            core.ask_for_step();
        }
    }

    /// As `finish`, for a step.
    pub(super) fn note_end(&self, end: Result<(), Status>) -> bool {
        let mut state = self.state.lock();
        let is_first = state.stage != Stage::Closed && state.end.is_none();
        if is_first {
            state.end = Some(end);
        }
        is_first
    }

    /// Whether it was said how the stream ends.
    pub(super) fn is_to_end(&self) -> bool {
        self.state.lock().end.is_some()
    }

    /// The end that is due: everything is sent. From now on nothing more is.
    pub(super) fn take_end(&self) -> Option<Result<(), Status>> {
        let mut state = self.state.lock();
        if state.stage != Stage::Open || !state.queue.is_empty() {
            return None;
        }
        let end = state.end.take()?;
        state.stage = Stage::Closed;
        Some(end)
    }

    /// From now on nothing more is sent. What waits is dropped.
    pub(super) fn close(&self) -> bool {
        let mut state = self.state.lock();
        let was_open = state.stage != Stage::Closed;
        state.stage = Stage::Closed;
        let waiting = std::mem::take(&mut state.queue);
        drop(state);
        drop(waiting);
        was_open
    }

    /// Whether something could not be sent, so that nothing after it can be.
    pub(super) fn is_broken(&self) -> bool {
        self.state.lock().stage == Stage::Broken
    }

    pub(super) fn is_over(&self) -> bool {
        let is_alive = |core: Arc<calls::Call>| !core.has_ended() && !core.has_to_end();
        if !self.core.upgrade().is_some_and(is_alive) {
            return true;
        }
        let state = self.state.lock();
        state.stage != Stage::Open || state.end.is_some()
    }

    /// Why nothing more can be sent.
    pub(super) fn why_over(&self) -> Status {
        match self.core.upgrade() {
            Some(core) if core.has_to_end() || core.deadline_passed() => why_ended(&core),
            _ => Status::cancelled("the stream is over"),
        }
    }

    /// Whether nothing is on its way, so that the handler may see the next request.
    pub(super) fn is_idle(&self) -> bool {
        !self.state.lock().is_sending
    }

    /// Whether a message was refused for want of room, and now there is some. Says so once.
    pub(super) fn take_room(&self) -> bool {
        let mut state = self.state.lock();
        let has_room = state.was_full && !state.is_sending;
        state.was_full &= !has_room;
        has_room
    }

    /// Sees to it that the stream goes on. To be called at the end of each step, and when the last message that was to be
    /// sent is on its way: whoever comes last finds what is to be done.
    pub(super) fn go_on(&self, core: &Arc<calls::Call>) {
        let state = self.state.lock();
        let is_open = state.stage == Stage::Open;
        if !is_open || state.is_sending && (state.end.is_none() || !state.queue.is_empty()) {
            return;
        }
        let is_due = state.end.is_some() || state.was_full || core.has_received();
        match is_due {
            true => core.ask_for_step(),
            // Its lock is taken inside of this one, here as in `send`.
            false => core.ask_for_message(),
        }
    }
}

impl State {
    /// Begins to send a message, as nothing is on its way.
    fn send(&mut self, core: &Arc<calls::Call>, message: &[u8]) -> Put {
        let copy = |buffer: &mut Vec<u8>| {
            buffer.extend_from_slice(message);
            Ok::<_, Infallible>(())
        };
        let Ok(outgoing) = Outgoing::write(copy);
        match core.send_and_tell(outgoing) {
            Ok(()) => {
                self.is_sending = true;
                Put::Taken
            }
            Err(_) => {
                self.queue.clear();
                self.bytes = 0;
                self.stage = Stage::Broken;
                // Nobody else may come to say so.
                core.ask_for_step();
                Put::Over
            }
        }
    }
}

impl Outlet for Outbox {
    fn sent(&self, core: &Arc<calls::Call>) {
        let mut state = self.state.lock();
        state.is_sending = false;
        if let Some(next) = state.queue.pop_front() {
            state.bytes -= next.len();
            state.send(core, &next);
        }
        drop(state);
        self.go_on(core);
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = self.core.upgrade();
        let state = self.state.lock();
        formatter
            .debug_struct("Outbox")
            .field("method", &core.as_ref().map(|it| it.path()))
            .field("waiting", &state.queue.len())
            .finish_non_exhaustive()
    }
}
