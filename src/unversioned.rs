//! What is public and not promised: it may change in any release, the smallest included, without a word in the
//! changelog that says more than that.
//!
//! Its types are those of `grpcio`, on which the clients of this crate are built, in the version that this release
//! of touchdown depends on. A program that uses them depends on that version, too.
//!
//! A channel with TLS, for example, which needs grpcio's feature `boringssl`:
//!
//! ```ignore
//! use std::sync::Arc;
//! use grpcio::{ChannelBuilder, ChannelCredentialsBuilder, Environment};
//!
//! let credentials = ChannelCredentialsBuilder::new().root_cert(roots).build();
//! let builder = ChannelBuilder::new(Arc::new(Environment::new(1))).set_credentials(credentials);
//! let channel = touchdown::unversioned::channel(builder.connect("greeter.example:443"));
//! ```

use crate::client::Channel;

/// A channel of this crate's from one of grpcio's, with whatever settings that has.
pub fn channel(channel: grpcio::Channel) -> Channel {
    Channel::from_grpcio(channel)
}
