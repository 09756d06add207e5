//! The page `/statusz`: what the program does at this moment, for a person with a browser, which may be that of a
//! phone.
//!
//! It is one document without scripts, and nothing is loaded for it, so it can be saved, sent, and read where there
//! is no network. The page is a function of a [`Snapshot`]: who fills that in need not know how it looks. What is not
//! known is not shown.
//!
//! All text is escaped, that of the program, too: a caller's words get into messages of errors.

mod chart;
mod page;
mod parts;
#[cfg(test)]
mod tests;
mod text;

use std::time::Duration;

use touchdown::lifecycle::Phase;

pub(crate) use self::chart::Histogram;

/// The media type of the page.
pub(crate) const HTML: &str = "text/html; charset=utf-8";

/// How many of the running calls are shown, the oldest first.
pub(crate) const MOST_CALLS: usize = 20;

/// How many lines of upgrades, and of reports, are shown, the first ones.
pub(crate) const MOST_LINES: usize = 10;

/// All that is shown.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// The program's name.
    pub(crate) program: String,
    /// The program's version.
    pub(crate) version: Option<String>,
    pub(crate) process: u32,
    /// What time it is, in words.
    pub(crate) now: Option<String>,
    pub(crate) uptime: Duration,
    /// After how many seconds a browser fetches the page again. The page has links that ask for that by `?refresh=5`.
    pub(crate) refresh: Option<u32>,
    /// Other paths of the door, for links: `metrics`, `readyz?verbose`.
    pub(crate) links: Vec<&'static str>,

    pub(crate) phase: Phase,
    /// For how long it is in this phase.
    pub(crate) phase_for: Option<Duration>,
    /// Why the program stops.
    pub(crate) reason: Option<String>,
    /// How much time is left until the hard deadline of a stop.
    pub(crate) deadline_in: Option<Duration>,
    /// Why the program is not ready; empty if it is.
    pub(crate) not_ready: Vec<String>,

    pub(crate) in_flight: usize,
    pub(crate) load: Option<Load>,
    pub(crate) connections: Option<usize>,
    /// The calls that run, the oldest first. There may be more than are shown.
    pub(crate) calls: Vec<RunningCall>,
    pub(crate) checks: Vec<Check>,
    pub(crate) methods: Vec<Method>,
    /// How long calls have waited for a worker.
    pub(crate) queue_wait: Option<Histogram>,

    /// In how many days the first certificate of TLS expires; less than 0 if it has.
    pub(crate) certificate_days: Option<i64>,
    pub(crate) figures: Option<Figures>,
    /// What became of attempts to replace the program, a line each.
    pub(crate) upgrades: Vec<String>,
    /// Reports of stops, such as that of the process before this one, a line each.
    pub(crate) reports: Vec<String>,
}

/// How busy the workers are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) workers: usize,
    pub(crate) busy: usize,
    /// How many streams run beside the workers.
    pub(crate) streams: usize,
    /// How many calls wait for a worker.
    pub(crate) waiting: usize,
    /// How many may wait.
    pub(crate) backlog: usize,
}

/// A call that runs.
#[derive(Clone, Debug)]
pub(crate) struct RunningCall {
    /// `package.Service/Method`, with or without a slash before it.
    pub(crate) method: String,
    pub(crate) peer: String,
    pub(crate) age: Duration,
}

/// What is known of a component.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    pub(crate) name: String,
    /// `readiness`, `liveness` or `information`.
    pub(crate) counts_for: String,
    pub(crate) state: CheckState,
    /// For how long it is in this state.
    pub(crate) since: Option<Duration>,
    /// How long ago it was last looked at.
    pub(crate) checked: Option<Duration>,
    /// How long that took.
    pub(crate) took: Option<Duration>,
    /// For how long it has not returned, if it should have.
    pub(crate) hangs: Option<Duration>,
    /// What it has said last.
    pub(crate) message: Option<String>,
}

/// Whether a component works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckState {
    Up,
    Down,
    /// It was not looked at yet.
    Unknown,
}

/// What became of the calls of a method.
#[derive(Clone, Debug)]
pub(crate) struct Method {
    /// `package.Service`.
    pub(crate) service: String,
    pub(crate) name: String,
    /// Such as `unary`.
    pub(crate) kind: String,
    pub(crate) started: u64,
    pub(crate) in_flight: usize,
    /// The age of the oldest in flight.
    pub(crate) oldest: Option<Duration>,
    /// How many ended with each code other than OK.
    pub(crate) errors: Vec<(String, u64)>,
    /// How long its calls took.
    pub(crate) latency: Option<Histogram>,
}

/// What the operating system says of the process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    /// The processor time that it has had.
    pub(crate) cpu: Option<Duration>,
    /// Its memory, in bytes.
    pub(crate) resident: Option<u64>,
    pub(crate) descriptors: Option<u64>,
    pub(crate) most_descriptors: Option<u64>,
    pub(crate) threads: Option<u64>,
}

/// The page.
pub(crate) fn render(snapshot: &Snapshot) -> String {
    let mut page = String::with_capacity(24 << 10);
    let written = page::write(&mut page, snapshot);
    debug_assert!(written.is_ok(), "a string takes all");
    page
}
