//! Reloads: callbacks that SIGHUP runs, one at a time, on a thread made for it.
//!
//! Whoever asks does not wait, so the guard thread may ask. What is asked for while a reload runs
//! makes one more afterwards, however often it is asked.

use super::hooks::Failure;
use super::phase::Phase;
use super::report::{one_line, Outcome};
use super::run::run_caught;
use super::state::{caught, Shared};
use super::turn::Turn;
use crate::logging;
use crate::sync::{thread, Arc, Instant, Mutex};

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
    turn: Turn,
    /// The callback that runs. Held for moments only.
    running: Mutex<Option<String>>,
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
            turn: Turn::default(),
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

    fn tell(&self, event: &ReloadEvent) {
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

/// Asks for a reload and does not wait for it. During start-up it is put off until Serving begins.
pub(super) fn ask(shared: &Arc<Shared>) {
    {
        let mut control = shared.control.lock();
        if shared.phase.get() == Phase::Starting && control.reason.is_none() {
            control.reload_wanted = true;
            return;
        }
    }
    if !shared.reloads.exist || !shared.reloads.turn.ask() {
        return;
    }
    let thread = thread::Builder::new().name("td-reload".to_owned());
    let run = {
        let shared = Arc::clone(shared);
        move || {
            reload(&shared);
            while shared.reloads.turn.over() {
                reload(&shared);
            }
        }
    };
    if thread.spawn(run).is_err() {
        // The guard thread may not say so: where there are no threads, whoever says a line writes it, and that
        // can block. Whoever asks next tries again.
        shared.reloads.turn.over();
    }
}

fn reload(shared: &Shared) {
    // Out of the lock while they run. Only who has the turn takes them.
    let mut callbacks = std::mem::take(&mut shared.control.lock().reloads);
    shared.reloads.tell(&ReloadEvent::Began);
    let mut failures = Vec::new();
    for reload in &mut callbacks {
        if is_stopping(shared) {
            break;
        }
        failures.extend(run(shared, reload));
    }
    let mut control = shared.control.lock();
    if control.reason.is_none() {
        control.reloads = callbacks;
        drop(control);
        shared.reloads.tell(&ReloadEvent::Ended { failures });
        return;
    }
    drop(control);
    logging::info!("no reload any more: the program is stopping");
}

fn is_stopping(shared: &Shared) -> bool {
    shared.control.lock().reason.is_some()
}

/// Runs a callback. Returns what became of it if it has not done its work.
fn run(shared: &Shared, reload: &mut Reload) -> Option<String> {
    let name = &reload.name;
    *shared.reloads.running.lock() = Some(name.clone());
    let began = Instant::now();
    let outcome = run_caught(&mut reload.callback);
    let took = Instant::now().saturating_duration_since(began);
    *shared.reloads.running.lock() = None;
    match outcome {
        Outcome::Done => {
            logging::info!(
                "{}",
                one_line(&format!("reload {name}: done in {took:.1?}"))
            );
            None
        }
        outcome => {
            let failure = one_line(&format!("{name}: {outcome}; kept the old state"));
            logging::error!("reload {failure}");
            Some(failure)
        }
    }
}
