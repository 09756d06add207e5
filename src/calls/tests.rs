//! Calls of all kinds over a [transport in memory](super::memory_transport), with real threads, the real roster, and no
//! clock that decides anything.

mod shares;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, unbounded, Receiver, Sender};

use super::call::{Call, Ending, Handled, Landed, Received, SendError, Wait};
use super::drain::Times;
use super::leaving::Lasting;
use super::memory_transport::{Client, MemoryTransport, Sent, LONG};
use super::message::Message;
use super::method::{IdleTimes, Limit, Method};
use super::outgoing::Outgoing;
use super::runner::Config;
use super::transport::View;
use super::{Host, Runner};

const OK: i32 = 0;
const CANCELLED: i32 = 1;
const DEADLINE_EXCEEDED: i32 = 4;
const RESOURCE_EXHAUSTED: i32 = 8;
const UNIMPLEMENTED: i32 = 12;
const UNAVAILABLE: i32 = 14;

const PROMPT_CALLS: usize = 3;

type Handler = Box<dyn Fn(&Arc<Call>, Option<Message>) + Send + Sync>;

type Step = Box<dyn Fn(&Arc<Call>) + Send + Sync>;

/// Runs a handler for each method, and notes what it is told.
struct TestHost {
    handlers: Vec<Handler>,
    step: Option<Step>,
    arrived: AtomicUsize,
    landed_count: AtomicUsize,
    refused: AtomicUsize,
    landed: (Sender<Landed>, Receiver<Landed>),
    sent: (Sender<()>, Receiver<()>),
    drained: (Sender<()>, Receiver<()>),
    connections_cut: AtomicU64,
    answers_cut: AtomicU64,
}

impl Host for TestHost {
    fn arrived(&self) {
        self.arrived.fetch_add(1, Ordering::SeqCst);
    }

    fn run(&self, call: &Arc<Call>, message: Option<Message>) {
        let method = call.method().expect("a method that is known");
        self.handlers[method as usize](call, message);
    }

    fn step(&self, call: &Arc<Call>) {
        self.step.as_ref().expect("no call goes on in steps")(call);
    }

    fn refused(&self, _: &Arc<Call>) {
        self.refused.fetch_add(1, Ordering::SeqCst);
    }

    fn landed(&self, _: &Arc<Call>, landed: Landed) {
        self.landed_count.fetch_add(1, Ordering::SeqCst);
        self.landed.0.send(landed).unwrap();
    }

    fn in_flight(&self) -> usize {
        let landed = self.landed_count.load(Ordering::SeqCst);
        self.arrived.load(Ordering::SeqCst) - landed
    }

    fn sent(&self, _: &Arc<Call>) {
        self.sent.0.send(()).unwrap();
    }

    fn clients_know(&self) {}

    fn cut(&self, connections: u64, answers: u64) {
        self.connections_cut
            .fetch_add(connections, Ordering::SeqCst);
        self.answers_cut.fetch_add(answers, Ordering::SeqCst);
    }

    fn drained(&self) {
        self.drained.0.send(()).unwrap();
    }
}

/// What a server is made of.
#[derive(Default)]
struct Setup {
    methods: Vec<Method>,
    handlers: Vec<Handler>,
    step: Option<Step>,
    workers: usize,
    stream_threads: usize,
    stall: Duration,
    backlog: usize,
}

impl Setup {
    fn new(workers: usize, backlog: usize) -> Setup {
        Setup {
            workers,
            stream_threads: 100,
            stall: LONG,
            backlog,
            ..Setup::default()
        }
    }

    fn method(
        mut self,
        path: &str,
        streams: (bool, bool),
        handler: impl Fn(&Arc<Call>, Option<Message>) + Send + Sync + 'static,
    ) -> Setup {
        let (request, response) = streams;
        let method = Method::new(path.to_owned(), request, response, Duration::ZERO);
        self.methods.push(method);
        self.handlers.push(Box::new(handler));
        self
    }

    fn unary(
        self,
        path: &str,
        handler: impl Fn(&Arc<Call>, Vec<u8>) + Send + Sync + 'static,
    ) -> Setup {
        self.method(path, (false, false), move |call, message| {
            handler(call, bytes_of(&message.expect("a request")));
        })
    }

    /// What is done in each step of calls that go on so.
    fn step(mut self, step: impl Fn(&Arc<Call>) + Send + Sync + 'static) -> Setup {
        self.step = Some(Box::new(step));
        self
    }

    fn start(self) -> Server {
        let transport = MemoryTransport::new(&self.methods);
        let host = Arc::new(TestHost {
            handlers: self.handlers,
            step: self.step,
            arrived: AtomicUsize::new(0),
            landed_count: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            landed: unbounded(),
            sent: unbounded(),
            drained: unbounded(),
            connections_cut: AtomicU64::new(0),
            answers_cut: AtomicU64::new(0),
        });
        let config = Config {
            methods: self.methods,
            listeners: Vec::new(),
            accepting: true,
            workers: self.workers,
            stack_size: None,
            stream_threads: self.stream_threads,
            stall: self.stall,
            backlog: self.backlog,
            backlog_bytes: 1 << 20,
            prompt_calls: PROMPT_CALLS,
            connections: 10,
            unanswered: LONG,
            handshake: LONG,
            handshakes: 64,
            open_calls: 1000,
            progress: LONG,
            lasting: Lasting::default(),
            lasting_public: Lasting::default(),
        };
        let runner =
            Runner::start(Arc::new(transport.clone()), config, Arc::clone(&host) as _).unwrap();
        let client = transport.connect(runner.shared());
        Server {
            transport,
            host,
            runner,
            client,
        }
    }
}

/// A server with one client. Dropped, it stops, and all its threads end.
struct Server {
    transport: MemoryTransport,
    host: Arc<TestHost>,
    runner: Runner,
    client: Client,
}

impl Server {
    fn landed(&self) -> Landed {
        self.host.landed.1.recv_timeout(LONG).expect("a call lands")
    }

    /// Drains with a grace period that no test waits for.
    fn drain(&self, limits: impl IntoIterator<Item = Limit>) {
        let times = Times {
            grace_period: LONG,
            peer_silence: LONG,
        };
        self.runner.drain(limits, times);
    }

    fn has_drained(&self) -> bool {
        self.host.drained.1.try_recv().is_ok()
    }

    /// The threads that poll have seen everything that was there before.
    fn settle(&self) {
        let (done, is_done) = bounded(1);
        self.runner.check(move || done.send(()).unwrap());
        is_done.recv_timeout(LONG).expect("somebody polls");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stopped = self.runner.stop(Instant::now() + LONG);
        if !std::thread::panicking() {
            assert!(stopped, "a thread has not ended");
        }
    }
}

fn bytes_of(message: &Message) -> Vec<u8> {
    message.look().whole.expect("one piece").to_vec()
}

fn outgoing(bytes: &[u8]) -> Outgoing {
    let write = |buffer: &mut Vec<u8>| {
        buffer.extend_from_slice(bytes);
        Ok::<_, ()>(())
    };
    Outgoing::write(write).unwrap()
}

fn reply(call: &Arc<Call>, bytes: &[u8]) -> bool {
    call.finish(Some(outgoing(bytes)), ok(), Handled::Yes)
}

fn ok() -> Ending<'static> {
    Ending::new(OK, "")
}

fn echo(call: &Arc<Call>, request: Vec<u8>) {
    reply(call, &request);
}

fn status(code: i32, text: &str) -> Sent {
    Sent::Status {
        code,
        text: text.to_owned(),
        trailers: Vec::new(),
    }
}

fn headers() -> Sent {
    Sent::Headers(Vec::new())
}

fn message(bytes: &[u8]) -> Sent {
    Sent::Message(bytes.to_vec())
}

fn unlimited() -> Limit {
    Limit {
        at: None,
        cut: false,
        idle: None,
    }
}

type Gate = Box<dyn Fn(&Arc<Call>, Vec<u8>) + Send + Sync>;

/// A handler that says that it runs, and then waits for a word to go on.
fn gate() -> (Gate, Receiver<Arc<Call>>, Sender<()>) {
    let (runs, is_running) = unbounded();
    let (go, gone) = unbounded();
    let handler = move |call: &Arc<Call>, request| {
        runs.send(Arc::clone(call)).unwrap();
        gone.recv_timeout(LONG).expect("the test lets it go on");
        echo(call, request);
    };
    (Box::new(handler), is_running, go)
}

#[test]
fn a_unary_call_gets_headers_a_message_and_a_status() {
    let server = Setup::new(1, 1).unary("/t/Echo", echo).start();
    let line = server.client.call("/t/Echo", &[b"hello"]);
    assert_eq!(line.sent(), [headers(), message(b"hello"), status(OK, "")]);
    assert_eq!(server.landed(), Landed::Completed);
}

#[test]
fn a_handler_sees_the_metadata_and_the_peer_and_sends_metadata_of_its_own() {
    let server = Setup::new(1, 1)
        .unary("/t/Meta", |call, _| {
            let of_request: Vec<_> = call.metadata().collect();
            assert_eq!(of_request, [(&b"a"[..], &b"1"[..]), (b"b", b"2")]);
            assert_eq!(call.peer(), "ipv4:192.0.2.1:4711");
            assert!(call.connection_info().is_some());
            assert!(call.add_header("h".to_owned(), b"3".to_vec()));
            assert!(call.add_trailer("t".to_owned(), b"4".to_vec()));
            reply(call, b"");
            assert!(!call.add_trailer("late".to_owned(), b"5".to_vec()));
        })
        .start();
    let pairs: [(&str, &[u8]); 2] = [("a", b"1"), ("b", b"2")];
    let line = server.client.call_with("/t/Meta", &[b""], &pairs, None);
    let pair = |name: &str, value: &[u8]| vec![(name.to_owned(), value.to_vec())];
    let expected = [
        Sent::Headers(pair("h", b"3")),
        message(b""),
        Sent::Status {
            code: OK,
            text: String::new(),
            trailers: pair("t", b"4"),
        },
    ];
    assert_eq!(line.sent(), expected);
}

#[test]
fn a_stream_of_replies_goes_at_the_callers_pace() {
    let (result, results) = unbounded();
    let (go, gone) = unbounded::<()>();
    let server = Setup::new(1, 1)
        .method("/t/Count", (false, true), move |call, _| {
            result
                .send(call.send(outgoing(b"1"), Wait::Forever))
                .unwrap();
            gone.recv_timeout(LONG).unwrap();
            // The caller takes nothing now.
            result.send(call.send(outgoing(b"2"), Wait::Never)).unwrap();
            result.send(call.send(outgoing(b"3"), Wait::Never)).unwrap();
            result
                .send(call.send(outgoing(b"3"), Wait::Forever))
                .unwrap();
            call.finish(None, ok(), Handled::Yes);
        })
        .start();
    let line = server.client.call("/t/Count", &[b""]);
    let next = || results.recv_timeout(LONG).unwrap();
    assert_eq!(next(), Ok(()));
    line.take(false);
    go.send(()).unwrap();
    assert_eq!((next(), next()), (Ok(()), Err(SendError::Full)));
    line.take(true);
    assert_eq!(next(), Ok(()));
    let expected = [
        headers(),
        message(b"1"),
        message(b"2"),
        message(b"3"),
        status(OK, ""),
    ];
    assert_eq!(line.sent(), expected);
    assert_eq!(server.landed(), Landed::Completed);
}

#[test]
fn a_stream_of_requests_is_received_to_its_end() {
    let server = Setup::new(1, 1)
        .method("/t/Sum", (true, false), |call, first| {
            assert!(first.is_none());
            let mut all = Vec::new();
            loop {
                match call.receive(Wait::Forever) {
                    Received::Message(message) => all.extend(bytes_of(&message)),
                    Received::End => break,
                    Received::Ended | Received::TimedOut => panic!("it broke off"),
                }
            }
            reply(call, &all);
        })
        .start();
    let line = server.client.call("/t/Sum", &[b"a", b"b"]);
    server.settle();
    line.send(b"c");
    line.say_all();
    assert_eq!(line.sent(), [headers(), message(b"abc"), status(OK, "")]);
}

fn echo_stream(call: &Arc<Call>, _: Option<Message>) {
    while let Received::Message(message) = call.receive(Wait::Forever) {
        let sent = call.send(outgoing(&bytes_of(&message)), Wait::Forever);
        if sent.is_err() {
            break;
        }
    }
    call.finish(None, ok(), Handled::Yes);
}

#[test]
fn both_sides_of_a_stream_take_turns() {
    let server = Setup::new(1, 1)
        .method("/t/Chat", (true, true), echo_stream)
        .start();
    let line = server.client.call("/t/Chat", &[]);
    for (turn, word) in [&b"one"[..], b"two", b"three"].into_iter().enumerate() {
        line.send(word);
        let sent = line.sent_when(|sent| sent.len() == turn + 2);
        assert_eq!(sent.last(), Some(&message(word)));
    }
    line.say_all();
    assert_eq!(line.status(), (OK, String::new()));
    assert_eq!(server.landed(), Landed::Completed);
}

#[test]
fn what_no_method_takes_is_refused_by_name_and_what_has_no_message_too() {
    let server = Setup::new(1, 1)
        .unary("/t/Echo", |_, _| panic!("it must not run"))
        .start();
    let unknown = server.client.call("/t/Nothing", &[b""]);
    let text = "/t/Nothing is not implemented here".to_owned();
    assert_eq!(unknown.status(), (UNIMPLEMENTED, text));
    let empty = server.client.call("/t/Echo", &[]);
    assert_eq!(empty.status().0, UNIMPLEMENTED);
    assert_eq!([server.landed(), server.landed()], [Landed::Refused; 2]);
    assert_eq!(server.host.refused.load(Ordering::SeqCst), 2);
}

#[test]
fn what_finds_no_worker_waits_and_what_finds_no_room_is_refused() {
    let (handler, runs, go) = gate();
    let server = Setup::new(1, 1).unary("/t/Gate", handler).start();
    let first = server.client.call("/t/Gate", &[b"1"]);
    runs.recv_timeout(LONG).unwrap();
    let second = server.client.call("/t/Gate", &[b"2"]);
    let third = server.client.call("/t/Gate", &[b"3"]);
    let text = "all workers are busy and the backlog is full".to_owned();
    assert_eq!(third.status(), (RESOURCE_EXHAUSTED, text));
    assert_eq!(server.runner.load().waiting, 1);
    assert!(second.has_got_nothing());
    go.send(()).unwrap();
    go.send(()).unwrap();
    assert_eq!(second.sent(), [headers(), message(b"2"), status(OK, "")]);
    assert_eq!(first.status().0, OK);
}

#[test]
fn two_workers_run_two_calls_at_a_time() {
    let (handler, runs, go) = gate();
    let server = Setup::new(2, 0).unary("/t/Gate", handler).start();
    let lines = [b"1", b"2"].map(|it| server.client.call("/t/Gate", &[it]));
    for _ in &lines {
        runs.recv_timeout(LONG).expect("both run");
    }
    for _ in &lines {
        go.send(()).unwrap();
    }
    assert_eq!(lines.map(|it| it.status().0), [OK, OK]);
}

#[test]
fn a_call_whose_deadline_passes_in_the_backlog_is_not_run() {
    let (handler, runs, go) = gate();
    let server = Setup::new(1, 1).unary("/t/Gate", handler).start();
    let first = server.client.call("/t/Gate", &[b"1"]);
    runs.recv_timeout(LONG).unwrap();
    let second = server.client.call_with("/t/Gate", &[b"2"], &[], Some(LONG));
    server.settle();
    second.has_left_of_its_time(Duration::ZERO);
    go.send(()).unwrap();
    let text = "the deadline passed while the call waited for a worker".to_owned();
    assert_eq!(second.status(), (DEADLINE_EXCEEDED, text));
    assert!(runs.try_recv().is_err());
    assert_eq!(first.status().0, OK);
}

#[test]
fn a_call_with_less_time_than_its_method_takes_is_not_begun() {
    let mut setup = Setup::new(1, 1).unary("/t/Long", echo);
    setup.methods[0] = Method::new("/t/Long".to_owned(), false, false, LONG);
    let server = setup.start();
    let time = Some(LONG - Duration::from_millis(1));
    let short = server.client.call_with("/t/Long", &[b""], &[], time);
    assert_eq!(short.status().0, DEADLINE_EXCEEDED);
    let enough = server.client.call_with("/t/Long", &[b""], &[], Some(LONG));
    assert_eq!(enough.status().0, OK);
}

#[test]
fn a_handler_hears_that_its_caller_has_left() {
    let (told, is_told) = bounded(1);
    let (ready, is_ready) = bounded(1);
    let (go, gone) = bounded::<()>(1);
    let server = Setup::new(1, 1)
        .unary("/t/Wait", move |call, _| {
            let told = told.clone();
            call.on_cancel(move || told.send(()).unwrap());
            ready.send(()).unwrap();
            gone.recv_timeout(LONG).unwrap();
            assert!(call.caller_left());
            reply(call, b"");
        })
        .start();
    let line = server.client.call("/t/Wait", &[b""]);
    is_ready.recv_timeout(LONG).unwrap();
    assert!(is_told.try_recv().is_err());
    line.leave();
    is_told.recv_timeout(LONG).expect("it is told");
    go.send(()).unwrap();
    assert_eq!(server.landed(), Landed::CallerLeft);
}

#[test]
fn a_handler_that_waits_for_a_request_hears_that_its_deadline_has_passed() {
    let (ended, has_ended) = bounded(1);
    let server = Setup::new(1, 1)
        .method("/t/Sum", (true, false), move |call, _| {
            let received = call.receive(Wait::Forever);
            ended.send(matches!(received, Received::Ended)).unwrap();
            call.finish(None, Ending::new(DEADLINE_EXCEEDED, "late"), Handled::Yes);
        })
        .start();
    // The timer decides: what the wire says of the time does not change.
    let time = Some(Duration::from_millis(1));
    let line = server.client.call_with("/t/Sum", &[], &[], time);
    assert_eq!(has_ended.recv_timeout(LONG), Ok(true));
    assert_eq!(line.status(), (DEADLINE_EXCEEDED, "late".to_owned()));
}

#[test]
fn a_handler_waits_for_a_request_and_for_something_else_in_one_place() {
    let (heard, hears) = unbounded();
    let (others, other) = unbounded::<Receiver<()>>();
    let server = Setup::new(1, 1)
        .method("/t/Chat", (true, true), move |call, _| {
            for other in other.iter() {
                let what = match call.receive_or(&[&other]) {
                    Ok(Received::Message(message)) => format!("{:?}", bytes_of(&message)),
                    Ok(Received::End) => "the end".to_owned(),
                    Ok(Received::Ended) => "it is over".to_owned(),
                    Ok(Received::TimedOut) => "nothing".to_owned(),
                    Err(index) => format!("the other {index}"),
                };
                heard.send(what).unwrap();
            }
            call.finish(None, ok(), Handled::Yes);
        })
        .start();
    let line = server.client.call("/t/Chat", &[]);
    let wait_for = |receiver: &Receiver<()>| others.send(receiver.clone()).unwrap();
    let hears = || hears.recv_timeout(LONG).unwrap();
    let (never, is_never) = bounded::<()>(0);
    wait_for(&is_never);
    line.send(b"a");
    assert_eq!(hears(), "[97]");
    let (once, is_once) = bounded::<()>(0);
    wait_for(&is_once);
    drop(once);
    assert_eq!(hears(), "the other 0");
    line.send(b"b");
    // It comes first, and what has come stays.
    wait_for(&is_once);
    assert_eq!(hears(), "the other 0");
    wait_for(&is_never);
    assert_eq!(hears(), "[98]");
    line.say_all();
    wait_for(&is_never);
    assert_eq!(hears(), "the end");
    drop((others, never));
    assert_eq!(line.status().0, OK);
}

#[test]
fn a_drain_says_goaway_and_waits_for_the_last_call_and_the_last_connection() {
    let (handler, runs, go) = gate();
    let server = Setup::new(1, 1).unary("/t/Gate", handler).start();
    let (told, is_told) = bounded(1);
    let first = server.client.call("/t/Gate", &[b"1"]);
    let call = runs.recv_timeout(LONG).unwrap();
    call.on_drain(move || told.send(()).unwrap());
    server.client.shows(View {
        calls: 1,
        open: 1,
        ..View::default()
    });
    server.drain([unlimited()]);
    is_told.recv_timeout(LONG).expect("the handler is told");
    // It was on the wire.
    let second = server.client.call("/t/Gate", &[b"2"]);
    go.send(()).unwrap();
    go.send(()).unwrap();
    assert_eq!([first.status().0, second.status().0], [OK, OK]);
    assert_eq!([server.landed(), server.landed()], [Landed::Completed; 2]);
    assert!(!server.has_drained(), "a connection is open");
    server.client.close();
    server.host.drained.1.recv_timeout(LONG).expect("drained");
    assert_eq!(server.transport.goaways(), 1);
    assert_eq!(server.host.connections_cut.load(Ordering::SeqCst), 0);
}

#[test]
fn a_policy_cuts_what_runs_and_refuses_what_waits_and_leaves_the_rest() {
    let (handler, runs, go) = gate();
    let (other, other_runs, other_go) = gate();
    let server = Setup::new(2, 2)
        .unary("/t/Cut", handler)
        .unary("/t/Finish", other)
        .start();
    let cut = server.client.call("/t/Cut", &[b"1"]);
    let call = runs.recv_timeout(LONG).unwrap();
    let finishes = server.client.call("/t/Finish", &[b"2"]);
    other_runs.recv_timeout(LONG).unwrap();
    let waits = server.client.call("/t/Cut", &[b"3"]);
    server.settle();
    let (told, is_told) = bounded(1);
    call.on_cancel(move || told.send(()).unwrap());
    let now = Limit {
        at: Some(Instant::now()),
        cut: true,
        idle: None,
    };
    server.drain([now, unlimited()]);
    is_told.recv_timeout(LONG).expect("the handler is told");
    for line in [&cut, &waits] {
        let text = "the server is shutting down".to_owned();
        assert_eq!(line.status(), (UNAVAILABLE, text));
        assert!(line.pushback().is_some_and(|it| it > 0), "retry elsewhere");
    }
    assert!(finishes.has_got_nothing());
    let late = server.client.call("/t/Cut", &[b"4"]);
    assert_eq!(late.status().0, UNAVAILABLE);
    go.send(()).unwrap();
    other_go.send(()).unwrap();
    assert_eq!(finishes.status().0, OK);
    let mut landed = [(); 4].map(|()| server.landed());
    landed.sort_by_key(|it| format!("{it:?}"));
    let expected = [
        Landed::Completed,
        Landed::Cut,
        Landed::Refused,
        Landed::Refused,
    ];
    assert_eq!(landed, expected);
}

#[test]
fn an_idle_stream_is_told_to_stop_once_its_client_has_answered_goaway() {
    let (waits, is_waiting) = unbounded();
    let server = Setup::new(2, 0)
        .method("/t/Sum", (true, false), move |call, _| {
            waits.send(()).unwrap();
            assert!(matches!(call.receive(Wait::Forever), Received::Ended));
            assert!(call.told_to_stop());
            call.finish(None, Ending::new(UNAVAILABLE, "idle"), Handled::Yes);
        })
        .start();
    let other = server.transport.connect(server.runner.shared());
    let of_first = server.client.call("/t/Sum", &[]);
    let of_other = other.call("/t/Sum", &[]);
    for _ in 0..2 {
        is_waiting.recv_timeout(LONG).unwrap();
    }
    let view = View {
        calls: 1,
        open: 1,
        ..View::default()
    };
    other.shows(view);
    server.client.shows(View {
        acknowledged: true,
        ..view
    });
    let at_once = Limit {
        idle: Some(IdleTimes {
            at_rest: Duration::ZERO,
            reply_owed: LONG,
        }),
        ..unlimited()
    };
    server.drain([at_once]);
    assert_eq!(of_first.status(), (UNAVAILABLE, "idle".to_owned()));
    assert_eq!(server.landed(), Landed::ToldToStop);
    assert!(of_other.has_got_nothing(), "its client may stand still");
    other.shows(View {
        acknowledged: true,
        ..view
    });
    assert_eq!(of_other.status().0, UNAVAILABLE);
    assert_eq!(server.landed(), Landed::ToldToStop);
}

#[test]
fn a_stream_both_ways_whose_caller_has_spoken_last_may_be_at_work() {
    let (waits, is_waiting) = unbounded();
    let server = Setup::new(2, 0)
        .method("/t/Chat", (true, true), move |call, _| {
            assert!(matches!(call.receive(Wait::Forever), Received::Message(_)));
            waits.send(Arc::clone(call)).unwrap();
            assert!(matches!(call.receive(Wait::Forever), Received::Ended));
            call.finish(None, Ending::new(UNAVAILABLE, "idle"), Handled::Yes);
        })
        .start();
    let lines = [b"1", b"2"].map(|it| {
        let line = server.client.call("/t/Chat", &[it]);
        (line, is_waiting.recv_timeout(LONG).unwrap())
    });
    let [(owed, of_owed), (answered, of_answered)] = lines;
    of_answered.send(outgoing(b"reply"), Wait::Never).unwrap();
    server.client.shows(View {
        calls: 2,
        open: 2,
        acknowledged: true,
        ..View::default()
    });
    let idle = IdleTimes {
        at_rest: Duration::ZERO,
        reply_owed: LONG,
    };
    server.drain([Limit {
        idle: Some(idle),
        ..unlimited()
    }]);
    assert_eq!(answered.status().0, UNAVAILABLE);
    assert_eq!(server.landed(), Landed::ToldToStop);
    assert!(!of_owed.told_to_stop() && owed.has_got_nothing());
    // Another thread was at work on this.
    of_owed.send(outgoing(b"reply"), Wait::Never).unwrap();
    assert_eq!(owed.sent()[1], message(b"reply"));
    assert_eq!(server.landed(), Landed::ToldToStop);
}

#[test]
fn what_runs_is_told_to_stop_and_what_waits_is_refused() {
    let (handler, runs, go) = gate();
    let server = Setup::new(1, 1).unary("/t/Gate", handler).start();
    let first = server.client.call("/t/Gate", &[b"1"]);
    let call = runs.recv_timeout(LONG).unwrap();
    let second = server.client.call("/t/Gate", &[b"2"]);
    server.settle();
    assert!(!call.told_to_stop());
    assert_eq!(server.runner.tell_to_stop(), 1 + 1);
    assert!(call.told_to_stop());
    assert_eq!(second.status().0, UNAVAILABLE);
    assert!(first.has_got_nothing());
    go.send(()).unwrap();
    assert_eq!(first.status().0, OK, "it is for its handler to end it");
    let landed = [server.landed(), server.landed()];
    assert_eq!(landed, [Landed::Refused, Landed::ToldToStop]);
}

#[test]
fn a_handler_that_does_not_return_is_abandoned_and_its_caller_answered() {
    let (handler, runs, go) = gate();
    let server = Setup::new(1, 1).unary("/t/Gate", handler).start();
    let line = server.client.call("/t/Gate", &[b"1"]);
    let call = runs.recv_timeout(LONG).unwrap();
    let abandoned = server.runner.abandon_calls();
    let said = "/t/Gate does not return; its caller got UNAVAILABLE";
    assert_eq!(
        abandoned
            .iter()
            .map(|it| it.to_string())
            .collect::<Vec<_>>(),
        [said]
    );
    assert_eq!(line.status().0, UNAVAILABLE);
    assert_eq!(line.pushback(), Some(-1), "half of it may be done");
    let running = server.runner.running();
    assert_eq!(running.len(), 1);
    assert!(running[0]
        .to_string()
        .starts_with("/t/Gate of 192.0.2.1:4711"));
    drop(running);
    assert!(!reply(&call, b"too late"));
    go.send(()).unwrap();
    assert_eq!(server.landed(), Landed::Abandoned);
}

#[test]
fn a_detached_call_needs_no_worker_and_ends_when_it_is_finished() {
    let (detached, is_detached) = unbounded();
    let server = Setup::new(1, 0)
        .method("/t/Watch", (false, true), move |call, _| {
            call.detach();
            detached.send(Arc::clone(call)).unwrap();
        })
        .unary("/t/Echo", echo)
        .start();
    let watch = server.client.call("/t/Watch", &[b""]);
    let call = is_detached.recv_timeout(LONG).unwrap();
    // The only worker is free again.
    wait_until(|| server.runner.load().running == 0);
    let echo = server.client.call("/t/Echo", &[b"x"]);
    assert_eq!(echo.status().0, OK);
    assert_eq!(server.landed(), Landed::Completed);
    assert!(call.is_detached() && !call.has_ended());
    call.send_and_tell(outgoing(b"news")).unwrap();
    server.host.sent.1.recv_timeout(LONG).expect("it is told");
    assert!(call.finish(None, ok(), Handled::Yes));
    assert_eq!(watch.sent(), [headers(), message(b"news"), status(OK, "")]);
    assert_eq!(server.landed(), Landed::Completed);
    wait_until(|| server.runner.running().is_empty());
}

#[test]
fn a_detached_call_whose_caller_leaves_is_let_go_of() {
    let (detached, is_detached) = unbounded();
    let server = Setup::new(1, 0)
        .method("/t/Watch", (false, true), move |call, _| {
            call.detach();
            detached.send(Arc::clone(call)).unwrap();
        })
        .start();
    let line = server.client.call("/t/Watch", &[b""]);
    let call = is_detached.recv_timeout(LONG).unwrap();
    server.settle();
    line.leave();
    assert_eq!(server.landed(), Landed::CallerLeft);
    assert_eq!(line.status().0, CANCELLED);
    assert!(!call.finish(None, ok(), Handled::Yes), "it is over");
}

#[test]
fn prompt_calls_are_answered_though_every_worker_is_busy_and_are_not_counted() {
    let (handler, runs, go) = gate();
    let mut setup = Setup::new(1, 0)
        .unary("/t/Gate", handler)
        .unary("/t/Check", echo);
    setup.methods[1].prompt = true;
    let server = setup.start();
    let gate = server.client.call("/t/Gate", &[b""]);
    runs.recv_timeout(LONG).unwrap();
    let check = server.client.call("/t/Check", &[b"ok"]);
    assert_eq!(check.sent(), [headers(), message(b"ok"), status(OK, "")]);
    assert_eq!(server.host.in_flight(), 1);
    // Only one thread polls, so it has landed after this.
    server.settle();
    server.client.take(false);
    let open = [(); PROMPT_CALLS].map(|()| server.client.call("/t/Check", &[b"ok"]));
    assert!(open.iter().all(|it| it.status().0 == OK));
    let text = "too many callers do not take their answers".to_owned();
    server.client.shows(View {
        open: 5,
        ..View::default()
    });
    let one_more = server.client.call("/t/Check", &[b"ok"]);
    assert_eq!(one_more.status(), (RESOURCE_EXHAUSTED, text));
    open.iter().for_each(|it| it.take(true));
    one_more.take(true);
    server.client.take(true);
    server.settle();
    let check = server.client.call("/t/Check", &[b"ok"]);
    assert_eq!(check.status().0, OK, "there is room again");
    go.send(()).unwrap();
    assert_eq!(gate.status().0, OK);
}

#[test]
fn a_stop_cuts_a_connection_with_an_answer_on_its_way_and_counts_it() {
    let server = Setup::new(1, 1).unary("/t/Echo", echo).start();
    let line = server.client.call("/t/Echo", &[b""]);
    assert_eq!(line.status().0, OK);
    assert_eq!(server.landed(), Landed::Completed);
    server.client.shows(View {
        calls: 1,
        undelivered: 1,
        unacknowledged: 9,
        ..View::default()
    });
    server.drain([unlimited()]);
    // The drain has to have begun, or nobody was promised anything.
    let goaway = || server.transport.goaways() == 1;
    wait_until(goaway);
    assert!(server.runner.stop(Instant::now() + LONG));
    assert!(server.client.is_closed());
    let cut = server.host.connections_cut.load(Ordering::SeqCst);
    let answers = server.host.answers_cut.load(Ordering::SeqCst);
    assert_eq!((cut, answers), (1, 1));
    assert!(!server.has_drained());
}

#[test]
fn a_stop_ends_a_stream_that_waits_for_its_caller() {
    let (runs, is_running) = bounded(1);
    let server = Setup::new(1, 1)
        .method("/t/Chat", (true, true), move |call, message| {
            runs.send(()).unwrap();
            echo_stream(call, message);
        })
        .start();
    let line = server.client.call("/t/Chat", &[]);
    is_running.recv_timeout(LONG).unwrap();
    assert!(server.runner.stop(Instant::now() + LONG), "all threads end");
    assert_eq!(line.status().0, OK, "as its handler said");
    assert_eq!(server.landed(), Landed::Undelivered);
}

/// Spins, and lets others run, until this holds.
fn wait_until(holds: impl Fn() -> bool) {
    let limit = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < limit, "it does not come to that");
        std::thread::yield_now();
    }
}

/// In steps: answers each request with the same, waiting for none, and the end with OK. What has to end, ends.
fn echo_in_steps(call: &Arc<Call>) {
    if call.has_to_end() {
        let ending = Ending::new(CANCELLED, "it has to end");
        call.finish(None, ending, Handled::Yes);
        return;
    }
    match call.take_received() {
        Received::Message(message) => {
            let sent = call.send(outgoing(&bytes_of(&message)), Wait::Never);
            assert_eq!(sent, Ok(()));
        }
        Received::End => {
            call.finish(None, ok(), Handled::Yes);
            return;
        }
        Received::Ended | Received::TimedOut => {}
    }
    call.ask_for_message();
}

/// A server of one worker with `/test.Chats/Chat` in steps and a unary method that waits at a gate.
fn in_steps(
    backlog: usize,
    step: impl Fn(&Arc<Call>) + Send + Sync + 'static,
) -> (Server, Receiver<Arc<Call>>, Sender<()>) {
    let (gated, begun, release) = gate();
    let server = Setup::new(1, backlog)
        .method("/test.Chats/Chat", (true, true), |call, _| {
            assert!(call.go_on_in_steps());
        })
        .unary("/test.Gate/Pass", gated)
        .step(step)
        .start();
    (server, begun, release)
}

#[test]
fn a_call_in_steps_needs_no_worker_while_it_waits_and_gets_its_messages_in_order() {
    let (server, begun, release) = in_steps(0, echo_in_steps);
    let detached = &server.runner.shared().ground.detached;
    let open = |number| {
        let line = server.client.call("/test.Chats/Chat", &[]);
        wait_until(|| detached.count() == number && server.runner.load().running == 0);
        line
    };
    let lines: Vec<_> = (1..=10).map(open).collect();
    // The one worker is free.
    let gated = server.client.call("/test.Gate/Pass", &[b"gate"]);
    begun.recv_timeout(LONG).unwrap();
    // And now it is not: nothing is refused, but waits, whatever the backlog is.
    for line in &lines {
        line.send(b"one");
        line.send(b"two");
    }
    server.settle();
    assert!(lines.iter().all(|it| it.has_got_nothing()));
    release.send(()).unwrap();
    assert_eq!(gated.status().0, OK);
    for line in &lines {
        line.say_all();
        assert_eq!(
            line.sent(),
            [headers(), message(b"one"), message(b"two"), status(OK, "")]
        );
    }
    (0..11).for_each(|_| assert_eq!(server.landed(), Landed::Completed));
    wait_until(|| detached.count() == 0);
}

#[test]
fn a_message_is_not_asked_for_before_the_one_before_was_dealt_with() {
    let (stepped, steps) = unbounded();
    let step = move |call: &Arc<Call>| stepped.send(Arc::clone(call)).unwrap();
    let (server, ..) = in_steps(0, step);
    let line = server.client.call("/test.Chats/Chat", &[b"one", b"two"]);
    let call = steps.recv_timeout(LONG).expect("the first step");
    server.settle();
    assert!(steps.try_recv().is_err(), "nothing was asked for");
    call.ask_for_message();
    steps.recv_timeout(LONG).expect("a message has come");
    assert!(matches!(call.take_received(), Received::Message(it) if bytes_of(&it) == b"one"));
    server.settle();
    assert!(matches!(call.take_received(), Received::TimedOut));
    assert!(steps.try_recv().is_err(), "the next was not asked for");
    call.ask_for_message();
    steps.recv_timeout(LONG).expect("the next has come");
    assert!(matches!(call.take_received(), Received::Message(it) if bytes_of(&it) == b"two"));
    call.finish(None, ok(), Handled::Yes);
    assert_eq!(line.status().0, OK);
}

#[test]
fn a_call_in_steps_ends_in_a_step_when_its_caller_leaves_or_the_server_says_so() {
    let (server, ..) = in_steps(0, echo_in_steps);
    let left = server.client.call("/test.Chats/Chat", &[b"one"]);
    left.sent_when(|sent| sent.len() == 2);
    left.leave();
    assert_eq!(server.landed(), Landed::CallerLeft);
    // Nothing can wait here, and its worker may be at its end.
    wait_until(|| server.runner.load().running == 0);
    let told = server.client.call("/test.Chats/Chat", &[b"one"]);
    told.sent_when(|sent| sent.len() == 2);
    assert_eq!(server.runner.tell_to_stop(), 1);
    assert_eq!(told.status(), (CANCELLED, "it has to end".to_owned()));
    assert_eq!(server.landed(), Landed::ToldToStop);
}

#[test]
fn the_steps_of_a_call_are_run_one_at_a_time_whoever_asks_for_them() {
    let at_once = Arc::new(AtomicUsize::new(0));
    let count = Arc::new(AtomicUsize::new(0));
    let (at_once_there, count_there) = (Arc::clone(&at_once), Arc::clone(&count));
    let (first, is_there) = unbounded();
    let server = Setup::new(4, 10)
        .method("/test.Chats/Chat", (true, true), |call, _| {
            assert!(call.go_on_in_steps());
        })
        .step(move |call| {
            assert_eq!(at_once_there.fetch_add(1, Ordering::SeqCst), 0);
            count_there.fetch_add(1, Ordering::SeqCst);
            let _ = first.send(Arc::clone(call));
            std::thread::yield_now();
            at_once_there.fetch_sub(1, Ordering::SeqCst);
        })
        .start();
    let line = server.client.call("/test.Chats/Chat", &[]);
    let call = is_there.recv_timeout(LONG).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..1000).for_each(|_| call.ask_for_step()));
        }
    });
    // What was asked for last is run after that.
    let before = count.load(Ordering::SeqCst);
    call.ask_for_step();
    wait_until(|| count.load(Ordering::SeqCst) > before && at_once.load(Ordering::SeqCst) == 0);
    call.finish(None, ok(), Handled::Yes);
    assert_eq!(line.status().0, OK);
}
