//! The thread that sends spans: batch by batch, again if it has to, and never longer than it is worth.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::collector::{Collector, Verdict};
use super::counts::SpanCounts;
use super::encode::{self, Resource};
use super::ids;
use super::queue::Queue;
use super::span::Span;

/// The first pause before a batch is sent again, and the longest. Each is twice as long as the one before, and a part
/// of it is left to chance, so that a fleet does not come back all at once.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(16);

/// How long a collector is left alone at the most if it asks for it.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);

/// How often the log says that spans cannot be sent.
const LOG_PAUSE: Duration = Duration::from_secs(60);

/// How much of what a collector says is logged, in characters.
const SAID: usize = 200;

pub(super) struct Exporter {
    queue: Arc<Queue>,
    collector: Arc<Collector>,
    counts: SpanCounts,
    resource: Resource,
    /// How long it is tried to send a batch.
    limit: Duration,
    /// Until when the collector has asked to be left alone.
    not_before: Option<Instant>,
    log: FailureLog,
}

/// The batch is lost.
struct Lost(String);

impl Exporter {
    pub(super) fn new(
        queue: Arc<Queue>,
        collector: Arc<Collector>,
        counts: SpanCounts,
        resource: Resource,
        limit: Duration,
    ) -> Exporter {
        Exporter {
            queue,
            collector,
            counts,
            resource,
            limit,
            not_before: None,
            log: FailureLog::default(),
        }
    }

    /// Sends what is in the queue until that is closed.
    pub(super) fn run(mut self) {
        // Whatever happens here, nobody waits for this thread in vain.
        let _over = Over(Arc::clone(&self.queue), self.counts.clone());
        while let Some(batch) = self.next_batch() {
            let count = batch.len() as u64;
            let sent = catch_unwind(AssertUnwindSafe(|| self.send(&batch)));
            let sent =
                sent.unwrap_or_else(|_| Err(Lost("the thread that sends panicked".to_owned())));
            match sent {
                Ok(rejected) => {
                    let rejected = rejected.min(count);
                    self.counts.add_sent(count - rejected);
                    self.counts.add_dropped(rejected);
                    self.log.sends(&self.collector);
                }
                Err(Lost(why)) => {
                    self.counts.add_dropped(count);
                    self.log.failed(&self.collector, &self.counts, &why);
                    // At the end of the program a collector that has failed once is not asked again.
                    if self.queue.deadline().is_some() {
                        break;
                    }
                }
            }
        }
        let left = self.queue.end() as u64;
        self.counts.add_dropped(left);
        if left > 0 {
            log::warn!("traces: {left} spans are lost: there was no time left to send them");
        }
    }

    fn next_batch(&mut self) -> Option<Vec<Span>> {
        if let Some(time) = self.not_before.take() {
            self.queue.pause_until(time);
        }
        self.queue.next_batch()
    }

    /// Sends one batch. Returns how many spans of it were rejected.
    fn send(&mut self, batch: &[Span]) -> Result<u64, Lost> {
        let body = encode::request(&self.resource, batch);
        let body = body.map_err(|error| Lost(format!("they cannot be encoded: {error}")))?;
        let give_up = Instant::now() + self.limit;
        let mut pause = FIRST_PAUSE;
        loop {
            let end = self.queue.deadline().map_or(give_up, |it| it.min(give_up));
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Lost("there was no time left".to_owned()));
            }
            let (after, why) = match self.collector.send(&body, left) {
                Verdict::Taken { rejected, why } => {
                    if rejected > 0 {
                        let why = format!("{rejected} of {}: {why}", batch.len());
                        self.log.failed(&self.collector, &self.counts, &why);
                    }
                    return Ok(rejected);
                }
                Verdict::Refused(why) => return Err(Lost(why)),
                Verdict::Later { after, why } => (after, why),
            };
            if self.queue.deadline().is_some() {
                return Err(Lost(why));
            }
            let next = Instant::now() + self.until_next(after, &mut pause);
            if next >= give_up {
                self.not_before = after.map(|_| next);
                return Err(Lost(why));
            }
            self.log.failed(&self.collector, &self.counts, &why);
            self.queue.pause_until(next);
        }
    }

    fn until_next(&self, after: Option<Duration>, pause: &mut Duration) -> Duration {
        if let Some(after) = after {
            return after.min(LONGEST_RETRY_AFTER);
        }
        let whole = *pause;
        *pause = (whole * 2).min(LONGEST_PAUSE);
        with_jitter(whole, ids::next())
    }
}

/// From half of it to all of it, by a random number.
fn with_jitter(whole: Duration, random: u64) -> Duration {
    let part = (random >> 32) as u32;
    whole / 2 + (whole / 2).mul_f64(f64::from(part) / f64::from(u32::MAX))
}

/// The end of the thread.
struct Over(Arc<Queue>, SpanCounts);

impl Drop for Over {
    fn drop(&mut self) {
        // Nothing is left, unless it panicked.
        self.1.add_dropped(self.0.end() as u64);
    }
}

/// Says in the log that spans cannot be sent: now and then, for it is the same each time.
#[derive(Default)]
struct FailureLog {
    said: Option<Instant>,
    is_failing: bool,
}

impl FailureLog {
    fn failed(&mut self, collector: &Collector, counts: &SpanCounts, why: &str) {
        self.is_failing = true;
        if self.said.is_some_and(|it| it.elapsed() < LOG_PAUSE) {
            return;
        }
        self.said = Some(Instant::now());
        let why: String = why.chars().take(SAID).collect();
        let why = why.replace(char::is_control, " ");
        let (url, dropped) = (collector.url(), counts.dropped());
        log::warn!(dropped = dropped; "traces: spans cannot be sent to {url}: {why}; {dropped} are lost so far");
    }

    fn sends(&mut self, collector: &Collector) {
        if std::mem::take(&mut self.is_failing) {
            log::debug!("traces: spans are sent to {} again", collector.url());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_half_as_long_as_it_may_be_or_longer() {
        let second = Duration::from_secs(1);
        assert_eq!(with_jitter(second, 0), second / 2);
        assert_eq!(with_jitter(second, u64::MAX), second);
        let middle = with_jitter(second, u64::MAX / 2);
        assert!(
            middle > second * 7 / 10 && middle < second * 8 / 10,
            "{middle:?}"
        );
    }
}
