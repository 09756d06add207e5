//! Runs the reload callbacks, one at a time, on a thread made for it.
//!
//! The thread that asks for a reload does not wait for it. What is asked for while a reload runs makes one more afterwards, however
//! often it is asked for.

use super::hook_run::run_caught;
use super::phase::Phase;
use super::reload::{Reload, ReloadEvent};
use super::report::Outcome;
use super::state::Shared;
use crate::caught::drop_each;
use crate::logging;
use crate::sync::{thread, Arc, Instant};
use crate::text::one_line;

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
        // The next one that asks tries again.
        shared.reloads.turn.over();
    }
}

fn reload(shared: &Shared) {
    let _inside = shared.own_threads.enter("a reload");
    // Out of the lock while they run. Only the thread that has the turn takes them.
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
    drop_each("reload callback, as it was dropped,", callbacks);
    let line = shared.titled("no reload any more: the program is stopping");
    logging::info!("{line}");
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
            let line = shared.titled(&format!("reload {name}: done in {took:.1?}"));
            logging::info!(reload = &**name, took_ms = took; "{line}");
            None
        }
        outcome => {
            let failure = one_line(&format!("{name}: {outcome}; kept the old state"));
            let line = shared.titled(&format!("reload {failure}"));
            logging::error!(reload = &**name, took_ms = took; "{line}");
            Some(failure)
        }
    }
}
