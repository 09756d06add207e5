//! What the walk tells of each transition: callbacks on its own thread, and outlets, for which it waits a while.

use std::fmt;
use std::time::Duration;

use super::phase::{Phase, Transition};
use super::shutdown::{Never, Token};
use crate::caught::caught;
use crate::logging;
use crate::running_time::{RunningTime, SLICE};
use crate::sync::{bounded, Arc, Instant, Mutex, Receiver, RecvTimeoutError, Sender};
use crate::text::one_line;

/// How long the walk waits for an announcer of which nothing else was said. To tell somebody on the same machine takes
/// a system call; what takes longer than this hangs.
pub const PATIENCE: Duration = Duration::from_millis(500);

/// What is told of each transition.
#[derive(Clone)]
pub(super) enum Observer {
    /// On the thread that walks. It has no name but that of its type, which says where it was written.
    Callback(Arc<dyn Fn(&Transition) + Send + Sync>, &'static str),
    Outlet(Arc<Outlet>),
}

impl Observer {
    pub(super) fn callback<F: Fn(&Transition) + Send + Sync + 'static>(call: F) -> Observer {
        Observer::Callback(Arc::new(call), std::any::type_name::<F>())
    }
}

/// A transition that the walk waits to be announced: until this is dropped, or until it is out of patience.
#[must_use = "once it is dropped, the walk goes on"]
pub struct Announcement {
    pub(super) transition: Transition,
    _done: Sender<Never>,
}

impl Announcement {
    /// What is to be announced.
    pub fn transition(&self) -> &Transition {
        &self.transition
    }
}

impl fmt::Debug for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Announcement")
            .field("transition", &self.transition)
            .finish_non_exhaustive()
    }
}

/// Where announcements go to.
pub(super) struct Outlet {
    name: String,
    sender: Sender<Announcement>,
    patience: Box<dyn Fn(&Transition) -> Duration + Send + Sync>,
    last: Mutex<Option<Last>>,
}

/// The announcement that an outlet was given last.
struct Last {
    /// Disconnected once it is done.
    done: Receiver<Never>,
    /// Whether the walk has waited for it, or for one before it that was late.
    is_waited_for: bool,
}

/// An announcement that was made.
pub(super) struct Made {
    outlet: Arc<Outlet>,
    done: Receiver<Never>,
    patience: Duration,
}

impl Outlet {
    pub(super) fn new(
        name: String,
        sender: Sender<Announcement>,
        patience: impl Fn(&Transition) -> Duration + Send + Sync + 'static,
    ) -> Outlet {
        Outlet {
            name,
            sender,
            patience: Box::new(patience),
            last: Mutex::default(),
        }
    }

    /// Passes on a transition. Returns what to wait for.
    pub(super) fn announce(self: &Arc<Self>, transition: Transition) -> Option<Made> {
        let last = self.last.lock().take();
        // One that was not waited for may be under way, and is not late.
        let is_behind = last.is_some_and(|it| it.is_waited_for && !is_done(&it.done));
        let (_done, done) = bounded(0);
        let patience = caught("patience of an announcer", || (self.patience)(&transition));
        let patience = patience.unwrap_or_default();
        *self.last.lock() = Some(Last {
            done: done.clone(),
            is_waited_for: is_behind || !patience.is_zero(),
        });
        // Nobody hears of it any more: then it is done.
        let _ = self.sender.send(Announcement { transition, _done });
        if is_behind && transition.to != Phase::Stopped {
            return None;
        }
        Some(Made {
            outlet: Arc::clone(self),
            done,
            patience,
        })
    }
}

impl Made {
    /// Waits until all are done, or the walk is out of patience with those that are not. In a hurry that is so no
    /// later than after [`PATIENCE`].
    pub(super) fn wait_for_all(all: &[Made], transition: &Transition, hurried: &Token) {
        let mut time = RunningTime::begin(Instant::now());
        let mut passed = Duration::ZERO;
        for made in all {
            while !is_done(&made.done) {
                let patience = match hurried.is_cancelled() {
                    true => made.patience.min(PATIENCE),
                    false => made.patience,
                };
                let left = patience.saturating_sub(passed);
                if left.is_zero() {
                    if !made.patience.is_zero() {
                        made.log(transition);
                    }
                    break;
                }
                let _ = made.done.recv_timeout(left.min(SLICE));
                passed = time.pass(Instant::now(), SLICE);
            }
        }
    }

    fn log(&self, transition: &Transition) {
        let Outlet { name, .. } = &*self.outlet;
        let (phase, patience) = (transition.to, self.patience);
        let line = format!("announcer {name} has not told of {phase} within {patience:?}");
        logging::warn!("{}", one_line(&line));
    }
}

fn is_done(it: &Receiver<Never>) -> bool {
    let ended = it.recv_timeout(Duration::ZERO);
    matches!(ended, Err(RecvTimeoutError::Disconnected))
}
