//! Servers for clients of other gRPC implementations: [`test_service`], which the gRPC project publishes for
//! this; [`conformance`], for what that one leaves out; and [`feed`], for many subscribers at once.
//!
//! The files below `proto/src` are gRPC's, as of 1.56.2 and under its licence, Apache-2.0. Those beside it are ours.

pub mod conformance;
pub mod feed;
pub mod test_service;

/// Generated from `proto/`.
pub mod protos {
    touchdown::include_protos!();
}
