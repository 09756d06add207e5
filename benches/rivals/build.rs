fn main() -> Result<(), touchdown_build::Error> {
    touchdown_build::compile(&["../../proto/greeter.proto"], &["../../proto"])
}
