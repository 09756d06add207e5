//! What `tests/ledger.rs` is made of.

pub mod caller;
pub mod check;
pub mod program;
pub mod wrong;
