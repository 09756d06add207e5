//! A line for each call that failed, that was slow, or that is one in so many of the rest.
//!
//! # When to use
//!
//! To find single calls: who has called what, when, and what came of it. How many there are, and how fast, is what metrics
//! are for. What becomes of each call is told by any [`CallObserver`](touchdown::CallObserver); this is one.
//!
//! ```
//! use std::time::Duration;
//! use touchdown::{Server, Service};
//! use touchdown_observe::access_log::AccessLog;
//! use touchdown_observe::ObserveServer;
//!
//! let access_log = AccessLog::new().one_in(1000).slow(Duration::from_millis(200));
//! let counts = access_log.counts();
//! let server = Server::builder()
//!     .address("127.0.0.1:0")
//!     .service(Service::builder("demo.Nothing").build())
//!     .access_log(access_log)
//!     .start()?;
//! server.shutdown();
//! assert_eq!((counts.written(), counts.dropped()), (0, 0));
//! # Ok::<(), touchdown::StartError>(())
//! ```
//!
//! # Which calls
//!
//! | call | is logged |
//! |---|---|
//! | refused, cut, abandoned, told to stop, left by its caller, or whose answer did not arrive | always |
//! | ended with another code than OK | always, or as [`AccessLog::errors`] says |
//! | took as long as [`AccessLog::slow`] says, from its arrival to its end, or longer; a stream that was open for so long, too | always |
//! | any other | one in [`AccessLog::one_in`] of its method |
//! | of a health check | never, unless [`AccessLog::health_checks`] says so |
//!
//! *One in N* is counted, not drawn by lot: of each method the first is logged, and then every Nth. Each thread that ends calls
//! counts for itself, so it is exact for one such thread; with several, each keeps up to N - 1 calls back until the N that it has
//! counted are full, and hands its count on when it ends. Calls that are logged for another reason are not counted.
//!
//! # What a line has
//!
//! It goes to the program's [log](https://docs.rs/log), with the target `touchdown::access` and these keys, or as a JSON object to
//! [what you give](AccessLog::to). A failure is a warning, all else is INFO.
//!
//! | key | |
//! |---|---|
//! | `event.dataset` | `touchdown.access` |
//! | `event.end` | when the call ended: RFC 3339, UTC, with milliseconds. The line may have waited |
//! | `event.duration` | from its arrival to its end, in nanoseconds |
//! | `event.outcome` | `success`, or `failure`: a code other than OK, or a caller that did not get the answer |
//! | `rpc.method` | `package.Service/Method`; of an unknown method what the caller has asked for, 256 bytes at the most |
//! | `rpc.status_code` | `OK`, `NOT_FOUND` |
//! | `client.address`, `client.port` | of the caller; `unix` without a port for a unix socket |
//! | `client.bytes`, `server.bytes` | of the messages that the client has sent, and the server, as they were on the wire |
//! | `touchdown.requests`, `touchdown.replies` | how many messages those were |
//! | `touchdown.queue_wait` | how much of the time the call has waited for a worker, in nanoseconds |
//! | `touchdown.kind` | `unary`, `streaming`, `detached`, `health`, `unknown_method` |
//! | `touchdown.outcome` | `completed`, `caller_left`, `undelivered`, `cut`, `told_to_stop`, `abandoned`, or `refused` |
//! | `touchdown.reason` | of a refused call: `unknown_method`, `no_request`, `malformed`, `backlog_full`, `answers_not_taken`, `expired`, `too_little_time`, `shutting_down` |
//! | `touchdown.one_in` | of a call that is one in so many: how many it stands for |
//! | `error.message` | of a refused call why, in words; of others what the caller was told, with [`AccessLog::error_messages`] |
//! | `trace.id`, `span.id` | with the feature `otel` those of its `TraceContext`; else those of the caller, if it has sent a `traceparent` that is valid ([W3C](https://www.w3.org/TR/trace-context/)) |
//!
//! What a caller sends can make no other line, whatever logger the program has: control characters are written as `\n` and `\u{1b}`.
//!
//! # A log that nobody reads
//!
//! Lines wait in a queue, and a thread, `td-access-log`, writes them. If it cannot, because a reader has stopped to read, the
//! queue fills up, and what does not fit in is dropped. No call waits for it. The log says in their place how many calls are
//! missing (`log.dropped`), and [`Counts`] has the number.
//!
//! What cannot be written, because the disk is full, counts as dropped as well. The program's log says why, once a minute at the most.
//!
//! As the program closes, a hook, `access log of ADDRESS`, waits for what is in the queue: no longer than half of the closing phase
//! or 4 s, and a quarter of that if no line is written meanwhile. What is left counts as dropped, and does not change the exit code.
//!
//! # What it costs
//!
//! On a desktop processor a call that is not logged costs some 10 ns: a counter of its thread, no lock, no memory; the same if the
//! queue is full. One that is logged costs 0.6 to 0.8 µs on the thread that ends it. The line is made on `td-access-log`.

mod companion;
mod counts;
mod entry;
#[cfg(feature = "log")]
use crate::log::lines;
// The same where there is no log.
#[cfg(not(feature = "log"))]
#[path = "../log/lines/mod.rs"]
mod lines;
mod messages;
mod observer;
mod output;
mod queue;
mod sample;
#[cfg(test)]
mod tests;
mod trace;

use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use touchdown::{Code, MethodName, ServerBuilder};

pub use self::counts::Counts;

use self::companion::Logs;
use self::messages::Messages;
use self::observer::Observer;
use self::output::Output;
use self::queue::Queue;
use self::sample::{Rates, Sampler};

/// How long a call takes at the least that is slow, if nothing else is set. People begin to notice.
const SLOW: Duration = Duration::from_millis(500);

/// One in so many of the calls that are neither failed nor slow, if nothing else is set: at the 10,000 calls a second that
/// a board can serve a line for every ten milliseconds.
const ONE_IN: u32 = 100;

/// How many lines wait at the most, if nothing else is set: some 300 KiB of them.
const LINES: usize = 1024;

/// What calls are logged, and where to. [`ObserveServer::access_log`](crate::ObserveServer::access_log) gives it to a server.
#[must_use = "a server has to be given it"]
pub struct AccessLog {
    slow: Duration,
    /// A bit for the number of each code.
    errors: u32,
    rates: Rates,
    has_health_checks: bool,
    has_messages: bool,
    lines: usize,
    service: Option<String>,
    to: Option<Box<dyn Write + Send>>,
    counts: Counts,
}

impl AccessLog {
    /// The codes that are the server's fault, whatever the caller has done: for [`errors`](Self::errors). OpenTelemetry takes
    /// these for errors of a server
    /// ([semantic conventions for gRPC](https://opentelemetry.io/docs/specs/semconv/rpc/grpc/)).
    pub const SERVER_FAULTS: [Code; 6] = [
        Code::Unknown,
        Code::DeadlineExceeded,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
    ];

    /// Calls that failed with any code, calls of 500 ms and more, one in 100 of the rest; to the program's log, for which
    /// 1,024 lines may wait.
    pub fn new() -> AccessLog {
        AccessLog {
            slow: SLOW,
            errors: u32::MAX,
            rates: Rates::new(ONE_IN),
            has_health_checks: false,
            has_messages: false,
            lines: LINES,
            service: None,
            to: None,
            counts: Counts::default(),
        }
    }

    /// Logs one in so many of the calls that neither failed nor were slow; 1 is each, 0 is none.
    pub fn one_in(mut self, calls: u32) -> Self {
        self.rates.others = calls;
        self
    }

    /// The same for one method. A method that the server does not have changes nothing, and the log says so.
    pub fn one_in_of(mut self, method: MethodName, calls: u32) -> Self {
        self.rates.methods.push((method, calls));
        self
    }

    /// From which time on a call is slow, measured from its arrival. [`Duration::MAX`] is none, zero is each.
    pub fn slow(mut self, time: Duration) -> Self {
        self.slow = time;
        self
    }

    /// Which codes are always logged, in the place of all but OK. A call that has ended as its handler said, with a code that is
    /// not among them, is treated as one that has succeeded. What was refused, cut, or not delivered is logged with any code.
    ///
    /// ```
    /// use touchdown_observe::access_log::AccessLog;
    ///
    /// // A caller that asks for what is not there is none of our business.
    /// let access_log = AccessLog::new().errors(AccessLog::SERVER_FAULTS);
    /// # drop(access_log);
    /// ```
    pub fn errors(mut self, codes: impl IntoIterator<Item = Code>) -> Self {
        self.errors = codes.into_iter().fold(0, |all, code| all | bit(code));
        self
    }

    /// Whether health checks are logged as other calls are. A load balancer makes one each second or so.
    pub fn health_checks(mut self, are_logged: bool) -> Self {
        self.has_health_checks = are_logged;
        self
    }

    /// Whether a line has what the caller of a failed call was told, as `error.message`. It may be anything that handlers
    /// put into a status, also what is nobody's business who reads logs. To know it takes an
    /// [interceptor](touchdown::Interceptor), which costs each call some time. One that was added before this, and refuses a call,
    /// keeps it from seeing that.
    pub fn error_messages(mut self, are_logged: bool) -> Self {
        self.has_messages = are_logged;
        self
    }

    /// How many lines may wait at the most for the one who writes; at least 1. A line takes some 300 bytes there.
    pub fn queue(mut self, lines: usize) -> Self {
        self.lines = lines.max(1);
        self
    }

    /// Writes JSON here instead of to the program's log: an object a line, in one `write`, flushed when no other waits. It may
    /// block. A panic in it costs the line.
    ///
    /// ```no_run
    /// use std::fs::File;
    /// use touchdown_observe::access_log::AccessLog;
    ///
    /// let file = File::options().create(true).append(true).open("/var/log/greeter/access.json")?;
    /// let access_log = AccessLog::new().to(file);
    /// # drop(access_log);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn to(mut self, to: impl Write + Send + 'static) -> Self {
        self.to = Some(Box::new(to));
        self
    }

    /// `service.name` of what is written [here](Self::to). Without it that is what `OTEL_SERVICE_NAME` says, or the name of the
    /// program's file.
    pub fn service_name(mut self, name: impl Into<String>) -> Self {
        self.service = Some(name.into());
        self
    }

    /// How many lines were written and dropped: for metrics, also after the server has stopped.
    pub fn counts(&self) -> Counts {
        self.counts.clone()
    }

    /// Hangs it on a server.
    pub(crate) fn apply(self, builder: ServerBuilder) -> ServerBuilder {
        let queue = Arc::new(Queue::new(self.lines, self.counts));
        let sampler = Sampler::new(self.rates);
        let observer = Observer {
            slow: self.slow,
            errors: self.errors & !bit(Code::Ok),
            has_health_checks: self.has_health_checks,
            is_for_log: self.to.is_none(),
            sampler: Arc::clone(&sampler),
            queue: Arc::clone(&queue),
        };
        let builder = match self.has_messages {
            true => builder.interceptor(Messages),
            false => builder,
        };
        let logs = Logs {
            queue,
            sampler,
            output: match self.to {
                Some(to) => Output::json(to, self.service),
                None => Output::Log,
            },
        };
        builder.observer(observer).companion(logs)
    }
}

/// The bit of a code in [`AccessLog::errors`].
fn bit(code: Code) -> u32 {
    1 << code as i32
}

impl Default for AccessLog {
    fn default() -> AccessLog {
        AccessLog::new()
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AccessLog")
            .field("slow", &self.slow)
            .field("one_in", &self.rates.others)
            .field("lines", &self.lines)
            .finish_non_exhaustive()
    }
}
