//! Workers are started, as the roster asks for them.

use std::io;
use std::sync::Arc;

use super::decision::Beginning;
use super::log_limit::LogLimit;
use super::poll;
use super::shared::Shared;
use crate::logging;

impl Shared {
    /// Starts another worker, for calls that are many at once. False if there can be no thread.
    pub(super) fn spawn_worker(self: &Arc<Self>, beginning: Beginning) -> bool {
        static LIMIT: LogLimit = LogLimit::new();
        let started = self.start_worker(beginning);
        self.streams.note_thread(started.is_ok());
        match started {
            Ok(()) => {
                if self.heap.use_much() {
                    self.ground.wake.wake();
                }
            }
            Err(error) => {
                if LIMIT.admits().is_some() {
                    logging::error!("{error}");
                }
                return false;
            }
        };
        true
    }

    pub(super) fn start_worker(self: &Arc<Self>, beginning: Beginning) -> io::Result<()> {
        let shared = Arc::clone(self);
        let body = move || poll::run(&shared, beginning);
        self.threads.spawn(self.threads.worker(), body)
    }
}
