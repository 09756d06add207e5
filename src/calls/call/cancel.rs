//! What ends a call before its handler does, and who is told: the caller leaves, the deadline passes, the server drains
//! or wants the call to end.

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Call, Stream, CALLER_LEFT, EXPIRED, FINISHED, STEPPED, TOLD, WATCHED};

impl Call {
    /// Whether the caller left. Asking makes the transport look out for it.
    pub(crate) fn caller_left(self: &Arc<Self>) -> bool {
        self.watch();
        self.flag(CALLER_LEFT)
    }

    /// Whether the server wants this call to end.
    pub(crate) fn told_to_stop(&self) -> bool {
        self.flag(TOLD)
    }

    /// Whether the caller is known to have left, the deadline has passed, or the server wants the call to end.
    pub(crate) fn has_to_end(&self) -> bool {
        self.flag(CALLER_LEFT | TOLD | EXPIRED)
    }

    /// Runs `callback` when the caller leaves, the deadline passes or the server
    /// wants the call to end; at once if that has happened.
    pub(crate) fn on_cancel(self: &Arc<Self>, callback: impl FnOnce() + Send + 'static) {
        self.watch();
        let mut stream = self.stream.lock();
        if let Some(remaining) = self.time_to_deadline() {
            self.set_timer(&mut stream, remaining);
        }
        if self.flag(CALLER_LEFT | TOLD | EXPIRED) {
            drop(stream);
            callback();
        } else {
            stream.rare().on_cancel.push(Box::new(callback));
        }
    }

    /// Runs `callback` when the server begins to drain; at once if it has.
    pub(crate) fn on_drain(&self, callback: impl FnOnce() + Send + 'static) {
        let mut stream = self.stream.lock();
        // Pairs with the store in `Runner::drain`, which comes before `tell_of_drain`.
        if self.is_draining() {
            drop(stream);
            callback();
        } else {
            stream.rare().on_drain.push(Box::new(callback));
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.ground.stopping.is_leaving()
    }

    /// The server begins to drain. From now on the caller is looked out for: nothing is to be
    /// waited for that nobody waits for.
    pub(in crate::calls) fn tell_of_drain(self: &Arc<Self>) {
        self.note_connection();
        let callbacks = self.stream.lock().take(|it| &mut it.on_drain);
        callbacks.into_iter().for_each(|callback| callback());
        if self.flag(STEPPED) {
            self.ask_for_step();
        }
        self.watch();
    }

    pub(super) fn set_timer(self: &Arc<Self>, stream: &mut Stream, remaining: Duration) {
        let Some(deadline) = Instant::now().checked_add(remaining) else {
            return;
        };
        let rare = stream.rare();
        if rare.timer.is_none() && !self.flag(FINISHED) {
            rare.timer = Some(self.ground.timers.expire_at(deadline, self));
        }
    }

    /// Asks the transport to say when the call closes, unless that was done.
    pub(in crate::calls) fn watch(self: &Arc<Self>) {
        if self.flag(WATCHED | FINISHED) {
            return;
        }
        // Held until the operation has begun: `finish` waits for that.
        let _stream = self.stream.lock();
        let claim = self
            .flags
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |flags| {
                (flags & (WATCHED | FINISHED) == 0).then_some(flags | WATCHED)
            });
        if claim.is_ok() {
            self.wire.watch(self);
        }
    }

    /// The call is closed that was watched: `cancelled` says that this was before its status had come through.
    pub(crate) fn closed(self: &Arc<Self>, cancelled: bool) {
        if cancelled {
            self.cancel(CALLER_LEFT);
            self.let_go_of_detached();
        }
    }

    /// The server wants this call to end. Says whether it had not ended already.
    pub(in crate::calls) fn tell_to_stop(self: &Arc<Self>) -> bool {
        let step = |flags: u32| (flags & FINISHED == 0).then_some(flags | TOLD);
        let told = self
            .flags
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, step);
        told.is_ok() && {
            self.cancel(TOLD);
            true
        }
    }

    pub(in crate::calls) fn expire(self: &Arc<Self>) {
        self.cancel(EXPIRED);
    }

    pub(super) fn cancel(self: &Arc<Self>, why: u32) {
        let mut stream = self.stream.lock();
        self.flags.fetch_or(why, Ordering::AcqRel);
        let callbacks = stream.take(|it| &mut it.on_cancel);
        drop(stream);
        self.notify();
        callbacks.into_iter().for_each(|callback| callback());
        if self.flag(STEPPED) {
            self.ask_for_step();
        }
    }
}
