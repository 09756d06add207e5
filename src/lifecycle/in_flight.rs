//! The gate: counts what is in flight, can be closed, and can be waited on until it is empty.
//!
//! # Gate vs wait group vs semaphore
//!
//! A wait group counts and waits too, but lets everybody in for ever, so that "empty" may be over
//! before it is seen. A semaphore limits how many are inside. The gate does not limit; it refuses
//! newcomers once closed, and from then on "empty" is final.
//!
//! Entering and leaving are one atomic operation each on one word, which holds the count and two
//! flags. A lock and a condition variable are touched only by those who wait, and by the one whose
//! leaving makes the gate empty while somebody waits.

use std::error::Error;
use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use crate::sync::{
    atomic::{fence, AtomicUsize, Ordering},
    Arc, Condvar, Instant, Mutex,
};

/// Set once, by `close`.
const CLOSED: usize = 1 << (usize::BITS - 1);
/// Somebody waits for the count to become zero.
const AWAITED: usize = 1 << (usize::BITS - 2);
/// The bits of the count: as many as fit beside the flags.
const COUNT: usize = AWAITED - 1;

/// What is in flight behind a [`Gate`]: enter, count, wait. Clones are of the same gate. It cannot close the gate.
///
/// ```
/// use touchdown::lifecycle::Lifecycle;
///
/// let lifecycle = Lifecycle::builder().build()?;
/// let guard = lifecycle.in_flight().enter()?;
/// assert_eq!(lifecycle.in_flight().count(), 1);
/// drop(guard);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct InFlight {
    gate: Arc<State>,
}

/// A gate, with the right to close it. It can be used as an `&InFlight`. Clones are the same gate.
///
/// The gate of a program is closed by its lifecycle. This is for parts of it that have a gate of their own.
///
/// ```
/// use touchdown::lifecycle::Gate;
///
/// let gate = Gate::new();
/// let guard = gate.enter()?;
/// gate.close();
/// assert!(gate.enter().is_err());
/// assert_eq!(gate.count(), 1);
/// drop(guard);
/// gate.wait_idle();
/// # Ok::<(), touchdown::lifecycle::Closed>(())
/// ```
#[derive(Clone)]
pub struct Gate {
    inside: InFlight,
}

struct State {
    word: AtomicUsize,
    /// How often the count became zero while somebody waited. Taken by waiters, and by a leaver
    /// that found `AWAITED`.
    emptied: Mutex<u64>,
    /// Goes with `emptied`.
    changed: Condvar,
}

impl Gate {
    /// A new gate, open and empty.
    pub fn new() -> Self {
        let gate = State {
            word: AtomicUsize::new(0),
            emptied: Mutex::new(0),
            changed: Condvar::new(),
        };
        Self {
            inside: InFlight {
                gate: Arc::new(gate),
            },
        }
    }

    /// What is behind the gate, for those who are not to close it.
    pub fn in_flight(&self) -> InFlight {
        self.inside.clone()
    }

    /// Closes the gate for good: nobody enters any more. Those inside go on.
    pub fn close(&self) {
        // AcqRel: a refused `enter` (Acquire) sees what was done before the close.
        self.inside.gate.word.fetch_or(CLOSED, Ordering::AcqRel);
    }
}

impl Deref for Gate {
    type Target = InFlight;

    fn deref(&self) -> &InFlight {
        &self.inside
    }
}

impl InFlight {
    /// Enters, until the guard is dropped.
    ///
    /// # Errors
    ///
    /// [`Closed`] if the gate was closed.
    ///
    /// # Panics
    ///
    /// If more guards exist than fit in the word: 2⁶² on 64-bit machines, 2³⁰ on 32-bit machines.
    /// Only leaked guards ([`std::mem::forget`]) can lead there.
    #[inline]
    pub fn enter(&self) -> Result<Guard<'_>, Closed> {
        self.gate.enter()?;
        Ok(Guard { gate: &self.gate })
    }

    /// Enters, until the guard is dropped, which may be on another thread and outlive this handle.
    ///
    /// # Errors
    ///
    /// [`Closed`] if the gate was closed.
    ///
    /// # Panics
    ///
    /// As [`enter`](Self::enter).
    #[inline]
    pub fn enter_owned(&self) -> Result<OwnedGuard, Closed> {
        self.gate.enter()?;
        Ok(OwnedGuard {
            gate: Arc::clone(&self.gate),
        })
    }

    /// Whether the gate was closed.
    pub fn is_closed(&self) -> bool {
        // Pairs with the AcqRel in `close`.
        self.gate.word.load(Ordering::Acquire) & CLOSED != 0
    }

    /// How many are inside at this moment.
    pub fn count(&self) -> usize {
        // Pairs with the Release in `leave`: who sees zero sees what was done inside.
        self.gate.word.load(Ordering::Acquire) & COUNT
    }

    /// Blocks until nobody is inside.
    ///
    /// On a closed gate that is final. On an open one it means that the gate was empty at some
    /// moment during the wait, or an instant before; others may have entered since.
    pub fn wait_idle(&self) {
        self.gate.wait_idle(None, || false);
    }

    /// Blocks until nobody is inside or `time` is over. Returns whether the gate was empty.
    pub fn wait_idle_timeout(&self, time: Duration) -> bool {
        self.gate
            .wait_idle(Instant::now().checked_add(time), || false)
    }

    /// Blocks until nobody is inside or `deadline` has passed. Returns whether the gate was empty.
    pub fn wait_idle_deadline(&self, deadline: Instant) -> bool {
        self.gate.wait_idle(Some(deadline), || false)
    }

    /// As [`wait_idle_deadline`](Self::wait_idle_deadline), but gives up as well when `give_up`
    /// says so. It is asked once at the start and again after every [`interrupt`](Self::interrupt).
    pub(super) fn wait_idle_unless(
        &self,
        deadline: Option<Instant>,
        give_up: impl Fn() -> bool,
    ) -> bool {
        self.gate.wait_idle(deadline, give_up)
    }

    /// Lets all who wait look again at why they wait.
    pub(super) fn interrupt(&self) {
        // Taking the lock orders this after a waiter's look at `give_up` and before its sleep, or
        // after its sleep began; in both cases the notification is not missed.
        drop(self.gate.emptied.lock());
        self.gate.changed.notify_all();
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gate").field(&self.inside).finish()
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight")
            .field("count", &self.count())
            .field("closed", &self.is_closed())
            .finish()
    }
}

impl State {
    #[inline]
    fn enter(&self) -> Result<(), Closed> {
        // Compare and exchange rather than add and take back: a refused newcomer must never be
        // counted, or a waiter could find the gate busy with nobody inside.
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            if word & CLOSED != 0 {
                // Pairs with the AcqRel in `close`.
                fence(Ordering::Acquire);
                return Err(Closed);
            }
            assert_not_full(word);
            // Relaxed is enough: entering publishes nothing. The count itself cannot be missed,
            // since all changes of one word have one order.
            match self.word.compare_exchange_weak(
                word,
                word + 1,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(()),
                Err(now) => word = now,
            }
        }
    }

    /// Counts one more for work that is inside already, whether or not the gate is closed.
    fn split(&self) {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            assert_not_full(word);
            // Relaxed for the reason given in `enter`.
            match self.word.compare_exchange_weak(
                word,
                word + 1,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    #[inline]
    fn leave(&self) {
        // Release pairs with the Acquire of those who see zero, in `count` and `wait_idle`: what
        // was done inside is visible to them.
        let before = self.word.fetch_sub(1, Ordering::Release);
        if before & (AWAITED | COUNT) == (AWAITED | 1) {
            self.emptied();
        }
    }

    #[cold]
    fn emptied(&self) {
        {
            // A waiter sets AWAITED under this lock and then sleeps. Either its read-modify-write
            // came after ours and it saw zero, or it came before and it sleeps, or is gone, by the
            // time we hold the lock.
            let mut emptied = self.emptied.lock();
            *emptied += 1;
            // Who sleeps on sets it again.
            self.word.fetch_and(!AWAITED, Ordering::Relaxed);
        }
        self.changed.notify_all();
    }

    fn wait_idle(&self, deadline: Option<Instant>, give_up: impl Fn() -> bool) -> bool {
        // Pairs with the Release in `leave`.
        if self.word.load(Ordering::Acquire) & COUNT == 0 {
            return true;
        }
        let mut emptied = self.emptied.lock();
        let at_start = *emptied;
        let mut timed_out = false;
        loop {
            // Pairs with the Release in `leave`.
            let word = self.word.fetch_or(AWAITED, Ordering::Acquire);
            // A count from before the close says nothing about a closed gate: somebody may have
            // entered between that zero and the close.
            let was_empty = word & CLOSED == 0 && *emptied != at_start;
            if word & COUNT == 0 || was_empty {
                return true;
            }
            if timed_out || give_up() {
                return false;
            }
            match deadline {
                None => self.changed.wait(&mut emptied),
                Some(deadline) => {
                    timed_out = self.changed.wait_until(&mut emptied, deadline).timed_out();
                }
            }
        }
    }
}

#[inline]
fn assert_not_full(word: usize) {
    assert!(
        word & COUNT != COUNT,
        "too many guards of one in-flight gate; are guards leaked?"
    );
}

/// Being inside a gate, borrowed from it. Dropping it leaves, in a panic too.
#[must_use = "dropping the guard leaves the gate"]
pub struct Guard<'a> {
    gate: &'a State,
}

impl Guard<'_> {
    /// Another guard for a part of the same work. Works on a closed gate too, since that work is
    /// in flight already.
    ///
    /// # Panics
    ///
    /// As [`InFlight::enter`].
    pub fn split(&self) -> Self {
        self.gate.split();
        Self { gate: self.gate }
    }
}

impl Drop for Guard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.gate.leave();
    }
}

impl fmt::Debug for Guard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}

/// Being inside a gate, on any thread and for any time. Dropping it leaves, in a panic too.
#[must_use = "dropping the guard leaves the gate"]
pub struct OwnedGuard {
    gate: Arc<State>,
}

impl OwnedGuard {
    /// Another guard for a part of the same work. Works on a closed gate too, since that work is
    /// in flight already.
    ///
    /// # Panics
    ///
    /// As [`InFlight::enter`].
    pub fn split(&self) -> Self {
        self.gate.split();
        Self {
            gate: Arc::clone(&self.gate),
        }
    }
}

impl Drop for OwnedGuard {
    #[inline]
    fn drop(&mut self) {
        self.gate.leave();
    }
}

impl fmt::Debug for OwnedGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnedGuard")
    }
}

/// The gate is closed: nothing new is taken in, because the program is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("closed: nothing new is taken in")
    }
}

impl Error for Closed {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_gate_panics_rather_than_count_into_its_flags() {
        let gate = Gate::new();
        gate.inside.gate.word.store(COUNT - 1, Ordering::Relaxed);
        let last = gate.enter().unwrap();
        let refused =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| gate.enter().is_ok()));
        assert!(refused.is_err());
        assert!(!gate.is_closed());
        assert_eq!(gate.count(), COUNT);
        drop(last);
        assert_eq!(gate.count(), COUNT - 1);
    }

    #[test]
    fn a_waiter_of_an_open_gate_does_not_miss_a_moment_of_emptiness() {
        let gate = Gate::new();
        let first = gate.enter().unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| gate.wait_idle_timeout(Duration::from_secs(60)));
            while gate.inside.gate.word.load(Ordering::SeqCst) & AWAITED == 0 {
                std::thread::yield_now();
            }
            // What `leave` does, with the lock held until the next has entered: the waiter, which
            // sleeps once this lock can be had, cannot see the zero itself.
            let mut emptied = gate.inside.gate.emptied.lock();
            std::mem::forget(first);
            gate.inside.gate.word.fetch_sub(1, Ordering::Release);
            let _next = gate.enter().unwrap();
            *emptied += 1;
            drop(emptied);
            gate.inside.gate.changed.notify_all();
            assert!(waiter.join().unwrap());
        });
    }

    #[test]
    fn a_wait_can_be_interrupted() {
        let gate = Gate::new();
        let _guard = gate.enter().unwrap();
        let (told, give_up) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                gate.wait_idle_unless(None, || {
                    told.fetch_add(1, Ordering::SeqCst);
                    give_up.load(Ordering::SeqCst) == 1
                })
            });
            while told.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            give_up.store(1, Ordering::SeqCst);
            gate.interrupt();
            assert!(!waiter.join().unwrap());
        });
    }
}
