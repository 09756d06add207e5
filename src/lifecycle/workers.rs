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
use std::fmt;
use std::io;
use std::mem;
use std::time::Duration;

use super::in_flight::{Gate, OwnedGuard};
use super::names::thread_name;
use super::report::Reason;
use super::returned::Returned;
use super::seat::{attempt, Failure, Seat};
use super::state::{Shared, Stopping};
use super::worker::{Work, Worker};
use super::worker_restart::{Restart, Restarts};
use crate::logging;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{kernel_id, thread, Arc, Instant, Mutex};
use crate::text::ROOM_FOR_THREADS;

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
/// lifecycle.ready()?;
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
    running: Gate,
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
                running: Gate::new(),
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
    /// [`SpawnError`], which gives the worker back, if the stop has begun or there is no thread to be had. It has not run
    /// then.
    pub fn spawn(&self, worker: Worker) -> Result<(), SpawnError> {
        let group = &self.group;
        let running = group.running.enter_owned();
        let running = running.expect("this gate is never closed");
        let seat = match group.shared.seat(&group.name, &worker) {
            Ok(seat) => seat,
            Err(stopping) => {
                return Err(SpawnError::new(worker, SpawnErrorKind::Stopping(stopping)))
            }
        };
        let post = Post {
            seat,
            group: Arc::clone(group),
            stop_on_failure: worker.stop_on_failure,
            // A worker that is not started has not failed. The caller of `spawn` is told.
            ended: Ok(()),
            _running: running,
        };
        let seat = Arc::clone(&post.seat);
        let name = thread_name(&worker.name);
        // Without a thread they come back, since the worker's work must not be dropped with the lock held.
        let to_run = Arc::new(Mutex::new(Some((post, worker))));
        let handed_over = Arc::clone(&to_run);
        // Held until the handle is in, so that the thread that joins finds it.
        let mut thread = seat.thread.lock();
        let spawned = thread::Builder::new().name(name).spawn(move || {
            let to_run = handed_over.lock().take();
            if let Some((post, worker)) = to_run {
                post.run(worker);
            }
        });
        match spawned {
            Ok(handle) => {
                *thread = Some(handle);
                Ok(())
            }
            Err(error) => {
                drop(thread);
                let unrun = to_run.lock().take();
                let (post, worker) = unrun.expect("nobody has run it");
                post.forget();
                Err(SpawnError::new(worker, SpawnErrorKind::Thread(error)))
            }
        }
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

/// A worker that was not started, and why; see [`WorkerGroup::spawn`].
#[derive(Debug)]
pub struct SpawnError {
    name: String,
    worker: Returned<Worker>,
    kind: SpawnErrorKind,
}

impl SpawnError {
    fn new(worker: Worker, kind: SpawnErrorKind) -> Self {
        Self {
            name: worker.name.clone(),
            worker: Returned::new(worker),
            kind,
        }
    }

    /// Why it was not started.
    pub fn kind(&self) -> &SpawnErrorKind {
        &self.kind
    }

    /// The worker, which has not run.
    pub fn into_worker(self) -> Worker {
        self.worker.take()
    }
}

/// Why a worker was not started.
#[derive(Debug)]
#[non_exhaustive]
pub enum SpawnErrorKind {
    /// The stop has begun.
    Stopping(Stopping),
    /// The operating system refused a thread. The process may be out of memory, or its unit at
    /// the limit of its tasks.
    Thread(io::Error),
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match &self.kind {
            SpawnErrorKind::Stopping(why) => write!(f, "cannot start worker {name:?}: {why}"),
            SpawnErrorKind::Thread(error) => write!(
                f,
                "cannot start a thread for worker {name:?}: {error}; {ROOM_FOR_THREADS}"
            ),
        }
    }
}

impl Error for SpawnError {}

/// What the thread of a worker holds while it lives. However it ends, dropping this tells all who wait.
struct Post {
    seat: Arc<Seat>,
    group: Arc<Group>,
    stop_on_failure: bool,
    ended: Result<(), Failure>,
    /// Dropped last: a thread that has joined the group finds everything done.
    _running: OwnedGuard,
}

impl Post {
    /// There is no thread for it. It leaves no trace, unless the stop waits for it already.
    fn forget(self) {
        self.group.shared.remove_seat(&self.seat);
    }

    fn run(mut self, worker: Worker) {
        self.seat.at.get_or_init(kernel_id);
        let _inside = self.group.shared.own_threads.enter("a worker");
        // Stays if something panics that must not, such as the program's logger.
        self.ended = Err(Failure::Panic("as it ended".to_owned()));
        let Worker {
            mut work, restart, ..
        } = worker;
        let worked = self.work(&mut work, restart);
        let worked = worked.inspect_err(|failure| self.give_up(failure));
        // A worker that is over has let go of everything.
        let dropped = attempt(move || {
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
            let Err(failure) = attempt(|| work(token)) else {
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
            self.seat.failed(&failure);
            self.log(&format!("{failure}; it is started again in {delay:?}"));
            if token.wait_timeout(delay) && !self.seat.until_closing {
                return Ok(());
            }
            self.group.restarts.fetch_add(1, Ordering::Relaxed);
            self.seat.restarted();
        }
    }

    fn give_up(&self, failure: &Failure) {
        if self.stop_on_failure {
            let why = format!("{} {failure}", self.seat.name);
            if self.group.shared.try_begin_stop(Reason::WorkerFailed(why)) {
                // Which has said it.
                return;
            }
        }
        self.log(&failure.to_string());
    }

    fn log(&self, what: &str) {
        let Seat { name, .. } = &*self.seat;
        let line = self.group.shared.titled(&format!("{name} {what}"));
        logging::error!(worker = &**name; "{line}");
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        self.seat.end(mem::replace(&mut self.ended, Ok(())));
        self.group.shared.leave_seat(&self.seat);
        self.seat.is_over();
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
