//! Clients of all kinds, by sockets.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{mpsc, Arc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use touchdown::acceptor::Address;
use touchdown::lifecycle::{Lifecycle, Plan};
use touchdown::Listen;

use super::super::{serve, Handler, Request, Response, LEAVE_LIMIT, MOST_CLIENTS, REQUEST_TIME};
use super::Answer;

/// A test that waits longer than this hangs.
pub(super) const LONG: Duration = Duration::from_secs(60);

/// What a good client is answered within, on a machine that is busy with other tests, whatever others do.
const SOON: Duration = REQUEST_TIME;

/// A program with a door.
pub(super) struct Program {
    pub(super) lifecycle: Lifecycle,
    pub(super) address: String,
    pub(super) door: JoinHandle<()>,
}

impl Program {
    pub(super) fn new(handler: impl FnMut(&Request<'_>) -> Response + Send + 'static) -> Program {
        Program::at("127.0.0.1:0", Box::new(handler))
    }

    fn at(address: &str, handler: Handler) -> Program {
        let plan = Plan::new().with_grace_period(LONG).with_closing(LONG);
        let lifecycle = Lifecycle::builder().plan(plan).build().unwrap();
        let acceptor = Arc::new(Listen::new(address).bind_beside(&lifecycle).unwrap());
        let address = match acceptor.address() {
            Address::Unix(path) => path.display().to_string(),
            other => other.to_string(),
        };
        let door = serve(acceptor, handler).unwrap();
        lifecycle.ready().unwrap();
        Program {
            lifecycle,
            address,
            door,
        }
    }

    pub(super) fn connect(&self) -> TcpStream {
        connect(&self.address)
    }

    pub(super) fn get(&self, path: &str) -> Answer {
        get(&self.address, path).unwrap()
    }

    /// Stops it, and waits for the door.
    pub(super) fn stop(self) {
        self.lifecycle.shutdown("the test is over");
        self.lifecycle.wait();
        end(self.door);
    }
}

/// Waits for the end of the door's thread.
pub(super) fn end(door: JoinHandle<()>) {
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || sender.send(door.join().is_ok()));
    assert!(ended.recv_timeout(LONG).expect("the door ends"));
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.set_write_timeout(Some(LONG)).unwrap();
    stream
}

fn asked(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").into_bytes()
}

/// As a good client asks.
fn get(address: &str, path: &str) -> io::Result<Answer> {
    let mut stream = connect(address);
    stream.write_all(&asked(path))?;
    rest(&mut stream)
}

/// What is answered, up to its end.
fn rest(stream: &mut impl Read) -> io::Result<Answer> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(Answer::read(&bytes, false))
}

/// What is answered to these bytes, as the client waits for it.
fn answer_to(program: &Program, bytes: &[u8]) -> Answer {
    let mut stream = program.connect();
    stream.write_all(bytes).unwrap();
    rest(&mut stream).unwrap()
}

/// A door that says the path.
fn echo() -> Program {
    Program::new(|it| Response::text(200, it.path.clone()))
}

#[test]
fn each_request_has_its_answer_and_the_connection_ends() {
    let program = echo();
    for _ in 0..3 {
        let answer = program.get("/healthz");
        assert_eq!((answer.status, &*answer.text()), (200, "/healthz"));
    }
    program.stop();
}

#[test]
fn the_first_of_pipelined_requests_is_answered() {
    let program = echo();
    let requests = [asked("/first"), asked("/second")].concat();
    assert_eq!(answer_to(&program, &requests).text(), "/first");
    program.stop();
}

#[test]
fn who_has_ended_its_half_is_answered() {
    let program = echo();
    let mut stream = program.connect();
    stream.write_all(&asked("/half")).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut stream).unwrap().text(), "/half");
    let mut stream = program.connect();
    stream.write_all(b"GET /half").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut stream).unwrap().status, 400);
    program.stop();
}

#[test]
fn other_protocols_are_told_what_is_spoken_here() {
    let program = echo();
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and so on";
    let answer = answer_to(&program, hello);
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("without TLS"), "{}", answer.text());
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    assert_eq!(answer_to(&program, preface).status, 505);
    assert_eq!(answer_to(&program, b"\0\0\0\0").status, 400);
    program.stop();
}

#[test]
fn a_body_is_not_read_and_no_reset_overtakes_the_answer() {
    let program = echo();
    let mut stream = program.connect();
    let head = format!("GET / HTTP/1.1\r\nHost: [::1]\r\nContent-Length: {LEAVE_LIMIT}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    // It has been refused when most of this comes.
    stream.write_all(&vec![0; LEAVE_LIMIT / 2]).unwrap();
    assert_eq!(rest(&mut stream).unwrap().status, 413);
    program.stop();
}

#[test]
fn who_sends_without_end_is_stopped_and_holds_up_nobody() {
    let program = echo();
    let floods: Vec<_> = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nCookie: ".to_vec(),
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n".to_vec(),
    ]
    .into_iter()
    .map(|head| {
        let mut stream = program.connect();
        thread::spawn(move || {
            stream.write_all(&head)?;
            let piece = [b'x'; 64 << 10];
            let mut left = 100_000_000_usize;
            while left > 0 {
                left -= stream.write(&piece[..left.min(piece.len())])?;
            }
            Ok::<(), io::Error>(())
        })
    })
    .collect();
    for _ in 0..20 {
        assert_eq!(program.get("/").status, 200);
    }
    for flood in floods {
        assert!(flood.join().unwrap().is_err(), "all of it was taken");
    }
    program.stop();
}

#[test]
fn a_head_that_is_too_large_is_told_so() {
    let program = echo();
    let mut head = b"GET / HTTP/1.1\r\nHost: localhost\r\nCookie: ".to_vec();
    head.resize(100_000, b'x');
    assert_eq!(answer_to(&program, &head).status, 431);
    program.stop();
}

#[test]
fn a_slow_client_holds_up_nobody() {
    let program = echo();
    let mut slow = program.connect();
    let request = asked("/slow");
    for byte in &request {
        slow.write_all(&[*byte]).unwrap();
        assert_eq!(program.get("/quick").text(), "/quick");
    }
    assert_eq!(rest(&mut slow).unwrap().text(), "/slow");
    program.stop();
}

#[test]
fn who_sends_no_whole_request_is_closed() {
    let program = echo();
    let begun = Instant::now();
    let (mut silent, mut slow) = (program.connect(), program.connect());
    slow.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    assert_eq!(rest(&mut slow).unwrap().status, 408);
    let mut bytes = Vec::new();
    assert_eq!(silent.read_to_end(&mut bytes).unwrap(), 0);
    assert!(begun.elapsed() >= REQUEST_TIME - Duration::from_millis(100));
    program.stop();
}

#[test]
fn while_the_table_is_full_of_slow_clients_a_good_one_is_answered() {
    let program = echo();
    let mut slow: Vec<_> = (0..3 * MOST_CLIENTS).map(|_| program.connect()).collect();
    for stream in &mut slow {
        // Those that had to make room do not take it.
        let _ = stream.write_all(b"GET /");
    }
    let begun = Instant::now();
    for _ in 0..MOST_CLIENTS {
        assert_eq!(program.get("/good").text(), "/good");
    }
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    let mut bytes = Vec::new();
    // The end, or a reset.
    let first = slow[0].read_to_end(&mut bytes);
    assert!(bytes.is_empty(), "{first:?}");
    program.stop();
}

#[test]
fn who_does_not_read_holds_up_nobody() {
    let program = Program::new(|it| match &*it.path {
        "/large" => Response::text(200, "x".repeat(16 << 20)),
        _ => Response::text(200, "small"),
    });
    let mut hungry: Vec<_> = (0..4).map(|_| program.connect()).collect();
    let begun = Instant::now();
    for stream in &mut hungry {
        stream.write_all(&asked("/large")).unwrap();
        assert_eq!(program.get("/").text(), "small");
    }
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    program.stop();
}

#[test]
fn a_large_answer_is_read_slowly() {
    let program = Program::new(|_| Response::text(200, "x".repeat(16 << 20)));
    let mut stream = program.connect();
    stream.write_all(&asked("/")).unwrap();
    let mut bytes = Vec::new();
    let mut piece = vec![0; 100_000];
    loop {
        match stream.read(&mut piece).unwrap() {
            0 => break,
            length => bytes.extend_from_slice(&piece[..length]),
        }
        thread::yield_now();
    }
    assert_eq!(Answer::read(&bytes, false).body.len(), 16 << 20);
    program.stop();
}

#[test]
fn a_panic_of_the_handler_is_an_answer() {
    let program = Program::new(|it| match &*it.path {
        "/panics" => panic!("on purpose"),
        _ => Response::text(200, ""),
    });
    for _ in 0..3 {
        assert_eq!(program.get("/panics").status, 500);
        assert_eq!(program.get("/").status, 200);
    }
    program.stop();
}

#[test]
fn at_a_unix_socket_every_host_will_do() {
    let name = format!("touchdown-door-{}.sock", std::process::id());
    let path = std::env::temp_dir().join(name);
    let handler: Handler = Box::new(|it| Response::text(200, it.path.clone()));
    let program = Program::at(&format!("unix:{}", path.display()), handler);
    let mut stream = UnixStream::connect(&program.address).unwrap();
    stream
        .write_all(b"GET /unix HTTP/1.1\r\nHost: any.example\r\n\r\n")
        .unwrap();
    assert_eq!(rest(&mut stream).unwrap().text(), "/unix");
    program.stop();
    assert!(!path.exists());
}

/// How often the door's thread was taken off a processor. One that sleeps is not.
fn switches(thread: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/self/task/{thread}/status")).unwrap();
    let counts = status
        .lines()
        .filter_map(|it| it.split_once("voluntary_ctxt_switches:"));
    counts.map(|it| it.1.trim().parse::<u64>().unwrap()).sum()
}

#[test]
fn while_nobody_asks_the_thread_sleeps() {
    let (sender, threads) = mpsc::channel();
    let program = Program::new(move |_| {
        let thread = fs::read_link("/proc/thread-self").unwrap();
        let number = thread.file_name().unwrap().to_str().unwrap().to_owned();
        sender.send(number).unwrap();
        Response::text(200, "")
    });
    program.get("/");
    let thread = threads.recv().unwrap();
    let name = fs::read_to_string(format!("/proc/self/task/{thread}/comm")).unwrap();
    assert_eq!(name, "td-observe\n");
    // A second is what is waited for a client at the most, so nothing of this one is left then.
    let second = Duration::from_secs(1);
    thread::sleep(2 * second);
    let before = switches(&thread);
    thread::sleep(3 * second);
    assert_eq!(switches(&thread), before);
    program.stop();
}

#[test]
fn lines_are_read_as_a_client_of_http_reads_them() {
    let program = echo();
    let mut stream = program.connect();
    stream.write_all(&asked("/lines")).unwrap();
    let lines: Vec<_> = BufReader::new(stream).lines().map(Result::unwrap).collect();
    assert_eq!(lines[0], "HTTP/1.1 200 OK");
    assert_eq!(lines.last().unwrap(), "/lines");
    program.stop();
}
