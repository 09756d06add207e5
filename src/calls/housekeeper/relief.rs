//! When calls wait for a place, some are got back from streams that wait for their callers, by the rule in
//! [`stream_threads`](crate::calls::stream_threads); and while the calls of some connections have all of them, those of others get spare
//! ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Housekeeper;
use crate::calls::call::ending::SHED;
use crate::calls::decision::Beginning;
use crate::calls::log_limit::LogLimit;
use crate::logging;

/// How often to look as long as calls wait and streams hold places: a caller does not notice so much, and twenty looks a
/// second cost nothing beside what goes on then.
const PAUSE: Duration = Duration::from_millis(50);

/// Which part of all workers is many for one connection, while calls of others wait.
const MANY: usize = 8;

/// How often to look while calls wait now and then: every stream is looked at.
const LEAST_PAUSE: Duration = Duration::from_millis(5);

impl Housekeeper<'_> {
    /// Returns when to look again, if nobody calls earlier.
    pub(super) fn relieve(&mut self, now: Instant) -> Option<Instant> {
        if !self.shared.is_relief_wanted.load(Ordering::SeqCst) {
            return None;
        }
        if let Some(next) = self.next_relief.filter(|it| now < *it) {
            return Some(next);
        }
        // First, so that who begins to wait meanwhile is seen.
        self.shared.is_relief_wanted.store(false, Ordering::SeqCst);
        let next = self.share_places(now);
        let next = self.look_for_places(now).or(next);
        self.next_relief = next.or(Some(now + LEAST_PAUSE));
        if next.is_some() {
            self.shared.is_relief_wanted.store(true, Ordering::SeqCst);
        }
        next
    }

    /// Gives spare places to calls of connections that have few, while those of others have all. Returns when to look again.
    fn share_places(&self, now: Instant) -> Option<Instant> {
        let shared = self.shared;
        if shared.roster.spare() == 0 {
            return None;
        }
        if !shared.roster.is_full() {
            shared.roster.favour_others(BTreeSet::new());
            return None;
        }
        let mut held: BTreeMap<u64, usize> = BTreeMap::new();
        let calls = shared.seats.calls().into_iter();
        // Streams that wait for their callers have given their places back, or are about to.
        let placed = calls.filter(|it| !it.waits_for_its_caller());
        for connection in placed.filter_map(|it| it.noted_connection()) {
            *held.entry(connection).or_default() += 1;
        }
        let many = (shared.roster.load().workers / MANY).max(2);
        let heavy = held.into_iter().filter(|(_, calls)| *calls >= many);
        let wanted = shared.roster.favour_others(heavy.map(|it| it.0).collect());
        for _ in 0..wanted {
            if !shared.spawn_worker(Beginning::Finished) {
                shared.roster.hire_failed();
            }
        }
        Some(now + PAUSE)
    }

    fn look_for_places(&mut self, now: Instant) -> Option<Instant> {
        let shared = self.shared;
        if !shared.streams.hold_places() {
            return None;
        }
        let waiting = shared.roster.who_waits();
        if waiting.is_empty() {
            return None;
        }
        if shared.roster.is_full() {
            // There may be room by now, also for threads.
            shared.streams.note_thread(true);
            let step = || shared.roster.step_aside();
            let wanted = shared.streams.move_aside(step, || shared.roster.is_full());
            wanted.into_iter().for_each(|it| shared.start_wanted(it));
        }
        let stalled = &mut self.stalled;
        let limit = shared.limits.stall;
        let streams = &shared.streams;
        let ending = streams.to_end(stalled, &waiting, self.now, limit);
        let mut ended = 0;
        for stream in ending {
            if stream.call.shed(SHED) {
                ended += 1;
                tell(stream.call.path());
            }
        }
        if ended > 0 {
            logging::debug!("{ended} streams were ended for calls that wait for a worker");
        }
        Some(now + PAUSE)
    }
}

fn tell(path: &str) {
    static LIMIT: LogLimit = LogLimit::new();
    if let Some(skipped) = LIMIT.admits() {
        logging::warn!(
            "{path}: a stream was ended whose caller was waited for: other calls needed its thread ({skipped} more were \
             not logged); ServerBuilder::max_stream_threads sets how many there may be"
        );
    }
}
