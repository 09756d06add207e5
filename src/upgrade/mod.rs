//! Hot restart: another process takes over the listening sockets, and only if it works.
//!
//! The old process starts the new one with its listening sockets. The new one starts up, tests
//! itself, and says that it is ready; only then may it accept connections, and only when it has done
//! so for a while does the old one stop, by its plan and without losing a call. Until then the old
//! one serves as if nothing had happened, and whatever goes wrong with the new one leaves it so.

mod config;
mod error;
mod patience;
mod predecessor;
mod successor;
mod supervisor;
mod wire;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use self::patience::Patience;
use self::successor::Candidate;
use self::wire::{Control, Message};
use crate::lifecycle::{Handover, Phase, Remote, Standing, Succession, Token};
use crate::logging;
use crate::sockets::inherited::Inherited;
use crate::text::one_line;

pub use self::config::Upgrade;
pub use self::error::UpgradeError;

/// How long the end of the program waits for an upgrade to be over, which a stop ends: longer than anything that is
/// waited for in its course.
const SETTLED_WITHIN: Duration = Duration::from_secs(5);

/// A part of the program that another process can take over.
pub(crate) trait Part: Send + Sync + 'static {
    /// Copies of its listening sockets.
    fn hand_over(&self) -> io::Result<Vec<Inherited>>;

    /// Whether another process has them, so that the connections that wait to be accepted, and a socket's path, are
    /// left to that one.
    fn set_handed_over(&self, handed_over: bool);

    /// Whether it works. Gives up waiting once a stop has begun. What it waits for, it tells `waits`.
    fn smoke_test(&self, stopping: &Token, waits: &dyn Fn(&str)) -> Result<(), String>;

    /// It may accept connections from now on.
    fn open(&self);

    /// Has `answer` run by the thread that has to go on for this part to work. Must not block.
    fn check(&self, answer: Box<dyn FnOnce() + Send>);

    /// The process that had its sockets before is gone, or about to go.
    fn take_charge(&self);
}

/// What a lifecycle knows of upgrades: the one that it may begin, and the one that it came from.
pub(crate) struct Upgrades {
    config: Upgrade,
    /// Where the process was started from, before anybody could replace the file.
    program: io::Result<PathBuf>,
    busy: Mutex<Busy>,
    /// Goes with `busy`: something is over.
    over: Condvar,
    /// The way to a new process that was not told to take over.
    not_in_charge: Mutex<Weak<Control>>,
    parts: Mutex<Parts>,
    /// Whether this process was started to replace another.
    has_predecessor: bool,
    candidate: Mutex<Option<Result<Candidate, String>>>,
    /// Whether `candidate` has begun to show that it works, or given up: the lock is held meanwhile.
    has_begun: AtomicBool,
}

/// What the end of the program waits for; see [`Upgrades::settle`].
#[derive(Default)]
struct Busy {
    /// An upgrade.
    upgrade: bool,
    /// This process serves, and is not in charge yet.
    awaits_charge: bool,
}

/// An upgrade; dropped when it is over.
struct UnderWay<'a>(&'a Upgrades);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.busy.lock().upgrade = false;
        self.0.over.notify_all();
    }
}

struct Parts {
    /// What is added may accept connections at once.
    are_open: bool,
    list: Vec<Weak<dyn Part>>,
}

impl Upgrades {
    fn new(config: Upgrade) -> Upgrades {
        let candidate = Candidate::of_process();
        Upgrades {
            config,
            program: config::started_from(),
            busy: Mutex::default(),
            over: Condvar::new(),
            not_in_charge: Mutex::default(),
            parts: Mutex::new(Parts {
                are_open: candidate.is_none(),
                list: Vec::new(),
            }),
            has_predecessor: candidate.is_some(),
            candidate: Mutex::new(candidate),
            has_begun: AtomicBool::new(false),
        }
    }

    /// Adds a part that accepts no connection yet.
    pub(crate) fn add(&self, part: Arc<dyn Part>) {
        let mut parts = self.parts.lock();
        parts.list.push(Arc::downgrade(&part));
        if parts.are_open {
            part.open();
            part.take_charge();
        }
    }

    fn parts(&self) -> Vec<Arc<dyn Part>> {
        let mut parts = self.parts.lock();
        parts.list.retain(|part| part.strong_count() > 0);
        parts.list.iter().filter_map(Weak::upgrade).collect()
    }

    /// Lets every part accept connections.
    fn open(&self) {
        let mut parts = self.parts.lock();
        parts.are_open = true;
        parts
            .list
            .iter()
            .filter_map(Weak::upgrade)
            .for_each(|it| it.open());
    }

    /// Replaces the program, and returns the new process's id; or says why not, and logs it.
    fn replace_and_log(&self, program: &Handover) -> Result<u32, UpgradeError> {
        let result = self.begin(program);
        match &result {
            Ok(_) => {}
            Err(UpgradeError::Stopping) => logging::warn!("no upgrade: the program is stopping"),
            Err(why) => {
                let line = format!("upgrade: {why}; this process goes on");
                logging::error!("{}", one_line(&line));
            }
        }
        result
    }

    fn begin(&self, program: &Handover) -> Result<u32, UpgradeError> {
        if std::mem::replace(&mut self.busy.lock().upgrade, true) {
            return Err(UpgradeError::UnderWay);
        }
        let _under_way = UnderWay(self);
        refuse_unless_serving(program)?;
        predecessor::replace(self, program)
    }

    fn is_settled_within(&self, limit: Duration) -> bool {
        let mut patience = Patience::new(limit);
        let mut busy = self.busy.lock();
        while busy.upgrade || busy.awaits_charge {
            let Some(time) = patience.next() else {
                return false;
            };
            self.over.wait_for(&mut busy, time);
        }
        true
    }
}

impl Succession for Upgrades {
    /// If this process is to replace another: shows that it works, and waits until it may serve.
    fn prove_ready(self: Arc<Self>, program: &Handover) -> Result<Standing, String> {
        let mut candidate = self.candidate.lock();
        // It decides nothing but what `is_candidate` says.
        self.has_begun.store(true, Ordering::Relaxed);
        let Some(candidate) = candidate.take() else {
            return Ok(match self.has_predecessor {
                true => Standing::Nobody,
                false => Standing::InCharge,
            });
        };
        let Some(proven) = candidate?.prove_ready(&self, program)? else {
            return Ok(Standing::Nobody);
        };
        let upgrades = Arc::clone(&self);
        Ok(Standing::Beside(Box::new(move || proven.serve(&upgrades))))
    }

    fn is_candidate(&self) -> bool {
        // The program may ask in its own smoke test, on the thread that holds the lock.
        self.has_predecessor && !self.has_begun.load(Ordering::Relaxed)
    }

    /// Tells the process that this one was to replace, if it was.
    fn start_failed(&self, why: &str) {
        self.has_begun.store(true, Ordering::Relaxed);
        // The thread that holds the lock is at it already.
        if let Some(Ok(candidate)) = self.candidate.try_lock().and_then(|mut it| it.take()) {
            candidate.give_up(why);
        }
    }

    fn replace(&self, program: &Handover) {
        // The log has what becomes of it.
        let _ = self.replace_and_log(program);
    }

    /// Waits until a new process that is not to take over has been told so, and one that is, too; and until it is
    /// clear whether this one has taken over from another. Then each process knows what it has to remove.
    fn settle(&self) {
        if !self.is_settled_within(SETTLED_WITHIN) {
            // The thread that should say it does not come to it: it waits for the log, say.
            if let Some(control) = self.not_in_charge.lock().upgrade() {
                let _ = control.say(&Message::Leave);
            }
            logging::error!("the upgrade that is under way does not come to its end");
        }
    }
}

fn refuse_unless_serving(program: &Remote) -> Result<(), UpgradeError> {
    let is_in_charge = program.in_charge().is_cancelled();
    match program.phase() {
        _ if program.reason().is_some() => Err(UpgradeError::Stopping),
        // A script that has read the pid file may be faster than the last step to Serving.
        Phase::Starting if !is_in_charge => Err(UpgradeError::Starting),
        // The one that has started this process may come back yet.
        _ if !is_in_charge => Err(UpgradeError::UnderWay),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
