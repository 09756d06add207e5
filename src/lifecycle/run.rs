//! The whole life of a program in one call: build, start, set up, be ready, wait for the end.

use std::panic::{self, AssertUnwindSafe};

use super::builder::Builder;
use super::handle::Lifecycle;
use super::hook::Failure;
use super::report::Report;
use crate::text::with_causes;
use crate::thrown::message_of;

impl Builder {
    /// Builds the lifecycle, and runs the program under it; see [`Lifecycle::run`]. If it cannot be built, the report says
    /// why, with [`exit_code::FAILED_START`](super::exit_code::FAILED_START).
    ///
    /// ```no_run
    /// use touchdown::lifecycle::{Hook, Lifecycle, Report, Signals};
    ///
    /// fn main() -> Report {
    ///     Lifecycle::builder().signals(Signals::process()).run(|lifecycle| {
    ///         let journal = std::fs::File::create("/var/lib/pump/journal")?;
    ///         lifecycle.hook(Hook::new("journal", move || Ok(journal.sync_all()?)))?;
    ///         println!("ready");
    ///         Ok(())
    ///     })
    /// }
    /// ```
    pub fn run(self, set_up: impl FnOnce(&Lifecycle) -> Result<(), Failure>) -> Report {
        match self.build() {
            Ok(lifecycle) => lifecycle.run(set_up),
            Err(error) => Report::failed_start(with_causes(&error)),
        }
    }
}

impl Lifecycle {
    /// Runs a program: the [start-up hooks](Self::start), then `set_up`, then the program is [ready](Self::ready), and this
    /// waits until it has [stopped](Self::wait).
    ///
    /// An error or a panic of `set_up` is a failed start: the program stops, with
    /// [`exit_code::FAILED_START`](super::exit_code::FAILED_START), and what had started is undone. If a stop begins before,
    /// `set_up` is not run; what it fails with once a stop has begun is no failure. Nothing of what it owns is needed
    /// afterwards: let it hand on to workers, participants and hooks what is to stay.
    ///
    /// ```
    /// use touchdown::lifecycle::{exit_code, Lifecycle};
    ///
    /// let lifecycle = Lifecycle::builder().build()?;
    /// let report = lifecycle.run(|_| Err("no such device".into()));
    /// assert_eq!(report.reason.to_string(), "start failed: no such device");
    /// assert_eq!(report.exit_code(), exit_code::FAILED_START);
    /// # Ok::<(), touchdown::lifecycle::BuildError>(())
    /// ```
    pub fn run(&self, set_up: impl FnOnce(&Lifecycle) -> Result<(), Failure>) -> Report {
        if self.start().is_ok() {
            match panic::catch_unwind(AssertUnwindSafe(|| set_up(self))) {
                // Refused if a stop has begun, and `wait` says how that went.
                Ok(Ok(())) => drop(self.ready()),
                Ok(Err(error)) => self.fail(with_causes(&*error)),
                Err(panic) => self.fail(format!("panicked: {}", message_of(panic))),
            }
        }
        self.wait()
    }
}
