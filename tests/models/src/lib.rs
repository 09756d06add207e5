//! touchdown's concurrency, explored by machine.
//!
//! The sources of touchdown are compiled into this library as they are, with the seam [`sync`] in place of
//! src/sync.rs. Shuttle then runs a scenario thousands of times, each time with another order of events,
//! and [time](sync::time) is virtual. For the gate, whose orderings matter, [loom](loom_sync) explores
//! every order and every value that a load may see, up to a bound, over a copy that names loom's seam.
//!
//! What there is:
//!
//! - models.rs says which sources make a model, and which bugs can be seeded into copies of them. build.rs
//!   makes those copies, so the sources hold no switch. It fails if a text to replace is gone.
//! - scenarios/ has a file for each model: functions that run threads against it and assert what must hold,
//!   whatever the order. Each variant of a model has them all.
//! - tests/ says which scenario [passes] over the real sources, and which [fails] over which bug.
//!
//! A new model takes an entry in models.rs, a file in scenarios/ and one in tests/. A scenario must end: what
//! hangs in it has to be released, and threads left behind be let go. Assertions belong on its own threads, or
//! on hooks whose outcome it looks at: the lifecycle catches the panics of observers and participants.
//!
//! A failure is the same in each run of its test with the same `MODEL_SCHEDULES` and `MODEL_SEED` (see
//! explore.rs). With `SHUTTLE_CAPTURE_BACKTRACE=1` a deadlock comes with the place where each thread waits.
#![allow(dead_code)]
// The sources' features are not this package's.
#![allow(unexpected_cfgs)]
// The seam has the interface of what it stands in for, and so do the sources.
#![allow(clippy::new_without_default)]
// Each variant of a model is a module of its own, with the same files.
#![allow(clippy::duplicate_mod)]

#[path = "../../../src/caught.rs"]
pub mod caught;
mod explore;
#[path = "../../../src/logging.rs"]
pub mod logging;
pub mod loom_sync;
#[path = "../../../src/running_time.rs"]
pub mod running_time;
pub mod sync;
#[path = "../../../src/text.rs"]
pub mod text;
#[path = "../../../src/thrown.rs"]
pub mod thrown;

pub use explore::{fails, fails_loom, passes, passes_loom};

include!(concat!(env!("OUT_DIR"), "/models.rs"));
