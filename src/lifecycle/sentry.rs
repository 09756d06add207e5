//! The guard thread: hears the signals, and keeps the hard deadline.
//!
//! It must get through when every other thread is stuck. So it waits for nothing but its socket,
//! takes no lock that is held while code of the program runs, does not log, and leaves what might
//! block (asking participants, writing to standard error) to a thread that it does not wait for
//! longer than [`LAST_WORDS_TIME`].

use std::fs::File;
use std::io::Write;
use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGUSR1, SIGUSR2};

use super::check::Check;
use super::reload;
use super::remote::Remote;
use super::report::{exit_code, one_line, Reason};
use super::signals::{signal_name, Listener, Wishes};
use super::state::{caught, Shared};
use crate::logging;
use crate::running_time::SLICE;
use crate::sync::atomic::Ordering;
use crate::sync::{bounded, thread, Arc, Instant, Sleeper};

/// How long the process may take to say what was running before it exits. Enough for thousands of
/// lines to a slow console, and short beside any deadline.
const LAST_WORDS_TIME: Duration = Duration::from_millis(500);

/// How much of that may go to what the log has not taken yet. If it takes nothing, a quarter of it does.
const LOG_TIME: Duration = Duration::from_millis(100);

/// How much of that may go to saying where in the code it runs, which comes last, since it may take
/// time or fail. A machine that is not overloaded needs some milliseconds.
const STACKS_TIME: Duration = Duration::from_millis(100);

/// How much of that is for finding out: a process whose threads do not say where they are still exits
/// within 50 ms of its deadline.
const STACKS_SEARCH_TIME: Duration = Duration::from_millis(30);

pub(super) struct Guard {
    pub(super) shared: Arc<Shared>,
    /// Declared before `sleeper`, so that the signal handlers go before the socket they write to.
    pub(super) listener: Listener,
    pub(super) sleeper: Sleeper,
}

impl Guard {
    /// Runs until the walk is over.
    pub(super) fn run(self) {
        let mut wishes = Wishes::default();
        let mut enforced = false;
        // Pairs with the Release in `Shared::dismiss_guard`.
        while !self.shared.walked.load(Ordering::Acquire) {
            while let Some(signal) = self.listener.take() {
                match signal {
                    SIGHUP => self.hang_up(),
                    SIGUSR1 => write_state(&self.shared),
                    SIGUSR2 => replace(&self.shared),
                    _ => {
                        let now = self.shared.clock.read();
                        if let Some(nth) = wishes.count(now, self.listener.repeats()) {
                            self.obey(signal, nth);
                        }
                    }
                }
            }
            let asked = std::mem::take(&mut *self.shared.asked.lock());
            asked.into_iter().for_each(Check::passed);
            let left = self.shared.time_left().filter(|_| !enforced);
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
            // As long as there is no stop, nothing but the bell wakes it.
            self.sleeper.sleep(left.map(|left| left.min(SLICE)));
        }
    }

    /// Begins a reload; or, if there is nothing to reload, the stop.
    fn hang_up(&self) {
        if self.shared.reloads.exist {
            reload::ask(&self.shared);
        } else if !self.listener.is_hang_up_ignored() {
            self.shared.begin_stop(Reason::Signal(SIGHUP));
        }
    }

    /// Does what the signal asks for, it being the `nth` of those that stop the program.
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
        let (words_done, words_said) = bounded::<()>(0);
        let (stacks_done, stacks_said) = bounded::<()>(0);
        let shared = Arc::clone(&self.shared);
        let headline = format!(
            "touchdown: {why} while {}; exiting with {code}",
            shared.phase.get()
        );
        // If there is no thread to be had, the exit comes without words.
        let speaker = thread::Builder::new()
            .name("td-last-words".to_owned())
            .spawn(move || {
                // What was said before goes first.
                logging::flush(LOG_TIME);
                let Some(stderr) = &shared.stderr else {
                    return;
                };
                say_what_runs(&shared, stderr, &headline);
                drop(words_done);
                say_where_it_is(&shared, stderr);
                drop(stacks_done);
            });
        if speaker.is_ok() {
            let end = Instant::now() + LAST_WORDS_TIME;
            let _ = words_said.recv_timeout(LAST_WORDS_TIME);
            let left = end.saturating_duration_since(Instant::now());
            let _ = stacks_said.recv_timeout(left.min(STACKS_TIME));
        }
        (self.shared.exit)(i32::from(code));
    }
}

/// Has another process take over, and does not wait for it. Does nothing if the program cannot be replaced.
fn replace(shared: &Arc<Shared>) {
    let Some(succession) = shared.succession.clone() else {
        return;
    };
    let remote = Remote::new(Arc::clone(shared));
    let thread = thread::Builder::new().name("td-replace".to_owned());
    // The log has what became of it. Without a thread whoever asks tries again.
    let _ = thread.spawn(move || caught("succession", || succession.replace(&remote)));
}

/// Writes what the program is at to standard error, on a thread of its own.
fn write_state(shared: &Arc<Shared>) {
    if !shared.describing.ask() {
        return;
    }
    let thread = thread::Builder::new().name("td-state".to_owned());
    let write = {
        let shared = Arc::clone(shared);
        move || loop {
            if let Some(stderr) = &shared.stderr {
                let phase = shared.phase.get();
                let headline = format!("touchdown: state, asked for by SIGUSR1: {phase}");
                say_what_runs(&shared, stderr, &headline);
            }
            if !shared.describing.over() {
                break;
            }
        }
    };
    if thread.spawn(write).is_err() {
        // Whoever asks next tries again.
        shared.describing.over();
    }
}

/// Writes line by line, so that what is known is out before something blocks.
fn say_what_runs(shared: &Shared, stderr: &File, headline: &str) {
    say(stderr, headline);
    describe(shared, |line| say(stderr, &format!("touchdown:   {line}")));
}

/// Says in lines what is in flight and what runs; what the program has to be asked for comes last.
pub(super) fn describe(shared: &Shared, mut say: impl FnMut(&str)) {
    let hooks = shared.running_hooks.lock().clone();
    for hook in hooks {
        say(&format!("hook: {hook}"));
    }
    if let Some(name) = shared.reloads.running() {
        say(&format!("reload: {name}"));
    }
    for worker in shared.workers_in_flight() {
        say(&worker);
    }
    let participants = shared.participants();
    say(&format!("in flight: {}", shared.in_flight(&participants)));
    for participant in participants {
        // One that panics must not keep the others from being named.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| {
            let name = participant.name();
            if let Some(state) = participant.state() {
                say(&format!("{name}: {state}"));
            }
            for work in participant.running() {
                say(&format!("{name}: {work}"));
            }
        }));
    }
}

fn say_where_it_is(shared: &Shared, stderr: &File) {
    let deadline = Instant::now() + STACKS_SEARCH_TIME;
    for participant in shared.participants() {
        for line in participant.stacks(deadline) {
            say(stderr, &format!("touchdown:     {line}"));
        }
    }
}

fn say(mut stderr: &File, line: &str) {
    let _ = stderr.write_all(format!("{}\n", one_line(line)).as_bytes());
}
