//! The `greeter_server` with TLS and nothing else beside it, for `make footprint`.
//!
//!     footprint_tls ADDRESS CHAIN KEY

touchdown::include_protos!();

use greeter::{HelloReply, HelloRequest};
use touchdown::lifecycle::Report;
use touchdown::{Call, Listen, Server, Service, Status, Tls};

fn say_hello(_: &Call, request: HelloRequest) -> Result<HelloReply, Status> {
    Ok(HelloReply {
        text: format!("Hello, {}!", request.name),
        ..Default::default()
    })
}

fn main() -> Result<Report, Box<dyn std::error::Error>> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, chain, key] = &words[..] else {
        return Err("usage: footprint_tls ADDRESS CHAIN KEY".into());
    };
    let tls = Tls::from_pem_files(chain, key).load()?;
    let greeter = Service::builder("greeter.Greeter").unary("SayHello", say_hello);
    let listen = Listen::new(address).tls(tls);
    Ok(Server::builder()
        .listen(listen)
        .service(greeter.build())
        .serve())
}
