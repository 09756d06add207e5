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

use super::shim;
use crate::calls::log_limit::LogLimit;
use crate::logging;
use crate::os::memory;

/// Keeps C-core started.
pub(super) struct Library(());

impl Library {
    pub(super) fn acquire() -> Library {
        static LOG: Once = Once::new();
        memory::bound_arenas();
        // SAFETY: these may be called at any time, the last one once C-core is started, and
        // `forward` is what C-core expects.
        unsafe {
            LOG.call_once(|| {
                gpr_set_log_verbosity(verbosity(log::max_level()));
                gpr_set_log_function(Some(forward));
            });
            grpc_init();
            shim::touchdown_end_spare_threads();
        }
        Library(())
    }

    /// Leaves C-core as it is until the process ends.
    pub(super) fn keep() {
        static KEPT: Once = Once::new();
        KEPT.call_once(|| std::mem::forget(Library::acquire()));
    }
}

/// How long the end of C-core is waited for. It takes a millisecond or two, but
/// ten seconds if something of C-core's is still in use, or if GRPC_POLL_STRATEGY has
/// brought back the thread that looks after sockets that cannot be written to; the
/// program must not stand still as long.
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
            Err(error) => logging::debug!("no thread to end C-core on: {error}"),
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

/// What C-core says is told from what touchdown does.
const TARGET: &str = "touchdown::core";

unsafe extern "C" fn forward(args: *mut gpr_log_func_args) {
    // Most errors are what clients cause.
    static ERRORS: LogLimit = LogLimit::new();
    // SAFETY: C-core passes arguments that live for the length of the call.
    let args = unsafe { &*args };
    let skipped = match args.severity {
        gpr_log_severity::GPR_LOG_SEVERITY_ERROR => match ERRORS.admits() {
            Some(skipped) => skipped,
            None => return,
        },
        _ => 0,
    };
    let level = match args.severity {
        gpr_log_severity::GPR_LOG_SEVERITY_ERROR => Level::Error,
        // What C-core takes for news is of no use to who runs the program.
        gpr_log_severity::GPR_LOG_SEVERITY_INFO => Level::Debug,
        gpr_log_severity::GPR_LOG_SEVERITY_DEBUG => Level::Trace,
    };
    // A panicking logger must not unwind into C++.
    let _ = std::panic::catch_unwind(|| {
        if skipped > 0 {
            logging::warn!("{skipped} more errors of C-core were not logged");
        }
        if !logging::may_be_enabled(level) {
            return;
        }
        // SAFETY: strings of C-core, ended by a zero.
        let (file, message) = unsafe { (CStr::from_ptr(args.file), CStr::from_ptr(args.message)) };
        logging::say(logging::Line {
            level,
            target: TARGET,
            module: None,
            file: Some(file.to_string_lossy().into_owned().into()),
            number: u32::try_from(args.line).ok(),
            pairs: Vec::new(),
            text: message.to_string_lossy().into_owned(),
        });
    });
}
