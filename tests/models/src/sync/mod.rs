//! The seam as the models have it: what src/sync.rs of touchdown offers, made so that shuttle's scheduler
//! decides who runs next, and so that time is virtual.
//!
//! Every operation by which one thread can influence another begins with a scheduling point, and what
//! follows up to the next one is atomic. Atomics are sequentially consistent, whatever ordering is named:
//! the orderings are what loom is for.

mod bell;
mod channel;
mod lock;
pub mod time;
mod waiter;

pub use self::bell::{bell, hold_signals, standard_error, Bell, Sleeper};
pub use self::channel::{bounded, unbounded, Receiver, Sender};
/// There is no other.
pub use self::lock::Mutex as BareMutex;
pub use self::lock::{BareCondvar, Condvar, Mutex, MutexGuard, OnceLock, WaitTimeoutResult};
pub use self::time::Instant;
pub use crossbeam_channel::RecvTimeoutError;
pub use shuttle::sync::{Arc, Weak};
pub use shuttle::thread;

pub mod atomic {
    pub use shuttle::sync::atomic::{fence, AtomicBool, AtomicU8, AtomicUsize, Ordering};
}

/// Nobody is asked for stacks.
pub fn kernel_id() -> u32 {
    0
}

/// Lets the scheduler decide who goes on.
fn switch() {
    // A destructor that runs while a failed execution is taken down has nobody to switch to.
    if !std::thread::panicking() {
        shuttle_engine::runtime::thread::switch();
    }
}
