//! What the log says of connections that are sent away.
#![cfg(feature = "server")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;

use common::*;
use log::Level;

#[test]
fn a_client_that_makes_no_progress_has_one_line() {
    keep_the_log();
    let builder = builder(echo()).progress_timeout(unhurried(1000));
    let server = builder.start().unwrap();
    let mut stuck = TcpStream::connect(server.address().to_string()).unwrap();
    let peer = stuck.local_addr().unwrap().to_string();
    stuck.write_all(PREFACE).unwrap();
    for stream in [1, 3, 5] {
        let headers = frame(1, 4, stream, &call_headers("POST", "/test.Echo/Say"));
        stuck.write_all(&headers).unwrap();
    }
    stuck.set_read_timeout(Some(LONG)).unwrap();
    let _ = stuck.read_to_end(&mut Vec::new());
    eventually("the connection is gone", || server.connections() == 0);
    let lines = lines_that(|_, line| line.contains(&peer) && line.contains("away"));
    let [(level, line)] = &lines[..] else {
        panic!("{lines:?}");
    };
    assert_eq!(*level, Level::Warn);
    assert!(line.contains("the request does not come"), "{line}");
    assert!(SLOW || line.contains("for 1.0s"), "{line}");
}
