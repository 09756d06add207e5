//! Closing hooks: named pieces of work to do once nothing is in flight any more.
//!
//! Flush the journal, close the database, park the motor. Each hook runs on a thread of its own,
//! so that one which overruns its time limit can be left behind. Hooks may run at the same time;
//! where the order matters, [`Hook::after`] says so. If the system gives no more threads, hooks run
//! one after the other on that of the lifecycle, and only the hard deadline can end them.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::report::{HookReport, Outcome};
use super::run::Run;
use crate::sync::Mutex;

/// What the work of a hook may fail with.
pub(super) type Failure = Box<dyn Error + Send + Sync>;

pub(super) type Work = Box<dyn FnOnce() -> Result<(), Failure> + Send>;

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

/// Hooks whose names are unique and whose order exists.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    hooks: Vec<Hook>,
}

impl Hooks {
    pub(super) fn new(hooks: Vec<Hook>) -> Result<Self, HookError> {
        let mut places = HashMap::new();
        for (place, hook) in hooks.iter().enumerate() {
            if places.insert(hook.name.as_str(), place).is_some() {
                return Err(HookError::Duplicate(hook.name.clone()));
            }
        }
        let order = resolve(&hooks, &places)?;
        find_cycle(&order).map_or(Ok(()), |cycle| {
            Err(HookError::Cycle(
                cycle
                    .into_iter()
                    .map(|place| hooks[place].name.clone())
                    .collect(),
            ))
        })?;
        Ok(Self { hooks })
    }

    /// Hooks that run after none, and may share a name.
    pub(super) fn unordered(hooks: Vec<Hook>) -> Self {
        Self { hooks }
    }

    /// Adds one more. It can close no cycle, since none of the others refers to it.
    pub(super) fn add(&mut self, hook: Hook) -> Result<(), HookError> {
        let known = |name: &String| self.hooks.iter().any(|other| other.name == *name);
        if known(&hook.name) {
            return Err(HookError::Duplicate(hook.name));
        }
        if let Some(after) = hook.after.iter().find(|name| !known(name)) {
            return Err(HookError::Unknown {
                after: after.clone(),
                hook: hook.name,
            });
        }
        self.hooks.push(hook);
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.hooks.is_empty()
    }

    /// The longest time that all of them can take: that of those which wait for each other.
    pub(super) fn time_limit(&self) -> Duration {
        let mut ends: HashMap<&str, Duration> = HashMap::new();
        // Each round finds the end of at least one more, since there is no cycle.
        while ends.len() < self.hooks.len() {
            let before = ends.len();
            for hook in &self.hooks {
                let after: Option<Vec<Duration>> = hook
                    .after
                    .iter()
                    .map(|it| ends.get(it.as_str()).copied())
                    .collect();
                if let Some(after) = after {
                    let begin = after.into_iter().max().unwrap_or_default();
                    ends.insert(&hook.name, begin.saturating_add(hook.time_limit));
                }
            }
            if ends.len() == before {
                break;
            }
        }
        ends.into_values().max().unwrap_or_default()
    }

    /// Runs all, for `time` at the most, and says how each ended. `running` always holds
    /// the names of those that run, including those left behind.
    pub(super) fn run(self, time: Duration, running: &Mutex<Vec<String>>) -> Vec<HookReport> {
        self.prepare(time, running).run()
    }

    /// The same, for who wants to have a say in it.
    pub(super) fn prepare(self, time: Duration, running: &Mutex<Vec<String>>) -> Run<'_> {
        Run::new(self.hooks, time, running)
    }

    /// The reports of hooks whose turn never came.
    pub(super) fn into_not_run(self) -> Vec<HookReport> {
        let not_run = |hook: Hook| HookReport {
            name: hook.name,
            outcome: Outcome::NotRun,
            took: Duration::ZERO,
        };
        self.hooks.into_iter().map(not_run).collect()
    }
}

/// For each hook, the places of those it runs after.
fn resolve(hooks: &[Hook], places: &HashMap<&str, usize>) -> Result<Vec<Vec<usize>>, HookError> {
    let place_of = |hook: &Hook, after: &String| {
        places
            .get(after.as_str())
            .copied()
            .ok_or_else(|| HookError::Unknown {
                hook: hook.name.clone(),
                after: after.clone(),
            })
    };
    hooks
        .iter()
        .map(|hook| {
            hook.after
                .iter()
                .map(|after| place_of(hook, after))
                .collect()
        })
        .collect()
}

/// A cycle, if there is one: each place waits for the next, the last for the first.
fn find_cycle(order: &[Vec<usize>]) -> Option<Vec<usize>> {
    // Takes away what waits for nothing that is left, until all is gone or the rest waits for
    // itself.
    let mut left: Vec<usize> = (0..order.len()).collect();
    loop {
        let before = left.len();
        let waits = |place: &usize| order[*place].iter().any(|after| left.contains(after));
        left = left.iter().copied().filter(waits).collect();
        if left.len() == before {
            break;
        }
    }
    // Every place in `left` waits for another in `left`: following them must come round.
    let mut path = vec![*left.first()?];
    loop {
        let next = *order[*path.last()?]
            .iter()
            .find(|after| left.contains(after))?;
        if let Some(start) = path.iter().position(|place| *place == next) {
            return Some(path.split_off(start));
        }
        path.push(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_take_as_long_as_those_that_wait_for_each_other() {
        let hook = |name: &str, seconds| {
            Hook::new(name, || Ok(())).time_limit(Duration::from_secs(seconds))
        };
        let hooks = vec![
            hook("last", 1).after("left").after("right"),
            hook("left", 2).after("first"),
            hook("right", 20).after("first"),
            hook("first", 200),
            hook("alone", 100),
        ];
        let time = |hooks| Hooks::new(hooks).unwrap().time_limit();
        assert_eq!(time(hooks), Duration::from_secs(221));
        assert_eq!(time(Vec::new()), Duration::ZERO);
        let endless = hook("endless", 0).time_limit(Duration::MAX);
        assert_eq!(
            time(vec![hook("after", 1).after("endless"), endless]),
            Duration::MAX
        );
    }

    #[test]
    fn a_cycle_is_found_behind_hooks_that_only_lead_to_it() {
        // 0 waits for 1, and 1, 2, 3 wait for each other; 4 is free.
        let order = [vec![1], vec![4, 2], vec![3], vec![1], vec![]];
        assert_eq!(find_cycle(&order), Some(vec![1, 2, 3]));
        assert_eq!(find_cycle(&[vec![0]]), Some(vec![0]));
        assert_eq!(find_cycle(&[vec![], vec![0], vec![0, 1]]), None);
    }
}
