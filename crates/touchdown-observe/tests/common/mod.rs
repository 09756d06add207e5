//! What several tests share.
#![allow(dead_code, reason = "not every test needs all of it")]

use std::fmt::Debug;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use touchdown::client::{CallOptions, Client};
use touchdown::lifecycle::{Lifecycle, Plan};
use touchdown::protobuf::well_known_types::wrappers::StringValue;
use touchdown::{Call, Service, Status};

/// What takes longer than this hangs.
pub const LONG: Duration = Duration::from_secs(20);

pub fn text(text: &str) -> StringValue {
    StringValue {
        value: text.to_owned(),
        ..StringValue::new()
    }
}

/// `Say` answers what it gets, or fails with the code whose number it gets. `Wait` answers when it is let go.
pub fn echo() -> (Service, Sender<()>, Receiver<()>) {
    let (go, gate) = channel();
    let (begun, has_begun) = channel();
    let gate = Mutex::new(gate);
    let service = Service::builder("test.Echo")
        .unary("Say", |_: &Call, request: StringValue| {
            match request.value.parse() {
                Ok(code) => Err(Status::new(touchdown::Code::from_number(code), "as asked")),
                Err(_) => Ok(request),
            }
        })
        .unary("Wait", move |_: &Call, request: StringValue| {
            begun.send(()).unwrap();
            let _ = gate.lock().unwrap().recv();
            Ok::<_, Status>(request)
        })
        .build();
    (service, go, has_begun)
}

pub fn say(client: &Client, words: &str) -> Result<StringValue, Status> {
    client.unary(
        "/test.Echo/Say",
        &text(words),
        CallOptions::new().timeout(LONG),
    )
}

pub fn wait(client: &Client) -> Result<StringValue, Status> {
    client.unary(
        "/test.Echo/Wait",
        &text("x"),
        CallOptions::new().timeout(LONG),
    )
}

/// With time for a test to look.
pub fn lifecycle() -> touchdown::lifecycle::Builder {
    let plan = Plan::new()
        .with_lame_duck(Duration::ZERO)
        .with_grace_period(LONG)
        .with_closing(LONG);
    Lifecycle::builder().plan(plan.with_hard_deadline(LONG * 4))
}

pub fn eventually<T: Debug>(what: &str, mut look: impl FnMut() -> Result<(), T>) {
    let deadline = Instant::now() + LONG;
    loop {
        match look() {
            Ok(()) => return,
            Err(seen) => assert!(Instant::now() < deadline, "{what}: still {seen:?}"),
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// A port that was free a moment ago.
pub fn free_address() -> String {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().to_string()
}

/// The status and the body of an answer of HTTP.
pub fn get(address: &str, path: &str) -> (u16, String) {
    get_with(address, path, "")
}

pub fn get_with(address: &str, path: &str, headers: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    write!(
        socket,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// The value of a metric with these labels, as they stand in the text.
pub fn value(text: &str, series: &str) -> Option<f64> {
    let line = text
        .lines()
        .find_map(|it| it.strip_prefix(series)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

/// A switch that a check looks at.
#[derive(Clone, Default)]
pub struct Switch(pub Arc<Mutex<Option<String>>>);

impl Switch {
    pub fn fail(&self, why: &str) {
        *self.0.lock().unwrap() = Some(why.to_owned());
    }

    pub fn mend(&self) {
        *self.0.lock().unwrap() = None;
    }

    pub fn look(&self) -> Result<(), String> {
        self.0.lock().unwrap().clone().map_or(Ok(()), Err)
    }
}
