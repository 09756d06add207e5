//! With what the connections of a listener are encrypted.

use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::ServerConfig;

/// The name of HTTP/2 in TLS. RFC 9113, 3.2.
pub(crate) const HTTP2: &[u8] = b"h2";

/// With what new connections are served.
pub(crate) struct Encryption(RwLock<Arc<ServerConfig>>);

impl Encryption {
    pub(crate) fn new(config: ServerConfig) -> Encryption {
        Encryption(RwLock::new(Arc::new(config)))
    }

    /// Serves new connections with this from now on. What is open goes on as it was.
    pub(crate) fn replace(&self, config: ServerConfig) {
        *self.0.write() = Arc::new(config);
    }

    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.read())
    }
}

impl fmt::Debug for Encryption {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Encryption")
    }
}
