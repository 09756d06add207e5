//! Serves gRPC's test service and ours for clients that are run by hand:
//!
//!     cargo run -p touchdown-interop -- 127.0.0.1:10000

use touchdown::lifecycle::Report;
use touchdown::Server;
use touchdown_interop::{conformance, test_service::test_service};

fn main() -> Report {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let address = std::env::args().nth(1);
    Server::builder()
        .address(address.unwrap_or("127.0.0.1:10000".to_owned()))
        .service(test_service())
        .service(conformance::service())
        .serve()
}
