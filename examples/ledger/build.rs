//! Generates what the ledger speaks.

fn main() -> Result<(), touchdown_build::Error> {
    touchdown_build::Builder::new()
        .file("../../proto/ledger.proto")
        .include("../../proto")
        .client(false)
        .compile()
}
