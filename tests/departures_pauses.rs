//! A process that stands still cuts nobody for the time in which it did not run.
#![cfg(feature = "server")]

mod common;
mod lifecycle_support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{self, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use lifecycle_support::{bound, role, say, Process};
use touchdown::lifecycle::{Lifecycle, Signals};
use touchdown::protobuf::well_known_types::wrappers::StringValue;
use touchdown::{Call, Replies, Server, Service};

/// How long answers may not be taken, and how long the process stands still.
const PROGRESS: Duration = unhurried(2000);
const PAUSE: Duration = unhurried(5000);

/// A program that answers without end.
fn play() -> ! {
    let endless = |_: &Call, request: StringValue, replies: Replies<StringValue>| {
        let large = text("x".repeat(1000) + &request.value);
        while replies.send(&large).is_ok() {}
        Ok(())
    };
    let service = Service::builder("test.Echo")
        .server_streaming("Say", endless)
        .build();
    let path = std::env::temp_dir().join(format!("touchdown-still-{}.sock", process::id()));
    let server = Server::builder()
        .service(service)
        .address(format!("unix:{}", path.display()))
        .lifecycle(
            Lifecycle::builder()
                .plan(quick_plan())
                .signals(Signals::process()),
        )
        .progress_timeout(PROGRESS)
        .start()
        .unwrap();
    say(&format!("listening at {}", path.display()));
    let report = server.wait();
    process::exit(report.exit_code().into());
}

#[test]
fn a_client_that_does_not_read_while_the_server_stands_still_is_served_on() {
    let _bound = bound();
    if role().is_some() {
        play();
    }
    let test = "a_client_that_does_not_read_while_the_server_stands_still_is_served_on";
    let run = "exec \"$0\" \"$@\"";
    let mut child = Process::start_in_shell(run, Stdio::null(), "serve", test);
    let heard = child.hear("listening at");
    let path = heard.trim_end().rsplit(' ').next().unwrap().to_owned();
    let mut client = UnixStream::connect(path).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    client.write_all(PREFACE).unwrap();
    let largest = i32::MAX as u32;
    let settings = [&[0, 4][..], &largest.to_be_bytes()].concat();
    client.write_all(&frame(4, 0, 0, &settings)).unwrap();
    client
        .write_all(&frame(8, 0, 0, &(largest - 65_535).to_be_bytes()))
        .unwrap();
    client.write_all(&small_call(1)).unwrap();
    // So that the time has begun.
    thread::sleep(PROGRESS / 2);
    child.signal("STOP");
    thread::sleep(PAUSE);
    child.signal("CONT");
    // Nobody is cut now; and then it reads.
    thread::sleep(PROGRESS / 8);
    let since = Instant::now();
    let mut buffer = vec![0; 1 << 16];
    while since.elapsed() < PROGRESS * 2 {
        assert!(
            client.read(&mut buffer).expect("more comes") > 0,
            "it was cut"
        );
    }
    drop(client);
    child.signal("TERM");
    assert_eq!(child.end().code, Some(0));
}
