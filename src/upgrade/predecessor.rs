//! The old process's side.

use std::ffi::OsString;
use std::io::{self, ErrorKind::BrokenPipe, ErrorKind::ConnectionReset};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{after, select, RecvTimeoutError, TryRecvError};
use nix::sys::signal::Signal;

use super::error::when;
use super::patience::Patience;
use super::successor::inode;
use super::wire::{Control, Listener, Message, Passed, VARIABLE};
use super::{supervisor, UpgradeError, Upgrades};
use crate::lifecycle::{Handover, Signals};
use crate::logging;
use crate::os::spawn::{self, Child};

/// How long a new process may take to answer once it has served for a while. As long as it had for the health check
/// of its smoke test: what needs longer is in trouble.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// How long a new process that is not wanted any more may take to end by itself: seconds, and no more
/// than the one that has begun if this process wants to stop.
const END_TIME: u32 = 5;

/// How long the system may take to end a process that is killed. Beyond that a thread waits for it, and nothing else
/// does: neither this process, should it stop, nor another upgrade. If this process wants to stop, it is `END_CHECK`.
const KILL_TIME: Duration = Duration::from_secs(1);

/// How often to look whether it has, should it not close its socket.
const END_CHECK: Duration = Duration::from_millis(50);

/// What tells a process that it was started by systemd, which this one was and the new one is not.
const OF_THIS_PROCESS: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"];

pub(super) fn replace(upgrades: &Upgrades, program: &Handover) -> Result<u32, UpgradeError> {
    let file = self::program(upgrades)?;
    // Known by the program that runs, which the one to start need not be called like.
    let own = upgrades.program.as_ref().unwrap_or(&file);
    match supervisor::refusal(own) {
        Some(why) if !upgrades.config.under_any_supervisor => {
            return Err(UpgradeError::Supervisor(why));
        }
        _ => {}
    }
    logging::info!("upgrade: starting {}", file.display());
    let mut successor =
        Successor::start(upgrades, &file).map_err(|source| UpgradeError::Spawn {
            program: file.clone(),
            source,
        })?;
    let id = successor.child.process_id();
    let result = successor
        .await_ready(upgrades, program)
        .and_then(|()| successor.settle(upgrades, program))
        .and_then(|()| successor.await_answer(program));
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
    // Should this thread come no further, the end of this process gives it the charge.
    *upgrades.not_in_charge.lock() = Weak::new();
    logging::info!("upgrade: process {id} takes over");
    if !successor.take_over(program) {
        // It has been stopped together with this process, or has crashed.
        program.successor_is_gone(id);
        program.tidy_up_after(id);
        parts.iter().for_each(|part| part.set_handed_over(false));
        logging::error!(
            "upgrade: {}; this process stops all the same",
            successor.end_before_it_took_over()
        );
        return Err(UpgradeError::Stopping);
    }
    // Its standing is no longer this process's business; the system takes care of it.
    Ok(id)
}

/// The file to start.
fn program(upgrades: &Upgrades) -> Result<PathBuf, UpgradeError> {
    match (&upgrades.config.program, &upgrades.program) {
        (Some(path), _) | (None, Ok(path)) => Ok(path.clone()),
        // The error stays, for another try.
        (None, Err(error)) => Err(UpgradeError::NoProgram(io::Error::new(
            error.kind(),
            error.to_string(),
        ))),
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
    file: PathBuf,
    child: Child,
    control: Arc<Control>,
    standing: Standing,
    /// Whether it can be asked how it is.
    answers: bool,
}

/// How far a new process has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Starts,
    /// It accepts connections.
    Serves,
    /// It did, but does not answer.
    Hangs,
}

/// What comes of listening to it for a while.
enum Heard {
    Said(Message),
    /// It has closed its socket.
    Gone,
    Nothing,
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
        let control = Arc::new(Control::new(own)?);
        *upgrades.not_in_charge.lock() = Arc::downgrade(&control);
        let arguments = arguments(upgrades, file);
        let ignored = Signals::is_hang_up_ignored().then_some(Signal::SIGHUP as i32);
        let ignored = ignored.into_iter().collect();
        let environment = environment(&passed);
        let child = spawn::spawn(file, arguments, environment, descriptors, ignored)?;
        Ok(Successor {
            file: file.to_owned(),
            child,
            control,
            standing: Standing::Starts,
            answers: false,
        })
    }

    /// Waits until the new process is ready, and lets it serve.
    fn await_ready(&mut self, upgrades: &Upgrades, program: &Handover) -> Result<(), UpgradeError> {
        let limit = upgrades.config.ready_within;
        let began = Instant::now();
        let mut patience = Patience::new(limit);
        let mut waits_for = None;
        let heard = loop {
            match self.hear_within(program, &mut patience)? {
                Heard::Said(Message::Waits(what)) => waits_for = Some(what),
                heard => break heard,
            }
        };
        Err(match heard {
            Heard::Said(Message::Ready { answers }) => {
                let took = began.elapsed();
                let id = self.child.process_id();
                logging::info!("upgrade: process {id} is ready after {took:.1?}");
                self.answers = answers;
                // If it is gone already, `settle` finds out.
                let _ = self.control.say(&Message::Serve);
                self.standing = Standing::Serves;
                return Ok(());
            }
            Heard::Said(Message::Failed(why)) => UpgradeError::of_new_process(why),
            Heard::Said(other) => {
                let why = format!("the new process said {other:?} before it was ready");
                UpgradeError::Failed(why)
            }
            Heard::Nothing if self.child.begun().is_none() => UpgradeError::FileHangs {
                program: self.file.clone(),
                limit,
            },
            Heard::Nothing => UpgradeError::NotReadyInTime { limit, waits_for },
            Heard::Gone => match self.child.begun() {
                Some(Err(source)) => UpgradeError::Spawn {
                    program: self.file.clone(),
                    source,
                },
                _ => self.ended(false),
            },
        })
    }

    /// Lets both processes serve for a while.
    fn settle(&mut self, upgrades: &Upgrades, program: &Handover) -> Result<(), UpgradeError> {
        match self.hear(program, upgrades.config.settle)? {
            Heard::Nothing => Ok(()),
            // None of the two says more until this is over.
            Heard::Said(_) | Heard::Gone => Err(self.ended(true)),
        }
    }

    /// Has the new process show that it still works.
    fn await_answer(&mut self, program: &Handover) -> Result<(), UpgradeError> {
        if !self.answers {
            return Ok(());
        }
        // If it is gone, or stands still with a full socket, that is heard, or nothing is.
        let _ = self.control.say(&Message::Ask);
        match self.hear(program, ANSWER_TIME)? {
            Heard::Said(Message::Well) => Ok(()),
            Heard::Said(_) | Heard::Gone => Err(self.ended(true)),
            Heard::Nothing => {
                self.standing = Standing::Hangs;
                Err(UpgradeError::Hangs { limit: ANSWER_TIME })
            }
        }
    }

    /// Waits for what the new process says next, unless this one begins to stop.
    fn hear(&self, program: &Handover, limit: Duration) -> Result<Heard, UpgradeError> {
        self.hear_within(program, &mut Patience::new(limit))
    }

    fn hear_within(
        &self,
        program: &Handover,
        patience: &mut Patience,
    ) -> Result<Heard, UpgradeError> {
        while let Some(time) = patience.next() {
            select! {
                recv(self.control.heard()) -> message => {
                    return Ok(message.map_or(Heard::Gone, Heard::Said));
                }
                recv(program.stopping().receiver()) -> _ => return Err(UpgradeError::Stopping),
                recv(after(time)) -> _ => {}
            }
        }
        // Of two things at once, either comes first.
        Ok(match self.control.heard().try_recv() {
            Ok(message) => Heard::Said(message),
            Err(TryRecvError::Disconnected) => Heard::Gone,
            Err(TryRecvError::Empty) => Heard::Nothing,
        })
    }

    /// Puts the new process in charge, once the observers of this one's lame duck have told others who that is. Says
    /// false if it is gone. If it cannot be told for another reason, the end of the conversation tells it as much.
    fn take_over(&self, program: &Handover) -> bool {
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
    fn ended(&mut self, was_ready: bool) -> UpgradeError {
        match self.wait(Duration::from_secs(1)) {
            Ok(Some(status)) => UpgradeError::Exited { status, was_ready },
            Ok(None) => UpgradeError::Failed(format!(
                "the new process closed its socket {}",
                when(was_ready)
            )),
            Err(error) => UpgradeError::Failed(format!(
                "the new process is lost {}: {error}",
                when(was_ready)
            )),
        }
    }

    /// How the new process has ended, which was to take over.
    fn end_before_it_took_over(&mut self) -> String {
        match self.wait(Duration::from_secs(1)) {
            Ok(Some(status)) => format!("the new process ended before it took over: {status}"),
            Ok(None) => "the new process closed its socket before it took over".to_owned(),
            Err(error) => format!("the new process is lost before it took over: {error}"),
        }
    }

    /// Ends the new process, whatever it is at. If it has begun to serve and hears what it is told, it has the time
    /// that its own plan takes.
    fn end(mut self, program: &Handover) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return program.tidy_up_after(self.child.process_id());
        }
        // Otherwise it would take the end of this process for a crash.
        let _ = self.control.say(&Message::Leave);
        match self.standing {
            // It stops by what it was told, or has begun to by itself. No signal is sent: it may have got one
            // together with this process, and a second one would cut its calls short.
            Standing::Serves => return self.wait_aside(program),
            // There is nobody yet to obey.
            Standing::Starts if self.child.begun().is_none() => {}
            Standing::Starts | Standing::Hangs => {
                self.child.signal(Signal::SIGTERM as i32);
                if self.obeys(program) {
                    return self.wait_aside(program);
                }
            }
        }
        let id = self.child.process_id();
        match self.child.begun() {
            Some(_) => logging::warn!("upgrade: killing process {id}"),
            None => logging::warn!(
                "upgrade: killing process {id}, which waits for {}",
                self.file()
            ),
        }
        self.child.signal(Signal::SIGKILL as i32);
        let is_stopping = program.stopping().is_cancelled();
        let time = if is_stopping { END_CHECK } else { KILL_TIME };
        if matches!(self.wait(time), Ok(None)) {
            logging::error!(
                "upgrade: process {id} does not end; it will once the system lets it go on"
            );
        }
        self.wait_aside(program);
    }

    /// Whether it does what it was told to: it has ended, or is at it, and has calls to land.
    fn obeys(&mut self, program: &Handover) -> bool {
        for _ in 0..END_TIME {
            if !matches!(self.wait(Duration::from_secs(1)), Ok(None)) {
                return true;
            }
            let is_at_it = self.control.heard().try_recv() == Err(TryRecvError::Disconnected);
            if is_at_it && self.standing == Standing::Hangs {
                return true;
            }
            if program.stopping().is_cancelled() {
                break;
            }
        }
        false
    }

    /// Leaves to another thread to wait for its end, if it has not ended. That may never come, for a process in which
    /// the system stands, and then the thread costs a little memory.
    fn wait_aside(mut self, program: &Handover) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return program.tidy_up_after(self.child.process_id());
        }
        let program = program.clone();
        let wait = move || {
            let _ = self.child.wait();
            program.tidy_up_after(self.child.process_id());
        };
        let thread = std::thread::Builder::new().name("td-upgrade-end".to_owned());
        let _ = thread.spawn(wait);
    }

    fn file(&self) -> std::path::Display<'_> {
        self.file.display()
    }

    fn wait(&mut self, time: Duration) -> io::Result<Option<ExitStatus>> {
        let mut patience = Patience::new(time);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            let Some(time) = patience.next() else {
                return Ok(None);
            };
            let time = time.min(END_CHECK);
            if self.control.heard().recv_timeout(time) == Err(RecvTimeoutError::Disconnected) {
                // It has ended; the system may take a moment to know.
                std::thread::sleep(time.min(Duration::from_millis(1)));
            }
        }
    }
}
