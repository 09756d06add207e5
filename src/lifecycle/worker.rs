//! A worker, as the program describes it: its work, and what to do if that fails.

use std::fmt::{self, Display};
use std::time::Duration;

use super::hook::Hook;
use super::shutdown::Token;
use super::worker_restart::Restart;

pub(super) type Work = Box<dyn FnMut(&Token) -> Result<(), String> + Send>;

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
    pub(super) name: String,
    pub(super) work: Work,
    pub(super) until_closing: bool,
    pub(super) time_limit: Duration,
    pub(super) restart: Option<Restart>,
    pub(super) stop_on_failure: bool,
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
    /// [`Reason::WorkerFailed`](super::Reason::WorkerFailed), with the name of the worker. By default, a failure is logged and
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

/// What the work of a [`Worker`] may return: `()`, or a `Result` whose error can be printed. Nothing else can be made one.
pub trait WorkerResult: IntoResult {}

impl WorkerResult for () {}

impl<E: Display> WorkerResult for Result<(), E> {}

/// Not to be named outside, and so not to be implemented.
pub trait IntoResult {
    /// The error, as text.
    fn into_result(self) -> Result<(), String>;
}

impl IntoResult for () {
    fn into_result(self) -> Result<(), String> {
        Ok(())
    }
}

impl<E: Display> IntoResult for Result<(), E> {
    fn into_result(self) -> Result<(), String> {
        self.map_err(|error| error.to_string())
    }
}
