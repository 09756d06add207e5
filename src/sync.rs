//! The seam: everything by which the lifecycle, the workers' roster and the health board share memory, wait,
//! wake, start threads or learn the time.
//!
//! Here these are the plain ones, so the seam costs nothing. The models in tests/models compile the same
//! sources against a seam of their own, in which a scheduler decides who runs next and time is virtual. So
//! what is in the modelled files goes through this module, and this module offers no more than they need.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::PoisonError;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

use crate::descriptors::explained;

pub(crate) use crossbeam_channel::{bounded, unbounded, Receiver, RecvTimeoutError, Sender};
pub(crate) use parking_lot::{Condvar, Mutex};
pub(crate) use std::sync::{Arc, OnceLock, Weak};
pub(crate) use std::time::Instant;

/// A lock that takes no memory, whatever other threads are at. (Those of parking_lot wait in a table that all of them
/// share, and that grows with the number of threads.) A panic while it is held changes nothing.
#[derive(Default)]
pub(crate) struct BareMutex<T>(std::sync::Mutex<T>);

impl<T> BareMutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Goes with a [`BareMutex`].
pub(crate) struct BareCondvar(std::sync::Condvar);

impl BareCondvar {
    pub(crate) const fn new() -> Self {
        Self(std::sync::Condvar::new())
    }

    pub(crate) fn wait<'a, T>(
        &self,
        guard: std::sync::MutexGuard<'a, T>,
    ) -> std::sync::MutexGuard<'a, T> {
        self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }
}

pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::{fence, AtomicBool, AtomicU8, AtomicUsize, Ordering};
}

pub(crate) mod thread {
    pub(crate) use std::thread::{current, Builder, JoinHandle, ThreadId};
}

/// The calling thread as the kernel numbers it.
pub(crate) fn kernel_id() -> u32 {
    nix::unistd::gettid().as_raw().unsigned_abs()
}

/// Wakes the one thread that sleeps on the other end. Ringing never blocks, and what is rung while
/// that thread is awake is not lost.
pub(crate) struct Bell(UnixStream);

/// The other end of a [`Bell`].
pub(crate) struct Sleeper(UnixStream);

/// A bell and who sleeps until it rings.
pub(crate) fn bell() -> io::Result<(Bell, Sleeper)> {
    let (bell, sleeper) = UnixStream::pair().map_err(explained)?;
    // A full socket must not block who rings; a byte more would wake nobody anyway.
    bell.set_nonblocking(true)?;
    Ok((Bell(bell), Sleeper(sleeper)))
}

impl Bell {
    pub(crate) fn ring(&self) {
        // Fails only if the socket is full, and then the sleeper wakes anyway.
        let _ = (&self.0).write(&[0]);
    }

    pub(crate) fn try_clone(&self) -> io::Result<Bell> {
        self.0.try_clone().map(Bell).map_err(explained)
    }

    /// Rings whenever `signal` arrives, until the registration is taken back.
    pub(crate) fn ring_on(&self, signal: i32) -> io::Result<signal_hook::SigId> {
        let socket = self.0.try_clone().map_err(explained)?;
        signal_hook::low_level::pipe::register(signal, socket)
    }
}

impl Sleeper {
    /// Sleeps until the bell rings, or `limit`, which is not zero, is over. May wake early.
    pub(crate) fn sleep(&self, limit: Option<std::time::Duration>) {
        let _ = self.0.set_read_timeout(limit);
        // Whatever this returns (bytes, the end of the time, an interruption), the caller looks
        // at what there is to do. A socket with a read timeout is interrupted by every signal.
        let _ = (&self.0).read(&mut [0; 64]);
    }
}

/// The process's standard error by a descriptor of its own: another thread may hold the lock of
/// Rust's, for ever.
pub(crate) fn standard_error() -> io::Result<File> {
    io::stderr().as_fd().try_clone_to_owned().map(File::from)
}

/// While this lives, the calling thread is not interrupted by the signals it was made for: they wait. Then it is as
/// before.
pub(crate) struct HeldSignals(SigSet);

pub(crate) fn hold_signals(signals: &[i32]) -> io::Result<HeldSignals> {
    let mut held = SigSet::empty();
    for signal in signals {
        held.add(Signal::try_from(*signal)?);
    }
    Ok(HeldSignals(held.thread_swap_mask(SigmaskHow::SIG_BLOCK)?))
}

impl HeldSignals {
    /// Ends this, and from now on these signals reach the thread, and what it starts, whether they did before or not.
    pub(crate) fn let_in(mut self, signals: impl Iterator<Item = i32>) -> io::Result<()> {
        for signal in signals {
            self.0.remove(Signal::try_from(signal)?);
        }
        Ok(())
    }
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        // Fails for a mask that is none, and this one was the thread's.
        let _ = self.0.thread_set_mask();
    }
}
