//! The new process's side.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, OnceLock};

use crossbeam_channel::{select, RecvError, TryRecvError};
use parking_lot::Mutex;

use super::wire::{Control, Message, Passed, VARIABLE};
use super::{Part, Upgrades};
use crate::engine;
use crate::lifecycle::{message_of, Remote};

/// A process that is to replace the one that has started it.
pub(super) struct Candidate {
    pub(super) control: Control,
}

impl Candidate {
    /// The one that this process is, once.
    pub(super) fn of_process() -> Option<Candidate> {
        static OF_PROCESS: OnceLock<Mutex<Option<Candidate>>> = OnceLock::new();
        let of_process = OF_PROCESS.get_or_init(|| Mutex::new(Candidate::find()));
        of_process.lock().take()
    }

    fn find() -> Option<Candidate> {
        let passed = std::env::var(VARIABLE).ok()?;
        let Some(passed) = Passed::decode(&passed) else {
            log::warn!("{VARIABLE} is not understood: this process replaces no other");
            return None;
        };
        // A child of the process that was meant finds the variable, too, but not the sockets.
        let control = engine::take_socket(passed.control, passed.inode)?;
        for listener in passed.listeners {
            engine::inherit(
                listener.fd,
                listener.name,
                listener.path_stays,
                listener.of_unit,
            );
        }
        match Control::new(UnixStream::from(control)) {
            Ok(control) => Some(Candidate { control }),
            Err(error) => {
                log::error!("cannot speak to the process to replace: {error}");
                None
            }
        }
    }

    /// Shows that this process works, and waits until it may serve. Returns nothing if it stops.
    pub(super) fn prove_ready(
        self,
        upgrades: &Upgrades,
        program: &Remote,
    ) -> Result<Option<Proven>, String> {
        for part in upgrades.parts() {
            let test = AssertUnwindSafe(|| part.smoke_test(program.stopping()));
            let result = panic::catch_unwind(test)
                .unwrap_or_else(|panic| Err(format!("panicked: {}", message_of(panic))));
            if let Err(why) = result {
                let why = format!("smoke test: {why}");
                self.give_up(&why);
                return Err(why);
            }
        }
        // If the old process is gone, so is the one who could say no.
        let _ = self.control.say(&Message::Ready);
        select! {
            recv(self.control.heard()) -> message => match message {
                Ok(Message::Serve) => {}
                Ok(other) => return Err(format!("the old process said {other:?}")),
                Err(_) => log::warn!("the process to replace is gone already"),
            },
            // Whoever comes to Serving is told.
            recv(program.stopping().receiver()) -> _ => return Ok(None),
        }
        Ok(Some(Proven(self)))
    }

    /// Waits until the old process has begun to stop.
    pub(super) fn await_charge(&self, program: &Remote, parts: &[Arc<dyn Part>]) {
        let heard = select! {
            recv(self.control.heard()) -> message => message,
            // What was said before holds: the old process has left its paths to this one, which removes them. What
            // it says afterwards fails, and it removes them itself.
            recv(program.stopping().receiver()) -> _ => match self.control.heard().try_recv() {
                Err(TryRecvError::Empty) => match self.control.end_hearing().next() {
                    Some(message) => Ok(message),
                    None => return,
                },
                message => message.map_err(|_| RecvError),
            },
        };
        match heard {
            Ok(Message::TakeOver) => log::info!("in charge: the old process stops"),
            Ok(Message::Leave) => {
                let why = "not to take over: the old process stops, or goes on without this one";
                return program.shutdown(why.to_owned());
            }
            Ok(other) => {
                return program.shutdown(format!("the old process said {other:?}"));
            }
            Err(_) => log::warn!("in charge: the old process is gone"),
        }
        // First: whoever is told who is in charge may stop this process, which removes what is its own.
        parts.iter().for_each(|part| part.take_charge());
        program.take_charge();
    }

    pub(super) fn give_up(&self, why: &str) {
        let _ = self.control.say(&Message::Failed(why.to_owned()));
    }
}

/// A process that may serve beside the one that it is to replace.
pub(crate) struct Proven(Candidate);

impl Proven {
    /// The program is in Serving: accepts connections, and takes over later.
    pub(crate) fn serve(self, upgrades: &Upgrades, program: &Remote) -> Result<(), String> {
        upgrades.open();
        for name in engine::drop_inherited() {
            log::warn!("no server listens at {name} any more: closed the inherited socket");
        }
        let parts = upgrades.parts();
        upgrades.busy.lock().awaits_charge = true;
        let awaits = AwaitsCharge(program.clone());
        let wait = move || self.0.await_charge(&awaits.0, &parts);
        let thread = std::thread::Builder::new().name("td-successor".to_owned());
        thread.spawn(wait).map(drop).map_err(|it| it.to_string())
    }
}

/// Dropped when it is clear whether this process is in charge.
struct AwaitsCharge(Remote);

impl Drop for AwaitsCharge {
    fn drop(&mut self) {
        if let Some(upgrades) = self.0.upgrades() {
            upgrades.busy.lock().awaits_charge = false;
            upgrades.over.notify_all();
        }
    }
}

/// Who has `socket` as its number for it; a check that the number is right.
pub(super) fn inode(socket: &UnixStream) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let copy: OwnedFd = socket.try_clone()?.into();
    Ok(std::fs::File::from(copy).metadata()?.ino())
}
