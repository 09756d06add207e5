//! The bell that wakes the guard thread.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::switch;
use super::time;
use super::waiter::Waiter;

#[derive(Default)]
struct State {
    /// Rung, and not heard yet.
    rung: bool,
    waiter: Option<Arc<Waiter>>,
}

pub struct Bell(Arc<Mutex<State>>);

pub struct Sleeper(Arc<Mutex<State>>);

pub fn bell() -> io::Result<(Bell, Sleeper)> {
    let state = Arc::<Mutex<State>>::default();
    Ok((Bell(Arc::clone(&state)), Sleeper(state)))
}

impl Bell {
    pub fn ring(&self) {
        switch();
        let mut state = lock(&self.0);
        state.rung = true;
        if let Some(waiter) = state.waiter.take() {
            waiter.wake();
        }
    }

    pub fn try_clone(&self) -> io::Result<Bell> {
        Ok(Bell(Arc::clone(&self.0)))
    }

    pub fn ring_on(&self, _signal: i32) -> io::Result<signal_hook::SigId> {
        // Signals of the process come from outside; the models inject theirs.
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Sleeper {
    pub fn sleep(&self, limit: Option<Duration>) {
        switch();
        if !lock(&self.0).rung {
            let deadline = limit.and_then(|limit| time::now().checked_add(limit));
            let waiter = Waiter::new(deadline);
            lock(&self.0).waiter = Some(Arc::clone(&waiter));
            waiter.wait();
        }
        lock(&self.0).rung = false;
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Last words are spoken, but thousands of times, so nobody shall read them.
pub fn standard_error() -> io::Result<File> {
    File::options().write(true).open("/dev/null")
}

/// Nothing interrupts a model.
pub struct HeldSignals;

impl HeldSignals {
    pub fn let_in(self, _signals: impl Iterator<Item = i32>) -> io::Result<()> {
        Ok(())
    }
}

pub fn hold_signals(_signals: &[i32]) -> io::Result<HeldSignals> {
    Ok(HeldSignals)
}
