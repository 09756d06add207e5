//! What a user writes against: services, calls, streams, and the server itself.

mod broadcast;
mod builder;
mod call;
mod codec;
mod companion;
mod context;
mod detached_requests;
mod dispatch;
mod error;
mod extensions;
mod handle;
mod health;
mod interceptor;
mod kind;
mod listen;
mod metadata;
mod method_name;
mod observer;
mod observers;
mod outcome;
#[cfg(feature = "tls")]
mod peer_certificate;
mod running;
mod served;
mod service;
mod smoke_test;
mod status;
mod status_from;
mod stream;
mod stream_error;
pub mod testing;
#[cfg(feature = "tls")]
mod tls;

pub use self::broadcast::{Broadcast, SlowSubscriber};
pub use self::builder::ServerBuilder;
pub use self::call::{Call, Peer};
pub use self::companion::Companion;
pub use self::detached_requests::{StreamHandler, StreamReplies, UploadHandler};
pub use self::error::StartError;
pub use self::extensions::Extensions;
pub use self::handle::{Server, ServerHandle, WeakServerHandle};
pub use self::health::{Health, ServingStatus};
pub use self::interceptor::{Answer, Interceptor, Next};
pub use self::kind::CallKind;
pub use self::metadata::{Metadata, MetadataError, Value};
pub use self::method_name::{MethodName, UnknownMethod};
pub use self::observer::{
    CallEnd, CallObserver, CallOutcome, CallRefusal, ConnectionEvent, ConnectionRefusal,
    RefusalReason, SentAwayReason, Traffic,
};
#[cfg(feature = "tls")]
pub use self::peer_certificate::PeerCertificate;
pub use self::served::{Load, ServedMethod};
pub use self::service::{DrainPolicy, Service, ServiceBuilder};
pub use self::status::{Code, Status};
pub use self::status_from::OrStatus;
pub use self::stream::{DetachedReplies, Received, Replies, Requests};
pub use self::stream_error::{RecvTimeoutError, SendTimeoutError, TrySendError};
#[cfg(feature = "tls")]
pub use self::tls::{Tls, TlsError, TlsFiles};
