//! Makes one call of each kind to the server of `greeter_server.rs`.
//!
//!     cargo run --example greeter_client -- 127.0.0.1:50051 Ada Grace

touchdown::include_protos!();

use std::time::Duration;

use greeter::{GreeterClient, HelloRequest, ManyHellosRequest};
use touchdown::client::{CallOptions, Channel};

const USAGE: &str = "usage: greeter_client [ADDRESS [NAME...]]

ADDRESS is HOST:PORT or unix:PATH; 127.0.0.1:50051 without it.";

/// Says how the program is called: because it is asked, or because it was called otherwise.
fn usage(arguments: &[String]) -> ! {
    if arguments.iter().any(|it| it == "--help") {
        println!("{USAGE}");
        std::process::exit(0);
    }
    eprintln!("{USAGE}");
    std::process::exit(2);
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    if names.iter().any(|it| it.starts_with('-')) {
        usage(&names);
    }
    let address = match names.is_empty() {
        true => "127.0.0.1:50051".to_owned(),
        false => names.remove(0),
    };
    if names.is_empty() {
        names = vec!["Ada".to_owned(), "Grace".to_owned()];
    }
    let channel = Channel::connect(address)?;
    let greeter = GreeterClient::new(&channel);

    println!("one request, one reply:");
    let options = CallOptions::new().timeout(Duration::from_secs(5));
    let reply = greeter.say_hello_with(&request(&names[0]), options)?;
    println!("  {}", reply.text);

    println!("one request, many replies:");
    let many = ManyHellosRequest {
        name: names[0].clone(),
        count: 3,
        ..Default::default()
    };
    for reply in greeter.say_many_hellos(&many)? {
        println!("  {}", reply?.text);
    }

    println!("many requests, one reply:");
    let mut upload = greeter.greet_everybody()?;
    for name in &names {
        upload.send(request(name))?;
    }
    println!("  {}", upload.finish()?.text);

    println!("both at once:");
    let (mut requests, mut replies) = greeter.chat()?;
    for name in &names {
        requests.send(request(name))?;
        if let Some(reply) = replies.next() {
            println!("  {}", reply?.text);
        }
    }
    drop(requests);
    Ok(replies.try_for_each(|reply| reply.map(drop))?)
}

fn request(name: &str) -> HelloRequest {
    HelloRequest {
        name: name.to_owned(),
        ..Default::default()
    }
}
