//! Locks with the interface of parking_lot.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use shuttle::rand::Rng;

use super::switch;
use super::time::{self, Instant};
use super::waiter::Waiter;

#[derive(Default)]
pub struct Mutex<T>(shuttle::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub const fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard {
            mutex: self,
            guard: Some(self.lock_inner()),
        }
    }

    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        use std::sync::TryLockError;
        let guard = match self.0.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(MutexGuard {
            mutex: self,
            guard: Some(guard),
        })
    }

    fn lock_inner(&self) -> shuttle::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As [`Condvar`], with the interface of the standard library's.
pub struct BareCondvar(Condvar);

impl BareCondvar {
    pub const fn new() -> Self {
        Self(Condvar::new())
    }

    pub fn wait<'a, T>(&self, mut guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(&mut guard);
        guard
    }

    pub fn notify_one(&self) {
        self.0.notify_one();
    }
}

pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// None only within `Condvar::wait`.
    guard: Option<shuttle::sync::MutexGuard<'a, T>>,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_ref().expect("locked")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().expect("locked")
    }
}

/// A condition variable whose timed waits do time out, and whose `notify_one` may reach anybody who waits.
#[derive(Default)]
pub struct Condvar {
    waiters: std::sync::Mutex<Vec<Arc<Waiter>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    pub fn timed_out(self) -> bool {
        self.0
    }
}

impl Condvar {
    pub const fn new() -> Self {
        Self {
            waiters: std::sync::Mutex::new(Vec::new()),
        }
    }

    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        self.wait_unless_over(guard, None);
    }

    pub fn wait_until<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        deadline: Instant,
    ) -> WaitTimeoutResult {
        WaitTimeoutResult(!self.wait_unless_over(guard, Some(deadline)))
    }

    pub fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, time: Duration) -> WaitTimeoutResult {
        WaitTimeoutResult(!self.wait_unless_over(guard, time::now().checked_add(time)))
    }

    /// Returns whether it was woken.
    fn wait_unless_over<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        deadline: Option<Instant>,
    ) -> bool {
        // There is a scheduling point before the release, and none from there until this thread waits.
        drop(guard.guard.take());
        let waiter = Waiter::new(deadline);
        self.waiters().push(Arc::clone(&waiter));
        let was_woken = waiter.wait();
        self.waiters().retain(|other| !Arc::ptr_eq(other, &waiter));
        guard.guard = Some(guard.mutex.lock_inner());
        was_woken
    }

    /// Returns whether somebody waited.
    pub fn notify_one(&self) -> bool {
        switch();
        let mut waiters = self.waiters();
        waiters.retain(|waiter| waiter.is_waiting());
        if waiters.is_empty() {
            return false;
        }
        let lot = match waiters.len() {
            1 => 0,
            count => shuttle::rand::thread_rng().gen_range(0..count),
        };
        waiters.swap_remove(lot).wake()
    }

    /// Returns how many waited.
    pub fn notify_all(&self) -> usize {
        switch();
        self.waiters().drain(..).filter(|it| it.wake()).count()
    }

    fn waiters(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Waiter>>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct OnceLock<T> {
    value: std::sync::OnceLock<T>,
    /// Held by the one who makes the value.
    making: Mutex<()>,
}

impl<T> OnceLock<T> {
    pub const fn new() -> Self {
        Self {
            value: std::sync::OnceLock::new(),
            making: Mutex::new(()),
        }
    }

    pub fn get(&self) -> Option<&T> {
        switch();
        self.value.get()
    }

    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        if let Some(value) = self.get() {
            return value;
        }
        let _making = self.making.lock();
        match self.value.get() {
            Some(value) => value,
            None => {
                let value = make();
                switch();
                self.value.get_or_init(|| value)
            }
        }
    }
}
