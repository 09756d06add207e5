//! Runs a scenario under many schedules.
//!
//! `MODEL_SCHEDULES` in the environment says how many, half of them drawn step by step, half by
//! probabilistic concurrency testing, which finds what takes few but far apart switches. They are the same
//! in every run unless `MODEL_SEED` is another number.

use std::any::Any;
use std::cell::Cell;
use std::{panic, thread};

use shuttle::current::TaskId;
use shuttle::scheduler::{PctScheduler, RandomScheduler, Schedule, Scheduler, Task};
use shuttle::{Config, FailurePersistence, Runner};

use crate::sync::time;

const DEFAULT_SCHEDULES: usize = 4_000;

/// How many switches at chosen places probabilistic concurrency testing makes in one schedule.
const DEPTH: usize = 4;

/// In how many times as many schedules a bug is looked for. It is found in the first hundreds, as a rule.
const PATIENCE: u64 = 10;

const LOOM_PREEMPTIONS: usize = 3;

/// What is longer than that goes in circles.
const MAX_STEPS: usize = 20_000;

thread_local! {
    /// How many schedules have been begun.
    static EXPLORED: Cell<usize> = const { Cell::new(0) };
}

/// Explores `scenario`, and panics if it fails under some schedule: a panic of any thread, or a deadlock.
/// Shuttle writes the schedule to standard error, to be replayed with `shuttle::replay`.
pub fn passes(scenario: fn()) {
    explore(scenario, seed());
}

/// Explores `scenario` and asserts that it fails under some schedule, with a message that has `why` in it.
pub fn fails(scenario: fn(), why: &str) {
    EXPLORED.set(0);
    let explored = (0..PATIENCE)
        .map(|round| panic::catch_unwind(|| explore(scenario, seed() + round)))
        .find_map(Result::err);
    let failure = match explored {
        None => panic!("no schedule was found under which this fails: {why}"),
        Some(failure) => message(&*failure),
    };
    println!("schedule {} failed: {failure}", EXPLORED.get());
    assert!(
        failure.contains(why),
        "it failed by {failure:?}, not {why:?}"
    );
}

/// As [`passes`], under loom, with every order of events that takes no more than 3 preemptions, or
/// `LOOM_MAX_PREEMPTIONS`.
pub fn passes_loom(scenario: fn()) {
    let mut loom = loom::model::Builder::new();
    loom.preemption_bound.get_or_insert(LOOM_PREEMPTIONS);
    loom.check(scenario);
}

/// As [`fails`], under loom.
pub fn fails_loom(scenario: fn(), why: &str) {
    // Loom leaves its thread unusable.
    let Err(failure) = thread::spawn(move || passes_loom(scenario)).join() else {
        panic!("loom found no order of events in which this fails: {why}");
    };
    let failure = message(&*failure);
    assert!(
        failure.contains(why),
        "it failed by {failure:?}, not {why:?}"
    );
}

fn message(failure: &(dyn Any + Send)) -> String {
    let text = failure.downcast_ref::<&str>().map(|text| text.to_string());
    text.or_else(|| failure.downcast_ref().cloned())
        .unwrap_or_default()
}

fn explore(scenario: fn(), seed: u64) {
    let schedules = number("MODEL_SCHEDULES").map_or(DEFAULT_SCHEDULES, |it| it as usize);
    let run = move || {
        time::begin();
        scenario();
    };
    let half = schedules.div_ceil(2);
    let random = Clocked::new(RandomScheduler::new_from_seed(seed, half), seed);
    Runner::new(random, config()).run(run);
    let pct = Clocked::new(PctScheduler::new_from_seed(seed, DEPTH, half), seed);
    Runner::new(pct, config()).run(run);
}

fn seed() -> u64 {
    number("MODEL_SEED").unwrap_or(1)
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok().filter(|it| !it.is_empty())?;
    match value.parse() {
        Ok(number) => Some(number),
        Err(_) => panic!("{variable} is not a number: {value:?}"),
    }
}

fn config() -> Config {
    let mut config = Config::new();
    config.stack_size = 0x4_0000;
    config.max_steps = shuttle::MaxSteps::FailAfter(MAX_STEPS);
    config.failure_persistence = FailurePersistence::Print;
    config.silence_warnings = true;
    config
}

/// Says when the clock may run; leaves everything else to another scheduler.
struct Clocked<S> {
    scheduler: S,
    /// The clock may run in one of so many steps.
    pace: u64,
    random: u64,
}

impl<S> Clocked<S> {
    fn new(scheduler: S, seed: u64) -> Self {
        Self {
            scheduler,
            pace: 1,
            random: seed | 1,
        }
    }

    /// Xorshift: the schedulers' own numbers must not depend on whether there is a clock.
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random >> 8
    }
}

impl<S: Scheduler> Scheduler for Clocked<S> {
    fn new_execution(&mut self) -> Option<Schedule> {
        EXPLORED.set(EXPLORED.get() + 1);
        self.pace = [1, 8, 64][self.next_random() as usize % 3];
        self.scheduler.new_execution()
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        let (clock, is_patient) = time::clock();
        let may_tick = !is_patient && self.next_random() % self.pace == 0;
        let is_clock = |task: &Task| Some(task.id()) == clock;
        if may_tick || runnable.len() == 1 || !runnable.iter().any(|task| is_clock(task)) {
            return self.scheduler.next_task(runnable, current, is_yielding);
        }
        let others: Vec<&Task> = runnable
            .iter()
            .copied()
            .filter(|it| !is_clock(it))
            .collect();
        self.scheduler.next_task(&others, current, is_yielding)
    }

    fn next_u64(&mut self) -> u64 {
        self.scheduler.next_u64()
    }
}
