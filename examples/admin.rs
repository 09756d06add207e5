//! Asks a server for its status, or has it stop or be replaced, over its admin socket.
//!
//!     cargo run --features admin --example admin -- /run/greeter/admin.sock status
//!     cargo run --features admin --example admin -- /run/greeter/admin.sock drain "a new kernel"
//!     cargo run --features admin --example admin -- /run/greeter/admin.sock upgrade

mod arguments;

use std::error::Error;

use touchdown::admin::messages::{DrainRequest, StatusRequest, UpgradeRequest};
use touchdown::admin::AdminClient;
use touchdown::client::Channel;
use touchdown::Status;

const USAGE: &str = "usage: admin PATH status | drain [REASON] | upgrade";

fn main() -> Result<(), Box<dyn Error>> {
    let words = arguments::words(USAGE);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [path, order @ ..] = &*words else {
        arguments::wrong(USAGE);
    };
    let client = AdminClient::new(&Channel::connect(format!("unix:{path}"))?);
    match *order {
        ["status"] => status(&client),
        ["drain"] => drain(&client, ""),
        ["drain", reason] => drain(&client, reason),
        ["upgrade"] => upgrade(&client),
        _ => arguments::wrong(USAGE),
    }?;
    Ok(())
}

fn status(client: &AdminClient) -> Result<(), Status> {
    let status = client.status(&StatusRequest::new())?;
    println!("process {}, {} in flight", status.process, status.in_flight);
    print!("{}", status.description);
    Ok(())
}

fn drain(client: &AdminClient, reason: &str) -> Result<(), Status> {
    let request = DrainRequest {
        reason: reason.to_owned(),
        ..Default::default()
    };
    println!("stopping: {}", client.drain(&request)?.reason);
    Ok(())
}

fn upgrade(client: &AdminClient) -> Result<(), Status> {
    let reply = client.upgrade(&UpgradeRequest::new())?;
    println!("process {} has taken over", reply.process);
    Ok(())
}
