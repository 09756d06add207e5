//! Servers that tell systemd how they are.

use std::error::Error;

use touchdown::lifecycle::{Lifecycle, Phase};
use touchdown::{Companion, ServerBuilder, ServerHandle};

use super::Notify;
use crate::logging;

/// Tells systemd of the lifecycle of a server.
struct Systemd {
    store_listeners: bool,
}

impl Companion for Systemd {
    fn begin(&mut self, lifecycle: &Lifecycle) -> Result<(), Box<dyn Error + Send + Sync>> {
        if lifecycle.phase() != Phase::Starting {
            return Err("systemd cannot be told of a program that has started already".into());
        }
        Notify::attach(lifecycle)?;
        Ok(())
    }

    fn started(self: Box<Self>, server: &ServerHandle) -> Result<(), Box<dyn Error + Send + Sync>> {
        if let (true, Some(notify)) = (self.store_listeners, Notify::of(server.lifecycle())) {
            // It serves all the same.
            if let Err(error) = notify.store_listeners(server) {
                logging::error!("cannot have systemd store the listening sockets: {error}");
            }
        }
        Ok(())
    }
}

impl ServerBuilder {
    /// Tells systemd what the program is at, and feeds its watchdog, if systemd has started it; see
    /// [`systemd`](crate::systemd).
    pub fn systemd(self) -> Self {
        let store_listeners = false;
        self.companion(Systemd { store_listeners })
    }

    /// As [`systemd`](Self::systemd), and has systemd keep the listening sockets while the program is
    /// restarted, so that nobody is refused in between; see
    /// [`Notify::store_listeners`](crate::systemd::Notify::store_listeners).
    pub fn store_listeners(self) -> Self {
        let store_listeners = true;
        self.companion(Systemd { store_listeners })
    }
}
