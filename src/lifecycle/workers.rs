//! Worker groups: threads that are not calls, such as pollers, flushers and readers of a device.
//!
//! # When a worker is told to stop
//!
//! That depends on which side of the work in flight it stands:
//!
//! * **It takes in work**, as a poller does or a reader of a device. It is told when Draining begins, and
//!   what it has in hand is in flight: the drain waits for it as for a call, up to the grace period.
//!   This is the default.
//! * **It serves what is in flight**, as a flusher does or a pool that takes jobs from a queue.
//!   [`Worker::until_closing`] lets it run until Closing begins, when nothing is in flight any more.
//!
//! All are joined before the closing hooks run, since hooks close what workers use. Each is waited for as
//! long as its [time limit](Worker::time_limit) says. One that overruns it is left behind, and named
//! like a hook that overran.
//!
//! # Workers vs hooks vs participants
//!
//! A [`Hook`] is work to do once, at the end. A [`Participant`](super::Participant) is
//! told of the phases, and sees to its threads itself. A worker is a thread that runs all the time, and
//! only has to look at its token.

use std::error::Error;
use std::fmt::{self, Display};
use std::io;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use super::hooks::Hook;
use super::in_flight::{InFlight, OwnedGuard};
use super::names::thread_name;
use super::report::{one_line, Reason};
use super::restart::{Restart, Restarts};
use super::run::message_of;
use super::shutdown::Token;
use super::state::{Shared, Stopping};
use crate::logging;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{thread, Arc, Instant, Mutex};

type Work = Box<dyn FnMut(&Token) -> Result<(), String> + Send>;

/// A thread to run under the lifecycle, and what to do if it fails.
///
/// ```
/// use std::time::Duration;
/// use touchdown::lifecycle::{Restart, Worker};
///
/// # fn read_scale() -> Result<(), std::io::Error> { Ok(()) }
/// // A panic or an error starts it again. If that happens six times in a row, the program stops.
/// let scale = Worker::new("scale", |token| {
///     while !token.wait_timeout(Duration::from_millis(200)) {
///         read_scale()?;
///     }
///     Ok::<(), std::io::Error>(())
/// })
/// .restart(Restart::new().limit(5))
/// .stop_on_failure();
/// ```
#[must_use = "a worker does nothing until it is spawned"]
pub struct Worker {
    name: String,
    work: Work,
    until_closing: bool,
    time_limit: Duration,
    restart: Option<Restart>,
    stop_on_failure: bool,
}

impl Worker {
    /// A worker that does `work` on a thread of its own, until it returns.
    ///
    /// `work` has to return soon after its token is cancelled; one that calls
    /// [`Lifecycle::wait`](super::Lifecycle::wait) waits for itself. It returns `()`, or a `Result`
    /// whose error says what went wrong. It may be called again after a failure, if
    /// [`restart`](Self::restart) says so, and then finds what it owns as the failure left it.
    ///
    /// The name is for the log and the report, which call the worker `worker GROUP/NAME`, and for the
    /// thread. Several workers may have the same. The kernel shows 15 bytes of a thread's name, so
    /// the thread of a worker with a longer one is called by its beginning and its end:
    /// `temperature-probe-12` becomes `tempera~robe-12`.
    pub fn new<R: WorkerResult>(
        name: impl Into<String>,
        mut work: impl FnMut(&Token) -> R + Send + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            work: Box::new(move |token| work(token).into_result()),
            until_closing: false,
            time_limit: Hook::DEFAULT_TIME_LIMIT,
            restart: None,
            stop_on_failure: false,
        }
    }

    /// Lets it run until [`Phase::Closing`](super::Phase::Closing) begins, rather than tell it at the
    /// beginning of [`Phase::Draining`](super::Phase::Draining): for one that serves what is in flight.
    /// The drain does not wait for it.
    pub fn until_closing(mut self) -> Self {
        self.until_closing = true;
        self
    }

    /// Sets how long it is waited for once Closing has begun; 5 s, as for a [`Hook`], if not set.
    /// The time that participants have to close limits it as well: the closing phase, or half of it if
    /// there are hooks.
    pub fn time_limit(mut self, time: Duration) -> Self {
        self.time_limit = time;
        self
    }

    /// Starts it again when it panics or returns an error, unless it has been told to stop. By default
    /// it is not started again.
    ///
    /// While it waits for its restart it is not in the way of a stop: the wait ends when it is told. A
    /// worker that runs [until Closing](Self::until_closing) is then run once more, with its
    /// token cancelled, since what it has to flush may be waiting for it.
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = Some(restart);
        self
    }

    /// Begins the stop when it panics or returns an error and is not restarted. The reason is
    /// [`Reason::WorkerFailed`], with the name of the worker. By default, a failure is logged and
    /// counted, and the program goes on without the worker.
    pub fn stop_on_failure(mut self) -> Self {
        self.stop_on_failure = true;
        self
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("name", &self.name)
            .field("until_closing", &self.until_closing)
            .field("time_limit", &self.time_limit)
            .field("restart", &self.restart)
            .field("stop_on_failure", &self.stop_on_failure)
            .finish_non_exhaustive()
    }
}

/// What the work of a [`Worker`] may return: `()`, or a `Result` whose error can be printed.
pub trait WorkerResult {
    /// The error, as text.
    ///
    /// # Errors
    ///
    /// If the work failed.
    fn into_result(self) -> Result<(), String>;
}

impl WorkerResult for () {
    fn into_result(self) -> Result<(), String> {
        Ok(())
    }
}

impl<E: Display> WorkerResult for Result<(), E> {
    fn into_result(self) -> Result<(), String> {
        self.map_err(|error| error.to_string())
    }
}

/// Spawns workers and counts them. Made by [`Lifecycle::workers`](super::Lifecycle::workers); clones
/// are the same group.
///
/// A group is a name and its counts. Dropping it ends no worker, and it is no handle on the
/// lifecycle: it does not keep the stop from beginning when the last of those is dropped.
///
/// ```
/// use std::time::Duration;
/// use touchdown::lifecycle::{exit_code, Lifecycle, Worker};
///
/// let lifecycle = Lifecycle::builder().build()?;
/// let workers = lifecycle.workers("pump");
/// // Told when Draining begins.
/// workers.spawn(Worker::new("poll", |token| {
///     while !token.wait_timeout(Duration::from_millis(10)) {
///         // Ask the pump for its state.
///     }
/// }))?;
/// // Told when nothing is in flight any more.
/// let flush = Worker::new("flush", |token| {
///     while !token.wait_timeout(Duration::from_secs(1)) {
///         // Write what has come in.
///     }
///     // Write the rest.
/// });
/// workers.spawn(flush.until_closing().time_limit(Duration::from_secs(2)))?;
/// lifecycle.serving()?;
///
/// lifecycle.shutdown("the example is over");
/// let report = lifecycle.wait();
/// assert_eq!(report.exit_code(), exit_code::CLEAN);
/// assert_eq!(report.hooks[0].name, "worker pump/poll");
/// assert_eq!(workers.running(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct WorkerGroup {
    group: Arc<Group>,
}

struct Group {
    name: String,
    shared: Arc<Shared>,
    /// Each worker is inside while it lives. Never closed.
    running: InFlight,
    restarts: AtomicUsize,
    errors: AtomicUsize,
    panics: AtomicUsize,
}

impl WorkerGroup {
    pub(super) fn new(name: String, shared: Arc<Shared>) -> Self {
        Self {
            group: Arc::new(Group {
                name,
                shared,
                running: InFlight::new(),
                restarts: AtomicUsize::new(0),
                errors: AtomicUsize::new(0),
                panics: AtomicUsize::new(0),
            }),
        }
    }

    /// The name of the group.
    pub fn name(&self) -> &str {
        &self.group.name
    }

    /// Starts a worker. A worker may spawn others.
    ///
    /// Each worker that runs when the stop begins has an entry in
    /// [`Report::hooks`](super::Report::hooks), which says how it ended, and how long it was waited for in
    /// Closing.
    ///
    /// # Errors
    ///
    /// [`SpawnError`] if the stop has begun or there is no thread to be had. The work is then
    /// dropped without having run.
    pub fn spawn(&self, worker: Worker) -> Result<(), SpawnError> {
        let group = &self.group;
        let running = group.running.enter_owned();
        let running = running.expect("this gate is never closed");
        let post = Post {
            seat: group.shared.seat(&group.name, &worker)?,
            group: Arc::clone(group),
            stop_on_failure: worker.stop_on_failure,
            ended: Err(Failure::Error("was not run".to_owned())),
            _running: running,
        };
        let seat = Arc::clone(&post.seat);
        // Held until the handle is in, so that who joins finds it.
        let mut thread = seat.thread.lock();
        let spawned = thread::Builder::new()
            .name(thread_name(&worker.name))
            .spawn(move || post.run(worker));
        *thread = Some(spawned.map_err(SpawnError::Thread)?);
        Ok(())
    }

    /// How many workers run at this moment, or wait for a restart.
    pub fn running(&self) -> usize {
        self.group.running.count()
    }

    /// How often a worker was started again.
    pub fn restarts(&self) -> usize {
        self.group.restarts.load(Ordering::Relaxed)
    }

    /// How often a worker returned an error.
    pub fn errors(&self) -> usize {
        self.group.errors.load(Ordering::Relaxed)
    }

    /// How often a worker panicked.
    pub fn panics(&self) -> usize {
        self.group.panics.load(Ordering::Relaxed)
    }

    /// Blocks until no worker of the group runs. Tells none to stop; a lifecycle that stops does, and
    /// joins its workers by itself. A worker of the group that calls this waits for itself.
    ///
    /// What the workers owned has been dropped by then. Those that are spawned meanwhile are waited for,
    /// too; others may have been spawned since.
    pub fn join(&self) {
        // The gate is open, so that it was empty may be news from before the last spawn.
        while self.running() > 0 {
            self.group.running.wait_idle();
        }
    }

    /// As [`join`](Self::join), but gives up after `time`. Returns whether no worker ran.
    pub fn join_timeout(&self, time: Duration) -> bool {
        let Some(deadline) = Instant::now().checked_add(time) else {
            self.join();
            return true;
        };
        while self.running() > 0 {
            if !self.group.running.wait_idle_deadline(deadline) {
                return false;
            }
        }
        true
    }
}

impl fmt::Debug for WorkerGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerGroup")
            .field("name", &self.name())
            .field("running", &self.running())
            .field("restarts", &self.restarts())
            .field("errors", &self.errors())
            .field("panics", &self.panics())
            .finish()
    }
}

/// Why a worker was not started.
#[derive(Debug)]
#[non_exhaustive]
pub enum SpawnError {
    /// The stop has begun.
    Stopping(Stopping),
    /// The operating system refused a thread. The process may be out of memory, or its unit at
    /// the limit of its tasks.
    Thread(io::Error),
}

impl From<Stopping> for SpawnError {
    fn from(stopping: Stopping) -> Self {
        Self::Stopping(stopping)
    }
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopping(stopping) => write!(f, "cannot start a worker: {stopping}"),
            Self::Thread(error) => write!(f, "cannot start a thread for a worker: {error}"),
        }
    }
}

impl Error for SpawnError {}

/// How a worker went wrong.
#[derive(Clone)]
enum Failure {
    Error(String),
    Panic(String),
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => write!(f, "failed: {error}"),
            Self::Panic(message) => write!(f, "panicked: {message}"),
        }
    }
}

/// What the lifecycle knows of a worker. It keeps the seats of those that run, and from the beginning of
/// the stop on, when no new ones come, also of those that end.
pub(super) struct Seat {
    /// `worker GROUP/NAME`.
    name: String,
    until_closing: bool,
    time_limit: Duration,
    token: Token,
    state: Mutex<State>,
    /// Cancelled once it is known in `state` how the worker ended.
    over: Token,
    /// None until it is started. Never taken by the worker itself.
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

/// Held for moments only.
#[derive(Default)]
struct State {
    ended: Option<Result<(), Failure>>,
    /// What the drain waits for.
    in_flight: Option<OwnedGuard>,
}

impl Seat {
    /// Lets the drain wait for the worker, unless it has ended.
    fn hold(&self, gate: &InFlight) {
        let mut state = self.state.lock();
        if state.ended.is_none() && !self.until_closing {
            // Only a program that has closed the gate by itself finds it closed.
            state.in_flight = gate.enter_owned().ok();
        }
    }

    /// Waits for the end of the thread, and then ends as the worker did: the work of a hook.
    fn join(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.over.wait();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
        let ended = self.state.lock().ended.clone();
        match ended {
            Some(Err(Failure::Panic(message))) => panic::resume_unwind(Box::new(message)),
            Some(Err(Failure::Error(error))) => Err(error.into()),
            Some(Ok(())) | None => Ok(()),
        }
    }
}

/// What the thread of a worker holds while it lives. However it ends, dropping this tells all who wait.
struct Post {
    seat: Arc<Seat>,
    group: Arc<Group>,
    stop_on_failure: bool,
    ended: Result<(), Failure>,
    /// Dropped last: who has joined the group finds everything done.
    _running: OwnedGuard,
}

impl Post {
    fn run(mut self, worker: Worker) {
        // Stays if something panics that must not, such as the program's logger.
        self.ended = Err(Failure::Panic("as it ended".to_owned()));
        let Worker {
            mut work, restart, ..
        } = worker;
        let worked = self.work(&mut work, restart);
        let worked = worked.inspect_err(|failure| self.give_up(failure));
        // A worker that is over has let go of everything.
        let dropped = caught(move || {
            drop(work);
            Ok(())
        });
        let dropped = dropped.inspect_err(|failure| {
            self.group.count(failure);
            self.give_up(failure);
        });
        self.ended = worked.and(dropped);
    }

    /// Does the work, again and again as far as it is to be restarted.
    fn work(&self, work: &mut Work, restart: Option<Restart>) -> Result<(), Failure> {
        let token = &self.seat.token;
        let mut restarts = restart.map(Restarts::new);
        loop {
            let began = Instant::now();
            let Err(failure) = caught(|| work(token)) else {
                return Ok(());
            };
            let ran = began.elapsed();
            let delay = match &mut restarts {
                Some(restarts) if !token.is_cancelled() => restarts.next(ran),
                _ => None,
            };
            self.group.count(&failure);
            let Some(delay) = delay else {
                return Err(failure);
            };
            self.log(&format!("{failure}; it is started again in {delay:?}"));
            if token.wait_timeout(delay) && !self.seat.until_closing {
                return Ok(());
            }
            self.group.restarts.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn give_up(&self, failure: &Failure) {
        if self.stop_on_failure {
            let why = format!("{} {failure}", self.seat.name);
            self.group.shared.begin_stop(Reason::WorkerFailed(why));
        }
        self.log(&failure.to_string());
    }

    fn log(&self, what: &str) {
        logging::error!("{}", one_line(&format!("{} {what}", self.seat.name)));
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        {
            let mut state = self.seat.state.lock();
            state.ended = Some(mem::replace(&mut self.ended, Ok(())));
            // With the lock held, so that what is counted has a name.
            state.in_flight = None;
        }
        self.group.shared.leave_seat(&self.seat);
        self.seat.over.cancel();
    }
}

impl Group {
    fn count(&self, failure: &Failure) {
        let count = match failure {
            Failure::Error(_) => &self.errors,
            Failure::Panic(_) => &self.panics,
        };
        // Relaxed: it counts, and says nothing of other memory.
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs code of the worker. No panic leaves this.
fn caught(run: impl FnOnce() -> Result<(), String>) -> Result<(), Failure> {
    match panic::catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(Failure::Error),
        Err(panic) => Err(Failure::Panic(message_of(panic))),
    }
}

impl Shared {
    /// Takes up a worker that is going to be spawned.
    fn seat(&self, group: &str, worker: &Worker) -> Result<Arc<Seat>, Stopping> {
        let seat = Arc::new(Seat {
            name: format!("worker {group}/{}", worker.name),
            until_closing: worker.until_closing,
            time_limit: worker.time_limit,
            token: if worker.until_closing {
                Token::new()
            } else {
                self.draining.child()
            },
            state: Mutex::default(),
            over: Token::new(),
            thread: Mutex::new(None),
        });
        // With the lock held from the look to the entry: no stop begins in between.
        let mut control = self.control.lock();
        match &control.reason {
            Some(reason) => Err(Stopping {
                reason: reason.clone(),
            }),
            None => {
                control.workers.push(Arc::clone(&seat));
                Ok(seat)
            }
        }
    }

    /// Forgets a worker that has ended, unless the stop has begun: then it is in the report.
    fn leave_seat(&self, seat: &Arc<Seat>) {
        let mut control = self.control.lock();
        if control.reason.is_none() {
            control.workers.retain(|other| !Arc::ptr_eq(other, seat));
        }
    }

    fn seats(&self) -> Vec<Arc<Seat>> {
        self.control.lock().workers.clone()
    }

    /// Lets the drain wait for the workers that were told of it.
    pub(super) fn hold_workers(&self) {
        for seat in self.seats() {
            seat.hold(&self.gate);
        }
    }

    /// The workers that the drain waits for, by name.
    pub(super) fn workers_in_flight(&self) -> Vec<String> {
        let seats = self.seats();
        let in_flight = seats
            .iter()
            .filter(|seat| seat.state.lock().in_flight.is_some());
        in_flight.map(|seat| seat.name.clone()).collect()
    }

    /// Tells all workers to stop. What waits for them are hooks.
    pub(super) fn close_workers(&self) -> Vec<Hook> {
        let seats = mem::take(&mut self.control.lock().workers);
        let told = seats.into_iter().map(|seat| {
            seat.token.cancel();
            let (name, time_limit) = (seat.name.clone(), seat.time_limit);
            Hook::new(name, move || seat.join()).time_limit(time_limit)
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Lifecycle;
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no socket that does not block")]
    fn workers_that_have_ended_leave_nothing_in_the_lifecycle() {
        let lifecycle = Lifecycle::builder().build().unwrap();
        let workers = lifecycle.workers("short");
        for _ in 0..100 {
            workers.spawn(Worker::new("one", |_| ())).unwrap();
        }
        workers.join();
        assert!(lifecycle.shared().seats().is_empty());
    }
}
