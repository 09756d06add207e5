//! C-core as the [`Transport`] of a server.

use std::io;
use std::sync::Arc;

use super::call::CoreCall;
use super::connection;
use super::core::{Core, Registered};
use super::queue::{Queue, Told};
use super::server::Server;
use super::shim;
use super::slots::Slot;
use super::tag::{
    bare, kind_of, tag, untagged, KIND_CHECK, KIND_RENEWAL, KIND_SERVER, KIND_SLOT, KIND_TURN,
};
use crate::calls::transport::{Check, Event, Newcomer, Settings, Transport};
use crate::calls::{Ground, Method};

/// How many calls C-core may take in before a thread has come to fetch one. It
/// is a matter of overlap, not of capacity; many slow the shutdown down.
const SLOTS: usize = 16;

/// How many there are of each method once calls were so many that a round was full, a round of them (`Turns`, in cc/turn.h). Those for
/// which there is no slot C-core hands out later than the end of the round, and among them those of others.
const SLOTS_OF_ROUND: usize = 32;

/// What the thread does that polls next.
// Aligned so that a tag has four bits to spare; see `tag`.
#[repr(align(16))]
struct Posted(Check);

pub(super) struct CoreTransport(Arc<Core>);

impl CoreTransport {
    pub(super) fn new(settings: &Settings, methods: &[Method]) -> io::Result<CoreTransport> {
        let queue = Queue::new();
        let server = Server::new(queue.as_raw(), settings);
        let register = |method: &Method| {
            let with_message = !method.streaming_request;
            let handle = server.register(&method.path, with_message).ok_or_else(|| {
                let message = format!("C-core refuses the method {}", method.path);
                io::Error::new(io::ErrorKind::InvalidInput, message)
            })?;
            Ok(Registered::new(handle, with_message, method.prompt))
        };
        // Before the two are moved: if it fails, the server goes before the queue, which ends C-core.
        let methods = methods.iter().map(register).collect::<io::Result<_>>()?;
        Ok(CoreTransport(Arc::new(Core::new(server, queue, methods))))
    }

    /// What there is to do about what the queue has said.
    #[inline]
    fn event(&self, told: Told, ground: &Arc<Ground>) -> Event {
        let Told::Tag { tag, succeeded } = told else {
            return Event::End;
        };
        match kind_of(tag) {
            KIND_SERVER => Event::Stopped,
            KIND_TURN => self.turn(),
            KIND_RENEWAL => Event::Renewal,
            KIND_CHECK => {
                // SAFETY: from `post`, and each tag comes back once.
                Event::Check(unsafe { Box::from_raw(untagged::<Posted>(tag)) }.0)
            }
            KIND_SLOT => {
                // SAFETY: from `lay_out`, and each tag comes back once.
                let mut slot = unsafe { Slot::take_back(tag) };
                if !succeeded {
                    self.0.slot_is_done_with();
                    return Event::NoArrival;
                }
                // SAFETY: C-core has filled it.
                let arrival = unsafe { slot.take(&self.0, ground) };
                slot.lay_out(&self.0);
                Event::Arrival(arrival)
            }
            _ => {
                // SAFETY: from a call, each tag comes back once, and the operation has ended.
                unsafe {
                    let (call, operation) = CoreCall::take_tag(tag);
                    CoreCall::completed(call, operation, succeeded)
                }
            }
        }
    }
}

impl CoreTransport {
    /// A round of calls is over.
    #[cold]
    fn turn(&self) -> Event {
        let laid_out = self.lay_out_more_slots();
        self.0.server.take_turn();
        match laid_out {
            true => Event::NoArrival,
            false => Event::Told,
        }
    }

    /// Lays slots out, as many of each kind as is said, by how many there are at first.
    fn lay_out_slots(&self, count: impl Fn(usize) -> usize) {
        let core = &*self.0;
        let prompt = core.methods.iter().filter(|it| it.prompt).count();
        let slots_each = (SLOTS / (core.methods.len() - prompt).max(1)).clamp(2, 8);
        for (number, method) in (0..).zip(&core.methods) {
            let slots = if method.prompt { 1 } else { slots_each };
            (0..count(slots)).for_each(|_| Slot::new(Some(number)).lay_out(core));
        }
        (0..count(2)).for_each(|_| Slot::new(None).lay_out(core));
    }

    /// Lays out as many as a round needs, the first time. Says whether it has; what was counted meanwhile may have been the
    /// last to wait for.
    fn lay_out_more_slots(&self) -> bool {
        // As long as this one counts, the queue is not shut down.
        let are_wanted = self.0.are_more_slots_wanted();
        if are_wanted {
            self.lay_out_slots(|slots| SLOTS_OF_ROUND - slots);
            self.0.slot_is_done_with();
        }
        are_wanted
    }
}

impl Transport for CoreTransport {
    fn start(&self) {
        let core = &*self.0;
        core.server.start();
        self.lay_out_slots(|slots| slots);
    }

    fn next(&self, ground: &Arc<Ground>) -> Event {
        self.event(self.0.queue.next(), ground)
    }

    fn try_next(&self, ground: &Arc<Ground>) -> Option<Event> {
        let told = self.0.queue.try_next()?;
        Some(self.event(told, ground))
    }

    fn arrival_is_over(&self) {
        self.0.slot_is_done_with();
    }

    fn expects_arrivals(&self) -> bool {
        self.0.has_slots_out()
    }

    fn post(&self, check: Check) {
        let tag = tag(Box::into_raw(Box::new(Posted(check))), KIND_CHECK);
        if !self.0.queue.post(tag) {
            // SAFETY: made just now, and C-core does not have it.
            drop(unsafe { Box::from_raw(untagged::<Posted>(tag)) });
        }
    }

    fn renew(&self) {
        // If the queue is shut down nothing is posted, and nothing wanted.
        let _ = self.0.queue.post(bare(KIND_RENEWAL));
    }

    fn renew_threads(&self) {
        shim::touchdown_renew_threads();
    }

    fn add_connection(&self, newcomer: Newcomer) {
        connection::add(&self.0, newcomer);
    }

    fn send_goaways(&self) {
        self.0.server.send_goaways();
    }

    fn open_calls(&self) -> usize {
        self.0.server.open_calls()
    }

    fn cork(&self) {
        self.0.server.cork();
    }

    fn uncork(&self) {
        self.0.server.uncork();
    }

    fn uncork_old(&self) {
        self.0.server.uncork_old();
    }

    fn shut_down(&self) {
        let queue = self.0.queue.as_raw();
        self.0.server.shut_down(queue, bare(KIND_SERVER));
    }

    fn cancel_all_calls(&self) {
        self.0.server.cancel_all_calls();
    }

    fn end(&self) {
        self.0.queue.shut_down();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_method_that_cannot_be_registered_is_an_error_and_leaves_nothing_behind() {
        let settings = Settings {
            concurrent_streams: 100,
            metadata_size: 16 << 10,
            keepalive_interval: Duration::from_secs(60),
            keepalive_timeout: Duration::from_secs(20),
            memory: 16 << 20,
            message_size: 4 << 20,
            handshake: Duration::from_secs(10),
            open_calls: 1000,
        };
        let method = |path: &str| Method::new(path.to_owned(), false, false, Duration::ZERO);
        for path in ["/test.Echo/Say", "/test.Ec\0ho/Say"] {
            let methods = [method("/test.Echo/Say"), method(path)];
            let error = CoreTransport::new(&settings, &methods).err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }
}
