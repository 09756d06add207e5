//! How a call comes to its end: who says it, what is sent, and when it has landed.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use super::wire::Finish;
use super::{
    Call, Ending, Epilogue, Handled, Landed, ABANDONED, CALLER_LEFT, CUT, DETACHED, FINISHED,
    GIVEN_UP, HANDLED, HAS_METADATA, HEADERS_SENT, REFUSED, RETURNED, SHED, STEPPED, TOLD, WATCHED,
    WRITTEN,
};
use crate::calls::codes::CANCELLED;
use crate::calls::outgoing::Outgoing;
use crate::calls::record::Refusal;

impl Call {
    pub(crate) fn set_epilogue(&self, epilogue: Epilogue) {
        self.stream.lock().rare().epilogue = Some(epilogue);
    }

    pub(crate) fn take_epilogue(&self) -> Option<Epilogue> {
        self.stream.lock().take(|it| &mut it.epilogue)
    }

    /// Sends the status, with a last message and with what headers and trailers
    /// were set. Says whether this was the end: a call ends once.
    #[inline]
    pub(crate) fn finish(
        self: &Arc<Self>,
        message: Option<Outgoing>,
        ending: Ending<'_>,
        handled: Handled,
    ) -> bool {
        self.finish_as(message, ending, handled, 0)
    }

    /// As `finish`. If this is the end, `mark` is set along with it.
    fn finish_as(
        self: &Arc<Self>,
        message: Option<Outgoing>,
        ending: Ending<'_>,
        handled: Handled,
        mark: u32,
    ) -> bool {
        if self.is_draining() {
            self.note_connection();
        }
        let mut lock = self.streaming.then(|| self.stream.lock());
        let done = match handled {
            Handled::Yes => HANDLED,
            Handled::NotYet => 0,
        };
        let end = FINISHED | WATCHED | HEADERS_SENT | done;
        let before = match mark {
            0 => self.flags.fetch_or(end, Ordering::AcqRel),
            _ => self.end_with_mark(end, done, mark),
        };
        if before & FINISHED != 0 {
            drop(lock);
            self.handled(before, done);
            return false;
        }
        if let Some(record) = self.record() {
            record.ended(ending.code);
            if let Some(message) = &message {
                record.sent(message.as_bytes().len());
            }
        }
        if self.is_draining() && self.is_prompt() {
            self.end_without_answer();
        }
        let (mut headers, mut trailers) = (Vec::new(), Vec::new());
        if lock.is_none() && before & (WATCHED | HAS_METADATA) != 0 {
            // If the watch has been claimed, this waits until it has begun.
            lock = Some(self.stream.lock());
        }
        if let Some(stream) = lock.as_mut().filter(|_| before & HAS_METADATA != 0) {
            headers = stream.take(|it| &mut it.headers);
            trailers = stream.take(|it| &mut it.trailers);
        }
        if mark != 0 {
            // Of a handler that did not come to its end. Without headers a client may retry.
            headers.clear();
            trailers.clear();
        }
        if let Some(milliseconds) = self.ground.pushback.of(ending.retry) {
            trailers.push((
                "grpc-retry-pushback-ms".to_owned(),
                milliseconds.to_string().into_bytes(),
            ));
        }
        if !ending.details.is_empty() {
            trailers.push((
                "grpc-status-details-bin".to_owned(),
                ending.details.to_vec(),
            ));
        }
        let finish = Finish {
            headers: (before & HEADERS_SENT == 0).then_some(&*headers),
            message,
            code: ending.code,
            text: ending.message,
            trailers: &trailers,
            watch: before & WATCHED == 0,
        };
        let begun = self.wire.finish(self, finish);
        drop(lock);
        self.handled(before, done);
        if !begun {
            self.written(false);
        }
        true
    }

    /// Has set `done`, which is HANDLED or nothing.
    #[inline]
    fn handled(self: &Arc<Self>, before: u32, done: u32) {
        if done != 0 && before & DETACHED != 0 {
            self.leave_detached();
        }
        self.land(before, done);
    }

    /// To be called by the thread that has set a flag that the landing waits for: one of them was the last.
    #[inline]
    fn land(self: &Arc<Self>, before: u32, set: u32) {
        let all = WRITTEN | self.end_of_work();
        if before & all != all && (before | set) & all == all {
            self.ground.landed(self);
        }
    }

    /// The flags that are set once nobody is at work on the call.
    #[inline]
    fn end_of_work(&self) -> u32 {
        match self.streaming {
            true => HANDLED | RETURNED,
            false => HANDLED,
        }
    }

    fn end_with_mark(&self, end: u32, done: u32, mark: u32) -> u32 {
        let step = |flags: u32| match flags & FINISHED {
            0 => Some(flags | end | mark),
            _ => Some(flags | done),
        };
        let before = self
            .flags
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, step);
        before.unwrap_or_else(|flags| flags)
    }

    /// Ends a call that no handler has seen. Says whether it had not ended.
    pub(in crate::calls) fn refuse(self: &Arc<Self>, why: Refusal, ending: Ending<'_>) -> bool {
        if let Some(record) = self.record() {
            record.refused(why);
        }
        let was_open = self.finish_as(None, ending, Handled::Yes, REFUSED);
        self.returned();
        was_open
    }

    /// Ends the call over its handler's head, because the server does not wait for it any longer.
    /// Says whether somebody is still at work on it.
    pub(in crate::calls) fn abandon(self: &Arc<Self>, ending: Ending<'_>) -> bool {
        self.note_connection();
        self.finish_as(None, ending, Handled::NotYet, TOLD);
        // It may have been cut before. One that only its caller holds up is not abandoned; nor is one twice, which its
        // handler has detached and is still at work on.
        let end = self.end_of_work();
        let is_left = |flags: u32| flags & end != end && flags & ABANDONED == 0;
        let step = |flags: u32| is_left(flags).then_some(flags | ABANDONED);
        let abandoned = self
            .flags
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, step);
        abandoned.is_ok_and(|before| {
            // One that is just being refused lands so.
            if before & REFUSED == 0 {
                self.ground.ended(self, Landed::Abandoned);
            }
            self.give_up();
            self.end_without_answer();
            // A stop during start-up has told nobody before.
            self.cancel(TOLD);
            true
        })
    }

    /// Ends the call over its handler's head, because its time in the drain is over, and tells the
    /// handler. Says whether it had not ended.
    pub(in crate::calls) fn cut(self: &Arc<Self>, ending: Ending<'_>) -> bool {
        let was_open = self.finish_as(None, ending, Handled::NotYet, CUT | TOLD);
        if was_open {
            self.give_up();
            self.end_without_answer();
            self.cancel(TOLD);
            self.let_go_of_detached();
        }
        was_open
    }

    /// Ends the call over its handler's head, because others need what it holds, and tells the handler. Says whether it
    /// had not ended.
    pub(in crate::calls) fn shed(self: &Arc<Self>, ending: Ending<'_>) -> bool {
        let was_open = self.finish_as(None, ending, Handled::NotYet, SHED | CUT | TOLD);
        if was_open {
            self.cancel(TOLD);
            self.let_go_of_detached();
        }
        was_open
    }

    /// Whether the server has ended the call because others needed what it held.
    pub(crate) fn was_shed(&self) -> bool {
        self.flag(SHED)
    }

    /// The handler has returned, or will not run. Others than streams end as their handlers return.
    #[inline]
    pub(in crate::calls) fn returned(self: &Arc<Self>) {
        if !self.streaming {
            return;
        }
        let before = self.flags.fetch_or(RETURNED, Ordering::AcqRel);
        if before & DETACHED != 0 {
            self.let_go_of_detached();
        }
        self.land(before, RETURNED);
    }

    /// If nobody is at work on the call but who holds what was detached from it, and there is
    /// nobody to whom that could be sent: the call is over, and not waited for. One that goes on in steps ends in
    /// its next one.
    pub(super) fn let_go_of_detached(self: &Arc<Self>) {
        let flags = self.flags.load(Ordering::Acquire);
        let is_detached = flags & (DETACHED | RETURNED | STEPPED) == DETACHED | RETURNED;
        if is_detached && flags & (CALLER_LEFT | CUT) != 0 {
            let gone = Ending::new(CANCELLED, "the caller left");
            self.finish(None, gone, Handled::Yes);
        }
    }

    /// What is to be said of a call that has landed; asked once.
    #[inline]
    pub(crate) fn outcome(&self) -> Landed {
        let flags = self.flags.load(Ordering::Acquire);
        let is = |flag| flags & flag != 0;
        match () {
            () if is(REFUSED) => Landed::Refused,
            () if is(ABANDONED) => Landed::Abandoned,
            () if is(CUT) => Landed::Cut,
            () if is(CALLER_LEFT) => match self.is_on_cut_connection() {
                Some(true) => Landed::Undelivered,
                Some(false) => Landed::Completed,
                None => Landed::CallerLeft,
            },
            () if is(TOLD) => Landed::ToldToStop,
            // The transport does not say so of what was being written.
            () if self.is_on_cut_connection() == Some(true) => Landed::Undelivered,
            () => Landed::Completed,
        }
    }

    /// Whether the call lands on a connection that was cut before; and then whether its answer has not arrived.
    #[inline]
    fn is_on_cut_connection(&self) -> Option<bool> {
        let connections = &self.ground.connections;
        if !self.is_draining() || self.is_prompt() || !connections.were_some_cut() {
            return None;
        }
        self.note_connection();
        match self.connection.get() {
            Some(number) => connections.lands_late(*number),
            // Nobody has noted in time which one it was: then it is taken for one of those.
            None => Some(true),
        }
    }

    /// The call is not waited for in a drain any more, or never was: it is one that nobody counts, or the server has
    /// ended it over its handler's head.
    pub(in crate::calls) fn give_up(&self) {
        self.note_connection();
        if let Some(number) = self.connection.get() {
            if self.flags.fetch_or(GIVEN_UP, Ordering::AcqRel) & (GIVEN_UP | WRITTEN) == 0 {
                self.ground.connections.gave_up(*number, self.streaming);
            }
        }
    }

    /// The end that goes out is no answer of a handler that counts.
    fn end_without_answer(&self) {
        if let Some(number) = self.connection.get() {
            self.ground.connections.end_without_answer(*number);
        }
    }

    /// Whether the status was sent, or is about to be.
    pub(crate) fn has_ended(&self) -> bool {
        self.flag(FINISHED)
    }

    pub(crate) fn is_detached(&self) -> bool {
        self.flag(DETACHED)
    }

    /// Whether the handler has returned, and nobody has finished what was detached from the call. One that goes on in
    /// steps is finished by those.
    pub(in crate::calls) fn is_left_detached(&self) -> bool {
        let flags = self.flags.load(Ordering::Acquire);
        flags & (DETACHED | RETURNED | HANDLED | STEPPED) == DETACHED | RETURNED
    }

    /// Whether whoever was at work on the call has ended it.
    pub(crate) fn is_handled(&self) -> bool {
        self.flag(HANDLED)
    }

    /// Lets the call go on after its handler has returned, until it is finished.
    pub(crate) fn detach(self: &Arc<Self>) {
        self.ground.detached.add(self);
        let before = self.flags.fetch_or(DETACHED, Ordering::AcqRel);
        // Nobody else may be there to notice.
        self.watch();
        if before & HANDLED != 0 || before & (WRITTEN | STEPPED) == WRITTEN {
            // It had ended, and who ended it has not seen that it is here.
            self.leave_detached();
        }
    }

    fn leave_detached(self: &Arc<Self>) {
        self.ground.detached.remove(self);
    }

    /// The end of the call is with the kernel, or never will be. `caller_left` if the call was
    /// [watched](Finish::watch) by its end, and was closed before its status had come through.
    #[inline]
    pub(crate) fn written(self: &Arc<Self>, caller_left: bool) {
        if caller_left {
            self.flags.fetch_or(CALLER_LEFT, Ordering::AcqRel);
        }
        let before = self.flags.fetch_or(WRITTEN, Ordering::AcqRel);
        if let (true, Some(number)) = (before & GIVEN_UP != 0, self.connection.get()) {
            self.ground.connections.took(*number, self.streaming);
        }
        // One that goes on in steps is still to be told how it has ended.
        if before & (DETACHED | STEPPED) == DETACHED {
            self.leave_detached();
        }
        self.land(before, WRITTEN);
    }
}
