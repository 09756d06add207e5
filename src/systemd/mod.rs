//! Tells systemd how the program is: ready, reloading, stopping and how far, alive.
//!
//! # When to use
//!
//! In a program that systemd starts from a unit with `Type=notify` (or `notify-reload`). Without
//! NOTIFY_SOCKET in its environment nothing here does anything: no thread is started, and nothing is sent.
//! The feature `systemd` brings it in, with the server or with the lifecycle alone.
//!
//! `ServerBuilder::systemd` is all that a server with a lifecycle of its own needs. Any other program
//! calls [`Notify::attach`]:
//!
//! ```
//! use touchdown::lifecycle::Lifecycle;
//! use touchdown::systemd::Notify;
//!
//! let lifecycle = Lifecycle::builder().build()?;
//! Notify::attach(&lifecycle)?;
//! lifecycle.ready()?; // READY=1
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is sent, and when
//!
//! | message | when |
//! |---|---|
//! | `STATUS=starting`, with EXTEND_TIMEOUT_USEC if there are start-up hooks: the longest time that they can take, and [`MARGIN`] | at the attaching |
//! | `READY=1`, `STATUS=serving` | [`Phase::Serving`] begins |
//! | `RELOADING=1`, MONOTONIC_USEC | before the reload callbacks run |
//! | `READY=1`, STATUS, with what became of callbacks that failed | after them |
//! | `STOPPING=1`, STATUS with the reason | the stop begins |
//! | STATUS: the phase, how many calls are left, the time in the phase; in Closing what runs | each phase of the stop begins; what changes is told once a second at the most, and the time every 5 s |
//! | EXTEND_TIMEOUT_USEC | with each of these, if something has changed but the time |
//! | `STATUS=stopped: …` | the stop is over |
//! | `WATCHDOG=1` | twice in each WATCHDOG_USEC, if the program has passed the check |
//! | MAINPID | another process takes over (an [upgrade](#hot-restart)): by the old process, and with READY by the new one |
//! | FDSTORE, FDSTOREREMOVE, FDNAME | `ServerBuilder::store_listeners`, `Notify::store_listeners` |
//!
//! A phase is told with what its name is in the log, so `systemctl status` shows, say, `draining: 3
//! calls left, 12 s of 30 s`.
//!
//! # How long a stop may take
//!
//! `TimeoutStopSec` in the unit may be shorter than the [`Plan`](crate::lifecycle::Plan). It then
//! limits how long a stop may go on *without progress*: whenever a call lands or a hook ends, systemd is asked for
//! [`EXTENSION`] more, and as each phase begins, for what that phase is sure to take. Never is it asked for more than is left
//! until the plan's hard deadline, and [`MARGIN`]. Once nothing changes any more, nothing is asked for, and systemd's
//! own limit holds.
//!
//! # The watchdog
//!
//! With `WatchdogSec` in the unit, `WATCHDOG=1` is sent only if the program can do its work: the
//! lifecycle's guard thread has answered, and so has each participant by
//! [`Participant::check`](crate::lifecycle::Participant::check). A server answers from a thread that polls, after it has come
//! to a check of the server's health. Busy workers do not matter, nor what the program says of its health: NOT_SERVING is an
//! answer. If all threads that poll hang, or the process is stopped, nothing is sent, and systemd ends the process.
//!
//! A program that no watchdog watches, and that is in Serving, is never woken by this.
//!
//! # Hot restart
//!
//! While a new process is to take over from this one (`Upgrade`), it tells systemd nothing. Once it is sure that
//! it does, the old process names it with MAINPID in place of STOPPING, and says nothing more; then the new one sends MAINPID and
//! READY, and feeds the watchdog. So an upgrade that fails leaves no trace, each of the two speaks only while it is
//! systemd's main process, and the unit needs no more than `NotifyAccess=main`.
//!
//! # Limits
//!
//! * Messages are sent by a thread of their own, `td-systemd`, so a supervisor that hangs holds up nothing. The end
//!   of the program waits for the last message, half a second at the most.
//! * A NOTIFY_SOCKET in the abstract namespace (`@…`), which systemd itself does not use any more, is not supported: the log says so.
//! * NOTIFY_SOCKET stays in the environment, and so is inherited by the program's children. `NotifyAccess=main` in the
//!   unit, which is the default, keeps them from being heard.

mod event;
mod extension;
mod messenger;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "upgrade")]
mod store;
mod watchdog;

use std::env;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{bounded, unbounded, RecvTimeoutError, Sender};

use crate::lifecycle::{Lifecycle, Phase, Reason, ReloadEvent, Remote, Transition, PATIENCE};

use self::event::Event;
pub use self::extension::{EXTENSION, MARGIN};
use self::messenger::Messenger;

/// What tells systemd of a lifecycle. Clones are the same; dropping them ends nothing.
#[derive(Clone, Debug)]
pub struct Notify {
    /// `None` if there is nobody to tell.
    events: Option<Sender<Event>>,
}

impl Notify {
    /// Has systemd told of this lifecycle, from now until it has stopped. To be called before
    /// [`Lifecycle::ready`]. The second time for a lifecycle it returns the first again.
    ///
    /// # Errors
    ///
    /// If no thread can be started. Without NOTIFY_SOCKET none is needed.
    pub fn attach(lifecycle: &Lifecycle) -> io::Result<Notify> {
        if env::var_os("NOTIFY_SOCKET").is_none_or(|it| it.is_empty()) {
            return Ok(Notify { events: None });
        }
        if let Some(attached) = Self::of(lifecycle) {
            return Ok(attached);
        }
        let view = lifecycle.remote();
        let (sender, events) = unbounded();
        let notify = Notify {
            events: Some(sender),
        };
        // Now, since they may begin to run as soon as this returns.
        let startup = view.startup_limit();
        // Before anything is attached. If it cannot be started, another try finds all as it was.
        let (begin, has_begun) = bounded::<Messenger>(1);
        thread::Builder::new()
            .name("td-systemd".to_owned())
            .spawn(move || has_begun.iter().for_each(|it| it.run(startup)))?;
        if view.attach(Arc::new(notify.clone())).is_err() {
            // Another thread was faster. This one's messenger ends without a word.
            return Ok(Self::of(lifecycle).unwrap_or(Notify { events: None }));
        }
        let phases = view.announcements("systemd", patience(lifecycle.remote()));
        let _ = begin.send(Messenger::new(lifecycle.remote(), phases, events));
        view.observe_reloads({
            let notify = notify.clone();
            move |event| match event {
                // The callbacks run once systemd knows.
                ReloadEvent::Began => drop(notify.ask(Event::ReloadBegan)),
                ReloadEvent::Ended { failures } => {
                    notify.tell(Event::ReloadEnded(failures.clone()));
                }
            }
        });
        Ok(notify)
    }

    /// What is attached to this lifecycle, if anything is.
    pub fn of(lifecycle: &Lifecycle) -> Option<Notify> {
        lifecycle.attached::<Notify>().map(|it| Notify::clone(&it))
    }

    fn tell(&self, event: Event) {
        if let Some(events) = &self.events {
            // Once the lifecycle has stopped nobody listens.
            let _ = events.send(event);
        }
    }

    /// Waits until the event has been dealt with, for as long as [`PATIENCE`] says.
    fn ask(&self, event: impl FnOnce(Sender<io::Result<()>>) -> Event) -> io::Result<()> {
        if self.events.is_none() {
            return Ok(());
        }
        let (done, answer) = bounded(1);
        self.tell(event(done));
        answer.recv_timeout(PATIENCE).unwrap_or_else(|error| {
            Err(match error {
                RecvTimeoutError::Timeout => io::Error::new(
                    io::ErrorKind::TimedOut,
                    "systemd takes no messages from its notify socket",
                ),
                RecvTimeoutError::Disconnected => {
                    io::Error::new(io::ErrorKind::NotConnected, "the program has stopped")
                }
            })
        })
    }
}

/// How long the walk waits until systemd has been told of a phase.
fn patience(program: Remote) -> impl Fn(&Transition) -> Duration {
    move |transition| match transition.to {
        // Afterwards the process may end.
        Phase::Stopped => PATIENCE,
        // Once Draining begins, the new process is told to take over.
        Phase::LameDuck if matches!(program.reason(), Some(Reason::Replaced(_))) => PATIENCE,
        _ => Duration::ZERO,
    }
}
