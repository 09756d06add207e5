//! Checks of components: whether the database, the disk, the device is there.
//!
//! A check is a closure that the program gives, with a word on what it counts for. Checks run at intervals on threads of
//! their own, never on the thread of who asks. What they have found is looked up by everybody who asks: health checks of
//! gRPC, the HTTP door, systemd's watchdog and the metrics. So these cannot disagree.
//!
//! | the check is [down](CheckState::Down) and counts for | `grpc.health.v1` | `/readyz` | `/livez`, [`Lifecycle::check`], the watchdog |
//! |---|---|---|---|
//! | readiness | NOT_SERVING | 503 | 200, passes |
//! | liveness | SERVING | 200 | 503, fails: a supervisor restarts the program |
//! | information | SERVING | 200 | 200, passes |
//!
//! A check that does not return within its time limit has failed, and has failed again an interval later, and so on. It is
//! not started a second time meanwhile. A check that panics has failed, with the panic's message.
//!
//! [`Lifecycle::check`]: touchdown::lifecycle::Lifecycle::check

mod board;
mod runner;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub(crate) use self::board::Board;

/// What a check is asked to do: fail with an error that says why.
type Run = Box<dyn FnMut() -> Result<(), Box<dyn Error + Send + Sync>> + Send>;

/// A check of one component, for [`Observe::check`](crate::Observe::check).
///
/// ```
/// use std::time::Duration;
/// use touchdown_observe::HealthCheck;
///
/// let disk = HealthCheck::for_readiness("disk", || {
///     std::fs::write("/tmp/probe", b"x")?;
///     Ok(())
/// });
/// let disk = disk.interval(Duration::from_secs(30)).down_after(2);
/// # drop(disk);
/// ```
pub struct HealthCheck {
    pub(crate) name: String,
    pub(crate) counts_for: CountsFor,
    pub(crate) services: Vec<String>,
    pub(crate) interval: Duration,
    pub(crate) time_limit: Duration,
    pub(crate) down_after: u32,
    pub(crate) up_after: u32,
    pub(crate) run: Run,
}

/// What it means that a component is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CountsFor {
    /// The program cannot serve for now: callers had better go elsewhere. It may come right by itself, as when a database comes
    /// back.
    Readiness,
    /// The program will not come right by itself: who supervises it restarts it.
    Liveness,
    /// Nothing. People see it.
    Information,
}

impl CountsFor {
    /// The word in metrics and on pages.
    pub const fn as_str(self) -> &'static str {
        match self {
            CountsFor::Readiness => "readiness",
            CountsFor::Liveness => "liveness",
            CountsFor::Information => "information",
        }
    }
}

impl HealthCheck {
    /// A check without which the program is not ready: it serves on, and tells callers to go elsewhere.
    ///
    /// The closure may block. It runs at once as the server starts; until it has returned for the first time the program is
    /// not ready.
    pub fn for_readiness(
        name: impl Into<String>,
        run: impl FnMut() -> Result<(), Box<dyn Error + Send + Sync>> + Send + 'static,
    ) -> HealthCheck {
        HealthCheck::new(name.into(), CountsFor::Readiness, run)
    }

    /// A check without which the program is to be restarted. Until it has returned for the first time nothing is held
    /// against the program.
    pub fn for_liveness(
        name: impl Into<String>,
        run: impl FnMut() -> Result<(), Box<dyn Error + Send + Sync>> + Send + 'static,
    ) -> HealthCheck {
        HealthCheck::new(name.into(), CountsFor::Liveness, run)
    }

    /// A check whose outcome is shown, and changes nothing.
    pub fn for_information(
        name: impl Into<String>,
        run: impl FnMut() -> Result<(), Box<dyn Error + Send + Sync>> + Send + 'static,
    ) -> HealthCheck {
        HealthCheck::new(name.into(), CountsFor::Information, run)
    }

    fn new(
        name: String,
        counts_for: CountsFor,
        run: impl FnMut() -> Result<(), Box<dyn Error + Send + Sync>> + Send + 'static,
    ) -> HealthCheck {
        HealthCheck {
            name,
            counts_for,
            services: Vec::new(),
            interval: Duration::from_secs(10),
            time_limit: Duration::from_secs(2),
            down_after: 3,
            up_after: 1,
            run: Box::new(run),
        }
    }

    /// Sets how long after its return it runs again; 10 s without this, as Kubernetes probes.
    pub fn interval(mut self, time: Duration) -> Self {
        self.interval = time;
        self
    }

    /// Sets how long it may take; 2 s without this. One that takes longer has failed.
    pub fn time_limit(mut self, time: Duration) -> Self {
        self.time_limit = time;
        self
    }

    /// Sets after how many failures in a row the component is down; 3 without this. The very first failure counts as all of
    /// them: there is no earlier success to believe in.
    pub fn down_after(mut self, failures: u32) -> Self {
        self.down_after = failures;
        self
    }

    /// Sets after how many successes in a row the component is up again; 1 without this.
    pub fn up_after(mut self, successes: u32) -> Self {
        self.up_after = successes;
        self
    }

    /// Has it count for this service alone, by its full name (`package.Service`); may be called for several. While it is down
    /// the service is NOT_SERVING. The server as a whole and `/readyz` are as without it.
    pub fn of_service(mut self, service: impl Into<String>) -> Self {
        self.services.push(service.into());
        self
    }

    /// What is wrong with the settings, if something is.
    pub(crate) fn validate(&self) -> Result<(), BadCheck> {
        let bad = |setting, value: String, expected| {
            let name = self.name.clone();
            Err(BadCheck {
                name,
                setting,
                value,
                expected,
            })
        };
        let is_label = |it: char| !it.is_control();
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(is_label) {
            return bad(
                "name",
                format!("{:?}", self.name),
                "1 to 64 bytes without control characters",
            );
        }
        let least = Duration::from_millis(10);
        let most = Duration::from_secs(24 * 60 * 60);
        for (setting, time) in [("interval", self.interval), ("time_limit", self.time_limit)] {
            if !(least..=most).contains(&time) {
                return bad(setting, format!("{time:?}"), "from 10 ms to 24 h");
            }
        }
        for (setting, count) in [("down_after", self.down_after), ("up_after", self.up_after)] {
            if count == 0 {
                return bad(setting, count.to_string(), "at least 1");
            }
        }
        Ok(())
    }
}

impl fmt::Debug for HealthCheck {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("HealthCheck")
            .field("name", &self.name)
            .field("counts_for", &self.counts_for)
            .finish_non_exhaustive()
    }
}

/// A check with a setting that cannot be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadCheck {
    name: String,
    setting: &'static str,
    value: String,
    expected: &'static str,
}

impl fmt::Display for BadCheck {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BadCheck {
            name,
            setting,
            value,
            expected,
        } = self;
        write!(
            formatter,
            "{setting} of the check {name:?} is {value}, and must be {expected}"
        )
    }
}

impl Error for BadCheck {}

/// What is known of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CheckState {
    /// Its check has not returned yet.
    Unknown,
    /// It is there.
    Up,
    /// It is not.
    Down,
}

impl CheckState {
    /// The word in logs and on pages.
    pub const fn as_str(self) -> &'static str {
        match self {
            CheckState::Unknown => "unknown",
            CheckState::Up => "up",
            CheckState::Down => "down",
        }
    }
}

/// How a check stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CheckStatus {
    /// Its name.
    pub name: String,
    /// What it counts for.
    pub counts_for: CountsFor,
    /// The services that it counts for, if not for all.
    pub services: Vec<String>,
    /// What it has found.
    pub state: CheckState,
    /// For how long that has been so.
    pub since: Duration,
    /// When it last ended, or failed by not ending.
    pub last: Option<SystemTime>,
    /// How long it took then.
    pub took: Duration,
    /// Why it failed the last time; `None` if it did not.
    pub error: Option<String>,
    /// For how long it has not returned, if that is longer than its time limit.
    pub hangs: Option<Duration>,
}

/// What the checks of a program have found. Clones are the same.
#[derive(Clone)]
pub struct Checks(pub(crate) Arc<Board>);

impl Checks {
    /// How each check stands, in the order in which they were added.
    pub fn statuses(&self) -> Vec<CheckStatus> {
        self.0.statuses()
    }
}

impl fmt::Debug for Checks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.statuses()).finish()
    }
}
