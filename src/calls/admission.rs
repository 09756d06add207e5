//! Which calls are not run: those for which there is no time or no room, and those whose time in a drain is over.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::call::{Call, Ending, Retry};
use super::codes::UNAVAILABLE;
use super::method::Limit;
use super::observer::Refusal;
use super::shared::Shared;
use crate::logging;

/// The end of a call that a server going down has not run, or may be run again.
pub(super) const SHUTTING_DOWN: Ending<'static> = Ending {
    code: UNAVAILABLE,
    message: "the server is shutting down",
    details: &[],
    retry: Retry::Soon,
};

/// Over how many milliseconds clients are told to spread their retries.
const PUSHBACK_SPREAD: u32 = 100;

/// What the next client is told to wait, in milliseconds, before it tries elsewhere.
#[derive(Default)]
pub(super) struct Pushback(AtomicU32);

impl Pushback {
    /// What a client is told to wait before it retries, in milliseconds; negative if it is not to.
    pub(super) fn of(&self, retry: Retry) -> Option<i64> {
        match retry {
            Retry::Unsaid => None,
            Retry::Never => Some(-1),
            Retry::Soon => {
                let turn = self.0.fetch_add(1, Ordering::Relaxed);
                // Calls that end together are retried one after the other: 37 and 100 have no
                // common divisor, so a hundred of them wait for a hundred different times. None of
                // them is 0, with which a client of gRPC 1.85 for Python waits for ever.
                Some((1 + turn.wrapping_mul(37) % PUSHBACK_SPREAD).into())
            }
        }
    }
}

/// Keeps an overload from flooding the log.
#[derive(Default)]
pub(super) struct Refusals(Mutex<RefusalCount>);

#[derive(Default)]
struct RefusalCount {
    last_logged: Option<Instant>,
    since: u64,
}

impl Refusals {
    /// Logs, once a second at the most, that calls are refused.
    pub(super) fn log(&self, path: &str, now: Instant) {
        let mut count = self.0.lock();
        count.since += 1;
        let last = count.last_logged;
        if last.is_none_or(|it| now.saturating_duration_since(it) >= Duration::from_secs(1)) {
            logging::warn!(
                "{} calls refused, the last to {path}: all workers are busy and the backlog is full",
                count.since
            );
            *count = RefusalCount {
                last_logged: Some(now),
                since: 0,
            };
        }
    }
}

impl Shared {
    /// Why a call that has just arrived is not to be run, if so. `in_flight` counts it already.
    pub(super) fn reason_to_refuse(&self, call: &Call, in_flight: usize) -> Option<Refusal> {
        if let Some(why) = self.no_time_for(call) {
            return Some(why);
        }
        let detached = self.ground.detached.count();
        // No more than this run or wait, so only then is it worth a closer look.
        if in_flight > detached.saturating_add(self.limits.unwritten)
            && in_flight.saturating_sub(detached + self.roster.busy()) > self.limits.unwritten
        {
            return Some(Refusal::AnswersNotTaken);
        }
        None
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
        if method.minimum.is_zero() {
            return None;
        }
        let is_short = |left: Option<Duration>| left.is_some_and(|it| it < method.minimum);
        if is_short(call.time_to_deadline()) {
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_hundred_calls_that_end_together_are_retried_at_a_hundred_times_and_never_at_once() {
        let pushback = Pushback::default();
        let times: HashSet<_> = (0..PUSHBACK_SPREAD)
            .map(|_| pushback.of(Retry::Soon).unwrap())
            .collect();
        assert_eq!(times.len(), PUSHBACK_SPREAD as usize);
        assert!(times.iter().all(|it| (1..=100).contains(it)));
        assert_eq!(pushback.of(Retry::Never), Some(-1));
        assert_eq!(pushback.of(Retry::Unsaid), None);
    }
}
