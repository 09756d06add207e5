//! The calls for which somebody has asked for a step who does not poll: a thread of the program, or the one that keeps
//! the time. The housekeeper brings them to the threads that poll.

use std::sync::Arc;

use parking_lot::Mutex;

use super::call::Call;

#[derive(Default)]
pub(super) struct Steps(Mutex<Vec<Arc<Call>>>);

impl Steps {
    /// The housekeeper is to be woken after that. May be called with locks held, but for this one.
    pub(super) fn add(&self, call: &Arc<Call>) {
        self.0.lock().push(Arc::clone(call));
    }

    /// Has the threads that poll run them.
    pub(super) fn bring(&self) {
        let calls = std::mem::take(&mut *self.0.lock());
        for call in calls {
            call.wire().step(&call);
        }
    }
}
