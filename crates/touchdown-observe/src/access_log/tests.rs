//! The queue by itself, and what a call costs.

use std::sync::mpsc::{channel, Sender};
use std::thread;
use std::time::Instant;

use touchdown::protobuf::well_known_types::wrappers::StringValue;
use touchdown::testing::TestServer;
use touchdown::{Call, CallEnd, CallObserver, Server, Service, Status};

use super::*;

/// Hands out what it is told of each call that ended.
struct Tells(Sender<(Call, CallEnd)>);

impl CallObserver for Tells {
    fn ended(&self, call: &Call, end: &CallEnd) {
        let _ = self.0.send((call.clone(), end.clone()));
    }
}

/// A call that has ended, and the server that knows of it.
fn a_call() -> (TestServer, Call, CallEnd) {
    let echo = Service::builder("test.Echo")
        .unary("Say", |_: &Call, request: StringValue| {
            Ok::<_, Status>(request)
        })
        .build();
    let (tells, told) = channel();
    let server = TestServer::start(Server::builder().service(echo).observer(Tells(tells))).unwrap();
    let request = StringValue::new();
    let options = touchdown::client::CallOptions::new();
    let _: StringValue = server
        .client()
        .unary("/test.Echo/Say", &request, options)
        .unwrap();
    let (call, end) = told.recv().unwrap();
    (server, call, end)
}

fn observer(server: &TestServer, access_log: AccessLog) -> Observer {
    let sampler = Sampler::new(access_log.rates);
    sampler.learn(server.methods()).unwrap();
    Observer {
        slow: access_log.slow,
        errors: access_log.errors & !bit(Code::Ok),
        has_health_checks: access_log.has_health_checks,
        is_for_log: access_log.to.is_none(),
        sampler,
        queue: Arc::new(Queue::new(access_log.lines, access_log.counts)),
    }
}

fn never_slow() -> AccessLog {
    AccessLog::new().slow(Duration::MAX).to(std::io::sink())
}

#[test]
fn in_the_place_of_lines_that_were_dropped_stands_how_many_they_were() {
    let (server, call, end) = a_call();
    let access_log = never_slow().one_in(1).queue(2);
    let counts = access_log.counts();
    let observer = observer(&server, access_log);
    let queue = &observer.queue;
    let tell = |times| (0..times).for_each(|_| observer.ended(&call, &end));
    let next = || {
        let next = queue.next()?;
        let is_line = next.entry.is_some();
        if is_line {
            queue.done(true);
        }
        Some((next.dropped, is_line))
    };
    tell(5);
    assert_eq!(counts.dropped(), 3);
    assert_eq!(next(), Some((0, true)));
    tell(2);
    assert_eq!([next(), next()], [Some((0, true)), Some((3, true))]);
    assert_eq!(next(), Some((1, false)));
    tell(1);
    // Nobody writes: it gives up when it is told to.
    queue.close(Duration::from_secs(60), || true);
    tell(1);
    assert_eq!(next(), None);
    assert_eq!((counts.written(), counts.dropped()), (3, 6));
}

#[test]
fn who_closes_waits_as_long_as_lines_are_written() {
    let (server, call, end) = a_call();
    let access_log = never_slow().one_in(1);
    let counts = access_log.counts();
    let observer = observer(&server, access_log);
    (0..100).for_each(|_| observer.ended(&call, &end));
    let queue = Arc::clone(&observer.queue);
    let writer = thread::spawn(move || {
        while queue.next().is_some() {
            queue.done(true);
        }
        queue.over();
    });
    observer.queue.close(Duration::from_secs(60), || false);
    writer.join().unwrap();
    assert_eq!((counts.written(), counts.dropped()), (100, 0));
}

/// `cargo test --release --lib access_log -- --ignored --nocapture`
#[test]
#[ignore = "measures, and says nothing about right or wrong"]
fn what_a_call_costs() {
    const CALLS: u32 = 50_000;
    let (server, call, end) = a_call();
    let measure = |what: &str, access_log: AccessLog, is_written: bool| {
        let counts = access_log.counts();
        let observer = observer(&server, access_log);
        let queue = Arc::clone(&observer.queue);
        let write = move || {
            Output::json(Box::new(std::io::sink()), None).run(&queue);
            queue.over();
        };
        let writer = is_written.then(|| thread::spawn(write));
        // The best of many: what the machine does beside this is not meant.
        let rounds = (0..20).map(|_| {
            let began = Instant::now();
            for _ in 0..CALLS {
                std::hint::black_box(&observer).ended(&call, std::hint::black_box(&end));
            }
            began.elapsed()
        });
        let best = rounds.min().unwrap() / CALLS;
        observer
            .queue
            .close(Duration::from_secs(60), || !is_written);
        if let Some(writer) = writer {
            writer.join().unwrap();
        }
        println!("{what}: {best:?} a call; {counts:?}");
    };
    measure("none of the rest", never_slow().one_in(0), true);
    measure("one in 100,000,000", never_slow().one_in(100_000_000), true);
    measure("one in 100", never_slow(), true);
    measure("each, no room", never_slow().one_in(1).queue(1), false);
    let room = 20 * CALLS as usize;
    measure(
        "each, room for all",
        never_slow().one_in(1).queue(room),
        false,
    );
    let entry = std::mem::size_of::<super::entry::Entry>();
    println!("a line that waits: {entry} bytes, and its texts");
    let queue = Queue::new(room, Counts::default());
    (0..CALLS).for_each(|_| queue.push(|| super::entry::Entry::ended(&call, &end, false, 1)));
    let began = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            Output::json(Box::new(std::io::sink()), None).run(&queue);
            queue.over();
        });
        queue.close(Duration::from_secs(60), || false);
    });
    println!("to write a line as JSON: {:?}", began.elapsed() / CALLS);
}
