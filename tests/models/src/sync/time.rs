//! Virtual time: it stands still until the clock, a thread of the model like any other, is scheduled,
//! and then jumps to the next moment for which somebody waits.
//!
//! So "in time" and "too late" are both explored: whoever has something to do before a deadline may
//! be scheduled before or after the clock. How often the clock is scheduled is drawn for each execution,
//! from rarely to as often as anybody. In a [patient](be_patient) execution the clock runs only when
//! nobody else can, so that nothing takes time but waiting for time, and times can be told exactly.

use std::cell::RefCell;
use std::ops::{Add, Sub};
use std::sync::Arc;
use std::time::Duration;

use shuttle::current::{self, TaskId};
use shuttle_engine::runtime::execution::ExecutionState;
use shuttle_engine::runtime::thread;

use super::switch;
use super::waiter::Waiter;

/// After so many ticks the clock steps back behind all others.
const FAIRNESS: u32 = 16;

/// A moment in virtual time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(Duration);

impl Instant {
    pub fn now() -> Self {
        switch();
        now()
    }

    pub fn checked_add(self, time: Duration) -> Option<Self> {
        self.0.checked_add(time).map(Self)
    }

    pub fn saturating_duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    pub fn duration_since(self, earlier: Self) -> Duration {
        self.saturating_duration_since(earlier)
    }

    pub fn elapsed(self) -> Duration {
        Self::now() - self
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        self.checked_add(time).expect("virtual time ends here")
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

#[derive(Default)]
struct Clock {
    now: Duration,
    timers: Vec<(Instant, Arc<Waiter>)>,
    task: Option<TaskId>,
    is_patient: bool,
}

impl Clock {
    fn next(&mut self) -> Option<Instant> {
        self.timers.retain(|(_, waiter)| waiter.is_waiting());
        self.timers.iter().map(|(deadline, _)| *deadline).min()
    }

    fn advance(&mut self, to: Instant) {
        self.now = self.now.max(to.0);
        for (deadline, waiter) in &self.timers {
            if *deadline <= to {
                waiter.expire();
            }
        }
    }
}

thread_local! {
    /// Shuttle runs all threads of an execution on one thread of the system.
    static CLOCK: RefCell<Clock> = RefCell::default();
}

fn with<T>(with: impl FnOnce(&mut Clock) -> T) -> T {
    CLOCK.with(|clock| with(&mut clock.borrow_mut()))
}

/// Starts the clock of a new execution.
pub(crate) fn begin() {
    with(|clock| *clock = Clock::default());
    let clock = shuttle::thread::Builder::new().name("clock".to_owned());
    clock.spawn(run).expect("shuttle has no limit of threads");
}

fn run() {
    let me = current::me();
    // An execution is over without the clock. And if everybody waits, and not for the time, then that is
    // a deadlock, although the clock would go on.
    ExecutionState::with(|state| state.detach(me));
    with(|clock| clock.task = Some(me));
    for tick in 1.. {
        if with(|clock| clock.next().is_none()) {
            ExecutionState::with(|state| state.current_mut().block(false));
        }
        // Schedulers need not be fair, but who waits again and again must not do so for ever.
        if tick % FAIRNESS == 0 {
            ExecutionState::request_yield();
        }
        thread::switch();
        with(|clock| {
            if let Some(next) = clock.next() {
                clock.advance(next);
            }
        });
    }
}

/// In this execution time passes only when nobody can do anything.
pub fn be_patient() {
    with(|clock| clock.is_patient = true);
}

/// Lets `time` pass, whatever there is to do.
pub fn pass(time: Duration) {
    switch();
    with(|clock| {
        let to = Instant(clock.now.saturating_add(time));
        while let Some(next) = clock.next().filter(|next| *next <= to) {
            clock.advance(next);
        }
        clock.advance(to);
    });
}

/// Waits for `time`.
pub fn sleep(time: Duration) {
    Waiter::new(Instant::now().checked_add(time)).wait();
}

pub(super) fn now() -> Instant {
    with(|clock| Instant(clock.now))
}

pub(super) fn is_over(deadline: Instant) -> bool {
    deadline <= now()
}

pub(super) fn expire_at(deadline: Instant, waiter: &Arc<Waiter>) {
    let clock = with(|clock| {
        clock.timers.push((deadline, Arc::clone(waiter)));
        clock.task
    });
    if let Some(clock) = clock {
        ExecutionState::with(|state| state.get_mut(clock).unblock());
    }
}

/// The clock's thread, and whether it runs only when nobody else can.
pub(crate) fn clock() -> (Option<TaskId>, bool) {
    with(|clock| (clock.task, clock.is_patient))
}
