//! The service as `tonic-prost-build` would generate it from `proto/greeter.proto`, described by hand so
//! that `protoc` is not needed.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    let method = |name: &str, route: &str, request: &str, reply: &str| {
        Method::builder()
            .name(name)
            .route_name(route)
            .input_type(format!("crate::{request}"))
            .output_type(format!("crate::{reply}"))
            .codec_path("tonic_prost::ProstCodec")
    };
    let say_hello = method("say_hello", "SayHello", "HelloRequest", "HelloReply");
    let many = method(
        "say_many_hellos",
        "SayManyHellos",
        "ManyHellosRequest",
        "HelloReply",
    );
    let everybody = method(
        "greet_everybody",
        "GreetEverybody",
        "HelloRequest",
        "HelloReply",
    );
    let service = Service::builder()
        .name("Greeter")
        .package("greeter")
        .method(say_hello.build())
        .method(many.server_streaming().build())
        .method(everybody.client_streaming().build())
        .build();
    Builder::new().build_client(false).compile(&[service]);
}
