//! Sockets to listen on: their addresses, what the process was given of them, the paths of unix sockets, and the
//! connections that they accept. Nothing here knows what is spoken on a connection.
//!
//! A program listens with an [`Acceptor`](crate::acceptor::Acceptor), or a gRPC server. What is public here is for both, and
//! for what keeps their sockets over the end of the process.
//!
//! | file | what it is |
//! |---|---|
//! | address.rs | where to listen, and how that is written |
//! | address_error.rs | what is wrong with an address as it is written |
//! | bind.rs, passed.rs | the way from addresses to listeners: what was given, and what is bound anew |
//! | listen.rs | what a program says of an address |
//! | listener.rs | one listening socket |
//! | listeners.rs | all sockets of one server or acceptor, and who accepts from them: it, or a successor |
//! | accepted.rs, peer.rs | a connection, and who is at its other end |
//! | bind_error.rs, holder.rs | why an address cannot be listened at, and which process has it |
//! | inherited.rs, stored.rs | sockets of systemd or of a process before this one, and their names in systemd's store |
//! | unix_path.rs, path_lock.rs | unix sockets at paths |

pub(crate) mod accepted;
pub(crate) mod address;
mod address_error;
pub(crate) mod bind;
mod bind_error;
#[cfg(feature = "tls")]
pub(crate) mod encryption;
mod holder;
pub(crate) mod inherited;
pub(crate) mod listen;
pub(crate) mod listener;
pub(crate) mod listeners;
pub(crate) mod options;
mod passed;
mod path_lock;
pub(crate) mod peer;
pub(crate) mod stored;
pub(crate) mod unix_path;

pub use self::address::Address;
pub use self::address_error::AddressError;
pub use self::inherited::close_unused;
pub use self::listen::Listen;
pub use self::peer::PeerCredentials;
pub use self::stored::{stored_name, Bound, BoundSocket};
