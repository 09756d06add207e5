//! Generates what the greeter speaks, with the descriptors that reflection tells of.

fn main() -> Result<(), touchdown_build::Error> {
    touchdown_build::Builder::new()
        .file("../../proto/greeter.proto")
        .include("../../proto")
        .client(false)
        .descriptors(true)
        .compile()
}
