//! A thousand servers leave nothing behind. Alone in its file: it counts what the
//! whole process has.
#![cfg(feature = "server")]

mod common;

use std::fs;

use common::*;
use touchdown::client::Client;
use touchdown::Server;

const SERVERS: usize = 1000;

#[derive(Debug)]
struct Usage {
    threads: usize,
    descriptors: usize,
    resident_kib: usize,
}

fn usage() -> Usage {
    let count = |folder: &str| fs::read_dir(folder).unwrap().count();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    Usage {
        threads: count("/proc/self/task"),
        descriptors: count("/proc/self/fd"),
        resident_kib: resident.trim().trim_end_matches(" kB").parse().unwrap(),
    }
}

fn start_load_stop() {
    let server: Server = start(echo());
    let channel = channel(&server);
    let client = Client::new(&channel);
    for _ in 0..3 {
        assert_eq!(say(&client, "hello").unwrap(), "hello");
    }
    let report = server.shutdown();
    assert_eq!(
        (report.exit_code(), report.calls.completed),
        (0, 3),
        "{report}"
    );
}

#[test]
fn a_thousand_servers_leave_nothing_behind() {
    // What is made once, and caches that fill up.
    (0..SERVERS / 5).for_each(|_| start_load_stop());
    let before = usage();
    (0..SERVERS).for_each(|_| start_load_stop());
    eventually("threads and descriptors are gone", || {
        let now = usage();
        now.threads <= before.threads && now.descriptors <= before.descriptors
    });
    let after = usage();
    let growth = after.resident_kib.saturating_sub(before.resident_kib);
    println!("before: {before:?}\nafter:  {after:?}");
    assert!(growth * 1024 / SERVERS < 1024, "grew by {growth} KiB");
}
