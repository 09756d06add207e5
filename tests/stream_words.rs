//! What the log and the caller are told of a stream that nobody finishes, and what to do about it.
#![cfg(feature = "client")]

mod common;

use std::time::Duration;

use common::*;
use crossbeam_channel::{unbounded, Receiver};
use log::Level;
use touchdown::client::CallOptions;
use touchdown::lifecycle::exit_code;
use touchdown::protobuf::well_known_types::wrappers::UInt32Value;
use touchdown::{Broadcast, Call, Code, DetachedReplies, Replies, Server, Service, SlowSubscriber};

/// The lines at WARN and above that name this.
fn complaints(of: &str) -> Vec<(Level, String)> {
    lines_that(|level, line| level <= Level::Warn && line.contains(of))
}

/// A server of which the method of this name hands its stream to the test.
fn subscriptions(name: &'static str) -> (Server, Receiver<DetachedReplies<UInt32Value>>) {
    keep_the_log();
    let (sender, receiver) = unbounded();
    let subscribe = move |_: &Call, _: UInt32Value, replies: Replies<UInt32Value>| {
        sender.send(replies.detach()).unwrap();
        Ok(())
    };
    let service = Service::builder("test.Words")
        .server_streaming(name, subscribe)
        .build();
    let plan = quick_plan()
        .with_grace_period(Duration::from_millis(100))
        .with_force_period(Duration::from_millis(100));
    let server = builder(service).lifecycle(planned(plan)).start().unwrap();
    (server, receiver)
}

fn subscribe(
    client: &touchdown::client::Client,
    path: &'static str,
) -> touchdown::client::Replies<UInt32Value> {
    let options = CallOptions::default().timeout(LONG);
    client.server_streaming(path, &number(0), options).unwrap()
}

#[test]
fn a_detached_stream_that_nobody_finishes_is_told_apart_from_a_handler_that_hangs() {
    let (server, streams) = subscriptions("Forgotten");
    let client = client(&server);
    let mut replies = subscribe(&client, "/test.Words/Forgotten");
    let stream = streams.recv_timeout(LONG).unwrap();
    let report = server.shutdown();
    assert_eq!(report.exit_code(), exit_code::FORCED, "{report}");
    let status = replies.next().unwrap().unwrap_err();
    assert_eq!(
        status.to_string(),
        "UNAVAILABLE: the server is shutting down and nobody has finished this stream"
    );
    let next_step = "call DetachedReplies::finish when Call::draining() is cancelled, \
                     have a Broadcast do so, or give the method DrainPolicy::Stream";
    let said: Vec<_> = complaints("/test.Words/Forgotten")
        .into_iter()
        .filter(|(_, line)| line.contains(next_step))
        .map(|(level, line)| (level, line.replace(next_step, "…")))
        .collect();
    let warning = "/test.Words/Forgotten: a detached stream is not finished yet; …";
    assert!(
        said.contains(&(Level::Warn, warning.to_owned())),
        "{said:?}"
    );
    let error = "/test.Words/Forgotten is a detached stream that nobody has finished; \
                 its caller got UNAVAILABLE; …";
    let is_said = |(level, line): &(Level, String)| *level == Level::Error && line.ends_with(error);
    assert!(said.iter().any(is_said), "{said:?}");
    assert_eq!(said.len(), 2, "each is said once: {said:?}");
    drop(stream);
}

#[test]
fn a_detached_stream_that_is_dropped_is_named() {
    let (server, streams) = subscriptions("Dropped");
    let client = client(&server);
    let mut replies = subscribe(&client, "/test.Words/Dropped");
    drop(streams.recv_timeout(LONG).unwrap());
    let status = replies.next().unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert_eq!(
        status.message(),
        "the server has dropped this stream without finishing it"
    );
    assert_eq!(server.shutdown().exit_code(), exit_code::CLEAN);
    let warning = "/test.Words/Dropped: a detached stream was dropped without \
                   DetachedReplies::finish; its caller got INTERNAL";
    assert_eq!(
        complaints("/test.Words/Dropped"),
        [(Level::Warn, warning.to_owned())]
    );
}

#[test]
fn nothing_is_said_of_a_stream_whose_caller_has_left_or_that_a_broadcast_finishes() {
    let (server, streams) = subscriptions("Left");
    let client = client(&server);
    let replies = subscribe(&client, "/test.Words/Left");
    let stream = streams.recv_timeout(LONG).unwrap();
    drop(replies);
    eventually("it has left", || server.in_flight() == 0);
    drop(stream);
    assert_eq!(server.shutdown().exit_code(), exit_code::CLEAN);
    assert_eq!(complaints("/test.Words/Left"), []);

    let news = Broadcast::<UInt32Value>::new(8, SlowSubscriber::Disconnect);
    let of_service = news.clone();
    let service = Service::builder("test.Words")
        .server_streaming("News", move |_: &Call, _: UInt32Value, replies| {
            of_service.subscribe(replies)
        })
        .build();
    let server = start(service);
    let client = common::client(&server);
    let replies = subscribe(&client, "/test.Words/News");
    eventually("it has subscribed", || news.subscribers() == 1);
    assert_eq!(server.shutdown().exit_code(), exit_code::CLEAN);
    assert_eq!(replies.count(), 0);
    assert_eq!(complaints("/test.Words/News"), []);
}
