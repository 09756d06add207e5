//! The threads for which the end of the program waits: those of the lifecycle, and those on which it runs code of the
//! program. One that waits for that end waits for itself.

use crate::sync::thread::{current, ThreadId};
use crate::sync::{Arc, Mutex};

#[derive(Clone, Default)]
pub(super) struct OwnThreads(Arc<Mutex<Vec<Own>>>);

struct Own {
    thread: ThreadId,
    what: &'static str,
}

/// While it lives, the thread that has made it is known.
pub(super) struct Inside(OwnThreads);

impl OwnThreads {
    /// The calling thread runs this: an observer, say.
    #[must_use]
    pub(super) fn enter(&self, what: &'static str) -> Inside {
        let thread = current().id();
        self.0.lock().push(Own { thread, what });
        Inside(self.clone())
    }

    /// What the calling thread runs, if it is one of those.
    pub(super) fn inside(&self) -> Option<&'static str> {
        let thread = current().id();
        let own = self.0.lock();
        own.iter().rfind(|it| it.thread == thread).map(|it| it.what)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let thread = current().id();
        let mut own = self.0 .0.lock();
        if let Some(place) = own.iter().rposition(|it| it.thread == thread) {
            own.remove(place);
        }
    }
}
