//! What the thread `td-errands` does for the guard; see [`Errands`](super::errands::Errands).

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use super::check::Check;
use super::errands::{Errand, Said, Why};
use super::reloading;
use super::remote::Remote;
use super::report::Reason;
use super::seat::Seat;
use super::signals::signal_name;
use super::state::Shared;
use crate::caught::caught;
use crate::logging;
use crate::sync::{thread, Arc, Instant};
use crate::text::one_line;

/// How much of the time for last words may go to what the log has not taken yet. If it takes nothing, a quarter of it
/// does.
const LOG_TIME: Duration = Duration::from_millis(100);

/// How much of it is for finding out where in the code the program is: a process whose threads do not say where they
/// are still exits within 50 ms of its deadline.
const STACKS_SEARCH_TIME: Duration = Duration::from_millis(30);

/// Does what it is given, until there is no more.
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
            Errand::Blocked => shared.log_blocked(),
            Errand::Unready => shared.log_unready(),
            Errand::LastWords(why, code) => say_last_words(shared, why, code),
        }
    }
}

fn say_last_words(shared: &Shared, why: Why, code: u8) {
    let why = match why {
        Why::HardDeadline => {
            let time = shared.plan.hard_deadline();
            format!("hard deadline of {time:?} passed")
        }
        Why::ThirdSignal(signal) => format!("third signal ({})", signal_name(signal)),
    };
    let phase = shared.phase.get();
    let headline = format!("{why} while {phase}; exiting with {code}");
    let line = shared.titled(&headline);
    logging::error!(phase = phase.as_word(), exit_code = code; "{line}");
    // What was said before goes first.
    logging::flush(LOG_TIME);
    let Some(stderr) = &shared.stderr else {
        return;
    };
    let headline = format!("touchdown: {headline}");
    say_what_runs(shared, stderr, &headline, Seat::is_in_flight);
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
    let program = Remote::new(Arc::clone(shared)).handover();
    let thread = thread::Builder::new().name("td-replace".to_owned());
    // The log has what became of it. Without a thread nothing comes of it, and the operator tries again.
    let _ = thread.spawn(move || caught("succession", || succession.replace(&program)));
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
                say_what_runs(&shared, stderr, &headline, |_| true);
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
fn say_what_runs(shared: &Shared, stderr: &File, headline: &str, of: fn(&Seat) -> bool) {
    say(stderr, headline);
    describe(shared, of, |line| {
        say(stderr, &format!("touchdown:   {line}"))
    });
}

/// Says in lines what is in flight and what runs, these workers among it; what the program has to be asked for comes
/// last.
pub(super) fn describe(shared: &Shared, of: fn(&Seat) -> bool, mut say: impl FnMut(&str)) {
    let hooks = shared.running_hooks.lock().clone();
    for hook in hooks {
        say(&format!("hook: {hook}"));
    }
    if let Some(name) = shared.reloads.running() {
        say(&format!("reload: {name}"));
    }
    if let Some((what, time)) = shared.watch.blocked() {
        say(&format!("{what} for {time:.1?}"));
    }
    for worker in shared.seats().iter().filter(|it| of(it)) {
        say(&worker.describe());
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
    let of_walk = shared.watch.blocked().and(shared.walker.get().copied());
    let of_walk = of_walk.map(|thread| ("thread td-lifecycle".to_owned(), thread));
    let workers = shared.seats().into_iter().filter(|it| it.is_in_flight());
    let of_workers = workers.filter_map(|it| Some((it.name.clone(), *it.at.get()?)));
    for (name, thread) in of_walk.into_iter().chain(of_workers) {
        // No longer than half of what is left, so that all come to it.
        let half = deadline.saturating_duration_since(Instant::now()) / 2;
        let stack = shared.stack_of(thread, Instant::now() + half);
        if !stack.is_empty() {
            say(stderr, &format!("touchdown:     {name}"));
        }
        for line in stack {
            say(stderr, &format!("touchdown:       {line}"));
        }
    }
}

fn say(mut stderr: &File, line: &str) {
    let _ = stderr.write_all(format!("{}\n", one_line(line)).as_bytes());
}
