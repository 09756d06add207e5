//! The functions of `cc/shim.cc` and `cc/threads.cc`; `cc/shim.h` says what they do.

use std::ffi::{c_char, c_int, c_void};
use std::io::IoSlice;

use grpcio_sys::{
    grpc_call, grpc_call_error, grpc_channel_args, grpc_completion_queue, grpc_op, grpc_server,
    grpc_slice_buffer,
};

#[repr(C)]
pub(super) struct Connection {
    _opaque: [u8; 0],
}

/// `touchdown_connection_view`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ConnectionView {
    pub received: u64,
    pub arrived: u64,
    pub calls: u64,
    pub open: u32,
    pub undelivered: u32,
    pub writing: u32,
    pub arrived_of_write: u32,
    pub unread: i32,
    pub unacknowledged: i32,
    pub queued: i32,
    pub idle: u64,
    pub mid_frame: bool,
    pub acknowledged: bool,
    pub ping_arrived: bool,
    pub over: bool,
    pub gone: bool,
}

pub(super) const FINISHED: c_int = 0;
pub(super) const NOT_YET: c_int = 1;

#[repr(C)]
pub(super) struct ConnectionEvents {
    pub opened: unsafe extern "C" fn(*mut c_void, *mut Connection),
    pub ready: unsafe extern "C" fn(*mut c_void),
    pub sent_away: unsafe extern "C" fn(*mut c_void, u32, *const c_char, c_int),
    pub busy: unsafe extern "C" fn(*mut c_void),
    pub crowded: unsafe extern "C" fn(*mut c_void),
    pub lingering: unsafe extern "C" fn(*mut c_void),
    pub closed: unsafe extern "C" fn(*mut c_void, u32),
}

#[repr(C)]
pub(super) struct Guard {
    _opaque: [u8; 0],
}

#[repr(C)]
pub(super) struct GuardFunctions {
    pub begins: unsafe extern "C" fn(*mut Guard, u64, u32, c_int, u64) -> c_int,
    pub goes_on: unsafe extern "C" fn(*mut Guard, *mut u8, usize) -> c_int,
    pub written: unsafe extern "C" fn(*mut Guard, u32, u64, u32, u64) -> c_int,
    pub ended: unsafe extern "C" fn(*mut Guard, u32),
    pub overdue: unsafe extern "C" fn(*mut Guard, c_int) -> c_int,
    pub fault: unsafe extern "C" fn(*mut Guard, *mut u32) -> *const c_char,
    pub destroy: unsafe extern "C" fn(*mut Guard),
}

/// `touchdown_newcomer`.
#[repr(C)]
pub(super) struct Newcomer {
    pub fd: c_int,
    pub peer: *const c_char,
    pub events: *const ConnectionEvents,
    pub arg: *mut c_void,
    pub guard_functions: *const GuardFunctions,
    pub guard: *mut Guard,
    pub acknowledge_ms: u32,
    pub most_calls: u32,
    pub tls: *const TlsFunctions,
    pub session: *mut TlsSession,
}

#[repr(C)]
pub(super) struct TlsSession {
    _opaque: [u8; 0],
}

#[repr(C)]
pub(super) struct TlsFunctions {
    pub state: unsafe extern "C" fn(*const TlsSession) -> c_int,
    pub take_in: unsafe extern "C" fn(*mut TlsSession, *const u8, usize) -> usize,
    pub take_decrypted: unsafe extern "C" fn(*mut TlsSession, *mut u8, usize) -> usize,
    /// An `IoSlice` is an iovec: its documentation guarantees that.
    pub encrypt: unsafe extern "C" fn(*mut TlsSession, *const IoSlice<'_>, usize) -> usize,
    pub take_out: unsafe extern "C" fn(*mut TlsSession, *mut grpc_slice_buffer),
    pub close: unsafe extern "C" fn(*mut TlsSession),
    pub ended: unsafe extern "C" fn(*mut TlsSession),
    pub destroy: unsafe extern "C" fn(*mut TlsSession),
}

#[repr(C)]
pub(super) struct Arguments {
    _opaque: [u8; 0],
}

#[repr(C)]
pub(super) struct Completion {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    pub(super) fn touchdown_arguments_create(args: *const grpc_channel_args) -> *mut Arguments;
    pub(super) fn touchdown_arguments_destroy(arguments: *mut Arguments);
    pub(super) fn touchdown_server_add_connection(
        server: *mut grpc_server,
        queue: *mut grpc_completion_queue,
        arguments: *const Arguments,
        newcomer: *const Newcomer,
    ) -> c_int;
    pub(super) fn touchdown_connection_reference(connection: *mut Connection);
    pub(super) fn touchdown_connection_release(connection: *mut Connection);
    pub(super) fn touchdown_connection_look(connection: *mut Connection, view: *mut ConnectionView);
    pub(super) fn touchdown_connection_finish(connection: *mut Connection) -> c_int;
    pub(super) fn touchdown_connection_send_away(connection: *mut Connection) -> c_int;
    pub(super) fn touchdown_connection_blame(connection: *mut Connection);
    pub(super) fn touchdown_connection_pass_span(
        connection: *mut Connection,
        least: u32,
        counts: c_int,
        spans: u8,
    ) -> usize;
    pub(super) fn touchdown_connection_rest(connection: *mut Connection, calls: u32) -> c_int;
    pub(super) fn touchdown_turns_begin(
        arguments: *const Arguments,
        queue: *mut grpc_completion_queue,
        tag: *mut c_void,
    );
    pub(super) fn touchdown_turns_end(arguments: *const Arguments);
    pub(super) fn touchdown_turns_take(arguments: *const Arguments);
    pub(super) fn touchdown_arguments_limit_calls(arguments: *const Arguments, calls: usize);
    pub(super) fn touchdown_open_calls(arguments: *const Arguments) -> usize;
    pub(super) fn touchdown_server_send_goaways(
        server: *mut grpc_server,
        arguments: *const Arguments,
    );
    pub(super) safe fn touchdown_completion_create() -> *mut Completion;
    pub(super) fn touchdown_completion_destroy(completion: *mut Completion);
    pub(super) fn touchdown_call_start_batch(
        call: *mut grpc_call,
        ops: *const grpc_op,
        count: usize,
        completion: *mut Completion,
        done: unsafe extern "C" fn(*mut c_void, c_int),
        arg: *mut c_void,
    ) -> grpc_call_error;
    pub(super) fn touchdown_call_fault(call: *mut grpc_call) -> c_int;
    pub(super) fn touchdown_call_takes_a_stream(call: *mut grpc_call);
    pub(super) static touchdown_flaws: [u8; 4];
    pub(super) fn touchdown_cork(arguments: *const Arguments);
    pub(super) fn touchdown_uncork(arguments: *const Arguments);
    pub(super) fn touchdown_uncork_old(arguments: *const Arguments);
    pub(super) fn touchdown_end_spare_threads();
    pub(super) safe fn touchdown_renew_threads();
    pub(super) fn touchdown_queue_poll(queue: *mut grpc_completion_queue, looks: c_int);
    pub(super) fn touchdown_queue_post(
        queue: *mut grpc_completion_queue,
        tag: *mut c_void,
    ) -> c_int;
}
