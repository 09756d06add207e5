//! Reloads, as data: the callbacks, which of them runs, and who is told.

use super::hook::Failure;
use super::one_at_a_time::OneAtATime;
use crate::caught::caught;
use crate::sync::{Arc, Mutex};

pub(super) type Callback = Box<dyn FnMut() -> Result<(), Failure> + Send>;

/// A part of the program's state that can be read again.
pub(super) struct Reload {
    pub(super) name: String,
    pub(super) callback: Callback,
}

/// How far the lifecycle is with its reloads. The callbacks themselves are under its lock.
pub(super) struct Reloads {
    /// Whether there are callbacks.
    pub(super) exist: bool,
    pub(super) turn: OneAtATime,
    /// The callback that runs. Held for moments only.
    pub(super) running: Mutex<Option<String>>,
    /// Held for moments only.
    observers: Mutex<Vec<ReloadObserver>>,
}

/// What [reload observers](super::Lifecycle::observe_reloads) are told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReloadEvent {
    /// The callbacks are about to run.
    Began,
    /// They have run.
    Ended {
        /// Of each callback that has not done its work, its name and what became of it.
        failures: Vec<String>,
    },
}

pub(super) type ReloadObserver = Arc<dyn Fn(&ReloadEvent) + Send + Sync>;

impl Reloads {
    pub(super) fn new(callbacks: &[Reload]) -> Self {
        Self {
            exist: !callbacks.is_empty(),
            turn: OneAtATime::default(),
            running: Mutex::default(),
            observers: Mutex::default(),
        }
    }

    pub(super) fn observe(&self, observer: ReloadObserver) {
        self.observers.lock().push(observer);
    }

    /// The caller drops them.
    pub(super) fn forget_observers(&self) -> Vec<ReloadObserver> {
        std::mem::take(&mut self.observers.lock())
    }

    pub(super) fn tell(&self, event: &ReloadEvent) {
        let observers = self.observers.lock().clone();
        for observer in observers {
            caught("reload observer", || observer(event));
        }
    }

    /// The name of the callback that runs.
    pub(super) fn running(&self) -> Option<String> {
        self.running.lock().clone()
    }
}
