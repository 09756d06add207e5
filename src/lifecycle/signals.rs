//! Where a lifecycle hears signals from: nowhere, the process, or a test.
//!
//! The first TERM or INT begins the stop, the second skips to
//! [`Phase::Cancelling`](super::Phase::Cancelling), the third exits at once with 128 + its number.
//! Only signals are counted: after a stop that was begun by other means, the first signal changes
//! nothing.
//!
//! In the signal handler itself only two things happen, both provided by signal-hook and safe
//! there: a flag is set, and a byte is written to the guard thread's socket. Signals of one number
//! that arrive before the guard thread has taken up the first of them count as one, just as the
//! kernel holds only one of each pending.
//!
//! # After the stop
//!
//! Once the last lifecycle that listens has stopped, TERM and INT have their default action again:
//! they end the process. So a program that hangs in its own code after
//! [`wait`](super::Lifecycle::wait) returned can be ended as usual. A program that handles TERM or
//! INT by other means beside a lifecycle should not let the lifecycle listen to the process; call
//! [`shutdown`](super::Lifecycle::shutdown) from its own handling instead.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level, SigId};

use crate::sync::{Arc, Bell, Mutex};

/// The signals that stop a program.
const STOP_SIGNALS: [i32; 2] = [SIGTERM, SIGINT];

/// Where a lifecycle hears signals from.
pub struct Signals(Source);

enum Source {
    None,
    Process,
    Injected(Arc<Injection>),
}

impl Signals {
    /// No signals: the program stops by other means. This is the default.
    pub const fn none() -> Self {
        Self(Source::None)
    }

    /// The process's own TERM and INT.
    ///
    /// Several lifecycles in one process may listen; each hears every signal.
    pub const fn process() -> Self {
        Self(Source::Process)
    }

    /// Signals sent by the returned sender, which act as the process's own would, without being
    /// raised.
    ///
    /// ```
    /// use touchdown::lifecycle::{Lifecycle, Reason, Signals};
    ///
    /// let (signals, sender) = Signals::injected();
    /// let lifecycle = Lifecycle::builder().signals(signals).build()?;
    /// sender.send(15);
    /// assert_eq!(lifecycle.wait().reason, Reason::Signal(15));
    /// # Ok::<(), touchdown::lifecycle::BuildError>(())
    /// ```
    pub fn injected() -> (Self, SignalSender) {
        let injection = Arc::new(Injection::default());
        (
            Self(Source::Injected(Arc::clone(&injection))),
            SignalSender { injection },
        )
    }

    pub(super) fn are_of_process(&self) -> bool {
        matches!(self.0, Source::Process)
    }

    /// Begins to listen. Every arrival rings `wake`.
    ///
    /// # Errors
    ///
    /// If the operating system refuses a signal handler or a file descriptor.
    pub(super) fn listen(self, wake: &Bell) -> io::Result<Listener> {
        let mut listener = Listener::default();
        match self.0 {
            Source::None => {}
            Source::Process => {
                install_default_actions()?;
                for signal in STOP_SIGNALS {
                    // The flag first: actions run in the order of their registration, and who is
                    // woken must find the flag.
                    let arrived = Arc::new(AtomicBool::new(false));
                    listener
                        .ids
                        .push(flag::register(signal, Arc::clone(&arrived))?);
                    listener.ids.push(wake.ring_on(signal)?);
                    listener.flags.push((signal, arrived));
                }
                listener.listening = Some(Listening::begin());
            }
            Source::Injected(injection) => {
                injection.state.lock().wake = Some(wake.try_clone()?);
                listener.injection = Some(injection);
            }
        }
        Ok(listener)
    }
}

impl Default for Signals {
    fn default() -> Self {
        Self::none()
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::None => "Signals::none()",
            Source::Process => "Signals::process()",
            Source::Injected(_) => "Signals::injected()",
        })
    }
}

/// Sends signals to the one lifecycle that was built with the other half of
/// [`Signals::injected`].
#[derive(Clone)]
pub struct SignalSender {
    injection: Arc<Injection>,
}

impl SignalSender {
    /// Sends a signal by its number, as `kill` would: 15 is TERM, 2 is INT.
    ///
    /// What is sent before the lifecycle is built reaches it then; what is sent after it stopped
    /// is dropped. No two signals are merged, so that a test can count on each.
    pub fn send(&self, signal: i32) {
        let mut state = self.injection.state.lock();
        state.queue.push_back(signal);
        if let Some(wake) = &state.wake {
            wake.ring();
        }
    }
}

impl fmt::Debug for SignalSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignalSender")
    }
}

#[derive(Default)]
struct Injection {
    /// Held for a push or a take, so that a sender sees the lifecycle or the lifecycle the signal.
    state: Mutex<Injected>,
}

#[derive(Default)]
struct Injected {
    queue: VecDeque<i32>,
    wake: Option<Bell>,
}

/// The receiving end, owned by the guard thread. Stops listening when dropped.
#[derive(Default)]
pub(super) struct Listener {
    flags: Vec<(i32, Arc<AtomicBool>)>,
    injection: Option<Arc<Injection>>,
    ids: Vec<SigId>,
    listening: Option<Listening>,
}

impl Listener {
    /// The next signal that arrived and was not taken yet. Never blocks on the program.
    pub(super) fn take(&self) -> Option<i32> {
        if let Some(injection) = &self.injection {
            return injection.state.lock().queue.pop_front();
        }
        // SeqCst pairs with the store in signal-hook's handler, which comes before its write to
        // the socket.
        let arrived = self
            .flags
            .iter()
            .find(|(_, flag)| flag.swap(false, Ordering::SeqCst));
        arrived.map(|(signal, _)| *signal)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The default action comes back before our own goes: at no moment is a signal swallowed.
        drop(self.listening.take());
        for id in self.ids.drain(..) {
            low_level::unregister(id);
        }
        if let Some(injection) = &self.injection {
            *injection.state.lock() = Injected::default();
        }
    }
}

/// True while no lifecycle listens to the process. Read by signal-hook in the signal handler
/// (SeqCst), written under `LISTENERS`.
static NOBODY_LISTENS: AtomicBool = AtomicBool::new(true);

/// Signal handlers are global, and so is the count of who needs them.
static LISTENERS: parking_lot::Mutex<Listeners> = parking_lot::Mutex::new(Listeners {
    count: 0,
    installed: false,
});

struct Listeners {
    count: usize,
    installed: bool,
}

/// Once a process: signal-hook never gives a signal back to the system, so the default action is
/// run by a handler of its own, as long as nobody listens.
fn install_default_actions() -> io::Result<()> {
    let mut listeners = LISTENERS.lock();
    if !listeners.installed {
        for signal in STOP_SIGNALS {
            flag::register_conditional_default(signal, &NOBODY_LISTENS)?;
        }
        listeners.installed = true;
    }
    Ok(())
}

/// One lifecycle that listens to the process.
struct Listening(());

impl Listening {
    fn begin() -> Self {
        let mut listeners = LISTENERS.lock();
        listeners.count += 1;
        NOBODY_LISTENS.store(false, Ordering::SeqCst);
        Self(())
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut listeners = LISTENERS.lock();
        listeners.count -= 1;
        NOBODY_LISTENS.store(listeners.count == 0, Ordering::SeqCst);
    }
}

/// The signal's name where it has one, else its number.
pub(super) fn signal_name(signal: i32) -> String {
    low_level::signal_name(signal).map_or_else(|| format!("signal {signal}"), str::to_owned)
}
