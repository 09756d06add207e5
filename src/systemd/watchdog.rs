//! When to ask the program whether it works, and what to make of the answers.

use std::time::{Duration, Instant};

/// Feeds a watchdog as long as the answers come.
pub(super) struct Watchdog {
    /// Half of what systemd allows between two messages.
    interval: Duration,
    next: Instant,
    /// Of the last question.
    round: u64,
    /// Whether the last question has not been answered.
    waits: bool,
}

impl Watchdog {
    /// What systemd asks for is read from the environment: WATCHDOG_USEC, and WATCHDOG_PID, which must be
    /// this process's if it is there.
    pub(super) fn from_environment(now: Instant) -> Option<Watchdog> {
        let time = sd_notify::watchdog_enabled()?;
        Self::new(time, now)
    }

    fn new(time: Duration, now: Instant) -> Option<Watchdog> {
        (!time.is_zero()).then(|| Watchdog {
            // No fewer than a millisecond: the processor is for the calls.
            interval: (time / 2).max(Duration::from_millis(1)),
            next: now,
            round: 0,
            waits: false,
        })
    }

    /// When to come again.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// The number of a question to ask now, if it is time and the last was answered.
    pub(super) fn ask(&mut self, now: Instant) -> Option<u64> {
        if now < self.next {
            return None;
        }
        self.next = now + self.interval;
        if self.waits {
            return None;
        }
        self.waits = true;
        self.round += 1;
        Some(self.round)
    }

    /// The question was answered. Returns whether to feed the watchdog.
    pub(super) fn answered(&mut self, round: u64, passed: bool) -> bool {
        if round != self.round || !self.waits {
            return false;
        }
        self.waits = false;
        passed
    }

    /// The participant that was asked may be gone: the next question comes at the next interval, with or without an answer to
    /// the last one.
    pub(super) fn forget(&mut self) {
        self.waits = false;
        self.round += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_asks_twice_an_interval_and_is_fed_by_each_answer() {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(2 * SECOND, start).unwrap();
        for beat in 0..5 {
            let now = start + beat * SECOND;
            let round = watchdog.ask(now).unwrap();
            assert_eq!(watchdog.next(), now + SECOND);
            assert_eq!(watchdog.ask(now + SECOND / 2), None);
            assert!(watchdog.answered(round, true));
            assert!(!watchdog.answered(round, true), "one answer, one message");
        }
    }

    #[test]
    fn without_an_answer_nothing_more_is_asked_and_nothing_is_fed() {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(2 * SECOND, start).unwrap();
        let round = watchdog.ask(start).unwrap();
        for beat in 1..5 {
            assert_eq!(watchdog.ask(start + beat * SECOND), None);
        }
        // Late, but it lives.
        assert!(watchdog.answered(round, true));
        assert!(watchdog.ask(start + 5 * SECOND).is_some());
    }

    #[test]
    fn a_question_that_was_dropped_is_asked_again() {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(2 * SECOND, start).unwrap();
        let round = watchdog.ask(start).unwrap();
        assert!(!watchdog.answered(round, false));
        let again = watchdog.ask(start + SECOND).unwrap();
        assert_ne!(round, again);
        watchdog.forget();
        assert!(!watchdog.answered(again, true), "that was forgotten");
        assert!(watchdog.ask(start + 2 * SECOND).is_some());
    }

    #[test]
    fn no_time_is_no_watchdog() {
        assert!(Watchdog::new(Duration::ZERO, Instant::now()).is_none());
    }
}
