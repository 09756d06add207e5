//! The greeter on tonic, as its own examples are built: a Tokio runtime with a thread for each core, the
//! server's defaults (TCP_NODELAY is on). A handler that blocks does so in `spawn_blocking`, as Tokio asks;
//! one that does not block runs in place.
//!
//!     rival-tonic ADDRESS

use std::time::Duration;

use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

mod generated {
    include!(concat!(env!("OUT_DIR"), "/greeter.Greeter.rs"));
}

use generated::greeter_server::{Greeter, GreeterServer};

#[derive(Clone, PartialEq, prost::Message)]
pub struct HelloRequest {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(uint32, tag = "2")]
    pub think_ms: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ManyHellosRequest {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(uint32, tag = "2")]
    pub count: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct HelloReply {
    #[prost(string, tag = "1")]
    pub text: String,
}

struct Polite;

#[tonic::async_trait]
impl Greeter for Polite {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let request = request.into_inner();
        if request.think_ms > 0 {
            let think = Duration::from_millis(request.think_ms.into());
            tokio::task::spawn_blocking(move || std::thread::sleep(think))
                .await
                .map_err(|error| Status::internal(error.to_string()))?;
        }
        Ok(Response::new(hello(&request.name)))
    }

    type SayManyHellosStream =
        std::pin::Pin<Box<dyn Stream<Item = Result<HelloReply, Status>> + Send>>;

    async fn say_many_hellos(
        &self,
        request: Request<ManyHellosRequest>,
    ) -> Result<Response<Self::SayManyHellosStream>, Status> {
        let ManyHellosRequest { name, count } = request.into_inner();
        let replies = (0..count).map(move |_| Ok(hello(&name)));
        Ok(Response::new(Box::pin(tokio_stream::iter(replies))))
    }

    async fn greet_everybody(
        &self,
        request: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<HelloReply>, Status> {
        let mut requests = request.into_inner();
        let mut names = Vec::new();
        while let Some(request) = requests.next().await {
            names.push(request?.name);
        }
        Ok(Response::new(hello(&names.join(" and "))))
    }
}

fn hello(name: &str) -> HelloReply {
    let name = if name.is_empty() { "you" } else { name };
    HelloReply {
        text: format!("Hello, {name}!"),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).ok_or("ADDRESS")?.parse()?;
    tonic::transport::Server::builder()
        .add_service(GreeterServer::new(Polite))
        .serve(address)
        .await?;
    Ok(())
}
