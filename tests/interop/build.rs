fn main() -> Result<(), touchdown_build::Error> {
    let files = [
        "proto/src/proto/grpc/testing/test.proto",
        "proto/conformance.proto",
        "proto/feed.proto",
    ];
    touchdown_build::compile(&files, &["proto"])
}
