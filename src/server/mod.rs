//! What a user writes against: services, calls, streams, and the server itself.

mod builder;
mod call;
mod codec;
mod dispatch;
mod health;
mod interceptor;
mod listen;
mod metadata;
#[cfg(feature = "tls")]
mod peer_certificate;
mod running;
mod service;
mod smoke_test;
mod status;
mod stream;
#[cfg(feature = "tls")]
mod tls;

pub use self::builder::{ServerBuilder, StartError};
pub use self::call::{Call, Peer};
pub use self::health::{Health, ServingStatus};
pub use self::interceptor::Interceptor;
pub use self::metadata::{Metadata, MetadataError, Value};
#[cfg(feature = "tls")]
pub use self::peer_certificate::PeerCertificate;
pub use self::running::Server;
pub use self::service::{DrainPolicy, Service, ServiceBuilder};
pub use self::status::{Code, Status};
pub use self::stream::{DetachedReplies, ReceiveTimeout, Replies, Requests, SendError};
#[cfg(feature = "tls")]
pub use self::tls::{Tls, TlsError, TlsFiles};
