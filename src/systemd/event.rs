//! What the thread that sends is told, beside the phases.

#[cfg(feature = "upgrade")]
use std::collections::BTreeSet;
use std::io;
#[cfg(feature = "upgrade")]
use std::os::fd::OwnedFd;

use crossbeam_channel::Sender;

/// Takes what comes of it.
pub(super) type Done = Sender<io::Result<()>>;

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Event {
    ReloadBegan(Done),
    /// What became of the callbacks that failed.
    ReloadEnded(Vec<String>),
    #[cfg(feature = "upgrade")]
    Store(Change, Done),
}

/// What is to change in systemd's store.
#[cfg(feature = "upgrade")]
#[derive(Debug, Default)]
pub(super) struct Change {
    /// The names under which nothing is to be kept but what follows.
    pub(super) remove: BTreeSet<String>,
    /// Sockets, and their names.
    pub(super) store: Vec<(String, OwnedFd)>,
}
