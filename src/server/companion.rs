//! Companions: what goes along with a server, and hangs on it from outside.

use std::error::Error;

use crate::lifecycle::Lifecycle;

use super::handle::ServerHandle;

/// Goes along with a server: a second door for the operator, a supervisor that wants to be told, a registry. For
/// [`ServerBuilder::companion`](super::ServerBuilder::companion).
///
/// A companion hangs itself on the lifecycle: it [observes](Lifecycle::observe) the phases, adds
/// [hooks](Lifecycle::hook) that end what it has started, and keeps a [remote](Lifecycle::remote) of the program.
/// `admin` and `systemd`, two features of this crate, are companions. All that they use beside what is public is the crate's own log.
///
/// A panic in a companion is the caller's: it unwinds out of the function that starts the server.
///
/// ```
/// use std::error::Error;
/// use touchdown::lifecycle::{Hook, Lifecycle};
/// use touchdown::{Companion, Server, ServerHandle};
///
/// /// Writes the server's address to a file while it serves.
/// struct AddressFile(std::path::PathBuf);
///
/// impl Companion for AddressFile {
///     fn started(self: Box<Self>, server: &ServerHandle) -> Result<(), Box<dyn Error + Send + Sync>> {
///         std::fs::write(&self.0, server.address().to_string())?;
///         let remove = Hook::new("remove the address", move || Ok(std::fs::remove_file(&self.0)?));
///         Ok(server.lifecycle().hook(remove)?)
///     }
/// }
///
/// # let path = std::env::temp_dir().join(format!("address-{}", std::process::id()));
/// let server = Server::builder()
///     .address("127.0.0.1:0")
///     .companion(AddressFile(path.clone()))
///     .start()?;
/// assert_eq!(std::fs::read_to_string(&path)?, server.address().to_string());
/// server.shutdown();
/// assert!(!path.exists());
/// # Ok::<(), Box<dyn Error + Send + Sync>>(())
/// ```
pub trait Companion: Send + 'static {
    /// The server is about to be started, as a part of this lifecycle. Nothing of it is there yet. If the lifecycle is
    /// the server's own, its start-up hooks have not run yet.
    ///
    /// If the server does not start after all, the companion is dropped, and has to end what it has begun.
    ///
    /// # Errors
    ///
    /// An error is why the server does not start: [`StartError::Companion`](super::StartError::Companion). One that is
    /// a [`StartError`](super::StartError) itself is returned as it is.
    fn begin(&mut self, lifecycle: &Lifecycle) -> Result<(), Box<dyn Error + Send + Sync>> {
        let _ = lifecycle;
        Ok(())
    }

    /// The server listens, and is a part of its lifecycle, which will stop it. It accepts no connection before this has
    /// returned.
    ///
    /// # Errors
    ///
    /// As for [`begin`](Self::begin). The server is taken down again, and no call is lost by that. What companions that were
    /// added before this one have hung on the lifecycle stays there until the lifecycle ends.
    fn started(self: Box<Self>, server: &ServerHandle) -> Result<(), Box<dyn Error + Send + Sync>> {
        let _ = server;
        Ok(())
    }
}

/// Tells the program that the server listens.
pub(super) struct OnListening<F>(pub(super) F);

impl<F: FnOnce(&ServerHandle) + Send + 'static> Companion for OnListening<F> {
    fn started(self: Box<Self>, server: &ServerHandle) -> Result<(), Box<dyn Error + Send + Sync>> {
        (self.0)(server);
        Ok(())
    }
}
