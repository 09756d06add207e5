//! Hot restart: another process takes over the listening sockets, and only if it works.
//!
//! The old process starts the new one with its listening sockets. The new one starts up, tests
//! itself, and says that it is ready; only then may it accept connections, and only when it has done
//! so for a while does the old one stop, by its plan and without losing a call. Until then the old
//! one serves as if nothing had happened, and whatever goes wrong with the new one leaves it so.

mod patience;
mod predecessor;
mod successor;
mod supervisor;
mod wire;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use self::patience::Patience;
use self::successor::{Candidate, Proven};
use self::wire::{Control, Message};
use crate::lifecycle::{Remote, Token};
use crate::logging;
use crate::sockets::inherited::Inherited;

/// How long the end of the program waits for an upgrade to be over, which a stop ends: longer than anything that is
/// waited for in its course.
const SETTLED_WITHIN: Duration = Duration::from_secs(5);

/// How a program replaces itself by a new process, without refusing or losing a call.
///
/// It is begun by SIGUSR2, for a lifecycle that listens to the
/// [process's signals](crate::lifecycle::Signals::process), or by
/// [`Lifecycle::upgrade`](crate::lifecycle::Lifecycle::upgrade). Then:
///
/// 1. The program's file is started anew, as a child of this process, and gets the listening
///    sockets of its servers.
/// 2. The new process starts up, finds the sockets when it asks for their addresses, and runs its
///    [smoke test](crate::ServerBuilder::smoke_test). It accepts no connection yet.
/// 3. It says that it is ready, and both processes accept connections for the
///    [settling time](Self::settle).
/// 4. It is asked whether it still works. Within 5 s a thread that polls has to answer for each of its servers.
/// 5. This process stops by its plan. Clients on its connections are told to go, and reach the new
///    process at the same address.
///
/// If the new process cannot be started, exits, fails its smoke test, is not ready
/// [in time](Self::ready_within), ends within the settling time, or does not answer after it, it is ended, and this
/// process goes on as if nothing had happened. The log says why. Time in which this process stands still, because it was
/// stopped or frozen, counts for none of these limits.
///
/// | the new process gets | |
/// |---|---|
/// | file | the path from which this process was started, so that it may have been replaced meanwhile; or [`program`](Self::program) |
/// | arguments | those of this process, or [`arguments`](Self::arguments) |
/// | environment | that of this process, but for `TOUCHDOWN_UPGRADE`, which says what it has got, and without systemd's `LISTEN_PID`, `LISTEN_FDS`, `LISTEN_FDNAMES` and `WATCHDOG_PID`, which are meant for this process |
/// | working directory, user, limits, ignored signals | those of this process; SIGPIPE has its default action |
/// | blocked signals | none |
/// | descriptors | the standard streams, the listening sockets, and a socket to the old process. No other, even if it was opened without `O_CLOEXEC` |
#[derive(Clone, Debug)]
#[must_use = "it does nothing until a lifecycle or a server is built with it"]
pub struct Upgrade {
    program: Option<PathBuf>,
    arguments: Option<Vec<OsString>>,
    ready_within: Duration,
    settle: Duration,
    under_any_supervisor: bool,
}

impl Upgrade {
    /// The program by the path from which it was started, with its arguments; ready within 60 s;
    /// settled after 1 s.
    pub fn new() -> Self {
        Self {
            program: None,
            arguments: None,
            // Less than systemd waits for a service that it starts: DefaultTimeoutStartSec= is 90 s.
            ready_within: Duration::from_secs(60),
            // What crashes with the first calls does so by then.
            settle: Duration::from_secs(1),
            under_any_supervisor: false,
        }
    }

    /// Sets the file to start. Default: the one that this process was started from.
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = Some(path.into());
        self
    }

    /// Sets the arguments of the new process. Default: those of this process.
    pub fn arguments<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments = Some(arguments.into_iter().map(Into::into).collect());
        self
    }

    /// Sets how long the new process may take until it is ready, its smoke test included, and the time that the
    /// system takes to come to its file.
    pub fn ready_within(mut self, time: Duration) -> Self {
        self.ready_within = time;
        self
    }

    /// Sets how long both processes serve side by side before this one asks the new one whether it works, and
    /// stops. If the new one ends meanwhile, this one goes on.
    pub fn settle(mut self, time: Duration) -> Self {
        self.settle = time;
        self
    }

    /// Allows it where it is [refused](UpgradeError::Supervisor) by default, because whoever looks after the process
    /// waits for its end and would start a second copy. For those who know better: a service under procd
    /// without `respawn`, say, or under runit with a `finish` script that waits for the process in the pid file.
    pub fn under_any_supervisor(mut self) -> Self {
        self.under_any_supervisor = true;
        self
    }
}

impl Default for Upgrade {
    fn default() -> Self {
        Self::new()
    }
}

/// Why the program was not replaced. It goes on as before, unless it is [stopping](Self::Stopping).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpgradeError {
    /// The lifecycle was built without an [`Upgrade`].
    NotConfigured,
    /// The program has not come to Serving yet.
    Starting,
    /// The program is stopping. Or it had begun to, in favour of a new process that ended before it took over.
    Stopping,
    /// Another upgrade is under way.
    UnderWay,
    /// Whoever looks after this process would not follow the new one: why, and what to do instead. Nothing was
    /// started. See [`Upgrade::under_any_supervisor`].
    Supervisor(String),
    /// The new process could not be started, or was not found fit to take over: why.
    Failed(String),
}

impl fmt::Display for UpgradeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotConfigured => "the lifecycle was built without an Upgrade",
            Self::Starting => "the program is still starting",
            Self::Stopping => "the program is stopping",
            Self::UnderWay => "another upgrade is under way",
            Self::Supervisor(why) | Self::Failed(why) => why,
        })
    }
}

impl std::error::Error for UpgradeError {}

/// Who may begin to serve.
pub(crate) enum Readiness {
    /// A process with no other before it.
    InCharge,
    /// One that has another before it, until further notice.
    Proven(Proven),
    /// Not who asks: a stop has begun, or another thread has asked before.
    Nobody,
}

/// A part of the program that another process can take over.
pub(crate) trait Part: Send + Sync + 'static {
    /// Copies of its listening sockets.
    fn hand_over(&self) -> io::Result<Vec<Inherited>>;

    /// Whether somebody else has them, so that what waits to be accepted, and a socket's path, are
    /// left to them.
    fn set_handed_over(&self, handed_over: bool);

    /// Whether it works. Gives up waiting once a stop has begun.
    fn smoke_test(&self, stopping: &Token) -> Result<(), String>;

    /// It may accept connections from now on.
    fn open(&self);

    /// Has `answer` run by whoever has to go on for this part to work. Must not block.
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
}

/// What the end of the program waits for; see [`Upgrades::settle_all`].
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

/// The path from which this process was started: as it was written, if that is a path, so that a
/// link that points elsewhere later is followed anew.
fn started_from() -> io::Result<PathBuf> {
    let file = as_it_was(std::env::current_exe()?);
    let written = std::env::args_os().next().map(PathBuf::from);
    let path = written.filter(|it| it.components().count() > 1);
    let path = path.and_then(|it| std::path::absolute(it).ok());
    let is_same = |it: &PathBuf| it.canonicalize().is_ok_and(|it| it == file);
    Ok(path.filter(is_same).unwrap_or(file))
}

/// The path of a file that may have been replaced since it was started: Linux marks it then. proc(5).
fn as_it_was(file: PathBuf) -> PathBuf {
    let path = file.as_os_str().as_bytes();
    match path.strip_suffix(b" (deleted)") {
        Some(path) if !file.exists() => OsStr::from_bytes(path).into(),
        _ => file,
    }
}

impl Upgrades {
    pub(crate) fn new(config: Upgrade) -> Upgrades {
        let candidate = Candidate::of_process();
        Upgrades {
            config,
            program: started_from(),
            busy: Mutex::default(),
            over: Condvar::new(),
            not_in_charge: Mutex::default(),
            parts: Mutex::new(Parts {
                are_open: candidate.is_none(),
                list: Vec::new(),
            }),
            has_predecessor: candidate.is_some(),
            candidate: Mutex::new(candidate),
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

    /// Replaces the program, and returns the new process's id; or says why not.
    pub(crate) fn replace(&self, program: &Remote) -> Result<u32, UpgradeError> {
        if std::mem::replace(&mut self.busy.lock().upgrade, true) {
            return Err(UpgradeError::UnderWay);
        }
        let _under_way = UnderWay(self);
        program.refuse_unless_serving()?;
        predecessor::replace(self, program)
    }

    /// The program is about to end: waits until a new process that is not to take over has been told
    /// so, and one that is, too; and until it is clear whether this one has taken over from another. Then
    /// everybody knows what is his to remove.
    pub(crate) fn settle_all(&self) {
        if !self.is_settled_within(SETTLED_WITHIN) {
            // Whoever should say it does not come to it: it waits for the log, say.
            if let Some(control) = self.not_in_charge.lock().upgrade() {
                let _ = control.say(&Message::Leave);
            }
            logging::error!("the upgrade that is under way does not come to its end");
        }
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

    /// If this process is to replace another: shows that it works, and waits until it may serve. Says who
    /// may serve then.
    pub(crate) fn prove_ready(&self, program: &Remote) -> Result<Readiness, String> {
        let mut candidate = self.candidate.lock();
        let Some(candidate) = candidate.take() else {
            return Ok(match self.has_predecessor {
                true => Readiness::Nobody,
                false => Readiness::InCharge,
            });
        };
        let proven = candidate?.prove_ready(self, program)?;
        Ok(proven.map_or(Readiness::Nobody, Readiness::Proven))
    }

    /// Whether this process is to replace another, and has not begun to show that it can.
    #[cfg(feature = "systemd")]
    pub(crate) fn is_candidate(&self) -> bool {
        self.candidate.lock().is_some()
    }

    /// The program has failed to start. Tells the process that it was to replace, if it was.
    pub(crate) fn tell_failure(&self, why: &str) {
        // Whoever holds the lock is at it already.
        if let Some(Ok(candidate)) = self.candidate.try_lock().and_then(|mut it| it.take()) {
            candidate.give_up(why);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixStream;
    use std::process::Command;

    use crossbeam_channel::{unbounded, Receiver, Sender};

    use super::*;
    use crate::lifecycle::{exit_code, Lifecycle, Reason};

    /// What a part is told, and whether the program was ready then, and in charge.
    #[derive(Debug, PartialEq)]
    enum Told {
        Open { ready: bool, in_charge: bool },
        TakeCharge { in_charge: bool },
    }

    struct Listens {
        told: Sender<Told>,
        /// Whether it works.
        works: bool,
        is_ready: Box<dyn Fn() -> bool + Send + Sync>,
        in_charge: Token,
    }

    impl Part for Listens {
        fn hand_over(&self) -> io::Result<Vec<Inherited>> {
            Ok(Vec::new())
        }
        fn set_handed_over(&self, _: bool) {}
        fn smoke_test(&self, _: &Token) -> Result<(), String> {
            Ok(())
        }
        fn check(&self, answer: Box<dyn FnOnce() + Send>) {
            match self.works {
                true => answer(),
                // It never comes to it.
                false => std::mem::forget(answer),
            }
        }
        fn open(&self) {
            let (ready, in_charge) = ((self.is_ready)(), self.in_charge.is_cancelled());
            self.told.send(Told::Open { ready, in_charge }).unwrap();
        }
        fn take_charge(&self) {
            let in_charge = self.in_charge.is_cancelled();
            self.told.send(Told::TakeCharge { in_charge }).unwrap();
        }
    }

    /// A program that is to replace another: its lifecycle, its side of the conversation and the other, and a part of it
    /// with what that is told.
    struct New {
        lifecycle: Lifecycle,
        candidate: Candidate,
        old: Control,
        part: Arc<dyn Part>,
        told: Receiver<Told>,
    }

    impl New {
        fn start() -> New {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let control = Control::new(ours).unwrap();
            let old = Control::new(theirs).unwrap();
            let builder = Lifecycle::builder().upgrade(Upgrade::new());
            let lifecycle = builder.build().unwrap();
            let (sender, told) = unbounded();
            let part = Arc::new(Listens {
                told: sender,
                works: true,
                is_ready: Box::new(lifecycle.is_ready()),
                in_charge: lifecycle.in_charge().clone(),
            });
            New {
                lifecycle,
                candidate: Candidate { control },
                old,
                part,
                told,
            }
        }
    }

    #[test]
    fn the_new_process_is_ready_before_it_serves_and_owns_its_paths_before_it_is_in_charge() {
        let new = New::start();
        let upgrades = new.lifecycle.upgrades().unwrap();
        upgrades.parts.lock().are_open = false;
        *upgrades.candidate.lock() = Some(Ok(new.candidate));
        upgrades.add(Arc::clone(&new.part));
        new.old.say(&Message::Serve).unwrap();
        new.lifecycle.serving().unwrap();
        let answers = true;
        assert_eq!(new.old.heard().recv(), Ok(Message::Ready { answers }));
        let (ready, in_charge) = (true, false);
        assert_eq!(new.told.recv(), Ok(Told::Open { ready, in_charge }));
        new.old.say(&Message::TakeOver).unwrap();
        assert_eq!(new.told.recv(), Ok(Told::TakeCharge { in_charge }));
        new.lifecycle.in_charge().wait();
    }

    #[test]
    fn a_stop_that_comes_with_the_charge_does_not_hide_it() {
        // Whoever hears two things at once takes either first.
        for _ in 0..20 {
            let new = New::start();
            new.old.say(&Message::TakeOver).unwrap();
            while new.candidate.control.heard().is_empty() {
                std::thread::yield_now();
            }
            new.lifecycle.shutdown("no need of it");
            let remote = new.lifecycle.remote();
            new.candidate
                .await_charge(&remote, &[Arc::clone(&new.part)]);
            let in_charge = false;
            assert_eq!(new.told.try_recv(), Ok(Told::TakeCharge { in_charge }));
            assert!(new.lifecycle.in_charge().is_cancelled());
        }
    }

    #[test]
    fn who_is_stopped_before_it_is_in_charge_is_not() {
        let new = New::start();
        new.lifecycle.shutdown("no need of it");
        let remote = new.lifecycle.remote();
        new.candidate
            .await_charge(&remote, &[Arc::clone(&new.part)]);
        assert!(new.told.is_empty());
        assert!(!new.lifecycle.in_charge().is_cancelled());
        assert!(new.old.say(&Message::TakeOver).is_err());
    }

    #[test]
    fn who_is_stopped_on_its_way_to_serving_is_in_charge_if_it_was_told_so() {
        for is_told in [true, false] {
            let New {
                lifecycle,
                candidate,
                old,
                part,
                told,
            } = New::start();
            let upgrades = lifecycle.upgrades().unwrap();
            upgrades.parts.lock().are_open = false;
            upgrades.add(Arc::clone(&part));
            let remote = lifecycle.remote();
            old.say(&Message::Serve).unwrap();
            let proven = candidate.prove_ready(upgrades, &remote).unwrap();
            if is_told {
                old.say(&Message::TakeOver).unwrap();
            }
            lifecycle.shutdown("no need of it");
            assert!(upgrades.busy.lock().awaits_charge);
            drop(proven);
            assert!(!upgrades.busy.lock().awaits_charge);
            assert_eq!(lifecycle.in_charge().is_cancelled(), is_told);
            assert_eq!(told.len(), usize::from(is_told));
            assert!(old.say(&Message::TakeOver).is_err());
        }
    }

    #[test]
    fn who_cannot_speak_to_the_old_process_does_not_start() {
        let New {
            lifecycle, told, ..
        } = New::start();
        let upgrades = lifecycle.upgrades().unwrap();
        *upgrades.candidate.lock() = Some(Err("no descriptor".to_owned()));
        lifecycle.serving().unwrap_err();
        let reason = Reason::StartFailed("no descriptor".to_owned());
        assert_eq!(lifecycle.wait().reason, reason);
        assert!(told.is_empty());
        assert!(!lifecycle.in_charge().is_cancelled());
    }

    #[test]
    fn who_is_told_to_leave_before_it_is_ready_has_failed_to_start() {
        let new = New::start();
        let upgrades = new.lifecycle.upgrades().unwrap();
        *upgrades.candidate.lock() = Some(Ok(new.candidate));
        new.old.say(&Message::Leave).unwrap();
        // As its end is, by now.
        drop(new.old);
        new.lifecycle.serving().unwrap_err();
        let report = new.lifecycle.wait();
        let why = "not to take over: the old process stops, or goes on without this one";
        assert_eq!(report.reason, Reason::StartFailed(why.to_owned()));
        assert_eq!(report.exit_code(), exit_code::FAILED_START);
        assert!(!new.lifecycle.in_charge().is_cancelled());
    }

    #[test]
    fn the_new_process_says_that_it_is_well_once_every_part_of_it_works() {
        for works in [true, false] {
            let new = New::start();
            let other: Arc<dyn Part> = Arc::new(Listens {
                told: unbounded().0,
                works,
                is_ready: Box::new(|| true),
                in_charge: Token::new(),
            });
            let parts = [Arc::clone(&new.part), other];
            let (remote, candidate) = (new.lifecycle.remote(), new.candidate);
            let waits = std::thread::spawn(move || candidate.await_charge(&remote, &parts));
            new.old.say(&Message::Ask).unwrap();
            if works {
                assert_eq!(new.old.heard().recv(), Ok(Message::Well));
            }
            // It hears what it is told, whoever else does not answer.
            new.old.say(&Message::Leave).unwrap();
            assert_eq!(new.old.heard().recv().ok(), None);
            waits.join().unwrap();
        }
    }

    #[test]
    fn the_end_of_the_program_does_not_wait_for_ever() {
        let new = New::start();
        let upgrades = new.lifecycle.upgrades().unwrap();
        let short = Duration::from_millis(10);
        assert!(upgrades.is_settled_within(short));
        upgrades.busy.lock().upgrade = true;
        assert!(!upgrades.is_settled_within(short));
        drop(UnderWay(upgrades));
        assert!(upgrades.is_settled_within(short));
    }

    /// For five seconds.
    #[test]
    fn a_new_process_is_told_to_leave_though_the_upgrade_hangs() {
        let new = New::start();
        let upgrades = new.lifecycle.upgrades().unwrap();
        let old = Arc::new(new.old);
        *upgrades.not_in_charge.lock() = Arc::downgrade(&old);
        upgrades.busy.lock().upgrade = true;
        upgrades.settle_all();
        assert_eq!(new.candidate.control.heard().recv(), Ok(Message::Leave));
        drop(UnderWay(upgrades));
    }

    #[test]
    fn the_charge_is_never_with_both_nor_with_nobody() {
        for _ in 0..100 {
            let new = New::start();
            let remote = new.lifecycle.remote();
            let (part, candidate) = (Arc::clone(&new.part), new.candidate);
            let waits = std::thread::spawn(move || candidate.await_charge(&remote, &[part]));
            let old = new.old;
            let says = std::thread::spawn(move || old.say(&Message::TakeOver).is_ok());
            new.lifecycle.shutdown("no need of it");
            waits.join().unwrap();
            let has_come = says.join().unwrap();
            assert_eq!(new.lifecycle.in_charge().is_cancelled(), has_come);
            assert_eq!(new.told.len(), usize::from(has_come));
        }
    }

    #[test]
    fn a_program_that_was_replaced_before_it_looked_finds_its_path() {
        let name = format!("touchdown-replaced-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        let folder = folder.canonicalize().unwrap();
        let program = folder.join("program");
        fs::copy("/bin/sleep", &program).unwrap();
        let mut child = Command::new(&program).arg("1000").spawn().unwrap();
        let started = || fs::read_link(format!("/proc/{}/exe", child.id())).unwrap();
        assert_eq!(as_it_was(started()), program);
        fs::copy("/bin/sleep", folder.join("new")).unwrap();
        fs::rename(folder.join("new"), &program).unwrap();
        assert_ne!(started(), program);
        assert_eq!(as_it_was(started()), program);
        child.kill().unwrap();
        child.wait().unwrap();
        // Somebody may call a file so.
        let strange = folder.join("program (deleted)");
        fs::copy("/bin/sleep", &strange).unwrap();
        assert_eq!(as_it_was(strange.clone()), strange);
        fs::remove_dir_all(&folder).unwrap();
    }
}
