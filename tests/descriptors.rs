//! Too few descriptors: a server says so instead of starting, or it serves.
#![cfg(feature = "client")]

mod common;
mod lifecycle_support;

use std::fs;
use std::net::TcpStream;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use common::*;
use lifecycle_support::{bound, is_child, say as tell, Process};
use touchdown::client::Client;
use touchdown::lifecycle::{exit_code, Lifecycle, Signals};
use touchdown::Server;

/// What the process needs before any code of a test runs: below that the loader says what is missing, or the test's harness.
const LEAST: u32 = 6;

/// Under more than this a server starts on any machine on which this was tried.
const MOST: u32 = 64;

fn ticks(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The name may hold spaces (proc(5)).
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = fields.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn with_any_number_of_descriptors_a_server_serves_or_says_what_is_missing() {
    let _bound = bound();
    if is_child() {
        let report = Server::builder()
            .address("127.0.0.1:0")
            .lifecycle(Lifecycle::builder().signals(Signals::process()))
            .service(echo())
            .start();
        let report = match report {
            Ok(server) => {
                tell(&format!("listening at {}", server.address()));
                server.wait()
            }
            Err(error) => {
                tell(&format!("refused: {error}"));
                std::process::exit(exit_code::FAILED_START.into());
            }
        };
        std::process::exit(report.exit_code().into());
    }
    let test = "with_any_number_of_descriptors_a_server_serves_or_says_what_is_missing";
    let mut served = Vec::new();
    for limit in LEAST..MOST {
        let script = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
        let mut child = Process::start_in_shell(&script, Stdio::null(), "1", test);
        let Some(said) = child.hear_one_of(&["listening at", "refused:"]) else {
            panic!("{limit}: {:?}", child.end());
        };
        if let Some(why) = said.strip_prefix("refused:") {
            assert!(served.is_empty(), "{limit}: fewer were enough: {why}");
            let words =
                format!("the process may have {limit} descriptors: raise that with `ulimit -n`");
            assert!(why.contains(&words), "{limit}: {why}");
            assert_eq!(child.end().code, Some(exit_code::FAILED_START.into()));
            continue;
        }
        let address = said.rsplit(' ').next().unwrap();
        let _others: Vec<_> = (0..7)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        let client = Client::new(&channel_to(address));
        assert_eq!(say(&client, "hello").unwrap(), "hello", "{limit}");
        let before = ticks(child.id());
        thread::sleep(Duration::from_millis(100));
        assert!(ticks(child.id()) <= before + 1, "{limit}: it is busy");
        child.signal("TERM");
        assert_eq!(child.end().code, Some(exit_code::CLEAN.into()), "{limit}");
        served.push(limit);
        if served.len() == 8 {
            break;
        }
    }
    assert_eq!(served.len(), 8, "{served:?}");
}
