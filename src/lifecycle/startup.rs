//! Start-up hooks: named pieces of work to do before the program is ready, and how to undo them.
//!
//! The mirror of the closing hooks. Each runs on a thread of its own, once those that it names are
//! done, and has a time limit. All must do their work: the first that fails, panics or overruns
//! ends the start, and what had started is undone, the last first.

use std::fmt;
use std::time::Duration;

use super::hook::{Failure, Hook};
use super::hook_run::{run_caught, News};
use super::hooks::Hooks;
use super::shutdown::{Canceller, Token};
use crate::logging;
use crate::sync::{Arc, Mutex, Sender};
use crate::text::one_line;

/// A named piece of work for [`Phase::Starting`](super::Phase::Starting), and what undoes it.
///
/// A hook that fails has started nothing: what it had begun it takes back by itself, and its
/// `undo` does not run.
///
/// ```
/// use std::time::Duration;
/// use touchdown::lifecycle::{Lifecycle, StartupHook};
///
/// let lifecycle = Lifecycle::builder()
///     .startup(StartupHook::new("config", || Ok(())))
///     .startup(
///         StartupHook::new("database", || Ok(()))
///             .after("config")
///             .time_limit(Duration::from_secs(20))
///             .undo(|| Ok(())),
///     )
///     .build()?;
/// lifecycle.ready()?; // Runs both, and is then ready.
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a start-up hook does nothing until it is given to a builder"]
pub struct StartupHook {
    hook: Hook,
    undo: Option<Hook>,
    undo_time_limit: Duration,
}

impl StartupHook {
    /// The time limit of a start-up hook for which none was set. A third of what systemd grants a
    /// unit to start (90 s), so that three hooks in a row may take their time.
    pub const DEFAULT_TIME_LIMIT: Duration = Duration::from_secs(30);

    /// A hook that runs after no other, with [`DEFAULT_TIME_LIMIT`](Self::DEFAULT_TIME_LIMIT), and
    /// with nothing to undo.
    ///
    /// The name is how `after`, the report and the log refer to it.
    pub fn new(
        name: impl Into<String>,
        work: impl FnOnce() -> Result<(), Failure> + Send + 'static,
    ) -> Self {
        Self::with_token(name, |_| work())
    }

    /// As [`new`](Self::new), for work that can be given up: its token is cancelled when its time is over, and as soon as
    /// a stop begins. What it fails with then is no failure of the start.
    ///
    /// ```
    /// use std::time::Duration;
    /// use touchdown::lifecycle::StartupHook;
    ///
    /// # fn find_meter() -> Option<()> { Some(()) }
    /// let meter = StartupHook::with_token("meter", |token| {
    ///     while find_meter().is_none() {
    ///         if token.wait_timeout(Duration::from_secs(1)) {
    ///             return Err("no meter on the bus".into());
    ///         }
    ///     }
    ///     Ok(())
    /// });
    /// ```
    pub fn with_token(
        name: impl Into<String>,
        work: impl FnOnce(&Token) -> Result<(), Failure> + Send + 'static,
    ) -> Self {
        Self {
            hook: Hook::with_token(name, work).time_limit(Self::DEFAULT_TIME_LIMIT),
            undo: None,
            undo_time_limit: Hook::DEFAULT_TIME_LIMIT,
        }
    }

    /// Lets this hook run only once the start-up hook called `name` has done its work. May be
    /// called repeatedly, for several names.
    pub fn after(mut self, name: impl Into<String>) -> Self {
        self.hook = self.hook.after(name);
        self
    }

    /// Sets how long the hook may run before it is left behind, which ends the start.
    ///
    /// If it does its work after all, that is undone as well, as long as the process is there.
    pub fn time_limit(mut self, time: Duration) -> Self {
        self.hook = self.hook.time_limit(time);
        self
    }

    /// Sets what undoes the work of this hook. It runs at the end of
    /// [`Phase::Closing`](super::Phase::Closing), after the closing hooks, on every stop before
    /// which this hook had done its work: the last one started is the first one undone, one at a
    /// time. In the report it is called `undo NAME`.
    pub fn undo(mut self, work: impl FnOnce() -> Result<(), Failure> + Send + 'static) -> Self {
        self.undo = Some(Hook::new(format!("undo {}", self.hook.name), work));
        self
    }

    /// Sets how long undoing may take before it is left behind. Default:
    /// [`Hook::DEFAULT_TIME_LIMIT`]. What is left of the closing phase limits it as well.
    pub fn undo_time_limit(mut self, time: Duration) -> Self {
        self.undo_time_limit = time;
        self
    }

    /// The hook that, once its work is done, adds to `started` what undoes it.
    pub(super) fn into_hook(self, started: &Started) -> Hook {
        let limit = self.undo_time_limit;
        let Some(undo) = self.undo.map(|undo| undo.time_limit(limit)) else {
            return self.hook;
        };
        let (work, started) = (self.hook.work, started.clone());
        let work = move |token: &Token| {
            work(token)?;
            started.add(undo);
            Ok(())
        };
        Hook {
            work: Box::new(work),
            ..self.hook
        }
    }
}

impl fmt::Debug for StartupHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartupHook")
            .field("hook", &self.hook)
            .field("undo", &self.undo)
            .finish_non_exhaustive()
    }
}

/// The start-up as far as it is still to come. Part of what the lifecycle's lock guards.
#[derive(Default)]
pub(super) struct Startup {
    /// Taken out when they begin to run.
    pub(super) hooks: Hooks,
    /// Somebody waits for them.
    pub(super) wanted: bool,
    /// While they run: where to say that they are not to be waited for.
    pub(super) news: Option<Sender<News>>,
}

/// What undoes the work of the hooks that have done it, in the order in which they were done.
#[derive(Clone, Default)]
pub(super) struct Started(Arc<Mutex<Stack>>);

#[derive(Default)]
struct Stack {
    undo: Vec<Hook>,
    /// All was undone. A hook that ends now was left behind, and nobody else will undo its work.
    unwound: bool,
}

impl Started {
    fn add(&self, undo: Hook) {
        let late = {
            let mut stack = self.0.lock();
            if stack.unwound {
                Some(undo)
            } else {
                stack.undo.push(undo);
                None
            }
        };
        if let Some(Hook { name, work, .. }) = late {
            let late = Canceller::new();
            let outcome = run_caught(|| work(&late));
            logging::warn!(
                "{}",
                one_line(&format!("{name}, of a start that came too late: {outcome}"))
            );
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().undo.is_empty()
    }

    /// What to undo next. After `None`, a hook that was left behind undoes its work by itself.
    pub(super) fn next(&self) -> Option<Hook> {
        let mut stack = self.0.lock();
        let undo = stack.undo.pop();
        stack.unwound = undo.is_none();
        undo
    }
}
