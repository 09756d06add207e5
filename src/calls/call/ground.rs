//! What every call of a server stands on: what it needs to know of the server, and who is to hear of it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use super::{Call, Landed};
use crate::calls::connections::Connections;
use crate::calls::detached::Detached;
use crate::calls::host::Host;
use crate::calls::method::Method;
use crate::calls::observer::Observer;
use crate::calls::pushback::Pushback;
use crate::calls::stopping::Stopping;
use crate::calls::timers::Timers;
use crate::os::wake::Wake;

pub(crate) struct Ground {
    pub(in crate::calls) methods: Vec<Method>,
    pub(in crate::calls) host: Arc<dyn Host>,
    pub(in crate::calls) observer: Option<Arc<dyn Observer>>,
    pub(in crate::calls) connections: Arc<Connections>,
    pub(in crate::calls) detached: Detached,
    pub(in crate::calls) prompt_calls: PromptCalls,
    pub(in crate::calls) pushback: Pushback,
    pub(in crate::calls) stopping: Stopping,
    pub(in crate::calls) timers: Timers<Call>,
    pub(in crate::calls) wake: Arc<Wake>,
}

/// The calls of prompt methods that have not landed.
pub(in crate::calls) struct PromptCalls {
    open: AtomicUsize,
    limit: usize,
}

impl PromptCalls {
    pub(in crate::calls) fn new(limit: usize) -> PromptCalls {
        let open = AtomicUsize::new(0);
        PromptCalls { open, limit }
    }

    /// Another one arrives. Says whether there is room for it; it counts in any case.
    pub(in crate::calls) fn enter(&self) -> bool {
        self.open.fetch_add(1, Ordering::Relaxed) < self.limit
    }
}

impl Ground {
    pub(in crate::calls) fn new(
        methods: Vec<Method>,
        prompt_calls: usize,
        host: Arc<dyn Host>,
        wake: &Arc<Wake>,
    ) -> Ground {
        let observer = host.observer();
        Ground {
            methods,
            connections: Arc::new(Connections::new(Arc::clone(wake), observer.clone())),
            host,
            observer,
            detached: Detached::default(),
            prompt_calls: PromptCalls::new(prompt_calls),
            pushback: Pushback::default(),
            stopping: Stopping::default(),
            timers: Timers::new(Arc::clone(wake)),
            wake: Arc::clone(wake),
        }
    }

    pub(in crate::calls) fn method(&self, call: &Call) -> Option<&Method> {
        call.method().map(|it| &self.methods[it as usize])
    }

    pub(in crate::calls) fn is_prompt(&self, call: &Call) -> bool {
        self.method(call).is_some_and(|it| it.prompt)
    }

    pub(in crate::calls) fn expects_stream(&self, call: &Call) -> bool {
        self.method(call).is_some_and(|it| it.streaming_request)
    }

    pub(in crate::calls) fn landed(&self, call: &Arc<Call>) {
        if self.is_prompt(call) {
            self.prompt_calls.open.fetch_sub(1, Ordering::Relaxed);
            if self.observer.is_some() {
                self.ended(call, call.outcome());
            }
            return;
        }
        let landed = call.outcome();
        // One that was abandoned has ended then.
        if landed != Landed::Abandoned {
            self.ended(call, landed);
        }
        self.host.landed(call, landed);
        // Pairs with the store in `Runner::drain`: either that sees the count that
        // `landed` has just changed, or this sees the flag.
        if self.stopping.is_leaving() && self.host.in_flight() == 0 {
            self.wake.wake();
        }
    }

    /// Tells the observer of a call's end.
    pub(in crate::calls) fn ended(&self, call: &Arc<Call>, landed: Landed) {
        if let Some(observer) = &self.observer {
            observer.ended(call, landed);
        }
    }
}
