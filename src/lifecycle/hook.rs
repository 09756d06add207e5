//! Closing hooks: named pieces of work to do once nothing is in flight any more.
//!
//! Flush the journal, close the database, park the motor. Each hook runs on a thread of its own,
//! so that one which overruns its time limit can be left behind. Hooks may run at the same time;
//! where the order matters, [`Hook::after`] says so. If the system gives no more threads, hooks run
//! one after the other on that of the lifecycle, and only the hard deadline can end them.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::shutdown::Token;

/// What the work of a hook may fail with.
pub type Failure = Box<dyn Error + Send + Sync>;

pub(super) type Work = Box<dyn FnOnce(&Token) -> Result<(), Failure> + Send>;

/// A named piece of work for [`Phase::Closing`](super::Phase::Closing).
///
/// ```
/// use std::time::Duration;
/// use touchdown::lifecycle::{Hook, Lifecycle};
///
/// let lifecycle = Lifecycle::builder()
///     .hook(Hook::new("database", || Ok(())))
///     .hook(Hook::new("journal", || Ok(())).time_limit(Duration::from_secs(2)))
///     // Runs when both are finished.
///     .hook(Hook::new("unmount", || Ok(())).after("database").after("journal"))
///     .build()?;
/// # Ok::<(), touchdown::lifecycle::BuildError>(())
/// ```
pub struct Hook {
    pub(super) name: String,
    pub(super) after: Vec<String>,
    pub(super) time_limit: Duration,
    pub(super) work: Work,
}

impl Hook {
    /// The time limit of a hook for which none was set. Half of the default closing phase, so that
    /// two hooks in a row may both overrun and be reported.
    pub const DEFAULT_TIME_LIMIT: Duration = Duration::from_secs(5);

    /// A hook that runs after no other, with [`DEFAULT_TIME_LIMIT`](Self::DEFAULT_TIME_LIMIT).
    ///
    /// The name is how `after`, the report and the log refer to it.
    pub fn new(
        name: impl Into<String>,
        work: impl FnOnce() -> Result<(), Failure> + Send + 'static,
    ) -> Self {
        Self::with_token(name, |_| work())
    }

    /// As [`new`](Self::new), for work that can be given up: its token is cancelled when its time is over, and when a
    /// signal hurries the stop while the hook runs.
    ///
    /// ```
    /// use std::time::Duration;
    /// use touchdown::lifecycle::Hook;
    ///
    /// # fn has_arrived() -> bool { true }
    /// let spool = Hook::with_token("spool", |token| {
    ///     while !has_arrived() {
    ///         if token.wait_timeout(Duration::from_millis(100)) {
    ///             return Err("given up; it is sent after the next start".into());
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
            name: name.into(),
            after: Vec::new(),
            time_limit: Self::DEFAULT_TIME_LIMIT,
            work: Box::new(work),
        }
    }

    /// Lets this hook run only after the hook called `name` is finished, whether that one did its
    /// work, failed, panicked or overran. May be called repeatedly, for several names.
    #[must_use]
    pub fn after(mut self, name: impl Into<String>) -> Self {
        self.after.push(name.into());
        self
    }

    /// Sets how long the hook may run before it is reported as overrun and left behind. What is
    /// left of the closing phase limits it as well. Time in which the process stands still does not count.
    #[must_use]
    pub fn time_limit(mut self, time: Duration) -> Self {
        self.time_limit = time;
        self
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook")
            .field("name", &self.name)
            .field("after", &self.after)
            .field("time_limit", &self.time_limit)
            .finish_non_exhaustive()
    }
}

/// Why a hook, or a set of hooks, was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HookError {
    /// Two hooks have this name. Names are how hooks refer to each other.
    Duplicate(String),
    /// A hook runs after one that does not exist. A hook added to a running lifecycle can only
    /// refer to hooks that were added before it.
    Unknown {
        /// The hook that refers to another.
        hook: String,
        /// The name that no hook has.
        after: String,
    },
    /// These hooks wait for each other: each for the next, and the last for the first.
    Cycle(Vec<String>),
    /// The stop has begun; this hook came too late.
    Stopping(String),
}

impl fmt::Display for HookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duplicate(name) => write!(f, "two hooks are called {name:?}"),
            Self::Unknown { hook, after } => {
                write!(f, "hook {hook:?} runs after {after:?}, which is not a hook")
            }
            Self::Cycle(names) => {
                f.write_str("hooks wait for each other: ")?;
                for name in names {
                    write!(f, "{name:?} after ")?;
                }
                write!(f, "{:?}", names.first().map_or("", String::as_str))
            }
            Self::Stopping(name) => {
                write!(f, "hook {name:?} came too late: the program is stopping")
            }
        }
    }
}

impl Error for HookError {}
