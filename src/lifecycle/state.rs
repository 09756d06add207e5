//! What the handles, the walking thread and the guard thread of one lifecycle share.
//!
//! `control` is the one lock of it. It is held for moments only and never while code of the
//! program runs (observers, participants, hooks), so the guard thread may take it too.

use std::collections::VecDeque;
use std::fmt::{self, Display};
use std::fs::File;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use super::announcer::Outlet;
use super::attachments::Attachments;
use super::check::Check;
use super::clock::Clock;
use super::hooks::Hooks;
use super::in_flight::InFlight;
use super::participant::{Calls, Participant};
use super::phase::{Phase, PhaseCell, Transition};
use super::pid_file::PidFile;
use super::plan::Plan;
use super::reload::{Reload, Reloads};
use super::report::{Reason, Report};
use super::run::{message_of, News};
use super::shutdown::Token;
use super::startup::{Started, Startup};
use super::succession::Succession;
use super::turn::Turn;
use super::workers::Seat;
use crate::logging;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Bell, Condvar, Instant, Mutex, OnceLock, Sender};

/// What is told of each transition.
#[derive(Clone)]
pub(super) enum Observer {
    /// On the thread that walks.
    Callback(Arc<dyn Fn(&Transition) + Send + Sync>),
    Outlet(Arc<Outlet>),
}

/// Ends the process with this code. Returns only in tests.
pub(super) type Exit = Box<dyn Fn(i32) + Send + Sync>;

pub(super) struct Shared {
    pub(super) plan: Plan,
    /// Whether it is the process's signals that stop it, so that its end is the process's.
    pub(super) hears_process: bool,
    /// How another process takes the place of this one.
    pub(super) succession: Option<Arc<dyn Succession>>,
    /// Cancelled when this process has no other before it: as Serving begins, or once the one that it
    /// replaces stops.
    pub(super) in_charge: Token,
    pub(super) pid_file: Option<PidFile>,
    /// Written with `control` held, read without.
    pub(super) phase: PhaseCell,
    pub(super) gate: InFlight,
    pub(super) stopping: Token,
    pub(super) draining: Token,
    pub(super) cancelling: Token,
    /// Cancelled when what is in flight must not be waited for.
    pub(super) hurried: Token,
    /// Cancelled when no start-up hook runs or will run any more.
    pub(super) startup_is_over: Token,
    pub(super) started: Started,
    pub(super) reloads: Reloads,
    /// Whoever has it writes the state of the program.
    pub(super) describing: Turn,
    /// Cancelled when `report` is there.
    pub(super) stopped: Token,
    pub(super) report: OnceLock<Report>,
    pub(super) control: Mutex<Control>,
    /// Goes with `control`: there is a start-up or a stop to begin, or a transition to tell.
    pub(super) news: Condvar,
    /// When the stop was asked for. Set once, with `control` held.
    pub(super) began: OnceLock<Instant>,
    /// Begins with the stop.
    pub(super) clock: Clock,
    /// The walk is over. The Release in `Walk::finish` pairs with the Acquire in the guard thread.
    pub(super) walked: AtomicBool,
    /// The hooks that run at this moment. Held for moments only.
    pub(super) running_hooks: Mutex<Vec<String>>,
    /// Whoever wants to see that the guard thread runs; it is to be woken. Held for moments only.
    pub(super) asked: Mutex<Vec<Check>>,
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
            control.reason = Some(reason);
            self.began.get_or_init(Instant::now);
            self.clock.begin();
        }
        self.stopping.cancel();
        self.news.notify_one();
        self.bell.ring();
        true
    }

    pub(super) fn is_replaced(&self) -> bool {
        matches!(self.control.lock().reason, Some(Reason::Replaced(_)))
    }

    /// Ends the wait for what is in flight, and for start-up hooks.
    pub(super) fn hurry(&self) {
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
        self.began.get()?;
        Some(match self.plan.get_hard_deadline() {
            Duration::MAX => Duration::MAX,
            time => time.saturating_sub(self.clock.read()),
        })
    }

    pub(super) fn participants(&self) -> Vec<Arc<dyn Participant>> {
        self.control.lock().participants.clone()
    }

    /// How many works are in flight, as far as the gate and the participants know.
    pub(super) fn in_flight(&self, participants: &[Arc<dyn Participant>]) -> usize {
        let told = participants
            .iter()
            .filter_map(|it| panic::catch_unwind(AssertUnwindSafe(|| it.in_flight())).ok()?);
        // Each of those holds one guard for all that it has in flight.
        told.fold(self.gate.count(), |sum, count| {
            (sum + count).saturating_sub(1)
        })
    }

    /// What is in flight, by name as far as participants name it.
    pub(super) fn in_flight_names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for participant in self.participants() {
            let described = caught("participant", || {
                (participant.name(), participant.running())
            });
            let Some((name, running)) = described else {
                continue;
            };
            names.extend(running.into_iter().map(|work| format!("{name}: {work}")));
        }
        names.extend(self.workers_in_flight());
        let count = self.gate.count();
        if names.is_empty() && count > 0 {
            names.push(format!("{count} in flight, not named"));
        }
        names
    }

    /// This process has no other before it.
    pub(super) fn take_charge(&self) -> Result<(), String> {
        // First: whoever reads the file may ask for a successor.
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

    /// Lets the guard thread end.
    pub(super) fn dismiss_guard(&self) {
        // Pairs with the Acquire in the guard thread.
        self.walked.store(true, Ordering::Release);
        self.bell.ring();
    }
}

/// Runs code of the program. A panic in it is logged and goes no further.
pub(super) fn caught<T>(what: impl Display, run: impl FnOnce() -> T) -> Option<T> {
    panic::catch_unwind(AssertUnwindSafe(run))
        .map_err(|panic| logging::error!("{what} panicked: {}", message_of(panic)))
        .ok()
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
