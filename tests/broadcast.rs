//! One message for many subscribers: quick ones, slow ones, and those that leave.
#![cfg(feature = "client")]

mod common;

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use common::*;
use touchdown::client::{CallOptions, Client};
use touchdown::lifecycle::exit_code;
use touchdown::protobuf::well_known_types::wrappers::{BytesValue, UInt32Value};
use touchdown::protobuf::Message;
use touchdown::{
    Broadcast, Call, Code, DrainPolicy, MethodName, Replies, ServerBuilder, Service,
    SlowSubscriber, Status,
};

/// `/test.News/Subscribe` subscribes, once `first` has sent what is to come before.
fn service_after<R: Message>(
    news: &Broadcast<R>,
    first: impl Fn(&Replies<R>) -> Result<(), Status> + Send + Sync + 'static,
) -> Service {
    let news = news.clone();
    Service::builder("test.News")
        .server_streaming(
            "Subscribe",
            move |_: &Call, _: UInt32Value, replies: Replies<R>| {
                first(&replies)?;
                news.subscribe(replies)
            },
        )
        .build()
}

fn service<R: Message>(news: &Broadcast<R>) -> Service {
    service_after(news, |_| Ok(()))
}

/// A server that waits long for what is in flight.
fn patient(service: Service) -> ServerBuilder {
    builder(service).lifecycle(planned(quick_plan().with_grace_period(LONG)))
}

fn subscribe<R: Message>(client: &Client) -> touchdown::client::Replies<R> {
    let options = CallOptions::default().timeout(LONG * 2);
    client
        .server_streaming("/test.News/Subscribe", &number(0), options)
        .unwrap()
}

/// Subscribes, and waits until that is so.
fn subscribed<R: Message>(client: &Client, news: &Broadcast<R>) -> touchdown::client::Replies<R> {
    let before = news.subscribers();
    let replies = subscribe(client);
    eventually("it has subscribed", || news.subscribers() > before);
    replies
}

/// More than a stream and its connection hold of what nobody reads.
fn large(number: u8) -> BytesValue {
    BytesValue {
        value: vec![number; 1 << 20],
        ..Default::default()
    }
}

/// The numbers of large messages, and how the stream ended.
fn numbers(replies: touchdown::client::Replies<BytesValue>) -> (Vec<u8>, Option<Status>) {
    let mut seen = Vec::new();
    for reply in replies {
        match reply {
            Ok(message) => seen.push(message.value[0]),
            Err(status) => return (seen, Some(status)),
        }
    }
    (seen, None)
}

fn code(end: &Option<Status>) -> Option<Code> {
    end.as_ref().map(Status::code)
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn a_thousand_subscribers_take_no_thread_each_and_are_finished_by_the_drain() {
    const SUBSCRIBERS: usize = 1000;
    let news = Broadcast::new(8, SlowSubscriber::Disconnect);
    let server = patient(service(&news)).workers(4).start().unwrap();
    let clients: Vec<Client> = (0..20).map(|_| client(&server)).collect();
    let before = threads();
    let mut streams: Vec<_> = clients
        .iter()
        .cycle()
        .take(SUBSCRIBERS)
        .map(subscribe::<UInt32Value>)
        .collect();
    eventually("all have subscribed", || news.subscribers() == SUBSCRIBERS);
    for round in 1..=3 {
        news.publish(&number(round)).unwrap();
    }
    for stream in &mut streams {
        let seen = stream.take(3).map(|it| it.unwrap().value);
        assert_eq!(seen.collect::<Vec<_>>(), [1, 2, 3]);
    }
    // Of the server's, and of the clients' as they connect.
    let taken = threads().saturating_sub(before);
    assert!(taken < 100, "{taken} threads for {SUBSCRIBERS} subscribers");

    server.lifecycle().shutdown("test");
    for mut stream in streams {
        assert_eq!(stream.next(), None);
    }
    let report = server.wait();
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    assert_eq!(report.calls.completed, SUBSCRIBERS as u64, "{report}");
    assert_eq!((news.subscribers(), news.missed()), (0, 0));
}

#[test]
fn a_slow_subscriber_misses_the_oldest_and_gets_the_newest() {
    let news = Broadcast::new(2, SlowSubscriber::DropOldest);
    let server = start(service(&news));
    let client = client(&server);
    let slow = subscribed(&client, &news);
    for it in 0..20 {
        news.publish(&large(it)).unwrap();
    }
    let missed = news.missed();
    assert!(missed > 0, "there is room for 20 MiB");
    server.lifecycle().shutdown("test");
    let (seen, end) = numbers(slow);
    assert_eq!(end, None);
    assert_eq!(seen.len() as u64, 20 - missed, "{seen:?}");
    assert!(seen.is_sorted_by(|one, next| one < next), "{seen:?}");
    assert_eq!(seen[0], 0);
    assert_eq!(seen[seen.len() - 2..], [18, 19], "{seen:?}");
    assert_eq!(server.wait().exit_code(), exit_code::CLEAN);
}

#[test]
fn with_no_room_at_all_it_is_the_new_message_that_is_missed() {
    let news = Broadcast::new(0, SlowSubscriber::DropOldest);
    let server = start(service(&news));
    let client = client(&server);
    let slow = subscribed(&client, &news);
    let sent = (0..20).filter(|it| {
        let before = news.missed();
        news.publish(&large(*it)).unwrap();
        news.missed() == before
    });
    let sent: Vec<u8> = sent.collect();
    assert!(sent.len() < 20, "there is room for 20 MiB");
    server.lifecycle().shutdown("test");
    let (seen, _) = numbers(slow);
    assert_eq!(seen, sent);
    assert_eq!(server.wait().exit_code(), exit_code::CLEAN);
}

#[test]
fn a_slow_subscriber_is_disconnected_and_the_others_go_on() {
    let news = Broadcast::new(2, SlowSubscriber::Disconnect);
    let server = start(service(&news));
    // Each on a connection of its own.
    let clients = [client(&server), client(&server)];
    let slow = subscribed(&clients[0], &news);
    let mut quick = subscribed(&clients[1], &news);
    let mut published = 0;
    while news.subscribers() == 2 {
        assert!(published < 100, "there is room for all of it");
        news.publish(&large(published)).unwrap();
        assert_eq!(quick.next().unwrap().unwrap().value[0], published);
        published += 1;
    }
    let (seen, end) = numbers(slow);
    // A gap is never seen.
    assert!(seen.iter().copied().eq(0..seen.len() as u8), "{seen:?}");
    assert_eq!(code(&end), Some(Code::ResourceExhausted));
    assert!(end.unwrap().message().contains("too slow: 3 messages"));
    news.publish(&large(published)).unwrap();
    assert_eq!(quick.next().unwrap().unwrap().value[0], published);
    assert_eq!(news.missed(), 0);
    drop(quick);
    assert_eq!(server.shutdown().exit_code(), exit_code::CLEAN);
}

#[test]
fn who_waits_for_the_slow_loses_nothing_as_long_as_they_go_on() {
    let news = Broadcast::new(1, SlowSubscriber::Wait(LONG));
    let server = start(service(&news));
    let client = client(&server);
    let slow = subscribed(&client, &news);
    let reader = thread::spawn(move || numbers(slow));
    for it in 0..30 {
        news.publish(&large(it)).unwrap();
    }
    news.finish(Ok(()));
    let (seen, end) = reader.join().unwrap();
    assert!(seen.iter().copied().eq(0..30), "{seen:?}");
    assert_eq!(end, None);
    assert_eq!(server.shutdown().exit_code(), exit_code::CLEAN);
}

#[test]
fn who_waits_for_the_slow_does_not_wait_for_ever() {
    let news = Broadcast::new(1, SlowSubscriber::Wait(Duration::from_millis(100)));
    let server = start(service(&news));
    let client = client(&server);
    let slow = subscribed(&client, &news);
    let published = (0..20).take_while(|it| {
        news.publish(&large(*it)).unwrap();
        news.subscribers() == 1
    });
    assert!(published.count() < 20, "there is room for 20 MiB");
    let (seen, end) = numbers(slow);
    assert!(seen.iter().copied().eq(0..seen.len() as u8), "{seen:?}");
    assert_eq!(code(&end), Some(Code::ResourceExhausted));
    assert_eq!(server.shutdown().exit_code(), exit_code::CLEAN);
}

#[test]
fn who_waits_for_the_slow_is_woken_by_the_drain() {
    let news = Broadcast::new(0, SlowSubscriber::Wait(LONG * 10));
    let server = patient(service(&news)).start().unwrap();
    let client = client(&server);
    let slow = subscribed(&client, &news);
    let publisher = thread::spawn({
        let news = news.clone();
        move || (0..20).for_each(|it| news.publish(&large(it)).unwrap())
    });
    // It does not come to its end.
    assert!(!server
        .lifecycle()
        .stopping()
        .wait_timeout(Duration::from_millis(100)));
    assert!(!publisher.is_finished());
    server.lifecycle().shutdown("test");
    publisher.join().unwrap();
    let (seen, end) = numbers(slow);
    assert!(seen.iter().copied().eq(0..seen.len() as u8), "{seen:?}");
    assert_eq!(end, None);
    assert_eq!(server.wait().exit_code(), exit_code::CLEAN);
}

#[test]
fn a_subscriber_that_has_left_costs_nothing_more() {
    let news = Broadcast::new(8, SlowSubscriber::Disconnect);
    let server = start(service(&news));
    let client = client(&server);
    let stays = subscribed::<UInt32Value>(&client, &news);
    for _ in 0..20 {
        drop(subscribed(&client, &news));
        // Though nothing is published.
        eventually("it is forgotten", || news.subscribers() == 1);
    }
    eventually("they are not in flight", || server.in_flight() == 1);
    news.publish(&number(7)).unwrap();
    news.finish(Ok(()));
    let seen: Vec<u32> = stays.map(|it| it.unwrap().value).collect();
    assert_eq!(seen, [7]);
    let report = server.shutdown();
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    let calls = report.calls;
    assert_eq!((calls.completed, calls.caller_left), (1, 20), "{report}");
}

#[test]
fn what_the_handler_has_sent_comes_first() {
    let news = Broadcast::new(8, SlowSubscriber::Disconnect);
    let first = |replies: &Replies<UInt32Value>| {
        replies.send(&number(1))?;
        replies.send(&number(2))
    };
    let server = start(service_after(&news, first));
    let client = client(&server);
    let stream = subscribed(&client, &news);
    for it in 3..6 {
        news.publish(&number(it)).unwrap();
    }
    news.finish(Ok(()));
    let seen: Vec<u32> = stream.map(|it| it.unwrap().value).collect();
    assert_eq!(seen, [1, 2, 3, 4, 5]);
}

#[test]
fn what_waits_is_sent_before_the_end() {
    let news = Broadcast::new(20, SlowSubscriber::Disconnect);
    let server = patient(service(&news)).start().unwrap();
    let client = client(&server);
    let stream = subscribed(&client, &news);
    for it in 0..20 {
        news.publish(&large(it)).unwrap();
    }
    server.lifecycle().shutdown("test");
    assert!(server.lifecycle().draining().wait_timeout(LONG));
    let (seen, end) = numbers(stream);
    assert!(seen.iter().copied().eq(0..20), "{seen:?}");
    assert_eq!(end, None);
    let report = server.wait();
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    assert_eq!(report.calls.completed, 1, "{report}");
}

#[test]
fn a_subscriber_that_takes_nothing_holds_no_drain_longer_than_its_policy_says() {
    let news = Broadcast::new(2, SlowSubscriber::DropOldest);
    let policy = DrainPolicy::Stream {
        goodbye: Duration::from_millis(100),
    };
    let service = service(&news).policy(MethodName::new("test.News", "Subscribe"), policy);
    let server = patient(service).start().unwrap();
    let mut socket = TcpStream::connect(server.address().to_string()).unwrap();
    socket.write_all(PREFACE).unwrap();
    // It grants no window: SETTINGS_INITIAL_WINDOW_SIZE, RFC 9113, 6.5.2.
    socket
        .write_all(&frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]))
        .unwrap();
    let headers = call_headers("POST", "/test.News/Subscribe");
    socket.write_all(&frame(1, 4, 1, &headers)).unwrap();
    // An empty message, the last: RFC 9113, 6.1.
    socket.write_all(&frame(0, 1, 1, &[0; 5])).unwrap();
    eventually("it has subscribed", || news.subscribers() == 1);
    for it in 0..5 {
        news.publish(&number(it)).unwrap();
    }
    assert_eq!(news.missed(), 2, "one is on its way, and two wait");
    let report = server.shutdown();
    assert!(report.took < LONG, "{report}");
    assert_eq!((report.calls.cut, news.subscribers()), (1, 0), "{report}");
    drop(socket);
}

#[test]
fn who_comes_after_the_end_gets_the_end() {
    let news = Broadcast::<UInt32Value>::new(8, SlowSubscriber::Disconnect);
    let server = start(service(&news));
    let client = client(&server);
    news.finish(Err(Status::not_found("no more news")));
    // The first word counts.
    news.finish(Ok(()));
    let end = subscribe::<UInt32Value>(&client).next();
    assert_eq!(end.unwrap().unwrap_err().message(), "no more news");
    assert_eq!(news.subscribers(), 0);
    assert_eq!(server.shutdown().exit_code(), exit_code::CLEAN);
}

#[test]
fn the_subscribers_of_a_broadcast_that_is_dropped_are_told() {
    let news = Broadcast::<UInt32Value>::new(8, SlowSubscriber::Disconnect);
    let weak = std::sync::Arc::new(std::sync::Mutex::new(Some(news.clone())));
    let of_service = std::sync::Arc::clone(&weak);
    let service = Service::builder("test.News")
        .server_streaming(
            "Subscribe",
            move |_: &Call, _: UInt32Value, replies: Replies<UInt32Value>| {
                let news = of_service.lock().unwrap();
                news.as_ref().unwrap().subscribe(replies)
            },
        )
        .build();
    let server = start(service);
    let client = client(&server);
    let mut stream = subscribed(&client, &news);
    weak.lock().unwrap().take();
    news.publish(&number(1)).unwrap();
    assert_eq!(stream.next().unwrap().unwrap().value, 1);
    drop(news);
    let end = stream.next().unwrap().unwrap_err();
    assert_eq!(end.to_string(), "UNAVAILABLE: the broadcast is over");
    assert_eq!(server.shutdown().exit_code(), exit_code::CLEAN);
}

#[test]
fn a_handler_that_fails_after_it_has_subscribed_has_no_subscriber() {
    let news = Broadcast::<UInt32Value>::new(8, SlowSubscriber::Disconnect);
    let of_service = news.clone();
    let service = Service::builder("test.News")
        .server_streaming(
            "Subscribe",
            move |_: &Call, _: UInt32Value, replies: Replies<UInt32Value>| {
                of_service.subscribe(replies)?;
                Err(Status::not_found("no such channel"))
            },
        )
        .build();
    let server = start(service);
    let client = client(&server);
    let end = subscribe::<UInt32Value>(&client).next().unwrap();
    assert_eq!(end.unwrap_err().code(), Code::NotFound);
    assert_eq!(news.subscribers(), 0);
    news.publish(&number(1)).unwrap();
    let report = server.shutdown();
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    assert_eq!(report.calls.completed, 1, "{report}");
}

/// Two publish, others come and go, and some are slow: what each gets is in order, and every call is counted.
fn everybody_at_once(slow: SlowSubscriber) {
    const EACH: u32 = 300;
    let news = Broadcast::<UInt32Value>::new(4, slow);
    let server = builder(service(&news)).workers(4).start().unwrap();
    let clients: Vec<Client> = (0..4).map(|_| client(&server)).collect();
    let readers: Vec<_> = (0..24_u32)
        .map(|reader| {
            let client = clients[reader as usize % clients.len()].clone();
            let before = news.subscribers();
            let replies = subscribe::<UInt32Value>(&client);
            eventually("it has subscribed", || news.subscribers() > before);
            thread::spawn(move || {
                // A third of them leave after a while.
                let most = if reader % 3 == 0 { 50 } else { usize::MAX };
                let mut seen = Vec::new();
                let mut end = None;
                for reply in replies.take(most) {
                    match reply {
                        Ok(message) => seen.push(message.value),
                        Err(status) => end = Some(status),
                    }
                }
                (seen, end)
            })
        })
        .collect();
    let publishers = [0, 1].map(|publisher| {
        let news = news.clone();
        thread::spawn(move || {
            for it in 0..EACH {
                news.publish(&number(publisher + 2 * it)).unwrap();
            }
        })
    });
    for publisher in publishers {
        publisher.join().unwrap();
    }
    server.lifecycle().shutdown("test");
    for reader in readers {
        let (seen, end) = reader.join().unwrap();
        for publisher in [0, 1] {
            let of_it = seen.iter().filter(|it| *it % 2 == publisher);
            let of_it: Vec<u32> = of_it.map(|it| it / 2).collect();
            assert!(of_it.is_sorted_by(|one, next| one < next), "{of_it:?}");
            if slow != SlowSubscriber::DropOldest {
                let is_whole = of_it.iter().copied().eq(0..of_it.len() as u32);
                assert!(is_whole, "there is a gap: {of_it:?}");
            }
        }
        match code(&end) {
            None => {}
            Some(code) => {
                assert_eq!(code, Code::ResourceExhausted, "{end:?}");
                assert_ne!(slow, SlowSubscriber::DropOldest);
            }
        }
    }
    let report = server.wait();
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    let calls = report.calls;
    assert_eq!(calls.completed + calls.caller_left, 24, "{report}");
    assert_eq!(news.subscribers(), 0);
}

#[test]
fn all_at_once_while_the_oldest_is_left_out() {
    everybody_at_once(SlowSubscriber::DropOldest);
}

#[test]
fn all_at_once_while_the_slow_are_disconnected() {
    everybody_at_once(SlowSubscriber::Disconnect);
}

#[test]
fn all_at_once_while_the_slow_are_waited_for() {
    everybody_at_once(SlowSubscriber::Wait(LONG));
}
