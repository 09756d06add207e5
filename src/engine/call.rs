//! C-core's side of a call: the [wire](Wire) of the calls that it brings.

use std::cell::UnsafeCell;
use std::ffi::{c_char, c_int, c_void, CStr};
use std::mem::MaybeUninit;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use std::{ptr, slice, thread};

use grpcio_sys::{
    gpr_clock_type, gpr_convert_clock_type, gpr_free, gpr_inf_future, gpr_now, gpr_time_cmp,
    gpr_timespec, grpc_byte_buffer, grpc_call, grpc_call_error,
    grpc_call_failed_before_recv_message, grpc_call_get_peer, grpc_call_start_batch,
    grpc_call_unref, grpc_metadata, grpc_metadata_array, grpc_metadata_array_destroy, grpc_op,
    grpc_op_type,
};

use super::batch::{new_op, send_message_op, Metadata, Operation, Told};
use super::bytes::{bytes, received, Buffer, Slice};
use super::core::Core;
use super::peer_name::address_and_number;
use super::shim::{touchdown_call_start_batch, Completion};
use super::status_message::percent_encoded;
use super::tag::{kind_of, tag, untagged};
use crate::calls::transport::{self, Event, Finish, Wire};
use crate::calls::{Call, Message, Outgoing, Pair};
use crate::logging;

// Aligned so that a tag of the call has four bits to spare; see `tag`.
#[repr(align(16))]
pub(super) struct CoreCall {
    raw: *mut grpc_call,
    deadline: gpr_timespec,
    metadata: grpc_metadata_array,
    /// Written by C-core until the event of the watch, or of the finish that
    /// contains it.
    close_cancelled: UnsafeCell<c_int>,
    /// Written by C-core until the end of the receive is told.
    received: UnsafeCell<*mut grpc_byte_buffer>,
    /// Whether C-core has, or had, the place of `close_cancelled`: it may get that once.
    is_watched: AtomicBool,
    /// Made when a message is first received or sent by itself.
    turns: OnceLock<Box<Turns>>,
    /// C-core, as long as it has the call.
    core: Arc<Core>,
}

/// Where the ends of operations are told directly.
#[derive(Default)]
struct Turns {
    receive: Turn,
    send: Turn,
}

/// Where the end of one kind of operation is told, for one after the other.
#[derive(Default)]
struct Turn {
    is_taken: AtomicBool,
    /// Made when it is first needed.
    told: OnceLock<Told>,
}

impl Turn {
    /// Takes the turn for an operation.
    fn take(&self) -> *mut Completion {
        // Pairs with the store in `CoreCall::done`.
        let was_taken = self.is_taken.swap(true, Ordering::Acquire);
        assert!(!was_taken, "the operation before has not ended");
        self.told.get_or_init(Told::default).as_raw()
    }

    fn give_back(&self) {
        self.is_taken.store(false, Ordering::Release);
    }
}

// SAFETY: C-core's calls may be used from many threads. `metadata` is read-only.
// `close_cancelled` and `received` belong to C-core from the start of the one
// operation that writes them until its event, and are read by the thread that
// has that event; `is_watched` and `receive` see to it that there is one.
unsafe impl Send for CoreCall {}
// SAFETY: as above.
unsafe impl Sync for CoreCall {}

impl CoreCall {
    /// Takes over a call, and the metadata that came with it.
    ///
    /// # Safety
    /// The call is one that C-core has just given away, bound to the queue of `core`.
    #[inline]
    pub(super) unsafe fn new(
        raw: *mut grpc_call,
        core: Arc<Core>,
        deadline: gpr_timespec,
        metadata: grpc_metadata_array,
    ) -> CoreCall {
        CoreCall {
            raw,
            deadline,
            metadata,
            close_cancelled: UnsafeCell::new(0),
            received: UnsafeCell::new(ptr::null_mut()),
            is_watched: AtomicBool::new(false),
            turns: OnceLock::new(),
            core,
        }
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

    fn turns(&self) -> &Turns {
        self.turns.get_or_init(Box::default)
    }

    #[inline]
    fn watch_op(&self) -> grpc_op {
        let was_watched = self.is_watched.swap(true, Ordering::Relaxed);
        assert!(!was_watched, "a call is watched once");
        let mut op = new_op(grpc_op_type::GRPC_OP_RECV_CLOSE_ON_SERVER);
        op.data.recv_close_on_server.cancelled = self.close_cancelled.get();
        op
    }

    /// Gives a reference to the call away, to come back with its operation.
    #[inline]
    fn tag(&self, call: &Arc<Call>, operation: Operation) -> *mut c_void {
        assert!(
            ptr::addr_eq(call.wire(), self),
            "a wire is asked for the call that it is in"
        );
        // That is the call of this wire, so it is a call of this kind.
        let pointer = Arc::into_raw(Arc::clone(call)).cast::<Call<CoreCall>>();
        tag(pointer, operation as usize)
    }

    /// Takes back what [`tag`](Self::tag) has given away.
    ///
    /// # Safety
    /// The tag is from there, and C-core does not have it any more. It comes back once.
    #[inline]
    pub(super) unsafe fn take_tag(tag: *mut c_void) -> (Arc<Call<CoreCall>>, Operation) {
        // SAFETY: as the caller promises.
        let call = unsafe { Arc::from_raw(untagged::<Call<CoreCall>>(tag)) };
        (call, Operation::from_kind(kind_of(tag)))
    }

    /// Tells a call that an operation has ended; on the thread that has its event.
    ///
    /// # Safety
    /// It has.
    #[inline]
    pub(super) unsafe fn completed(
        call: Arc<Call<CoreCall>>,
        operation: Operation,
        succeeded: bool,
    ) -> Event {
        // SAFETY: as the caller promises, so C-core has written it if it was to.
        let closed_cancelled = || unsafe { *call.wire().close_cancelled.get() != 0 };
        match operation {
            Operation::Finish => as_call(call).written(false),
            Operation::FinishWatched => {
                let caller_left = closed_cancelled();
                as_call(call).written(caller_left);
            }
            Operation::Watch => {
                let cancelled = closed_cancelled();
                as_call(call).closed(cancelled);
            }
            Operation::Headers => {}
            Operation::SendAndTell => as_call(call).sent_in_turn(),
            Operation::ReceiveInTurn => {
                // SAFETY: as the caller promises, this has ended.
                let (message, failed) = unsafe { call.wire().take_received(succeeded) };
                let call = as_call(call);
                if call.received_in_turn(message, failed) {
                    return Event::Step(call);
                }
            }
            Operation::Step => return Event::Step(call),
            Operation::Send | Operation::Receive => {
                unreachable!("these are told directly")
            }
        }
        Event::Told
    }

    /// What has come of receiving: a message, and whether that failed.
    ///
    /// # Safety
    /// It has ended, and its thread is the one that asks, once.
    unsafe fn take_received(&self, succeeded: bool) -> (Option<Message>, bool) {
        // SAFETY: the call is alive.
        let failed = unsafe { grpc_call_failed_before_recv_message(self.raw) } != 0;
        // SAFETY: C-core has written it, if it was to, and gives it away.
        let message = unsafe { received(ptr::replace(self.received.get(), ptr::null_mut())) };
        (message, failed || !succeeded)
    }

    /// An operation of a stream has ended. See [`transport`] for what may be done here.
    unsafe extern "C" fn done(tag: *mut c_void, succeeded: c_int) {
        // SAFETY: from `start_told`, and told once.
        let (owned, operation) = unsafe { Self::take_tag(tag) };
        let (call, wire): (&Call, &CoreCall) = (&*owned, owned.wire());
        let succeeded = succeeded != 0;
        if operation == Operation::Send {
            wire.turns().send.give_back();
            call.sent(succeeded);
        } else {
            // SAFETY: this has ended.
            let (message, failed) = unsafe { wire.take_received(succeeded) };
            wire.turns().receive.give_back();
            call.received(message, failed);
            // Begun before the call went on in steps.
            if call.is_stepped() {
                as_call(Arc::clone(&owned)).ask_for_step();
            }
        }
        Self::let_go(owned);
    }

    /// Drops a reference to a call on a thread of C-core's. If it is the last one to all of the server, with what the
    /// program has put into that, the rest is dropped on a thread of its own: the program's code may wait there, and
    /// so does the end of C-core, for that very thread.
    fn let_go(call: Arc<Call<CoreCall>>) {
        let Some(call) = Arc::into_inner(call) else {
            return;
        };
        let (core, ground) = (Arc::clone(&call.wire().core), Arc::clone(call.ground()));
        drop(call);
        let rest = (Arc::into_inner(core), Arc::into_inner(ground));
        if rest.0.is_none() && rest.1.is_none() {
            return;
        }
        // If there can be no thread, it is dropped here after all.
        let thread = thread::Builder::new().name("td-core-end".to_owned());
        if let Err(error) = thread.spawn(move || drop(rest)) {
            logging::debug!("no thread to end a server on: {error}");
        }
    }

    /// As `start`, but the end is told to [`done`](Self::done).
    fn start_told(
        &self,
        call: &Arc<Call>,
        ops: &[grpc_op],
        operation: Operation,
        turn: &Turn,
    ) -> bool {
        let tag = self.tag(call, operation);
        let told = turn.take();
        // SAFETY: as in `start`; it is this operation's turn, so the completion is free.
        let error = unsafe {
            touchdown_call_start_batch(self.raw, ops.as_ptr(), ops.len(), told, Self::done, tag)
        };
        let is_begun = self.is_begun(error, tag, operation);
        if !is_begun {
            turn.give_back();
        }
        is_begun
    }

    /// Says whether C-core has begun the operations.
    #[inline]
    fn start(&self, call: &Arc<Call>, ops: &[grpc_op], operation: Operation) -> bool {
        let tag = self.tag(call, operation);
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

    #[inline]
    fn is_begun(&self, error: grpc_call_error, tag: *mut c_void, operation: Operation) -> bool {
        if error == grpc_call_error::GRPC_CALL_OK {
            return true;
        }
        // SAFETY: C-core did not take the tag.
        let (call, _) = unsafe { Self::take_tag(tag) };
        logging::error!(
            "{}: C-core refused to begin {operation:?}: {error:?}",
            call.path()
        );
        false
    }
}

fn as_call(call: Arc<Call<CoreCall>>) -> Arc<Call> {
    call
}

impl Wire for CoreCall {
    fn metadata(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let pairs: &[grpc_metadata] = match self.metadata.count {
            0 => &[],
            // SAFETY: C-core filled so many, and they live as long as the call.
            count => unsafe { slice::from_raw_parts(self.metadata.metadata, count) },
        };
        let pair = pairs.get(index)?;
        Some((bytes(&pair.key), bytes(&pair.value)))
    }

    fn peer(&self) -> String {
        let numbered = self.numbered_peer();
        address_and_number(&numbered).0.to_owned()
    }

    fn connection(&self) -> Option<u64> {
        address_and_number(&self.numbered_peer()).1
    }

    fn time_to_deadline(&self) -> Option<Duration> {
        // As `gpr_inf_future` has it, on every clock.
        if self.deadline.tv_sec == i64::MAX {
            return None;
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

    fn watch(&self, call: &Arc<Call>) {
        self.start(call, &[self.watch_op()], Operation::Watch);
    }

    fn receive(&self, call: &Arc<Call>) -> bool {
        let mut op = new_op(grpc_op_type::GRPC_OP_RECV_MESSAGE);
        op.data.recv_message.recv_message = self.received.get();
        self.start_told(call, &[op], Operation::Receive, &self.turns().receive)
    }

    fn receive_in_turn(&self, call: &Arc<Call>) -> bool {
        let mut op = new_op(grpc_op_type::GRPC_OP_RECV_MESSAGE);
        op.data.recv_message.recv_message = self.received.get();
        self.start(call, &[op], Operation::ReceiveInTurn)
    }

    fn step(&self, call: &Arc<Call>) {
        let tag = self.tag(call, Operation::Step);
        if !self.core.queue.post(tag) {
            // SAFETY: made just now, and C-core does not have it.
            drop(unsafe { Self::take_tag(tag) });
        }
    }

    fn send(
        &self,
        call: &Arc<Call>,
        headers: Option<&[Pair]>,
        message: Outgoing,
        told: transport::Told,
    ) -> bool {
        let metadata = Metadata::new(headers.unwrap_or_default());
        let buffer = pin!(Buffer::new());
        let message = send_message_op(buffer.fill(Slice::of_message(message)));
        let ops = [metadata.headers_op(), message];
        let ops = &ops[usize::from(headers.is_none())..];
        match told {
            transport::Told::Directly => {
                self.start_told(call, ops, Operation::Send, &self.turns().send)
            }
            transport::Told::InTurn => self.start(call, ops, Operation::SendAndTell),
        }
    }

    fn send_headers(&self, call: &Arc<Call>, headers: &[Pair]) -> bool {
        let headers = Metadata::new(headers);
        self.start(call, &[headers.headers_op()], Operation::Headers)
    }

    fn finish(&self, call: &Arc<Call>, finish: Finish<'_>) -> bool {
        let headers = finish.headers.map(Metadata::new);
        let trailers = Metadata::new(finish.trailers);
        // Most calls end without a word.
        let text =
            (!finish.text.is_empty()).then(|| Slice::copy(percent_encoded(finish.text).as_bytes()));
        let mut text_slice = text.as_ref().map(Slice::as_raw);
        let buffer = pin!(Buffer::new());
        let mut ops = [const { MaybeUninit::<grpc_op>::uninit() }; 4];
        let mut count = 0;
        let mut push = |op| {
            ops[count].write(op);
            count += 1;
        };
        if let Some(headers) = &headers {
            push(headers.headers_op());
        }
        if let Some(message) = finish.message {
            push(send_message_op(buffer.fill(Slice::of_message(message))));
        }
        let mut status = new_op(grpc_op_type::GRPC_OP_SEND_STATUS_FROM_SERVER);
        status.data.send_status_from_server.status = finish.code;
        if let Some(text) = &mut text_slice {
            status.data.send_status_from_server.status_details = text;
        }
        status.data.send_status_from_server.trailing_metadata_count = trailers.len();
        status.data.send_status_from_server.trailing_metadata = trailers.as_ptr();
        push(status);
        let operation = match finish.watch {
            true => {
                push(self.watch_op());
                Operation::FinishWatched
            }
            false => Operation::Finish,
        };
        // SAFETY: so many were written.
        let ops = unsafe { slice::from_raw_parts(ops.as_ptr().cast::<grpc_op>(), count) };
        self.start(call, ops, operation)
    }
}

impl Drop for CoreCall {
    fn drop(&mut self) {
        // SAFETY: the last reference to the call is gone, so no operation is outstanding.
        unsafe {
            grpc_metadata_array_destroy(&mut self.metadata);
            grpc_call_unref(self.raw);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{channel, Sender};
    use std::time::Instant;

    use protobuf::well_known_types::wrappers::StringValue;

    use super::*;
    use crate::calls::transport::Settings;
    use crate::calls::{Config, Ending, Handled, Host, Landed, Message, Method, Runner};
    use crate::client::{CallOptions, Channel, Client};
    use crate::engine::transport;

    const LONG: Duration = Duration::from_secs(20);

    /// Ends every call, and gives it out. Says on which thread it was dropped itself.
    struct Keeper {
        calls: Sender<Arc<Call>>,
        dropped_on: Sender<thread::ThreadId>,
    }

    impl Host for Keeper {
        fn run(&self, call: &Arc<Call>, _: Option<Message>) {
            call.finish(None, Ending::new(5, "not here"), Handled::Yes);
            self.calls.send(Arc::clone(call)).unwrap();
        }

        fn in_flight(&self) -> usize {
            0
        }

        fn arrived(&self) {}
        fn refused(&self, _: &Arc<Call>) {}
        fn landed(&self, _: &Arc<Call>, _: Landed) {}
        fn step(&self, _: &Arc<Call>) {}

        fn sent(&self, _: &Arc<Call>) {}
        fn clients_know(&self) {}
        fn cut(&self, _: u64, _: u64) {}
        fn drained(&self) {}
    }

    impl Drop for Keeper {
        fn drop(&mut self) {
            let _ = self.dropped_on.send(thread::current().id());
        }
    }

    /// The last reference to a server may be that of an operation whose end C-core tells, on a thread of its own.
    #[test]
    fn what_is_left_of_a_server_does_not_end_on_a_thread_of_c_cores() {
        let ((calls, call), (dropped_on, is_dropped_on)) = (channel(), channel());
        let path = "/test.Keeper/Keep";
        let method = || Method::new(path.to_owned(), false, false, Duration::ZERO);
        let settings = Settings {
            concurrent_streams: 100,
            metadata_size: 16 << 10,
            keepalive_interval: LONG,
            keepalive_timeout: LONG,
            memory: 16 << 20,
            message_size: 4 << 20,
            handshake: Duration::from_secs(10),
            open_calls: 1000,
        };
        let transport = transport(&settings, &[method()]).unwrap();
        let config = Config {
            methods: vec![method()],
            listeners: Vec::new(),
            accepting: false,
            workers: 1,
            stack_size: None,
            stream_threads: 0,
            stall: Duration::ZERO,
            backlog: 1,
            backlog_bytes: 1 << 10,
            prompt_calls: 1,
            connections: 1,
            unanswered: LONG,
            handshake: LONG,
            handshakes: 64,
            open_calls: 1000,
            progress: LONG,
            lasting: crate::calls::Lasting::default(),
            lasting_public: crate::calls::Lasting::default(),
        };
        let host = Arc::new(Keeper { calls, dropped_on });
        let runner = Runner::start(transport, config, host).unwrap();
        let channel = Channel::over(runner.connect().unwrap()).unwrap();
        let client = Client::new(&channel);
        let request = StringValue::new();
        let answer =
            client.unary::<_, StringValue>(path, &request, CallOptions::new().timeout(LONG));
        assert_eq!(answer.unwrap_err().message(), "not here");
        drop((client, channel));
        assert!(runner.stop(Instant::now() + LONG));
        drop(runner);
        let call = call.recv_timeout(LONG).unwrap();
        assert!(is_dropped_on.try_recv().is_err(), "the call keeps it");

        // As C-core does it: this is its thread now.
        let pointer = Arc::into_raw(call).cast::<Call<CoreCall>>();
        let tag = tag(pointer, Operation::Send as usize);
        // SAFETY: the tag has a reference to a call of this kind, and comes back once.
        unsafe { CoreCall::done(tag, 1) };
        let thread = is_dropped_on.recv_timeout(LONG).expect("it is dropped");
        assert_ne!(thread, thread::current().id());
    }
}
