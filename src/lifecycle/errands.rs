//! Errands: what the guard thread has another thread do.
//!
//! The guard thread keeps the hard deadline, whatever the other threads are at. One of them may hold the lock of the
//! memory allocator and stand still: then every thread that wants memory, or gives some back, stands still with it. So the
//! guard does neither, and takes no lock under which others do. Whatever needs memory or such a lock it leaves to this
//! thread, `td-errands`, for which it never waits longer than it must.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::time::Duration;

use super::check::Check;
use super::reloading;
use super::remote::Remote;
use super::report::Reason;
use super::signals::signal_name;
use super::state::Shared;
use crate::caught::caught;
use crate::logging;
use crate::sync::atomic::{AtomicU8, Ordering};
use crate::sync::{thread, Arc, BareCondvar, BareMutex, Instant};
use crate::text::one_line;

/// How many errands wait at the most: each kind once, and more than one signal to stop for.
const ROOM: usize = 16;

/// How much of the time for last words may go to what the log has not taken yet. If it takes nothing, a quarter of it
/// does.
const LOG_TIME: Duration = Duration::from_millis(100);

/// How much of it is for finding out where in the code the program is: a process whose threads do not say where they
/// are still exits within 50 ms of its deadline.
const STACKS_SEARCH_TIME: Duration = Duration::from_millis(30);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Errand {
    /// Begin the stop, for this signal.
    Stop(i32),
    /// End the wait for what is in flight.
    Hurry,
    Reload,
    /// Write what the program is at.
    State,
    /// Have another process take over.
    Replace,
    /// Tell those who asked that the guard thread works.
    Answer,
    /// Say what was running: the process is about to exit with this code.
    LastWords(Why, u8),
}

/// Why the process exits on the spot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    HardDeadline,
    ThirdSignal(i32),
}

/// How much of the last words is said.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Said {
    Nothing,
    /// What runs.
    Words,
    /// And where in the code.
    Stacks,
}

pub(super) struct Errands {
    queue: BareMutex<Queue>,
    /// Goes with `queue`: there is something to do.
    news: BareCondvar,
    said: AtomicU8,
}

struct Queue {
    /// Has its memory from the beginning.
    list: VecDeque<Errand>,
    is_closed: bool,
}

impl Errands {
    pub(super) fn new() -> Self {
        Self {
            queue: BareMutex::new(Queue {
                list: VecDeque::with_capacity(ROOM),
                is_closed: false,
            }),
            news: BareCondvar::new(),
            said: AtomicU8::new(Said::Nothing as u8),
        }
    }

    /// Takes no memory, and does not wait for the errand. One that waits already, however often it is given, is done once.
    pub(super) fn give(&self, errand: Errand) {
        let mut queue = self.queue.lock();
        if queue.list.len() < ROOM && !queue.list.contains(&errand) {
            queue.list.push_back(errand);
        }
        drop(queue);
        self.news.notify_one();
    }

    /// The thread ends when it has done what there is.
    pub(super) fn close(&self) {
        self.queue.lock().is_closed = true;
        self.news.notify_one();
    }

    /// Whether this much of the last words is said.
    pub(super) fn have_said(&self, said: Said) -> bool {
        // Pairs with the Release in `say_so`; nothing hangs on it but the order of the two.
        self.said.load(Ordering::Acquire) >= said as u8
    }

    fn say_so(&self, said: Said) {
        self.said.store(said as u8, Ordering::Release);
    }

    fn next(&self) -> Option<Errand> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(errand) = queue.list.pop_front() {
                return Some(errand);
            }
            if queue.is_closed {
                return None;
            }
            queue = self.news.wait(queue);
        }
    }

    /// What its thread does, until it is closed.
    pub(super) fn run(shared: &Arc<Shared>) {
        while let Some(errand) = shared.errands.next() {
            match errand {
                Errand::Stop(signal) => shared.begin_stop(Reason::Signal(signal)),
                Errand::Hurry => shared.hurry(),
                Errand::Reload => reloading::ask(shared),
                Errand::State => write_state(shared),
                Errand::Replace => replace(shared),
                Errand::Answer => {
                    let asked = std::mem::take(&mut *shared.asked.lock());
                    asked.into_iter().for_each(Check::passed);
                }
                Errand::LastWords(why, code) => say_last_words(shared, why, code),
            }
        }
    }
}

fn say_last_words(shared: &Shared, why: Why, code: u8) {
    // What was said before goes first.
    logging::flush(LOG_TIME);
    let Some(stderr) = &shared.stderr else {
        return;
    };
    let why = match why {
        Why::HardDeadline => {
            let time = shared.plan.get_hard_deadline();
            format!("hard deadline of {time:?} passed")
        }
        Why::ThirdSignal(signal) => format!("third signal ({})", signal_name(signal)),
    };
    let phase = shared.phase.get();
    let headline = format!("touchdown: {why} while {phase}; exiting with {code}");
    say_what_runs(shared, stderr, &headline);
    shared.errands.say_so(Said::Words);
    shared.bell.ring();
    say_where_it_is(shared, stderr);
    shared.errands.say_so(Said::Stacks);
    shared.bell.ring();
}

/// Has another process take over, and does not wait for it. Does nothing if the program cannot be replaced.
fn replace(shared: &Arc<Shared>) {
    let Some(succession) = shared.succession.clone() else {
        return;
    };
    let remote = Remote::new(Arc::clone(shared));
    let thread = thread::Builder::new().name("td-replace".to_owned());
    // The log has what became of it. Without a thread nothing comes of it, and the operator tries again.
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
        // The next one that asks tries again.
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
    say(&format!("in flight: {}", shared.in_flight()));
    for participant in shared.participants() {
        // One that panics must not keep the others from being named.
        caught("participant, asked what runs,", || {
            let name = participant.name();
            if let Some(state) = participant.state() {
                say(&format!("{name}: {state}"));
            }
            for work in participant.running() {
                say(&format!("{name}: {work}"));
            }
            drop(participant);
        });
    }
}

fn say_where_it_is(shared: &Shared, stderr: &File) {
    let deadline = Instant::now() + STACKS_SEARCH_TIME;
    for participant in shared.participants() {
        // One that hangs must not keep what the others have said from being written.
        caught("participant, asked for its stacks,", move || {
            for line in participant.stacks(deadline) {
                say(stderr, &format!("touchdown:     {line}"));
            }
        });
    }
}

fn say(mut stderr: &File, line: &str) {
    let _ = stderr.write_all(format!("{}\n", one_line(line)).as_bytes());
}
