//! What whoever reports on a lifecycle to a supervisor may see of it, without being a handle on it.

use std::any::Any;
use std::time::Duration;

use super::participant::{Calls, Check};
use super::phase::{Phase, Transition};
use super::plan::{self, Plan};
use super::report::Reason;
use super::shutdown::Token;
use super::state::{caught, Shared};
use super::Lifecycle;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, Instant};

/// Keeps nothing alive but memory, and does not count as a handle.
pub(crate) struct View(Arc<Shared>);

/// How far a stop is. While nothing in it changes, the stop makes no progress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// How many works are in flight.
    pub(crate) left: usize,
    /// What became of the calls so far.
    pub(crate) calls: Calls,
    /// The hooks that run, and what else runs in Closing.
    pub(crate) hooks: Vec<String>,
}

impl View {
    pub(crate) fn of(lifecycle: &Lifecycle) -> View {
        View(Arc::clone(lifecycle.shared()))
    }

    pub(crate) fn phase(&self) -> Phase {
        self.0.phase.get()
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.0.plan
    }

    pub(crate) fn stopping(&self) -> &Token {
        &self.0.stopping
    }

    /// Whether the process is to replace another, which is still in charge.
    pub(crate) fn is_candidate(&self) -> bool {
        #[cfg(feature = "server")]
        if let Some(upgrades) = &self.0.upgrades {
            return upgrades.is_candidate();
        }
        false
    }

    /// Cancelled when the process has no other before it.
    pub(crate) fn in_charge(&self) -> &Token {
        &self.0.in_charge
    }

    /// Why the stop began, if it has.
    pub(crate) fn reason(&self) -> Option<Reason> {
        self.0.control.lock().reason.clone()
    }

    /// When the process exits whatever happens, unless it stands still before; `None` if no stop has begun, or if
    /// never.
    pub(crate) fn hard_deadline(&self) -> Option<Instant> {
        plan::after(Instant::now(), self.0.time_left()?)
    }

    /// The longest time that the start-up hooks can take which have not begun to run. Zero if there are
    /// none, and [`Duration::MAX`] if one has no limit.
    pub(crate) fn startup_limit(&self) -> Duration {
        self.0.control.lock().startup.hooks.time_limit()
    }

    pub(crate) fn progress(&self) -> Progress {
        let participants = self.0.participants();
        let dismissed = self.0.control.lock().dismissed;
        let calls = participants.iter().fold(dismissed, |sum, it| {
            sum + caught("participant, asked for its calls,", || it.calls()).unwrap_or_default()
        });
        Progress {
            left: self.0.in_flight(&participants),
            calls,
            hooks: self.0.running_hooks.lock().clone(),
        }
    }

    /// Asks the guard thread, and until Closing every participant, whether they still work. `answer` is
    /// called with true once all have passed; with false, perhaps several times, if one will not answer.
    pub(crate) fn check(&self, answer: impl Fn(bool) + Clone + Send + 'static) {
        let participants = match self.phase() < Phase::Closing {
            true => self.0.participants(),
            false => Vec::new(),
        };
        let left = Arc::new(AtomicUsize::new(participants.len() + 1));
        let part = || {
            let (left, answer) = (Arc::clone(&left), answer.clone());
            Check::new(move |passed| {
                // AcqRel: whoever is the last sees what the others have done.
                if !passed || left.fetch_sub(1, Ordering::AcqRel) == 1 {
                    answer(passed);
                }
            })
        };
        self.0.asked.lock().push(part());
        self.0.bell.ring();
        for participant in participants {
            caught("participant, asked to check itself,", || {
                participant.check(part());
            });
        }
    }

    /// Calls `observer` with every transition from now on, as [`Lifecycle::observe`] does.
    pub(crate) fn observe(&self, observer: impl Fn(&Transition) + Send + Sync + 'static) {
        let mut control = self.0.control.lock();
        if self.phase() != Phase::Stopped {
            control.observers.push(Arc::new(observer));
        }
    }

    /// Tells `observer` when a reload begins (`None`), and when it is over: what became of the callbacks
    /// that did not do their work. One observer is all that there can be.
    pub(crate) fn observe_reloads(
        &self,
        observer: impl Fn(Option<Vec<String>>) + Send + Sync + 'static,
    ) {
        let _ = self.0.reloads.observer.set(Box::new(observer));
    }

    /// Keeps `it` with the lifecycle, unless something is there already. Returns whether it was taken.
    pub(crate) fn attach(&self, it: Arc<dyn Any + Send + Sync>) -> bool {
        self.0.attached.set(it).is_ok()
    }

    pub(crate) fn attached<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.0.attached.get()?.downcast_ref()
    }
}
