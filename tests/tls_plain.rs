//! Clients without TLS at a listener that has it, and the other way about. The log has a line a minute for each, so this is a
//! program of its own.
#![cfg(feature = "tls")]

mod common;
mod tls_support;

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use common::{echo, eventually, PREFACE};
use tls_support::*;

/// It comes again and again. Settings before the GOAWAY would have it do so at once: they make it believe that
/// it was connected.
#[test]
fn a_client_without_tls_is_told_so_before_it_takes_itself_for_connected() {
    listen_to_log();
    let folder = Folder::new();
    let failures = Arc::<Failures>::default();
    let server = builder(echo(), folder.tls())
        .observer(Arc::clone(&failures))
        .start()
        .unwrap();
    let say = |words: &[u8]| {
        let mut plain = TcpStream::connect(server.address().to_string()).unwrap();
        plain.write_all(words).unwrap();
        read_all(&mut plain)
    };
    for count in 1..=50 {
        let go_away = say(PREFACE);
        // Length, type, flags, stream; the last stream and the code, which is INADEQUATE_SECURITY. RFC 9113, 4.1, 6.8 and 7.
        let (header, rest) = go_away.split_at(9);
        assert_eq!(header, [0, 0, rest.len() as u8, 7, 0, 0, 0, 0, 0]);
        assert_eq!(rest[..8], [0, 0, 0, 0, 0, 0, 0, 12]);
        assert_eq!(&rest[8..], b"this address expects TLS");
        eventually("observers hear of each", || {
            failures.with("speaks HTTP/2 without TLS") == count
        });
    }
    assert_eq!(logged("speaks HTTP/2 without TLS"), 1, "once a minute");
    assert_eq!(logged("give it the address of a listener without TLS"), 1);
    for count in 1..=50 {
        assert!(say(b"GET / HTTP/1.1\r\n\r\n").is_empty());
        eventually("observers hear of each", || {
            failures.with("but \"GET / HTTP/1.1") == count
        });
    }
    assert_eq!(logged("but \"GET / HTTP/1.1"), 1, "once a minute");
}

/// A client that retries for as long as its call may take would keep both sides busy.
#[test]
fn a_call_without_tls_fails_at_once_and_its_channel_waits_before_it_comes_again() {
    listen_to_log();
    let folder = Folder::new();
    let failures = Arc::<Failures>::default();
    let server = builder(echo(), folder.tls())
        .observer(Arc::clone(&failures))
        .start()
        .unwrap();
    let begin = Instant::now();
    let error = common::say(&common::client(&server), "it").unwrap_err();
    assert_eq!(error.code(), touchdown::Code::Unavailable, "{error}");
    let took = begin.elapsed();
    assert!(took < common::LONG / 2, "it took {took:?}");
    // Its back-off begins with a second or so, whatever the machine's speed.
    let came = failures.with("speaks HTTP/2 without TLS");
    let limit = 2 + 2 * took.as_secs() as usize;
    assert!(
        (1..=limit).contains(&came),
        "{came} connections in {took:?}"
    );
}

/// The other way about: the client hears what is no TLS, and fails its handshake.
#[test]
fn a_client_with_tls_at_a_listener_without_fails_at_once() {
    let folder = Folder::new();
    let server = common::start(echo());
    let ca = folder.file("ca.pem");
    let mut client = connect(&server, &Wish::new(&ca).config());
    let error = client.begin().unwrap_err();
    assert!(error.to_string().contains("corrupt message"), "{error}");
    drop(client);
    eventually("it is gone", || server.connections() == 0);
}
