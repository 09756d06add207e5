//! A program without the feature `client`: of C-core it has what its server needs, and the channels on which a
//! server tests itself.
#![cfg(all(feature = "server", not(feature = "client")))]

mod common;

use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use grpcio::{ChannelBuilder, Environment};
use touchdown::client::{CallOptions, Channel, Client};
use touchdown::protobuf::well_known_types::wrappers::StringValue;
use touchdown::{Code, Server, Status};

fn connect(server: &Server) -> Client {
    let socket = TcpStream::connect(server.address().to_string()).unwrap();
    Client::new(&Channel::over(socket).unwrap())
}

fn say(client: &Client, what: &str) -> Result<String, Status> {
    let reply: StringValue = client.unary(
        "/test.Echo/Say",
        &text(what),
        CallOptions::new().timeout(LONG),
    )?;
    Ok(reply.value)
}

#[test]
fn calls_land() {
    let server = start(echo());
    let client = connect(&server);
    for size in [0, 1, 1 << 10, 1 << 20] {
        let sent = "x".repeat(size);
        assert_eq!(say(&client, &sent).unwrap(), sent);
    }
    assert_eq!(server.shutdown().exit_code(), 0);
}

#[test]
fn a_call_ends_at_its_deadline() {
    let (release, released) = channel();
    let released = Mutex::new(released);
    let server = start(unary(move |_, request| {
        released.lock().unwrap().recv_timeout(LONG).unwrap();
        Ok(request)
    }));
    let client = connect(&server);
    let options = CallOptions::new().timeout(Duration::from_millis(100));
    let reply = client.unary::<_, StringValue>("/test.Echo/Say", &text("late"), options);
    assert_eq!(reply.unwrap_err().code(), Code::DeadlineExceeded);
    release.send(()).unwrap();
    server.shutdown();
}

#[test]
fn a_channel_to_another_server_is_refused() {
    let server = start(echo());
    let channel = ChannelBuilder::new(Arc::new(Environment::new(1)));
    let channel = channel.connect(&server.address().to_string());
    let client = Client::new(&touchdown::unversioned::channel(channel));
    let error = say(&client, "hello").unwrap_err();
    assert_eq!(error.code(), Code::Unknown, "{error}");
    assert!(error.message().contains("client channel"), "{error}");
    assert_eq!(server.shutdown().exit_code(), 0);
}
