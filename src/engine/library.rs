//! C-core as a whole: started with its first user, ended with its last, and its
//! log lines sent to `log`.

use std::ffi::CStr;
use std::sync::Once;
use std::thread;
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;
use grpcio_sys::{
    gpr_log_func_args, gpr_log_severity, gpr_set_log_function, gpr_set_log_verbosity, grpc_init,
    grpc_shutdown,
};
use log::{Level, LevelFilter};

/// Keeps C-core started.
pub(super) struct Library(());

impl Library {
    pub(super) fn acquire() -> Library {
        static LOG: Once = Once::new();
        // SAFETY: these may be called at any time, and `forward` is what C-core expects.
        unsafe {
            LOG.call_once(|| {
                gpr_set_log_verbosity(verbosity(log::max_level()));
                gpr_set_log_function(Some(forward));
            });
            grpc_init();
        }
        Library(())
    }
}

/// How long the end of C-core is waited for. It takes a millisecond or two, but
/// ten seconds if one of its threads has been looking after a socket that could
/// not be written to; the program must not stand still as long.
const PATIENCE: Duration = Duration::from_millis(250);

impl Drop for Library {
    fn drop(&mut self) {
        let (ended, end) = crossbeam_channel::bounded::<()>(0);
        let thread = thread::Builder::new().name("td-core-end".to_owned());
        let end_of_core = move || {
            // SAFETY: pairs with the `grpc_init` of `acquire`.
            unsafe { grpc_shutdown() };
            drop(ended);
        };
        match thread.spawn(end_of_core) {
            // Joined, so that nothing is left of it when all went well.
            Ok(thread) => {
                let left = end.recv_timeout(PATIENCE);
                if left == Err(RecvTimeoutError::Disconnected) {
                    let _ = thread.join();
                }
            }
            // C-core just stays.
            Err(error) => log::debug!("no thread to end C-core on: {error}"),
        }
    }
}

fn verbosity(level: LevelFilter) -> gpr_log_severity {
    match level {
        LevelFilter::Trace => gpr_log_severity::GPR_LOG_SEVERITY_DEBUG,
        LevelFilter::Debug => gpr_log_severity::GPR_LOG_SEVERITY_INFO,
        _ => gpr_log_severity::GPR_LOG_SEVERITY_ERROR,
    }
}

unsafe extern "C" fn forward(args: *mut gpr_log_func_args) {
    // SAFETY: C-core passes arguments that live for the length of the call.
    let args = unsafe { &*args };
    let level = match args.severity {
        gpr_log_severity::GPR_LOG_SEVERITY_ERROR => Level::Error,
        // What C-core takes for news is of no use to who runs the program.
        gpr_log_severity::GPR_LOG_SEVERITY_INFO => Level::Debug,
        gpr_log_severity::GPR_LOG_SEVERITY_DEBUG => Level::Trace,
    };
    // A panicking logger must not unwind into C++.
    let _ = std::panic::catch_unwind(|| {
        // SAFETY: strings of C-core, ended by a zero.
        let (file, message) = unsafe { (CStr::from_ptr(args.file), CStr::from_ptr(args.message)) };
        let file = file.to_string_lossy();
        log::logger().log(
            &log::Record::builder()
                .level(level)
                .target("touchdown::core")
                .file(Some(&file))
                .line(u32::try_from(args.line).ok())
                .args(format_args!("{}", message.to_string_lossy()))
                .build(),
        );
    });
}
