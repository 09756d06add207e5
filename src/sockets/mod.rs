//! Sockets to listen on: their addresses, what the process was given of them, the paths of unix sockets, and the
//! connections that they accept. Nothing here knows what is spoken on a connection.
//!
//! | file | what it is |
//! |---|---|
//! | address.rs | where to listen, and how that is written |
//! | bind.rs | the way from addresses to listeners: what was given, and what is bound anew |
//! | listener.rs | one listening socket |
//! | listeners.rs | all of one server's, and who accepts from them: it, or a successor |
//! | accepted.rs, peer.rs | a connection, and who is at its other end |
//! | inherited.rs, stored.rs | sockets of systemd or of a process before this one, and their names in systemd's store |
//! | unix_path.rs, path_lock.rs | unix sockets at paths |

pub(crate) mod accepted;
pub(crate) mod address;
pub(crate) mod bind;
#[cfg(feature = "tls")]
pub(crate) mod encryption;
pub(crate) mod inherited;
pub(crate) mod listener;
pub(crate) mod listeners;
pub(crate) mod options;
mod path_lock;
pub(crate) mod peer;
pub(crate) mod stored;
pub(crate) mod unix_path;
