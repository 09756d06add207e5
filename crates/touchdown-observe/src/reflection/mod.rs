//! Server reflection: callers are told which services there are, and with which messages they are called.
//!
//! # When to use
//!
//! For tools that call a server without its `.proto` files: `buf curl`, grpcurl, Postman, a gateway. Clients that are
//! compiled with the files need none of it.
//!
//! ```no_run
//! use touchdown::lifecycle::Report;
//! use touchdown::Server;
//! use touchdown_observe::reflection::Reflection;
//! use touchdown_observe::ObserveServer;
//!
//! # mod generated { pub const FILE_DESCRIPTOR_SET: &[u8] = &[]; }
//! # use generated::FILE_DESCRIPTOR_SET;
//! fn main() -> Report {
//!     // In build.rs: touchdown_build::Builder::new().file("proto/greeter.proto").descriptors(true).compile()
//!     // Here, as always: touchdown::include_protos!();
//!     Server::builder()
//!         .address("127.0.0.1:50051")
//!         .reflection(Reflection::new().descriptors(FILE_DESCRIPTOR_SET))
//!         .serve()
//! }
//! ```
//!
//! # What is served
//!
//! `grpc.reflection.v1.ServerReflection`, and `grpc.reflection.v1alpha.ServerReflection`, which older tools ask for. As in
//! grpc-go, the services that are listed are those that the server has, health and reflection included, whatever the
//! descriptors say; and a file is sent with all that it imports, each import once on a stream. The descriptors of
//! health and reflection are there without the program's doing. What is asked for and is not there is an error in the
//! answer (NOT_FOUND), and the stream goes on.
//!
//! The calls are ordinary ones: interceptors stand around them, so that who may not call the server is not told how it
//! is called.
//!
//! # What it costs
//!
//! Nothing while nobody asks, but the descriptors in the program, which are read where they lie. A stream that is quiet has
//! no thread, and a drain does not wait for it.

mod catalog;
mod declared;
mod error;
mod session;
mod wire;

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use touchdown::lifecycle::Lifecycle;
use touchdown::{
    Call, Companion, DrainPolicy, MethodName, Replies, Requests, ServerBuilder, ServerHandle,
    Service,
};

use self::catalog::Catalog;
use self::own::v1_reflection::{ServerReflectionRequest, ServerReflectionResponse};
use self::session::{Known, Session};

pub use self::error::DescriptorError;

/// The messages, which are the same in both versions, and descriptors of the services that no program has to describe.
mod own {
    include!(concat!(env!("OUT_DIR"), "/reflection/mod.rs"));
}

const SERVICES: [&str; 2] = [
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

const METHOD: &str = "ServerReflectionInfo";

/// How long a stream is quiet in a drain before it is ended. What its caller had asked before it knew of the drain has
/// come by then, and was answered.
const IDLE: Duration = Duration::from_millis(100);

/// What a server tells of itself: for [`ObserveServer::reflection`](crate::ObserveServer::reflection).
#[derive(Clone, Default)]
#[must_use = "give it to `ServerBuilder::reflection`"]
pub struct Reflection {
    sets: Vec<Cow<'static, [u8]>>,
}

impl Reflection {
    /// Knows of health and of reflection alone.
    pub fn new() -> Reflection {
        Reflection::default()
    }

    /// Adds descriptors: an encoded `google.protobuf.FileDescriptorSet` with all imports. It is the constant
    /// `FILE_DESCRIPTOR_SET` of `touchdown_build::Builder::descriptors`, or what `protoc` writes with
    /// `--include_imports --descriptor_set_out`.
    ///
    /// Any number of sets may be added. A file that is in several of them has to be the same in each, but for those of
    /// `google/protobuf/`, of which the first counts.
    ///
    /// Descriptors that cannot be served keep the server from starting, with a [`DescriptorError`] in
    /// [`StartError::Companion`](touchdown::StartError::Companion).
    pub fn descriptors(mut self, set: impl Into<Cow<'static, [u8]>>) -> Reflection {
        self.sets.push(set.into());
        self
    }
}

impl fmt::Debug for Reflection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<usize> = self.sets.iter().map(|it| it.len()).collect();
        formatter
            .debug_struct("Reflection")
            .field("set_sizes", &sizes)
            .finish()
    }
}

impl Reflection {
    /// Hangs it on a server.
    pub(crate) fn apply(self, builder: ServerBuilder) -> ServerBuilder {
        let known = Arc::new(OnceLock::new());
        let builder = SERVICES.iter().fold(builder, |builder, name| {
            builder.service(service(name, Arc::clone(&known)))
        });
        builder.companion(Teacher {
            sets: self.sets,
            catalog: None,
            known,
        })
    }
}

fn service(name: &'static str, known: Arc<OnceLock<Known>>) -> Service {
    let method = MethodName::new(name, METHOD);
    let handler = move |_: &Call,
                        requests: Requests<ServerReflectionRequest>,
                        replies: Replies<ServerReflectionResponse>| {
        requests.detach(replies, Session::new(Arc::clone(&known)))
    };
    let service = Service::builder(name).bidirectional(METHOD, handler);
    let policy = DrainPolicy::FinishUnlessIdle { idle: IDLE };
    service.build().policy(method, policy)
}

/// Finds out, while the server starts, what there is to tell.
struct Teacher {
    sets: Vec<Cow<'static, [u8]>>,
    catalog: Option<Catalog>,
    known: Arc<OnceLock<Known>>,
}

impl Companion for Teacher {
    fn begin(&mut self, _: &Lifecycle) -> Result<(), Box<dyn Error + Send + Sync>> {
        let sets = std::mem::take(&mut self.sets);
        self.catalog = Some(Catalog::new(sets, own::FILE_DESCRIPTOR_SET)?);
        Ok(())
    }

    fn started(self: Box<Self>, server: &ServerHandle) -> Result<(), Box<dyn Error + Send + Sync>> {
        let catalog = self.catalog.unwrap_or_default();
        let services = server.methods().iter().map(|it| it.service).collect();
        let known = Known { catalog, services };
        let is_described = |it: &&&str| known.catalog.declaring(it).is_some();
        for name in known.services.iter().filter(|it| !is_described(it)) {
            log::warn!(
                "reflection: {name} is served, and no descriptor set describes it: callers see its name alone"
            );
        }
        // Nobody has asked yet: the server accepts no connection before this has returned.
        let _ = self.known.set(known);
        Ok(())
    }
}
