//! C-core's server: its settings, its methods, its end.

use std::ffi::{c_char, c_void, CString};
use std::ptr;
use std::time::Duration;

use grpcio_sys::{
    grpc_arg, grpc_arg_grpc_arg_value, grpc_arg_grpc_arg_value_grpc_arg_pointer, grpc_arg_type,
    grpc_channel_args, grpc_completion_queue, grpc_resource_quota_arg_vtable,
    grpc_resource_quota_create, grpc_resource_quota_resize, grpc_resource_quota_unref, grpc_server,
    grpc_server_cancel_all_calls, grpc_server_create, grpc_server_destroy,
    grpc_server_register_completion_queue, grpc_server_register_method,
    grpc_server_register_method_payload_handling as payload_handling,
    grpc_server_shutdown_and_notify, grpc_server_start,
};

use super::guard::Limits;
use super::shim::{
    touchdown_arguments_create, touchdown_arguments_destroy, touchdown_arguments_limit_calls,
    touchdown_cork, touchdown_open_calls, touchdown_server_send_goaways, touchdown_turns_begin,
    touchdown_turns_end, touchdown_turns_take, touchdown_uncork, touchdown_uncork_old, Arguments,
};
use super::tag::{bare, KIND_TURN};
use crate::calls::transport::Settings;

pub(super) struct Server {
    raw: *mut grpc_server,
    arguments: *mut Arguments,
    limits: Limits,
    acknowledge_ms: u32,
    concurrent_streams: u32,
}

// SAFETY: C-core's servers are made to be used from many threads, and the
// arguments are read-only.
unsafe impl Send for Server {}
// SAFETY: as above.
unsafe impl Sync for Server {}

impl Server {
    pub(super) fn new(queue: *mut grpc_completion_queue, settings: &Settings) -> Server {
        let (memory, open_calls) = (settings.memory, settings.open_calls);
        let limits = Limits {
            message: u32::try_from(settings.message_size).unwrap_or(u32::MAX),
            arriving: settings.memory as u64 / 2,
            metadata: settings.metadata_size,
        };
        let acknowledge_ms = u32::try_from(settings.handshake.as_millis()).unwrap_or(u32::MAX);
        let concurrent_streams = settings.concurrent_streams;
        let settings = arguments_of(settings);
        let keys: Vec<CString> = settings
            .iter()
            .map(|(key, _)| CString::new(*key).expect("a name without zeros"))
            .collect();
        let mut args: Vec<grpc_arg> = keys
            .iter()
            .zip(&settings)
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
            touchdown_arguments_limit_calls(arguments, open_calls);
            touchdown_turns_begin(arguments, queue, bare(KIND_TURN));
            grpc_resource_quota_unref(quota);
            Server {
                raw,
                arguments,
                limits,
                acknowledge_ms,
                concurrent_streams,
            }
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

    /// A round of calls is over; in the next a connection that has more has its turn.
    pub(super) fn take_turn(&self) {
        // SAFETY: the arguments are alive.
        unsafe { touchdown_turns_take(self.arguments) }
    }

    pub(super) fn send_goaways(&self) {
        // SAFETY: the server is alive.
        unsafe { touchdown_server_send_goaways(self.raw, self.arguments) }
    }

    /// On all connections.
    pub(super) fn open_calls(&self) -> usize {
        // SAFETY: the arguments are alive.
        unsafe { touchdown_open_calls(self.arguments) }
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

    /// Ends with this tag on the queue. May block for a while.
    pub(super) fn shut_down(&self, queue: *mut grpc_completion_queue, tag: *mut c_void) {
        // SAFETY: the server and the queue are alive; the tag is not looked into.
        unsafe { grpc_server_shutdown_and_notify(self.raw, queue, tag) }
    }

    pub(super) fn as_raw(&self) -> *mut grpc_server {
        self.raw
    }

    /// What its connections are held to.
    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// How many calls may be open on a connection of which nothing else is said.
    pub(super) fn concurrent_streams(&self) -> u32 {
        self.concurrent_streams
    }

    /// How long a client may take to acknowledge the server's settings.
    pub(super) fn acknowledge_ms(&self) -> u32 {
        self.acknowledge_ms
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
            // Connections may outlive this, and the queue does not.
            touchdown_turns_end(self.arguments);
            touchdown_arguments_destroy(self.arguments);
            grpc_server_destroy(self.raw);
        }
    }
}

/// C-core's channel arguments.
fn arguments_of(settings: &Settings) -> Vec<(&'static str, i32)> {
    let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    let milliseconds = |value: Duration| match i32::try_from(value.as_millis()) {
        // What is exactly as long is taken for C-core's wait for the answer to GOAWAY: see
        // `kGoawayTime` in engine/cc/event_engine.cc.
        Ok(20_000) => 20_001,
        Ok(it) => it,
        Err(_) => i32::MAX,
    };
    let metadata = number(settings.metadata_size);
    vec![
        // See `kHttpFilter` in engine/cc/filters.cc.
        ("touchdown.server", 1),
        // C-core forgets a call a moment after its end is written. A client that keeps as many calls open as it may would
        // sometimes seem to have one too many, for which C-core ends the connection. So the guard counts, and the number
        // is written into what C-core sends: `Announce` in engine/cc/connection_traffic.cc.
        ("grpc.max_concurrent_streams", i32::MAX),
        // Above the first C-core refuses some calls, at random, and above the second all.
        ("grpc.max_metadata_size", metadata),
        ("grpc.absolute_max_metadata_size", metadata),
        (
            "grpc.keepalive_time_ms",
            milliseconds(settings.keepalive_interval),
        ),
        (
            "grpc.keepalive_timeout_ms",
            milliseconds(settings.keepalive_timeout),
        ),
        // A connection without calls is probed, too: that is the one that nobody misses.
        ("grpc.keepalive_permit_without_calls", 1),
        // How often clients may ping the guard says. C-core would count each ping that comes a
        // moment early against the connection for as long as there is no call on it.
        ("grpc.http2.max_ping_strikes", 0),
        // Deadlines are kept by touchdown, where somebody asks for them. C-core's check
        // cancels the call, after which strict clients drop the whole connection.
        ("grpc.enable_deadline_checking", 0),
        // Bookkeeping that nothing here reads.
        ("grpc.enable_channelz", 0),
        // No pings to measure the bandwidth with; the window is fixed instead, at
        // what a link of 10 ms and 200 Mbit/s can fill.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", 256 << 10),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_keepalive_is_taken_for_the_wait_for_goaways_answer() {
        let settings = Settings {
            concurrent_streams: 100,
            metadata_size: 16 << 10,
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::MAX,
            memory: 16 << 20,
            message_size: 4 << 20,
            handshake: Duration::from_secs(10),
            open_calls: 1000,
        };
        let arguments = arguments_of(&settings);
        let get = |name| arguments.iter().find(|(it, _)| *it == name).unwrap().1;
        assert_eq!(get("grpc.keepalive_time_ms"), 20_001);
        // What does not fit is as much as fits.
        assert_eq!(get("grpc.keepalive_timeout_ms"), i32::MAX);
    }
}
