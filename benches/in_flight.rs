//! What the in-flight gate costs beside the bare atomic pair that any count needs.
//!
//! `cargo bench --no-default-features --bench in_flight`

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use touchdown::lifecycle::Gate;

const PAIRS: u32 = 2_000_000;
const ROUNDS: usize = 15;

fn main() {
    println!("enter + leave against fetch_add + fetch_sub, ns a pair, best of {ROUNDS} rounds");
    let cores = thread::available_parallelism().map_or(1, usize::from);
    for threads in [1, 2, 4] {
        let count = AtomicUsize::new(0);
        let gate = Gate::new();
        let (mut bare, mut gated) = (Duration::MAX, Duration::MAX);
        // Turn by turn, so that a change of the clock rate meets both.
        for _ in 0..ROUNDS {
            bare = bare.min(measure(threads, || {
                count.fetch_add(1, Ordering::Relaxed);
                black_box(&count);
                count.fetch_sub(1, Ordering::Release);
            }));
            gated = gated.min(measure(threads, || {
                let guard = gate.enter();
                black_box(&gate);
                drop(guard);
            }));
        }
        let nanos = |time: Duration| time.as_nanos() as f64 / f64::from(PAIRS);
        let ratio = nanos(gated) / nanos(bare);
        println!(
            "{threads} threads on {cores} cores: bare {:6.2}, gate {:6.2}, ratio {ratio:.2}",
            nanos(bare),
            nanos(gated)
        );
    }
}

/// How long each of `threads` threads takes for `PAIRS` pairs, at the same time.
fn measure(threads: usize, pair: impl Fn() + Sync) -> Duration {
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| (0..PAIRS).for_each(|_| pair()));
        }
    });
    start.elapsed()
}
