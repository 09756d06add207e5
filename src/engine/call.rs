//! One call, from the moment C-core hands it over until its last reference goes.
//!
//! Several threads meet here: the worker that runs the handler, any thread that
//! was given half of a stream, the pollers that bring news, and whoever takes
//! the server down. Two rules keep them apart:
//!
//! - `flags` decides who may do what happens once (finish, watch, land). Each
//!   decision is one atomic operation; the thread that set the bit does the deed.
//! - Operations of a stream are begun under `stream`'s lock, after a look at
//!   `FINISHED`. So nothing is begun on a call whose end has been sent, and the
//!   completion queue may be shut down once every call has been finished.
//!
//! How a call ends is an event of the queue. The end of a message sent or received is told by
//! C-core directly ([`Call::done`]), most often to the very thread that began it, before that
//! has to wait. It may as well be told to a thread that holds another call's lock, at
//! work for C-core; so it takes none but `signal`, which nobody holds while calling C-core.

use std::any::Any;
use std::borrow::Cow;
use std::cell::UnsafeCell;
use std::ffi::{c_char, c_int, c_void, CStr};
use std::fmt::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use std::{ptr, slice};

use grpcio_sys::{
    gpr_clock_type, gpr_convert_clock_type, gpr_free, gpr_inf_future, gpr_now, gpr_time_cmp,
    gpr_timespec, grpc_byte_buffer, grpc_call, grpc_call_error,
    grpc_call_failed_before_recv_message, grpc_call_get_peer, grpc_call_start_batch,
    grpc_call_unref, grpc_metadata, grpc_metadata_array, grpc_metadata_array_destroy, grpc_op,
    grpc_op_type,
};
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::bytes::{bytes, Compression, Message, Outgoing};
use super::observer::{Record, Refusal};
use super::peer_name::address_and_number;
use super::queue::{call_tag, drop_call_tag, take_call_tag};
use super::shim::{
    touchdown_call_start_batch, touchdown_completion_create, touchdown_completion_destroy,
    Completion,
};
use super::{timers, Limit, Shared, CANCELLED};
use crate::logging;
use crate::sockets::peer::PeerInfo;

/// What was begun on a call; its number travels in the low bits of the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Operation {
    Finish = 1,
    Watch = 2,
    Receive = 3,
    Send = 4,
    Headers = 5,
    /// A finish that was the first to watch, too.
    FinishWatched = 6,
    SendAndTell = 7,
}

impl Operation {
    pub(super) fn from_bits(bits: usize) -> Operation {
        match bits {
            1 => Operation::Finish,
            2 => Operation::Watch,
            3 => Operation::Receive,
            4 => Operation::Send,
            5 => Operation::Headers,
            6 => Operation::FinishWatched,
            7 => Operation::SendAndTell,
            _ => unreachable!("the completion queue gave back a tag that nobody made"),
        }
    }
}

/// The status was given to C-core, or is about to be by whoever set this.
const FINISHED: u32 = 1;
/// C-core was asked to say when the call closes.
const WATCHED: u32 = 1 << 1;
/// The response headers were given to C-core.
const HEADERS_SENT: u32 = 1 << 2;
/// The caller left, or its connection did.
const CALLER_LEFT: u32 = 1 << 3;
/// The server wants this call to end.
const TOLD: u32 = 1 << 4;
/// The deadline passed, as seen by the timer.
const EXPIRED: u32 = 1 << 5;
/// Whoever was to end the call has done so, or is not waited for: the handler, or who holds what it
/// detached.
const HANDLED: u32 = 1 << 6;
/// The status is with the kernel.
const WRITTEN: u32 = 1 << 7;
/// The call goes on after its handler; it is in the engine's list of such calls.
const DETACHED: u32 = 1 << 8;
/// Headers or trailers were set.
const HAS_METADATA: u32 = 1 << 9;
/// The engine has ended the call over its handler's head.
const ABANDONED: u32 = 1 << 10;
/// A message is on its way. Set under `stream`'s lock.
const SENDING: u32 = 1 << 11;
/// A message could not be sent, and so none after it.
const SEND_FAILED: u32 = 1 << 12;
/// A message is asked for. Set under `stream`'s lock.
const RECEIVING: u32 = 1 << 13;
/// What was asked for has come, to `received`, which belongs to whoever takes this away.
const RECEIVED: u32 = 1 << 14;
/// It was no message, and not the end of them either.
const RECEIVE_FAILED: u32 = 1 << 15;
/// The engine has turned the call away.
const REFUSED: u32 = 1 << 16;
/// The engine has ended the call because its time in the drain was over.
const CUT: u32 = 1 << 17;
/// The handler of a stream has returned, whatever became of the call.
const RETURNED: u32 = 1 << 18;
/// A drain does not wait for the call, and its connection was told so.
const GIVEN_UP: u32 = 1 << 20;
/// The message that was read last came compressed.
const COMPRESSED: u32 = 1 << 19;

/// A name and a value to be sent. Whoever makes one has checked that it is legal.
type Pair = (String, Vec<u8>);

/// How a call ends.
#[derive(Clone, Copy)]
pub(crate) struct Ending<'a> {
    pub(crate) code: i32,
    pub(crate) message: &'a str,
    /// The value of `grpc-status-details-bin`, left out if empty.
    pub(crate) details: &'a [u8],
    /// What clients are told of a retry.
    pub(crate) retry: Retry,
}

/// What a call's end says of a retry. See "Pushback" in
/// [gRFC A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// Nothing: the client follows its own policy.
    Unsaid,
    /// Nothing was done, or what was done may be done again: retry, but not all at once.
    Soon,
    /// The handler may have done half of its work: do not retry.
    Never,
}

/// What came of waiting for a message.
pub(crate) enum Received {
    Message(Message),
    /// The caller has sent its last message.
    End,
    /// The call is over, or has to be.
    Ended,
    TimedOut,
}

/// Why a message was not sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SendError {
    /// The one before it is still on its way to a slow caller.
    Full,
    /// The call is over, or has to be.
    Ended,
}

/// How long to wait.
#[derive(Clone, Copy)]
pub(crate) enum Wait {
    Never,
    Until(Instant),
    Forever,
}

// Aligned so that a tag has four bits to spare; see `queue`.
#[repr(align(16))]
pub(crate) struct Call {
    raw: *mut grpc_call,
    shared: Arc<Shared>,
    method: Option<u32>,
    streaming: bool,
    /// The number of its connection, once it was noted.
    connection: OnceLock<u64>,
    deadline: gpr_timespec,
    metadata: grpc_metadata_array,
    /// If there is an observer.
    record: Option<Box<Record>>,
    /// What the host keeps with the call, once it needs to.
    context: OnceLock<Context>,
    flags: AtomicU32,
    /// Written by C-core until the event of the watch, or of the finish that
    /// contains it.
    close_cancelled: UnsafeCell<c_int>,
    /// Written by C-core until the event of the receive.
    received: UnsafeCell<*mut grpc_byte_buffer>,
    stream: Mutex<Stream>,
    /// How often something changed that somebody may wait for.
    changes: AtomicU32,
    /// How many threads wait, or are about to.
    waiting: AtomicU32,
    /// Held while looking at `changes` before sleeping, and for a moment before waking.
    signal: Mutex<()>,
    changed: Condvar,
}

pub(crate) type Context = Box<dyn Any + Send + Sync>;

pub(crate) type Epilogue = Box<dyn FnOnce(Ending<'_>) + Send>;

#[derive(Default)]
struct Stream {
    /// Set once there is nothing more to receive: whether the caller has said so.
    received_all: Option<bool>,
    /// Made when they are first needed.
    sent: Option<Told>,
    received: Option<Told>,
    timer: Option<timers::Key>,
    headers: Vec<Pair>,
    trailers: Vec<Pair>,
    /// Run by whoever takes it, when it is known how a detached call ends.
    epilogue: Option<Epilogue>,
    /// Run when the call has to end before its handler has ended it.
    on_cancel: Vec<Box<dyn FnOnce() + Send>>,
    /// Run when the server begins to drain.
    on_drain: Vec<Box<dyn FnOnce() + Send>>,
}

/// Where C-core tells the end of an operation.
struct Told(*mut Completion);

impl Default for Told {
    fn default() -> Told {
        Told(touchdown_completion_create())
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        // SAFETY: ours; an operation that is under way keeps the call.
        unsafe { touchdown_completion_destroy(self.0) }
    }
}

// SAFETY: it belongs to the call, which is used under the rules above.
unsafe impl Send for Told {}

// SAFETY: C-core's calls may be used from many threads. `metadata` is read-only.
// `close_cancelled` and `received` belong to C-core from the start of the one
// operation that writes them until its event, and are read by the thread that
// has that event.
unsafe impl Send for Call {}
// SAFETY: as above.
unsafe impl Sync for Call {}

impl Call {
    /// Takes over a call, and the metadata that came with it.
    ///
    /// # Safety
    /// The call is one that C-core has just given away, bound to the queue of `shared`.
    pub(super) unsafe fn new(
        raw: *mut grpc_call,
        shared: Arc<Shared>,
        method: Option<u32>,
        streaming: bool,
        deadline: gpr_timespec,
        metadata: grpc_metadata_array,
        record: Option<Record>,
    ) -> Arc<Call> {
        Arc::new(Call {
            raw,
            shared,
            method,
            streaming,
            connection: OnceLock::new(),
            deadline,
            metadata,
            record: record.map(Box::new),
            context: OnceLock::new(),
            flags: AtomicU32::new(0),
            close_cancelled: UnsafeCell::new(0),
            received: UnsafeCell::new(ptr::null_mut()),
            stream: Mutex::default(),
            changes: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            signal: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// The number of the method in the engine's list; `None` if it is not there.
    pub(crate) fn method(&self) -> Option<u32> {
        self.method
    }

    /// The path of the method: `/package.Service/Method`.
    pub(crate) fn path(&self) -> &str {
        match self.method {
            Some(method) => &self.shared.methods[method as usize].path,
            None => {
                let path = self.record().and_then(Record::unknown);
                path.unwrap_or("an unknown method")
            }
        }
    }

    /// What is kept for an observer; `None` if there is none.
    pub(crate) fn record(&self) -> Option<&Record> {
        self.record.as_deref()
    }

    /// When it arrived, if there is an observer.
    pub(super) fn arrived_at(&self) -> Option<Instant> {
        self.record().map(Record::arrived_at)
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
        self.shared.is_prompt(self)
    }

    /// Whether the caller or the handler may send more than one message.
    pub(crate) fn is_streaming(&self) -> bool {
        self.streaming
    }

    /// The caller's address, as a URI of gRPC: `ipv4:127.0.0.1:4711`.
    pub(crate) fn peer(&self) -> String {
        let numbered = self.numbered_peer();
        address_and_number(&numbered).0.to_owned()
    }

    /// What is known of who is at the other end of the call's connection; `None` if the connection
    /// is gone.
    pub(crate) fn connection_info(&self) -> Option<Arc<PeerInfo>> {
        let numbered = self.numbered_peer();
        self.shared
            .connections
            .info(address_and_number(&numbered).1?)
    }

    /// The number of the call's connection.
    fn connection(&self) -> Option<u64> {
        address_and_number(&self.numbered_peer()).1
    }

    fn numbered_peer(&self) -> String {
        // SAFETY: the call is alive; the string is ours, and freed once.
        unsafe {
            let peer: *mut c_char = grpc_call_get_peer(self.raw);
            let copy = CStr::from_ptr(peer).to_string_lossy().into_owned();
            gpr_free(peer.cast());
            copy
        }
    }

    /// The request's metadata, in the order in which it came.
    pub(crate) fn metadata(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let pairs: &[grpc_metadata] = match self.metadata.count {
            0 => &[],
            // SAFETY: C-core filled so many, and they live as long as the call.
            count => unsafe { slice::from_raw_parts(self.metadata.metadata, count) },
        };
        pairs.iter().map(|it| (bytes(&it.key), bytes(&it.value)))
    }

    /// Remembers how the message came that is being read.
    pub(crate) fn note_compression(&self, message: &Message) {
        match message.compression() {
            Compression::Identity if !self.flag(COMPRESSED) => {}
            Compression::Identity => drop(self.flags.fetch_and(!COMPRESSED, Ordering::AcqRel)),
            _ => drop(self.flags.fetch_or(COMPRESSED, Ordering::AcqRel)),
        }
    }

    /// Whether the message that was read last came compressed.
    pub(crate) fn came_compressed(&self) -> bool {
        self.flag(COMPRESSED)
    }

    /// The time left until the caller's deadline or the call's time in the drain is over,
    /// whichever is nearer; `None` if neither is there.
    pub(crate) fn time_remaining(&self) -> Option<Duration> {
        let drain = self.limit().and_then(|limit| limit.at);
        let drain = drain.map(|at| at.saturating_duration_since(self.shared.drain_now()));
        [self.time_to_deadline(), drain].into_iter().flatten().min()
    }

    /// What holds in the drain, once that has begun.
    fn limit(&self) -> Option<&Limit> {
        self.shared.methods[self.method? as usize].limit.get()
    }

    /// The time left until the caller's deadline; `None` without a deadline.
    pub(crate) fn time_to_deadline(&self) -> Option<Duration> {
        // Two clocks are read to compare them, so the rest could be a little more than nothing
        // after the timer has said that the deadline passed.
        if self.flag(EXPIRED) {
            return Some(Duration::ZERO);
        }
        // SAFETY: pure functions.
        unsafe {
            let monotonic = gpr_clock_type::GPR_CLOCK_MONOTONIC;
            let deadline = gpr_convert_clock_type(self.deadline, monotonic);
            if gpr_time_cmp(deadline, gpr_inf_future(monotonic)) == 0 {
                return None;
            }
            let now = gpr_now(monotonic);
            let nanoseconds = i128::from(deadline.tv_sec - now.tv_sec) * 1_000_000_000
                + i128::from(deadline.tv_nsec - now.tv_nsec);
            Some(Duration::from_nanos(
                nanoseconds.clamp(0, i128::from(u64::MAX)) as u64,
            ))
        }
    }

    pub(crate) fn deadline_passed(&self) -> bool {
        self.time_to_deadline() == Some(Duration::ZERO)
    }

    /// Whether the caller left. Asking makes the engine look out for it.
    pub(crate) fn caller_left(self: &Arc<Self>) -> bool {
        self.watch();
        self.flag(CALLER_LEFT)
    }

    /// Whether the server wants this call to end.
    pub(crate) fn told_to_stop(&self) -> bool {
        self.flag(TOLD)
    }

    /// Runs `callback` when the caller leaves, the deadline passes or the server
    /// wants the call to end; at once if that has happened.
    pub(crate) fn on_cancel(self: &Arc<Self>, callback: impl FnOnce() + Send + 'static) {
        self.watch();
        let mut stream = self.stream.lock();
        if let Some(remaining) = self.time_to_deadline() {
            self.set_timer(&mut stream, remaining);
        }
        if self.flag(CALLER_LEFT | TOLD | EXPIRED) {
            drop(stream);
            callback();
        } else {
            stream.on_cancel.push(Box::new(callback));
        }
    }

    /// Runs `callback` when the server begins to drain; at once if it has.
    pub(crate) fn on_drain(&self, callback: impl FnOnce() + Send + 'static) {
        let mut stream = self.stream.lock();
        // Pairs with the store in `Engine::drain`, which comes before `tell_of_drain`.
        if self.is_draining() {
            drop(stream);
            callback();
        } else {
            stream.on_drain.push(Box::new(callback));
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.shared.leaving.load(Ordering::SeqCst)
    }

    /// The server begins to drain. From now on the caller is looked out for: nothing is to be
    /// waited for that nobody waits for.
    pub(super) fn tell_of_drain(self: &Arc<Self>) {
        self.note_connection();
        let callbacks = std::mem::take(&mut self.stream.lock().on_drain);
        callbacks.into_iter().for_each(|callback| callback());
        self.watch();
    }

    fn set_timer(self: &Arc<Self>, stream: &mut Stream, remaining: Duration) {
        let Some(deadline) = Instant::now().checked_add(remaining) else {
            return;
        };
        if stream.timer.is_none() && !self.flag(FINISHED) {
            stream.timer = Some(self.shared.timers.expire_at(deadline, self));
        }
    }

    fn flag(&self, flag: u32) -> bool {
        // Pairs with the `fetch_or` of whoever set it.
        self.flags.load(Ordering::Acquire) & flag != 0
    }

    /// Asks C-core to say when the call closes, unless that was done.
    pub(super) fn watch(self: &Arc<Self>) {
        if self.flag(WATCHED | FINISHED) {
            return;
        }
        // Held until the operation has begun: `finish` waits for that.
        let _stream = self.stream.lock();
        let claim = self
            .flags
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |flags| {
                (flags & (WATCHED | FINISHED) == 0).then_some(flags | WATCHED)
            });
        if claim.is_ok() {
            self.start(&[self.watch_op()], Operation::Watch);
        }
    }

    fn watch_op(&self) -> grpc_op {
        let mut op = new_op(grpc_op_type::GRPC_OP_RECV_CLOSE_ON_SERVER);
        op.data.recv_close_on_server.cancelled = self.close_cancelled.get();
        op
    }

    /// Sets a response header. False if they were sent already.
    pub(crate) fn add_header(&self, name: String, value: Vec<u8>) -> bool {
        let mut stream = self.stream.lock();
        if self.flag(HEADERS_SENT) {
            return false;
        }
        stream.headers.push((name, value));
        self.flags.fetch_or(HAS_METADATA, Ordering::AcqRel);
        true
    }

    /// Sends the response headers now. False if they were sent already.
    pub(crate) fn send_headers(self: &Arc<Self>) -> bool {
        // Held until the operation has begun: `finish` sees `HAS_METADATA` and waits for that.
        let mut stream = self.stream.lock();
        let claim = self
            .flags
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |flags| {
                let is_open = flags & (HEADERS_SENT | FINISHED) == 0;
                is_open.then_some(flags | HEADERS_SENT | HAS_METADATA)
            });
        if claim.is_err() {
            return false;
        }
        let headers = Slices::new(&std::mem::take(&mut stream.headers));
        self.start(&[headers.op()], Operation::Headers)
    }

    /// Sets a response trailer. False if they were sent already.
    pub(crate) fn add_trailer(&self, name: String, value: Vec<u8>) -> bool {
        let mut stream = self.stream.lock();
        if self.flag(FINISHED) {
            return false;
        }
        stream.trailers.push((name, value));
        self.flags.fetch_or(HAS_METADATA, Ordering::AcqRel);
        true
    }

    pub(crate) fn set_epilogue(&self, epilogue: Epilogue) {
        self.stream.lock().epilogue = Some(epilogue);
    }

    pub(crate) fn take_epilogue(&self) -> Option<Epilogue> {
        self.stream.lock().epilogue.take()
    }

    /// Sends the status, with a last message and with what headers and trailers
    /// were set. Says whether this was the end: a call ends once.
    pub(crate) fn finish(
        self: &Arc<Self>,
        message: Option<&Outgoing>,
        ending: Ending<'_>,
        handled: Handled,
    ) -> bool {
        self.finish_as(message, ending, handled, 0)
    }

    /// As `finish`. If this is the end, `mark` is set along with it.
    fn finish_as(
        self: &Arc<Self>,
        message: Option<&Outgoing>,
        ending: Ending<'_>,
        handled: Handled,
        mark: u32,
    ) -> bool {
        if self.is_draining() {
            self.note_connection();
        }
        let mut lock = self.streaming.then(|| self.stream.lock());
        let done = match handled {
            Handled::Yes => HANDLED,
            Handled::NotYet => 0,
        };
        let end = FINISHED | WATCHED | HEADERS_SENT | done;
        let before = match mark {
            0 => self.flags.fetch_or(end, Ordering::AcqRel),
            _ => self.end_with_mark(end, done, mark),
        };
        if before & FINISHED != 0 {
            drop(lock);
            self.handled(before, done);
            return false;
        }
        if let Some(record) = self.record() {
            record.ended(ending.code);
            if let Some(message) = message {
                record.sent(message.len());
            }
        }
        if self.is_draining() && self.shared.is_prompt(self) {
            self.end_without_answer();
        }
        let (mut headers, mut trailers) = (Vec::new(), Vec::new());
        if lock.is_none() && before & (WATCHED | HAS_METADATA) != 0 {
            // If the watch has been claimed, this waits until it has begun.
            lock = Some(self.stream.lock());
        }
        if let Some(stream) = lock.as_mut().filter(|_| before & HAS_METADATA != 0) {
            headers = std::mem::take(&mut stream.headers);
            trailers = std::mem::take(&mut stream.trailers);
        }
        if mark != 0 {
            // Of a handler that did not come to its end. Without headers a client may retry.
            headers.clear();
            trailers.clear();
        }
        if let Some(milliseconds) = self.shared.pushback(ending.retry) {
            trailers.push((
                "grpc-retry-pushback-ms".to_owned(),
                milliseconds.to_string().into_bytes(),
            ));
        }
        if !ending.details.is_empty() {
            trailers.push((
                "grpc-status-details-bin".to_owned(),
                ending.details.to_vec(),
            ));
        }
        if before & HEADERS_SENT != 0 {
            headers.clear();
        }

        let headers = Slices::new(&headers);
        let trailers = Slices::new(&trailers);
        let text = Outgoing::copy(percent_encoded(ending.message).as_bytes());
        let mut text_slice = text.as_raw();
        let buffer = message.map(Outgoing::to_buffer);
        let mut ops = [new_op(grpc_op_type::GRPC_OP_SEND_STATUS_FROM_SERVER); 4];
        let mut count = 0;
        let mut push = |op| {
            ops[count] = op;
            count += 1;
        };
        if before & HEADERS_SENT == 0 {
            push(headers.op());
        }
        if let Some(buffer) = &buffer {
            let mut op = new_op(grpc_op_type::GRPC_OP_SEND_MESSAGE);
            op.data.send_message.send_message = buffer.as_raw();
            push(op);
        }
        let mut status = new_op(grpc_op_type::GRPC_OP_SEND_STATUS_FROM_SERVER);
        status.data.send_status_from_server.status = ending.code;
        if !ending.message.is_empty() {
            status.data.send_status_from_server.status_details = &mut text_slice;
        }
        status.data.send_status_from_server.trailing_metadata_count = trailers.pairs.len();
        status.data.send_status_from_server.trailing_metadata = trailers.as_ptr();
        push(status);
        let operation = match before & WATCHED {
            0 => {
                push(self.watch_op());
                Operation::FinishWatched
            }
            _ => Operation::Finish,
        };
        let begun = self.start(&ops[..count], operation);
        drop(lock);
        self.handled(before, done);
        if !begun {
            self.written();
        }
        true
    }

    /// Has set `done`, which is HANDLED or nothing.
    fn handled(self: &Arc<Self>, before: u32, done: u32) {
        if done != 0 && before & DETACHED != 0 {
            self.leave_detached();
        }
        self.land(before, done);
    }

    /// To be called by whoever has set a flag that the landing waits for: one of them was the last.
    fn land(self: &Arc<Self>, before: u32, set: u32) {
        let all = WRITTEN | self.end_of_work();
        if before & all != all && (before | set) & all == all {
            self.shared.landed(self);
        }
    }

    /// The flags that are set once nobody is at work on the call.
    fn end_of_work(&self) -> u32 {
        match self.streaming {
            true => HANDLED | RETURNED,
            false => HANDLED,
        }
    }

    fn end_with_mark(&self, end: u32, done: u32, mark: u32) -> u32 {
        let step = |flags: u32| match flags & FINISHED {
            0 => Some(flags | end | mark),
            _ => Some(flags | done),
        };
        let before = self
            .flags
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, step);
        before.unwrap_or_else(|flags| flags)
    }

    /// Ends a call that no handler has seen. Says whether it had not ended.
    pub(super) fn refuse(self: &Arc<Self>, why: Refusal, ending: Ending<'_>) -> bool {
        if let Some(record) = self.record() {
            record.refused(why);
        }
        let was_open = self.finish_as(None, ending, Handled::Yes, REFUSED);
        self.returned();
        was_open
    }

    /// Ends the call over its handler's head, because the server does not wait for it any longer.
    /// Says whether somebody is still at work on it.
    pub(super) fn abandon(self: &Arc<Self>, ending: Ending<'_>) -> bool {
        self.note_connection();
        self.finish_as(None, ending, Handled::NotYet, TOLD);
        // It may have been cut before. One that only its caller holds up is not abandoned.
        let end = self.end_of_work();
        let step = |flags: u32| (flags & end != end).then_some(flags | ABANDONED);
        let abandoned = self
            .flags
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, step);
        abandoned.is_ok_and(|before| {
            // One that is just being refused lands so.
            if before & REFUSED == 0 {
                self.shared.ended(self, Landed::Abandoned);
            }
            self.give_up();
            self.end_without_answer();
            // A stop during start-up has told nobody before.
            self.cancel(TOLD);
            true
        })
    }

    /// Ends the call over its handler's head, because its time in the drain is over, and tells the
    /// handler. Says whether it had not ended.
    pub(super) fn cut(self: &Arc<Self>, ending: Ending<'_>) -> bool {
        let was_open = self.finish_as(None, ending, Handled::NotYet, CUT | TOLD);
        if was_open {
            self.give_up();
            self.end_without_answer();
            self.cancel(TOLD);
            self.let_go_of_detached();
        }
        was_open
    }

    /// The handler has returned, or will not run. Others than streams end as their handlers return.
    pub(super) fn returned(self: &Arc<Self>) {
        if !self.streaming {
            return;
        }
        let before = self.flags.fetch_or(RETURNED, Ordering::AcqRel);
        if before & DETACHED != 0 {
            self.let_go_of_detached();
        }
        self.land(before, RETURNED);
    }

    /// If nobody is at work on the call but who holds what was detached from it, and there is
    /// nobody to whom that could be sent: the call is over, and not waited for.
    fn let_go_of_detached(self: &Arc<Self>) {
        let flags = self.flags.load(Ordering::Acquire);
        let is_detached = flags & (DETACHED | RETURNED) == DETACHED | RETURNED;
        if is_detached && flags & (CALLER_LEFT | CUT) != 0 {
            let gone = Ending::new(CANCELLED, "the caller left");
            self.finish(None, gone, Handled::Yes);
        }
    }

    /// What is to be said of a call that has landed; asked once.
    pub(crate) fn outcome(&self) -> Landed {
        let flags = self.flags.load(Ordering::Acquire);
        let is = |flag| flags & flag != 0;
        match () {
            () if is(REFUSED) => Landed::Refused,
            () if is(ABANDONED) => Landed::Abandoned,
            () if is(CUT) => Landed::Cut,
            () if is(CALLER_LEFT) => match self.is_on_cut_connection() {
                Some(true) => Landed::Undelivered,
                Some(false) => Landed::Completed,
                None => Landed::CallerLeft,
            },
            () if is(TOLD) => Landed::ToldToStop,
            // C-core does not say so of what was being written.
            () if self.is_on_cut_connection() == Some(true) => Landed::Undelivered,
            () => Landed::Completed,
        }
    }

    /// Whether the call lands on a connection that was cut before; and then whether its answer has not arrived.
    fn is_on_cut_connection(&self) -> Option<bool> {
        let connections = &self.shared.connections;
        if !self.is_draining() || self.is_prompt() || !connections.were_some_cut() {
            return None;
        }
        self.note_connection();
        match self.connection.get() {
            Some(number) => connections.lands_late(*number),
            // Nobody has noted in time which one it was: then it is taken for one of those.
            None => Some(true),
        }
    }

    /// The call is not waited for in a drain any more, or never was: it is one that nobody counts, or the server has
    /// ended it over its handler's head.
    pub(super) fn give_up(&self) {
        self.note_connection();
        if let Some(number) = self.connection.get() {
            if self.flags.fetch_or(GIVEN_UP, Ordering::AcqRel) & (GIVEN_UP | WRITTEN) == 0 {
                self.shared.connections.gave_up(*number);
            }
        }
    }

    /// The end that goes out is no answer of a handler that counts.
    fn end_without_answer(&self) {
        if let Some(number) = self.connection.get() {
            self.shared.connections.end_without_answer(*number);
        }
    }

    /// Notes which connection the call is on: C-core forgets it when the connection ends.
    fn note_connection(&self) {
        if self.connection.get().is_none() {
            if let Some(number) = self.connection() {
                let _ = self.connection.set(number);
            }
        }
    }

    /// Whether the status was sent, or is about to be.
    pub(crate) fn has_ended(&self) -> bool {
        self.flag(FINISHED)
    }

    pub(crate) fn is_detached(&self) -> bool {
        self.flag(DETACHED)
    }

    /// Lets the call go on after its handler has returned, until it is finished.
    pub(crate) fn detach(self: &Arc<Self>) {
        let key = Arc::as_ptr(self).addr();
        let detached = (Arc::clone(self), Instant::now());
        self.shared.detached.lock().insert(key, detached);
        self.shared.detached_count.fetch_add(1, Ordering::Relaxed);
        let before = self.flags.fetch_or(DETACHED, Ordering::AcqRel);
        // Nobody else may be there to notice.
        self.watch();
        if before & (HANDLED | WRITTEN) != 0 {
            // It had ended, and who ended it has not seen that it is here.
            self.leave_detached();
        }
    }

    fn leave_detached(self: &Arc<Self>) {
        let key = Arc::as_ptr(self).addr();
        let removed = self.shared.detached.lock().remove(&key);
        if removed.is_some() {
            self.shared.detached_count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn written(self: &Arc<Self>) {
        let before = self.flags.fetch_or(WRITTEN, Ordering::AcqRel);
        if let (true, Some(number)) = (before & GIVEN_UP != 0, self.connection.get()) {
            self.shared.connections.took(*number);
        }
        if before & DETACHED != 0 {
            self.leave_detached();
        }
        self.land(before, WRITTEN);
    }

    /// Begins to send a message, once the one before it is on its way.
    pub(crate) fn send(self: &Arc<Self>, message: &Outgoing, wait: Wait) -> Result<(), SendError> {
        let mut stream = loop {
            let changes = self.changes();
            let stream = self.stream.lock();
            if self.flag(SEND_FAILED) || self.is_over() {
                return Err(SendError::Ended);
            }
            if !self.flag(SENDING) {
                break stream;
            }
            if !self.wait(stream, changes, wait) {
                return Err(SendError::Full);
            }
        };
        let told = stream.sent.get_or_insert_default().0;
        self.begin_to_send(&mut stream, message, |ops| {
            self.start_told(ops, Operation::Send, told)
        })
    }

    /// As `send`, but never waits, and the host is told ([`Host::sent`](super::Host::sent)) once the
    /// message is on its way: by an event of the queue, so it may do what it likes then.
    pub(crate) fn send_and_tell(self: &Arc<Self>, message: &Outgoing) -> Result<(), SendError> {
        let mut stream = self.stream.lock();
        if self.flag(SEND_FAILED) || self.is_over() {
            return Err(SendError::Ended);
        }
        if self.is_sending() {
            return Err(SendError::Full);
        }
        self.begin_to_send(&mut stream, message, |ops| {
            self.start(ops, Operation::SendAndTell)
        })
    }

    /// Whether a message is on its way.
    pub(crate) fn is_sending(&self) -> bool {
        self.flag(SENDING)
    }

    fn begin_to_send(
        &self,
        stream: &mut Stream,
        message: &Outgoing,
        start: impl FnOnce(&[grpc_op]) -> bool,
    ) -> Result<(), SendError> {
        let before = self
            .flags
            .fetch_or(HEADERS_SENT | SENDING, Ordering::AcqRel);
        let headers = Slices::new(&std::mem::take(&mut stream.headers));
        let buffer = message.to_buffer();
        let mut op = new_op(grpc_op_type::GRPC_OP_SEND_MESSAGE);
        op.data.send_message.send_message = buffer.as_raw();
        let ops = [headers.op(), op];
        let first = usize::from(before & HEADERS_SENT != 0);
        if start(&ops[first..]) {
            if let Some(record) = self.record() {
                record.sent(message.len());
            }
            Ok(())
        } else {
            self.flags.fetch_or(SEND_FAILED, Ordering::AcqRel);
            Err(SendError::Ended)
        }
    }

    /// Waits for the caller's next message.
    pub(crate) fn receive(self: &Arc<Self>, wait: Wait) -> Received {
        loop {
            let changes = self.changes();
            let mut stream = self.stream.lock();
            match stream.received_all {
                Some(true) => return Received::End,
                Some(false) => return Received::Ended,
                None => {}
            }
            if self.flag(RECEIVED) {
                let flags = self
                    .flags
                    .fetch_and(!(RECEIVED | RECEIVING), Ordering::AcqRel);
                // SAFETY: C-core has written it, and this thread has taken the flag away.
                if let Some(message) = unsafe { Message::from_raw(*self.received.get()) } {
                    if let Some(record) = self.record() {
                        record.received(message.len());
                    }
                    return Received::Message(message);
                }
                stream.received_all = Some(flags & RECEIVE_FAILED == 0);
                continue;
            }
            if self.is_over() {
                return Received::Ended;
            }
            if !self.flag(RECEIVING) {
                self.flags.fetch_or(RECEIVING, Ordering::AcqRel);
                let mut op = new_op(grpc_op_type::GRPC_OP_RECV_MESSAGE);
                op.data.recv_message.recv_message = self.received.get();
                let told = stream.received.get_or_insert_default().0;
                if !self.start_told(&[op], Operation::Receive, told) {
                    stream.received_all = Some(false);
                }
                // It may have come already.
                continue;
            }
            if !self.wait(stream, changes, wait) {
                return Received::TimedOut;
            }
        }
    }

    /// Whether nothing can come of sending or receiving any more. Callers need not cancel when
    /// their deadline passes, and some do not: the server keeps it, too.
    fn is_over(&self) -> bool {
        self.flag(FINISHED | CALLER_LEFT | TOLD | EXPIRED) || self.deadline_passed()
    }

    /// To be asked before a look at what `wait` is to wait for.
    fn changes(&self) -> u32 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Waits until something has changed since there were `seen` changes. False if the time is
    /// over.
    fn wait(self: &Arc<Self>, mut stream: MutexGuard<'_, Stream>, seen: u32, wait: Wait) -> bool {
        let until = match wait {
            Wait::Never => return false,
            Wait::Until(deadline) => Some(deadline),
            Wait::Forever => None,
        };
        if let Some(remaining) = self.time_to_deadline() {
            self.set_timer(&mut stream, remaining);
        }
        drop(stream);
        // Pairs with the load in `notify`: either that sees this, or the load below sees the change.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut signal = self.signal.lock();
        let mut in_time = true;
        while in_time && self.changes() == seen {
            match until {
                None => self.changed.wait(&mut signal),
                Some(until) => {
                    in_time = !self.changed.wait_until(&mut signal, until).timed_out();
                }
            }
        }
        drop(signal);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        in_time
    }

    /// Wakes all who wait.
    fn notify(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            // Whoever has looked at `changes` before sleeps by now.
            drop(self.signal.lock());
            self.changed.notify_all();
        }
    }

    /// The server wants this call to end. Says whether it had not ended already.
    pub(super) fn tell_to_stop(&self) -> bool {
        let step = |flags: u32| (flags & FINISHED == 0).then_some(flags | TOLD);
        let told = self
            .flags
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, step);
        told.is_ok() && {
            self.cancel(TOLD);
            true
        }
    }

    pub(super) fn expire(&self) {
        self.cancel(EXPIRED);
    }

    fn cancel(&self, why: u32) {
        let mut stream = self.stream.lock();
        self.flags.fetch_or(why, Ordering::AcqRel);
        let callbacks = std::mem::take(&mut stream.on_cancel);
        drop(stream);
        self.notify();
        callbacks.into_iter().for_each(|callback| callback());
    }

    /// An operation has ended; called by the thread that has its event.
    pub(super) fn completed(self: &Arc<Self>, operation: Operation) {
        match operation {
            Operation::Finish => self.written(),
            Operation::FinishWatched => {
                if self.closed_cancelled() {
                    self.flags.fetch_or(CALLER_LEFT, Ordering::AcqRel);
                }
                self.written();
            }
            Operation::Watch => {
                if self.closed_cancelled() {
                    self.cancel(CALLER_LEFT);
                    self.let_go_of_detached();
                }
            }
            Operation::Headers => {}
            Operation::SendAndTell => {
                self.flags.fetch_and(!SENDING, Ordering::AcqRel);
                self.notify();
                self.shared.host.sent(self);
            }
            Operation::Send | Operation::Receive => {
                unreachable!("these are told directly")
            }
        }
    }

    /// Whether the call was closed before its status had come through. To be asked once the watch
    /// has ended.
    fn closed_cancelled(&self) -> bool {
        // SAFETY: C-core has written it.
        unsafe { *self.close_cancelled.get() != 0 }
    }

    /// An operation of a stream has ended. See the head of this file for what may be done here.
    unsafe extern "C" fn done(tag: *mut c_void, succeeded: c_int) {
        // SAFETY: from `start_told`, and told once.
        let (call, operation) = unsafe { take_call_tag(tag) };
        let succeeded = succeeded != 0;
        if operation == Operation::Send {
            if !succeeded {
                call.flags.fetch_or(SEND_FAILED, Ordering::AcqRel);
            }
            call.flags.fetch_and(!SENDING, Ordering::AcqRel);
        } else {
            // SAFETY: the call is alive.
            let failed = unsafe { grpc_call_failed_before_recv_message(call.raw) } != 0;
            let how = if succeeded && !failed {
                0
            } else {
                RECEIVE_FAILED
            };
            call.flags.fetch_or(RECEIVED | how, Ordering::AcqRel);
        }
        call.notify();
    }

    /// As `start`, but the end is told to [`done`](Self::done).
    fn start_told(
        self: &Arc<Self>,
        ops: &[grpc_op],
        operation: Operation,
        told: *mut Completion,
    ) -> bool {
        let tag = call_tag(self, operation);
        // SAFETY: as in `start`; there is one operation of each kind at a time, so the
        // completion is free.
        let error = unsafe {
            touchdown_call_start_batch(self.raw, ops.as_ptr(), ops.len(), told, Self::done, tag)
        };
        self.is_begun(error, tag, operation)
    }

    /// Says whether C-core has begun the operations.
    fn start(self: &Arc<Self>, ops: &[grpc_op], operation: Operation) -> bool {
        let tag = call_tag(self, operation);
        // SAFETY: the call is alive, the operations point at what lives as long as
        // the call or, by C-core's contract, only for this function call.
        let error = unsafe {
            grpc_call_start_batch(
                self.raw,
                ops.as_ptr(),
                ops.len(),
                tag,
                ptr::null_mut::<c_void>(),
            )
        };
        self.is_begun(error, tag, operation)
    }

    fn is_begun(&self, error: grpc_call_error, tag: *mut c_void, operation: Operation) -> bool {
        if error == grpc_call_error::GRPC_CALL_OK {
            return true;
        }
        // SAFETY: C-core did not take the tag.
        unsafe { drop_call_tag(tag) };
        logging::error!(
            "{}: C-core refused to begin {operation:?}: {error:?}",
            self.path()
        );
        false
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(timer) = self.stream.get_mut().timer {
            self.shared.timers.remove(timer);
        }
        if *self.flags.get_mut() & RECEIVED != 0 {
            // SAFETY: C-core has written it, and nobody has taken it.
            drop(unsafe { Message::from_raw(*self.received.get()) });
        }
        // SAFETY: the last reference is gone, so no operation is outstanding.
        unsafe {
            grpc_metadata_array_destroy(&mut self.metadata);
            grpc_call_unref(self.raw);
        }
    }
}

/// How a call has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Landed {
    /// As its handler said.
    Completed,
    Refused,
    /// The caller did not wait for it.
    CallerLeft,
    /// It has ended, or could have, but its connection was cut before the answer had gone out.
    Undelivered,
    Cut,
    ToldToStop,
    Abandoned,
}

impl<'a> Ending<'a> {
    pub(crate) fn new(code: i32, message: &'a str) -> Ending<'a> {
        Ending {
            code,
            message,
            details: &[],
            retry: Retry::Unsaid,
        }
    }
}

/// Whether somebody still works on a call that is being finished.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handled {
    Yes,
    NotYet,
}

/// A status message as it goes over the wire: what is neither a space nor a visible
/// character of ASCII, and the percent sign, as `%XX`. See "Status-Message" in
/// [gRPC over HTTP/2](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
/// Spaces at its ends as well: no header field may have them there (RFC 9113, 8.2.1), and
/// some clients drop one that does.
fn percent_encoded(message: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'%';
    let inside = message.trim_matches(' ');
    if inside.len() == message.len() && message.bytes().all(is_plain) {
        return Cow::Borrowed(message);
    }
    let begin = message.len() - message.trim_start_matches(' ').len();
    let inside = begin..begin + inside.len();
    let mut encoded = String::with_capacity(message.len() * 2);
    for (place, byte) in message.bytes().enumerate() {
        if is_plain(byte) && inside.contains(&place) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    Cow::Owned(encoded)
}

fn new_op(op: grpc_op_type) -> grpc_op {
    // SAFETY: a C struct for which all zeros is the documented start.
    let mut new: grpc_op = unsafe { std::mem::zeroed() };
    new.op = op;
    new
}

/// Metadata in C-core's form.
struct Slices {
    pairs: Vec<grpc_metadata>,
    _owners: Vec<Outgoing>,
}

impl Slices {
    fn new(pairs: &[Pair]) -> Slices {
        let mut owners = Vec::with_capacity(pairs.len() * 2);
        let mut own = |bytes: &[u8]| {
            owners.push(Outgoing::copy(bytes));
            owners[owners.len() - 1].as_raw()
        };
        let pairs = pairs
            .iter()
            .map(|(key, value)| {
                // SAFETY: a C struct whose remaining fields are C-core's own.
                let mut pair: grpc_metadata = unsafe { std::mem::zeroed() };
                pair.key = own(key.as_bytes());
                pair.value = own(value);
                pair
            })
            .collect();
        Slices {
            pairs,
            _owners: owners,
        }
    }

    fn as_ptr(&self) -> *mut grpc_metadata {
        match self.pairs.as_slice() {
            [] => ptr::null_mut(),
            pairs => pairs.as_ptr().cast_mut(),
        }
    }

    fn op(&self) -> grpc_op {
        let mut op = new_op(grpc_op_type::GRPC_OP_SEND_INITIAL_METADATA);
        op.data.send_initial_metadata.count = self.pairs.len();
        op.data.send_initial_metadata.metadata = self.as_ptr();
        op
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_message_is_percent_encoded() {
        assert_eq!(percent_encoded("plain text ~"), "plain text ~");
        assert_eq!(percent_encoded(" spaces  around "), "%20spaces  around%20");
        assert_eq!(percent_encoded("  "), "%20%20");
        assert_eq!(percent_encoded("100 %\n"), "100 %25%0A");
        // From gRPC's special_status_message interop test.
        assert_eq!(
            percent_encoded("\t\ntest with whitespace\r\nand Unicode BMP \u{263a} and non-BMP \u{1f608}\t\n"),
            "%09%0Atest with whitespace%0D%0Aand Unicode BMP %E2%98%BA and non-BMP %F0%9F%98%88%09%0A"
        );
    }
}
