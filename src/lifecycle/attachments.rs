//! Attachments: what companions keep with a lifecycle, one of each type.

use std::any::Any;

use crate::sync::{Arc, Mutex};

type Attachment = Arc<dyn Any + Send + Sync>;

/// Held by the lifecycle until it has stopped.
#[derive(Default)]
pub(super) struct Attachments(Mutex<State>);

#[derive(Default)]
struct State {
    list: Vec<Attachment>,
    /// Stays until the end of the lifecycle's memory, so that a question after the stop finds it.
    succession: Option<Attachment>,
    is_closed: bool,
}

impl Attachments {
    pub(super) fn new(succession: Option<Attachment>) -> Self {
        Self(Mutex::new(State {
            succession,
            ..State::default()
        }))
    }

    /// Gives it back if there is one of its type, or if the lifecycle has stopped.
    pub(super) fn attach<T: Any + Send + Sync>(&self, it: Arc<T>) -> Result<(), Arc<T>> {
        let mut state = self.0.lock();
        if state.is_closed || state.find::<T>().is_some() {
            return Err(it);
        }
        state.list.push(it);
        Ok(())
    }

    pub(super) fn find<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let found = Arc::clone(self.0.lock().find::<T>()?);
        found.downcast().ok()
    }

    pub(super) fn detach<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let detached = {
            let mut state = self.0.lock();
            let place = state.list.iter().position(|it| (**it).is::<T>())?;
            state.list.remove(place)
        };
        detached.downcast().ok()
    }

    /// Takes them out; no other is taken in from now on. The caller drops them with no lock held.
    pub(super) fn close(&self) -> Vec<Attachment> {
        let mut state = self.0.lock();
        state.is_closed = true;
        std::mem::take(&mut state.list)
    }
}

impl State {
    fn find<T: Any>(&self) -> Option<&Attachment> {
        let all = self.succession.iter().chain(&self.list);
        all.into_iter().find(|it| (***it).is::<T>())
    }
}
