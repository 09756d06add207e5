//! What a server adds to the addresses that it listens at.

use super::error::StartError;
#[cfg(feature = "tls")]
use super::tls::Tls;
use crate::sockets::listen::{BadSetting, Listen};
use crate::sockets::listener::ListenOptions;

impl Listen {
    /// Encrypts what goes over its connections. A client that does not is told so, and refused. For a gRPC server only.
    #[cfg(feature = "tls")]
    pub fn tls(self, tls: Tls) -> Self {
        self.encrypt(tls.encryption(), tls)
    }

    /// With what it is encrypted, if it is.
    #[cfg(feature = "tls")]
    pub(super) fn own_tls(&self) -> Option<&Tls> {
        self.encrypted_by()
    }

    /// The options, if they make sense.
    pub(super) fn into_options(self) -> Result<ListenOptions, StartError> {
        Ok(self.checked()?)
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
