//! The old process's side.

use std::ffi::OsString;
use std::io::{self, ErrorKind::BrokenPipe, ErrorKind::ConnectionReset};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use crossbeam_channel::{after, at, select, RecvTimeoutError, TryRecvError};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use super::successor::inode;
use super::wire::{Control, Listener, Message, Passed, VARIABLE};
use super::{UpgradeError, Upgrades};
use crate::engine;
use crate::lifecycle::{is_hang_up_ignored, Remote};
use crate::logging;

/// How long a new process that is not wanted any more may take to end by itself: seconds, and no more
/// than the one that has begun if this process wants to stop.
const END_TIME: u32 = 5;

/// How often to look whether it has, should it not close its socket.
const END_CHECK: Duration = Duration::from_millis(50);

/// What tells a process that it was started by systemd, which this one was and the new one is not.
const OF_THIS_PROCESS: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"];

pub(super) fn replace(upgrades: &Upgrades, program: &Remote) -> Result<u32, UpgradeError> {
    let failed = |why: String| UpgradeError::Failed(why);
    let file = self::program(upgrades).map_err(failed)?;
    logging::info!("upgrade: starting {}", file.display());
    let mut successor = Successor::start(upgrades, &file)
        .map_err(|error| failed(format!("cannot start {}: {error}", file.display())))?;
    let id = successor.child.id();
    let result = successor
        .await_ready(upgrades, program)
        .and_then(|()| successor.settle(upgrades, program));
    if let Err(why) = result {
        successor.end(program);
        return Err(why);
    }
    let parts = upgrades.parts();
    parts.iter().for_each(|part| part.set_handed_over(true));
    if !program.begin_replaced(id) {
        parts.iter().for_each(|part| part.set_handed_over(false));
        successor.end(program);
        return Err(UpgradeError::Stopping);
    }
    logging::info!("upgrade: process {id} takes over");
    if !successor.take_over(program) {
        // It has been stopped together with this process, or has crashed.
        program.successor_is_gone(id);
        parts.iter().for_each(|part| part.set_handed_over(false));
        logging::error!(
            "upgrade: {}; this process stops all the same",
            successor.ended("before it took over")
        );
        return Err(UpgradeError::Stopping);
    }
    // Its standing is no longer this process's business; the system takes care of it.
    Ok(id)
}

/// The file to start.
fn program(upgrades: &Upgrades) -> Result<PathBuf, String> {
    match (&upgrades.config.program, &upgrades.program) {
        (Some(path), _) | (None, Ok(path)) => Ok(path.clone()),
        (None, Err(error)) => Err(format!(
            "the path of this program is not known ({error}): set Upgrade::program"
        )),
    }
}

/// What it is started with, its name included.
fn arguments(upgrades: &Upgrades, program: &Path) -> Vec<OsString> {
    let config = &upgrades.config;
    let mut of_this_process = std::env::args_os();
    let name = of_this_process.next().filter(|_| config.program.is_none());
    let name = name.unwrap_or_else(|| program.into());
    let rest = match &config.arguments {
        Some(arguments) => arguments.clone(),
        None => of_this_process.collect(),
    };
    std::iter::once(name).chain(rest).collect()
}

/// This process's environment, but for what is meant for it alone.
fn environment(passed: &Passed) -> impl Iterator<Item = (OsString, OsString)> {
    let is_inherited =
        |name: &OsString| name != VARIABLE && !OF_THIS_PROCESS.iter().any(|it| name == it);
    std::env::vars_os()
        .filter(move |(name, _)| is_inherited(name))
        .chain([(VARIABLE.into(), passed.encode().into())])
}

/// The new process, until it is in charge.
struct Successor {
    child: Child,
    serves: bool,
    control: Control,
}

impl Successor {
    fn start(upgrades: &Upgrades, file: &Path) -> io::Result<Successor> {
        let mut sockets = Vec::new();
        for part in upgrades.parts() {
            sockets.extend(part.hand_over()?);
        }
        let (own, theirs) = UnixStream::pair()?;
        let passed = Passed {
            control: theirs.as_raw_fd(),
            inode: inode(&theirs)?,
            listeners: sockets
                .iter()
                .map(|it| Listener {
                    fd: it.socket.as_raw_fd(),
                    name: it.name.clone(),
                    path_stays: it.path_stays,
                    of_unit: it.of_unit,
                })
                .collect(),
        };
        let listeners = passed.listeners.iter().map(|it| it.fd);
        let descriptors = listeners.chain([passed.control]).collect();
        let control = Control::new(own)?;
        let arguments = arguments(upgrades, file);
        let ignored = is_hang_up_ignored().then_some(Signal::SIGHUP as i32);
        let ignored = ignored.into_iter().collect();
        let environment = environment(&passed);
        let child = engine::spawn(file, arguments, environment, descriptors, ignored)?;
        Ok(Successor {
            child,
            serves: false,
            control,
        })
    }

    /// Waits until the new process is ready, and lets it serve.
    fn await_ready(&mut self, upgrades: &Upgrades, program: &Remote) -> Result<(), UpgradeError> {
        let limit = upgrades.config.ready_within;
        let began = Instant::now();
        let heard = select! {
            recv(self.control.heard()) -> message => message.ok(),
            recv(program.stopping().receiver()) -> _ => return Err(UpgradeError::Stopping),
            recv(after(limit)) -> _ => {
                let why = format!("the new process was not ready within {limit:?}");
                return Err(UpgradeError::Failed(why));
            }
        };
        match heard {
            Some(Message::Ready) => {
                let took = began.elapsed();
                logging::info!(
                    "upgrade: process {} is ready after {took:.1?}",
                    self.child.id()
                );
                // If it is gone already, `settle` finds out.
                let _ = self.control.say(&Message::Serve);
                self.serves = true;
                Ok(())
            }
            Some(Message::Failed(why)) => Err(UpgradeError::Failed(format!(
                "the new process could not start: {why}"
            ))),
            Some(other) => Err(UpgradeError::Failed(format!(
                "the new process said {other:?} before it was ready"
            ))),
            None => Err(self.ended("before it was ready")),
        }
    }

    /// Lets both processes serve for a while.
    fn settle(&mut self, upgrades: &Upgrades, program: &Remote) -> Result<(), UpgradeError> {
        // None of the two says more until this is over.
        select! {
            recv(self.control.heard()) -> _ => {}
            recv(program.stopping().receiver()) -> _ => return Err(UpgradeError::Stopping),
            // Of two things at once, either comes first.
            recv(after(upgrades.config.settle)) -> _ => {
                if self.control.heard().try_recv() == Err(TryRecvError::Empty) {
                    return Ok(());
                }
            }
        }
        Err(self.ended("soon after it was ready"))
    }

    /// Puts the new process in charge once whoever has to know who that is was told. Says false if it is gone. If it
    /// cannot be told for another reason, the end of the conversation tells it as much.
    fn take_over(&self, program: &Remote) -> bool {
        loop {
            select! {
                recv(self.control.heard()) -> message => if message.is_err() {
                    return false;
                },
                recv(program.draining().receiver()) -> _ => break,
            }
        }
        match self.control.say(&Message::TakeOver) {
            Err(error) => !matches!(error.kind(), BrokenPipe | ConnectionReset),
            Ok(()) => true,
        }
    }

    /// The new process has closed its socket, so it has ended or is about to.
    fn ended(&mut self, when: &str) -> UpgradeError {
        let how = match self.wait(Duration::from_secs(1)) {
            Ok(Some(status)) => format!("the new process ended {when}: {status}"),
            Ok(None) => format!("the new process closed its socket {when}"),
            Err(error) => format!("the new process is lost {when}: {error}"),
        };
        UpgradeError::Failed(how)
    }

    /// Ends the new process, whatever it is at. If it has begun to serve, it has the time that its own
    /// plan takes.
    fn end(mut self, program: &Remote) {
        let id = self.child.id();
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // Lest it takes the end of this process for a crash.
        let _ = self.control.say(&Message::Leave);
        if self.serves {
            return self.wait_aside();
        }
        // It has not been waited for, so the number is its own.
        if let Ok(id) = i32::try_from(id) {
            let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
        for _ in 0..END_TIME {
            if !matches!(self.wait(Duration::from_secs(1)), Ok(None)) {
                return;
            }
            if program.stopping().is_cancelled() {
                break;
            }
        }
        logging::warn!("upgrade: killing process {id}");
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// It stops by what it was told, or has begun to by itself. No signal is sent: it may have got one
    /// together with this process, and a second one would cut its calls short.
    fn wait_aside(mut self) {
        let thread = std::thread::Builder::new().name("td-upgrade-end".to_owned());
        let _ = thread.spawn(move || drop(self.child.wait()));
    }

    fn wait(&mut self, time: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + time;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            let next = deadline.min(Instant::now() + END_CHECK);
            match self.control.heard().recv_deadline(next) {
                // It has ended; the system may take a moment to know.
                Err(RecvTimeoutError::Disconnected) => {
                    let _ = at(next.min(Instant::now() + Duration::from_millis(1))).recv();
                }
                _ if Instant::now() >= deadline => return Ok(None),
                _ => {}
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
        }
    }
}
