//! What others may see of a lifecycle, and ask of it, without being a handle on it.

use std::any::Any;
use std::fmt::{self, Write as _};
use std::io;
use std::time::Duration;

use super::announcer::Announcer;
use super::calls::Calls;
use super::check::{self, CheckError, Checking};
use super::errand_run;
use super::observers::Observer;
use super::phase::{Phase, Transition};
use super::plan::{self, Plan};
use super::reload::ReloadEvent;
use super::report::Reason;
use super::shutdown::Token;
use super::state::Shared;
use crate::caught::caught;
use crate::sync::{Arc, Instant};
use crate::text::one_line;

/// What a companion holds of a lifecycle: it sees the program and may stop it, and does not count as a handle, so the
/// stop begins when the last [`Lifecycle`](super::Lifecycle) is dropped. Clones are the same lifecycle.
///
/// ```
/// use touchdown::lifecycle::{Lifecycle, Reason};
///
/// let lifecycle = Lifecycle::builder().build()?;
/// let remote = lifecycle.remote();
/// drop(lifecycle);
/// remote.stopping().wait();
/// assert_eq!(remote.reason(), Some(Reason::Dropped));
/// # Ok::<(), touchdown::lifecycle::BuildError>(())
/// ```
#[derive(Clone)]
pub struct Remote(Arc<Shared>);

/// How far a stop is. While nothing in it changes, the stop makes no progress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// How many works are in flight.
    pub left: usize,
    /// What became of the calls so far.
    pub calls: Calls,
    /// The hooks that run, and what else runs in Closing.
    pub hooks: Vec<String>,
}

impl Remote {
    pub(super) fn new(shared: Arc<Shared>) -> Remote {
        Remote(shared)
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    /// The phase at this moment. One atomic load.
    pub fn phase(&self) -> Phase {
        self.0.phase.get()
    }

    /// The plan that the lifecycle was built with.
    pub fn plan(&self) -> &Plan {
        &self.0.plan
    }

    /// Whether the process's signals stop the program, so that its end is the process's.
    pub fn hears_process(&self) -> bool {
        self.0.hears_process
    }

    /// Whether the program is in Serving and no stop has begun; or another process has taken its place, which
    /// serves at the same address.
    pub fn is_ready(&self) -> bool {
        let goes_on = !self.0.stopping.is_cancelled() || self.0.is_replaced();
        goes_on && self.phase() >= Phase::Serving
    }

    /// See [`Lifecycle::stopping`](super::Lifecycle::stopping).
    pub fn stopping(&self) -> &Token {
        &self.0.stopping
    }

    /// See [`Lifecycle::draining`](super::Lifecycle::draining).
    pub fn draining(&self) -> &Token {
        &self.0.draining
    }

    /// See [`Lifecycle::cancelling`](super::Lifecycle::cancelling).
    pub fn cancelling(&self) -> &Token {
        &self.0.cancelling
    }

    /// See [`Lifecycle::in_charge`](super::Lifecycle::in_charge).
    pub fn in_charge(&self) -> &Token {
        &self.0.in_charge
    }

    /// Whether the process is to replace another, which is still in charge.
    pub fn is_candidate(&self) -> bool {
        let succession = self.0.succession.as_ref();
        succession.is_some_and(|it| it.is_candidate())
    }

    /// Why the stop began; `None` if it has not begun.
    pub fn reason(&self) -> Option<Reason> {
        self.0.control.lock().reason.clone()
    }

    /// When the process exits whatever happens, unless it stands still before; `None` if no stop has begun, or if
    /// never.
    pub fn hard_deadline(&self) -> Option<Instant> {
        plan::after(Instant::now(), self.0.time_left()?)
    }

    /// The longest time that the start-up hooks can take which have not begun to run. Zero if there are
    /// none, and [`Duration::MAX`] if one has no limit.
    pub fn startup_limit(&self) -> Duration {
        self.0.control.lock().startup.hooks.time_limit()
    }

    /// How many works are in flight.
    pub fn in_flight(&self) -> usize {
        self.0.in_flight()
    }

    /// How far a stop is.
    pub fn progress(&self) -> Progress {
        Progress {
            left: self.0.in_flight(),
            calls: self.0.calls(),
            hooks: self.0.running_hooks.lock().clone(),
        }
    }

    /// See [`Lifecycle::describe`](super::Lifecycle::describe).
    pub fn describe(&self) -> String {
        let mut text = format!("{}\n", self.phase());
        errand_run::describe(
            &self.0,
            |_| true,
            |line| {
                let _ = writeln!(text, "{}", one_line(line));
            },
        );
        text
    }

    /// See [`Lifecycle::shutdown`](super::Lifecycle::shutdown).
    pub fn shutdown(&self, why: impl Into<String>) {
        self.0.begin_stop(Reason::Requested(why.into()));
    }

    /// Asks the guard thread, and until [`Phase::Closing`] every participant, whether they still work, and does not wait
    /// for their answers.
    pub fn begin_check(&self) -> Checking {
        let participants = match self.phase() < Phase::Closing {
            true => self.0.participants(),
            false => Vec::new(),
        };
        let names = participants.iter().map(|it| {
            let name = caught("participant, asked for its name,", || it.name());
            name.unwrap_or_default()
        });
        let names = std::iter::once(check::GUARD.to_owned()).chain(names);
        let (checking, parts) = Checking::new(names.collect());
        let mut parts = parts.into_iter();
        match parts.next() {
            Some(of_guard) if self.phase() != Phase::Stopped => self.0.ask_guard(of_guard),
            // There is nobody to answer.
            unasked => drop(unasked),
        }
        for (participant, part) in participants.into_iter().zip(parts) {
            caught("participant, asked to check itself,", move || {
                participant.check(part);
            });
        }
        checking
    }

    /// See [`Lifecycle::check`](super::Lifecycle::check).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn check(&self, limit: Duration) -> Result<(), CheckError> {
        self.begin_check().wait(limit)
    }

    /// See [`Lifecycle::observe`](super::Lifecycle::observe).
    pub fn observe(&self, observer: impl Fn(&Transition) + Send + Sync + 'static) {
        self.add_observer(Observer::callback(observer));
    }

    pub(super) fn add_observer(&self, observer: Observer) {
        let mut control = self.0.control.lock();
        if self.phase() != Phase::Stopped {
            control.observers.push(observer);
            return;
        }
        drop(control);
        drop(observer);
    }

    /// See [`Lifecycle::observe_reloads`](super::Lifecycle::observe_reloads).
    pub fn observe_reloads(&self, observer: impl Fn(&ReloadEvent) + Send + Sync + 'static) {
        self.0.reloads.observe(Arc::new(observer));
    }

    /// See [`Lifecycle::announce`](super::Lifecycle::announce).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn announce(&self, announcer: Announcer) -> io::Result<()> {
        announcer.start(self)
    }

    /// See [`Lifecycle::attach`](super::Lifecycle::attach).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn attach<T: Any + Send + Sync>(&self, it: Arc<T>) -> Result<(), Arc<T>> {
        self.0.attachments.attach(it)
    }

    /// See [`Lifecycle::attached`](super::Lifecycle::attached).
    pub fn attached<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.0.attachments.find()
    }

    /// See [`Lifecycle::detach`](super::Lifecycle::detach).
    pub fn detach<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.0.attachments.detach()
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("phase", &self.phase())
            .finish_non_exhaustive()
    }
}
