//! One call, from its arrival until its last reference goes.
//!
//! Several threads meet here: the worker that runs the handler, any thread that
//! was given half of a stream, the pollers that bring news, and the threads that take
//! the server down. Two rules keep them apart:
//!
//! - `flags` decides who may do what happens once (finish, watch, land). Each
//!   decision is one atomic operation; the thread that set the bit does the deed.
//! - Operations of a stream are begun under `stream`'s lock, after a look at
//!   `FINISHED`. So nothing is begun on a call whose end has been sent, and the
//!   transport may be ended once every call has been finished.
//!
//! How a call ends is told by a thread that polls. The end of a message sent or received is told by
//! the transport directly ([`Call::sent`], [`Call::received`]), most often on the very thread that began it, before that
//! has to wait. It may as well be told on a thread that holds another call's lock, at
//! work for the transport; so it takes none but `inbox`, which nobody holds while calling the transport.

mod cancel;
mod end;
pub(super) mod ending;
pub(super) mod ground;
mod messages;
mod metadata;
mod select;
mod steps;
pub(super) mod wire;

use std::any::Any;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use parking_lot::{Condvar, Mutex};

pub(crate) use self::ending::{Ending, Handled, Landed, Retry};
pub(crate) use self::messages::{Received, SendError, Wait};

use self::ground::Ground;
use self::wire::Wire;

use super::message::Message;
use super::method::Limit;
use super::record::Record;
use super::timers;
use crate::sockets::peer::PeerInfo;

/// The status was given to the transport, or is about to be by the thread that set this.
const FINISHED: u32 = 1;
/// The transport was asked to say when the call closes.
const WATCHED: u32 = 1 << 1;
/// The response headers were given to the transport.
const HEADERS_SENT: u32 = 1 << 2;
/// The caller left, or its connection did.
const CALLER_LEFT: u32 = 1 << 3;
/// The server wants this call to end.
const TOLD: u32 = 1 << 4;
/// The deadline passed, as seen by the timer.
const EXPIRED: u32 = 1 << 5;
/// The handler, or who holds what it detached, has ended the call, or is not waited for.
const HANDLED: u32 = 1 << 6;
/// The status is with the kernel.
const WRITTEN: u32 = 1 << 7;
/// The call goes on after its handler; it is in the list of such calls.
const DETACHED: u32 = 1 << 8;
/// Headers or trailers were set.
const HAS_METADATA: u32 = 1 << 9;
/// The server has ended the call over its handler's head.
const ABANDONED: u32 = 1 << 10;
/// A message is on its way. Set under `stream`'s lock.
const SENDING: u32 = 1 << 11;
/// A message could not be sent, and so none after it.
const SEND_FAILED: u32 = 1 << 12;
/// A message is asked for. Set under `stream`'s lock.
const RECEIVING: u32 = 1 << 13;
/// What was asked for has come, to `inbox`, which belongs to the thread that takes this away.
const RECEIVED: u32 = 1 << 14;
/// It was no message, and not the end of them either.
const RECEIVE_FAILED: u32 = 1 << 15;
/// The server has turned the call away.
const REFUSED: u32 = 1 << 16;
/// The server has ended the call because its time in the drain was over.
const CUT: u32 = 1 << 17;
/// The handler of a stream has returned, whatever became of the call.
const RETURNED: u32 = 1 << 18;
/// The message that was read last came compressed.
const COMPRESSED: u32 = 1 << 19;
/// A drain does not wait for the call, and its connection was told so.
const GIVEN_UP: u32 = 1 << 20;
/// The server has ended the call because others needed what it held. Goes with CUT.
const SHED: u32 = 1 << 21;
/// The call goes on in steps.
const STEPPED: u32 = 1 << 22;
/// A step is asked for that has not begun.
const STEP_DUE: u32 = 1 << 23;
/// A step is under way, or the handler is that has detached the requests.
const STEPPING: u32 = 1 << 24;

/// A name and a value of metadata to be sent. The code that makes one has checked that it is legal.
pub(crate) type Pair = (String, Vec<u8>);

pub(crate) type Context = Box<dyn Any + Send + Sync>;

pub(crate) type Epilogue = Box<dyn FnOnce(Ending<'_>) + Send>;

type Callbacks = Vec<Box<dyn FnOnce() + Send>>;

/// A call, with the transport's side of it inside, so that it takes one allocation. All but the transport knows it as
/// `Call`, which is `Call<dyn Wire>`.
pub(crate) struct Call<W: ?Sized = dyn Wire> {
    ground: Arc<Ground>,
    method: Option<u32>,
    streaming: bool,
    /// The number of its connection, once it was noted.
    connection: OnceLock<u64>,
    arrived_at: Instant,
    /// If there is an observer.
    record: Option<Record>,
    /// What the host keeps with the call, once it needs to.
    context: OnceLock<Context>,
    flags: AtomicU32,
    stream: Mutex<Stream>,
    /// How often something changed that somebody may wait for.
    changes: AtomicU32,
    /// How many threads wait, or are about to.
    waiting: AtomicU32,
    /// Held also while looking at `changes` before sleeping, and for a moment before waking.
    inbox: Mutex<Inbox>,
    changed: Condvar,
    wire: W,
}

#[derive(Default)]
struct Inbox {
    /// The message that was received last, until it is taken.
    message: Option<Message>,
    /// Rung at each change, while a thread waits for others than this call, too.
    bell: Option<Sender<()>>,
}

#[derive(Default)]
struct Stream {
    /// Whether the last message was the caller's.
    caller_spoke_last: bool,
    /// Set once there is nothing more to receive: whether the caller has said so.
    received_all: Option<bool>,
    /// Most calls have nothing of this.
    rare: Option<Box<Rare>>,
}

#[derive(Default)]
struct Rare {
    timer: Option<timers::Key>,
    headers: Vec<Pair>,
    trailers: Vec<Pair>,
    /// Run by the thread that takes it, when it is known how a detached call ends.
    epilogue: Option<Epilogue>,
    /// Run when the call has to end before its handler has ended it.
    on_cancel: Callbacks,
    /// Run when the server begins to drain.
    on_drain: Callbacks,
}

impl Stream {
    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Takes a part of what is rare out, if there is something.
    fn take<T: Default>(&mut self, part: impl FnOnce(&mut Rare) -> &mut T) -> T {
        let rare = self.rare.as_deref_mut();
        rare.map(part).map(std::mem::take).unwrap_or_default()
    }
}

impl<W> Call<W> {
    /// A call of a method of the list, or, with `None`, of the path `unknown`. It has come with `message`, if its
    /// method does not take a stream.
    #[inline]
    pub(crate) fn new(
        ground: &Arc<Ground>,
        method: Option<u32>,
        unknown: Option<&str>,
        message: Option<&Message>,
        wire: W,
    ) -> Arc<Call<W>> {
        let streaming = method.is_some_and(|it| ground.methods[it as usize].is_streaming());
        let arrived_at = Instant::now();
        let record = ground.observer.is_some().then(|| {
            let record = Record::begin(arrived_at, unknown);
            if let Some(message) = message {
                record.received(message.len());
            }
            record
        });
        Arc::new(Call {
            ground: Arc::clone(ground),
            method,
            streaming,
            connection: OnceLock::new(),
            arrived_at,
            record,
            context: OnceLock::new(),
            flags: AtomicU32::new(0),
            stream: Mutex::default(),
            changes: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            inbox: Mutex::default(),
            changed: Condvar::new(),
            wire,
        })
    }
}

impl<W: ?Sized> Call<W> {
    /// The transport's side of it.
    pub(crate) fn wire(&self) -> &W {
        &self.wire
    }

    /// What it stands on.
    pub(crate) fn ground(&self) -> &Arc<Ground> {
        &self.ground
    }

    /// The path of the method: `/package.Service/Method`.
    pub(crate) fn path(&self) -> &str {
        match self.method {
            Some(method) => &self.ground.methods[method as usize].path,
            None => {
                let path = self.record().and_then(Record::unknown);
                path.unwrap_or("an unknown method")
            }
        }
    }

    /// What is kept for an observer; `None` if there is none.
    #[inline]
    pub(crate) fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }
}

impl Call {
    /// The number of the method in the list; `None` if it is not there.
    pub(crate) fn method(&self) -> Option<u32> {
        self.method
    }

    /// What no other call has as long as this one is there.
    pub(super) fn key(self: &Arc<Self>) -> usize {
        Arc::as_ptr(self).cast::<()>().addr()
    }

    /// When a thread that polls has taken it.
    pub(crate) fn arrived_at(&self) -> Instant {
        self.arrived_at
    }

    pub(super) fn note_begun(&self, now: Instant) {
        if let Some(record) = self.record() {
            record.begun(now);
        }
    }

    /// What the host keeps with the call. It is dropped with the last reference to it, which may be on any thread.
    pub(crate) fn context(&self) -> &OnceLock<Context> {
        &self.context
    }

    /// Whether the host's counts leave the call out; see [`Method::prompt`](super::Method::prompt).
    pub(crate) fn is_prompt(&self) -> bool {
        self.ground.is_prompt(self)
    }

    /// Whether the caller or the handler may send more than one message.
    pub(crate) fn is_streaming(&self) -> bool {
        self.streaming
    }

    /// The caller's address, as a URI of gRPC: `ipv4:127.0.0.1:4711`.
    pub(crate) fn peer(&self) -> String {
        self.wire.peer()
    }

    /// What is known of who is at the other end of the call's connection; `None` if the connection
    /// is gone.
    pub(crate) fn connection_info(&self) -> Option<Arc<PeerInfo>> {
        self.ground.connections.info(self.wire.connection()?)
    }

    /// The time left until the caller's deadline or the call's time in the drain is over,
    /// whichever is nearer; `None` if neither is there.
    pub(crate) fn time_remaining(&self) -> Option<Duration> {
        let drain = self.limit().and_then(|limit| limit.at);
        let drain = drain.map(|at| at.saturating_duration_since(self.ground.stopping.now()));
        [self.time_to_deadline(), drain].into_iter().flatten().min()
    }

    /// What holds in the drain, once that has begun.
    fn limit(&self) -> Option<&Limit> {
        self.ground.methods[self.method? as usize].limit()
    }

    /// The time left until the caller's deadline; `None` without a deadline.
    pub(crate) fn time_to_deadline(&self) -> Option<Duration> {
        // The transport may read two clocks and compare them, so the rest could be a little more than nothing
        // after the timer has said that the deadline passed.
        if self.flag(EXPIRED) {
            return Some(Duration::ZERO);
        }
        self.wire.time_to_deadline()
    }

    pub(crate) fn deadline_passed(&self) -> bool {
        self.time_to_deadline() == Some(Duration::ZERO)
    }

    #[inline]
    fn flag(&self, flag: u32) -> bool {
        // Pairs with the `fetch_or` of the thread that set it.
        self.flags.load(Ordering::Acquire) & flag != 0
    }

    /// The number of its connection, also once that is gone, if it was noted before.
    pub(super) fn noted_connection(&self) -> Option<u64> {
        self.note_connection();
        self.connection.get().copied()
    }

    /// Notes which connection the call is on: the transport may forget it when the connection ends.
    fn note_connection(&self) {
        if self.connection.get().is_none() {
            if let Some(number) = self.wire.connection() {
                let _ = self.connection.set(number);
            }
        }
    }
}

impl<W: ?Sized> Drop for Call<W> {
    fn drop(&mut self) {
        if let Some(timer) = self.stream.get_mut().rare.as_ref().and_then(|it| it.timer) {
            self.ground.timers.remove(timer);
        }
    }
}
