//! The handle on the life of the program: what a program asks of it, and what it adds to it.

use std::any::Any;
use std::fmt::{self, Display};
use std::io;
use std::time::Duration;

use super::announcer::Announcer;
use super::check::CheckError;
use super::hook::{Hook, HookError, RefusedHook};
use super::in_flight::InFlight;
use super::participant::Participant;
use super::phase::{Phase, Transition};
use super::plan::Plan;
use super::reload::ReloadEvent;
use super::reloading;
use super::remote::Remote;
use super::report::{Reason, Report};
use super::shutdown::Token;
use super::state::{Shared, Stopping};
use super::workers::WorkerGroup;
use crate::sync::{unbounded, Arc, Instant, Receiver};

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
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            handle: Arc::new(Handle {
                remote: Remote::new(shared),
            }),
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
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
    /// after the last. The channel is one of crossbeam-channel 0.5.
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
    /// [`wait`](Self::wait) panics in an observer, since it would wait for itself. An observer that has not returned after a
    /// second is named in the log, by its type, and where stacks can be had with its stack.
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
        drop(control);
        if self.phase() == Phase::Starting {
            self.shared().watch.may_serve(Instant::now());
            self.shared().bell.ring();
        }
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
    /// [`RefusedHook`], which gives it back, if its name is taken, if it runs after a hook that does not exist, or if the
    /// stop has begun.
    pub fn hook(&self, hook: Hook) -> Result<(), RefusedHook> {
        let mut control = self.shared().control.lock();
        let refused = match &control.reason {
            Some(_) => Err(HookError::Stopping(hook.name.clone())),
            None => control.hooks.check(&hook),
        };
        match refused {
            Ok(()) => {
                control.hooks.add(hook);
                Ok(())
            }
            Err(why) => Err(RefusedHook::new(hook, why)),
        }
    }

    /// A new group of workers: threads that are not calls. The name is for the log and the report;
    /// several groups may have the same.
    pub fn workers(&self, name: impl Into<String>) -> WorkerGroup {
        WorkerGroup::new(name.into(), Arc::clone(self.shared()))
    }

    /// The gate of the whole program: closed when Draining begins (or, on a stop during start-up,
    /// when Closing does), and waited for until all have left. Nobody can close it but the lifecycle.
    ///
    /// ```compile_fail,E0599
    /// let lifecycle = touchdown::lifecycle::Lifecycle::builder().build().unwrap();
    /// lifecycle.in_flight().close();
    /// ```
    pub fn in_flight(&self) -> &InFlight {
        &self.shared().gate
    }

    /// Cancelled when this process has no other before it: right before Serving begins or, if it
    /// replaces another process (see [`Succession`](super::Succession)), once that one has begun to stop, which is some
    /// time after Serving has begun. For those who need what only one process can have. If the program
    /// stops before, it is never cancelled; so wait for [`stopping`](Self::stopping) as well.
    pub fn in_charge(&self) -> &Token {
        &self.shared().in_charge
    }

    /// Cancelled as soon as the stop begins, before the program leaves Starting or Serving. For
    /// those who must say "not ready", or give up starting.
    ///
    /// Nobody can cancel it but the lifecycle; what begins a stop is [`shutdown`](Self::shutdown).
    ///
    /// ```compile_fail,E0599
    /// let lifecycle = touchdown::lifecycle::Lifecycle::builder().build().unwrap();
    /// lifecycle.stopping().cancel();
    /// ```
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

    /// Asks for a reload, as SIGHUP does, and returns at once: see [`Builder::on_reload`](super::Builder::on_reload). Does
    /// nothing if there are no callbacks, or if the stop has begun.
    pub fn reload(&self) {
        reloading::ask(self.shared());
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

    /// Ends a start-up that failed: the program stops, with
    /// [`exit_code::FAILED_START`](super::exit_code::FAILED_START), and the log has `error`, once. In Serving, it begins a stop
    /// through all phases with that code.
    /// Does nothing if the stop has begun: what fails because of a stop is no failure.
    pub fn fail(&self, error: impl Display) {
        self.shared()
            .begin_stop(Reason::StartFailed(error.to_string()));
    }

    /// Blocks until the program has stopped, and says how it went. Any number of threads may wait.
    ///
    /// The threads of the lifecycle have then done their work, and signals have their default
    /// action again unless another lifecycle listens.
    ///
    /// # Panics
    ///
    /// On a thread for whose end the stop waits, or would have to wait: in an observer, a hook, a reload callback or a
    /// worker of this lifecycle. It would wait for itself.
    pub fn wait(&self) -> Report {
        if let Some(what) = self.shared().own_threads.inside() {
            panic!(
                "Lifecycle::wait was called in {what} of the same lifecycle, which the stop waits for: it would wait for \
                 itself. Wait on a thread of the program's own; to begin a stop here, call Lifecycle::shutdown"
            );
        }
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
