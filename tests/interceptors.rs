//! Interceptors that wrap, what a call carries with it, and what comes of an error that is none.
#![cfg(feature = "client")]

mod common;

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use crossbeam_channel::{bounded, unbounded, Sender};
use touchdown::client::{CallOptions, Client};
use touchdown::protobuf::well_known_types::wrappers::{StringValue, UInt32Value};
use touchdown::{
    Answer, Call, Code, DetachedReplies, DrainPolicy, Interceptor, MethodName, Next, Replies,
    Requests, Service, Status,
};

/// A folder for a socket.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        let name = format!("touchdown-interceptors-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

type Seen = Arc<Mutex<Vec<String>>>;

/// Notes what it does.
struct Named(&'static str, Seen);

impl Named {
    fn note(&self, what: &str) {
        self.1.lock().unwrap().push(format!("{} {what}", self.0));
    }
}

impl Interceptor for Named {
    fn before(&self, _: &Call) -> Result<(), Status> {
        self.note("before");
        Ok(())
    }

    fn around(&self, call: &Call, next: Next<'_>) -> Result<Answer, Status> {
        self.note("in");
        let answer = match call.metadata().get("skip") {
            Some(name) if name == self.0 => Err(Status::permission_denied("no")),
            _ => next.run(),
        };
        self.note("out");
        answer
    }

    fn after(&self, _: &Call, status: &Status) {
        self.note(&format!("after {}", status.code()));
    }
}

fn call(client: &Client, path: &'static str) -> Result<StringValue, Status> {
    client.unary(path, &text("hello"), CallOptions::default().timeout(LONG))
}

#[test]
fn each_wraps_what_comes_after_it_and_those_of_a_service_are_inside() {
    let seen = Seen::default();
    let handler = Arc::clone(&seen);
    let named = |name| Named(name, Arc::clone(&seen));
    let one = unary(move |_, request| {
        handler.lock().unwrap().push("handler".to_owned());
        Ok(request)
    });
    let other = Service::builder("test.Other")
        .unary("Say", |_: &Call, request: StringValue| Ok(request))
        .build();
    let server = builder(one.interceptor(named("service")))
        .service(other)
        .interceptor(named("server"))
        .start()
        .unwrap();
    let client = client(&server);
    call(&client, "/test.Echo/Say").unwrap();
    let expected = [
        "server before",
        "service before",
        "server in",
        "service in",
        "handler",
        "service out",
        "server out",
        "service after OK",
        "server after OK",
    ];
    assert_eq!(std::mem::take(&mut *seen.lock().unwrap()), expected);
    call(&client, "/test.Other/Say").unwrap();
    let expected = [
        "server before",
        "server in",
        "server out",
        "server after OK",
    ];
    assert_eq!(std::mem::take(&mut *seen.lock().unwrap()), expected);

    let headers = touchdown::client::Metadata::new();
    let headers = headers.with("skip", "service").unwrap();
    let options = CallOptions::new().metadata(headers).timeout(LONG);
    let status = say_with(&client, "x", options).unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let seen = seen.lock().unwrap();
    assert!(!seen.contains(&"handler".to_owned()), "{seen:?}");
    assert_eq!(seen.last().unwrap(), "server after PERMISSION_DENIED");
}

/// Has its `around` do this.
struct Around<F>(F);

impl<F> Interceptor for Around<F>
where
    F: Fn(Result<Answer, Status>) -> Result<Answer, Status> + Send + Sync + 'static,
{
    fn around(&self, _: &Call, next: Next<'_>) -> Result<Answer, Status> {
        (self.0)(next.run())
    }
}

#[test]
fn one_that_wraps_changes_how_a_call_ends_and_its_panic_is_internal() {
    let fails = unary(|_, _| Err(Status::not_found("a row")));
    let hidden = fails.interceptor(Around(|result: Result<Answer, Status>| {
        result.map_err(|_| Status::internal("hidden"))
    }));
    let panics = Service::builder("test.Panics")
        .unary("Say", |_: &Call, request: StringValue| Ok(request))
        .build()
        .interceptor(Around(|_| panic!("as it was told")));
    let server = builder(hidden).service(panics).start().unwrap();
    let client = client(&server);
    let status = call(&client, "/test.Echo/Say").unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Internal, "hidden")
    );
    let status = call(&client, "/test.Panics/Say").unwrap_err();
    let expected = (Code::Internal, "an interceptor panicked");
    assert_eq!((status.code(), status.message()), expected);
}

#[test]
fn what_an_interceptor_puts_in_is_there_for_the_handler_and_for_the_end() {
    struct User(String);
    struct Authentication(Seen);
    impl Interceptor for Authentication {
        fn before(&self, call: &Call) -> Result<(), Status> {
            call.extensions().insert(User("Ada".to_owned()));
            Ok(())
        }
        fn after(&self, call: &Call, _: &Status) {
            let user = call.extensions().get::<User>().unwrap();
            self.0.lock().unwrap().push(user.0.clone());
        }
    }
    let seen = Seen::default();
    let (told, kept) = unbounded();
    let service = unary(move |call, _| {
        told.send(call.clone()).unwrap();
        Ok(text(&*call.extensions().get::<User>().unwrap().0))
    });
    let server = builder(service)
        .interceptor(Authentication(Arc::clone(&seen)))
        .start()
        .unwrap();
    let reply = call(&client(&server), "/test.Echo/Say").unwrap();
    assert_eq!(
        (reply.value.as_str(), &seen.lock().unwrap()[..]),
        ("Ada", &["Ada".to_owned()][..])
    );
    let call = kept.try_recv().unwrap();
    eventually("it is dropped with the call's end", || {
        call.extensions().get::<User>().is_none()
    });
}

/// However a detached stream ends, and whoever comes first: its end or the program that holds it.
#[test]
fn what_is_put_in_is_there_for_the_end_of_a_detached_stream_too() {
    struct User;
    struct Authentication(Sender<bool>);
    impl Interceptor for Authentication {
        fn before(&self, call: &Call) -> Result<(), Status> {
            call.extensions().insert(User);
            Ok(())
        }
        fn after(&self, call: &Call, _: &Status) {
            let is_there = call.extensions().get::<User>().is_some();
            self.0.send(is_there).unwrap();
        }
    }
    let (hand_out, handed_out) = unbounded::<DetachedReplies<StringValue>>();
    let (tell, told) = unbounded();
    let news = Service::builder("test.News").server_streaming(
        "Read",
        move |_: &Call, _: StringValue, replies: Replies<StringValue>| {
            hand_out.send(replies.detach()).unwrap();
            Ok(())
        },
    );
    let policy = DrainPolicy::Stream {
        goodbye: Duration::ZERO,
    };
    let server = builder(
        news.build()
            .policy(MethodName::new("test.News", "Read"), policy),
    )
    .interceptor(Authentication(tell))
    .start()
    .unwrap();
    let client = client(&server);
    let read = || {
        let options = CallOptions::default().timeout(LONG);
        let stream = client
            .server_streaming::<_, StringValue>("/test.News/Read", &text(""), options)
            .unwrap();
        (stream, handed_out.recv_timeout(LONG).unwrap())
    };
    let in_flight = |count| eventually("it has landed", || server.in_flight() == count);
    let ends = |end: &dyn Fn()| {
        assert_eq!(told.try_recv().ok(), None);
        end();
        assert!(told.recv_timeout(LONG).unwrap());
    };

    let (stream, replies) = read();
    let call = replies.call();
    let replies = Cell::new(Some(replies));
    ends(&|| replies.take().unwrap().finish(Ok(())));
    drop(stream);
    in_flight(0);
    eventually("it is dropped", || {
        call.extensions().get::<User>().is_none()
    });

    // Its caller leaves first.
    let (stream, replies) = read();
    let call = replies.call();
    drop(stream);
    in_flight(0);
    let replies = Cell::new(Some(replies));
    ends(&|| drop(replies.take()));
    assert!(call.extensions().get::<User>().is_none());

    // The server ends it first.
    let (_stream, replies) = read();
    let call = replies.call();
    server.lifecycle().shutdown("test");
    server.lifecycle().wait();
    let replies = Cell::new(Some(replies));
    ends(&|| drop(replies.take()));
    assert!(call.extensions().get::<User>().is_none());
}

#[test]
fn a_handler_knows_the_service_the_method_the_listener_and_the_times_of_its_call() {
    let folder = Folder::new();
    let (tell, told) = unbounded();
    let service = Service::builder("test.deep.Echo").unary(
        "Say",
        move |call: &Call, request: StringValue| {
            let names = (call.service().to_owned(), call.method_name().to_owned());
            tell.send((names, call.listener(), call.elapsed(), call.deadline()))
                .unwrap();
            Ok::<_, Status>(request)
        },
    );
    let server = builder(service.build())
        .address(format!("unix:{}", folder.0.join("socket").display()))
        .start()
        .unwrap();
    for address in server.addresses() {
        let client = Client::new(&channel_to(&address.to_string()));
        let began = Instant::now();
        let options = CallOptions::default().timeout(LONG);
        client
            .unary::<_, StringValue>("/test.deep.Echo/Say", &text(""), options)
            .unwrap();
        let (names, listener, elapsed, deadline) = told.recv_timeout(LONG).unwrap();
        assert_eq!(names, ("test.deep.Echo".to_owned(), "Say".to_owned()));
        assert_eq!(listener.as_ref(), Some(address));
        assert!(elapsed <= began.elapsed());
        let deadline = deadline.unwrap();
        // C-core reads two clocks and compares them, and a client rounds a timeout up.
        let rounded = Duration::from_secs(1);
        assert!(
            began < deadline && deadline <= Instant::now() + LONG + rounded,
            "{deadline:?}"
        );
    }
    // Nobody sets a deadline.
    let client = Client::new(&channel_to(&server.address().to_string()));
    let options = CallOptions::default();
    client
        .unary::<_, StringValue>("/test.deep.Echo/Say", &text(""), options)
        .unwrap();
    assert_eq!(told.recv_timeout(LONG).unwrap().3, None);
}

#[test]
fn the_time_in_which_a_call_has_waited_counts() {
    let (began, begun) = unbounded();
    let (release, released) = bounded::<()>(0);
    let service = unary(move |call, request| {
        began.send(call.elapsed()).unwrap();
        let _ = released.recv();
        Ok(request)
    });
    let server = builder(service).workers(1).start().unwrap();
    let client = client(&server);
    thread::scope(|scope| {
        let first = scope.spawn(|| say(&client, "first"));
        begun.recv_timeout(LONG).unwrap();
        let second = scope.spawn(|| say(&client, "second"));
        eventually("the second waits", || server.in_flight() == 2);
        let waits_at_least = Instant::now();
        thread::sleep(Duration::from_millis(20));
        let waited = waits_at_least.elapsed();
        release.send(()).unwrap();
        assert!(begun.recv_timeout(LONG).unwrap() >= waited);
        release.send(()).unwrap();
        assert!(first.join().unwrap().is_ok() && second.join().unwrap().is_ok());
    });
}

#[test]
fn two_servers_serve_clones_of_a_service_with_interceptors_of_their_own() {
    struct Refuses;
    impl Interceptor for Refuses {
        fn before(&self, _: &Call) -> Result<(), Status> {
            Err(Status::unauthenticated("not at this door"))
        }
    }
    let service = echo();
    let open = start(service.clone());
    let closed = start(service.interceptor(Refuses));
    assert_eq!(say(&client(&open), "hello").unwrap(), "hello");
    let refused = say(&client(&closed), "hello").unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

/// `Err(Status::ok())`: with what it ends a call of each kind, and where else it may come from.
#[test]
fn an_error_with_the_code_ok_is_internal() {
    struct Refuses;
    impl Interceptor for Refuses {
        fn before(&self, _: &Call) -> Result<(), Status> {
            Err(Status::ok())
        }
    }
    let ok = |_: &Call, _: StringValue| Err::<StringValue, _>(Status::ok());
    let (hand_out, handed_out) = unbounded::<DetachedReplies<StringValue>>();
    let echo = |_: &Call, request: StringValue| Ok::<_, Status>(request);
    let handlers = Service::builder("test.Handlers")
        .unary("Unary", ok)
        .client_streaming("Upload", |_: &Call, requests: Requests<StringValue>| {
            requests.for_each(drop);
            Err::<StringValue, _>(Status::ok())
        })
        .server_streaming(
            "Replies",
            |_: &Call, _: StringValue, _: Replies<StringValue>| Err(Status::ok()),
        )
        .server_streaming(
            "Detached",
            move |_: &Call, _: StringValue, replies: Replies<StringValue>| {
                hand_out.send(replies.detach()).unwrap();
                Ok(())
            },
        )
        .build();
    let refused = Service::builder("test.Refused").unary("Say", echo).build();
    let around = Service::builder("test.Around").unary("Say", echo).build();
    let server = builder(handlers)
        .service(refused.interceptor(Refuses))
        .service(around.interceptor(Around(|_| Err(Status::ok()))))
        .start()
        .unwrap();
    let client = client(&server);
    let is_internal = |status: Status, who: &str| {
        let expected = format!("{who} failed with the status OK");
        assert_eq!(
            (status.code(), status.message()),
            (Code::Internal, &*expected)
        );
    };
    is_internal(
        call(&client, "/test.Handlers/Unary").unwrap_err(),
        "the handler",
    );
    is_internal(
        call(&client, "/test.Refused/Say").unwrap_err(),
        "an interceptor",
    );
    is_internal(
        call(&client, "/test.Around/Say").unwrap_err(),
        "an interceptor",
    );
    let upload = client.client_streaming::<StringValue, StringValue>(
        "/test.Handlers/Upload",
        CallOptions::default().timeout(LONG),
    );
    is_internal(upload.unwrap().finish().unwrap_err(), "the handler");
    let stream = |path| {
        let options = CallOptions::default().timeout(LONG);
        client
            .server_streaming::<_, StringValue>(path, &text(""), options)
            .unwrap()
    };
    let last = stream("/test.Handlers/Replies").last().unwrap();
    is_internal(last.unwrap_err(), "the handler");
    let detached = stream("/test.Handlers/Detached");
    let replies = handed_out.recv_timeout(LONG).unwrap();
    replies.finish(Err(Status::ok()));
    is_internal(detached.last().unwrap().unwrap_err(), "a detached stream");
}

/// The process's memory that is in use, in bytes.
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn a_call_has_one_token_however_often_it_is_asked_for() {
    let service = unary(|call, _| {
        let before = resident();
        for _ in 0..2_000_000 {
            assert!(!call.token().is_cancelled());
            assert!(!call.draining().is_cancelled());
        }
        Ok(text(resident().saturating_sub(before).to_string()))
    });
    let server = start(service);
    let grown: usize = say(&client(&server), "").unwrap().parse().unwrap();
    // A token each would take 300 MB. Other tests run beside this one.
    assert!(grown < 150 << 20, "{grown} bytes");
}

#[test]
fn the_tokens_of_a_call_fire_for_all_who_hold_them() {
    let (told, tokens) = unbounded();
    let service = unary(move |call, request| {
        let (early, late) = (call.token(), call.token());
        told.send((early.clone(), call.draining(), call.draining()))
            .unwrap();
        assert!(late.wait_timeout(LONG));
        Ok(request)
    });
    let plan = quick_plan().with_grace_period(Duration::from_millis(50));
    let server = builder(service).lifecycle(planned(plan)).start().unwrap();
    let client = client(&server);
    let call = std::thread::spawn(move || say(&client, "x"));
    let (token, one, other) = tokens.recv_timeout(LONG).unwrap();
    assert!(!one.is_cancelled() && !token.is_cancelled());
    server.lifecycle().shutdown("test");
    assert!(one.wait_timeout(LONG) && other.wait_timeout(LONG) && token.wait_timeout(LONG));
    server.wait();
    let _ = call.join().unwrap();
}

#[test]
fn numbers_of_statuses_that_do_not_exist_are_unknown() {
    assert_eq!(Code::from_number(17), Code::Unknown);
    let service = Service::builder("test.Codes")
        .unary("Fail", |_: &Call, code: UInt32Value| {
            Err::<StringValue, _>(Status::new(
                Code::from_number(code.value as i32),
                "as asked",
            ))
        })
        .build();
    let server = start(service);
    let client = client(&server);
    let options = || CallOptions::default().timeout(LONG);
    for (code, expected) in [
        (0, Code::Internal),
        (5, Code::NotFound),
        (17, Code::Unknown),
    ] {
        let result = client.unary::<_, StringValue>("/test.Codes/Fail", &number(code), options());
        assert_eq!(result.unwrap_err().code(), expected);
    }
}

#[test]
fn the_answer_of_a_stream_is_none_to_a_call_with_one_reply() {
    /// Keeps the answer of a stream, and gives it to the next call.
    #[derive(Default)]
    struct Mixes(Mutex<Option<Answer>>, Seen);

    impl Interceptor for Mixes {
        fn around(&self, _: &Call, next: Next<'_>) -> Result<Answer, Status> {
            if let Some(answer) = self.0.lock().unwrap().take() {
                return Ok(answer);
            }
            *self.0.lock().unwrap() = Some(next.run()?);
            Err(Status::aborted("kept"))
        }

        fn after(&self, _: &Call, status: &Status) {
            self.1.lock().unwrap().push(status.code().to_string());
        }
    }

    let seen = Seen::default();
    let service = Service::builder("test.Mixed")
        .unary("Say", |_: &Call, request: StringValue| {
            Ok::<_, Status>(request)
        })
        .server_streaming(
            "Read",
            |_: &Call, _: StringValue, _: Replies<StringValue>| Ok::<_, Status>(()),
        )
        .build()
        .interceptor(Mixes(Mutex::default(), Arc::clone(&seen)));
    let server = start(service);
    let client = client(&server);
    let mut stream = client
        .server_streaming::<_, StringValue>("/test.Mixed/Read", &text(""), CallOptions::default())
        .unwrap();
    assert_eq!(stream.next().unwrap().unwrap_err().code(), Code::Aborted);
    let error = call(&client, "/test.Mixed/Say").unwrap_err();
    assert_eq!(error.code(), Code::Internal);
    server.shutdown();
    let codes = [Code::Aborted, Code::Internal].map(|it| it.to_string());
    assert_eq!(*seen.lock().unwrap(), codes);
}
