//! A call that goes on in steps: its handler has returned, and a worker is taken only while there is something to do.
//!
//! The host runs a step ([`Host::step`](crate::calls::Host::step)) and decides in it what is to be done: a message has
//! come, the call has to end, the server drains. Who has news asks for a step; only one is asked for or under way at a
//! time, so that the host needs no lock of its own against a second thread:
//!
//! | flags | meaning |
//! |---|---|
//! | neither | nothing to do; who asks sees to it that a worker comes |
//! | `STEP_DUE` | a worker is to come |
//! | `STEPPING` | a worker is there, or the handler has not returned yet |
//! | both | it is there, and has to come again |
//!
//! A message is asked for when the one before was dealt with, and not earlier: so a caller is held up by a handler that is
//! busy, as it is with one that blocks.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use super::messages::{Received, Wait};
use super::{
    Call, CALLER_LEFT, EXPIRED, FINISHED, RECEIVED, RECEIVING, RETURNED, STEPPED, STEPPING,
    STEP_DUE, TOLD,
};
use crate::calls::message::Message;

impl Call {
    /// From now on the call goes on in steps, of which the first is run when the handler has returned. False if it has
    /// returned already: nobody would run that.
    pub(crate) fn go_on_in_steps(self: &Arc<Self>) -> bool {
        let step = |flags: u32| (flags & RETURNED == 0).then_some(flags | STEPPED | STEPPING);
        let begun = self
            .flags
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, step);
        if begun.is_err() {
            return false;
        }
        self.detach();
        // Nobody waits for the call who would see its deadline pass. And the lock pairs with the one in `tell_of_drain`:
        // either that sees that the call goes on in steps, or the first step sees the drain.
        self.keep_deadline(&mut self.stream.lock());
        true
    }

    /// Whether it goes on in steps.
    pub(crate) fn is_stepped(&self) -> bool {
        self.flag(STEPPED)
    }

    /// Asks for a step. If one is under way, another follows. May be called on any thread.
    pub(crate) fn ask_for_step(self: &Arc<Self>) {
        if self.claim_step() {
            self.wire.step(self);
        }
    }

    /// Says whether it is for the caller of this to see to it that a worker comes.
    fn claim_step(&self) -> bool {
        let before = self.flags.fetch_or(STEP_DUE, Ordering::AcqRel);
        before & (STEP_DUE | STEPPING) == 0
    }

    /// A worker is there.
    pub(in crate::calls) fn begin_step(&self) {
        let change = |flags: u32| Some((flags | STEPPING) & !STEP_DUE);
        let _ = self
            .flags
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
    }

    /// The worker is done. Says whether it is to see to it that one comes again.
    pub(in crate::calls) fn end_step(&self) -> bool {
        self.flags.fetch_and(!STEPPING, Ordering::AcqRel) & STEP_DUE != 0
    }

    /// Asks for the caller's next message, unless that was done: when it comes, a step follows.
    pub(crate) fn ask_for_message(self: &Arc<Self>) {
        let mut stream = self.stream.lock();
        // Those who end a call ask for a step themselves.
        if self.flag(RECEIVING | FINISHED | CALLER_LEFT | TOLD | EXPIRED) {
            return;
        }
        if stream.received_all.is_none() {
            self.flags.fetch_or(RECEIVING, Ordering::AcqRel);
            if self.wire.receive_in_turn(self) {
                return;
            }
            stream.received_all = Some(false);
        }
        drop(stream);
        self.ask_for_step();
    }

    /// Whether a message was received that was asked for, or the end of them.
    pub(crate) fn has_received(&self) -> bool {
        self.flag(RECEIVED)
    }

    /// What was received; [`Received::TimedOut`] if nothing was.
    pub(crate) fn take_received(self: &Arc<Self>) -> Received {
        let is_there = self.has_received() || self.stream.lock().received_all.is_some();
        match is_there {
            true => self.receive(Wait::Never),
            false => Received::TimedOut,
        }
    }

    /// As [`received`](Self::received), told by a thread that polls. Says whether it has a step to run: others have not
    /// asked for one.
    pub(crate) fn received_in_turn(&self, message: Option<Message>, failed: bool) -> bool {
        self.received(message, failed);
        self.claim_step()
    }
}
