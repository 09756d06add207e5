//! How many TLS handshakes may be under way, and who waits meanwhile.
#![cfg(feature = "tls")]

mod common;
mod tls_support;

use std::io::Read;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use common::{echo, eventually, LONG};
use tls_support::*;
use touchdown::{Listen, Server};

/// As long as the server leaves its listeners alone.
const PAUSE: Duration = Duration::from_millis(50);

fn start(folder: &Folder, handshakes: usize) -> Server {
    let builder = builder(echo(), folder.tls()).listen(Listen::new("127.0.0.1:0"));
    let builder = builder.handshake_timeout(LONG).max_handshakes(handshakes);
    builder.start().unwrap()
}

/// Somebody who says nothing.
fn silent(server: &Server) -> TcpStream {
    TcpStream::connect(server.address().to_string()).unwrap()
}

#[test]
fn who_is_slow_keeps_others_waiting_for_a_moment_only_and_nobody_who_speaks_no_tls() {
    let folder = Folder::new();
    let server = start(&folder, 2);
    let begun = Instant::now();
    let slow: Vec<_> = (0..12).map(|_| silent(&server)).collect();
    let plain = server.addresses()[1].to_string();
    let _plain: Vec<_> = (0..3)
        .map(|_| TcpStream::connect(&plain).unwrap())
        .collect();
    eventually("those without TLS are taken in at once", || {
        server.connections() >= 5
    });
    eventually("all are taken in", || server.connections() == 15);
    // One after the other, after the second.
    assert!(begun.elapsed() >= PAUSE * 9, "{:?}", begun.elapsed());
    let ca = folder.file("ca.pem");
    assert_eq!(client(&server, &Wish::new(&ca)).say("it").unwrap(), "it");
    drop(slow);
}

#[test]
fn the_next_is_taken_in_as_soon_as_a_handshake_is_over() {
    let folder = Folder::new();
    let server = start(&folder, 1);
    let ca = folder.file("ca.pem");
    thread::scope(|scope| {
        for _ in 0..4 {
            // The handshake of each of these ends well.
            scope.spawn(|| {
                let mut client = client(&server, &Wish::new(&ca));
                for _ in 0..3 {
                    assert_eq!(client.say("it").unwrap(), "it");
                }
            });
        }
    });
    eventually("all are gone", || server.connections() == 0);
}

#[test]
fn one_address_has_its_share_of_the_handshakes_where_its_connections_are_limited() {
    let folder = Folder::new();
    let builder = builder(echo(), folder.tls()).handshake_timeout(LONG);
    let builder = builder.max_handshakes(8).max_connections_per_address(100);
    let server = builder.start().unwrap();
    let slow = [silent(&server), silent(&server)];
    eventually("they are taken in", || server.connections() == 2);
    let mut over = silent(&server);
    assert_eq!(over.read(&mut [0]).unwrap_or(0), 0, "it is closed");
    let ca = folder.file("ca.pem");
    drop(slow);
    eventually("they are gone", || server.connections() == 0);
    let mut clients: Vec<_> = (0..4)
        .map(|_| {
            let mut client = client(&server, &Wish::new(&ca));
            // Only then its handshake is sure to be over.
            assert_eq!(client.say("it").unwrap(), "it");
            client
        })
        .collect();
    assert!(clients.iter_mut().all(|it| it.say("it").is_ok()));
}
