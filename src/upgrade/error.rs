//! Why a program was not replaced.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Why the program was not replaced. It goes on as before, unless it is [stopping](Self::Stopping).
///
/// Its text says all that is known: there is no [`source`](Error::source) beside it.
#[derive(Debug)]
#[non_exhaustive]
pub enum UpgradeError {
    /// The lifecycle was built without an [`Upgrade`](super::Upgrade).
    NotConfigured,
    /// The program has not come to Serving yet.
    Starting,
    /// The program is stopping. Or it had begun to, in favour of a new process that ended before it took over.
    Stopping,
    /// Another upgrade is under way.
    UnderWay,
    /// The supervisor of this process would not follow the new one: why, and what to do instead. Nothing was
    /// started. See [`Upgrade::under_any_supervisor`](super::Upgrade::under_any_supervisor).
    Supervisor(String),
    /// The system does not say from which file this process was started: set
    /// [`Upgrade::program`](super::Upgrade::program).
    NoProgram(io::Error),
    /// The new process could not be started.
    Spawn {
        /// The file.
        program: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The system has not come to the file in time: a card or a network that hangs.
    FileHangs {
        /// The file.
        program: PathBuf,
        /// [`Upgrade::ready_within`](super::Upgrade::ready_within).
        limit: Duration,
    },
    /// The new process has said that it cannot start: why.
    StartFailed(String),
    /// The new process has failed its [smoke test](super::Upgrade), the program's own or the one that every server has
    /// to pass: which server, and why.
    SmokeTest(String),
    /// The new process was not ready in time.
    NotReadyInTime {
        /// [`Upgrade::ready_within`](super::Upgrade::ready_within).
        limit: Duration,
        /// What it has said last that it waits for, if it has.
        waits_for: Option<String>,
    },
    /// The new process has ended.
    Exited {
        /// How.
        status: ExitStatus,
        /// Whether it had shown before that it works.
        was_ready: bool,
    },
    /// The new process does not answer, after both have served side by side.
    Hangs {
        /// How long it was waited for.
        limit: Duration,
    },
    /// The new process does not do as a process should that is to replace another: what.
    Failed(String),
}

impl fmt::Display for UpgradeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConfigured => f.write_str(
                "the lifecycle was built without an Upgrade: give its builder one, by Builder::upgrade",
            ),
            Self::Starting => f.write_str("the program is still starting: ask again once it serves"),
            Self::Stopping => f.write_str("the program is stopping"),
            Self::UnderWay => f.write_str("another upgrade is under way: its outcome comes first"),
            Self::NoProgram(error) => write!(
                f,
                "the path of this program is not known ({error}): set Upgrade::program"
            ),
            Self::Spawn { program, source } => {
                write!(f, "cannot start {}: {source}", program.display())
            }
            Self::FileHangs { program, limit } => write!(
                f,
                "{} has not answered within {limit:?}",
                program.display()
            ),
            Self::StartFailed(why) => write!(f, "the new process could not start: {why}"),
            Self::SmokeTest(why) => {
                write!(f, "the new process could not start: {SMOKE_TEST}{why}")
            }
            Self::NotReadyInTime { limit, waits_for } => {
                write!(f, "the new process was not ready within {limit:?}: ")?;
                match waits_for {
                    Some(what) => f.write_str(what),
                    None => f.write_str(
                        "it was at what the program does before it is ready, as start-up hooks; is Upgrade::ready_within \
                         long enough for that?",
                    ),
                }
            }
            Self::Exited { status, was_ready } => {
                write!(f, "the new process ended {}: {status}", when(*was_ready))
            }
            Self::Hangs { limit } => {
                write!(f, "the new process hangs: no answer within {limit:?}")
            }
            Self::Supervisor(why) | Self::Failed(why) => f.write_str(why),
        }
    }
}

/// How the new process begins the reason if it has failed its smoke test.
pub(super) const SMOKE_TEST: &str = "smoke test: ";

impl UpgradeError {
    /// For the reason that the new process gives.
    pub(super) fn of_new_process(why: String) -> UpgradeError {
        match why.strip_prefix(SMOKE_TEST) {
            Some(why) => UpgradeError::SmokeTest(why.to_owned()),
            None => UpgradeError::StartFailed(why),
        }
    }
}

pub(super) fn when(was_ready: bool) -> &'static str {
    match was_ready {
        true => "soon after it was ready",
        false => "before it was ready",
    }
}

impl Error for UpgradeError {}
