//! Traces and collectors that are away, slow, or refuse: calls are served as ever, and what is lost is counted.
#![cfg(feature = "otel")]

mod otel_support;

use std::io::{ErrorKind, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use otel_support::*;
use touchdown::client::Metadata;
use touchdown::lifecycle::{exit_code, Lifecycle, Report};
use touchdown::testing::{self, TestServer};
use touchdown_observe::otel::{SpanCounts, Traces};

/// So many calls, each of which is served.
fn calls(server: &TestServer, count: usize) {
    let client = server.client();
    for _ in 0..count {
        assert_eq!(say(&client, Metadata::new()).unwrap(), "hello");
    }
}

/// How long a stop takes that is limited by `closing`, and what is reported.
fn stopped(server: TestServer) -> (Duration, Report) {
    let begun = Instant::now();
    let report = server.stop();
    (begun.elapsed(), report)
}

/// A server whose Closing takes so long at the most.
fn closing_within(closing: Duration, traces: Traces) -> (TestServer, SpanCounts) {
    let plan = testing::plan().with_closing(closing);
    traced_with(echo(), traces, |it| {
        it.lifecycle(Lifecycle::builder().plan(plan))
    })
}

#[test]
fn the_last_spans_are_sent_as_the_program_stops() {
    let collector = Collector::start();
    // None is due before that.
    let traces = Traces::new(collector.url())
        .sample(1.0)
        .delay(Duration::from_secs(3600));
    let (server, counts) = traced(echo(), traces);
    calls(&server, 3);
    let (_, report) = stopped(server);
    assert_eq!(report.exit_code(), exit_code::CLEAN);
    assert_eq!(collector.request().spans().len(), 3);
    assert_eq!((counts.sent(), counts.dropped()), (3, 0));
}

#[test]
fn more_spans_than_a_request_takes_are_sent_in_several_on_one_connection() {
    let collector = Collector::start();
    let traces = Traces::new(collector.url())
        .sample(1.0)
        .cap(10_000)
        .queue(2000)
        .delay(Duration::from_secs(3600));
    let (server, counts) = traced(echo(), traces);
    calls(&server, 1100);
    server.stop();
    let requests: Vec<_> = (0..3).map(|_| collector.request()).collect();
    let sizes: Vec<_> = requests.iter().map(|it| it.spans().len()).collect();
    assert_eq!(sizes, [512, 512, 76]);
    assert!(requests.iter().all(|it| it.connection == 0));
    assert_eq!((counts.sent(), counts.dropped()), (1100, 0));
}

#[test]
fn a_collector_that_is_busy_is_asked_again_when_it_says() {
    let collector = Collector::replying(|number, stream| match number {
        0 => collector_says(stream, 503, "retry-after: 1"),
        1 => collector_says(stream, 429, "retry-after: 0"),
        _ => collector_takes(stream),
    });
    let (server, counts) = traced(echo(), all_to(&collector));
    calls(&server, 1);
    let first = collector.request();
    let begun = Instant::now();
    let second = collector.request();
    assert!(
        begun.elapsed() >= Duration::from_millis(900),
        "{:?}",
        begun.elapsed()
    );
    let third = collector.request();
    assert!(first.body == second.body && second.body == third.body);
    eventually("it was counted", || counts.sent() == 1);
    server.stop();
    assert_eq!((counts.sent(), counts.dropped()), (1, 0));
}

#[test]
fn a_connection_that_is_lost_is_tried_again() {
    let collector = Collector::replying(|number, stream| match number {
        0 => Err(ErrorKind::ConnectionReset.into()),
        _ => collector_takes(stream),
    });
    let (server, counts) = traced(echo(), all_to(&collector));
    calls(&server, 1);
    let (first, second) = (collector.request(), collector.request());
    assert_eq!(first.body, second.body);
    assert_ne!(first.connection, second.connection);
    server.stop();
    assert_eq!((counts.sent(), counts.dropped()), (1, 0));
}

#[test]
fn a_collector_that_asks_for_more_time_than_there_is_gets_other_spans_later() {
    let collector = Collector::replying(|number, stream| match number {
        0 => collector_says(stream, 503, "retry-after: 1"),
        _ => collector_takes(stream),
    });
    let traces = all_to(&collector).give_up_after(Duration::from_millis(500));
    let (server, counts) = traced(echo(), traces);
    calls(&server, 1);
    let lost = collector.request().spans().remove(0);
    eventually("it is given up", || counts.dropped() == 1);
    let begun = Instant::now();
    calls(&server, 1);
    assert_ne!(collector.span().span, lost.span);
    // It was left alone meanwhile.
    assert!(
        begun.elapsed() >= Duration::from_millis(500),
        "{:?}",
        begun.elapsed()
    );
    server.stop();
    assert_eq!((counts.sent(), counts.dropped()), (1, 1));
}

#[test]
fn what_a_collector_refuses_is_not_sent_again() {
    for answer in [400, 404, 413, 500, 307] {
        let collector = Collector::replying(move |_, stream| {
            collector_says(stream, answer, "location: http://127.0.0.1:1/")
        });
        let (server, counts) = traced(echo(), all_to(&collector));
        calls(&server, 1);
        collector.request();
        eventually("it is lost", || counts.dropped() == 1);
        assert_eq!(stopped(server).1.exit_code(), exit_code::CLEAN);
        assert!(collector.others().is_empty(), "{answer}");
    }
}

#[test]
fn what_a_collector_rejects_of_a_request_is_counted_and_not_sent_again() {
    let collector = Collector::replying(|_, stream| {
        // partial_success { rejected_spans: 2, error_message: "old" }
        let body = b"\x0a\x07\x08\x02\x12\x03old";
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )?;
        stream.write_all(body)
    });
    let traces = Traces::new(collector.url())
        .sample(1.0)
        .delay(Duration::from_secs(3600));
    let (server, counts) = traced(echo(), traces);
    calls(&server, 5);
    server.stop();
    assert_eq!(collector.request().spans().len(), 5);
    assert_eq!((counts.sent(), counts.dropped()), (3, 2));
    assert!(collector.others().is_empty());
}

#[test]
fn a_collector_that_is_no_collector_costs_spans() {
    let answers = [
        "",
        "\0\0\0",
        "220 smtp.example ESMTP\r\n",
        "HTTP/9.9 what\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx",
    ];
    for answer in answers {
        let collector = Collector::replying(move |_, stream| {
            stream.write_all(answer.as_bytes())?;
            Err(ErrorKind::BrokenPipe.into())
        });
        let traces = all_to(&collector).give_up_after(Duration::from_millis(400));
        let (server, counts) = traced(echo(), traces);
        calls(&server, 2);
        eventually("they are lost", || counts.dropped() == 2);
        assert_eq!(
            stopped(server).1.exit_code(),
            exit_code::CLEAN,
            "{answer:?}"
        );
        assert_eq!(counts.sent(), 0, "{answer:?}");
    }
}

#[test]
fn headers_without_an_end_are_not_kept() {
    let collector = Collector::replying(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
        loop {
            stream.write_all(b"x-more: and more and more and more\r\n")?;
        }
    });
    let (server, counts) = traced(echo(), all_to(&collector));
    calls(&server, 1);
    eventually("it is lost", || counts.dropped() == 1);
    server.stop();
}

#[test]
fn a_response_of_a_gigabyte_is_not_read() {
    let written = Arc::new(AtomicU64::new(0));
    let writes = Arc::clone(&written);
    let collector = Collector::replying(move |_, stream| {
        let part = vec![b'x'; 64 << 10];
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
            1 << 30
        )?;
        for _ in 0..(1 << 30) / part.len() {
            stream.write_all(&part)?;
            writes.fetch_add(part.len() as u64, Ordering::SeqCst);
        }
        Ok(())
    });
    let (server, counts) = traced(echo(), all_to(&collector));
    let connections: Vec<_> = (0..3)
        .map(|_| {
            calls(&server, 1);
            collector.request().connection
        })
        .collect();
    server.stop();
    // It has taken them. Each answer was the end of its connection.
    assert_eq!((counts.sent(), counts.dropped()), (3, 0));
    assert_eq!(connections, [0, 1, 2]);
    // What the kernel takes for three connections, and not three gigabytes.
    assert!(written.load(Ordering::SeqCst) < 64 << 20);
}

#[test]
fn a_collector_that_hangs_costs_calls_nothing_and_the_stop_half_of_closing() {
    let collector = Collector::hanging();
    let closing = Duration::from_secs(2);
    let (server, counts) = closing_within(closing, all_to(&collector));
    calls(&server, 1);
    collector.request();
    calls(&server, 50);
    let (took, report) = stopped(server);
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report:?}");
    assert!(took < closing, "{took:?}");
    eventually("all are counted", || counts.dropped() == 51);
    assert_eq!(counts.sent(), 0);
}

#[test]
fn a_collector_that_hangs_is_given_up_after_its_time() {
    let collector = Collector::hanging();
    let limit = Duration::from_millis(300);
    let (server, counts) = traced(
        echo(),
        all_to(&collector).timeout(limit).give_up_after(limit),
    );
    calls(&server, 1);
    eventually("it is lost", || counts.dropped() == 1);
    server.stop();
}

#[test]
fn a_stop_that_is_hurried_does_not_wait_for_the_collector() {
    let collector = Collector::hanging();
    let (server, counts) = closing_within(Duration::from_secs(60), all_to(&collector));
    calls(&server, 1);
    collector.request();
    server.signal(15);
    let lifecycle = server.lifecycle().clone();
    eventually("it closes", || {
        lifecycle.phase() == touchdown::lifecycle::Phase::Closing
    });
    let begun = Instant::now();
    server.signal(15);
    server.wait();
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    eventually("it is counted", || counts.dropped() == 1);
}

#[test]
fn a_collector_that_is_away_costs_calls_nothing_and_the_stop_nothing_either() {
    // Nobody listens there any more.
    let away = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let traces = Traces::new(format!("http://{away}"))
        .sample(1.0)
        .delay(Duration::from_millis(1));
    let (server, counts) = traced(echo(), traces);
    calls(&server, 50);
    let (took, report) = stopped(server);
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!((counts.sent(), counts.dropped()), (0, 50));
}

#[test]
fn a_name_that_nobody_knows_costs_spans() {
    let traces = Traces::new("http://collector.invalid:4318")
        .sample(1.0)
        .delay(Duration::from_millis(1));
    let (server, counts) = traced(echo(), traces);
    calls(&server, 5);
    assert_eq!(stopped(server).1.exit_code(), exit_code::CLEAN);
    eventually("all are counted", || counts.dropped() == 5);
}

#[test]
fn what_the_queue_has_no_room_for_is_counted() {
    let collector = Collector::hanging();
    let traces = all_to(&collector).queue(10).cap(10_000);
    let (server, counts) = closing_within(Duration::from_secs(1), traces);
    calls(&server, 1);
    // It holds the thread that sends.
    collector.request();
    calls(&server, 200);
    // A caller has its answer a moment before the call is told as ended.
    eventually("ten wait", || counts.dropped() == 190);
    server.stop();
    eventually("all are counted", || counts.dropped() == 201);
}

#[test]
fn spans_of_a_server_that_did_not_start_are_nobodys() {
    use touchdown::{Server, StartError};
    use touchdown_observe::ObserveServer;

    let collector = Collector::start();
    let traces = all_to(&collector);
    let builder = Server::builder().service(echo()).traces(traces);
    let builder = builder.set_up(|_| Err("no device".into()));
    let error = TestServer::start(builder).unwrap_err();
    assert!(matches!(error, StartError::SetUp(_)), "{error:?}");
    assert!(collector.others().is_empty());
}

fn collector_takes(stream: &mut std::net::TcpStream) -> std::io::Result<()> {
    collector_says(stream, 200, "content-type: application/x-protobuf")
}

fn collector_says(
    stream: &mut std::net::TcpStream,
    status: u16,
    header: &str,
) -> std::io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 {status} Whatever\r\n{header}\r\ncontent-length: 0\r\n\r\n"
    )
}
