//! How clients find their servers, wait for them, and stop waiting.
#![cfg(feature = "client")]

mod common;

use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use touchdown::client::{CallOptions, Client};
use touchdown::Code;

/// The resolver asks the system's files for these, and no name server.
#[test]
fn a_server_is_found_by_name() {
    let server = start(echo());
    let address = server.address().to_string();
    let port = address.rsplit(':').next().unwrap();
    for name in ["localhost", "dns:localhost", "dns:///localhost"] {
        let client = Client::new(&channel_to(&format!("{name}:{port}")));
        assert_eq!(say(&client, name).unwrap(), name);
    }
}

/// The client tries again after a second and more: C-core's own back-off.
#[test]
fn a_client_waits_for_its_server() {
    let name = format!("touchdown-clients-{}.sock", std::process::id());
    let path = std::env::temp_dir().join(name);
    let address = format!("unix:{}", path.display());
    let client = Client::new(&channel_to(&address));
    // At once, as nobody is there.
    assert_eq!(say(&client, "hello").unwrap_err().code(), Code::Unavailable);
    let waiting = thread::spawn({
        let client = client.clone();
        let options = CallOptions::default().timeout(LONG).wait_for_ready(true);
        move || say_with(&client, "hello", options)
    });
    let server = builder(echo()).address(&*address).start().unwrap();
    UnixStream::connect(&path).expect("it listens");
    assert_eq!(waiting.join().unwrap().unwrap(), "hello");
    server.shutdown();
}

/// Of many timers each ends its own call, whatever the order in which they were set and dropped.
#[test]
fn every_call_ends_at_its_own_deadline() {
    const CALLS: u64 = 48;
    // Takes connections, and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = Client::new(&channel_to(&listener.local_addr().unwrap().to_string()));
    let server = start(echo());
    let client = client(&server);
    thread::scope(|scope| {
        for seed in 0..CALLS {
            let (silent, client) = (&silent, &client);
            scope.spawn(move || {
                let mut chance = Chance(seed);
                for _ in 0..5 {
                    let timeout = Duration::from_millis(50 + chance.below(200));
                    let options = CallOptions::default().timeout(timeout);
                    let begin = Instant::now();
                    let status = say_with(silent, "hello", options).unwrap_err();
                    assert_eq!(status.code(), Code::DeadlineExceeded);
                    // The deadline is a time in whole milliseconds.
                    assert!(begin.elapsed() >= timeout - Duration::from_millis(2));
                    assert!(begin.elapsed() < timeout + LONG / 2);
                    assert_eq!(say(client, "hello").unwrap(), "hello");
                }
            });
        }
    });
}
