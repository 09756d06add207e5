//! Generates what the greeter and its callers speak.

fn main() -> Result<(), touchdown_build::Error> {
    touchdown_build::compile(&["../../proto/greeter.proto"], &["../../proto"])
}
