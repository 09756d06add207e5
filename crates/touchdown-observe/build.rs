//! Generates the messages of server reflection, and the descriptors of the services that it describes by itself.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "reflection")]
    {
        let out = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
        touchdown_build::Builder::new()
            .file("proto/grpc/health/v1/health.proto")
            .file("proto/grpc/reflection/v1/reflection.proto")
            .file("proto/grpc/reflection/v1alpha/reflection.proto")
            .include("proto")
            .out_dir(std::path::Path::new(&out).join("reflection"))
            .client(false)
            .server(false)
            .lite(true)
            .descriptors(true)
            .compile()?;
    }
    Ok(())
}
