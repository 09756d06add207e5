//! What only one process can have: a device, a lock, a file that is written. It is opened once this process is in charge.

use std::fmt::Display;
use std::time::Duration;

use super::handle::Lifecycle;
use super::remote::Remote;
use super::state::Stopping;
use crate::logging;
use crate::running_time::SLICE;

impl Remote {
    /// Waits until this process is [in charge](Lifecycle::in_charge), and then calls `open` until it succeeds, with a pause
    /// after each failure: the process before this one may take a moment to let it go. For a
    /// [worker](super::Worker), or any other thread that may wait.
    ///
    /// The log has the first failure, each that says something else, and the success after them. `name` is for the log.
    ///
    /// ```
    /// use std::fs::File;
    /// use std::time::Duration;
    /// use touchdown::lifecycle::{Lifecycle, Worker};
    ///
    /// let lifecycle = Lifecycle::builder().build()?;
    /// let program = lifecycle.remote();
    /// let read = Worker::new("meter", move |token| {
    ///     let open = || File::open("/dev/null");
    ///     let Ok(_meter) = program.open_in_charge("meter", Duration::from_secs(1), open) else {
    ///         return; // The program stops.
    ///     };
    ///     while !token.wait_timeout(Duration::from_millis(200)) {
    ///         // Read the meter.
    ///     }
    /// });
    /// lifecycle.workers("devices").spawn(read)?;
    /// lifecycle.ready()?;
    /// # lifecycle.shutdown("the example is over");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Stopping`] if a stop begins before it is open.
    pub fn open_in_charge<T, E: Display>(
        &self,
        name: &str,
        pause: Duration,
        mut open: impl FnMut() -> Result<T, E>,
    ) -> Result<T, Stopping> {
        let shared = self.shared();
        if !self.wait_for_charge() {
            shared.control.lock().refuse_if_stopping()?;
        }
        let mut said: Option<String> = None;
        loop {
            match open() {
                Ok(it) => {
                    if said.is_some() {
                        let line = shared.titled(&format!("{name}: open at last"));
                        logging::info!(device = name; "{line}");
                    }
                    return Ok(it);
                }
                Err(error) => {
                    let text = error.to_string();
                    if said.as_ref() != Some(&text) {
                        let line = format!(
                            "{name}: cannot be opened: {text}; tried again every {pause:?}"
                        );
                        logging::warn!(device = name; "{}", shared.titled(&line));
                        said = Some(text);
                    }
                }
            }
            if self.stopping().wait_timeout(pause) {
                shared.control.lock().refuse_if_stopping()?;
            }
        }
    }

    /// Waits until this process is in charge. Says false if it stops before.
    fn wait_for_charge(&self) -> bool {
        let (in_charge, stopping) = (self.in_charge(), self.stopping());
        while !in_charge.is_cancelled() {
            if stopping.is_cancelled() {
                return false;
            }
            // One of the two is waited for, and the other one looked at.
            in_charge.wait_timeout(SLICE);
        }
        true
    }
}

impl Lifecycle {
    /// See [`Remote::open_in_charge`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn open_in_charge<T, E: Display>(
        &self,
        name: &str,
        pause: Duration,
        open: impl FnMut() -> Result<T, E>,
    ) -> Result<T, Stopping> {
        self.remote().open_in_charge(name, pause, open)
    }
}
