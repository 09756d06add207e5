//! The messages of a call: sent and received one at a time each way, by threads that may wait for it.

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::MutexGuard;

use super::wire::Told;
use super::{
    Call, Stream, CALLER_LEFT, EXPIRED, FINISHED, HEADERS_SENT, RECEIVED, RECEIVE_FAILED,
    RECEIVING, SENDING, SEND_FAILED, STEPPED, STEPPING, STEP_DUE, TOLD,
};
use crate::calls::aside;
use crate::calls::message::Message;
use crate::calls::outgoing::Outgoing;

/// What came of waiting for a message.
pub(crate) enum Received {
    Message(Message),
    /// The caller has sent its last message.
    End,
    /// The call is over, or has to be.
    Ended,
    TimedOut,
}

/// Why a message was not sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SendError {
    /// The one before it is still on its way to a slow caller.
    Full,
    /// The call is over, or has to be.
    Ended,
}

/// How long to wait.
#[derive(Clone, Copy)]
pub(crate) enum Wait {
    Never,
    Until(Instant),
    Forever,
}

impl Call {
    /// Begins to send a message, once the one before it is on its way.
    pub(crate) fn send(self: &Arc<Self>, message: Outgoing, wait: Wait) -> Result<(), SendError> {
        let mut stream = self.free_to_send(wait)?;
        self.begin_to_send(&mut stream, message, Told::Directly)
    }

    /// Waits until the message that was sent last is on its way.
    pub(crate) fn until_taken(self: &Arc<Self>) -> Result<(), SendError> {
        self.free_to_send(Wait::Forever).map(drop)
    }

    fn free_to_send(self: &Arc<Self>, wait: Wait) -> Result<MutexGuard<'_, Stream>, SendError> {
        loop {
            let changes = self.changes();
            let stream = self.stream.lock();
            if self.flag(SEND_FAILED) || self.is_over() {
                return Err(SendError::Ended);
            }
            if !self.flag(SENDING) {
                return Ok(stream);
            }
            if !self.wait(stream, changes, wait) {
                return Err(SendError::Full);
            }
        }
    }

    /// As `send`, but never waits, and the host is told ([`Host::sent`](crate::calls::Host::sent)) once the
    /// message is on its way: by a thread that polls, so it may do what it likes then.
    pub(crate) fn send_and_tell(self: &Arc<Self>, message: Outgoing) -> Result<(), SendError> {
        let mut stream = self.stream.lock();
        if self.flag(SEND_FAILED) || self.is_over() {
            return Err(SendError::Ended);
        }
        if self.is_sending() {
            return Err(SendError::Full);
        }
        self.begin_to_send(&mut stream, message, Told::InTurn)
    }

    /// Whether a message is on its way.
    pub(crate) fn is_sending(&self) -> bool {
        self.flag(SENDING)
    }

    fn begin_to_send(
        self: &Arc<Self>,
        stream: &mut Stream,
        message: Outgoing,
        told: Told,
    ) -> Result<(), SendError> {
        let before = self
            .flags
            .fetch_or(HEADERS_SENT | SENDING, Ordering::AcqRel);
        stream.caller_spoke_last = false;
        let headers = stream.take(|it| &mut it.headers);
        let headers = (before & HEADERS_SENT == 0).then_some(&*headers);
        let bytes = message.as_bytes().len();
        if self.wire.send(self, headers, message, told) {
            if let Some(record) = self.record() {
                record.sent(bytes);
            }
            Ok(())
        } else {
            self.flags.fetch_or(SEND_FAILED, Ordering::AcqRel);
            Err(SendError::Ended)
        }
    }

    /// The message that was sent is on its way, or never will be. See the head of [`Call`]'s module for what may be
    /// done here.
    pub(crate) fn sent(&self, succeeded: bool) {
        if !succeeded {
            self.flags.fetch_or(SEND_FAILED, Ordering::AcqRel);
        }
        self.flags.fetch_and(!SENDING, Ordering::AcqRel);
        self.notify();
    }

    /// As `sent`, for [`send_and_tell`](Self::send_and_tell).
    pub(crate) fn sent_in_turn(self: &Arc<Self>) {
        self.flags.fetch_and(!SENDING, Ordering::AcqRel);
        self.notify();
        self.ground.host.sent(self);
    }

    /// A message has come; or none, because the caller has sent its last, or because of a failure. See the head of
    /// [`Call`]'s module for what may be done here.
    pub(crate) fn received(&self, message: Option<Message>, failed: bool) {
        let how = if failed { RECEIVE_FAILED } else { 0 };
        self.inbox.lock().message = message;
        self.flags.fetch_or(RECEIVED | how, Ordering::AcqRel);
        self.notify();
    }

    /// Waits for the caller's next message.
    pub(crate) fn receive(self: &Arc<Self>, wait: Wait) -> Received {
        loop {
            let changes = self.changes();
            let mut stream = self.stream.lock();
            match stream.received_all {
                Some(true) => return Received::End,
                Some(false) => return Received::Ended,
                None => {}
            }
            if self.flag(RECEIVED) {
                let flags = self
                    .flags
                    .fetch_and(!(RECEIVED | RECEIVING), Ordering::AcqRel);
                let message = self.inbox.lock().message.take();
                if let Some(message) = message {
                    stream.caller_spoke_last = true;
                    if let Some(record) = self.record() {
                        record.received(message.len());
                    }
                    return Received::Message(message);
                }
                // What the server has ended over the handler's head has no more messages either, but its caller may
                // have had more to say.
                stream.received_all = Some(flags & (RECEIVE_FAILED | FINISHED) == 0);
                continue;
            }
            if self.is_over() {
                return Received::Ended;
            }
            if !self.flag(RECEIVING) {
                self.flags.fetch_or(RECEIVING, Ordering::AcqRel);
                if !self.wire.receive(self) {
                    stream.received_all = Some(false);
                }
                // It may have come already.
                continue;
            }
            if !self.wait(stream, changes, wait) {
                return Received::TimedOut;
            }
        }
    }

    /// Whether nothing can come of sending or receiving any more. Callers need not cancel when
    /// their deadline passes, and some do not: the server keeps it, too.
    fn is_over(&self) -> bool {
        self.flag(FINISHED | CALLER_LEFT | TOLD | EXPIRED) || self.deadline_passed()
    }

    /// Whether a thread, or the next step, waits for the caller's next message, and none is on its way to the caller.
    pub(in crate::calls) fn waits_for_request(&self) -> bool {
        let flags = self.flags.load(Ordering::Acquire);
        let at_work = RECEIVED | SENDING | FINISHED | CALLER_LEFT | TOLD | EXPIRED;
        if flags & (RECEIVING | at_work) != RECEIVING {
            return false;
        }
        match flags & STEPPED {
            // With nothing on its way, who waits waits to receive.
            0 => self.waiting.load(Ordering::SeqCst) > 0,
            _ => flags & (STEP_DUE | STEPPING) == 0,
        }
    }

    /// Whether a thread waits for the caller to send or to take something.
    pub(in crate::calls) fn waits_for_its_caller(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Whether somebody may be at work on a reply to what the caller has sent.
    pub(in crate::calls) fn may_owe_a_reply(&self) -> bool {
        let method = self.method.map(|it| &self.ground.methods[it as usize]);
        method.is_some_and(|it| it.streaming_response) && self.stream.lock().caller_spoke_last
    }

    /// To be asked before a look at what `wait` is to wait for.
    pub(in crate::calls) fn changes(&self) -> u32 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Waits until something has changed since there were `seen` changes. False if the time is
    /// over.
    fn wait(self: &Arc<Self>, mut stream: MutexGuard<'_, Stream>, seen: u32, wait: Wait) -> bool {
        let until = match wait {
            Wait::Never => return false,
            Wait::Until(deadline) => Some(deadline),
            Wait::Forever => None,
        };
        self.keep_deadline(&mut stream);
        drop(stream);
        aside::waiting(self.key(), || self.sleep(seen, until))
    }

    fn sleep(&self, seen: u32, until: Option<Instant>) -> bool {
        // Pairs with the load in `notify`: either that sees this, or the load below sees the change.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut inbox = self.inbox.lock();
        let mut in_time = true;
        while in_time && self.changes() == seen {
            match until {
                None => self.changed.wait(&mut inbox),
                Some(until) => {
                    in_time = !self.changed.wait_until(&mut inbox, until).timed_out();
                }
            }
        }
        drop(inbox);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        in_time
    }

    /// Who waits for the call is woken when its deadline passes.
    pub(super) fn keep_deadline(self: &Arc<Self>, stream: &mut Stream) {
        if let Some(remaining) = self.time_to_deadline() {
            self.set_timer(stream, remaining);
        }
    }

    /// Wakes all who wait.
    pub(super) fn notify(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            // A thread that has looked at `changes` before sleeps by now.
            let inbox = self.inbox.lock();
            if let Some(bell) = &inbox.bell {
                // One that is full was rung already.
                let _ = bell.try_send(());
            }
            drop(inbox);
            self.changed.notify_all();
        }
    }
}
