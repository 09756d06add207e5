//! The life of a program: from its start, through serving, to a stop that loses nothing.
//!
//! Stopping a threaded program well is a walk, not an event. Somebody has to hear the signal, tell
//! the load balancer, let nothing new in, wait for what is in flight, at some point stop waiting,
//! flush and close, and exit with a code that says how it went. All of it has to end by a
//! known time, even if a thread hangs. This module is that walk. It knows nothing of gRPC, and
//! can be used alone in any program made of threads.
//!
//! # The phases
//!
//! | phase | what holds | ends when |
//! |---|---|---|
//! | [`Starting`](Phase::Starting) | not ready; a stop asked for here goes straight to Closing | [`Lifecycle::serving`] is called, and the start-up hooks are done |
//! | [`Serving`](Phase::Serving) | ready | a signal, or [`Lifecycle::shutdown`] |
//! | [`LameDuck`](Phase::LameDuck) | serves everything, but says "not ready" | its time is over |
//! | [`Draining`](Phase::Draining) | takes in nothing new; what is in flight goes on | the last has left, or the grace period is over |
//! | [`Cancelling`](Phase::Cancelling) | what remains has been told to leave | it left, or the force period is over |
//! | [`Closing`](Phase::Closing) | participants close and workers are joined, then the hooks run, then start-up is undone | all are finished, or out of time |
//! | [`Stopped`](Phase::Stopped) | the [`Report`] and its exit code are known | |
//!
//! A [`Plan`] says how long each may take. A second signal skips to Cancelling, a third exits at
//! once, and when the plan's hard deadline passes the process writes what is still running to its
//! standard error and exits.
//!
//! The times of a plan, and the limits of hooks, count only while the process runs: one that is stopped, frozen
//! with its container or moved to another machine in the middle of a drain goes on afterwards where it was. So
//! they are looked at four times a second during a stop, and a pause counts as a quarter of a second at the most, or, if it is
//! too short to be told from a thread that was late, as what it was.
//!
//! # Start-up
//!
//! A [`StartupHook`] is a named piece of work to do before the program is ready, and may have an
//! [`undo`](StartupHook::undo). [`Lifecycle::serving`] runs all of them, in the order of their
//! dependencies and each within its time limit; [`Lifecycle::start`] runs them before, for who has
//! to do something in between. If one fails, panics or overruns, the start has failed: nothing more
//! is started, what had started is undone, the last first, and the exit code is
//! [`FAILED_START`](exit_code::FAILED_START). After a stop that begins in the meantime, and after
//! every other one, the same is undone at the end of Closing. A hook that was left behind and does its
//! work after all is undone as well, as long as the process is there.
//!
//! # Reloads
//!
//! SIGHUP, or [`Lifecycle::reload`], runs the callbacks given to [`Builder::on_reload`], on a thread
//! made for it and never twice at the same time; requests that come meanwhile make one more run. A
//! callback that fails has to leave the old state in place, and the log says so. Without callbacks HUP
//! begins a stop, since a terminal that goes away must not cost a call, but it is never taken for a
//! second or a third signal. A stop does not wait for a reload; one that hangs is named in the last
//! words.
//!
//! # What it is at
//!
//! SIGUSR1 has the state of the program written to standard error: the phase, the hooks that run, how
//! many works are in flight, and of each participant its state and what it runs. This is what the
//! last words at a hard deadline say, it needs no thread of the program, and it works at any time.
//! [`Lifecycle::describe`] returns the same.
//!
//! While a stop waits for what is in flight, the log says so after 1 s, and then every 5 s: `draining
//! for 6s: 3 in flight, oldest: pump: stroke 7 for 12.3s`, with the oldest of each participant.
//!
//! # The log
//!
//! A log can block: its reader hangs, its disk is full. No thread of this crate waits for it. Lines are put into a queue of
//! 1,024, and a thread, `td-log`, hands them to the program's logger in their order; it is there as long as there
//! are lines, and a second longer. What does not fit in is dropped, and the log says how many lines that were. The
//! end of the stop waits for the last of them, up to a second; less if none is taken meanwhile.
//!
//! # Anatomy
//!
//! * [`Lifecycle`] walks the phases, on a thread of its own. Observers see every transition.
//! * [`Token`] is the broadcast: is it time to stop? Threads look at it or wait for it.
//! * [`InFlight`] is the gate: a thread that does work enters it, and the drain waits until all
//!   have left.
//! * [`Participant`] is a part of the program with work of its own, such as a server.
//! * [`WorkerGroup`] spawns threads that are not calls, tells them to stop and joins them; see
//!   [`Worker`].
//! * [`Hook`] is a piece of work for Closing, [`StartupHook`] one for Starting.
//! * [`Signals`] says where signals come from: the process, a test, or nowhere.
//! * [`Report`] says what happened.
//!
//! # Limits
//!
//! * Unix only.
//! * A thread cannot be ended from outside. Work that does not look at its token, and hooks that
//!   hang, are left behind and named, and end with the process.
//! * The walk and the guard each need a thread, and both together three file descriptors, two more
//!   if they listen to the process's signals.
//!
//! # Example
//!
//! ```
//! use std::thread;
//! use touchdown::lifecycle::{exit_code, Lifecycle};
//!
//! let lifecycle = Lifecycle::builder().build()?;
//! let worker = thread::spawn({
//!     let lifecycle = lifecycle.clone();
//!     move || {
//!         let mut done = 0;
//!         // Refused once the drain begins.
//!         while let Ok(_guard) = lifecycle.in_flight().enter() {
//!             done += 1; // A unit of work that is not to be torn apart.
//!         }
//!         done
//!     }
//! });
//! lifecycle.serving()?;
//! lifecycle.shutdown("the example is over");
//! let report = lifecycle.wait();
//! assert_eq!(report.exit_code(), exit_code::CLEAN);
//! worker.join().unwrap();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod announcer;
mod attachments;
mod builder;
mod check;
mod clock;
mod hooks;
mod in_flight;
mod names;
mod participant;
mod phase;
mod pid_file;
mod plan;
mod reload;
mod remote;
mod report;
mod restart;
mod run;
mod sentry;
mod shutdown;
mod signals;
mod startup;
mod state;
mod succession;
mod turn;
mod walk;
mod workers;

use std::any::Any;
use std::fmt::{self, Display};
use std::io;
use std::time::Duration;

pub use self::announcer::{Announcement, Announcer, PATIENCE};
pub use self::builder::{BuildError, Builder};
pub use self::check::{Check, CheckError, Checking};
pub use self::hooks::{Hook, HookError};
pub use self::in_flight::{Closed, Guard, InFlight, OwnedGuard};
pub use self::participant::{Calls, Participant};
pub use self::phase::{Phase, Transition};
pub use self::plan::{Plan, PlanError};
pub use self::reload::ReloadEvent;
pub use self::remote::{Progress, Remote};
pub use self::report::{exit_code, HookReport, Outcome, PhaseReport, Reason, Report};
pub use self::restart::Restart;
pub use self::shutdown::{Never, Token};
pub use self::signals::{SignalSender, Signals};
pub use self::startup::StartupHook;
pub use self::state::Stopping;
pub use self::succession::{Standing, Succession};
pub use self::workers::{SpawnError, Worker, WorkerGroup, WorkerResult};

#[allow(unused_imports)]
pub(crate) use self::report::one_line;
#[allow(unused_imports)]
pub(crate) use self::run::message_of;
use self::state::{caught, Shared};
use crate::sync::{unbounded, Arc, Receiver};

/// A handle on the life of the program. Clones are the same lifecycle.
///
/// The stop begins when a signal arrives, when [`shutdown`](Self::shutdown) or
/// [`fail`](Self::fail) is called, or when the last handle is dropped. It is then walked to its
/// end, whatever becomes of the handles.
#[derive(Clone)]
pub struct Lifecycle {
    handle: Arc<Handle>,
}

/// Shared by the handles alone, not by the threads, so that dropping the last is noticed.
struct Handle {
    remote: Remote,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.remote.shared().begin_stop(Reason::Dropped);
    }
}

impl AsRef<Remote> for Lifecycle {
    fn as_ref(&self) -> &Remote {
        &self.handle.remote
    }
}

impl AsRef<Remote> for Remote {
    fn as_ref(&self) -> &Remote {
        self
    }
}

impl Lifecycle {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            handle: Arc::new(Handle {
                remote: Remote::new(shared),
            }),
        }
    }

    /// Begins to build one.
    pub fn builder() -> Builder {
        Builder::new()
    }

    fn shared(&self) -> &Arc<Shared> {
        self.handle.remote.shared()
    }

    /// The phase at this moment. One atomic load.
    pub fn phase(&self) -> Phase {
        self.shared().phase.get()
    }

    /// The plan that the lifecycle was built with.
    pub fn plan(&self) -> &Plan {
        &self.shared().plan
    }

    /// A channel on which every transition from now on arrives once, in order. It is disconnected
    /// after the last.
    ///
    /// ```
    /// use touchdown::lifecycle::{Lifecycle, Phase};
    ///
    /// let lifecycle = Lifecycle::builder().build()?;
    /// let transitions = lifecycle.subscribe();
    /// lifecycle.shutdown("before it began");
    /// let seen: Vec<_> = transitions.iter().map(|transition| transition.to).collect();
    /// assert_eq!(seen, [Phase::Closing, Phase::Stopped]);
    /// # Ok::<(), touchdown::lifecycle::BuildError>(())
    /// ```
    pub fn subscribe(&self) -> Receiver<Transition> {
        let (sender, receiver) = unbounded();
        let mut control = self.shared().control.lock();
        if self.phase() != Phase::Stopped {
            control.subscribers.push(sender);
        }
        receiver
    }

    /// Calls `observer` with every transition from now on, once, in order, on the thread that
    /// walks the phases.
    ///
    /// A phase begins, then its tokens are cancelled and participants told, then observers are
    /// called. While an observer runs, the walk does not go on: an observer that blocks delays
    /// the stop, up to the hard deadline. One that panics is logged, and called again next time.
    /// [`wait`](Self::wait) must not be called from an observer; it would wait for itself.
    pub fn observe(&self, observer: impl Fn(&Transition) + Send + Sync + 'static) {
        self.handle.remote.observe(observer);
    }

    /// Has `announcer` told of every transition from now on, once, in order, on a thread of its own. The walk waits for it
    /// as long as its patience says; see [`Announcer`].
    ///
    /// # Errors
    ///
    /// If no thread can be started.
    pub fn announce(&self, announcer: Announcer) -> io::Result<()> {
        self.handle.remote.announce(announcer)
    }

    /// Calls `observer` when a reload begins and when it is over, on the thread that runs the callbacks. The end of a
    /// reload that a stop has interrupted is not told. Any number of observers may be added. One that panics is logged.
    ///
    /// ```
    /// use touchdown::lifecycle::{Lifecycle, ReloadEvent};
    ///
    /// let lifecycle = Lifecycle::builder().on_reload("config", || Ok(())).build()?;
    /// lifecycle.observe_reloads(|event| {
    ///     if let ReloadEvent::Ended { failures, .. } = event {
    ///         println!("{} callbacks have failed", failures.len());
    ///     }
    /// });
    /// # Ok::<(), touchdown::lifecycle::BuildError>(())
    /// ```
    pub fn observe_reloads(&self, observer: impl Fn(&ReloadEvent) + Send + Sync + 'static) {
        self.handle.remote.observe_reloads(observer);
    }

    /// Asks whether the program still works, and waits for the answer: the guard thread has to give it, and until
    /// [`Phase::Closing`] every participant, by [`Participant::check`]. Busy workers do not matter. A participant has to
    /// answer from the thread whose end or hang must not go unnoticed.
    ///
    /// ```
    /// use std::time::Duration;
    /// use touchdown::lifecycle::Lifecycle;
    ///
    /// let lifecycle = Lifecycle::builder().build()?;
    /// lifecycle.check(Duration::from_secs(5))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`CheckError`], with the names of those who have said no, or have said nothing within `limit`. Only time counts in
    /// which the process runs.
    pub fn check(&self, limit: Duration) -> Result<(), CheckError> {
        self.handle.remote.check(limit)
    }

    /// Adds a part of the program with work in flight.
    ///
    /// # Errors
    ///
    /// [`Stopping`] if the stop has begun. The participant would not be told of all phases.
    pub fn enlist(&self, participant: Arc<dyn Participant>) -> Result<(), Stopping> {
        let mut control = self.shared().control.lock();
        control.refuse_if_stopping()?;
        control.participants.push(participant);
        Ok(())
    }

    /// Takes a participant out again: it has ended by itself. The calls that it reports now are
    /// kept for the report. Does nothing if it is not there.
    pub fn dismiss(&self, participant: &Arc<dyn Participant>) {
        // Asked before the lock is taken: this is code of the program.
        let calls = participant.calls();
        let mut control = self.shared().control.lock();
        let same = |other: &Arc<dyn Participant>| {
            std::ptr::addr_eq(Arc::as_ptr(other), Arc::as_ptr(participant))
        };
        if let Some(place) = control.participants.iter().position(same) {
            let dismissed = control.participants.remove(place);
            control.dismissed += calls;
            // The caller holds it too, so this runs no code of the program; still, not under the
            // lock.
            drop(control);
            drop(dismissed);
        }
    }

    /// Adds a closing hook. It can run after hooks that were added before it.
    ///
    /// # Errors
    ///
    /// [`HookError`] if its name is taken, if it runs after a hook that does not exist, or if the
    /// stop has begun.
    pub fn hook(&self, hook: Hook) -> Result<(), HookError> {
        let mut control = self.shared().control.lock();
        match &control.reason {
            Some(_) => Err(HookError::Stopping(hook.name)),
            None => control.hooks.add(hook),
        }
    }

    /// A new group of workers: threads that are not calls. The name is for the log and the report;
    /// several groups may have the same.
    pub fn workers(&self, name: impl Into<String>) -> WorkerGroup {
        WorkerGroup::new(name.into(), Arc::clone(self.shared()))
    }

    /// The gate of the whole program: closed when Draining begins (or, on a stop during start-up,
    /// when Closing does), and waited for until all have left.
    pub fn in_flight(&self) -> &InFlight {
        &self.shared().gate
    }

    /// Cancelled when this process has no other before it: right before Serving begins or, if it
    /// replaces another process (see [`Succession`]), once that one has begun to stop, which is some
    /// time after Serving has begun. For those who need what only one process can have. If the program
    /// stops before, it is never cancelled; so wait for [`stopping`](Self::stopping) as well.
    pub fn in_charge(&self) -> &Token {
        &self.shared().in_charge
    }

    /// Cancelled as soon as the stop begins, before the program leaves Starting or Serving. For
    /// those who must say "not ready", or give up starting.
    pub fn stopping(&self) -> &Token {
        &self.shared().stopping
    }

    /// Cancelled when Draining begins, or is skipped. For those who take in work.
    pub fn draining(&self) -> &Token {
        &self.shared().draining
    }

    /// Cancelled when Cancelling begins, or is skipped. For those who work.
    pub fn cancelling(&self) -> &Token {
        &self.shared().cancelling
    }

    /// Runs the start-up hooks, and waits until all have done their work. For a program that has
    /// something to do between them and [`serving`](Self::serving), such as to listen; `serving`
    /// runs those that have not run. The second time it does nothing, and so does it without hooks.
    ///
    /// A hook that fails, panics or overruns begins a stop with
    /// [`exit_code::FAILED_START`]: those that run are waited for within their time limits, no
    /// other is run, and in [`Phase::Closing`] the work of those that were done is undone. A stop
    /// that begins meanwhile by other means ends start-up in the same way, without counting as a
    /// failure; a second signal ends the wait for those that run. So does the plan's hard deadline,
    /// which counts from the moment when the stop begins.
    ///
    /// A start-up hook must not call it, nor `serving`: it would wait for itself until its time is
    /// over. Nor must an observer.
    ///
    /// # Errors
    ///
    /// [`Stopping`] if a stop has begun meanwhile; its reason says whether a hook failed. The program
    /// has nothing more to do than to let it run its course: [`wait`](Self::wait), and return.
    pub fn start(&self) -> Result<(), Stopping> {
        let shared = self.shared();
        if !shared.startup_is_over.is_cancelled() {
            shared.control.lock().startup.wanted = true;
            shared.news.notify_one();
            shared.startup_is_over.wait();
        }
        shared.control.lock().refuse_if_stopping()
    }

    /// Ends start-up: the program is ready, [`Phase::Serving`] begins. Start-up hooks that have not
    /// run are run first, as by [`start`](Self::start). The second time it does nothing.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn serving(&self) -> Result<(), Stopping> {
        self.start()?;
        let shared = self.shared();
        let standing = self.prove_ready();
        let is_in_charge = matches!(standing, Standing::InCharge);
        if is_in_charge && shared.phase.get() == Phase::Starting {
            if let Err(why) = shared.take_charge() {
                shared.begin_stop(Reason::StartFailed(why));
            }
        }
        let mut control = shared.control.lock();
        control.refuse_if_stopping()?;
        let may_serve = !matches!(standing, Standing::Nobody);
        if may_serve && shared.phase.get() == Phase::Starting {
            let reload_wanted = control.reload_wanted;
            shared.step(&mut control, Phase::Serving);
            drop(control);
            shared.news.notify_one();
            if reload_wanted {
                reload::ask(shared);
            }
            if let Standing::Beside(serve) = standing {
                // Only now: who connects finds the program ready.
                let served = caught("succession", serve);
                let served = served.unwrap_or_else(|| Err("the succession panicked".to_owned()));
                served.unwrap_or_else(|why| shared.begin_stop(Reason::StartFailed(why)));
            }
        }
        Ok(())
    }

    /// The last thing before Serving: nothing stands before this process any more, or the one that it
    /// replaces lets it serve.
    fn prove_ready(&self) -> Standing {
        let Some(succession) = self.shared().succession.clone() else {
            return Standing::InCharge;
        };
        let standing = caught("succession", || succession.prove_ready(&self.handle.remote));
        let standing = standing.unwrap_or_else(|| Err("the succession panicked".to_owned()));
        standing.unwrap_or_else(|why| {
            self.shared().begin_stop(Reason::StartFailed(why));
            Standing::Nobody
        })
    }

    /// Asks for a reload, as SIGHUP does, and returns at once: see [`Builder::on_reload`]. Does
    /// nothing if there are no callbacks, or if the stop has begun.
    pub fn reload(&self) {
        reload::ask(self.shared());
    }

    /// What the program is at, as SIGUSR1 has it written to standard error: the phase, and then, a
    /// line each, the hooks and the reload that run, how many works are in flight, and the state of
    /// each participant with all that it runs.
    ///
    /// ```
    /// use touchdown::lifecycle::Lifecycle;
    ///
    /// let lifecycle = Lifecycle::builder().build()?;
    /// assert_eq!(lifecycle.describe(), "starting\nin flight: 0\n");
    /// # Ok::<(), touchdown::lifecycle::BuildError>(())
    /// ```
    pub fn describe(&self) -> String {
        self.handle.remote.describe()
    }

    /// What holds on to the program without counting as a handle: for companions, which watch it and may stop it.
    pub fn remote(&self) -> Remote {
        self.handle.remote.clone()
    }

    /// Keeps `it` with the lifecycle until that has stopped, for those who look for it by its type: a companion that is
    /// asked for again finds itself. One of each type.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use touchdown::lifecycle::Lifecycle;
    ///
    /// struct Metrics;
    ///
    /// let lifecycle = Lifecycle::builder().build()?;
    /// assert!(lifecycle.attach(Arc::new(Metrics)).is_ok());
    /// assert!(lifecycle.attach(Arc::new(Metrics)).is_err());
    /// assert!(lifecycle.attached::<Metrics>().is_some());
    /// # Ok::<(), touchdown::lifecycle::BuildError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Gives it back if there is one of its type, or if the program has stopped.
    pub fn attach<T: Any + Send + Sync>(&self, it: Arc<T>) -> Result<(), Arc<T>> {
        self.handle.remote.attach(it)
    }

    /// What of this type is attached to the lifecycle, if anything is.
    pub fn attached<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.handle.remote.attached()
    }

    /// Takes out what of this type was [attached](Self::attach), and returns it. The succession stays.
    pub fn detach<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.handle.remote.detach()
    }

    /// Begins the stop and returns at once. `why` goes into the report. Does nothing if the stop
    /// has begun.
    pub fn shutdown(&self, why: impl Into<String>) {
        self.shared().begin_stop(Reason::Requested(why.into()));
    }

    /// Does what a second signal does: ends the wait for what is in flight, and tells it to stop.
    /// Begins the stop if it has not begun. Does nothing once Cancelling is over.
    pub fn hurry(&self) {
        self.shared()
            .begin_stop(Reason::Requested("in a hurry".to_owned()));
        self.shared().hurry();
    }

    /// Ends a start-up that failed: the program goes to Closing and stops, with
    /// [`exit_code::FAILED_START`]. In Serving, it begins a stop through all phases with that code.
    /// Does nothing if the stop has begun: what fails because of a stop is no failure.
    pub fn fail(&self, error: impl Display) {
        self.shared()
            .begin_stop(Reason::StartFailed(error.to_string()));
    }

    /// Blocks until the program has stopped, and says how it went. Any number of threads may wait.
    ///
    /// Both threads of the lifecycle have then done their work, and signals have their default
    /// action again unless another lifecycle listens.
    pub fn wait(&self) -> Report {
        self.shared().stopped.wait();
        self.report()
            .expect("the report is there before `stopped` is cancelled")
    }

    /// As [`wait`](Self::wait), but gives up after `time`.
    pub fn wait_timeout(&self, time: Duration) -> Option<Report> {
        self.shared().stopped.wait_timeout(time);
        self.report()
    }

    /// Why the stop began; `None` if it has not begun.
    pub fn reason(&self) -> Option<Reason> {
        self.shared().control.lock().reason.clone()
    }

    fn report(&self) -> Option<Report> {
        self.shared().report.get().cloned()
    }
}

impl fmt::Debug for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lifecycle")
            .field("phase", &self.phase())
            .field("in_flight", &self.in_flight().count())
            .finish_non_exhaustive()
    }
}
