//! What happened: the account of a stop, and the exit code that follows from it.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::process::{ExitCode, Termination};
use std::time::Duration;

use super::calls::Calls;
use super::json::{push_list, push_millis, push_optional, push_string};
use super::phase::Phase;
use super::signals::signal_name;
use crate::logging;
use crate::sync::{bounded, thread};
use crate::text::one_line;

/// How long a process that could not start waits for its standard error to take the reason: as long as for its last
/// words.
const ERROR_TIME: Duration = Duration::from_millis(500);

pub mod exit_code {
    //! The codes with which a program exits, so that a supervisor can tell one end from another.
    //!
    //! Where several apply, the first in this order does: a third signal or the
    //! [hard deadline](HARD_DEADLINE), which end the process on the spot and leave no report; then
    //! [`FAILED_START`] or [`WORKER_FAILED`], [`FORCED`], [`CLOSING_FAILED`], [`CLEAN`]. 1 and 2 are left to the program,
    //! and 101 to Rust's own panics.

    /// Nothing was told to stop before its end, and all hooks did their work.
    pub const CLEAN: u8 = 0;
    /// Something was in flight when the grace period ended, or when a second signal cut it short,
    /// and was told to stop. Or a connection was cut on which something may have been lost.
    pub const FORCED: u8 = 3;
    /// The hard deadline passed. The process has written what was still running to its standard
    /// error, and has exited on the spot.
    pub const HARD_DEADLINE: u8 = 4;
    /// A start-up hook failed, panicked or overran, or the program reported by
    /// [`Lifecycle::fail`](crate::lifecycle::Lifecycle::fail) that it could not start.
    pub const FAILED_START: u8 = 5;
    /// Nothing was forced, but a closing hook, a participant as it closed, or a worker once the stop had
    /// begun failed, panicked, overran or was not run. Or a start-up hook was still running when a stop
    /// began, and was left behind.
    pub const CLOSING_FAILED: u8 = 6;
    /// A worker failed that the program is not to go on without; see
    /// [`Worker::stop_on_failure`](crate::lifecycle::Worker::stop_on_failure).
    pub const WORKER_FAILED: u8 = 7;

    /// The code after a third signal: 128 and its number, as a shell reports a process that a
    /// signal ended.
    pub const fn third_signal(signal: i32) -> u8 {
        // Signal numbers end at 64.
        128_u8.wrapping_add(signal as u8)
    }
}

/// Why a stop began.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// This signal arrived.
    Signal(i32),
    /// The program asked for it, and said why.
    Requested(String),
    /// The program could not start, and said why.
    StartFailed(String),
    /// This worker failed in this way, and the program is not to go on without it.
    WorkerFailed(String),
    /// The process with this id has taken over; see [`Succession`](super::Succession).
    Replaced(u32),
    /// The last handle on the lifecycle was dropped.
    Dropped,
}

impl Reason {
    /// The reason as one word, as the JSON of a report and the keys of the log have it.
    pub(super) const fn as_word(&self) -> &'static str {
        match self {
            Self::Signal(_) => "signal",
            Self::Requested(_) => "requested",
            Self::StartFailed(_) => "start_failed",
            Self::WorkerFailed(_) => "worker_failed",
            Self::Replaced(_) => "replaced",
            Self::Dropped => "dropped",
        }
    }

    /// Whether the log has it as an error.
    pub(super) const fn is_failure(&self) -> bool {
        matches!(self, Self::StartFailed(_) | Self::WorkerFailed(_))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(signal) => f.write_str(&signal_name(*signal)),
            Self::Requested(why) => write!(f, "requested: {why}"),
            Self::StartFailed(why) => write!(f, "start failed: {why}"),
            Self::WorkerFailed(how) => f.write_str(how),
            Self::Replaced(id) => write!(f, "replaced by process {id}"),
            Self::Dropped => f.write_str("the last handle was dropped"),
        }
    }
}

/// How a hook ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It did its work.
    Done,
    /// It returned this error.
    Failed(String),
    /// It panicked with this message.
    Panicked(String),
    /// It was still running at the end of its time, and was left behind.
    Overran,
    /// It was still running when a signal hurried the stop, and was left behind before its time was over.
    LeftBehind,
    /// Its phase was over before its turn came.
    NotRun,
}

impl Outcome {
    /// The outcome in one lower-case word, as in the JSON.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed(_) => "failed",
            Self::Panicked(_) => "panicked",
            Self::Overran => "overran",
            Self::LeftBehind => "left_behind",
            Self::NotRun => "not_run",
        }
    }

    /// Whether it was left behind, and had not ended when the report was made.
    pub(super) const fn goes_on(&self) -> bool {
        matches!(self, Self::Overran | Self::LeftBehind)
    }

    /// What it failed or panicked with.
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::Failed(message) | Self::Panicked(message) => Some(message),
            _ => None,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(message) => write!(f, "failed ({message})"),
            Self::Panicked(message) => write!(f, "panicked ({message})"),
            Self::NotRun => f.write_str("not run"),
            Self::LeftBehind => f.write_str("left behind"),
            Self::Done | Self::Overran => f.write_str(self.as_str()),
        }
    }
}

/// How one hook ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HookReport {
    /// The hook's name; `close NAME` for the closing of a participant, `worker GROUP/NAME` for a worker,
    /// and `undo NAME` for what undoes the work of a start-up hook.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it ran, or how long it was waited for. Zero if it was not run.
    pub took: Duration,
}

/// How long the program was in one phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PhaseReport {
    /// The phase.
    pub phase: Phase,
    /// The time in it.
    pub took: Duration,
}

/// The account of a stop.
///
/// It prints on one line, turns into JSON, and is what `main` may return: it implements
/// [`Termination`], with [`exit_code`](Self::exit_code).
///
/// ```
/// use touchdown::lifecycle::{exit_code, BuildError, Lifecycle, Report};
///
/// fn main() -> Result<Report, BuildError> {
///     let lifecycle = Lifecycle::builder().build()?;
///     lifecycle.shutdown("nothing to do");
///     let report = lifecycle.wait();
///     assert_eq!(report.exit_code(), exit_code::CLEAN);
///     Ok(report)
/// }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// Why the stop began.
    pub reason: Reason,
    /// The time from the beginning of the stop to its end.
    pub took: Duration,
    /// The phases that the program went through, in order, without
    /// [`Phase::Stopped`](super::Phase::Stopped).
    pub phases: Vec<PhaseReport>,
    /// What became of the calls of all participants.
    pub calls: Calls,
    /// How many connections were cut on which something may have been lost; see
    /// [`Participant::connections_cut`](super::Participant::connections_cut).
    pub connections_cut: u64,
    /// Whether something in flight was told to stop before its end, an answer did not arrive, or a connection was
    /// cut on which something may have been lost.
    pub forced: bool,
    /// What was still in flight when the wait for it ended, and which hooks, workers and reloads were
    /// left behind.
    pub abandoned: Vec<String>,
    /// The start-up hooks, in the order in which they were added.
    pub startup: Vec<HookReport>,
    /// The closing of the participants, then the workers that ran when the stop began, then the hooks,
    /// each in the order in which they were added, then the undoing of the start-up hooks.
    pub hooks: Vec<HookReport>,
}

impl Report {
    /// The report of a program that failed before it had a lifecycle to tell. Says why in the log, as a lifecycle does.
    pub fn failed_start(error: impl fmt::Display) -> Self {
        let reason = Reason::StartFailed(error.to_string());
        let line = one_line(&reason.to_string());
        logging::error!(reason = reason.as_word(), exit_code = exit_code::FAILED_START; "{line}");
        // The program may end by other ways than to return the report.
        logging::flush(logging::AT_THE_END);
        Self {
            reason,
            took: Duration::ZERO,
            phases: Vec::new(),
            calls: Calls::default(),
            connections_cut: 0,
            forced: false,
            abandoned: Vec::new(),
            startup: Vec::new(),
            hooks: Vec::new(),
        }
    }

    /// The code with which the program should exit; see [`exit_code`](mod@exit_code).
    pub fn exit_code(&self) -> u8 {
        if matches!(self.reason, Reason::StartFailed(_)) {
            exit_code::FAILED_START
        } else if matches!(self.reason, Reason::WorkerFailed(_)) {
            exit_code::WORKER_FAILED
        } else if self.forced {
            exit_code::FORCED
        } else if self.hooks.iter().any(|hook| hook.outcome != Outcome::Done)
            || self.startup.iter().any(|it| it.outcome.goes_on())
        {
            exit_code::CLOSING_FAILED
        } else {
            exit_code::CLEAN
        }
    }

    /// The report as a JSON object on one line. Times are in milliseconds, with microseconds
    /// behind the point.
    pub fn to_json(&self) -> String {
        let mut out = String::from("{\"reason\":");
        let detail = match &self.reason {
            Reason::Signal(signal) => Some(signal_name(*signal)),
            Reason::Requested(why) | Reason::StartFailed(why) | Reason::WorkerFailed(why) => {
                Some(why.clone())
            }
            Reason::Replaced(id) => Some(id.to_string()),
            Reason::Dropped => None,
        };
        push_string(&mut out, self.reason.as_word());
        out.push_str(",\"detail\":");
        push_optional(&mut out, detail.as_deref());
        let _ = write!(out, ",\"exit_code\":{},\"took_ms\":", self.exit_code());
        push_millis(&mut out, self.took);
        out.push_str(",\"phases\":");
        push_list(&mut out, &self.phases, |out, phase| {
            out.push_str("{\"phase\":");
            push_string(out, phase.phase.as_word());
            out.push_str(",\"took_ms\":");
            push_millis(out, phase.took);
            out.push('}');
        });
        let Calls {
            completed,
            refused,
            caller_left,
            undelivered,
            cut,
            told_to_stop,
            abandoned,
        } = self.calls;
        let _ = write!(
            out,
            ",\"calls\":{{\"completed\":{completed},\"refused\":{refused},\
             \"caller_left\":{caller_left},\"undelivered\":{undelivered},\"cut\":{cut},\"told_to_stop\":{told_to_stop},\"abandoned\":{abandoned}}}"
        );
        let _ = write!(
            out,
            ",\"connections_cut\":{},\"forced\":{},\"abandoned\":",
            self.connections_cut, self.forced
        );
        push_list(&mut out, &self.abandoned, |out, name| {
            push_string(out, name)
        });
        out.push_str(",\"startup\":");
        push_list(&mut out, &self.startup, push_hook);
        out.push_str(",\"hooks\":");
        push_list(&mut out, &self.hooks, push_hook);
        out.push('}');
        out
    }
}

impl Report {
    /// The report on one line. Without `why`, it does not say again what has failed and was logged as that.
    pub(super) fn line(&self, why: bool) -> String {
        let code = self.exit_code();
        let verdict = match code {
            exit_code::FAILED_START => "failed to start",
            exit_code::WORKER_FAILED => "stopped for a worker that failed",
            exit_code::FORCED => "stopped by force",
            exit_code::CLOSING_FAILED => "stopped, closing failed",
            _ => "stopped cleanly",
        };
        let mut line = format!("{verdict} in {:.1?} (exit {code})", self.took);
        if why || !self.reason.is_failure() {
            let _ = write!(line, ": {}", self.reason);
        }
        for (place, phase) in self.phases.iter().enumerate() {
            let between = if place == 0 { "; " } else { ", " };
            let _ = write!(line, "{between}{} {:.1?}", phase.phase, phase.took);
        }
        let _ = write!(
            line,
            "; calls: {} completed, {} refused, {} left by their callers, {} undelivered, {} cut, \
             {} told to stop, {} abandoned",
            self.calls.completed,
            self.calls.refused,
            self.calls.caller_left,
            self.calls.undelivered,
            self.calls.cut,
            self.calls.told_to_stop,
            self.calls.abandoned
        );
        if self.connections_cut > 0 {
            let _ = write!(line, "; connections cut: {}", self.connections_cut);
        }
        for (kind, hooks) in [("start-up", &self.startup), ("hooks", &self.hooks)] {
            for (place, hook) in hooks.iter().enumerate() {
                let between = if place == 0 { "; " } else { ", " };
                let kind = if place == 0 {
                    format!("{kind}: ")
                } else {
                    String::new()
                };
                let outcome = match why {
                    true => hook.outcome.to_string(),
                    false => hook.outcome.as_str().replace('_', " "),
                };
                let _ = write!(
                    line,
                    "{between}{kind}{} {outcome} in {:.1?}",
                    hook.name, hook.took
                );
            }
        }
        if !self.abandoned.is_empty() {
            let _ = write!(line, "; abandoned: {}", some_of(&self.abandoned));
        }
        one_line(&line)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line(true))
    }
}

impl Termination for Report {
    /// Writes to standard error why a start, or a worker, failed, as `main` does with an `Err`, if there is no logger
    /// that takes errors. If there is, it has it already.
    fn report(self) -> ExitCode {
        if let Reason::StartFailed(why) | Reason::WorkerFailed(why) = &self.reason {
            if !logging::may_be_enabled(log::Level::Error) {
                write_error(format!("Error: {why}\n"));
            }
        }
        self.into()
    }
}

/// Writes this to standard error, and does not wait for a reader that hangs.
fn write_error(text: String) {
    let (done, is_done) = bounded::<()>(0);
    let write = move || {
        let _ = io::stderr().write_all(text.as_bytes());
        drop(done);
    };
    // Without a thread it is not worth the risk: the log has it as well.
    if thread::Builder::new().spawn(write).is_ok() {
        let _ = is_done.recv_timeout(ERROR_TIME);
    }
}

impl From<Report> for ExitCode {
    /// What was logged has been written then, or is not going to be.
    fn from(report: Report) -> Self {
        logging::flush(logging::AT_THE_END);
        ExitCode::from(report.exit_code())
    }
}

/// The first of many, so that a line in the log stays one that can be read.
pub(super) fn some_of(names: &[String]) -> String {
    const MANY: usize = 20;
    let mut line = names[..names.len().min(MANY)].join(", ");
    if names.len() > MANY {
        let _ = write!(line, " and {} more", names.len() - MANY);
    }
    line
}

fn push_hook(out: &mut String, hook: &HookReport) {
    out.push_str("{\"name\":");
    push_string(out, &hook.name);
    out.push_str(",\"outcome\":");
    push_string(out, hook.outcome.as_str());
    out.push_str(",\"message\":");
    push_optional(out, hook.outcome.message());
    out.push_str(",\"took_ms\":");
    push_millis(out, hook.took);
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            reason: Reason::Requested("a \"quoted\\\" word\n\u{1}ü".to_owned()),
            took: Duration::from_micros(12_345),
            phases: vec![PhaseReport {
                phase: Phase::LameDuck,
                took: Duration::from_micros(7),
            }],
            calls: Calls {
                completed: 5,
                ..Calls::default()
            },
            connections_cut: 0,
            forced: false,
            abandoned: Vec::new(),
            startup: Vec::new(),
            hooks: vec![HookReport {
                name: "journal".to_owned(),
                outcome: Outcome::Done,
                took: Duration::from_millis(2),
            }],
        }
    }

    #[test]
    fn json_escapes_what_must_be_escaped() {
        assert_eq!(
            report().to_json(),
            concat!(
                r#"{"reason":"requested","detail":"a \"quoted\\\" word\n\u0001ü","exit_code":0,"#,
                r#""took_ms":12.345,"phases":[{"phase":"lame_duck","took_ms":0.007}],"#,
                r#""calls":{"completed":5,"refused":0,"caller_left":0,"undelivered":0,"cut":0,"told_to_stop":0,"abandoned":0},"#,
                r#""connections_cut":0,"forced":false,"abandoned":[],"startup":[],"#,
                r#""hooks":[{"name":"journal","outcome":"done","#,
                r#""message":null,"took_ms":2.000}]}"#
            )
        );
    }

    #[test]
    fn it_prints_on_one_line() {
        let line = report().to_string();
        assert!(!line.contains('\n'), "{line}");
        assert!(
            line.starts_with("stopped cleanly in 12.3ms (exit 0): requested: a "),
            "{line}"
        );
        assert!(line.ends_with("; hooks: journal done in 2.0ms"), "{line}");
    }

    #[test]
    fn a_failed_start_or_worker_outranks_force_which_outranks_a_failed_hook() {
        let mut report = report();
        assert_eq!(report.exit_code(), exit_code::CLEAN);
        report.hooks[0].outcome = Outcome::Overran;
        assert_eq!(report.exit_code(), exit_code::CLOSING_FAILED);
        report.forced = true;
        assert_eq!(report.exit_code(), exit_code::FORCED);
        report.reason = Reason::StartFailed("no such port".to_owned());
        assert_eq!(report.exit_code(), exit_code::FAILED_START);
        report.reason = Reason::WorkerFailed("worker pump/poll failed: gone".to_owned());
        assert_eq!(report.exit_code(), exit_code::WORKER_FAILED);
    }

    #[test]
    fn the_code_after_a_third_signal_is_the_shells() {
        assert_eq!(exit_code::third_signal(15), 143);
        assert_eq!(exit_code::third_signal(2), 130);
    }
}
