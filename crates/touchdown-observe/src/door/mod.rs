//! The HTTP door: it answers GET and HEAD of a handful of paths, on one thread, whoever knocks.
//!
//! It is there when nothing else is: all workers may be blocked and the backlog full, strangers may send what they
//! like, and the program may be draining. So it has a thread and limits of its own, and asks nothing of gRPC. As long
//! as nobody is connected the thread sleeps, without a time limit.
//!
//! # What it speaks
//!
//! HTTP/1.0 and HTTP/1.1, in plain text, one request for each connection, which is then closed: those who ask come
//! every few seconds at the most, and a connection that is open costs a descriptor. What more the client sends is
//! read for a moment and thrown away, so that no reset overtakes the answer (RFC 9112, section 9.6).
//!
//! | what comes | what is answered |
//! |---|---|
//! | GET or HEAD | what the handler says; 500 if it panics, and the door stays open |
//! | another method | 405 |
//! | no request of HTTP, a wrong `Host`, a path that cannot be decoded | 400 |
//! | the beginning of TLS | 400, in plain text |
//! | HTTP/2 | 505 |
//! | the announcement of a body | 413; the body is not read |
//! | more than [`HEAD_LIMIT`] bytes, or [`MOST_HEADERS`] headers | 431 |
//! | no whole request within [`REQUEST_TIME`] | 408; nothing to who has sent nothing |
//! | the name of another host, at an address that only this machine reaches | 421 |
//!
//! No answer repeats anything of the request, unless the handler does so. There is no `Date`: a board may not know
//! the time, and no answer is to be stored. There is no `Server`.
//!
//! # Whom it trusts
//!
//! Everybody who reaches its address: it knows no passwords, and what it answers has no effect. A web page that
//! somebody on this machine looks at must not read it, however. The page's server could give its own name the address
//! 127.0.0.1 ("DNS rebinding"), and then the browser takes the door for a part of that page. So at a loopback address
//! `Host` has to be an IP address or a name that no stranger can have: one without a dot, or one that ends in
//! `.localhost`. At an address of a network there is no such check, as Prometheus and load balancers ask by any name
//! that leads there: there the network has to keep strangers out.
//!
//! # Limits
//!
//! | what | how much |
//! |---|---|
//! | connections | [`MOST_CLIENTS`]; who has waited longest for the end of its own request makes room for the next |
//! | from the connection to the whole request | [`REQUEST_TIME`] |
//! | an answer that nobody takes a byte of | [`STALL_TIME`] |
//! | an answer in all | [`ANSWER_TIME`] |
//! | after the answer, until the client closes | [`LEAVE_TIME`], and [`LEAVE_LIMIT`] bytes |
//! | answers that wait for their clients, in all | [`MOST_PENDING`] bytes; who has waited longest loses its own |
//! | what is still to be written when the program has stopped | [`END_TIME`] |
//!
//! The handler has none. It must not block.

mod client;
mod head;
mod request;
mod response;
mod socket;
mod table;
#[cfg(test)]
mod tests;

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use touchdown::acceptor::{Acceptor, Address, Waited, Watched};

use self::socket::Socket;
use self::table::Table;

pub(crate) use self::request::Request;
pub(crate) use self::response::Response;

/// How many bytes a request may have.
const HEAD_LIMIT: usize = 8 << 10;

/// How many headers a request may have. Browsers send some 15, and Prometheus 5.
const MOST_HEADERS: usize = 32;

/// How many connections may be open.
const MOST_CLIENTS: usize = 32;

/// For how long a client may take to send its request.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// For how long a client may take nothing of its answer.
const STALL_TIME: Duration = Duration::from_secs(5);

/// For how long a client may take its answer. A slow modem, of 20 kbit/s, has had 75 KB by then.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// For how long a client is waited for once it has been answered.
const LEAVE_TIME: Duration = Duration::from_secs(1);

/// How many bytes are read of a client that has been answered: what it had sent before it knew.
const LEAVE_LIMIT: usize = 1 << 20;

/// How many bytes of answers may wait for those that do not read them.
const MOST_PENDING: usize = 2 << 20;

/// For how long answers are still written once the program has stopped.
const END_TIME: Duration = Duration::from_secs(1);

/// How often is looked, after the end, whether clients have taken more: there is nothing left that could wait for
/// them.
const END_PAUSE: Duration = Duration::from_millis(5);

/// The size of the thread's stack, in bytes.
const STACK: usize = 128 << 10;

/// Answers a request, on the door's thread. It must not block: meanwhile nobody else is answered.
pub(crate) type Handler = Box<dyn FnMut(&Request<'_>) -> Response + Send>;

/// Answers all who come to this acceptor, on a thread of its own, which ends soon after the acceptor: once the
/// program has stopped, if it is bound [beside](touchdown::Listen::bind_beside) what is drained.
///
/// # Errors
///
/// If the thread cannot be started.
pub(crate) fn serve(acceptor: Arc<Acceptor>, handler: Handler) -> io::Result<JoinHandle<()>> {
    let is_loopback =
        |it: &Address| matches!(it, Address::Tcp(it) if it.ip().to_canonical().is_loopback());
    let answers = Answers {
        handler,
        local_names_only: acceptor.addresses().iter().all(is_loopback),
    };
    let thread = thread::Builder::new().name("td-observe".to_owned());
    thread
        .stack_size(STACK)
        .spawn(move || run(&acceptor, answers))
}

fn run(acceptor: &Acceptor, mut answers: Answers) {
    let mut table = Table::new();
    loop {
        let (waited, ready) = wait(acceptor, &table);
        let now = Instant::now();
        let mut answer = |head: &[u8]| answers.to(head);
        table.advance(&ready, now, &mut answer);
        match waited {
            Waited::Connection(connection) => {
                if let Some(socket) = Socket::new(connection) {
                    table.admit(socket, now, &mut answer);
                }
            }
            Waited::Nothing => {}
            Waited::Over => break,
        }
    }
    // Who has asked by now is answered yet.
    let end = Instant::now() + END_TIME;
    let all = vec![true; table.sockets().count()];
    table.advance(&all, Instant::now(), &mut |head| answers.to(head));
    while table.keep_pending() && Instant::now() < end {
        thread::sleep(END_PAUSE);
        table.write_pending(Instant::now());
    }
}

/// Waits for something to do. Says of each client whether it is ready.
fn wait(acceptor: &Acceptor, table: &Table<Socket>) -> (Waited, Vec<bool>) {
    let deadline = table.deadline();
    let limit = deadline.map(|it| it.saturating_duration_since(Instant::now()));
    let watched = table.sockets().map(|(socket, writes)| match writes {
        true => Watched::writable(socket.as_fd()),
        false => Watched::readable(socket.as_fd()),
    });
    let mut watched: Vec<_> = watched.collect();
    let waited = acceptor.wait(&mut watched, limit);
    (waited, watched.iter().map(Watched::is_ready).collect())
}

/// What is answered.
struct Answers {
    handler: Handler,
    /// Whether `Host` may only be a name that leads to this machine for sure.
    local_names_only: bool,
}

impl Answers {
    /// The answer to a request, as it is written.
    fn to(&mut self, head: &[u8]) -> Vec<u8> {
        match Request::read(head, self.local_names_only) {
            Ok(request) => self.handle(&request).into_bytes(request.is_head),
            Err(refusal) => Response::from(refusal).into_bytes(head.starts_with(b"HEAD ")),
        }
    }

    fn handle(&mut self, request: &Request<'_>) -> Response {
        let handled = panic::catch_unwind(AssertUnwindSafe(|| (self.handler)(request)));
        handled.unwrap_or_else(|panic| {
            log::error!("the HTTP door panicked: {}", crate::text::message_of(panic));
            Response::text(500, "This page could not be made; the log says why.\n")
        })
    }
}
