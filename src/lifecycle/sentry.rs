//! The guard thread: hears the signals, and keeps the hard deadline.
//!
//! It must get through when every other thread is stuck. So it waits for nothing but its socket, takes no memory and
//! gives none back, and takes no lock under which another thread may do so, or may run code of the program. What might
//! block (to begin a stop, to ask participants, to write to standard error) it leaves to [`Errands`], and waits for last
//! words no longer than [`LAST_WORDS_TIME`].

use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGUSR1, SIGUSR2};

use super::errands::{Errand, Said, Why};
use super::report::exit_code;
use super::signals::{Listener, Wishes};
use super::state::Shared;
use crate::running_time::SLICE;
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, Instant, Sleeper};

/// How long the process may take to say what was running before it exits. Enough for thousands of
/// lines to a slow console, and short beside any deadline.
const LAST_WORDS_TIME: Duration = Duration::from_millis(500);

/// How much of that may go to saying where in the code it runs, which comes last, since it may take
/// time or fail. A machine that is not overloaded needs some milliseconds.
const STACKS_TIME: Duration = Duration::from_millis(100);

pub(super) struct Sentry {
    pub(super) shared: Arc<Shared>,
    /// Declared before `sleeper`, so that the signal handlers go before the socket they write to.
    pub(super) listener: Listener,
    pub(super) sleeper: Sleeper,
}

impl Sentry {
    /// Runs until the walk is over.
    pub(super) fn run(self) {
        let mut wishes = Wishes::default();
        let mut enforced = false;
        // Pairs with the Release in `Shared::dismiss_guard`.
        while !self.shared.walked.load(Ordering::Acquire) {
            while let Some(signal) = self.listener.take() {
                match signal {
                    SIGHUP => self.hang_up(),
                    SIGUSR1 => self.shared.errands.give(Errand::State),
                    SIGUSR2 => self.shared.errands.give(Errand::Replace),
                    _ => {
                        let now = self.shared.clock.read();
                        if let Some(nth) = wishes.count(now, self.listener.repeats()) {
                            self.obey(signal, nth);
                        }
                    }
                }
            }
            // Pairs with the Release in `Shared::ask_guard`.
            if self.shared.is_asked.swap(false, Ordering::Acquire) {
                self.shared.errands.give(Errand::Answer);
            }
            let due = self.shared.watch.due(Instant::now());
            if due.blocked {
                self.shared.errands.give(Errand::Blocked);
            }
            if due.unready {
                self.shared.errands.give(Errand::Unready);
            }
            let left = self.shared.time_left().filter(|_| !enforced);
            if left == Some(Duration::ZERO) {
                self.exit(Why::HardDeadline, exit_code::HARD_DEADLINE);
                // Only in tests does the process live on.
                enforced = true;
                continue;
            }
            // As long as there is no stop and nothing to look after, nothing but the bell wakes it.
            let times = [left.map(|left| left.min(SLICE)), due.again];
            self.sleeper.sleep(times.into_iter().flatten().min());
        }
    }

    /// Begins a reload; or, if there is nothing to reload, the stop.
    fn hang_up(&self) {
        if self.shared.reloads.exist {
            self.shared.errands.give(Errand::Reload);
        } else if !self.listener.is_hang_up_ignored() {
            self.begin_stop(SIGHUP);
        }
    }

    /// Does what the signal asks for, it being the `nth` of those that stop the program.
    fn obey(&self, signal: i32, nth: u32) {
        match nth {
            1 => self.begin_stop(signal),
            2 => self.shared.errands.give(Errand::Hurry),
            _ => self.exit(Why::ThirdSignal(signal), exit_code::third_signal(signal)),
        }
    }

    fn begin_stop(&self, signal: i32) {
        // Time counts from now on, though nobody should come to do the rest.
        self.shared.clock.begin();
        self.shared.errands.give(Errand::Stop(signal));
    }

    fn exit(&self, why: Why, code: u8) {
        self.shared.errands.give(Errand::LastWords(why, code));
        let end = Instant::now() + LAST_WORDS_TIME;
        self.await_words(Said::Words, end);
        self.await_words(Said::Stacks, end.min(Instant::now() + STACKS_TIME));
        (self.shared.exit)(i32::from(code));
    }

    /// Waits until this much was said, or until the time is over.
    fn await_words(&self, said: Said, end: Instant) {
        while !self.shared.errands.have_said(said) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            // Others may ring as well.
            self.sleeper.sleep(Some(left));
        }
    }
}
