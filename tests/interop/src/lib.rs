//! Servers for clients of other gRPC implementations: [`test_service`], which the gRPC project publishes for
//! this; [`conformance`], for what that one leaves out; and [`feed`], for many subscribers at once.

pub mod conformance;
pub mod feed;
pub mod test_service;

/// Generated from `proto/`.
pub mod protos {
    touchdown::include_protos!();
}
