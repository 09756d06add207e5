use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let protos = "../../interop/proto";
    let files = [
        "src/proto/grpc/testing/test.proto",
        "conformance.proto",
        "feed.proto",
    ];
    println!("cargo:rerun-if-changed={protos}");
    let descriptors = protox::compile(files, [protos])?;
    tonic_prost_build::configure()
        .build_server(false)
        .compile_fds(descriptors)?;
    Ok(())
}
