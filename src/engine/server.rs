//! C-core's server: its arguments, its methods, its end.

use std::ffi::{c_char, c_void, CString};
use std::ptr;

use grpcio_sys::{
    grpc_arg, grpc_arg_grpc_arg_value, grpc_arg_grpc_arg_value_grpc_arg_pointer, grpc_arg_type,
    grpc_channel_args, grpc_completion_queue, grpc_resource_quota_arg_vtable,
    grpc_resource_quota_create, grpc_resource_quota_resize, grpc_resource_quota_unref, grpc_server,
    grpc_server_cancel_all_calls, grpc_server_create, grpc_server_destroy,
    grpc_server_register_completion_queue, grpc_server_register_method,
    grpc_server_register_method_payload_handling as payload_handling,
    grpc_server_shutdown_and_notify, grpc_server_start,
};

use super::queue::server_tag;
use super::shim::{
    touchdown_arguments_create, touchdown_arguments_destroy, touchdown_cork,
    touchdown_server_send_goaways, touchdown_uncork, touchdown_uncork_old, Arguments,
};

pub(super) struct Server {
    raw: *mut grpc_server,
    arguments: *mut Arguments,
}

// SAFETY: C-core's servers are made to be used from many threads, and the
// arguments are read-only.
unsafe impl Send for Server {}
// SAFETY: as above.
unsafe impl Sync for Server {}

impl Server {
    /// `memory` is how many bytes may be taken for what has not fully arrived.
    pub(super) fn new(
        queue: *mut grpc_completion_queue,
        settings: &[(&str, i32)],
        memory: usize,
    ) -> Server {
        let keys: Vec<CString> = settings
            .iter()
            .map(|(key, _)| CString::new(*key).expect("a name without zeros"))
            .collect();
        let mut args: Vec<grpc_arg> = keys
            .iter()
            .zip(settings)
            .map(|(key, (_, value))| grpc_arg {
                type_: grpc_arg_type::GRPC_ARG_INTEGER,
                key: key.as_ptr().cast_mut(),
                value: grpc_arg_grpc_arg_value { integer: *value },
            })
            .collect();
        // SAFETY: a new quota; the name is copied.
        let quota = unsafe { grpc_resource_quota_create(c"touchdown".as_ptr()) };
        args.push(grpc_arg {
            type_: grpc_arg_type::GRPC_ARG_POINTER,
            key: c"grpc.resource_quota".as_ptr().cast_mut(),
            value: grpc_arg_grpc_arg_value {
                pointer: grpc_arg_grpc_arg_value_grpc_arg_pointer {
                    p: quota.cast(),
                    // SAFETY: returns a constant.
                    vtable: unsafe { grpc_resource_quota_arg_vtable() },
                },
            },
        });
        let args = grpc_channel_args {
            num_args: args.len(),
            args: args.as_mut_ptr(),
        };
        // SAFETY: C-core copies the arguments, with references of its own to the quota;
        // the queue outlives the server, which holds a reference to it.
        unsafe {
            // C-core counts in a signed number: above its end, nothing would be left from the start.
            grpc_resource_quota_resize(quota, memory.min(isize::MAX.unsigned_abs()));
            let raw = grpc_server_create(&args, ptr::null_mut());
            grpc_server_register_completion_queue(raw, queue, ptr::null_mut());
            let arguments = touchdown_arguments_create(&args);
            grpc_resource_quota_unref(quota);
            Server { raw, arguments }
        }
    }

    /// Before `start`. `None` if the path is registered already.
    pub(super) fn register(&self, path: &str, with_message: bool) -> Option<*mut c_void> {
        let path = CString::new(path).ok()?;
        let handling = if with_message {
            payload_handling::GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER
        } else {
            payload_handling::GRPC_SRM_PAYLOAD_NONE
        };
        // SAFETY: C-core copies the path.
        let handle = unsafe {
            let any_host: *const c_char = ptr::null();
            grpc_server_register_method(self.raw, path.as_ptr(), any_host, handling, 0)
        };
        (!handle.is_null()).then_some(handle)
    }

    pub(super) fn start(&self) {
        // SAFETY: called once, after all methods are registered.
        unsafe { grpc_server_start(self.raw) }
    }

    pub(super) fn send_goaways(&self) {
        // SAFETY: the server is alive.
        unsafe { touchdown_server_send_goaways(self.raw, self.arguments) }
    }

    /// Lets what this thread writes for this server wait for [`uncork`](Self::uncork).
    pub(super) fn cork(&self) {
        // SAFETY: the arguments are alive; only their address is kept.
        unsafe { touchdown_cork(self.arguments) }
    }

    /// Writes everything of this server that waits, whichever thread has corked it.
    pub(super) fn uncork(&self) {
        // SAFETY: the arguments are alive.
        unsafe { touchdown_uncork(self.arguments) }
    }

    /// As `uncork`, and lets nothing wait any more that is written by threads that have
    /// corked before the last call of this.
    pub(super) fn uncork_old(&self) {
        // SAFETY: the arguments are alive.
        unsafe { touchdown_uncork_old(self.arguments) }
    }

    pub(super) fn cancel_all_calls(&self) {
        // SAFETY: the server is alive.
        unsafe { grpc_server_cancel_all_calls(self.raw) }
    }

    /// Ends with `Event::ServerStopped`. May block for a while.
    pub(super) fn shut_down(&self, queue: *mut grpc_completion_queue) {
        // SAFETY: the server and the queue are alive.
        unsafe { grpc_server_shutdown_and_notify(self.raw, queue, server_tag()) }
    }

    pub(super) fn as_raw(&self) -> *mut grpc_server {
        self.raw
    }

    pub(super) fn arguments(&self) -> *const Arguments {
        self.arguments
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SAFETY: the last reference is gone; the threads that held the others ran
        // until the server was shut down.
        unsafe {
            touchdown_arguments_destroy(self.arguments);
            grpc_server_destroy(self.raw);
        }
    }
}

/// A quarter of the machine's memory, or of what a process can address if that is less, in bytes, but
/// 16 MiB at the least.
pub(crate) fn quarter_of_memory() -> usize {
    // SAFETY: system calls without memory; they say -1 for what they do not know.
    let (pages, size) = unsafe {
        (
            libc::sysconf(libc::_SC_PHYS_PAGES),
            libc::sysconf(libc::_SC_PAGESIZE),
        )
    };
    let pages = usize::try_from(pages).unwrap_or(0);
    let size = usize::try_from(size).unwrap_or(0);
    (pages / 4)
        .saturating_mul(size)
        .clamp(16 << 20, usize::MAX / 4)
}
