//! Listeners in systemd's file descriptor store, which outlives the process.

use std::io;
use std::os::fd::AsFd;

use sd_notify::NotifyState;

use super::event::{Change, Event};
use super::messenger::Messenger;
use super::Notify;
use crate::logging;
use crate::sockets::{close_unused, stored_name, Bound, BoundSocket};

impl Notify {
    /// Has systemd keep the listening sockets that a server, or an [`Acceptor`](crate::acceptor::Acceptor), has
    /// bound. Whenever the service is restarted, after a crash, too, it gets them back, and finds them by their addresses; a client that connects in between waits in the
    /// kernel and is served by the next process. The unit needs `FileDescriptorStoreMax=`: a number that is no less than
    /// that of the sockets.
    ///
    /// To be called once the program listens at all its addresses: what an earlier process has stored
    /// and nothing listens at any more is closed, and removed from the store. Sockets that a socket unit has
    /// passed are systemd's own, and are not stored.
    ///
    /// Nothing is removed when the program stops: systemd itself empties the store once the service is stopped and
    /// not to be started again, and must not do so in a restart. Until then callers are not refused, but wait: a drain
    /// takes that long for new connections, too. Paths of unix sockets that were stored stay when the program ends; the next one
    /// removes what is left there.
    ///
    /// # Errors
    ///
    /// If there is no descriptor left, if it has stopped to listen, if an address is too long to be a
    /// name in the store (245 bytes, fewer with colons or letters outside of ASCII), or if systemd
    /// cannot be told within half a second.
    pub fn store_listeners(&self, listens: &impl Bound) -> io::Result<()> {
        if self.events.is_none() {
            return Ok(());
        }
        let mut change = Change::default();
        for unused in close_unused() {
            logging::warn!("nobody listens at {unused} any more: removing it from systemd's store");
            change.remove.extend(stored_name(&unused));
        }
        for bound in listens.bound_sockets()? {
            let Some(name) = bound.stored_name() else {
                let why = format!("{} is too long to name a stored socket", bound.address);
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            };
            let BoundSocket { socket, .. } = bound;
            change.remove.insert(name.clone());
            change.store.push((name, socket));
        }
        self.ask(|done| Event::Store(change, done))
    }
}

impl Messenger {
    /// Changes what systemd stores, now or once this is the main process.
    pub(super) fn store(&mut self, mut change: Change) -> io::Result<()> {
        if self.is_silent() {
            self.hold_back(change);
            return Ok(());
        }
        for name in &change.remove {
            self.send(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)])?;
        }
        for (name, socket) in change.store.drain(..) {
            let state = [NotifyState::FdStore, NotifyState::FdName(&name)];
            let stored = sd_notify::notify_with_fds(&state, &[socket.as_fd()]);
            self.note(stored)?;
        }
        Ok(())
    }
}
