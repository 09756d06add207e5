//! What a call is to its handler and to its caller.
#![cfg(feature = "client")]

mod common;

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{mpsc, Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use touchdown::client::{CallOptions, Client, Metadata};
use touchdown::protobuf::well_known_types::wrappers::{BytesValue, StringValue, UInt32Value};
use touchdown::{Call, Code, Interceptor, MetadataError, Peer, Replies, Requests, Service, Status};

fn streams() -> Service {
    Service::builder("test.Streams")
        .server_streaming(
            "Count",
            |_: &Call, up_to: UInt32Value, replies: Replies<UInt32Value>| {
                (0..up_to.value).try_for_each(|it| replies.send(&number(it)))
            },
        )
        .client_streaming("Sum", |_: &Call, requests: Requests<UInt32Value>| {
            let numbers: Result<Vec<u32>, Status> = requests.map(|it| Ok(it?.value)).collect();
            Ok(number(numbers?.iter().sum()))
        })
        .bidirectional(
            "Double",
            |_: &Call, requests: Requests<UInt32Value>, replies: Replies<UInt32Value>| {
                for request in requests {
                    replies.send(&number(request?.value * 2))?;
                }
                Ok(())
            },
        )
        .build()
}

#[test]
fn a_unary_call_is_answered() {
    let server = start(echo());
    let client = client(&server);
    for size in [0, 1, 100, 16 << 10, 1 << 20, 3 << 20] {
        let sent = "x".repeat(size);
        assert_eq!(say(&client, &sent).unwrap(), sent);
    }
    let report = server.shutdown();
    assert_eq!(report.calls.completed, 6);
    assert_eq!(report.exit_code(), 0);
}

/// Of connections, enough for several threads to poll; of calls, enough for replies to wait for each other.
#[test]
fn many_calls_on_many_connections_are_all_answered() {
    const CONNECTIONS: usize = 48;
    const CALLS: usize = 100;
    let server = start(echo());
    thread::scope(|scope| {
        for number in 0..CONNECTIONS {
            let client = client(&server);
            scope.spawn(move || {
                for call in 0..CALLS {
                    let sent = format!("{number} {call}");
                    assert_eq!(say(&client, &sent).unwrap(), sent);
                }
            });
        }
    });
    let report = server.shutdown();
    assert_eq!(report.calls.completed, (CONNECTIONS * CALLS) as u64);
}

#[test]
fn a_server_streams_to_its_caller() {
    let server = start(streams());
    let client = client(&server);
    let replies: Vec<u32> = client
        .server_streaming("/test.Streams/Count", &number(1000), CallOptions::default())
        .unwrap()
        .map(|it: Result<UInt32Value, _>| it.unwrap().value)
        .collect();
    assert_eq!(replies, (0..1000).collect::<Vec<_>>());
}

#[test]
fn a_caller_streams_to_its_server() {
    let server = start(streams());
    let client = client(&server);
    let mut upload = client
        .client_streaming("/test.Streams/Sum", CallOptions::default())
        .unwrap();
    for value in 1..=1000 {
        upload.send(number(value)).unwrap();
    }
    let sum: UInt32Value = upload.finish().unwrap();
    assert_eq!(sum.value, 500_500);
}

#[test]
fn both_sides_stream_at_once() {
    let server = start(streams());
    let client = client(&server);
    let (mut requests, replies) = client
        .bidirectional("/test.Streams/Double", CallOptions::default())
        .unwrap();
    let sender = thread::spawn(move || {
        for value in 0..1000 {
            requests.send(number(value)).unwrap();
        }
    });
    let doubled: Vec<u32> = replies
        .map(|it: Result<UInt32Value, _>| it.unwrap().value)
        .collect();
    sender.join().unwrap();
    assert_eq!(doubled, (0..1000).map(|it| it * 2).collect::<Vec<_>>());
}

#[test]
fn the_halves_of_a_stream_can_be_used_from_two_threads() {
    let service = Service::builder("test.Streams")
        .bidirectional(
            "Double",
            |_: &Call, requests: Requests<UInt32Value>, replies: Replies<UInt32Value>| {
                let (sender, receiver) = mpsc::channel();
                let reader = thread::spawn(move || {
                    requests.for_each(|it| sender.send(it.unwrap().value).unwrap());
                });
                receiver
                    .iter()
                    .try_for_each(|it: u32| replies.send(&number(it * 2)))?;
                reader.join().unwrap();
                Ok(())
            },
        )
        .build();
    let server = start(service);
    let client = client(&server);
    let (mut requests, mut replies) = client
        .bidirectional("/test.Streams/Double", CallOptions::default())
        .unwrap();
    for value in 0..100 {
        requests.send(number(value)).unwrap();
        let reply: UInt32Value = replies.next().unwrap().unwrap();
        assert_eq!(reply.value, value * 2);
    }
    drop(requests);
    assert!(replies.next().is_none());
}

#[test]
fn metadata_goes_both_ways() {
    let server = start(unary(|call, _| {
        assert_eq!(call.method(), "/test.Echo/Say");
        assert!(matches!(call.peer(), Peer::Tcp(address) if address.ip().is_loopback()));
        let metadata = call.metadata();
        assert_eq!(metadata.get("x-text"), Some("one"));
        assert_eq!(metadata.get("X-Text"), Some("one"));
        assert_eq!(
            metadata.get_all("x-text").collect::<Vec<_>>(),
            ["one", "two"]
        );
        assert_eq!(metadata.get_bin("x-raw-bin"), Some(&[0, 255, 7][..]));
        assert_eq!(metadata.get("x-none"), None);
        call.set_header("x-header", "h").unwrap();
        call.set_trailer("x-trailer-bin", &[0, 1, 2]).unwrap();
        assert_eq!(
            call.set_header("grpc-status", "0"),
            Err(MetadataError::Name("grpc-status".into()))
        );
        Ok(text(""))
    }));
    let mut headers = grpcio::MetadataBuilder::new();
    headers
        .add_str("x-text", "one")
        .unwrap()
        .add_str("x-text", "two")
        .unwrap();
    headers.add_bytes("x-raw-bin", &[0, 255, 7]).unwrap();
    let options = grpcio::CallOption::default()
        .headers(headers.build())
        .timeout(LONG);
    let method = unary_method("/test.Echo/Say");
    let client = grpcio_client(&server);
    let mut receiver = client
        .unary_call_async(&method, &text(""), options)
        .unwrap();
    let (headers, _, trailers) = receiver.receive_sync().unwrap();
    let find = |metadata: &grpcio::Metadata, name: &str| {
        metadata
            .iter()
            .find(|it| it.0 == name)
            .map(|it| it.1.to_vec())
    };
    assert_eq!(find(&headers, "x-header"), Some(b"h".to_vec()));
    assert_eq!(find(&trailers, "x-trailer-bin"), Some(vec![0, 1, 2]));
}

#[test]
fn every_status_arrives_as_it_was_sent() {
    let server = start(unary(|_, request| {
        let code = Code::from_number(request.value.parse().unwrap());
        Err(Status::new(code, "why: ü, 100 %\n").with_details([0, 1, 255]))
    }));
    let client = client(&server);
    for number in 1..=16 {
        let status = say(&client, &number.to_string()).unwrap_err();
        assert_eq!(status.code(), Code::from_number(number));
        assert_eq!(status.message(), "why: ü, 100 %\n");
        assert_eq!(status.details(), [0, 1, 255]);
    }
}

#[test]
fn an_unknown_method_is_unimplemented() {
    let server = start(echo());
    let client = client(&server);
    for path in ["/test.Echo/Shout", "/test.Other/Say"] {
        let result: Result<StringValue, _> =
            client.unary(path, &text(""), CallOptions::default().timeout(LONG));
        let status = result.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(status.message().contains(path), "{status}");
    }
    assert_eq!(server.shutdown().calls.refused, 2);
}

#[test]
fn a_request_that_does_not_decode_is_internal() {
    let server = start(echo());
    let client = client(&server);
    // Field 1 with a wire type that does not exist.
    let broken = BytesValue::new();
    let mut broken = broken;
    broken.special_fields.mut_unknown_fields().add_fixed32(1, 7);
    let result: Result<StringValue, _> = client.unary(
        "/test.Echo/Say",
        &broken,
        CallOptions::default().timeout(LONG),
    );
    assert_eq!(result.unwrap().value, "", "an unknown field is no error");
    broken = BytesValue {
        value: vec![0xff, 0xfe],
        ..Default::default()
    };
    let result: Result<StringValue, _> = client.unary(
        "/test.Echo/Say",
        &broken,
        CallOptions::default().timeout(LONG),
    );
    let status = result.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("decoded"), "{status}");
    assert_eq!(say(&client, "still there").unwrap(), "still there");
}

#[test]
fn a_message_above_the_limit_is_refused_and_the_connection_lives() {
    let server = builder(echo())
        .max_receive_message_size(1000)
        .start()
        .unwrap();
    let client = client(&server);
    assert_eq!(say(&client, &"x".repeat(900)).unwrap().len(), 900);
    let status = say(&client, &"x".repeat(2000)).unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(say(&client, "still there").unwrap(), "still there");
    assert_eq!(server.connections(), 1);
}

#[test]
fn metadata_above_the_limit_is_refused() {
    let server = builder(echo()).max_metadata_size(1000).start().unwrap();
    let client = client(&server);
    let headers = Metadata::new().with("x-long", "x".repeat(2000)).unwrap();
    let options = CallOptions::new().metadata(headers).timeout(LONG);
    let status = say_with(&client, "", options).unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert_eq!(say(&client, "still there").unwrap(), "still there");
}

#[test]
fn requests_that_exceed_the_memory_limit_are_refused_before_they_are_there() {
    let server = builder(echo())
        .memory_limit(8 << 20)
        .max_receive_message_size(1 << 30)
        .start()
        .unwrap();
    let client = client(&server);
    let status = say(&client, &"x".repeat(64 << 20)).unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    // By C-core itself: no handler and no decoder has seen it.
    assert!(!status.message().contains("limit"), "{status}");
    assert_eq!(say(&client, "still there").unwrap(), "still there");
}

#[test]
fn a_panic_costs_one_internal() {
    let server = start(unary(|_, request| match request.value.as_str() {
        "panic" => panic!("as asked"),
        _ => Ok(request),
    }));
    std::panic::set_hook(Box::new(|panic| {
        if !panic.to_string().contains("as asked") {
            eprintln!("{panic}");
        }
    }));
    let client = client(&server);
    let panicked = Err(Status::internal("the handler panicked"));
    let other = (0..10_000)
        .map(|_| say(&client, "panic"))
        .find(|it| *it != panicked);
    // Before the assertions, which say what is wrong by a panic.
    let _ = std::panic::take_hook();
    assert_eq!(other, None);
    assert_eq!(say(&client, "still there").unwrap(), "still there");
    assert_eq!(server.connections(), 1);
}

#[test]
fn the_deadline_is_known_to_the_handler() {
    let server = start(unary(|call, _| {
        let left = call.time_remaining().map_or(0, |it| it.as_millis());
        Ok(text(left.to_string()))
    }));
    let client = client(&server);
    let options = CallOptions::default().timeout(Duration::from_secs(10));
    let left: u128 = say_with(&client, "", options).unwrap().parse().unwrap();
    // C-core rounds what it sends, to three digits or so.
    assert!((1..=10_500).contains(&left), "{left}");
    let none = say_with(&client, "", CallOptions::default()).unwrap();
    assert_eq!(none, "0");
}

#[test]
fn a_handler_that_asks_sees_its_callers_deadline() {
    let (sender, receiver) = mpsc::channel();
    let server = start(unary(move |call, _| {
        let began = Instant::now();
        let cancelled = call.token().wait_timeout(LONG) && call.is_cancelled();
        sender.send((cancelled, began.elapsed())).unwrap();
        Ok(text(""))
    }));
    let client = client(&server);
    let options = CallOptions::default().timeout(Duration::from_millis(100));
    // On a busy machine a call may not even be sent in its time.
    let seen = (0..50).find_map(|_| {
        let _ = say_with(&client, "", options.clone());
        receiver.recv_timeout(Duration::from_millis(500)).ok()
    });
    let (cancelled, waited) = seen.expect("the handler runs");
    assert!(cancelled);
    assert!(waited < Duration::from_secs(5), "{waited:?}");
}

/// Clients of C-core cancel a call when its deadline passes. This one leaves that to the server,
/// as tonic does once it has the headers.
fn call_and_never_cancel(server: &touchdown::Server, path: &str, timeout: &str) -> TcpStream {
    let headers = [call_headers("POST", path), field("grpc-timeout", timeout)];
    let mut socket = TcpStream::connect(server.address().to_string()).unwrap();
    let headers = frame(1, 4, 1, &headers.concat());
    // A message without content: all that these handlers need.
    let message = frame(0, 0, 1, &[0; 5]);
    let all = [PREFACE, &headers, &message].concat();
    socket.write_all(&all).unwrap();
    socket
}

#[test]
fn a_stream_ends_at_its_deadline_whoever_waits_for_what() {
    let (sender, receiver) = mpsc::channel();
    let told = move |result: Result<(), Status>| {
        sender.send(result.clone()).unwrap();
        result
    };
    let (read, full, never) = (told.clone(), told.clone(), told);
    type In = Requests<UInt32Value>;
    type Out = Replies<BytesValue>;
    let bytes = |size| BytesValue {
        value: vec![0; size],
        ..Default::default()
    };
    let service = Service::builder("test.Deadline")
        .bidirectional(
            "WaitsForRequests",
            move |_: &Call, mut requests: In, _: Out| {
                read(requests.try_for_each(|it| it.map(drop)))
            },
        )
        .bidirectional(
            "WaitsForTheNetwork",
            move |_: &Call, _: In, replies: Out| {
                full(std::iter::repeat(()).try_for_each(|()| replies.send(&bytes(10_000))))
            },
        )
        .bidirectional("NeverWaits", move |_: &Call, _: In, replies: Out| {
            never(std::iter::repeat(()).try_for_each(|()| {
                let result = replies.send(&bytes(0));
                // The message is on its way by then, most of the time.
                thread::sleep(Duration::from_millis(1));
                result
            }))
        })
        .build();
    let server = start(service);
    for method in ["WaitsForRequests", "WaitsForTheNetwork", "NeverWaits"] {
        let socket = call_and_never_cancel(&server, &format!("/test.Deadline/{method}"), "200m");
        let result = receiver.recv_timeout(LONG).expect(method);
        assert_eq!(
            result.unwrap_err().code(),
            Code::DeadlineExceeded,
            "{method}"
        );
        drop(socket);
    }
}

#[test]
fn nothing_remains_of_the_time_once_the_token_says_that_it_is_over() {
    let (sender, receiver) = mpsc::channel();
    let server = start(unary(move |call, _| {
        assert!(call.token().wait_timeout(LONG));
        sender.send(call.time_remaining()).unwrap();
        Ok(text(""))
    }));
    let calls = || call_and_never_cancel(&server, "/test.Echo/Say", "500m");
    let sockets: Vec<_> = std::iter::repeat_with(calls).take(10).collect();
    for _ in &sockets {
        let remaining = receiver.recv_timeout(LONG).unwrap();
        assert_eq!(remaining, Some(Duration::ZERO));
    }
}

#[test]
fn a_handler_that_asks_sees_its_caller_leave() {
    let (began, begun) = mpsc::channel();
    let (sender, seen) = mpsc::channel();
    let service = Service::builder("test.Echo")
        .unary("Poll", {
            let (began, sender) = (began.clone(), sender.clone());
            move |call: &Call, request: StringValue| {
                began.send(()).unwrap();
                let deadline = Instant::now() + LONG;
                while !call.is_cancelled() && Instant::now() < deadline {
                    thread::yield_now();
                }
                sender.send(call.is_cancelled()).unwrap();
                Ok(request)
            }
        })
        .unary("Wait", {
            let (began, sender) = (began.clone(), sender.clone());
            move |call: &Call, request: StringValue| {
                began.send(()).unwrap();
                sender.send(call.token().wait_timeout(LONG)).unwrap();
                Ok(request)
            }
        })
        .client_streaming(
            "Read",
            move |_: &Call, mut requests: Requests<StringValue>| {
                began.send(()).unwrap();
                let next = requests.next();
                sender.send(matches!(next, Some(Err(_)))).unwrap();
                Ok(text(""))
            },
        )
        .build();
    let server = start(service);
    for path in ["/test.Echo/Poll", "/test.Echo/Wait"] {
        let method = unary_method(path);
        let client = grpcio_client(&server);
        let mut call = client
            .unary_call_async(&method, &text(""), grpcio::CallOption::default())
            .unwrap();
        begun.recv_timeout(LONG).unwrap();
        let left = Instant::now();
        call.cancel();
        assert!(seen.recv_timeout(LONG).unwrap(), "{path}");
        assert!(
            left.elapsed() < Duration::from_secs(1),
            "{path}: {:?}",
            left.elapsed()
        );
    }
    let client = client(&server);
    let upload = client
        .client_streaming::<StringValue, StringValue>("/test.Echo/Read", CallOptions::default())
        .unwrap();
    begun.recv_timeout(LONG).unwrap();
    drop(upload);
    assert!(
        seen.recv_timeout(LONG).unwrap(),
        "a stream that broke off is no end of stream"
    );
}

#[test]
fn no_call_waits_for_a_handler_that_is_suddenly_slow() {
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let server = start(unary(move |_, request| {
        if request.value == "slow" {
            let _ = released.recv();
        }
        Ok(request)
    }));
    let clients: Vec<Client> = (0..3).map(|_| client(&server)).collect();
    // The engine learns that the method is short.
    for _ in 0..100 {
        say(&clients[0], "quick").unwrap();
    }
    let (done, dones) = mpsc::channel();
    for _ in 0..20 {
        let slow = thread::spawn({
            let client = clients[0].clone();
            move || say(&client, "slow")
        });
        for client in clients.iter().cycle().take(24) {
            let (client, done) = (client.clone(), done.clone());
            thread::spawn(move || {
                for _ in 0..5 {
                    say(&client, "quick").unwrap();
                }
                done.send(()).unwrap();
            });
        }
        for _ in 0..24 {
            dones
                .recv_timeout(LONG / 2)
                .expect("the others do not wait for the slow one");
        }
        release.send(()).unwrap();
        slow.join().unwrap().unwrap();
    }
}

#[test]
fn a_long_stream_after_short_ones_is_not_held_back() {
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let waits = unary(move |_, request| {
        let _ = released.recv();
        Ok(request)
    });
    let server = builder(streams()).service(waits).start().unwrap();
    let client = client(&server);
    // Enough calls in flight for replies to wait for each other.
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let client = client.clone();
            thread::spawn(move || say(&client, "").unwrap())
        })
        .collect();
    eventually("they are in flight", || server.in_flight() == 4);
    let count = |up_to| {
        let options = CallOptions::default().timeout(LONG);
        let replies = client.server_streaming("/test.Streams/Count", &number(up_to), options);
        replies
            .unwrap()
            .map(|it: Result<UInt32Value, _>| it.unwrap().value)
            .collect::<Vec<_>>()
    };
    for _ in 0..40 {
        assert_eq!(count(1), [0]);
    }
    assert_eq!(count(5_000), (0..5_000).collect::<Vec<_>>());
    drop(release);
    waiting.into_iter().for_each(|it| drop(it.join().unwrap()));
}

#[test]
fn headers_can_be_sent_before_the_first_message() {
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let service = Service::builder("test.Slow")
        .server_streaming(
            "Start",
            move |call: &Call, request: StringValue, replies: Replies<StringValue>| {
                call.set_header("x-early", "yes").unwrap();
                call.send_headers();
                assert!(call.set_header("x-late", "no").is_err());
                // Again is no harm.
                call.send_headers();
                released.recv().unwrap();
                replies.send(&request)
            },
        )
        .build();
    let server = start(service);
    let method = grpcio::Method {
        ty: grpcio::MethodType::ServerStreaming,
        ..unary_method("/test.Slow/Start")
    };
    let client = grpcio_client(&server);
    let options = grpcio::CallOption::default().timeout(LONG);
    let mut replies = client
        .server_streaming(&method, &text("later"), options)
        .unwrap();
    let headers = futures_executor::block_on(replies.headers()).unwrap();
    assert!(headers
        .iter()
        .any(|it| it == ("x-early", b"yes".as_slice())));
    release.send(()).unwrap();
    let rest: Vec<_> = futures_executor::block_on_stream(replies).collect();
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0].as_ref().unwrap().value, "later");
}

#[test]
fn interceptors_run_in_order_and_may_refuse() {
    struct Named(&'static str, Arc<Mutex<Vec<String>>>);
    impl Interceptor for Named {
        fn before(&self, call: &Call) -> Result<(), Status> {
            self.1.lock().unwrap().push(format!("{} before", self.0));
            match call.metadata().get("refused-by") {
                Some(name) if name == self.0 => Err(Status::permission_denied("no")),
                _ => Ok(()),
            }
        }
        fn after(&self, _: &Call, status: &Status) {
            self.1
                .lock()
                .unwrap()
                .push(format!("{} after {}", self.0, status.code()));
        }
    }
    let seen = Arc::new(Mutex::new(Vec::new()));
    let calls = Arc::new(AtomicUsize::new(0));
    let handler_calls = Arc::clone(&calls);
    let service = unary(move |_, request| {
        handler_calls.fetch_add(1, Ordering::SeqCst);
        Ok(request)
    });
    let server = builder(service)
        .interceptor(Named("a", Arc::clone(&seen)))
        .interceptor(Named("b", Arc::clone(&seen)))
        .start()
        .unwrap();
    let client = client(&server);
    say(&client, "").unwrap();
    let expected = ["a before", "b before", "b after OK", "a after OK"];
    assert_eq!(std::mem::take(&mut *seen.lock().unwrap()), expected);
    let headers = Metadata::new().with("refused-by", "b").unwrap();
    let options = CallOptions::new().metadata(headers).timeout(LONG);
    let status = say_with(&client, "", options).unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let expected = ["a before", "b before", "a after PERMISSION_DENIED"];
    assert_eq!(*seen.lock().unwrap(), expected);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[test]
fn a_thousand_streams_are_fed_without_a_thousand_threads() {
    let (sender, receiver) = mpsc::channel();
    let service = Service::builder("test.Streams")
        .server_streaming(
            "Subscribe",
            move |_: &Call, _: UInt32Value, replies: Replies<UInt32Value>| {
                sender.send(replies.detach()).unwrap();
                Ok(())
            },
        )
        .build();
    let server = builder(service).workers(2).start().unwrap();
    let clients: Vec<Client> = (0..4).map(|_| client(&server)).collect();
    let subscribe = |index: usize| {
        clients[index % 4]
            .server_streaming(
                "/test.Streams/Subscribe",
                &number(0),
                CallOptions::default(),
            )
            .unwrap()
    };
    let mut streams: Vec<_> = (0..1000).map(subscribe).collect();
    let subscribers: Vec<_> = (0..1000)
        .map(|_| receiver.recv_timeout(LONG).unwrap())
        .collect();
    assert_eq!(server.in_flight(), 1000);
    let threads = std::fs::read_dir("/proc/self/task").unwrap().count();
    assert!(threads < 100, "{threads} threads");
    for value in 0..3 {
        subscribers
            .iter()
            .for_each(|it| it.send(&number(value)).unwrap());
        for stream in &mut streams {
            let reply: UInt32Value = stream.next().unwrap().unwrap();
            assert_eq!(reply.value, value);
        }
    }
    // Some end well, some break off, and some callers leave.
    let mut subscribers = subscribers.into_iter();
    subscribers
        .by_ref()
        .take(500)
        .for_each(|it| it.finish(Ok(())));
    drop(subscribers);
    let mut ended = [0, 0];
    for mut stream in streams {
        match stream.next() {
            None => ended[0] += 1,
            Some(end) => {
                assert_eq!(end.unwrap_err().code(), Code::Internal);
                ended[1] += 1;
            }
        }
    }
    assert_eq!(ended, [500, 500]);
    eventually("all calls have landed", || server.in_flight() == 0);
    assert_eq!(server.shutdown().exit_code(), 0);
}
