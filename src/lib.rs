#[cfg(feature = "server")]
pub mod client;
#[cfg(feature = "server")]
#[allow(dead_code)]
mod engine;
pub mod lifecycle;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "server")]
pub use self::{engine::Address, server::*};
#[cfg(feature = "server")]
pub use protobuf;

/// Brings in what `touchdown_build` generated in build.rs: a module for each .proto file.
#[macro_export]
macro_rules! include_protos {
    () => {
        include!(concat!(env!("OUT_DIR"), "/touchdown/mod.rs"));
    };
}
