//! Sockets to listen on: their addresses, what the process was given of them, the paths of unix sockets, and the
//! connections that they accept. Nothing here knows what is spoken on a connection.

#[cfg(feature = "tls")]
pub(crate) mod encryption;
pub(crate) mod inherited;
pub(crate) mod listener;
pub(crate) mod listening;
pub(crate) mod options;
pub(crate) mod peer;
pub(crate) mod stored;
pub(crate) mod unix_path;
