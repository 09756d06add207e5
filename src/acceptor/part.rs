//! What an acceptor is for the lifecycle and for a hot restart: the sockets, and who accepts from them when.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::connection::{Connection, OpenConnections};
use super::Watched;
use crate::lifecycle::{InFlight, OwnedGuard, Participant, Token};
use crate::logging;
use crate::os::readable::{wait_readable, wait_ready};
use crate::os::wake::Wake;
use crate::sockets::accepted::is_of_connection;
use crate::sockets::address::Address;
use crate::sockets::inherited::Inherited;
use crate::sockets::listener::QUEUE;
use crate::sockets::listeners::Listeners;
use crate::sockets::BoundSocket;
use crate::upgrade::Part;

/// The sockets of an acceptor. It is the acceptor that waits at them; the lifecycle and an upgrade say for how long.
pub(super) struct Doors {
    addresses: Vec<Address>,
    /// Taken after `stage`, if both are.
    listeners: Mutex<Listeners>,
    stage: Mutex<Stage>,
    /// Wakes the thread that waits: the stage has changed, or something is asked.
    wake: Wake,
    /// Of the drain, which waits for what is accepted; `None` if it does not, and the sockets stay until the end.
    gate: Option<InFlight>,
    open: Arc<OpenConnections>,
    /// The questions whether there is a thread that accepts.
    checks: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
}

enum Stage {
    Accepting,
    /// What waits in the kernel is accepted yet.
    Draining {
        /// The drain waits for it.
        guard: OwnedGuard,
        /// How many connections at the most: a flood must not keep the program from its end.
        left: usize,
    },
    Ended,
}

/// What comes of waiting for a connection.
pub(super) enum Next {
    Connection(Connection),
    Nothing,
    /// There will be no more.
    Over,
}

impl Doors {
    pub(super) fn new(
        addresses: Vec<Address>,
        listeners: Listeners,
        gate: Option<InFlight>,
    ) -> io::Result<Doors> {
        Ok(Doors {
            addresses,
            listeners: Mutex::new(listeners),
            stage: Mutex::new(Stage::Accepting),
            wake: Wake::new()?,
            gate,
            open: Arc::default(),
            checks: Mutex::default(),
        })
    }

    pub(super) fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    pub(super) fn connections(&self) -> usize {
        self.open.count()
    }

    /// Waits until something happens, which may be a connection. `first` is the socket to look at first, so that none is
    /// starved by another.
    ///
    /// # Errors
    ///
    /// Why no connection can be had at the moment.
    pub(super) fn next(
        &self,
        first: &mut usize,
        others: &mut [Watched<'_>],
        limit: Option<Duration>,
    ) -> io::Result<Next> {
        self.answer_checks();
        if let Some(last) = self.next_in_drain()? {
            return Ok(last);
        }
        let ready = self.wait(others, limit)?;
        let mut order = (0..ready.len()).map(|index| (*first + index) % ready.len());
        let Some(index) = order.find(|index| ready[*index]) else {
            return Ok(Next::Nothing);
        };
        *first = index + 1;
        // Before it is accepted: what was accepted is waited for.
        let Ok(guard) = self.gate.as_ref().map(InFlight::enter_owned).transpose() else {
            // As the drain begins, it is told so beforehand. So this is a stop during start-up, which has none.
            if matches!(*self.stage.lock(), Stage::Accepting) {
                self.close();
            }
            return Ok(Next::Nothing);
        };
        match self.listeners.lock().accept_from(index) {
            Ok(Some(accepted)) => {
                let connection = Connection::new(accepted, &self.open, guard);
                Ok(Next::Connection(connection))
            }
            // Another process was faster.
            Ok(None) => Ok(Next::Nothing),
            Err(error) if is_of_connection(&error) => Ok(Next::Nothing),
            Err(error) => Err(error),
        }
    }

    /// Accepts what waits in the kernel, one by one, and then ends; `None` if nothing drains.
    fn next_in_drain(&self) -> io::Result<Option<Next>> {
        let mut stage = self.stage.lock();
        let (guard, left) = match &mut *stage {
            Stage::Accepting => return Ok(None),
            Stage::Ended => return Ok(Some(Next::Over)),
            Stage::Draining { guard, left } => (guard, left),
        };
        {
            let listeners = self.listeners.lock();
            for index in 0..listeners.own_queues() {
                while *left > 0 {
                    *left -= 1;
                    match listeners.accept_from(index) {
                        Ok(Some(accepted)) => {
                            let guard = Some(guard.split());
                            let connection = Connection::new(accepted, &self.open, guard);
                            return Ok(Some(Next::Connection(connection)));
                        }
                        Ok(None) => break,
                        Err(error) if is_of_connection(&error) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        drop(stage);
        self.close();
        Ok(Some(Next::Over))
    }

    /// Waits until there are connections, or something else to do. Says of each socket whether there is one.
    fn wait(&self, others: &mut [Watched<'_>], limit: Option<Duration>) -> io::Result<Vec<bool>> {
        let mut waited = vec![(self.wake.as_raw_fd(), false)];
        waited.extend(others.iter().map(|it| (it.socket.as_raw_fd(), it.writes)));
        // Should one be closed meanwhile, this thread is woken, and finds none there.
        let sockets = self.listeners.lock();
        waited.extend(sockets.waited_for(true).map(|it| (it.1, false)));
        drop(sockets);
        let ready = wait_ready(waited, limit)?;
        let (own, sockets) = ready.split_at(1 + others.len());
        if own[0] {
            self.wake.clear();
        }
        for (other, ready) in others.iter_mut().zip(&own[1..]) {
            other.is_ready = *ready;
        }
        Ok(sockets.to_vec())
    }

    /// Waits for so long, unless there is something to do.
    pub(super) fn rest(&self, time: Duration) {
        if let Ok([true]) = wait_readable([self.wake.as_raw_fd()], Some(time)).as_deref() {
            self.wake.clear();
        }
    }

    /// Ends listening, for good.
    pub(super) fn close(&self) {
        let ended = std::mem::replace(&mut *self.stage.lock(), Stage::Ended);
        self.listeners.lock().close();
        // The drain is over after that.
        drop(ended);
        self.wake.wake();
        // No thread may come to them any more.
        self.answer_checks();
    }

    fn answer_checks(&self) {
        let checks = std::mem::take(&mut *self.checks.lock());
        checks.into_iter().for_each(|answer| answer());
    }

    pub(super) fn bound_sockets(&self) -> io::Result<Vec<BoundSocket>> {
        self.listeners.lock().store()
    }

    fn has_ended(&self) -> bool {
        matches!(*self.stage.lock(), Stage::Ended)
    }
}

impl Part for Doors {
    fn hand_over(&self) -> io::Result<Vec<Inherited>> {
        match self.has_ended() {
            // The program does not listen there any more, and goes on.
            true => Ok(Vec::new()),
            false => self.listeners.lock().hand_over(),
        }
    }

    fn set_handed_over(&self, handed_over: bool) {
        self.listeners.lock().set_handed_over(handed_over);
        self.wake.wake();
    }

    /// What there is to test is the program's, in its start-up hooks.
    fn smoke_test(&self, _: &Token, _: &dyn Fn(&str)) -> Result<(), String> {
        Ok(())
    }

    fn open(&self) {
        if self.gate.is_none() {
            // Not before this process is in charge.
            return;
        }
        self.listeners.lock().accept();
        self.wake.wake();
    }

    fn check(&self, answer: Box<dyn FnOnce() + Send>) {
        // One that listens no more does not hold up the program.
        self.checks.lock().push(answer);
        self.wake.wake();
        // Looked at last: who ends it looks at the checks last.
        if self.has_ended() {
            self.answer_checks();
        }
    }

    fn take_charge(&self) {
        let mut listeners = self.listeners.lock();
        listeners.accept();
        listeners.own_paths();
        self.wake.wake();
    }
}

impl Participant for Doors {
    fn name(&self) -> String {
        let first = self.addresses.first().map(Address::to_string);
        format!("acceptor at {}", first.unwrap_or_default())
    }

    fn drain(&self) {
        let Some(gate) = &self.gate else { return };
        logging::info!(
            "{}: draining {} connections",
            Participant::name(self),
            self.connections()
        );
        let mut stage = self.stage.lock();
        let queues = self.listeners.lock().own_queues();
        match gate.enter_owned() {
            Ok(guard) if queues > 0 && matches!(*stage, Stage::Accepting) => {
                let left = QUEUE as usize * queues;
                *stage = Stage::Draining { guard, left };
                self.wake.wake();
            }
            // A successor accepts what waits there.
            _ => {
                drop(stage);
                self.close();
            }
        }
    }

    fn cancel(&self) {
        if self.gate.is_none() {
            return;
        }
        self.close();
        self.open.end_input();
    }

    fn close(&self, _: Instant) {
        if self.gate.is_some() {
            Doors::close(self);
        }
    }

    fn running(&self) -> Vec<String> {
        match self.gate {
            Some(_) => self.open.describe(),
            // Nothing that is waited for.
            None => Vec::new(),
        }
    }

    fn state(&self) -> Option<String> {
        Some(format!("{} connections", self.connections()))
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;
    use crate::sockets::bind::bind_all;
    use crate::sockets::listener::ListenOptions;

    #[test]
    fn a_check_that_no_thread_has_come_to_is_answered_at_the_end() {
        let listeners = bind_all(&[ListenOptions::new("127.0.0.1:0".to_owned())]).unwrap();
        let listeners = Listeners::new(listeners, true);
        let doors = Doors::new(
            Vec::new(),
            listeners,
            Some(crate::lifecycle::Gate::new().in_flight()),
        )
        .unwrap();
        let (sender, answered) = bounded(2);
        let check = || {
            let sender = sender.clone();
            Part::check(&doors, Box::new(move || sender.send(()).unwrap()));
        };
        check();
        assert!(answered.is_empty(), "nobody accepts");
        doors.close();
        assert_eq!(answered.len(), 1);
        check();
        assert_eq!(answered.len(), 2);
    }
}
