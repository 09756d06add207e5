//! Announcers: what tells others of the phases, and may block for a while as it does so.
//!
//! # When to use
//!
//! An observer runs on the thread that walks the phases: while it blocks, the stop stands still. A receiver of
//! transitions is free to block, and the stop does not wait for it, so a registry may learn that the program leaves when
//! its listener is closed already. An announcer is between the two. It runs on a thread of its own, hears each phase in
//! order, and the walk goes on once it has done its work, or is out of patience.
//!
//! # How long the walk waits
//!
//! In each phase for all announcers at the same time, for each of them as long as its patience says: [`PATIENCE`], if it
//! says nothing. One that is late is left behind: it hears the phases that follow in their order, and the walk does not
//! wait for it again until it has caught up; but for the last phase it waits once more, since the process may end then.
//! So an announcer that hangs costs a stop twice its patience. Only time counts in which the process runs. Once somebody is
//! in a hurry (a second signal), none is waited for in a phase for longer than [`PATIENCE`].

use std::fmt;
use std::io;
use std::time::Duration;

use super::names::thread_name;
use super::observers::{Announcement, Observer, Outlet, PATIENCE};
use super::phase::Transition;
use super::remote::Remote;
use crate::caught::caught;
use crate::sync::{bounded, thread, unbounded, Arc, Receiver};

type Work = Box<dyn FnMut(&Transition) + Send>;

/// A closure that is told each phase, on a thread of its own; see
/// [`Lifecycle::announce`](super::Lifecycle::announce).
///
/// ```
/// use std::time::Duration;
/// use touchdown::lifecycle::{Announcer, Lifecycle, Phase};
///
/// # fn deregister() {}
/// let lifecycle = Lifecycle::builder().build()?;
/// let registry = Announcer::new("registry", |transition| {
///     if transition.to == Phase::LameDuck {
///         deregister(); // By the network, so it may take a while.
///     }
/// });
/// lifecycle.announce(registry.patience(Duration::from_secs(2)))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "an announcer does nothing until it is given to a lifecycle"]
pub struct Announcer {
    name: String,
    patience: Duration,
    work: Work,
}

impl Announcer {
    /// An announcer that is waited for as long as [`PATIENCE`] says. The name is for the log, and for the thread, which is
    /// called `td-NAME`.
    ///
    /// A panic in `work` is logged, and it is called again with the next phase.
    pub fn new(
        name: impl Into<String>,
        work: impl FnMut(&Transition) + Send + 'static,
    ) -> Announcer {
        Announcer {
            name: name.into(),
            patience: PATIENCE,
            work: Box::new(work),
        }
    }

    /// Sets how long the walk waits for it in a phase.
    pub fn patience(mut self, time: Duration) -> Announcer {
        self.patience = time;
        self
    }

    pub(super) fn start(self, program: &Remote) -> io::Result<()> {
        let Announcer {
            name,
            patience,
            mut work,
        } = self;
        let (start, started) = bounded::<Receiver<Announcement>>(1);
        let thread = thread::Builder::new().name(thread_name(&format!("td-{name}")));
        thread.spawn(move || {
            let Ok(announcements) = started.recv() else {
                return;
            };
            for announcement in announcements.iter() {
                caught("announcer", || work(&announcement.transition));
            }
            caught("dropping an announcer", || drop(work));
        })?;
        let announcements = program.announcements(name, move |_| patience);
        // The thread waits for it.
        let _ = start.send(announcements);
        Ok(())
    }
}

impl fmt::Debug for Announcer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Announcer")
            .field("name", &self.name)
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

impl Remote {
    /// A channel on which every transition from now on arrives once, in order, and the walk waits until it is announced:
    /// for a companion that has a thread of its own already. Else see [`Announcer`].
    ///
    /// `patience` says how long the walk waits in this phase, [`Duration::ZERO`] for not at all. It is asked on the thread
    /// that walks, and must not block. The channel is disconnected after the last transition.
    ///
    /// ```
    /// use std::thread;
    /// use touchdown::lifecycle::{Lifecycle, PATIENCE};
    ///
    /// let lifecycle = Lifecycle::builder().build()?;
    /// let announcements = lifecycle.remote().announcements("board", |_| PATIENCE);
    /// let board = thread::spawn(move || {
    ///     // The walk goes on at the end of each round.
    ///     announcements.iter().map(|it| it.transition().to.to_string()).collect::<Vec<_>>()
    /// });
    /// lifecycle.shutdown("the example is over");
    /// assert_eq!(board.join().unwrap(), ["closing", "stopped"]);
    /// # Ok::<(), touchdown::lifecycle::BuildError>(())
    /// ```
    pub fn announcements(
        &self,
        name: impl Into<String>,
        patience: impl Fn(&Transition) -> Duration + Send + Sync + 'static,
    ) -> Receiver<Announcement> {
        let (sender, receiver) = unbounded();
        let outlet = Outlet::new(name.into(), sender, patience);
        self.add_observer(Observer::Outlet(Arc::new(outlet)));
        receiver
    }
}
