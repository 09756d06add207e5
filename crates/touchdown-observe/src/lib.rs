//! What is seen of a [`touchdown`] server from outside.

#![deny(missing_docs, unsafe_op_in_unsafe_fn)]

#[cfg(feature = "access-log")]
pub mod access_log;
#[cfg(feature = "http")]
mod door;
#[cfg(feature = "load-report")]
pub mod load_report;
#[cfg(feature = "log")]
pub mod log;
#[cfg(feature = "otel")]
pub mod otel;
#[cfg(feature = "reflection")]
pub mod reflection;
#[cfg(feature = "http")]
mod statusz;
