//! Calls that come while the program says that it is not ready: most likely it has forgotten to say that it is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::lifecycle::{Phase, Remote};
use crate::logging;

/// How long after a server was started its program may take to say that it is ready.
const PATIENCE: Duration = Duration::from_secs(1);

/// Looks out for calls that come too early, and tells of them once.
pub(super) struct EarlyCalls {
    /// Of the server.
    name: String,
    program: Remote,
    since: Instant,
    /// Whether there may still be any.
    expected: AtomicBool,
}

impl EarlyCalls {
    /// For a server that was started just now.
    pub(super) fn new(name: String, program: Remote) -> EarlyCalls {
        EarlyCalls {
            name,
            program,
            since: Instant::now(),
            expected: AtomicBool::new(true),
        }
    }

    /// A call has arrived.
    #[inline]
    pub(super) fn arrived(&self) {
        // Nothing depends on its order with anything else.
        if self.expected.load(Ordering::Relaxed) {
            self.look();
        }
    }

    fn look(&self) {
        let is_early = self.program.phase() == Phase::Starting;
        // Where another process is to be replaced, it is the program's own test that calls.
        if is_early && (self.program.is_candidate() || self.since.elapsed() < PATIENCE) {
            return;
        }
        let is_first = self.expected.swap(false, Ordering::Relaxed);
        if is_early && is_first {
            logging::warn!(
                "{}: serves calls while the program is starting: its health is NOT_SERVING, and what waits for the program \
                 to be ready does not begin; call Lifecycle::ready once everything is started",
                self.name
            );
        }
    }
}
