//! The guard as `engine/cc/guard.h` asks for it.

use std::ffi::{c_char, c_int};
use std::slice;

use super::super::shim;
use super::{Frame, Guard, Limits, Verdict};

pub(in super::super) static FUNCTIONS: shim::GuardFunctions = shim::GuardFunctions {
    begins,
    goes_on,
    written,
    ended,
    overdue,
    fault,
    destroy,
};

/// A guard for one connection, which `destroy` takes back.
pub(in super::super) fn guard(limits: Limits) -> *mut shim::Guard {
    Box::into_raw(Box::new(Guard::new(limits))).cast()
}

/// The numbers of `touchdown_verdict`.
fn number(verdict: Verdict) -> c_int {
    match verdict {
        Verdict::Pass => 0,
        Verdict::Look => 1,
        Verdict::Open => 2,
        Verdict::Swallow => 3,
        Verdict::Divert => 4,
        Verdict::SendAway => 5,
        Verdict::Cut => 6,
    }
}

/// # Safety
/// It is from `guard`, and was not destroyed; nobody else uses it.
unsafe fn from<'a>(guard: *mut shim::Guard) -> &'a mut Guard {
    // SAFETY: as the caller promises.
    unsafe { &mut *guard.cast::<Guard>() }
}

unsafe extern "C" fn begins(
    guard: *mut shim::Guard,
    head: u64,
    stream: u32,
    is_open: c_int,
    now: u64,
) -> c_int {
    // SAFETY: the connection calls with its lock held, until it destroys the guard.
    let guard = unsafe { from(guard) };
    let frame = Frame {
        length: (head >> 40) as u32,
        kind: (head >> 32) as u8,
        flags: (head >> 24) as u8,
        stream,
        is_open: is_open != 0,
    };
    number(guard.begins(frame, now))
}

unsafe extern "C" fn goes_on(guard: *mut shim::Guard, bytes: *mut u8, count: usize) -> c_int {
    // SAFETY: as in `begins`; the caller has so many bytes, at least one, and nobody else looks at them.
    let (guard, bytes) = unsafe { (from(guard), slice::from_raw_parts_mut(bytes, count)) };
    number(guard.goes_on(bytes))
}

unsafe extern "C" fn written(
    guard: *mut shim::Guard,
    frames: u32,
    data: u64,
    resets: u32,
    now: u64,
) -> c_int {
    // SAFETY: as in `begins`.
    number(unsafe { from(guard) }.written(frames, data, resets, now))
}

unsafe extern "C" fn ended(guard: *mut shim::Guard, stream: u32) {
    // SAFETY: as in `begins`.
    unsafe { from(guard) }.ended(stream);
}

unsafe extern "C" fn overdue(guard: *mut shim::Guard, are_headers: c_int) -> c_int {
    // SAFETY: as in `begins`.
    number(unsafe { from(guard) }.overdue(are_headers != 0))
}

unsafe extern "C" fn fault(guard: *mut shim::Guard, code: *mut u32) -> *const c_char {
    // SAFETY: as in `begins`, and the caller has room for the code.
    unsafe {
        let fault = from(guard).fault;
        *code = fault.code;
        fault.text.as_ptr()
    }
}

unsafe extern "C" fn destroy(guard: *mut shim::Guard) {
    // SAFETY: from `guard`, and this is the last call with it.
    drop(unsafe { Box::from_raw(guard.cast::<Guard>()) });
}
