//! The guard thread: hears the signals, and keeps the hard deadline.
//!
//! It must get through when every other thread is stuck. So it waits for nothing but its socket,
//! takes no lock that is held while code of the program runs, does not log, and leaves what might
//! block (asking participants, writing to standard error) to a thread that it does not wait for
//! longer than [`LAST_WORDS_TIME`].

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use super::report::{exit_code, one_line, Reason};
use super::signals::{signal_name, Listener};
use super::state::Shared;
use crate::sync::atomic::Ordering;
use crate::sync::{bounded, thread, Arc, Instant, Sleeper};

/// How long the process may take to say what was running before it exits. Enough for thousands of
/// lines to a slow console, and short beside any deadline.
const LAST_WORDS_TIME: Duration = Duration::from_millis(500);

pub(super) struct Guard {
    pub(super) shared: Arc<Shared>,
    /// Declared before `sleeper`, so that the signal handlers go before the socket they write to.
    pub(super) listener: Listener,
    pub(super) sleeper: Sleeper,
}

impl Guard {
    /// Runs until the walk is over.
    pub(super) fn run(self) {
        let mut signals: u32 = 0;
        let mut enforced = false;
        // Pairs with the Release in `Shared::dismiss_guard`.
        while !self.shared.walked.load(Ordering::Acquire) {
            while let Some(signal) = self.listener.take() {
                signals = signals.saturating_add(1);
                self.obey(signal, signals);
            }
            let deadline = self.shared.hard_deadline().filter(|_| !enforced);
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                let time = self.shared.plan.get_hard_deadline();
                self.exit(
                    &format!("hard deadline of {time:?} passed"),
                    exit_code::HARD_DEADLINE,
                );
                // Only in tests does the process live on.
                enforced = true;
                continue;
            }
            self.sleeper.sleep(left);
        }
    }

    /// Does what the signal asks for, it being the `nth` of all.
    fn obey(&self, signal: i32, nth: u32) {
        match nth {
            1 => self.shared.begin_stop(Reason::Signal(signal)),
            2 => self.shared.hurry(),
            _ => {
                let why = format!("third signal ({})", signal_name(signal));
                self.exit(&why, exit_code::third_signal(signal));
            }
        }
    }

    fn exit(&self, why: &str, code: u8) {
        let (done, said) = bounded::<()>(0);
        let shared = Arc::clone(&self.shared);
        let headline = format!(
            "touchdown: {why} while {}; exiting with {code}",
            shared.phase.get()
        );
        // If there is no thread to be had, the exit comes without words.
        let speaker = thread::Builder::new()
            .name("td-last-words".to_owned())
            .spawn(move || {
                if let Some(stderr) = &shared.stderr {
                    say_what_runs(&shared, stderr, &headline);
                }
                drop(done);
            });
        if speaker.is_ok() {
            let _ = said.recv_timeout(LAST_WORDS_TIME);
        }
        (self.shared.exit)(i32::from(code));
    }
}

/// Writes line by line, so that what is known is out before something blocks.
fn say_what_runs(shared: &Shared, mut stderr: &File, headline: &str) {
    let mut say = |line: &str| {
        let _ = stderr.write_all(format!("{}\n", one_line(line)).as_bytes());
    };
    say(headline);
    say(&format!("touchdown:   in flight: {}", shared.gate.count()));
    for participant in shared.participants() {
        let name = participant.name();
        for work in participant.running() {
            say(&format!("touchdown:   {name}: {work}"));
        }
    }
    for worker in shared.workers_in_flight() {
        say(&format!("touchdown:   {worker}"));
    }
    let hooks = shared.running_hooks.lock().clone();
    for hook in hooks {
        say(&format!("touchdown:   hook: {hook}"));
    }
}
