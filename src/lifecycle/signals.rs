//! Where a lifecycle hears signals from: nowhere, the process, or a test.
//!
//! | signal | what it does |
//! |---|---|
//! | TERM, INT | the first begins the stop, the second skips to [`Phase::Cancelling`](super::Phase::Cancelling), the third exits at once with 128 + its number |
//! | HUP | runs the [reload callbacks](super::Builder::on_reload); if there are none, begins the stop |
//! | USR1 | writes to standard error [what the program is at](super::Lifecycle::describe) |
//! | USR2 | has a new process take over, if the lifecycle was built with a [`Succession`](super::Succession); else it is left as it is |
//!
//! Only TERM and INT are counted: after a stop that was begun by other means, HUP included, the
//! first of them changes nothing.
//!
//! # The same wish twice
//!
//! TERM and INT are one wish, to stop, and the same wish twice is one wish: a TERM or an INT that comes
//! within 1 s after the last one that counted does not count, so it neither cancels nor exits. A supervisor that sends
//! TERM to a whole group of processes, a wrapper that hands on what the terminal sends to both, a unit's `ExecStop=kill`
//! beside systemd's own signal: each of these says twice what somebody wants once, milliseconds apart. An
//! operator who wants more than to stop has seen that it takes long, and that takes longer than a second. The second counts only while the
//! process runs.
//!
//! What is [injected](Signals::injected) counts at any distance.
//!
//! HUP also comes when a terminal goes away, and must not cost a call then. A program that was
//! started with HUP ignored, as `nohup` does, does not stop for it.
//!
//! In the signal handler itself only two things happen, both provided by signal-hook and safe
//! there: a flag is set, and a byte is written to the guard thread's socket. Signals of one number
//! that arrive before the guard thread has taken up the first of them count as one, just as the
//! kernel holds only one of each pending.
//!
//! # At the start
//!
//! Until the first lifecycle that listens is built, each signal does what the system says; from then on,
//! what this table says. In between the thread that builds it holds signals back, since signal-hook
//! installs its handler first and then says what it has to do. The other threads do not, so build the
//! lifecycle before you start any: the kernel may give a signal to each, and one that takes it in those
//! microseconds loses it.
//!
//! A program may be started with these signals blocked, by one that waits for its own with `sigwait` or a `signalfd`
//! and does not think of what it starts. They would never arrive, and nothing but SIGKILL would end the program. So the
//! thread that builds the lifecycle unblocks those that are heard, for itself and for all that it starts from then on, the
//! lifecycle's own threads first of all; one that waits already is heard at once.
//!
//! # After the stop
//!
//! Once the last lifecycle that listens has stopped, TERM, INT and HUP have their default action
//! again: they end the process. So a program that hangs in its own code after
//! [`wait`](super::Lifecycle::wait) returned can be ended as usual. USR1 and USR2 do nothing from then
//! on; a late question for the state, or for a successor, must not end the program. A program that handles one of these signals by
//! other means beside a lifecycle should not let the lifecycle listen to the process; call
//! [`shutdown`](super::Lifecycle::shutdown) and [`reload`](super::Lifecycle::reload) from its own
//! handling instead.

use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::{flag, low_level, SigId};

use crate::sync::{hold_signals, Arc, Bell, Mutex};

/// The signals that are heard, in the order in which those are taken that came together. The last only
/// by a program that can be replaced.
const HEARD: [i32; 5] = [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2];

/// For how long after a TERM or INT that counted another is the same wish. What comes twice by itself comes
/// within some milliseconds, on a busy machine within some hundred; somebody who loses patience takes longer.
const SAME_WISH: Duration = Duration::from_secs(1);

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

    /// The process's own TERM, INT, HUP and USR1, and USR2 if it can be replaced.
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

    /// Whether HUP was ignored when the process was started, as `nohup` does it. A handler of this module hides that from
    /// what the process starts. False as long as no lifecycle has listened to the process.
    pub fn is_hang_up_ignored() -> bool {
        LISTENERS.lock().hang_up_was_ignored == Some(true)
    }

    pub(super) fn are_none(&self) -> bool {
        matches!(self.0, Source::None)
    }

    pub(super) fn are_of_process(&self) -> bool {
        matches!(self.0, Source::Process)
    }

    /// Begins to listen. Every arrival rings `wake`.
    ///
    /// # Errors
    ///
    /// If the operating system refuses a signal handler or a file descriptor.
    pub(super) fn listen(self, wake: &Bell, hears_replace: bool) -> io::Result<Listener> {
        let mut listener = Listener::default();
        match self.0 {
            Source::None => {}
            Source::Process => {
                let held = hold_signals(&HEARD)?;
                listener.hang_up_is_ignored = install_default_actions()?;
                let heard = HEARD.into_iter();
                for signal in heard.filter(|it| *it != SIGUSR2 || hears_replace) {
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
                held.let_in(listener.flags.iter().map(|(signal, _)| *signal))?;
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
    /// Sends a signal by its number, as `kill` would: 15 is TERM, 2 is INT, 1 is HUP; USR1 is 10 on
    /// most machines.
    ///
    /// What is sent before the lifecycle is built reaches it then; what is sent after it stopped
    /// is dropped. No two signals are merged, and none is taken for a repeated wish, so that a test can count on each.
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
    hang_up_is_ignored: bool,
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

    /// Whether a wish may be heard twice that was meant once.
    pub(super) fn repeats(&self) -> bool {
        self.injection.is_none()
    }

    /// Whether the process was started with HUP ignored, which is to stay so.
    pub(super) fn is_hang_up_ignored(&self) -> bool {
        self.hang_up_is_ignored
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

/// Counts the signals that stop the program.
#[derive(Default)]
pub(super) struct Wishes {
    counted: u32,
    /// When the last one that counted came.
    last: Option<Duration>,
}

impl Wishes {
    /// One has come when the clock of the stop said `now`; zero if it is this one that begins the stop. Returns
    /// which it is, unless it `repeats` the last one.
    pub(super) fn count(&mut self, now: Duration, repeats: bool) -> Option<u32> {
        let same = |last: Duration| now.saturating_sub(last) < SAME_WISH;
        if repeats && self.last.is_some_and(same) {
            return None;
        }
        self.counted = self.counted.saturating_add(1);
        self.last = Some(now);
        Some(self.counted)
    }
}

/// True while no lifecycle listens to the process. Read by signal-hook in the signal handler
/// (SeqCst), written under `LISTENERS`.
static NOBODY_LISTENS: AtomicBool = AtomicBool::new(true);

/// Signal handlers are global, and so is the count of the lifecycles that need them.
static LISTENERS: parking_lot::Mutex<Listeners> = parking_lot::Mutex::new(Listeners {
    count: 0,
    hang_up_was_ignored: None,
});

struct Listeners {
    count: usize,
    /// Known once the default actions are installed.
    hang_up_was_ignored: Option<bool>,
}

/// Once a process: signal-hook never gives a signal back to the system, so the default action is
/// run by a handler of its own, as long as nobody listens. Returns whether HUP was ignored before.
fn install_default_actions() -> io::Result<bool> {
    let mut listeners = LISTENERS.lock();
    if let Some(was_ignored) = listeners.hang_up_was_ignored {
        return Ok(was_ignored);
    }
    let is_ignored = is_ignored(SIGHUP);
    for signal in [SIGTERM, SIGINT] {
        flag::register_conditional_default(signal, &NOBODY_LISTENS)?;
    }
    if !is_ignored {
        flag::register_conditional_default(SIGHUP, &NOBODY_LISTENS)?;
    }
    listeners.hang_up_was_ignored = Some(is_ignored);
    Ok(is_ignored)
}

/// Whether the process ignores the signal, as far as /proc can be read (proc(5), `SigIgn`).
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|it| it.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|it| u64::from_str_radix(it.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 != 0)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(moments: &[u64], repeats: bool) -> Vec<Option<u32>> {
        let mut wishes = Wishes::default();
        let moments = moments.iter().copied().map(Duration::from_millis);
        moments.map(|now| wishes.count(now, repeats)).collect()
    }

    #[test]
    fn a_wish_within_a_second_of_the_last_one_that_counted_is_the_same() {
        assert_eq!(
            counted(&[0, 50, 300, 999, 1000, 1999, 2000], true),
            [Some(1), None, None, None, Some(2), None, Some(3)]
        );
        // However often it is repeated, it does not put off the next one.
        assert_eq!(counted(&[7, 900, 1800], true), [Some(1), None, Some(2)]);
    }

    #[test]
    fn what_is_injected_counts_each_time() {
        assert_eq!(counted(&[0, 0, 1], false), [Some(1), Some(2), Some(3)]);
    }
}
