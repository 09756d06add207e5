//! What a call is made with, beside its request.

use std::time::Duration;

use super::Metadata;

/// How a call is to be made. Generated stubs take it in their methods that end in `_with`.
///
/// ```
/// use std::time::Duration;
/// use touchdown::client::{CallOptions, Metadata};
///
/// let options = CallOptions::new()
///     .timeout(Duration::from_secs(5))
///     .metadata(Metadata::new().with("tenant", "north")?);
/// # Ok::<(), touchdown::MetadataError>(())
/// ```
///
/// By default a call has all the time in the world, fails at once if there is no server, and carries no metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "it does nothing until a call is made with it"]
pub struct CallOptions {
    pub(super) timeout: Option<Duration>,
    pub(super) wait_for_ready: bool,
    pub(super) metadata: Metadata,
}

impl CallOptions {
    /// The default.
    pub fn new() -> CallOptions {
        CallOptions::default()
    }

    /// Sets how long the call may take, from its beginning to its end, whatever becomes of it meanwhile. The server is
    /// told. When the time is over, the call ends with DEADLINE_EXCEEDED.
    pub fn timeout(mut self, time: Duration) -> Self {
        self.timeout = Some(time);
        self
    }

    /// Sets whether the call waits for a server that cannot be reached at the moment, until its
    /// [time](Self::timeout) is over, and does not fail with UNAVAILABLE.
    pub fn wait_for_ready(mut self, wait: bool) -> Self {
        self.wait_for_ready = wait;
        self
    }

    /// Sets what is sent before the request, in the place of what was set before.
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    pub(super) fn into_grpcio(self) -> Result<grpcio::CallOption, grpcio::Error> {
        let mut options = grpcio::CallOption::default().wait_for_ready(self.wait_for_ready);
        if let Some(time) = self.timeout {
            options = options.timeout(time);
        }
        if !self.metadata.is_empty() {
            options = options.headers(self.metadata.into_grpcio()?);
        }
        Ok(options)
    }
}
