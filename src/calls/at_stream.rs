//! A worker at a stream: when its handler first waits for its caller, it gives its place back.

use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::aside::{self, Told};
use super::call::Call;
use super::decision::{Beginning, Wanted};
use super::shared::Shared;
use super::stream_threads::Stream;

/// Runs the handler of a stream. Says whether it has given its place back.
pub(super) fn run_stream(shared: &Arc<Shared>, call: &Arc<Call>, handler: impl FnOnce()) -> bool {
    let at = Rc::new(AtStream {
        shared: Arc::clone(shared),
        call: Arc::clone(call),
        stream: OnceCell::new(),
    });
    aside::handling(call.key(), Rc::clone(&at) as Rc<dyn Told>, handler);
    at.stream.get().is_some_and(|it| shared.streams.leave(it))
}

struct AtStream {
    shared: Arc<Shared>,
    call: Arc<Call>,
    /// Set once its handler waits. Many end before that.
    stream: OnceCell<Arc<Stream<Arc<Call>>>>,
}

impl Told for AtStream {
    fn begins_to_wait(&self) {
        let stream = self.stream.get_or_init(|| {
            let connection = self.call.noted_connection().unwrap_or_default();
            self.shared
                .streams
                .enter(Arc::clone(&self.call), connection)
        });
        stream.begins_to_wait();
        if !stream.is_aside() {
            self.shared.set_aside(stream);
        }
    }

    fn has_waited(&self) {
        if let Some(stream) = self.stream.get() {
            self.shared.streams.has_waited(stream);
        }
    }
}

impl Shared {
    fn set_aside(self: &Arc<Self>, stream: &Stream<Arc<Call>>) {
        let step = || self.roster.step_aside();
        match self.streams.step_aside(stream, step) {
            Some(wanted) => self.start_wanted(wanted),
            // It may have to end, now that it waits.
            None if self.roster.is_full() => self.want_relief(),
            None => {}
        }
    }

    /// Starts the threads that are needed because a place was given back.
    pub(super) fn start_wanted(self: &Arc<Self>, wanted: Wanted) {
        let poller_failed = wanted.poller && !self.spawn_worker(Beginning::Poll);
        if poller_failed {
            self.roster.watch_failed(Instant::now());
        }
        let worker_failed = wanted.worker && !self.spawn_worker(Beginning::Finished);
        if worker_failed {
            self.roster.hire_failed();
        }
        if poller_failed || worker_failed {
            // It is to try again.
            self.ground.wake.wake();
        }
    }
}
