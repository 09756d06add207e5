//! The clients: threads that make calls of all four kinds, one after the other, and count.

touchdown::include_protos!();

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use greeter::{GreeterClient, HelloReply, HelloRequest, ManyHellosRequest};
use touchdown::client::{CallOptions, Channel};
use touchdown::{Code, Status};

use crate::options::Options;
use crate::terminal::Terminal;

/// Above any handler's time and any stop's: a call that hangs is to be counted as lost.
const DEADLINE: Duration = Duration::from_secs(30);

/// How many lost calls are described.
const DESCRIBED: u64 = 10;

/// C-core's least. The default, one second, would leave clients idle long after the next server is there.
const RECONNECT: Duration = Duration::from_millis(100);

/// What has become of the calls so far.
#[derive(Clone, Copy)]
pub struct Counts {
    begun: u64,
    /// Ended as their handlers said, with the reply that belongs to them.
    pub landed: u64,
    /// Ended in any other way.
    pub lost: u64,
    /// Never sent: there was no connection and none could be made.
    pub turned_away: u64,
}

impl Counts {
    pub fn sent(&self) -> u64 {
        self.begun - self.turned_away
    }

    pub fn in_flight(&self) -> u64 {
        self.sent() - self.landed - self.lost
    }
}

#[derive(Default)]
struct Shared {
    enough: AtomicBool,
    begun: AtomicU64,
    landed: AtomicU64,
    lost: AtomicU64,
    turned_away: AtomicU64,
}

impl Shared {
    fn counts(&self) -> Counts {
        // Sequentially consistent, and the ends before the beginnings: no call is seen to have ended
        // before it began.
        let landed = self.landed.load(Ordering::SeqCst);
        let lost = self.lost.load(Ordering::SeqCst);
        let turned_away = self.turned_away.load(Ordering::SeqCst);
        Counts {
            begun: self.begun.load(Ordering::SeqCst),
            landed,
            lost,
            turned_away,
        }
    }
}

pub struct Load {
    shared: Arc<Shared>,
    callers: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn start(address: &str, options: &Options, terminal: &Terminal) -> Load {
        let shared = Arc::new(Shared::default());
        let mut callers = Vec::new();
        for _ in 0..options.clients {
            let channel = Channel::builder()
                .own_connection()
                .reconnect(RECONNECT, RECONNECT)
                .connect(address)
                .expect("the demo knows its own address");
            for _ in 0..options.callers {
                let mut caller = Caller {
                    greeter: GreeterClient::new(&channel),
                    name: format!("caller {}", callers.len()),
                    // Different for each caller, so that they do not walk in step.
                    number: callers.len() as u32 * 5,
                    think_ms: options.think_ms,
                };
                let (shared, terminal) = (Arc::clone(&shared), terminal.clone());
                callers.push(thread::spawn(move || caller.run(&shared, &terminal)));
            }
        }
        Load { shared, callers }
    }

    pub fn counts(&self) -> Counts {
        self.shared.counts()
    }

    /// Waits for the calls that are still open.
    pub fn finish(self) -> Counts {
        self.shared.enough.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.join().expect("callers do not panic");
        }
        self.shared.counts()
    }
}

struct Caller {
    greeter: GreeterClient,
    name: String,
    number: u32,
    think_ms: u32,
}

impl Caller {
    fn run(&mut self, shared: &Shared, terminal: &Terminal) {
        while !shared.enough.load(Ordering::Relaxed) {
            self.number += 1;
            shared.begun.fetch_add(1, Ordering::SeqCst);
            let (kind, result) = match self.number % 4 {
                0 => ("many replies", self.many_replies()),
                1 => ("many requests", self.many_requests()),
                2 => ("both ways", self.both_ways()),
                _ => ("unary", self.unary()),
            };
            match result {
                Ok(()) => shared.landed.fetch_add(1, Ordering::SeqCst),
                Err(status) if never_sent(&status) => {
                    thread::sleep(RECONNECT / 4);
                    shared.turned_away.fetch_add(1, Ordering::SeqCst)
                }
                Err(status) => {
                    let lost = shared.lost.fetch_add(1, Ordering::SeqCst);
                    if lost < DESCRIBED {
                        terminal.line(&format!("LOST, {kind}: {status}"));
                    }
                    lost
                }
            };
        }
    }

    fn unary(&self) -> Result<(), Status> {
        let request = HelloRequest {
            think_ms: self.pick(0, self.think_ms),
            ..self.hello()
        };
        let reply = self.greeter.say_hello_with(&request, options())?;
        check(&reply, &self.name)
    }

    fn many_replies(&self) -> Result<(), Status> {
        let request = ManyHellosRequest {
            name: self.name.clone(),
            count: self.pick(1, 20),
            ..Default::default()
        };
        let mut count = 0;
        for reply in self.greeter.say_many_hellos_with(&request, options())? {
            check(&reply?, &self.name)?;
            count += 1;
        }
        match count == request.count {
            true => Ok(()),
            false => Err(Status::data_loss(format!(
                "{count} of {} replies",
                request.count
            ))),
        }
    }

    fn many_requests(&self) -> Result<(), Status> {
        let count = self.pick(1, 4);
        let mut upload = self.greeter.greet_everybody_with(options())?;
        for _ in 0..count {
            self.pause(count);
            if upload.send(self.hello()).is_err() {
                // `finish` knows why.
                break;
            }
        }
        let everybody = vec![self.name.as_str(); count as usize].join(" and ");
        check(&upload.finish()?, &everybody)
    }

    fn both_ways(&self) -> Result<(), Status> {
        let count = self.pick(1, 4);
        let (mut requests, mut replies) = self.greeter.chat_with(options())?;
        for _ in 0..count {
            self.pause(count);
            let sent = requests.send(self.hello());
            match replies.next() {
                Some(reply) => check(&reply?, &self.name)?,
                None => {
                    return Err(Status::data_loss(format!(
                        "the stream ended early ({sent:?})"
                    )))
                }
            }
        }
        drop(requests);
        match replies.next() {
            None => Ok(()),
            Some(Ok(_)) => Err(Status::data_loss("more replies than requests")),
            Some(Err(status)) => Err(status),
        }
    }

    fn hello(&self) -> HelloRequest {
        HelloRequest {
            name: self.name.clone(),
            ..Default::default()
        }
    }

    /// A stream takes as long as a handler does, in `parts`.
    fn pause(&self, parts: u32) {
        let whole = Duration::from_millis(self.pick(0, self.think_ms).into());
        thread::sleep(whole / parts);
    }

    /// A number that changes from call to call, and goes through all from `least` to `most`.
    fn pick(&self, least: u32, most: u32) -> u32 {
        least + (self.number / 4).wrapping_mul(7) % (most - least + 1)
    }
}

fn options() -> CallOptions {
    CallOptions::new().timeout(DEADLINE)
}

/// A reply that belongs to another request is no reply.
fn check(reply: &HelloReply, name: &str) -> Result<(), Status> {
    match reply.text == format!("Hello, {name}!") {
        true => Ok(()),
        false => Err(Status::data_loss(format!("wrong reply: {}", reply.text))),
    }
}

/// Whether C-core says that it had no connection to send the call on. A call that was sent and
/// whose connection broke is told apart by its message ("Socket closed" and others), and is lost.
fn never_sent(status: &Status) -> bool {
    status.code() == Code::Unavailable
        && status
            .message()
            .starts_with("failed to connect to all addresses")
}
