//! The new process's side.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, OnceLock};

use crossbeam_channel::{bounded, never, select, Receiver, TryRecvError};
use parking_lot::Mutex;

use super::error::SMOKE_TEST;
use super::wire::{Control, Message, Passed, VARIABLE};
use super::{Part, Upgrades};
use crate::lifecycle::Handover;
use crate::logging;
use crate::sockets::inherited;
use crate::thrown::message_of;

/// Why a process stops that was told to leave.
const NOT_WANTED: &str = "not to take over: the old process stops, or goes on without this one";

/// A process that is to replace the one that has started it.
pub(super) struct Candidate {
    pub(super) control: Control,
}

impl Candidate {
    /// The one that this process is, once; or why it cannot be the one that it is to be.
    pub(super) fn of_process() -> Option<Result<Candidate, String>> {
        static OF_PROCESS: OnceLock<Mutex<Option<Result<Candidate, String>>>> = OnceLock::new();
        let of_process = OF_PROCESS.get_or_init(|| Mutex::new(Candidate::find()));
        of_process.lock().take()
    }

    fn find() -> Option<Result<Candidate, String>> {
        let passed = std::env::var(VARIABLE).ok()?;
        let Some(passed) = Passed::decode(&passed) else {
            logging::warn!("{VARIABLE} is not understood: this process replaces no other");
            return None;
        };
        // A child of the process that was meant finds the variable, too, but not the sockets.
        let control = inherited::take_socket(passed.control, passed.inode)?;
        for listener in passed.listeners {
            inherited::inherit(
                listener.fd,
                listener.name,
                listener.path_stays,
                listener.of_unit,
            );
        }
        let candidate = Control::new(control)
            .map(|control| Candidate { control })
            .map_err(|error| format!("cannot speak to the process to replace: {error}"));
        Some(candidate)
    }

    /// Shows that this process works, and waits until it may serve. Returns nothing if it stops.
    pub(super) fn prove_ready(
        self,
        upgrades: &Upgrades,
        program: &Handover,
    ) -> Result<Option<Proven>, String> {
        for part in upgrades.parts() {
            // For the old process to tell, should its patience end.
            let waits = |what: &str| {
                let _ = self.control.say(&Message::Waits(what.to_owned()));
            };
            let test = AssertUnwindSafe(|| part.smoke_test(program.stopping(), &waits));
            let result = panic::catch_unwind(test)
                .unwrap_or_else(|panic| Err(format!("panicked: {}", message_of(panic))));
            if let Err(why) = result {
                let why = format!("{SMOKE_TEST}{why}");
                self.give_up(&why);
                return Err(why);
            }
        }
        program
            .prepare_charge()
            .inspect_err(|why| self.give_up(why))?;
        let awaits = AwaitsCharge::begin(upgrades, program);
        // The end of a stop that has not begun by now waits for what comes of this.
        if program.stopping().is_cancelled() {
            self.give_up("the program is stopping");
            return Ok(None);
        }
        // If the old process is gone, so is the one who could say no: it has crashed, since one that stops says so.
        let _ = self.control.say(&Message::Ready { answers: true });
        select! {
            recv(self.control.heard()) -> message => match message {
                Ok(Message::Serve) => {}
                Ok(Message::Leave) => return Err(NOT_WANTED.to_owned()),
                Ok(other) => return Err(format!("the old process said {other:?}")),
                Err(_) => logging::warn!("the process to replace has crashed"),
            },
            // The thread that brings the program to Serving hears of it there.
            recv(program.stopping().receiver()) -> _ => {
                self.leave(program, &upgrades.parts());
                return Ok(None);
            }
        }
        Ok(Some(Proven(Some((self, awaits)))))
    }

    /// Waits until the old process has begun to stop. Says false if this one is in charge then, and its pid file does
    /// not say so.
    pub(super) fn await_charge(&self, program: &Handover, parts: &[Arc<dyn Part>]) -> bool {
        let mut checks = Checks::none();
        let heard = loop {
            select! {
                recv(self.control.heard()) -> message => match message {
                    Ok(Message::Ask) => checks = Checks::of(parts),
                    other => break other,
                },
                recv(checks.passed) -> passed => checks.count(passed.is_ok()),
                recv(program.stopping().receiver()) -> _ => {
                    self.leave(program, parts);
                    return true;
                }
            }
            if checks.are_passed() {
                checks = Checks::none();
                // If the old process is gone, that is heard next.
                let _ = self.control.say(&Message::Well);
            }
        };
        let why = match heard {
            Ok(Message::TakeOver) => {
                logging::info!("in charge: the old process stops");
                return take_charge(program, parts);
            }
            Err(_) => {
                logging::warn!("in charge: the old process is gone");
                return take_charge(program, parts);
            }
            Ok(Message::Leave) => NOT_WANTED.to_owned(),
            Ok(other) => format!("the old process said {other:?}"),
        };
        program.shutdown(why);
        true
    }

    /// This process stops. If it was told to take over, the old one has left its paths to it. If not, it will not be:
    /// to tell it fails from now on, and the old one keeps what it has.
    fn leave(&self, program: &Handover, parts: &[Arc<dyn Part>]) {
        let is_in_charge = loop {
            match self.control.heard().try_recv() {
                Ok(Message::TakeOver) => break true,
                Ok(Message::Leave) => break false,
                Ok(_) => {}
                Err(TryRecvError::Disconnected) => break true,
                Err(TryRecvError::Empty) => {
                    break self.control.end_hearing().any(|it| it == Message::TakeOver);
                }
            }
        };
        if is_in_charge {
            logging::info!("in charge, and about to stop");
            take_charge(program, parts);
        }
    }

    pub(super) fn give_up(&self, why: &str) {
        let _ = self.control.say(&Message::Failed(why.to_owned()));
    }
}

/// As soon as a supervisor knows that this process is in charge, it may stop it, which then removes what is its own. So
/// the parts know it first. Says false if the pid file does not say that this process is in charge.
fn take_charge(program: &Handover, parts: &[Arc<dyn Part>]) -> bool {
    parts.iter().for_each(|part| part.take_charge());
    program.take_charge()
}

/// The question to every part whether it works, as long as it is not answered.
struct Checks {
    /// Hears of each that does.
    passed: Receiver<()>,
    left: Option<usize>,
}

impl Checks {
    fn none() -> Checks {
        Checks {
            passed: never(),
            left: None,
        }
    }

    fn of(parts: &[Arc<dyn Part>]) -> Checks {
        let (sender, passed) = bounded(parts.len());
        for part in parts {
            let sender = sender.clone();
            part.check(Box::new(move || {
                // Nobody waits for an answer that comes late.
                let _ = sender.try_send(());
            }));
        }
        Checks {
            passed,
            left: Some(parts.len()),
        }
    }

    /// One was passed; or some never will be.
    fn count(&mut self, is_passed: bool) {
        match self.left {
            Some(left) if is_passed => self.left = Some(left - 1),
            _ => *self = Checks::none(),
        }
    }

    fn are_passed(&self) -> bool {
        self.left == Some(0)
    }
}

/// A process that may serve beside the one that it is to replace. If it is dropped, it is about to stop.
pub(crate) struct Proven(Option<(Candidate, AwaitsCharge)>);

impl Proven {
    /// The program is in Serving: accepts connections, and takes over later.
    pub(crate) fn serve(self, upgrades: &Upgrades) -> Result<(), String> {
        upgrades.open();
        for name in inherited::drop_inherited() {
            logging::warn!("nothing listens at {name} any more: closed the inherited socket");
        }
        let parts = upgrades.parts();
        let wait = move || self.await_charge(&parts);
        let thread = std::thread::Builder::new().name("td-successor".to_owned());
        thread.spawn(wait).map(drop).map_err(|it| it.to_string())
    }

    fn await_charge(mut self, parts: &[Arc<dyn Part>]) {
        let Some((candidate, awaits)) = self.0.take() else {
            return;
        };
        let program = awaits.0.clone();
        let is_told = candidate.await_charge(&program, parts);
        // The end of a stop waits for these.
        drop((candidate, awaits));
        if !is_told {
            program.insist_on_pid_file();
        }
    }
}

impl Drop for Proven {
    fn drop(&mut self) {
        if let Some((candidate, AwaitsCharge(program))) = &self.0 {
            let parts = program.attached::<Upgrades>().map(|it| it.parts());
            candidate.leave(program, &parts.unwrap_or_default());
        }
    }
}

/// Dropped when it is clear whether this process is in charge.
struct AwaitsCharge(Handover);

impl AwaitsCharge {
    fn begin(upgrades: &Upgrades, program: &Handover) -> AwaitsCharge {
        upgrades.busy.lock().awaits_charge = true;
        AwaitsCharge(program.clone())
    }
}

impl Drop for AwaitsCharge {
    fn drop(&mut self) {
        if let Some(upgrades) = self.0.attached::<Upgrades>() {
            upgrades.busy.lock().awaits_charge = false;
            upgrades.over.notify_all();
        }
    }
}

/// The number of a socket, by which the new process makes sure that a descriptor is that socket.
pub(super) fn inode(socket: &UnixStream) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let copy: OwnedFd = socket.try_clone()?.into();
    Ok(std::fs::File::from(copy).metadata()?.ino())
}
