//! What connections with TLS leave behind. Alone in its program, since it counts descriptors and memory.
#![cfg(feature = "tls")]

mod common;
mod tls_support;

use std::io::Write;

use common::{echo, eventually, PREFACE, SLOW};
use tls_support::*;

/// Descriptors, and kilobytes in memory.
fn usage() -> (usize, u64) {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let resident = status.lines().find(|it| it.starts_with("VmRSS:")).unwrap();
    let number = resident.split_whitespace().nth(1).unwrap();
    (descriptors, number.parse().unwrap())
}

const CONNECTIONS: usize = if SLOW { 150 } else { 1000 };

#[test]
fn connections_leave_nothing_behind() {
    let folder = Folder::new();
    let server = start(echo(), folder.mutual());
    let ca = folder.file("ca.pem");
    let config = Wish::new(&ca).showing(&folder, "client").config();
    let visit = |count: usize| {
        for round in 0..count {
            let mut client = connect(&server, &config);
            match round % 4 {
                0 => client.begin().unwrap(),
                1 => drop(client.stream.sock.write_all(b"\x16\x03\x01\x02\x00\x01")),
                2 => drop(client.stream.sock.write_all(PREFACE)),
                _ => {
                    client.begin().unwrap();
                    assert_eq!(client.say("it").unwrap(), "it");
                }
            }
        }
        eventually("all are gone", || server.connections() == 0);
    };
    visit(CONNECTIONS);
    let before = usage();
    visit(CONNECTIONS);
    eventually("descriptors are closed", || usage().0 <= before.0);
    let growth = usage().1.saturating_sub(before.1);
    assert!(growth < 2000, "grew by {growth} KiB");
}
