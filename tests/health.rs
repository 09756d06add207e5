//! What the server says of its health: `grpc.health.v1`, as a client sees it.
#![cfg(feature = "client")]

mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use messages::health::health_check_response::ServingStatus as Told;
use messages::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use touchdown::client::{CallOptions, Client, Replies};
use touchdown::lifecycle::{exit_code, Lifecycle, Phase};
use touchdown::{Call, Code, Health, Interceptor, Server, Service, ServingStatus, Status};

/// Generated from proto/health.proto.
#[allow(clippy::all, dead_code, unused)]
mod messages {
    include!(concat!(env!("OUT_DIR"), "/health/mod.rs"));
}

use ServingStatus::{NotServing, Serving};

const ECHO: &str = "test.Echo";
const CHECK: &str = "/grpc.health.v1.Health/Check";
const LIST: &str = "/grpc.health.v1.Health/List";
const WATCH: &str = "/grpc.health.v1.Health/Watch";

fn request(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
        ..Default::default()
    }
}

fn told(response: HealthCheckResponse) -> Told {
    response.status.enum_value().expect("a status that exists")
}

fn options() -> CallOptions {
    CallOptions::default().timeout(LONG)
}

fn check(client: &Client, service: &str) -> Result<Told, Status> {
    client.unary(CHECK, &request(service), options()).map(told)
}

fn list(client: &Client) -> Result<Vec<(String, Told)>, Status> {
    let request = HealthListRequest::default();
    let list: HealthListResponse = client.unary(LIST, &request, options())?;
    let mut list: Vec<_> = list
        .statuses
        .into_iter()
        .map(|(service, response)| (service, told(response)))
        .collect();
    list.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(list)
}

/// What a watcher is told, as it comes. The connection is the client's.
struct Watch(Replies<HealthCheckResponse>, #[allow(dead_code)] Client);

impl Iterator for Watch {
    type Item = Result<Told, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|it| it.map(told))
    }
}

fn watch(client: &Client, service: &str) -> Watch {
    watch_with(client, service, options())
}

fn watch_with(client: &Client, service: &str, options: CallOptions) -> Watch {
    let replies = client.server_streaming(WATCH, &request(service), options);
    Watch(replies.expect("it begins"), client.clone())
}

#[test]
fn the_services_of_a_server_are_known_and_serving() {
    let server = start(echo());
    let client = client(&server);
    assert_eq!(check(&client, ""), Ok(Told::SERVING));
    assert_eq!(check(&client, ECHO), Ok(Told::SERVING));
    assert_eq!(
        check(&client, "test.Other").unwrap_err().code(),
        Code::NotFound
    );
    let all = [(String::new(), Told::SERVING), (ECHO.into(), Told::SERVING)];
    assert_eq!(list(&client).unwrap(), all);
}

#[test]
fn the_program_says_how_a_service_is_and_names_new_ones() {
    let server = start(echo());
    let client = client(&server);
    server.health().set(ECHO, NotServing);
    server.health().set("a.Sensor", Serving);
    let all = [
        (String::new(), Told::SERVING),
        ("a.Sensor".into(), Told::SERVING),
        (ECHO.into(), Told::NOT_SERVING),
    ];
    assert_eq!(list(&client).unwrap(), all);
    assert_eq!(check(&client, ECHO), Ok(Told::NOT_SERVING));
    server.health().set(ECHO, Serving);
    assert_eq!(check(&client, ECHO), Ok(Told::SERVING));
}

#[test]
fn a_list_of_more_than_a_hundred_services_is_refused() {
    let server = start(echo());
    for number in 0..98 {
        server.health().set(format!("test.Number{number}"), Serving);
    }
    assert_eq!(list(&client(&server)).unwrap().len(), 100);
    server.health().set("one.TooMany", Serving);
    let status = list(&client(&server)).unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
}

#[test]
fn health_is_answered_while_every_worker_is_blocked_and_the_backlog_is_full() {
    let (service, begun, release) = gated();
    let server = builder(service).workers(2).backlog(1).start().unwrap();
    let client = client(&server);
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let client = client.clone();
            thread::spawn(move || say(&client, "hello"))
        })
        .collect();
    begun.recv_timeout(LONG).unwrap();
    begun.recv_timeout(LONG).unwrap();
    eventually("one waits", || server.in_flight() == 3);
    let status = say(&client, "one too many").unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);

    let mut watcher = watch(&client, ECHO);
    assert_eq!(watcher.next(), Some(Ok(Told::SERVING)));
    let mut slowest = Duration::ZERO;
    for round in 0..200 {
        let (said, expected) = match round % 2 {
            0 => (NotServing, Told::NOT_SERVING),
            _ => (Serving, Told::SERVING),
        };
        server.health().set(ECHO, said);
        let start = Instant::now();
        assert_eq!(check(&client, ECHO), Ok(expected));
        slowest = slowest.max(start.elapsed());
        assert_eq!(watcher.next(), Some(Ok(expected)));
    }
    assert_eq!(list(&client).unwrap().len(), 2);
    println!("the slowest of 200 checks took {slowest:?}");
    // Nobody was let go meanwhile.
    assert_eq!(server.in_flight(), 3);
    drop(release);
    for call in calls {
        assert_eq!(call.join().unwrap().unwrap(), "hello");
    }
}

#[test]
fn a_program_that_is_starting_is_not_serving_yet() {
    let lifecycle = Lifecycle::builder().plan(quick_plan()).build().unwrap();
    let server = part(echo()).start_with(&lifecycle).unwrap();
    let client = client(&server);
    server.health().set(ECHO, Serving);
    assert_eq!(check(&client, ECHO), Ok(Told::NOT_SERVING));
    let mut watcher = watch(&client, "");
    assert_eq!(watcher.next(), Some(Ok(Told::NOT_SERVING)));
    lifecycle.ready().unwrap();
    assert_eq!(check(&client, ECHO), Ok(Told::SERVING));
    assert_eq!(watcher.next(), Some(Ok(Told::SERVING)));
}

#[test]
fn a_stop_during_start_up_ends_the_watchers() {
    let lifecycle = Lifecycle::builder().plan(quick_plan()).build().unwrap();
    let server = part(echo()).start_with(&lifecycle).unwrap();
    let mut watcher = watch(&client(&server), "");
    assert_eq!(watcher.next(), Some(Ok(Told::NOT_SERVING)));
    let health = server.health().clone();
    lifecycle.shutdown("test");
    assert_eq!(lifecycle.wait().exit_code(), exit_code::CLEAN);
    // With OK, if the connection is there for as long; nobody promises that on the way to Closing.
    let end = watcher.next();
    assert!(
        end.is_none() || matches!(&end, Some(Err(_))),
        "told {end:?}"
    );
    // Whoever holds on to the word may go on talking.
    health.set("", Serving);
}

#[test]
fn a_watcher_is_told_of_changes_and_of_nothing_else() {
    let server = start(echo());
    let client = client(&server);
    let mut watcher = watch(&client, ECHO);
    let mut whole = watch(&client, "");
    assert_eq!(watcher.next(), Some(Ok(Told::SERVING)));
    assert_eq!(whole.next(), Some(Ok(Told::SERVING)));
    for _ in 0..3 {
        // No news, and news for somebody else.
        server.health().set(ECHO, Serving);
        server.health().set("test.Other", NotServing);
        server.health().set(ECHO, NotServing);
        assert_eq!(watcher.next(), Some(Ok(Told::NOT_SERVING)));
        server.health().set(ECHO, NotServing);
        server.health().set(ECHO, Serving);
        assert_eq!(watcher.next(), Some(Ok(Told::SERVING)));
    }
    server.lifecycle().shutdown("test");
    assert_eq!(whole.next(), Some(Ok(Told::NOT_SERVING)));
    assert_eq!(whole.next(), None);
}

#[test]
fn a_service_that_is_unknown_is_watched_until_it_is_known() {
    let server = start(echo());
    let mut watcher = watch(&client(&server), "a.Sensor");
    assert_eq!(watcher.next(), Some(Ok(Told::SERVICE_UNKNOWN)));
    server.health().set("a.Sensor", NotServing);
    assert_eq!(watcher.next(), Some(Ok(Told::NOT_SERVING)));
    server.health().set("a.Sensor", Serving);
    assert_eq!(watcher.next(), Some(Ok(Told::SERVING)));
}

#[test]
fn from_the_first_moment_of_a_stop_nothing_is_serving_any_more() {
    let server = builder(echo())
        .lifecycle(planned(quick_plan().with_lame_duck(LONG)))
        .start()
        .unwrap();
    let client = client(&server);
    let mut watcher = watch(&client, ECHO);
    let mut unknown = watch(&client, "test.Other");
    assert_eq!(watcher.next(), Some(Ok(Told::SERVING)));
    assert_eq!(unknown.next(), Some(Ok(Told::SERVICE_UNKNOWN)));

    server.lifecycle().shutdown("test");
    assert_eq!(check(&client, ""), Ok(Told::NOT_SERVING));
    assert_eq!(check(&client, ECHO), Ok(Told::NOT_SERVING));
    assert_eq!(watcher.next(), Some(Ok(Told::NOT_SERVING)));
    // Nothing that is said from now on makes a difference.
    server.health().set(ECHO, Serving);
    server.health().set("", Serving);
    server.health().set("test.Other", Serving);
    assert_eq!(check(&client, ECHO), Ok(Told::NOT_SERVING));
    assert_eq!(watch(&client, "").next(), Some(Ok(Told::NOT_SERVING)));
    assert_eq!(unknown.next(), Some(Ok(Told::NOT_SERVING)));
    // It serves all the same.
    assert_eq!(say(&client, "hello").unwrap(), "hello");
    eventually("it has landed", || server.in_flight() == 0);
    assert_eq!(server.lifecycle().phase(), Phase::LameDuck);

    server.lifecycle().hurry();
    assert_eq!(watcher.next(), None, "an end with OK, and nothing before");
    assert_eq!(unknown.next(), None);
    let report = server.wait();
    assert_eq!(report.calls.completed, 1, "{report}");
}

#[test]
fn watchers_are_told_and_let_go_by_a_drain_that_does_not_wait_for_them() {
    for _ in 0..20 {
        // A drain that waited for one would take as long, and say so.
        let plan = quick_plan().with_grace_period(LONG);
        let server = builder(echo())
            .workers(1)
            .lifecycle(planned(plan))
            .start()
            .unwrap();
        let client = client(&server);
        let mut watchers: Vec<_> = (0..20).map(|_| watch(&client, ECHO)).collect();
        for watcher in &mut watchers {
            assert_eq!(watcher.next(), Some(Ok(Told::SERVING)));
        }
        assert_eq!(
            say(&client, "a worker is free").unwrap(),
            "a worker is free"
        );
        eventually("nothing is in flight", || server.in_flight() == 0);
        let stop = thread::spawn(move || server.shutdown());
        for watcher in &mut watchers {
            assert_eq!(watcher.next(), Some(Ok(Told::NOT_SERVING)));
            assert_eq!(watcher.next(), None);
        }
        let report = stop.join().unwrap();
        assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
        assert_eq!(report.calls.completed, 1, "{report}");
        assert!(report.abandoned.is_empty(), "{report}");
    }
}

#[test]
fn a_drain_answers_who_asks_on_an_open_connection() {
    let (service, begun, release) = gated();
    let server = start(service);
    let client = client(&server);
    let call = thread::spawn({
        let client = client.clone();
        move || say(&client, "hello")
    });
    begun.recv_timeout(LONG).unwrap();
    // On the wire before the client is told to go, or never begun: nothing else.
    let asking = thread::spawn({
        let client = client.clone();
        let lifecycle = server.lifecycle().clone();
        move || {
            let mut answers = Vec::new();
            while !lifecycle.draining().is_cancelled() {
                answers.push(check(&client, ""));
            }
            answers
        }
    });
    server.lifecycle().shutdown("test");
    server.lifecycle().draining().wait();
    let answers = asking.join().unwrap();
    let first = answers.iter().position(|it| *it == Ok(Told::NOT_SERVING));
    let after = &answers[first.unwrap_or(answers.len())..];
    assert!(
        after.iter().all(|it| *it != Ok(Told::SERVING)),
        "{answers:?}"
    );
    drop(release);
    assert_eq!(call.join().unwrap().unwrap(), "hello");
    assert_eq!(server.wait().exit_code(), exit_code::CLEAN);
}

#[test]
fn one_word_holds_for_all_servers_that_were_given_it() {
    let health = Health::new();
    health.set(ECHO, NotServing);
    let begin = || builder(echo()).health(health.clone()).start().unwrap();
    let (first, second) = (begin(), begin());
    let clients = [client(&first), client(&second)];
    for client in &clients {
        assert_eq!(check(client, ECHO), Ok(Told::NOT_SERVING));
    }
    health.set(ECHO, Serving);
    for client in &clients {
        assert_eq!(check(client, ECHO), Ok(Told::SERVING));
    }
    // Each has a lifecycle of its own.
    drop(first);
    assert_eq!(check(&clients[1], ECHO), Ok(Told::SERVING));
    second.health().set("", NotServing);
    assert_eq!(check(&clients[1], ""), Ok(Told::NOT_SERVING));
}

struct Locked(Arc<AtomicUsize>);

impl Interceptor for Locked {
    fn before(&self, _: &Call) -> Result<(), Status> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Err(Status::unauthenticated("a bearer token is needed"))
    }
}

#[test]
fn probes_need_no_token() {
    let asked = Arc::new(AtomicUsize::new(0));
    let interceptor = Locked(Arc::clone(&asked));
    let server = builder(echo()).interceptor(interceptor).start().unwrap();
    let client = client(&server);
    assert_eq!(check(&client, ECHO), Ok(Told::SERVING));
    assert_eq!(watch(&client, ECHO).next(), Some(Ok(Told::SERVING)));
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    let status = say(&client, "hello").unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[test]
fn a_health_service_of_the_programs_own_replaces_the_one_built_in() {
    let answer = |_: &Call, request: HealthCheckRequest| match request.service.as_str() {
        "mine" => Ok(HealthCheckResponse {
            status: Told::NOT_SERVING.into(),
            ..Default::default()
        }),
        _ => Err(Status::permission_denied("not yours")),
    };
    let own = Service::builder("grpc.health.v1.Health").unary("Check", answer);
    let asked = Arc::new(AtomicUsize::new(0));
    struct Counting(Arc<AtomicUsize>);
    impl Interceptor for Counting {
        fn before(&self, _: &Call) -> Result<(), Status> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    }
    let server = builder(echo())
        .service(own.build())
        .interceptor(Counting(Arc::clone(&asked)))
        .start()
        .unwrap();
    let client = client(&server);
    assert_eq!(check(&client, "mine"), Ok(Told::NOT_SERVING));
    let status = check(&client, "").unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(list(&client).unwrap_err().code(), Code::Unimplemented);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    eventually("they are counted like any other", || {
        server.calls().completed == 2
    });
}

/// Two threads say one thing and its opposite, until told to end.
fn contradict(health: &Health, end: &Arc<AtomicBool>) -> Vec<thread::JoinHandle<()>> {
    let speakers = [Serving, NotServing].map(|status| {
        let (health, end) = (health.clone(), Arc::clone(end));
        thread::spawn(move || {
            while !end.load(Ordering::SeqCst) {
                health.set(ECHO, status);
            }
        })
    });
    speakers.into()
}

/// What a watcher was told, in a thread of its own. No state comes twice in a row.
fn listen(watcher: Watch, latest: &Arc<Mutex<Option<Told>>>) -> thread::JoinHandle<()> {
    let latest = Arc::clone(latest);
    thread::spawn(move || {
        for told in watcher {
            let told = told.expect("it ends with OK");
            let before = latest.lock().unwrap().replace(told);
            assert_ne!(before, Some(told));
        }
    })
}

#[test]
fn no_state_overtakes_a_newer_one() {
    let server = start(echo());
    let client = client(&server);
    let latest: Vec<_> = (0..4).map(|_| Arc::default()).collect();
    let listeners: Vec<_> = latest
        .iter()
        .map(|it| listen(watch(&client, ECHO), it))
        .collect();
    let all_were_told = |state| {
        eventually("watchers are told what holds", || {
            latest.iter().all(|it| *it.lock().unwrap() == Some(state))
        });
    };
    for round in 0..100 {
        let end = Arc::default();
        let speakers = contradict(server.health(), &end);
        thread::sleep(Duration::from_micros(20 * round));
        end.store(true, Ordering::SeqCst);
        speakers.into_iter().for_each(|it| it.join().unwrap());
        let (state, opposite) = match check(&client, ECHO).unwrap() {
            Told::SERVING => (Told::SERVING, (NotServing, Told::NOT_SERVING)),
            _ => (Told::NOT_SERVING, (Serving, Told::SERVING)),
        };
        all_were_told(state);
        server.health().set(ECHO, opposite.0);
        all_were_told(opposite.1);
    }
    server.shutdown();
    listeners.into_iter().for_each(|it| it.join().unwrap());
    all_were_told(Told::NOT_SERVING);
}

#[test]
fn not_serving_is_final_whoever_contradicts() {
    for _ in 0..30 {
        let server = start(echo());
        let client = client(&server);
        let latest: Vec<_> = (0..4).map(|_| Arc::default()).collect();
        let mut listeners = Vec::new();
        for latest in &latest {
            listeners.push(listen(watch(&client, ECHO), latest));
            eventually("it is told", || latest.lock().unwrap().is_some());
        }
        let end = Arc::default();
        let speakers = contradict(server.health(), &end);
        server.lifecycle().shutdown("test");
        // Whatever is said, whoever asks.
        let answers: Vec<_> = (0..10).map(|_| check(&client, ECHO)).collect();
        let is_serving = |it: &Result<Told, Status>| *it == Ok(Told::SERVING);
        assert!(!answers.iter().any(is_serving), "{answers:?}");
        assert_eq!(server.wait().exit_code(), exit_code::CLEAN);
        end.store(true, Ordering::SeqCst);
        speakers.into_iter().for_each(|it| it.join().unwrap());
        listeners.into_iter().for_each(|it| it.join().unwrap());
        for latest in &latest {
            assert_eq!(*latest.lock().unwrap(), Some(Told::NOT_SERVING));
        }
    }
}

#[test]
fn one_connection_cannot_keep_others_from_watching() {
    let server = builder(echo()).max_connections(3).start().unwrap();
    let (greedy, modest) = (client(&server), client(&server));
    // Two for each of three connections are kept; if there is one more, a newest has to go.
    let mut hoard: Vec<_> = (0..6).map(|_| watch(&greedy, "")).collect();
    for kept in &mut hoard {
        assert_eq!(kept.next(), Some(Ok(Told::SERVING)));
    }
    let is_too_many = |it: Option<Result<Told, Status>>| {
        let status = it.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
    };
    (0..50).for_each(|_| is_too_many(watch(&greedy, "").next()));
    let mut watchers = [watch(&modest, ""), watch(&modest, "")];
    for watcher in &mut watchers {
        assert_eq!(watcher.next(), Some(Ok(Told::SERVING)));
    }
    // Some of those that came first are in an order that only the server knows.
    server.health().set("", NotServing);
    let told: Vec<_> = hoard.iter_mut().map(|it| it.next().unwrap()).collect();
    let kept = told.iter().filter(|it| **it == Ok(Told::NOT_SERVING));
    assert_eq!(kept.count(), 4, "{told:?}");
    for watcher in &mut watchers {
        assert_eq!(watcher.next(), Some(Ok(Told::NOT_SERVING)));
    }
    assert_eq!(server.shutdown().exit_code(), exit_code::CLEAN);
}

#[test]
fn watchers_who_leave_are_forgotten() {
    let server = builder(echo()).max_connections(1).start().unwrap();
    let client = client(&server);
    // Two are kept, so those who left would be in the way of the next.
    for _ in 0..20 {
        eventually("there is room for two", || {
            let mut two = [watch(&client, ""), watch(&client, "")];
            let mut told = || two.each_mut().map(|it| it.next());
            let before = told();
            server.health().set("", NotServing);
            let after = told();
            server.health().set("", Serving);
            let both = |told: [_; 2], state| told.into_iter().all(|it| it == Some(Ok(state)));
            both(before, Told::SERVING) && both(after, Told::NOT_SERVING)
        });
    }
}

#[test]
fn a_watcher_may_have_a_deadline() {
    let server = builder(echo()).max_connections(1).start().unwrap();
    let client = client(&server);
    for _ in 0..10 {
        let options = CallOptions::default().timeout(Duration::from_millis(20));
        let last = watch_with(&client, "", options).last().unwrap();
        assert_eq!(last.unwrap_err().code(), Code::DeadlineExceeded);
    }
    assert_eq!(server.shutdown().exit_code(), exit_code::CLEAN);
}

#[test]
fn a_deadline_is_the_last_that_a_watcher_hears() {
    let server = builder(echo()).max_connections(1).start().unwrap();
    let client = client(&server);
    for _ in 0..3 {
        let options = CallOptions::default().timeout(Duration::from_millis(200));
        let mut watcher = watch_with(&client, "", options);
        let before = watcher.next().unwrap();
        server.health().set("", NotServing);
        // What arrives meanwhile, nobody takes, and then it is over.
        thread::sleep(Duration::from_millis(400));
        let told: Vec<_> = [before].into_iter().chain(watcher).collect();
        let ended = told.iter().position(|it| it.is_err());
        assert_eq!(ended, Some(told.len() - 1), "{told:?}");
        server.health().set("", Serving);
    }
    assert_eq!(server.shutdown().exit_code(), exit_code::CLEAN);
}

#[test]
fn a_request_that_is_too_long_is_refused() {
    let server = start(echo());
    let client = client(&server);
    let longest = "x".repeat(4000);
    assert_eq!(check(&client, &longest).unwrap_err().code(), Code::NotFound);
    assert_eq!(
        watch(&client, &longest).next(),
        Some(Ok(Told::SERVICE_UNKNOWN))
    );
    let too_long = "x".repeat(5000);
    let status = check(&client, &too_long).unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let status = watch(&client, &too_long).next().unwrap().unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
}

/// Its engine is gone, whatever has been said and whoever still talks.
#[test]
fn the_word_outlives_its_servers() {
    let health = Health::new();
    for _ in 0..20 {
        let server: Server = builder(echo()).health(health.clone()).start().unwrap();
        let watcher = watch(&client(&server), ECHO);
        let end = Arc::default();
        let speakers = contradict(&health, &end);
        assert_eq!(server.shutdown().exit_code(), exit_code::CLEAN);
        end.store(true, Ordering::SeqCst);
        speakers.into_iter().for_each(|it| it.join().unwrap());
        drop(watcher);
    }
}
