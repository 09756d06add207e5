//! The engine: gRPC C-core as a [transport](crate::calls::transport), made safe to use from threads that block.
//!
//! | what | where |
//! |---|---|
//! | the transport as a whole, and what all parts of it hold | `transport`, `core` |
//! | C-core's server and its settings, its completion queue, the tags that come back from that | `server`, `queue`, `tag` |
//! | room for calls that arrive | `slots` |
//! | a call, what is begun on it, its messages | `call`, `batch`, `bytes`, `status_message` |
//! | a connection, and TLS on it | `connection`, `tls`, `tls_reason`, `tls_lines` |
//! | what clients may send | `guard` |
//! | C-core in the process: its start, its end, its threads, its log | `library`, `room` |
//! | what C-core's own interface does not offer | `shim`, and the C++ beside it |

mod batch;
mod bytes;
mod call;
mod channel;
mod connection;
mod core;
mod guard;
mod library;
mod peer_name;
mod queue;
mod room;
mod server;
mod shim;
mod slots;
mod status_message;
mod tag;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tls")]
mod tls_lines;
#[cfg(feature = "tls")]
mod tls_reason;
mod transport;

use std::io;
use std::sync::Arc;

use crate::calls::transport::{Settings, Transport};
use crate::calls::Method;

pub(crate) use self::channel::channel_over;
#[cfg(feature = "client")]
pub(crate) use self::channel::shared_environment;

/// A transport for these methods, to be started.
///
/// # Errors
///
/// If C-core could not have its threads, or refuses a method's path.
pub(crate) fn transport(settings: &Settings, methods: &[Method]) -> io::Result<Arc<dyn Transport>> {
    room::check_room_for_core()?;
    Ok(Arc::new(self::transport::CoreTransport::new(
        settings, methods,
    )?))
}

/// Spares the process the end of C-core, which joins threads: time that nobody is to wait for when
/// the process itself is about to end.
pub(crate) fn keep_core() {
    library::Library::keep();
}

/// Ends the thread of C-core's that a program does not need, which may have been started with a
/// client. C-core must be in use.
pub(crate) fn end_spare_threads() {
    // SAFETY: of the caller's making, C-core is started, and stays so for the length of this call.
    unsafe { shim::touchdown_end_spare_threads() }
}
