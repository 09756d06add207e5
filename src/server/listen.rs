//! What a server adds to the addresses that it listens at.

use std::io;

use super::error::StartError;
#[cfg(feature = "tls")]
use super::tls::Tls;
use crate::sockets::listen::{BadSetting, Listen};
use crate::sockets::listener::ListenOptions;

/// How addresses begin of those who want TLS.
const ENCRYPTED: [&str; 3] = ["https://", "grpcs://", "tls://"];

#[cfg(feature = "tls")]
const HOW_TO_ENCRYPT: &str =
    "an address has no scheme: write HOST:PORT, and set what it is encrypted with by Listen::tls";
#[cfg(not(feature = "tls"))]
const HOW_TO_ENCRYPT: &str =
    "this program was built without the feature `tls` of touchdown: turn that on in Cargo.toml, write HOST:PORT, and set what it \
     is encrypted with by Listen::tls";

impl Listen {
    /// Encrypts what goes over its connections. A client that does not is told so, and refused. For a gRPC server only.
    #[cfg(feature = "tls")]
    pub fn tls(self, tls: Tls) -> Self {
        self.encrypt(tls.encryption(), tls)
    }

    /// For an address to which strangers can connect: what their connections may take is limited, in so far as
    /// [`ServerBuilder`](crate::ServerBuilder) has not set it for the whole server. For a gRPC server only.
    ///
    /// | what | on other listeners | here | reason |
    /// |---|---|---|---|
    /// | [connections of one address](crate::ServerBuilder::max_connections_per_address) | as many as there may be | an eighth of [`max_connections`](crate::ServerBuilder::max_connections), 64 | nobody alone takes the places of all; behind a proxy all have one address |
    /// | [TLS handshakes of one address](crate::ServerBuilder::max_handshakes) | as many as there may be | a quarter, 16 | the same |
    /// | [time without a call](crate::ServerBuilder::max_connection_idle) | for ever | 5 minutes | a client connects again with its next call; most NATs and balancers have forgotten it before |
    /// | [age](crate::ServerBuilder::max_connection_age) | for ever | 24 hours, and 5 minutes for what runs | nobody stays with an old process, address or certificate |
    /// | calls open on one connection | [`max_concurrent_streams`](crate::ServerBuilder::max_concurrent_streams) | 100 | RFC 9113, 6.5.2 asks for no less; further calls wait in the client |
    ///
    /// A client that connects over a [unix socket](crate::Listen) has no address, so the first two do not hold there.
    pub fn public(self) -> Self {
        self.set_public()
    }

    /// With what it is encrypted, if it is.
    #[cfg(feature = "tls")]
    pub(super) fn own_tls(&self) -> Option<&Tls> {
        self.encrypted_by()
    }

    /// The options, if they make sense.
    pub(super) fn into_options(self) -> Result<ListenOptions, StartError> {
        let options = self.checked()?;
        let address = &options.address;
        if ENCRYPTED.iter().any(|scheme| address.starts_with(scheme)) {
            return Err(StartError::Listen {
                address: address.clone(),
                source: io::Error::new(io::ErrorKind::InvalidInput, HOW_TO_ENCRYPT),
            });
        }
        Ok(options)
    }
}

impl From<BadSetting> for StartError {
    fn from(bad: BadSetting) -> StartError {
        StartError::Setting {
            setting: bad.setting,
            value: bad.value,
            expected: bad.expected,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::Server;

    #[test]
    fn who_asks_for_tls_by_the_address_is_told_how_to_have_it() {
        let server = Server::builder().address("https://0.0.0.0:50051");
        let error = server.start().unwrap_err().to_string();
        let start = "cannot listen at https://0.0.0.0:50051: ";
        assert!(error.starts_with(start), "{error}");
        assert!(error.contains("Listen::tls"), "{error}");
        let is_missing = error.contains("without the feature `tls`");
        assert_eq!(is_missing, cfg!(not(feature = "tls")), "{error}");
    }
}
