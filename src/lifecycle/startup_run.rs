//! What a lifecycle has to say while its start-up hooks run.

use super::hook_run::Supervisor;
use super::report::{Outcome, Reason};
use super::state::Shared;
use crate::logging;
use crate::text::one_line;

/// The first hook that does not do its work begins the stop, and once a stop has begun, no other is started.
impl Supervisor for Shared {
    fn may_start(&self) -> bool {
        self.control.lock().reason.is_none()
    }

    fn ended(&self, name: &str, outcome: &Outcome) {
        let text = one_line(&format!("start-up hook {name:?} {outcome}"));
        let line = self.titled(&text);
        if *outcome == Outcome::Done {
            logging::info!(hook = name; "{line}");
        } else if !self.try_begin_stop(Reason::StartFailed(text)) {
            // What fails because of a stop is no failure.
            logging::warn!(hook = name, outcome = outcome.as_str(); "{line}");
        }
    }

    fn is_waited_for(&self, running: &[&str]) {
        let hooks = running.iter().map(|name| format!("{name:?}"));
        let hooks = hooks.collect::<Vec<_>>().join(", ");
        let line = format!("the stop waits for start-up hooks that run: {hooks}; a second signal leaves them behind");
        logging::info!(waits_for = &*hooks; "{}", self.titled(&line));
    }
}
