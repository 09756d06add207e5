//! Closing: participants close and workers are joined, then the hooks run, then start-up is undone.

use std::time::Duration;

use super::hook::Hook;
use super::hook_run::Run;
use super::hooks::Hooks;
use super::phase::Phase;
use super::plan;
use super::report::{HookReport, Outcome};
use super::seat::Seat;
use super::state::Shared;
use super::walk::Walk;
use crate::caught::caught;
use crate::logging;
use crate::sync::{Arc, Instant};

/// How far away "never" is for an [`Instant`] that has to be passed on: 30 years.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

impl Walk {
    /// Closes the participants and joins the workers, runs the hooks, then undoes what start-up hooks
    /// have started.
    pub(super) fn close(&self) -> Vec<HookReport> {
        let shared = &self.shared;
        let began = self.enter(Phase::Closing);
        // Both have been cancelled already on a stop that went through their phases. On any other,
        // nobody must be left waiting for them.
        shared.draining.cancel();
        shared.cancelling.cancel();
        self.tell();
        let time = shared.plan.closing();
        let hooks = std::mem::take(&mut shared.control.lock().hooks);
        // A participant that hangs as it closes must not take the time of the hooks as well.
        let is_all = hooks.is_empty() && shared.started.is_empty();
        let time_to_close = if is_all { time } else { time / 2 };
        let left = || self.left_of(began, time);
        let seats = shared.seats();
        let mut reports = self.close_participants(self.left_of(began, time_to_close));
        reports.extend(self.run_hooks(hooks, left()));
        while let Some(undo) = shared.started.next() {
            let undo = Hooks::unordered(vec![undo]);
            reports.extend(self.run_hooks(undo, left()));
        }
        for report in &reports {
            if report.outcome != Outcome::Done {
                let line = shared.titled(&format!("{}: {}", report.name, report.outcome));
                let outcome = report.outcome.as_str();
                logging::warn!(hook = &*report.name, outcome = outcome; "{line}");
                // Workers may share a name.
                let is_it = |it: &&Arc<Seat>| it.name == report.name && !it.has_ended();
                let deaf = seats.iter().filter(is_it);
                for seat in deaf.filter(|_| report.outcome == Outcome::Overran) {
                    logging::warn!("{}", shared.titled(&seat.describe()));
                    if let Some(thread) = seat.at.get() {
                        shared.log_stack(*thread);
                    }
                }
            }
        }
        reports
    }

    /// What is left of a time that began when the clock of the stop said `began`. [`Duration::MAX`] lasts for ever.
    fn left_of(&self, began: Duration, time: Duration) -> Duration {
        match time {
            Duration::MAX => time,
            _ => time.saturating_sub(self.shared.clock.read().saturating_sub(began)),
        }
    }

    fn close_participants(&self, time: Duration) -> Vec<HookReport> {
        let now = Instant::now();
        let end = plan::after(now, time.min(NEVER)).unwrap_or(now);
        let closing = self.shared.participants().into_iter().map(|participant| {
            let name = caught("participant, asked for its name,", || participant.name());
            let work = move || {
                participant.close(end);
                Ok(())
            };
            Hook::new(format!("close {}", name.unwrap_or_default()), work).time_limit(time)
        });
        let closing = closing.chain(self.shared.close_workers());
        let closing = Hooks::unordered(closing.collect());
        self.run_hooks(closing, time)
    }

    fn run_hooks(&self, hooks: Hooks, time: Duration) -> Vec<HookReport> {
        let Shared {
            running_hooks,
            hurried_closing,
            own_threads,
            ..
        } = &*self.shared;
        Run::new(hooks, time, running_hooks, hurried_closing)
            .on(own_threads)
            .run()
    }
}
