//! Which threads take the places of others.

use std::sync::Arc;

use crate::calls::decision::{Beginning, Leaving};
use crate::calls::poll::Worker;
use crate::calls::shared::Shared;
use crate::logging;

impl Shared {
    /// Lets workers end that rest, and puts others in the place of those that are needed at all times.
    pub(in crate::calls) fn renew_threads(self: &Arc<Self>) {
        self.transport.renew_threads();
        self.transport.renew();
        if !self.start_replacement(Beginning::Relieve) {
            self.roster.dismiss();
        }
    }

    /// Starts a worker in the place of another. False if there can be no thread, and then the other one stays.
    fn start_replacement(self: &Arc<Self>, beginning: Beginning) -> bool {
        let started = self.start_worker(beginning);
        started
            .inspect_err(|error| logging::debug!("{error}"))
            .is_ok()
    }
}

impl Worker<'_> {
    /// Lets another thread poll in the place of this one, or of any other that polls. False if this one is to end.
    pub(in crate::calls) fn renew(&mut self) -> bool {
        // Nobody is to wait for a reply while this thread rests.
        self.uncork();
        match self.shared.roster.leave_poll() {
            None => !self.shared.start_replacement(Beginning::Poll),
            Some(leaving) => {
                self.shared.transport.renew();
                match leaving {
                    Leaving::End => false,
                    Leaving::Rest => self.after_rest(self.shared.roster.rest()),
                }
            }
        }
    }
}
