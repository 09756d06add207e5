//! Which calls are not run: those for which there is no time or no room, and those whose time in a drain is over.

use std::sync::Arc;
use std::time::Duration;

use super::call::ending::{Ending, SHUTTING_DOWN};
use super::call::Call;
use super::method::Limit;
use super::record::Refusal;
use super::shared::Shared;
use super::shares::is_over_share;
use crate::logging;

impl Shared {
    /// Why a call that has just arrived is not to be run, if so. `in_flight` counts it already.
    pub(super) fn reason_to_refuse(&self, call: &Call, in_flight: usize) -> Option<Refusal> {
        if let Some(why) = self.no_time_for(call) {
            return Some(why);
        }
        let detached = self.ground.detached.count();
        // No more than this run or wait, so only then is it worth a closer look.
        if in_flight > detached.saturating_add(self.limits.unwritten) {
            let unwritten = in_flight.saturating_sub(detached + self.roster.busy());
            if self.is_over_share(call, unwritten, self.limits.unwritten) {
                return Some(Refusal::AnswersNotTaken);
            }
        }
        None
    }

    /// Whether the connection of a call has more open calls, this one included, than is its share of a limit. All have so many.
    pub(super) fn is_over_share(&self, call: &Call, all: usize, limit: usize) -> bool {
        if all <= limit {
            return false;
        }
        let number = call.noted_connection();
        let open = number.and_then(|it| self.ground.connections.open_calls(it));
        // One that is gone takes no answer.
        open.is_none_or(|own| is_over_share(own, all, limit))
    }

    /// Why a call is not to be run that was to be run a moment ago, if so.
    pub(super) fn reason_not_to_run(&self, call: &Call, queued: bool) -> Option<Refusal> {
        if queued && call.deadline_passed() {
            return Some(Refusal::Expired);
        }
        // What was looked at when the call arrived may have changed.
        (queued || call.is_draining()).then(|| self.no_time_for(call))?
    }

    /// Why there is no time left to run a call, if so.
    fn no_time_for(&self, call: &Call) -> Option<Refusal> {
        let method = self.ground.method(call)?;
        let is_over = |limit: &Limit| limit.is_over(self.ground.stopping.now());
        if method.limit().is_some_and(is_over) || self.ground.stopping.is_told() {
            return Some(Refusal::ShuttingDown);
        }
        let left = call.time_to_deadline();
        if left == Some(Duration::ZERO) {
            return Some(Refusal::ArrivedLate);
        }
        if method.minimum.is_zero() {
            return None;
        }
        let is_short = |left: Option<Duration>| left.is_some_and(|it| it < method.minimum);
        if is_short(left) {
            return Some(Refusal::DeadlineTooNear);
        }
        is_short(call.time_remaining()).then_some(Refusal::ShutdownTooNear)
    }

    /// Ends a call that no handler has seen.
    pub(super) fn refuse(&self, call: &Arc<Call>, why: Refusal) {
        self.refuse_as(call, why, why.ending());
    }

    /// As `refuse`, with other words.
    pub(super) fn refuse_as(&self, call: &Arc<Call>, why: Refusal, ending: Ending<'_>) {
        // It may have been cut, or abandoned, in the moment before.
        if call.refuse(why, ending) {
            self.ground.host.refused(call);
        }
    }

    /// Ends what waits for a worker, because the server is going. Returns how many calls that were.
    pub(super) fn refuse_waiting(&self) -> usize {
        let waiting = self.roster.take_waiting(|_| true);
        for job in &waiting {
            self.refuse(&job.call, Refusal::ShuttingDown);
        }
        waiting.len()
    }

    /// Ends the calls whose time in the drain is over. Returns how long it is until the next one's is.
    pub(super) fn cut_late_calls(&self) -> Option<Duration> {
        let now = self.ground.stopping.now();
        let limits = self.ground.methods.iter().filter_map(|it| it.limit());
        let cuts = limits.filter(|it| it.cut).filter_map(|it| it.at);
        let next = cuts.clone().filter(|at| *at > now).min();
        if cuts.clone().any(|at| at <= now) {
            let is_late = |call: &Call| {
                let limit = self.ground.method(call).and_then(|it| it.limit());
                limit.is_some_and(|it| it.is_over(now))
            };
            for job in self.roster.take_waiting(|job| is_late(&job.call)) {
                self.refuse(&job.call, Refusal::ShuttingDown);
            }
            let late = self.open_calls().into_iter().filter(|it| is_late(it));
            let cut = late.filter(|call| call.cut(SHUTTING_DOWN)).count();
            if cut > 0 {
                logging::info!("cut {cut} calls whose time in the drain is over");
            }
        }
        next.map(|at| at.saturating_duration_since(now))
    }
}
