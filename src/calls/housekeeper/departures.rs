//! Connections that have to go while the server serves on: looked for, sent away, and told of.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Housekeeper;
use crate::calls::call::ending::{Ending, SHUTTING_DOWN};
use crate::calls::leaving::Why;
use crate::calls::log_limit::LogLimit;
use crate::calls::peer::for_people;
use crate::calls::progress::SPANS;
use crate::calls::record::Refusal;
use crate::calls::seconds::Seconds;
use crate::calls::shared::Shared;
use crate::logging;
use crate::running_time::SLICE;

/// What is kept of it. All times are running time.
#[derive(Default)]
pub(super) struct Departures {
    /// When somebody is as old as it may become, or may be idle for too long.
    expiry: Option<Duration>,
    /// When to go on with those that are sent away.
    going: Option<Duration>,
    /// When the span is over in which calls have to get on.
    patrol: Option<Duration>,
    /// The client of some call is waited for.
    is_any_watched: bool,
}

impl Housekeeper<'_> {
    /// A connection was added that may have an age, or an idle time.
    pub(super) fn look_for_expiry(&mut self, time: Option<Duration>) {
        let expiry = &mut self.departures.expiry;
        *expiry = [*expiry, time].into_iter().flatten().min();
    }

    /// Somebody was sent away.
    pub(super) fn go_on_soon(&mut self) {
        self.departures.going = Some(self.now);
    }

    /// Does what is due. Returns when to come again, if nobody calls earlier.
    pub(super) fn send_away_who_has_to_go(&mut self, now: Instant) -> Option<Instant> {
        self.thin_out();
        let patrol = self.patrol();
        let connections = &self.shared.ground.connections;
        if self.departures.expiry.is_some_and(|it| it <= self.now) {
            self.departures.expiry = connections.expire(self.now);
            self.go_on_soon();
        }
        if self.departures.going.is_some_and(|it| it <= self.now) {
            let departures = connections.go_on_sending_away(self.now);
            for number in departures.ended {
                self.shared.end_calls_of(number);
            }
            // Time is counted in slices while it matters.
            let slice = self.now.saturating_add(SLICE);
            self.departures.going = departures.next.map_or_else(
                || (connections.leaving() > 0).then_some(slice),
                |it| Some(it.min(slice)),
            );
        }
        let times = [self.departures.expiry, self.departures.going, patrol];
        let next = times.into_iter().flatten().min()?;
        Some(now + next.saturating_sub(self.now))
    }

    /// Makes room, if clients have more calls open than there is memory for.
    fn thin_out(&mut self) {
        let connections = &self.shared.ground.connections;
        if !connections.is_crowded.swap(false, Ordering::Relaxed) {
            return;
        }
        let most = self.shared.limits.open_calls;
        let open = self.shared.transport.open_calls();
        let sent_away = connections.thin_out(open, most, self.now);
        if sent_away.is_empty() {
            return;
        }
        let words = || format!("{open} calls are open, and there is memory for {most}");
        sent_away.iter().for_each(|it| self.say_goodbye(*it, words));
        self.go_on_soon();
    }

    /// Looks whether calls get on. Returns when to look again, if any are open.
    fn patrol(&mut self) -> Option<Duration> {
        let connections = &self.shared.ground.connections;
        let limit = self.shared.limits.progress;
        let span = limit / u32::from(SPANS);
        let is_called = connections.is_busy.swap(false, Ordering::Relaxed);
        if is_called && self.departures.patrol.is_none() {
            self.departures.patrol = Some(self.now.saturating_add(span));
        }
        let due = self.departures.patrol?;
        if due > self.now {
            return Some(self.slice_of(due));
        }
        let accounted = self.shared.calls_of_connections();
        let patrolled = connections.patrol(&accounted, self.now, limit);
        for (number, why) in &patrolled.sent_away {
            let time = Seconds(limit);
            self.say_goodbye(*number, || match why {
                Why::NotTaken => format!("its client has hardly taken anything for {time} of what it is sent"),
                _ => format!(
                    "it has calls for {time} of which the request does not come, or the answer is not taken"
                ),
            });
        }
        if !patrolled.sent_away.is_empty() {
            self.go_on_soon();
        }
        self.departures.is_any_watched = patrolled.is_any_watched;
        let next = self.now.saturating_add(span);
        self.departures.patrol = patrolled.is_any_busy.then_some(next);
        self.departures.patrol.map(|it| self.slice_of(it))
    }

    /// Until when to wait at once. In the first span of a call nothing is lost if a pause of the process counts.
    fn slice_of(&self, due: Duration) -> Duration {
        match self.departures.is_any_watched {
            true => due.min(self.now.saturating_add(SLICE)),
            false => due,
        }
    }

    /// Logs why a connection is sent away, but not each time.
    fn say_goodbye(&self, number: u64, why: impl Fn() -> String) {
        static LIMIT: LogLimit = LogLimit::new();
        let connections = &self.shared.ground.connections;
        let Some(peer) = connections.peer_of(number) else {
            return;
        };
        if let Some(skipped) = LIMIT.admits() {
            if skipped > 0 {
                logging::warn!("{skipped} more connections were sent away");
            }
            logging::warn!(
                "sending the connection of {} away: {}",
                for_people(&peer),
                why()
            );
        }
    }
}

impl Shared {
    /// For how many calls of each connection its client is not waited for: their handlers run, or wait for what the client
    /// may say when it likes, or they wait for a worker.
    fn calls_of_connections(&self) -> HashMap<u64, usize> {
        let mut found: HashMap<u64, usize> = HashMap::new();
        let mut add = |number: Option<u64>| {
            if let Some(number) = number {
                *found.entry(number).or_default() += 1;
            }
        };
        let open = self.open_calls();
        let open = open.iter().filter(|it| !it.is_sending() && !it.has_ended());
        open.for_each(|it| add(it.noted_connection()));
        let waiting = std::cell::RefCell::new(Vec::new());
        self.roster.take_waiting(|job| {
            waiting.borrow_mut().push(job.call.noted_connection());
            false
        });
        waiting.into_inner().into_iter().for_each(add);
        found
    }

    /// Ends the calls of a connection whose time is over.
    fn end_calls_of(&self, number: u64) {
        let is_meant = |it: &crate::calls::Call| it.noted_connection() == Some(number);
        for job in self.roster.take_waiting(|job| is_meant(&job.call)) {
            self.refuse(&job.call, Refusal::ShuttingDown);
        }
        let ending = Ending {
            message: "the server ends the connection of this call",
            ..SHUTTING_DOWN
        };
        let calls = self.open_calls();
        calls.iter().filter(|it| is_meant(it)).for_each(|it| {
            it.cut(ending);
        });
    }
}
