//! Servers that come and go leave nothing behind. In a file of its own: it counts what the
//! whole process has.
#![cfg(feature = "client")]

mod common;

use std::fs;
use std::sync::Mutex;
use std::thread;

use common::*;
use touchdown::client::{CallOptions, Client};
use touchdown::protobuf::well_known_types::wrappers::{StringValue, UInt32Value};
use touchdown::{
    Broadcast, Call, Received, Replies, Requests, Server, Service, ServingStatus, SlowSubscriber,
    Status,
};

const SERVERS: usize = 1000;

/// The tests here count what the whole process has, so one runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Of each kind and server.
const CALLS: u32 = 3;

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

/// Calls of all kinds, with metadata.
fn service(news: &Broadcast<UInt32Value>) -> Service {
    let news = news.clone();
    Service::builder("test.Echo")
        .unary("Say", |call: &Call, request: StringValue| {
            let _ = call.set_header("x-header", "h");
            let _ = call.set_trailer("x-trailer-bin", &[0, 1, 2]);
            Ok::<_, Status>(request)
        })
        .server_streaming(
            "Count",
            |_: &Call, up_to: UInt32Value, replies: Replies<UInt32Value>| {
                (0..up_to.value).try_for_each(|it| replies.send(&number(it)))
            },
        )
        .server_streaming(
            "Later",
            |_: &Call, up_to: UInt32Value, replies: Replies<UInt32Value>| {
                let replies = replies.detach();
                (0..up_to.value).try_for_each(|it| replies.send(&number(it)))?;
                replies.finish(Ok(()));
                Ok(())
            },
        )
        .bidirectional(
            "Chat",
            |call: &Call, mut requests: Requests<StringValue>, replies: Replies<StringValue>| {
                let draining = call.draining();
                while let Received::Request(request) = requests.recv_until(&[&draining])? {
                    replies.send(&request)?;
                }
                Ok(())
            },
        )
        .server_streaming(
            "Subscribe",
            move |_: &Call, _: UInt32Value, replies: Replies<UInt32Value>| news.subscribe(replies),
        )
        .build()
}

fn start_load_stop() {
    let news = Broadcast::new(4, SlowSubscriber::DropOldest);
    let server: Server = start(service(&news));
    let channel = channel(&server);
    let client = Client::new(&channel);
    let options = || CallOptions::default().timeout(LONG);
    for size in 0..CALLS {
        // The last is handed over to C-core, the others are copied.
        let sent = "x".repeat(size as usize * 10_000);
        assert_eq!(say(&client, &sent).unwrap(), sent);
        for path in ["/test.Echo/Count", "/test.Echo/Later"] {
            let replies = client
                .server_streaming(path, &number(5), options())
                .unwrap();
            let replies: Result<Vec<UInt32Value>, Status> = replies.collect();
            assert_eq!(replies.unwrap().len(), 5);
        }
        let (mut requests, mut replies) =
            client.bidirectional("/test.Echo/Chat", options()).unwrap();
        for word in ["one", "two"] {
            requests.send(text(word)).unwrap();
            let reply: StringValue = replies.next().unwrap().unwrap();
            assert_eq!(reply.value, word);
        }
        drop(requests);
        assert!(replies.next().is_none());
    }
    // On the wire, messages of a health check are these.
    let watch = || {
        let path = "/grpc.health.v1.Health/Watch";
        let mut watcher = client
            .server_streaming::<_, UInt32Value>(path, &text(""), options())
            .unwrap();
        assert_eq!(watcher.next().unwrap().unwrap(), number(1));
        watcher
    };
    drop(watch());
    let mut watcher = watch();
    server.health().set("", ServingStatus::NotServing);
    assert_eq!(watcher.next().unwrap().unwrap(), number(2));
    let subscribe = || {
        let path = "/test.Echo/Subscribe";
        client
            .server_streaming::<_, UInt32Value>(path, &number(0), options())
            .unwrap()
    };
    let (leaves, mut stays) = (subscribe(), subscribe());
    eventually("both have subscribed", || news.subscribers() == 2);
    news.publish(&number(9)).unwrap();
    drop(leaves);
    eventually("one has left", || news.subscribers() == 1);
    assert_eq!(stays.next().unwrap().unwrap(), number(9));
    let report = server.shutdown();
    assert!(watcher.next().is_none() && stays.next().is_none());
    let calls = report.calls;
    assert_eq!(
        (report.exit_code(), calls.completed, calls.caller_left),
        (0, 4 * u64::from(CALLS) + 1, 1),
        "{report}"
    );
}

/// Runs so many servers, and sees to it that they leave nothing.
fn leave_nothing(servers: usize) {
    let before = usage();
    (0..servers).for_each(|_| start_load_stop());
    eventually("threads and descriptors are gone", || {
        let now = usage();
        now.threads <= before.threads && now.descriptors <= before.descriptors
    });
    let after = usage();
    let growth = after.resident_kib.saturating_sub(before.resident_kib);
    println!("before {servers} servers: {before:?}\nafter:  {after:?}");
    assert!(growth * 1024 / servers < 1024, "grew by {growth} KiB");
}

#[test]
fn a_thousand_servers_leave_nothing_behind() {
    let _alone = ALONE.lock();
    // What is made once, and caches that fill up.
    (0..SERVERS / 5).for_each(|_| start_load_stop());
    leave_nothing(SERVERS);
}

/// C-core begins with a process's first server and ends with its last: here at any moment.
#[test]
fn servers_start_and_stop_side_by_side() {
    let _alone = ALONE.lock();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..10).for_each(|_| start_load_stop()));
        }
    });
}

/// What leaks slowly, or only now and then, shows here.
#[test]
#[ignore = "takes minutes"]
fn ten_thousand_servers_leave_nothing_behind() {
    let _alone = ALONE.lock();
    (0..SERVERS).for_each(|_| start_load_stop());
    leave_nothing(10 * SERVERS);
}
