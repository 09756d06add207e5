//! Succession: how another process takes the place of this one, and this one the place of another.
//!
//! The lifecycle does not know how that is done. It knows when: before Serving begins a process that is to replace
//! another has to show that it works; SIGUSR2 asks for a new process; and a program that ends waits until it is clear
//! who is in charge. What does it implements [`Succession`] and is given to the builder. Hot restart is one.

use std::time::Duration;

use super::pid_file::PidFile;
use super::remote::Remote;
use super::report::Reason;
use crate::logging;
use crate::sync::Arc;

/// How long after a pid file could not be written it is tried again: often enough for a script that looks for a minute,
/// and seldom enough for a disk that is in trouble.
const PID_FILE_AGAIN: Duration = Duration::from_secs(1);

/// Lets another process take the place of this one, and this one the place of another. Given to
/// [`Builder::succession`](super::Builder::succession).
///
/// A panic in any of these is logged. In [`prove_ready`](Self::prove_ready), and in what it returns, it fails the start.
///
/// ```
/// use std::sync::Arc;
/// use touchdown::lifecycle::{Lifecycle, Remote, Standing, Succession};
///
/// /// Two processes share a lock: the second one becomes ready when the first one has let it go.
/// struct OneAtATime;
///
/// impl Succession for OneAtATime {
///     fn prove_ready(self: Arc<Self>, program: &Remote) -> Result<Standing, String> {
///         // Take the lock, or give up once `program.stopping()` is cancelled.
///         Ok(Standing::InCharge)
///     }
///     fn replace(&self, program: &Remote) {
///         // Start the new process, and once it waits for the lock:
///         program.shutdown("a new process takes over");
///     }
/// }
///
/// let lifecycle = Lifecycle::builder().succession(|| Arc::new(OneAtATime)).build()?;
/// lifecycle.ready()?;
/// assert!(lifecycle.attached::<OneAtATime>().is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Succession: Send + Sync + 'static {
    /// The last thing before [`Phase::Serving`](super::Phase::Serving), when the start-up hooks are done: shows that
    /// this process works, and waits until it may serve. It may block, and gives up once the program is
    /// [stopping](Remote::stopping). [`Lifecycle::ready`](super::Lifecycle::ready) calls it each time.
    ///
    /// # Errors
    ///
    /// Why this process cannot serve. The start has failed then.
    fn prove_ready(self: Arc<Self>, program: &Remote) -> Result<Standing, String>;

    /// Whether this process is to replace another, and has not begun to show that it can.
    fn is_candidate(&self) -> bool {
        false
    }

    /// A stop has begun before Serving: this process will not take anybody's place. Must not block.
    fn start_failed(&self, why: &str) {
        let _ = why;
    }

    /// SIGUSR2 has come: starts a process that takes the place of this one. Runs on a thread of its own, and may block.
    fn replace(&self, program: &Remote);

    /// The program is about to end, and waits for this: the processes that are there have to know by then which of them
    /// is in charge. It should wait for seconds at the most.
    fn settle(&self) {}
}

/// Who may begin to serve.
pub enum Standing {
    /// This process: it has no other before it.
    InCharge,
    /// This process, beside the one that it replaces, which is in charge until further notice. The closure is called once
    /// the program is in Serving; its error begins a stop. If a stop begins before, it is dropped instead.
    Beside(Box<dyn FnOnce() -> Result<(), String> + Send>),
    /// Not the thread that asks: a stop has begun, or another thread has asked before.
    Nobody,
}

/// What a [`Succession`] does to the lifecycle.
impl Remote {
    /// Begins to stop, in favour of the process with this id. Says false if another stop has begun already.
    pub fn begin_replaced(&self, id: u32) -> bool {
        self.shared().try_begin_stop(Reason::Replaced(id))
    }

    /// The process in favour of which this one stops has ended before it was in charge. The stop goes on, for another
    /// reason.
    pub fn successor_is_gone(&self, id: u32) {
        let why = format!("to be replaced by process {id}, which ended before it took over");
        let reason = Some(Reason::Requested(why));
        let _old = std::mem::replace(&mut self.shared().control.lock().reason, reason);
    }

    /// Does beforehand what could go wrong when this process takes over: writes its id beside the pid file.
    ///
    /// # Errors
    ///
    /// Why it cannot be written.
    pub fn prepare_charge(&self) -> Result<(), String> {
        self.shared().with_pid_file(PidFile::prepare)
    }

    /// The process that this one replaces is about to go: this one is in charge. Says false if the pid file does not
    /// say so yet; the log says why.
    pub fn take_charge(&self) -> bool {
        // First: a script that reads the file may ask for a successor at once.
        self.shared().in_charge.cancel();
        let published = self.shared().with_pid_file(PidFile::publish);
        if let Err(why) = &published {
            logging::error!("{why}; it names the process before this one, and is tried again");
        }
        published.is_ok()
    }

    /// Tries again every second to write the pid file, until it is written or the program stops.
    pub fn insist_on_pid_file(&self) {
        while !self.stopping().wait_timeout(PID_FILE_AGAIN) {
            if self.shared().with_pid_file(PidFile::publish).is_ok() {
                logging::warn!("the pid file is written at last");
                return;
            }
        }
    }

    /// Removes what the process with this id has prepared, which was to replace this one and has ended.
    pub fn tidy_up_after(&self, process: u32) {
        if let Some(file) = &self.shared().pid_file {
            file.remove_prepared_by(process);
        }
    }
}
