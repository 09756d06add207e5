//! The life of a program: from its start, through serving, to a stop that loses nothing.
//!
//! Stopping a threaded program well is a walk, not an event. Somebody has to hear the signal, tell
//! the load balancer, let nothing new in, wait for what is in flight, at some point stop waiting,
//! flush and close, and exit with a code that says how it went. All of it has to end by a
//! known time, even if a thread hangs. This module is that walk. It knows nothing of gRPC, and
//! can be used alone in any program made of threads.
//!
//! # The phases
//!
//! | phase | what holds | ends when |
//! |---|---|---|
//! | [`Starting`](Phase::Starting) | not ready; a stop asked for here goes straight to Closing | [`Lifecycle::ready`] is called, and the start-up hooks are done |
//! | [`Serving`](Phase::Serving) | ready | a signal, or [`Lifecycle::shutdown`] |
//! | [`LameDuck`](Phase::LameDuck) | serves everything, but says "not ready" | its time is over |
//! | [`Draining`](Phase::Draining) | takes in nothing new; what is in flight goes on | the last has left, or the grace period is over |
//! | [`Cancelling`](Phase::Cancelling) | what remains has been told to leave | it left, or the force period is over |
//! | [`Closing`](Phase::Closing) | participants close and workers are joined, then the hooks run, then start-up is undone | all are finished, or out of time |
//! | [`Stopped`](Phase::Stopped) | the [`Report`] and its exit code are known | |
//!
//! A [`Plan`] says how long each may take. A second signal skips to Cancelling, a third exits at
//! once, and when the plan's hard deadline passes the process writes what is still running to its
//! standard error and exits.
//!
//! The times of a plan, and the limits of hooks, count only while the process runs: one that is stopped, frozen
//! with its container or moved to another machine in the middle of a drain goes on afterwards where it was. So
//! they are looked at four times a second during a stop, and a pause counts as a quarter of a second at the most, or, if it is
//! too short to be told from a thread that was late, as what it was.
//!
//! # Start-up
//!
//! A [`StartupHook`] is a named piece of work to do before the program is ready, and may have an
//! [`undo`](StartupHook::undo). [`Lifecycle::ready`] runs all of them, in the order of their
//! dependencies and each within its time limit. [`Lifecycle::start`] runs them earlier, for programs that have
//! something to do in between. If one fails, panics or overruns, the start has failed: nothing more
//! is started, what had started is undone, the last first, and the exit code is
//! [`FAILED_START`](exit_code::FAILED_START). After a stop that begins in the meantime, and after
//! every other one, the same is undone at the end of Closing. A hook that was left behind and does its
//! work after all is undone as well, as long as the process is there.
//!
//! # Reloads
//!
//! SIGHUP, or [`Lifecycle::reload`], runs the callbacks given to [`Builder::on_reload`], on a thread
//! made for it and never twice at the same time; requests that come meanwhile make one more run. A
//! callback that fails has to leave the old state in place, and the log says so. Without callbacks HUP
//! begins a stop, since a terminal that goes away must not cost a call, but it is never taken for a
//! second or a third signal. A stop does not wait for a reload; one that hangs is named in the last
//! words.
//!
//! # What it is at
//!
//! SIGUSR1 has the state of the program written to standard error: the phase, the hooks that run, how
//! many works are in flight, and of each participant its state and what it runs. This is what the
//! last words at a hard deadline say, it needs no thread of the program, and it works at any time.
//! [`Lifecycle::describe`] returns the same.
//!
//! While a stop waits for what is in flight, the log says so after 1 s, and then every 5 s: `draining
//! for 6s: 3 in flight, oldest: pump: stroke 7 for 12.3s`, with the oldest of each participant.
//!
//! # The log
//!
//! A log can block: its reader hangs, its disk is full. No thread of this crate waits for it. Lines are put into a queue of
//! 1,024, and a thread, `td-log`, hands them to the program's logger in their order; it is there as long as there
//! are lines, and a second longer. What does not fit in is dropped, and the log says how many lines that were. The
//! end of the stop waits for the last of them, up to a second; less if none is taken meanwhile.
//!
//! # Anatomy
//!
//! * [`Lifecycle`] walks the phases, on a thread of its own. Observers see every transition.
//! * [`Builder::run`] is the whole life of a program in one call.
//! * [`Token`] is the broadcast: is it time to stop? Threads look at it or wait for it. Its [`Canceller`] says so.
//! * [`InFlight`] is what is behind the gate: a thread that does work enters it, and the drain waits until all
//!   have left. A [`Gate`] of your own is for a part of a program.
//! * [`Participant`] is a part of the program with work of its own, such as a server.
//! * [`WorkerGroup`] spawns threads that are not calls, tells them to stop and joins them; see
//!   [`Worker`].
//! * [`Hook`] is a piece of work for Closing, [`StartupHook`] one for Starting.
//! * [`Signals`] says where signals come from: the process, a test, or nowhere.
//! * [`Report`] says what happened.
//! * [`Remote`] is what a companion holds of a lifecycle: metrics, a registry, a supervisor's messenger. It sees the
//!   program and is no handle on it. With it come attachments, observers of phases and of reloads, [`Announcer`]s, which
//!   may block for a while, and [checks](Lifecycle::check).
//! * [`Succession`] is how another process takes the place of this one.
//!
//! # Limits
//!
//! * Unix only.
//! * A thread cannot be ended from outside. Work that does not look at its token, and hooks that
//!   hang, are left behind and named, and end with the process.
//! * The walk, the guard and its errands each need a thread, and all together three file descriptors, two more
//!   if they listen to the process's signals.
//!
//! # Example
//!
//! ```
//! use std::thread;
//! use touchdown::lifecycle::{exit_code, Lifecycle};
//!
//! let lifecycle = Lifecycle::builder().build()?;
//! let worker = thread::spawn({
//!     let lifecycle = lifecycle.clone();
//!     move || {
//!         let mut done = 0;
//!         // Refused once the drain begins.
//!         while let Ok(_guard) = lifecycle.in_flight().enter() {
//!             done += 1; // A unit of work that is not to be torn apart.
//!         }
//!         done
//!     }
//! });
//! lifecycle.ready()?;
//! lifecycle.shutdown("the example is over");
//! let report = lifecycle.wait();
//! assert_eq!(report.exit_code(), exit_code::CLEAN);
//! worker.join().unwrap();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod announcer;
mod attachments;
mod builder;
mod calls;
mod check;
mod closing;
mod errand_run;
mod errands;
mod handle;
mod hook;
mod hook_run;
mod hooks;
mod in_flight;
mod json;
mod names;
mod observers;
mod one_at_a_time;
mod own_threads;
mod participant;
mod phase;
mod pid_file;
mod plan;
mod reload;
mod reloading;
mod remote;
mod report;
mod run;
mod seat;
mod seats;
mod sentry;
mod serving;
mod shutdown;
mod signals;
mod startup;
mod startup_run;
mod state;
mod succession;
mod walk;
mod watch;
mod words;
mod worker;
mod worker_restart;
mod workers;

pub use self::announcer::Announcer;
pub use self::builder::{BuildError, Builder};
pub use self::calls::Calls;
pub use self::check::{Check, CheckError, Checking};
pub use self::handle::Lifecycle;
pub use self::hook::{Hook, HookError};
pub use self::in_flight::{Closed, Gate, Guard, InFlight, OwnedGuard};
pub use self::observers::{Announcement, PATIENCE};
pub use self::participant::Participant;
pub use self::phase::{Phase, Transition};
pub use self::plan::{Plan, PlanError};
pub use self::reload::ReloadEvent;
pub use self::remote::{Progress, Remote};
pub use self::report::{exit_code, HookReport, Outcome, PhaseReport, Reason, Report};
pub use self::shutdown::{Canceller, Never, Token};
pub use self::signals::{SignalSender, Signals};
pub use self::startup::StartupHook;
pub use self::state::Stopping;
pub use self::succession::{Standing, Succession};
pub use self::worker::{Worker, WorkerResult};
pub use self::worker_restart::Restart;
pub use self::workers::{SpawnError, WorkerGroup};
