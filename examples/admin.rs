//! Asks a server for its status, or has it stop or be replaced, over its admin socket.
//!
//!     cargo run --features admin --example admin -- /run/greeter/admin.sock status
//!     cargo run --features admin --example admin -- /run/greeter/admin.sock drain "a new kernel"
//!     cargo run --features admin --example admin -- /run/greeter/admin.sock upgrade

use std::process::ExitCode;

use touchdown::admin::messages::{DrainRequest, StatusRequest, UpgradeRequest};
use touchdown::admin::AdminClient;
use touchdown::client::Channel;
use touchdown::Status;

const USAGE: &str = "usage: admin PATH status | drain [REASON] | upgrade";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (path, order, rest) = match *arguments {
        ["--help"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        [path, order, ref rest @ ..] if !order.is_empty() => (path, order, rest),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    let client = match Channel::connect(format!("unix:{path}")) {
        Ok(channel) => AdminClient::new(&channel),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let result = match (order, rest) {
        ("status", []) => status(&client),
        ("drain", []) => drain(&client, ""),
        ("drain", [reason]) => drain(&client, reason),
        ("upgrade", []) => upgrade(&client),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(status) => {
            eprintln!("{status}");
            ExitCode::FAILURE
        }
    }
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
