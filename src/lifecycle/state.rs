//! What the handles, the walking thread and the guard thread of one lifecycle share.
//!
//! `control` is the one lock of it. It is held for moments only and never while code of the
//! program runs (observers, participants, hooks), so the guard thread may take it too.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Add;
use std::time::Duration;

use super::attachments::Attachments;
use super::calls::Calls;
use super::check::Check;
use super::errands::Errands;
use super::hook_run::News;
use super::hooks::Hooks;
use super::in_flight::Gate;
use super::observers::Observer;
use super::one_at_a_time::OneAtATime;
use super::own_threads::OwnThreads;
use super::participant::Participant;
use super::phase::{Phase, PhaseCell, Transition};
use super::pid_file::PidFile;
use super::plan::Plan;
use super::reload::{Reload, Reloads};
use super::report::{Reason, Report};
use super::seat::Seat;
use super::shutdown::Canceller;
use super::startup::{Started, Startup};
use super::succession::Succession;
use super::watch::Watch;
use super::worker::Worker;
use crate::caught::caught;
use crate::running_time::RunningClock;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Bell, Condvar, Instant, Mutex, OnceLock, Sender};

/// Ends the process with this code. Returns only in tests.
pub(super) type Exit = Box<dyn Fn(i32) + Send + Sync>;

pub(super) struct Shared {
    /// Stands before its lines in the log.
    pub(super) name: Option<String>,
    pub(super) plan: Plan,
    /// Whether it is the process's signals that stop it, so that its end is the process's.
    pub(super) hears_process: bool,
    /// How another process takes the place of this one.
    pub(super) succession: Option<Arc<dyn Succession>>,
    /// Cancelled when this process has no other before it: as Serving begins, or once the one that it
    /// replaces stops.
    pub(super) in_charge: Canceller,
    pub(super) pid_file: Option<PidFile>,
    /// Written with `control` held, read without.
    pub(super) phase: PhaseCell,
    pub(super) gate: Gate,
    pub(super) stopping: Canceller,
    pub(super) draining: Canceller,
    pub(super) cancelling: Canceller,
    /// Cancelled when what is in flight must not be waited for.
    pub(super) hurried: Canceller,
    /// Cancelled when this is said once more in Closing.
    pub(super) hurried_closing: Canceller,
    /// Cancelled when no start-up hook runs or will run any more.
    pub(super) startup_is_over: Canceller,
    pub(super) started: Started,
    pub(super) reloads: Reloads,
    /// The thread that has it writes the state of the program.
    pub(super) describing: OneAtATime,
    /// Cancelled when `report` is there.
    pub(super) stopped: Canceller,
    pub(super) report: OnceLock<Report>,
    pub(super) control: Mutex<Control>,
    /// Goes with `control`: there is a start-up or a stop to begin, or a transition to tell.
    pub(super) news: Condvar,
    /// When the stop was asked for. Set once, with `control` held.
    pub(super) began: OnceLock<Instant>,
    /// Begins with the stop.
    pub(super) clock: RunningClock,
    /// The walk is over. The Release in `Walk::finish` pairs with the Acquire in the guard thread.
    pub(super) walked: AtomicBool,
    /// The hooks that run at this moment. Held for moments only.
    pub(super) running_hooks: Mutex<Vec<String>>,
    /// The checks that the guard thread has to pass; see [`Shared::ask_guard`]. Held for moments only.
    pub(super) asked: Mutex<Vec<Check>>,
    pub(super) is_asked: AtomicBool,
    pub(super) errands: Errands,
    pub(super) watch: Watch,
    pub(super) own_threads: OwnThreads,
    /// The walking thread, as the kernel numbers it.
    pub(super) walker: OnceLock<u32>,
    pub(super) attachments: Attachments,
    /// Wakes the guard thread.
    pub(super) bell: Bell,
    /// Where the last words go.
    pub(super) stderr: Option<File>,
    pub(super) exit: Exit,
}

pub(super) struct Control {
    pub(super) reason: Option<Reason>,
    pub(super) history: Vec<Transition>,
    /// Transitions that the walking thread has to tell, each with the number of observers that
    /// were there when it happened.
    pub(super) untold: VecDeque<(Transition, usize)>,
    pub(super) observers: Vec<Observer>,
    pub(super) subscribers: Vec<Sender<Transition>>,
    pub(super) participants: Vec<Arc<dyn Participant>>,
    /// The calls of participants that have been dismissed.
    pub(super) dismissed: Calls,
    pub(super) hooks: Hooks,
    pub(super) workers: Vec<Arc<Seat>>,
    /// Until the program is ready.
    pub(super) workers_to_start: Vec<Worker>,
    pub(super) startup: Startup,
    /// Taken out while they run.
    pub(super) reloads: Vec<Reload>,
    /// A reload was asked for during start-up.
    pub(super) reload_wanted: bool,
}

impl Control {
    /// Refuses what comes too late.
    pub(super) fn refuse_if_stopping(&self) -> Result<(), Stopping> {
        match &self.reason {
            Some(reason) => Err(Stopping {
                reason: reason.clone(),
            }),
            None => Ok(()),
        }
    }
}

impl Shared {
    /// Begins the stop, unless it has begun. Does not wait for it.
    pub(super) fn begin_stop(&self, reason: Reason) {
        self.try_begin_stop(reason);
    }

    /// As `begin_stop`. Says whether it is this reason that has begun it.
    pub(super) fn try_begin_stop(&self, reason: Reason) -> bool {
        {
            let mut control = self.control.lock();
            if control.reason.is_some() {
                return false;
            }
            // At once, whatever the walking thread is at, and before the transitions that follow.
            self.log_reason(&reason);
            if let Some(startup) = &control.startup.news {
                // The channel is unbounded, and its other end lives as long as this one is here.
                let _ = startup.send(News::Stopping);
            }
            control.reason = Some(reason);
            self.began.get_or_init(Instant::now);
            self.clock.begin();
        }
        self.stopping.cancel();
        self.news.notify_one();
        self.bell.ring();
        true
    }

    /// Whether anything may be in flight: there are participants, workers that take in work, or guards.
    pub(super) fn may_have_work(&self) -> bool {
        let has_takers = {
            let control = self.control.lock();
            !control.participants.is_empty() || control.workers.iter().any(|it| !it.until_closing)
        };
        has_takers || self.gate.count() > 0
    }

    pub(super) fn is_replaced(&self) -> bool {
        matches!(self.control.lock().reason, Some(Reason::Replaced(_)))
    }

    /// Ends the wait for what is in flight, and for start-up hooks. Closing hooks that run may give up.
    pub(super) fn hurry(&self) {
        if self.phase.get() == Phase::Closing {
            self.hurried_closing.cancel();
        }
        self.hurried.cancel();
        self.gate.interrupt();
        if let Some(startup) = &self.control.lock().startup.news {
            // The channel is unbounded, and its other end lives as long as this one is here.
            let _ = startup.send(News::Hurry);
        }
    }

    /// Moves on to the next phase, and returns when.
    pub(super) fn enter(&self, to: Phase) -> Instant {
        self.step(&mut self.control.lock(), to)
    }

    /// As `enter`, with the lock held already. Who calls it sees to it that the walking thread
    /// tells the observers.
    pub(super) fn step(&self, control: &mut Control, to: Phase) -> Instant {
        let transition = Transition {
            from: self.phase.get(),
            to,
            at: Instant::now(),
        };
        self.phase.set(to);
        self.log_transition(&transition);
        control.history.push(transition);
        control
            .untold
            .push_back((transition, control.observers.len()));
        // The channels are unbounded: sending never blocks.
        control
            .subscribers
            .retain(|subscriber| subscriber.send(transition).is_ok());
        transition.at
    }

    /// For how long the process may run until it has to exit whatever happens; `None` while no stop has begun.
    /// [`Duration::MAX`] means for ever.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let passed = self.clock.passed()?;
        Some(match self.plan.hard_deadline() {
            Duration::MAX => Duration::MAX,
            time => time.saturating_sub(passed),
        })
    }

    pub(super) fn participants(&self) -> Vec<Arc<dyn Participant>> {
        self.control.lock().participants.clone()
    }

    /// Asks every participant, or tells it something. One that panics answers nothing. Each is let go of where a panic of
    /// its end is caught, since it may have been dismissed meanwhile.
    pub(super) fn ask_participants<T>(
        &self,
        what: &str,
        ask: impl Fn(&dyn Participant) -> T,
    ) -> Vec<T> {
        let participants = self.participants().into_iter();
        let answers = participants.filter_map(|participant| {
            let ask = &ask;
            caught(format_args!("participant, {what},"), move || {
                let answer = ask(&*participant);
                drop(participant);
                answer
            })
        });
        answers.collect()
    }

    /// The stack of a thread, by the first participant that can tell it.
    pub(super) fn stack_of(&self, thread: u32, deadline: Instant) -> Vec<String> {
        let participants = self.participants().into_iter();
        let mut answers = participants.filter_map(|participant| {
            caught("participant, asked for a stack,", move || {
                participant.stack_of(thread, deadline)
            })
        });
        answers.find(|it| !it.is_empty()).unwrap_or_default()
    }

    /// How many works are in flight, as far as the gate and the participants know.
    pub(super) fn in_flight(&self) -> usize {
        let told = self.ask_participants("asked what is in flight", |it| it.in_flight());
        // Each of those holds one guard for all that it has in flight.
        told.into_iter()
            .flatten()
            .fold(self.gate.count(), |sum, count| {
                (sum + count).saturating_sub(1)
            })
    }

    /// What has become of the calls of all participants so far.
    pub(super) fn calls(&self) -> Calls {
        let told = self.ask_participants("asked for its calls", |it| it.calls());
        let dismissed = self.control.lock().dismissed;
        told.into_iter().fold(dismissed, Calls::add)
    }

    /// What is in flight, by name as far as participants name it. Workers are said so.
    pub(super) fn in_flight_names(&self, say: impl Fn(&Seat) -> String) -> Vec<String> {
        let told = self.ask_participants("asked what runs", |it| (it.name(), it.running()));
        let mut names = Vec::new();
        for (name, running) in told {
            names.extend(running.into_iter().map(|work| format!("{name}: {work}")));
        }
        names.extend(self.workers_in_flight().iter().map(|it| say(it)));
        let count = self.gate.count();
        if names.is_empty() && count > 0 {
            names.push(format!("{count} in flight, not named"));
        }
        names
    }

    /// This process has no other before it.
    pub(super) fn take_charge(&self) -> Result<(), String> {
        // First: a script that reads the file may ask for a successor at once.
        self.in_charge.cancel();
        self.with_pid_file(PidFile::write)
    }

    /// Does this to the pid file, if there is one.
    pub(super) fn with_pid_file(
        &self,
        act: impl FnOnce(&PidFile) -> io::Result<()>,
    ) -> Result<(), String> {
        let Some(file) = &self.pid_file else {
            return Ok(());
        };
        act(file).map_err(|error| {
            let path = file.path().display();
            format!("cannot write the pid file {path}: {error}")
        })
    }

    /// Has the guard thread answer this.
    pub(super) fn ask_guard(&self, check: Check) {
        self.asked.lock().push(check);
        // Pairs with the Acquire in the guard thread.
        self.is_asked.store(true, Ordering::Release);
        self.bell.ring();
    }

    /// Lets the guard thread end.
    pub(super) fn dismiss_guard(&self) {
        // Pairs with the Acquire in the guard thread.
        self.walked.store(true, Ordering::Release);
        self.bell.ring();
    }
}

/// The program is stopping, so it is too late for this.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stopping {
    /// Why the stop began.
    pub reason: Reason,
}

impl fmt::Display for Stopping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the program is stopping ({})", self.reason)
    }
}

impl std::error::Error for Stopping {}
