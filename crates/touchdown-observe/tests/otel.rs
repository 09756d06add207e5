//! Traces: what becomes a span, what a span says, and how a trace goes in and out.
#![cfg(feature = "otel")]

mod otel_support;

use std::collections::HashSet;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use otel_support::*;
use touchdown::client::{CallOptions, Client, Metadata};
use touchdown::lifecycle::exit_code;
use touchdown::protobuf::well_known_types::wrappers::StringValue;
use touchdown::testing::{self, TestServer};
use touchdown::{
    Call, Code, DrainPolicy, MethodName, Replies, Server, Service, StartError, Status,
};
use touchdown_observe::otel::{
    traced as hands_on, within, CallTrace, SpanCounts, TraceContext, Traces,
};
use touchdown_observe::ObserveServer;

/// `/demo.Echo/Say`, for policies.
const SAY: MethodName = MethodName::new("demo.Echo", "Say");

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64
}

/// What a handler has seen of its trace.
fn seen(call: &Call) -> String {
    call.trace_context()
        .map_or_else(String::new, |it| it.traceparent())
}

#[test]
fn a_call_is_a_span_of_its_callers_trace() {
    let collector = Collector::start();
    let traces = Traces::new(collector.url())
        .service_name("greeter")
        .attribute("place", "here");
    let traces = traces
        .delay(Duration::from_millis(1))
        .header("api-key", "secret");
    let service = unary(|call, _| Ok(text(seen(call))));
    let (server, counts) = traced(service, traces);
    let metadata = with(SAMPLED).with("tracestate", "rojo=1,congo=2").unwrap();

    let before = now();
    let seen = say(&server.client(), metadata).unwrap();
    let request = collector.request();
    let after = now();

    assert!(
        request.head.starts_with("post /v1/traces http/1.1\n"),
        "{}",
        request.head
    );
    assert!(
        request
            .head
            .contains("\ncontent-type: application/x-protobuf\n"),
        "{}",
        request.head
    );
    assert!(
        request.head.contains("\napi-key: secret\n"),
        "{}",
        request.head
    );
    let [span] = &*request.spans() else {
        panic!("{request:?}");
    };
    assert_eq!(span.trace, SAMPLED[3..35]);
    assert_eq!(span.parent, SAMPLED[36..52]);
    assert_eq!(span.state, "rojo=1,congo=2");
    assert_eq!((&*span.name, span.kind), ("demo.Echo/Say", 2));
    assert!(
        before <= span.start && span.start < span.end && span.end <= after,
        "{span:?}"
    );
    assert_eq!(span.attribute("rpc.system.name"), "grpc");
    assert_eq!(span.attribute("rpc.method"), "demo.Echo/Say");
    assert_eq!(span.attribute("rpc.status_code"), "OK");
    assert_eq!(span.attribute("network.peer.address"), "127.0.0.1");
    assert!(matches!(
        span.attributes["network.peer.port"],
        Value::Int(1..=65535)
    ));
    assert_eq!(span.attributes.len(), 5, "{span:?}");
    assert_eq!(span.status, None);
    assert_eq!(span.flags, 0x301);
    assert_eq!(span.schema_url, "https://opentelemetry.io/schemas/1.45.0");
    assert_eq!(
        span.resource["service.name"],
        Value::Text("greeter".to_owned())
    );
    assert_eq!(span.resource["place"], Value::Text("here".to_owned()));
    assert_eq!(
        span.resource["process.pid"],
        Value::Int(std::process::id().into())
    );
    // What the handler calls hangs under the span.
    assert_eq!(seen, format!("00-{}-{}-01", span.trace, span.span));
    assert_eq!(server.stop().exit_code(), exit_code::CLEAN);
    assert_eq!(
        (counts.sent(), counts.dropped(), counts.capped()),
        (1, 0, 0)
    );
}

#[test]
fn a_call_of_nobodys_trace_begins_one() {
    let collector = Collector::start();
    let (server, _) = traced(echo(), all_to(&collector));
    let client = server.client();
    for _ in 0..5 {
        say(&client, Metadata::new()).unwrap();
    }
    let spans = collector.spans(5);
    assert!(
        spans
            .iter()
            .all(|it| it.parent.is_empty() && it.flags == 0x103),
        "{spans:?}"
    );
    let traces: HashSet<_> = spans.iter().map(|it| &it.trace).collect();
    let ids: HashSet<_> = spans.iter().map(|it| &it.span).collect();
    assert_eq!((traces.len(), ids.len()), (5, 5));
    server.stop();
}

/// A server that calls another one in its handler: on its own thread, and on one that it starts.
fn calls_another(client: Client) -> Service {
    let client = client.around(hands_on);
    unary(move |call, _| {
        let own = say(&client, Metadata::new())?;
        let other = thread::scope(|scope| {
            let call = || within(call, || say(&client, Metadata::new()));
            scope.spawn(call).join().unwrap()
        });
        Ok(text(format!("{} {own} {}", seen(call), other?)))
    })
}

/// Two servers, the first of which calls the second. Both say what they see of the trace.
fn two(traces: impl Fn() -> Traces) -> (TestServer, TestServer) {
    let (second, _) = traced(unary(|call, _| Ok(text(seen(call)))), traces());
    let client = client_of(&second.address().to_string());
    let (first, _) = traced(calls_another(client), traces());
    (first, second)
}

#[test]
fn the_trace_of_a_call_through_two_servers_is_one_tree() {
    let collector = Collector::start();
    let (first, second) = two(|| all_to(&collector));
    for metadata in [Metadata::new(), with(SAMPLED)] {
        let root = metadata
            .get("traceparent")
            .map_or(String::new(), |it| it[36..52].to_owned());
        say(&first.client(), metadata).unwrap();
        let spans = collector.spans(3);
        let traces: HashSet<_> = spans.iter().map(|it| &it.trace).collect();
        assert_eq!(traces.len(), 1, "{spans:?}");
        let top = spans
            .iter()
            .find(|it| it.parent == root)
            .expect("nothing hangs under the caller");
        let below = spans.iter().filter(|it| it.parent == top.span);
        assert_eq!(below.count(), 2, "{spans:?}");
    }
    first.stop();
    second.stop();
}

#[test]
fn a_trace_that_is_not_recorded_is_handed_on_as_it_came() {
    let collector = Collector::start();
    let (first, second) = two(|| all_to(&collector));
    let seen = say(&first.client(), with(UNSAMPLED)).unwrap();
    assert_eq!(seen, [UNSAMPLED; 3].join(" "));
    first.stop();
    second.stop();
    assert!(collector.others().is_empty());
}

#[test]
fn a_call_that_begins_a_trace_and_is_not_recorded_has_one_all_the_same() {
    let collector = Collector::start();
    let (first, second) = two(|| all_to(&collector).sample(0.0));
    let seen = say(&first.client(), Metadata::new()).unwrap();
    let seen: Vec<_> = seen.split(' ').collect();
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0], seen[2]);
    let context = TraceContext::parse(seen[0], "").unwrap();
    assert!(!context.is_sampled());
    first.stop();
    second.stop();
    assert!(collector.others().is_empty());
}

#[test]
fn threads_that_ask_at_the_same_time_get_the_same_context() {
    let collector = Collector::start();
    let service = unary(|call, _| {
        let contexts = thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| seen(call))).collect();
            threads
                .into_iter()
                .map(|it| it.join().unwrap())
                .collect::<HashSet<_>>()
        });
        assert_eq!(contexts.len(), 1, "{contexts:?}");
        Ok(text(contexts.into_iter().next().unwrap()))
    });
    let (server, _) = traced(service, all_to(&collector).sample(0.0));
    let client = server.client();
    let contexts: HashSet<_> = (0..50)
        .map(|_| say(&client, Metadata::new()).unwrap())
        .collect();
    assert_eq!(contexts.len(), 50);
    server.stop();
}

#[test]
fn a_call_is_the_current_one_on_its_thread_and_no_other() {
    let collector = Collector::start();
    let service = unary(|call, _| {
        assert_eq!(TraceContext::current(), call.trace_context());
        let elsewhere = thread::scope(|scope| scope.spawn(TraceContext::current).join().unwrap());
        assert_eq!(elsewhere, None);
        // A panic without a word on the standard error.
        let panics = AssertUnwindSafe(|| within(call, || resume_unwind(Box::new("at once"))));
        let panics: Result<(), _> = catch_unwind(panics);
        assert!(panics.is_err());
        assert_eq!(TraceContext::current(), call.trace_context());
        Ok(text(""))
    });
    let (server, _) = traced(service, all_to(&collector));
    say(&server.client(), Metadata::new()).unwrap();
    assert_eq!(collector.span().attribute("rpc.status_code"), "OK");
    assert_eq!(TraceContext::current(), None);
    server.stop();
}

#[test]
fn a_call_that_has_a_trace_of_its_own_keeps_it() {
    let collector = Collector::start();
    let (second, _) = traced(unary(|call, _| Ok(text(seen(call)))), all_to(&collector));
    let client = client_of(&second.address().to_string()).around(hands_on);
    let service = unary(move |_, _| say(&client, with(UNSAMPLED)).map(text));
    let (first, _) = traced(service, all_to(&collector));
    assert_eq!(say(&first.client(), with(SAMPLED)).unwrap(), UNSAMPLED);
    first.stop();
    second.stop();
}

#[test]
fn a_failure_of_the_server_is_one_of_the_span_and_one_of_the_caller_is_not() {
    let collector = Collector::start();
    let service = unary(|_, request| match &*request.value {
        "hello" => Err(Status::internal("the device is broken")),
        _ => Err(Status::not_found("no such sensor")),
    });
    let (server, _) = traced(service, all_to(&collector));
    let client = server.client();

    say(&client, Metadata::new()).unwrap_err();
    let span = collector.span();
    assert_eq!(span.status, Some((2, "the device is broken".to_owned())));
    assert_eq!(span.attribute("rpc.status_code"), "INTERNAL");
    assert_eq!(span.attribute("error.type"), "INTERNAL");

    let result: Result<StringValue, Status> =
        client.unary("/demo.Echo/Say", &text("x"), CallOptions::new());
    assert_eq!(result.unwrap_err().code(), Code::NotFound);
    let span = collector.span();
    assert_eq!(span.status, None);
    assert_eq!(span.attribute("rpc.status_code"), "NOT_FOUND");
    assert!(!span.attributes.contains_key("error.type"));
    server.stop();
}

#[test]
fn a_method_that_does_not_exist_is_not_named() {
    let collector = Collector::start();
    let (server, _) = traced(echo(), all_to(&collector));
    let result: Result<StringValue, Status> =
        server
            .client()
            .unary("/chosen.By/AStranger", &text(""), CallOptions::new());
    assert_eq!(result.unwrap_err().code(), Code::Unimplemented);
    let span = collector.span();
    assert_eq!(
        (&*span.name, span.attribute("rpc.method")),
        ("grpc", "_OTHER")
    );
    assert_eq!(span.attribute("error.type"), "UNIMPLEMENTED");
    let [event] = &*span.events else {
        panic!("{span:?}");
    };
    assert_eq!(event.name, "touchdown.refused");
    assert_eq!(
        event.attributes["touchdown.refusal.reason"],
        Value::Text("unknown_method".to_owned())
    );
    server.stop();
}

#[test]
fn probes_of_health_have_no_spans() {
    let collector = Collector::start();
    let (server, counts) = traced(echo(), all_to(&collector));
    let client = server.client();
    let options = || CallOptions::new().metadata(with(SAMPLED));
    // HealthCheckRequest{} as StringValue{}: both are empty on the wire.
    for _ in 0..3 {
        let _: Result<StringValue, Status> =
            client.unary("/grpc.health.v1.Health/Check", &text(""), options());
    }
    say(&client, Metadata::new()).unwrap();
    assert_eq!(collector.span().name, "demo.Echo/Say");
    server.stop();
    assert_eq!((counts.sent(), counts.dropped()), (1, 0));
}

#[test]
fn a_call_that_waits_for_a_worker_says_for_how_long() {
    let collector = Collector::start();
    let (service, begun, release) = gated();
    let (server, _) = traced_with(service, all_to(&collector), |it| it.workers(1));
    let client = server.client();
    let first = thread::spawn({
        let client = client.clone();
        move || say(&client, Metadata::new())
    });
    begun.recv_timeout(LONG).unwrap();
    let second = thread::spawn(move || say(&client, with(SAMPLED)));
    eventually("the second waits", || server.load().waiting == 1);
    drop(release);
    first.join().unwrap().unwrap();
    second.join().unwrap().unwrap();
    let spans = collector.spans(2);
    let waited = spans.iter().find(|it| it.trace == SAMPLED[3..35]).unwrap();
    let event = waited
        .events
        .iter()
        .find(|it| it.name == "touchdown.queue_wait");
    let event = event.expect("it has waited");
    let Value::Double(seconds) = event.attributes["touchdown.queue_wait.duration"] else {
        panic!("{event:?}");
    };
    assert!(
        seconds > 0.0 && waited.start < event.at && event.at <= waited.end,
        "{waited:?}"
    );
    let nanoseconds = (event.at - waited.start) as f64;
    assert!((nanoseconds / 1e9 - seconds).abs() < 1e-6, "{waited:?}");
    server.stop();
}

#[test]
fn a_call_that_a_drain_cuts_says_so_and_when_the_drain_began() {
    let collector = Collector::start();
    let (service, begun, release) = gated();
    let service = service.policy(SAY, DrainPolicy::CutEarly);
    let (server, counts) = traced_with(service, all_to(&collector), |it| {
        it.cut_early_after(Duration::ZERO)
    });
    let client = server.client();
    let call = thread::spawn(move || say(&client, Metadata::new()));
    begun.recv_timeout(LONG).unwrap();
    server.signal(15);
    assert_eq!(call.join().unwrap().unwrap_err().code(), Code::Unavailable);
    drop(release);
    server.wait();
    let span = collector.span();
    assert_eq!(span.events(), ["touchdown.draining", "touchdown.cut"]);
    assert_eq!(span.attribute("rpc.status_code"), "UNAVAILABLE");
    assert!(span.start <= span.events[0].at && span.events[0].at <= span.events[1].at);
    assert_eq!(span.events[1].at, span.end);
    assert_eq!((counts.sent(), counts.dropped()), (1, 0));
}

#[test]
fn a_call_whose_handler_never_returns_has_a_span_too() {
    let collector = Collector::start();
    let (service, begun, release) = gated();
    let plan = testing::plan()
        .with_grace_period(Duration::ZERO)
        .with_force_period(Duration::from_millis(10));
    let (server, counts) = traced_with(service, all_to(&collector), |it| {
        it.lifecycle(touchdown::lifecycle::Lifecycle::builder().plan(plan))
    });
    let client = server.client();
    let call = thread::spawn(move || say(&client, Metadata::new()));
    begun.recv_timeout(LONG).unwrap();
    let report = server.stop();
    assert_eq!(report.calls.abandoned, 1);
    call.join().unwrap().unwrap_err();
    let span = collector.span();
    assert!(span.events().contains(&"touchdown.abandoned"), "{span:?}");
    assert_eq!(counts.sent(), 1);
    drop(release);
}

#[test]
fn a_stream_is_one_span_also_if_its_handler_lets_it_go() {
    let collector = Collector::start();
    let (let_go, detached) = channel();
    let let_go = Mutex::new(let_go);
    let service = Service::builder("demo.Echo")
        .server_streaming(
            "Count",
            |_, request: StringValue, replies: Replies<StringValue>| {
                (0..3).try_for_each(|_| replies.send(&request))
            },
        )
        .server_streaming(
            "LetGo",
            move |call, _: StringValue, replies: Replies<StringValue>| {
                let_go
                    .lock()
                    .unwrap()
                    .send((call.clone(), replies.detach()))
                    .unwrap();
                Ok(())
            },
        )
        .build();
    let (server, _) = traced(service, all_to(&collector));
    let client = server.client();
    let call = |path| {
        let replies =
            client.server_streaming::<_, StringValue>(path, &text("x"), CallOptions::new());
        replies.unwrap().collect::<Result<Vec<_>, _>>()
    };
    assert_eq!(call("/demo.Echo/Count").unwrap().len(), 3);
    assert_eq!(collector.span().name, "demo.Echo/Count");

    let ends = thread::spawn(move || {
        let (call, replies) = detached.recv_timeout(LONG).unwrap();
        let context = seen(&call);
        replies.finish(Err(Status::data_loss("torn")));
        context
    });
    assert_eq!(call("/demo.Echo/LetGo").unwrap_err().code(), Code::DataLoss);
    let span = collector.span();
    assert_eq!(span.status, Some((2, "torn".to_owned())));
    assert_eq!(
        ends.join().unwrap(),
        format!("00-{}-{}-03", span.trace, span.span)
    );
    server.stop();
}

#[test]
fn a_caller_at_a_unix_socket_is_known_by_its_path() {
    let collector = Collector::start();
    let address = testing::unix_address();
    let (server, _) = traced_with(echo(), all_to(&collector), |it| it.address(&address));
    say(&server.client(), Metadata::new()).unwrap();
    let span = collector.span();
    let name = address.strip_prefix("unix-abstract:").unwrap();
    assert_eq!(span.attribute("network.peer.address"), format!("@{name}"));
    assert!(!span.attributes.contains_key("network.peer.port"));
    server.stop();
}

#[test]
fn a_caller_that_is_not_trusted_is_in_no_trace() {
    let collector = Collector::start();
    for share in [1.0, 0.0] {
        let traces = all_to(&collector).trust_parent(false).sample(share);
        let (server, counts) = traced(unary(|call, _| Ok(text(seen(call)))), traces);
        let metadata = with(SAMPLED).with("tracestate", "rojo=1").unwrap();
        let seen = say(&server.client(), metadata).unwrap();
        let context = TraceContext::parse(&seen, "").unwrap();
        assert_ne!(context.trace_id().to_string(), SAMPLED[3..35]);
        assert_eq!(context.is_sampled(), share == 1.0);
        server.stop();
        assert_eq!(counts.sent(), share as u64);
    }
    let span = collector.span();
    assert_eq!((&*span.parent, &*span.state), ("", ""));
    assert_ne!(span.trace, SAMPLED[3..35]);
}

#[test]
fn callers_who_want_all_of_their_calls_recorded_get_what_the_cap_allows() {
    let collector = Collector::start();
    let traces = all_to(&collector).sample(0.0).cap(1);
    let (server, counts) = traced(unary(|call, _| Ok(text(seen(call)))), traces);
    let client = server.client();
    let begun = std::time::Instant::now();
    let seen: Vec<_> = (0..200)
        .map(|_| say(&client, with(SAMPLED)).unwrap())
        .collect();
    let seconds = begun.elapsed().as_secs();
    server.stop();
    let recorded = seen.iter().filter(|it| *it != SAMPLED).count() as u64;
    assert!(
        (1..=seconds + 2).contains(&recorded),
        "{recorded} in {seconds} s"
    );
    assert_eq!((counts.sent(), counts.capped()), (recorded, 200 - recorded));
    // The others made no hole in the trace.
    assert!(seen.iter().all(|it| it[..36] == SAMPLED[..36]));
}

#[test]
fn any_traceparent_is_a_call_all_the_same() {
    let collector = Collector::start();
    let (server, _) = traced(echo(), all_to(&collector));
    let client = server.client();
    let twice = with(SAMPLED).with("traceparent", SAMPLED).unwrap();
    let wrong = [
        "",
        " ",
        "00",
        &SAMPLED[..54],
        &SAMPLED.to_uppercase(),
        "ff-0-0-0",
        &"0".repeat(4000),
    ];
    let wrong = wrong.iter().map(|it| with(it)).chain([twice]);
    let count = wrong.clone().count();
    for metadata in wrong {
        let metadata = metadata.with("tracestate", "a=1").unwrap();
        assert_eq!(say(&client, metadata).unwrap(), "hello");
    }
    let spans = collector.spans(count);
    for span in &spans {
        assert_eq!((&*span.parent, &*span.state), ("", ""), "{span:?}");
        assert_ne!(span.trace, SAMPLED[3..35]);
    }
    server.stop();
}

/// Bytes that no client of gRPC sends. HPACK's simplest form (RFC 7541, 6.2.2) carries them.
#[test]
fn bytes_that_are_no_text_are_a_call_all_the_same() {
    let collector = Collector::start();
    let (server, _) = traced(echo(), all_to(&collector));
    let mut stream = TcpStream::connect(server.address().to_string()).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .unwrap();
    for (number, value) in [
        (1, &b"\xff\xfe\x80"[..]),
        (3, b"00-\xc3\xa4"),
        (5, b"\x01\x7f\t"),
    ] {
        let field = |name: &[u8], value: &[u8]| {
            [&[0, name.len() as u8], name, &[value.len() as u8], value].concat()
        };
        let fields = [
            field(b":method", b"POST"),
            field(b":scheme", b"http"),
            field(b":path", b"/demo.Echo/Say"),
            field(b":authority", b"test"),
            field(b"content-type", b"application/grpc"),
            field(b"te", b"trailers"),
            field(b"traceparent", value),
            field(b"tracestate", value),
        ];
        let fields = fields.concat();
        let head = |length: usize, kind, flags| {
            [
                &(length as u32).to_be_bytes()[1..],
                &[kind, flags, 0, 0, 0, number],
            ]
            .concat()
        };
        let body = b"\0\0\0\0\x03\x0a\x01x";
        let call = [
            head(fields.len(), 1, 4),
            fields,
            head(body.len(), 0, 1),
            body.to_vec(),
        ]
        .concat();
        stream.write_all(&call).unwrap();
    }
    // Some are refused by gRPC itself, and those never become calls.
    let well = say(&server.client(), with(SAMPLED));
    assert_eq!(well.unwrap(), "hello");
    eventually("the last call is recorded", || {
        collector.span().trace == SAMPLED[3..35]
    });
    drop(stream);
    assert_eq!(server.stop().exit_code(), exit_code::CLEAN);
}

#[test]
fn a_setting_that_makes_no_sense_keeps_the_server_from_starting() {
    for (traces, says) in [
        (
            Traces::new("https://collector:4318"),
            "endpoint is https://collector:4318, and must be http://HOST:PORT",
        ),
        (
            Traces::new("http://c:1").sample(2.0),
            "sample is 2, and must be from 0 to 1",
        ),
    ] {
        let builder = Server::builder().service(echo()).traces(traces);
        let error = TestServer::start(builder).unwrap_err();
        assert!(matches!(error, StartError::Setting { .. }), "{error:?}");
        assert!(error.to_string().starts_with(says), "{error}");
    }
}

#[test]
fn another_companion_finds_the_counts_at_the_lifecycle() {
    let collector = Collector::start();
    let (server, counts) = traced(echo(), all_to(&collector));
    say(&server.client(), Metadata::new()).unwrap();
    collector.span();
    let found = server.lifecycle().attached::<SpanCounts>().unwrap();
    eventually("it was counted", || found.sent() == 1);
    assert_eq!(counts.sent(), 1);
    server.stop();
}

#[test]
fn without_traces_a_call_has_what_its_caller_sent() {
    let service = unary(|call, _| Ok(text(seen(call))));
    let server = TestServer::start(Server::builder().service(service)).unwrap();
    assert_eq!(say(&server.client(), with(SAMPLED)).unwrap(), SAMPLED);
    server.stop();
}

/// This test alone, in a process of its own, with these variables.
fn child(test: &str, variables: &[(&str, &str)]) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("TOUCHDOWN_OTEL_CHILD", "1")
        .envs(variables.iter().copied())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn is_child() -> bool {
    env::var_os("TOUCHDOWN_OTEL_CHILD").is_some()
}

/// Waits for its end, and returns what it has said.
fn end(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn the_environment_says_where_to_and_what() {
    if is_child() {
        let (server, _) = traced(unary(|call, _| Ok(text(seen(call)))), Traces::from_env());
        println!("seen {}", say(&server.client(), with(SAMPLED)).unwrap());
        assert_eq!(server.stop().exit_code(), exit_code::CLEAN);
        return;
    }
    let test = "the_environment_says_where_to_and_what";
    let collector = Collector::start();
    let url = collector.url();
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*url),
        ("OTEL_SERVICE_NAME", "of the environment"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b"),
    ];
    end(child(test, &variables));
    let request = collector.request();
    assert!(
        request.head.contains("\napi-key: a b\n"),
        "{}",
        request.head
    );
    let span = request.spans().remove(0);
    assert_eq!(
        span.resource["service.name"],
        Value::Text("of the environment".to_owned())
    );

    // Switched off, and what the caller said is handed on.
    let off = [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*url),
    ];
    assert!(end(child(test, &off)).contains(&format!("seen {SAMPLED}")));
    assert!(collector.others().is_empty());
}

#[test]
fn without_spans_nothing_wakes_and_after_the_end_nothing_is_left() {
    /// How long nothing may happen.
    const IDLE: Duration = Duration::from_secs(3);

    /// How often the thread that sends has left the processor; `None` if it is not there.
    fn switches() -> Option<u64> {
        let mut tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        let status = tasks.find_map(|task| {
            let status = fs::read_to_string(task.path().join("status")).ok()?;
            status.starts_with("Name:\ttd-otel\n").then_some(status)
        })?;
        let counts = status.lines().filter(|it| it.contains("ctxt_switches"));
        Some(
            counts
                .map(|it| {
                    it.split_whitespace()
                        .last()
                        .unwrap()
                        .parse::<u64>()
                        .unwrap()
                })
                .sum(),
        )
    }

    if !is_child() {
        // Other tests have such threads as well.
        end(child(
            "without_spans_nothing_wakes_and_after_the_end_nothing_is_left",
            &[],
        ));
        return;
    }
    let collector = Collector::start();
    let (server, counts) = traced(echo(), all_to(&collector));
    let client = server.client();
    say(&client, Metadata::new()).unwrap();
    collector.span();
    eventually("it is sent", || counts.sent() == 1);
    // Calls that are not recorded wake it neither.
    let mut before = switches();
    eventually("it rests", || {
        thread::sleep(Duration::from_millis(100));
        std::mem::replace(&mut before, switches()) == before
    });
    for _ in 0..10 {
        say(&client, with(UNSAMPLED)).unwrap();
    }
    thread::sleep(IDLE);
    assert_eq!(switches(), before);
    assert!(before.is_some());
    server.stop();
    eventually("it has ended", || switches().is_none());
}

/// A Python that has PyPI's opentelemetry-proto.
fn python() -> String {
    env::var("TOUCHDOWN_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

#[test]
#[ignore = "needs Python with opentelemetry-proto: set TOUCHDOWN_PYTHON"]
fn the_published_protocol_reads_what_two_servers_send() {
    let mut receiver = Command::new(python())
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/otlp_receiver.py"
        ))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(receiver.stdout.take().unwrap()).lines();
    let mut hear = || lines.next().expect("it has ended").unwrap();
    let url = hear().strip_prefix("listening at ").unwrap().to_owned();
    let traces = || {
        Traces::new(&url)
            .service_name("greeter")
            .sample(1.0)
            .delay(Duration::from_millis(1))
    };
    let (first, second) = two(traces);
    let metadata = with(SAMPLED).with("tracestate", "rojo=1").unwrap();
    say(&first.client(), metadata).unwrap();
    let result: Result<StringValue, Status> =
        first
            .client()
            .unary("/no/Such", &text(""), CallOptions::new());
    result.unwrap_err();
    first.stop();
    second.stop();
    // It checks what it has taken: the names, the times, and that the spans are one tree.
    drop(receiver.stdin.take());
    let said: Vec<_> = std::iter::from_fn(|| lines.next()?.ok()).collect();
    assert!(receiver.wait().unwrap().success(), "{said:#?}");
    assert_eq!(
        said.last().map(String::as_str),
        Some("4 spans, 2 traces"),
        "{said:#?}"
    );
}
