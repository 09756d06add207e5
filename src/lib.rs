//! A gRPC server for blocking, threaded programs on small Linux machines, and its end without
//! losing a call.
//!
//! # Why it is hard
//!
//! A program that serves gRPC and is told to stop has to say "not ready" while it still serves,
//! take in no new connection, tell its clients to go elsewhere, serve what they had already sent,
//! wait for the handlers, but not for ever, close what it has open in the right order, and exit with
//! a code that says how it went. Each step has a way to lose a call or to hang: a server library
//! that cancels what arrives while it shuts down, a client that never answers, a handler that waits
//! for a device, a hook that waits for a lock.
//!
//! # The goal
//!
//! *Every call in flight lands.* On a stop, each call that reached the process ends as its handler
//! says; what does not end in time is told so, and named; nothing can hang. And it stays plain Rust
//! for threads: no futures, no runtime, a handler may block.
//!
//! # Anatomy
//!
//! - [`lifecycle`] walks a program through its phases, from Starting to Stopped. It knows nothing of
//!   gRPC and is of use alone.
//! - [`Server`] serves [`Service`]s, and is a part of a lifecycle. Handlers get a [`Call`], take and
//!   give messages or streams of them ([`Requests`], [`Replies`]), and fail with a [`Status`], which
//!   [`OrStatus`] makes of other errors. Its [`Health`] answers those who ask for it.
//! - [`Upgrade`] has a new process take over, without refusing a call, once it has shown that it works.
//! - [`acceptor`] is for programs that speak something else than gRPC: listening sockets that are handed over and
//!   drained as a server's are.
//! - [`client`] is the other side, as blocking as this one. What of it is public and not promised is in
//!   [`unversioned`].
//! - Others hang on a server by its doors: a [`CallObserver`] counts calls and connections, an [`Interceptor`] stands
//!   around them, [`Call::extensions`] carries what the one has found out to the other, and a [`Companion`] starts and
//!   ends with the server. The features `admin` and `systemd` are companions.
//! - `touchdown-build`, a crate of its own, turns .proto files into service traits and clients, in
//!   build.rs; [`include_protos!`] brings them in.
//!
//! Underneath is gRPC C-core (by `grpcio-sys`). The threads that poll it run the handlers
//! themselves, so a call costs no hop from one thread to another.
//!
//! # Quick start
//!
#![cfg_attr(feature = "server", doc = "```no_run")]
#![cfg_attr(not(feature = "server"), doc = "```ignore")]
//! use touchdown::lifecycle::Report;
//! use touchdown::protobuf::well_known_types::wrappers::StringValue;
//! use touchdown::{Call, Server, Service, Status};
//!
//! fn main() -> Report {
//!     let echo = Service::builder("demo.Echo")
//!         .unary("Say", |_: &Call, request: StringValue| Ok::<_, Status>(request))
//!         .build();
//!     // Until TERM or INT; the report's exit code becomes the program's.
//!     Server::builder().address("127.0.0.1:50051").service(echo).serve()
//! }
//! ```
//!
//! With a .proto file it looks like `examples/greeter_server.rs`.
//!
//! # Limits
//!
//! - Linux.
//! - A handler that never returns cannot be ended, in Rust as in any language with threads. Its
//!   caller gets an answer, the report names it, and the process exits at the planned time.
//! - The handler of a stream has a thread for itself until it returns, though no worker while it waits; see
//!   [`Broadcast`], [`Replies::detach`] and [`Requests::detach`] for streams that are many.
//! - Replies are not compressed. Requests may be, with gzip or deflate.
//! - The library keeps C-core's global state: `fork` without `exec` is not possible once a server
//!   was started.
//!
//! # Features
//!
//! | feature | default | what it brings |
//! |---|---|---|
//! | `server` | yes | the server, its health service and the code generator's runtime; needs cmake and a C++ compiler |
//! | `client` | yes | channels to other servers, with all that C-core has for them; programs without are a quarter to a third smaller |
//! | `upgrade` | with `server` | hot restart ([`Upgrade`]), and listening sockets for programs of any protocol ([`acceptor`]); needs no C++ compiler |
//! | `admin` | no | [`admin`]: status, stop and upgrade from afar, on a unix socket |
//! | `tls` | no | TLS and mutual TLS for listeners: `Tls`, `Listen::tls` and `Call::peer_certificate` |
//! | `systemd` | no | tells systemd what the program is at, and feeds its watchdog; with the lifecycle alone, too. With `upgrade` it keeps listening sockets over restarts |
//!
//! Without default features the crate is [`lifecycle`] alone. It builds in seconds, in Rust only.
#![deny(missing_docs, unsafe_code)]
#![warn(rust_2018_idioms)]

// Generated code names the crate as programs do.
#[cfg(feature = "server")]
extern crate self as touchdown;

#[cfg(feature = "upgrade")]
pub mod acceptor;
#[cfg(feature = "admin")]
pub mod admin;
#[cfg(feature = "server")]
mod calls;
mod caught;
#[cfg(feature = "server")]
pub mod client;
mod descriptors;
#[cfg(feature = "server")]
#[allow(unsafe_code)]
#[deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]
mod engine;
#[cfg(feature = "server")]
mod include_protos;
pub mod lifecycle;
mod logging;
#[cfg(feature = "upgrade")]
#[allow(unsafe_code)]
#[deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]
mod os;
mod running_time;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "upgrade")]
#[allow(unsafe_code)]
#[deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]
pub mod sockets;
mod sync;
#[cfg(feature = "systemd")]
pub mod systemd;
mod text;
mod thrown;
#[cfg(feature = "server")]
pub mod unversioned;
#[cfg(feature = "upgrade")]
mod upgrade;

/// Pages for people. Their examples are tests.
#[cfg(all(doctest, feature = "server"))]
mod pages {
    #[cfg(feature = "admin")]
    #[doc = include_str!("../docs/admin.md")]
    struct Admin;

    #[doc = include_str!("../docs/calls.md")]
    struct Calls;

    #[cfg(feature = "client")]
    #[doc = include_str!("../docs/clients.md")]
    struct Clients;

    #[doc = include_str!("../docs/lifecycle.md")]
    struct Lifecycle;

    #[doc = include_str!("../docs/settings.md")]
    struct Settings;

    #[doc = include_str!("../docs/sockets.md")]
    struct Sockets;

    #[cfg(feature = "tls")]
    #[doc = include_str!("../docs/tls.md")]
    struct Tls;
}

#[cfg(feature = "server")]
pub use protobuf;

#[cfg(feature = "server")]
pub use self::server::*;
#[cfg(feature = "upgrade")]
pub use self::{
    sockets::{Address, AddressError, Listen, PeerCredentials},
    upgrade::{Upgrade, UpgradeError},
};

/// Its examples are tests.
#[cfg(all(doctest, feature = "server"))]
#[doc = include_str!("../docs/doors.md")]
struct Doors;

/// Its examples are tests.
#[cfg(all(doctest, feature = "client"))]
#[doc = include_str!("../docs/testing.md")]
struct Testing;

/// Its examples are tests.
#[cfg(all(doctest, feature = "server"))]
#[doc = include_str!("../docs/streams.md")]
struct Streams;
