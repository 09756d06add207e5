//! Channels to servers: where they lead, what they are told to keep to, and what goes along with a call.
#![cfg(feature = "client")]

mod common;

use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use common::*;
use touchdown::client::{CallOptions, Channel, ChannelBuilder, Client, Metadata};
use touchdown::{Code, MetadataError, Server};

fn say_over(channel: &Channel) -> Result<String, touchdown::Status> {
    say(&Client::new(channel), "hello")
}

fn address(server: &Server) -> String {
    server.address().to_string()
}

#[test]
fn a_channel_leads_to_names_paths_and_sockets() {
    let server = start(echo());
    let port = server.address().port().unwrap();
    for address in [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("ipv4:127.0.0.1:{port}"),
    ] {
        let channel = Channel::connect(&address).unwrap();
        assert_eq!(say_over(&channel), Ok("hello".to_owned()), "{address}");
    }
    let socket = TcpStream::connect(address(&server)).unwrap();
    let channel = Channel::over(socket).unwrap();
    assert_eq!(say_over(&channel), Ok("hello".to_owned()));

    let path = std::env::temp_dir().join(format!("touchdown-channels-{}", std::process::id()));
    let at_path = Server::builder()
        .address(format!("unix:{}", path.display()))
        .service(echo())
        .start()
        .unwrap();
    let channel = Channel::connect(address(&at_path)).unwrap();
    assert_eq!(say_over(&channel), Ok("hello".to_owned()));
    let channel = Channel::over(UnixStream::connect(&path).unwrap()).unwrap();
    assert_eq!(say_over(&channel), Ok("hello".to_owned()));
}

#[test]
fn what_is_no_address_is_not_connected_to() {
    for (address, words) in [
        (
            "http://localhost:50051",
            "\"http://localhost:50051\" is no address: it begins with http://, as a URL: write localhost:50051",
        ),
        (
            "50951",
            "\"50951\" is no address: it is a port without a host: write localhost:50951",
        ),
        (
            "/run/greeter.sock",
            "\"/run/greeter.sock\" is no address: a path has unix: before it: write unix:/run/greeter.sock",
        ),
    ] {
        let error = Channel::connect(address).map(drop).unwrap_err();
        assert_eq!(error.to_string(), words);
        // What a `main` prints that returns it.
        assert_eq!(format!("{error:?}"), words);
    }
}

#[test]
fn a_channel_of_its_own_has_a_connection_of_its_own() {
    let server = start(echo());
    let connect = |builder: ChannelBuilder| builder.connect(address(&server)).unwrap();
    let shared = [connect(Channel::builder()), connect(Channel::builder())];
    for channel in &shared {
        say_over(channel).unwrap();
    }
    assert_eq!(server.connections(), 1);
    let own = connect(Channel::builder().own_connection().threads(2));
    say_over(&own).unwrap();
    assert_eq!(server.connections(), 2);
}

#[test]
fn a_channel_tells_when_it_is_connected() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let channel = Channel::builder()
        .own_connection()
        .reconnect(Duration::from_millis(100), Duration::from_millis(100))
        .connect(&address)
        .unwrap();
    // Nobody answers there.
    assert!(!channel.wait_until_connected(Duration::from_millis(50)));
    drop(listener);
    let server = Server::builder().address(address).service(echo());
    let _server = server.start().unwrap();
    assert!(channel.wait_until_connected(LONG));
}

#[test]
fn a_call_waits_for_a_server_if_it_is_told_to() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let channel = Channel::builder()
        .reconnect(Duration::from_millis(100), Duration::from_millis(100))
        .connect(&address)
        .unwrap();
    let client = Client::new(&channel);
    let status = say(&client, "too early").unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let patient = CallOptions::new().wait_for_ready(true).timeout(LONG);
    let call = thread::spawn(move || say_with(&client, "hello", patient));
    let server = Server::builder().address(address).service(echo());
    let _server = server.start().unwrap();
    assert_eq!(call.join().unwrap(), Ok("hello".to_owned()));
}

#[test]
fn messages_above_a_limit_of_the_channel_end_their_call() {
    let server = start(echo());
    let connect = |builder: ChannelBuilder| builder.connect(address(&server)).unwrap();
    let large = "x".repeat(2000);
    let limited = [
        connect(Channel::builder().max_receive_message_size(1000)),
        connect(Channel::builder().max_send_message_size(1000)),
    ];
    for channel in limited {
        let client = Client::new(&channel);
        let status = say(&client, &large).unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert_eq!(say(&client, "small"), Ok("small".to_owned()));
    }
}

#[test]
fn settings_beyond_what_c_core_takes_are_as_much_as_it_takes() {
    let server = start(echo());
    let channel = Channel::builder()
        .keepalive(Duration::MAX, Duration::MAX)
        .reconnect(Duration::MAX, Duration::MAX)
        .max_receive_message_size(usize::MAX)
        .max_send_message_size(usize::MAX)
        .authority("greeter\0.local")
        .user_agent("a\0b")
        .round_robin()
        .retries(false)
        .threads(0)
        .connect(address(&server))
        .unwrap();
    assert_eq!(say_over(&channel), Ok("hello".to_owned()));
}

#[test]
fn metadata_and_the_name_of_the_client_arrive() {
    let server = start(unary(|call, _| {
        let metadata = call.metadata();
        let all: Vec<&str> = metadata.get_all("x-text").collect();
        assert_eq!(all, ["one", "two"]);
        assert_eq!(metadata.get_bin("x-raw-bin"), Some(&[0, 255, 7][..]));
        assert_eq!(metadata.get("x-gone"), None);
        let agent = metadata.get("user-agent").unwrap_or_default();
        Ok(text(agent.split(' ').next().unwrap_or_default()))
    }));
    let builder = Channel::builder().user_agent("meter/7");
    let channel = builder.connect(address(&server)).unwrap();
    let mut metadata = Metadata::new();
    metadata.add("X-Text", "one").unwrap();
    metadata.add("x-gone", "gone").unwrap();
    metadata.add("x-text", "two").unwrap();
    metadata.add("x-raw-bin", &[0, 255, 7]).unwrap();
    metadata.remove("X-GONE");
    let options = CallOptions::new().metadata(metadata).timeout(LONG);
    let reply = say_with(&Client::new(&channel), "", options);
    assert_eq!(reply, Ok("meter/7".to_owned()));
}

#[test]
fn metadata_that_cannot_be_sent_is_refused_and_not_added() {
    let mut metadata = Metadata::new();
    for name in ["grpc-timeout", "te", "ä", "", ":path"] {
        let error = metadata.add(name, "x").unwrap_err();
        assert_eq!(error, MetadataError::Name(name.to_owned()));
    }
    let error = metadata.add("text", "ü").unwrap_err();
    assert_eq!(error, MetadataError::Value("text".to_owned()));
    assert!(metadata.is_empty());
}
