//! Renewal: what a burst has left behind is given back once there is little to do.
//!
//! With a thread goes what malloc keeps free for it, in small pieces all over the heap. So after a burst, when there was
//! little to do for a while, workers that rest are let go, and others are put in the place of those that are needed at
//! all times; a moment later the heap is given back to the kernel. Without it, and without the bound on arenas (see
//! `os::memory`), a server with 17 threads and 500 calls in flight held on to 8 to 11 MB of private memory after a burst,
//! instead of 2 (docs/small-machines.md).
//!
//! What is much is given back earlier: see [`Excess`].
//!
//! [`Keeper`] knows when; the housekeeper asks it. Which of the threads goes, the roster decides.

mod excess;
mod workers;

pub(super) use self::excess::Excess;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long there has to be little to do before memory is given back. It is long for a lull
/// between two bursts, which would have to fetch the memory again.
const REST: Duration = Duration::from_secs(10);

/// How long threads that were let go may take to end. What they kept for their own next allocations
/// is given back only after that.
const ENDING: Duration = Duration::from_secs(1);

/// What makes a burst: so many calls, or messages of so many pages.
const BURST: usize = 256;
const PAGE: usize = 4096;

/// What a connection counts as: it takes some 15 KiB.
const CONNECTION: usize = 4;

/// Whether there is something to give back.
#[derive(Default)]
pub(super) struct Heap {
    used: AtomicBool,
}

impl Heap {
    /// There was a burst. Whether the keeper has to be woken for that.
    pub(super) fn use_much(&self) -> bool {
        !self.used.load(Ordering::Relaxed) && !self.used.swap(true, Ordering::Relaxed)
    }
}

/// One thread's count of what it has used: no other looks at it, so it costs a call next to nothing.
#[derive(Default)]
pub(super) struct Usage(usize);

impl Usage {
    /// A call with a message of so many bytes. Whether the keeper has to be woken for that.
    pub(super) fn call(&mut self, heap: &Heap, bytes: usize) -> bool {
        self.count(heap, 1 + bytes / PAGE)
    }

    pub(super) fn connection(&mut self, heap: &Heap) -> bool {
        self.count(heap, CONNECTION)
    }

    fn count(&mut self, heap: &Heap, pages: usize) -> bool {
        self.0 += pages;
        if self.0 < BURST {
            return false;
        }
        self.0 = 0;
        heap.use_much()
    }
}

/// Knows when to give memory back. A burst begins it, and the first rest after that ends it, so that a program
/// with nothing to do is not woken.
#[derive(Default)]
pub(super) struct Keeper {
    next_look: Option<Instant>,
    /// Threads that rest were let go.
    dismissed: bool,
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// Threads that rest are to end.
    Dismissal,
    /// The heap is to be given back.
    GiveBack,
}

impl Keeper {
    /// To be called at the time that `next_look` says, and whenever somebody has woken the caller.
    pub(super) fn due(&mut self, heap: &Heap, now: Instant) -> Due {
        let after_rest = |more: bool| more.then_some(now + REST);
        match self.next_look {
            Some(at) if now < at => return Due::Nothing,
            Some(_) if self.dismissed => {
                self.dismissed = false;
                self.next_look = after_rest(heap.used.load(Ordering::Relaxed));
                return Due::GiveBack;
            }
            Some(_) if !heap.used.swap(false, Ordering::Relaxed) => {
                self.dismissed = true;
                self.next_look = Some(now + ENDING);
                return Due::Dismissal;
            }
            Some(_) => self.next_look = after_rest(true),
            None => self.next_look = after_rest(heap.used.load(Ordering::Relaxed)),
        }
        Due::Nothing
    }

    pub(super) fn next_look(&self) -> Option<Instant> {
        self.next_look
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_followed_by_one_giving_back_and_then_by_nothing() {
        let (heap, mut usage, mut keeper) = (Heap::default(), Usage::default(), Keeper::default());
        let start = Instant::now();
        let few = (1..BURST).filter(|_| usage.call(&heap, 0)).count();
        assert_eq!(few, 0);
        assert_eq!(keeper.due(&heap, start), Due::Nothing);
        assert_eq!(keeper.next_look(), None);

        // Many bursts wake the keeper once.
        let wakes = (0..10 * BURST).filter(|_| usage.call(&heap, 0)).count();
        assert_eq!(wakes, 1);
        assert_eq!(keeper.due(&heap, start), Due::Nothing);
        assert_eq!(keeper.next_look(), Some(start + REST));
        // There was something since the last look, so it looks once more.
        assert_eq!(keeper.due(&heap, start + REST), Due::Nothing);
        let rested = start + 2 * REST;
        assert_eq!(keeper.next_look(), Some(rested));
        assert_eq!(keeper.due(&heap, rested - PAUSE), Due::Nothing);
        assert_eq!(keeper.due(&heap, rested), Due::Dismissal);
        // Those who were let go take a moment to end.
        assert_eq!(keeper.next_look(), Some(rested + ENDING));
        assert_eq!(keeper.due(&heap, rested + ENDING - PAUSE), Due::Nothing);
        assert_eq!(keeper.due(&heap, rested + ENDING), Due::GiveBack);
        assert_eq!(keeper.next_look(), None);
        assert_eq!(keeper.due(&heap, rested + REST), Due::Nothing);
    }

    #[test]
    fn a_burst_that_begins_while_threads_end_is_not_forgotten() {
        let (heap, mut usage, mut keeper) = (Heap::default(), Usage::default(), Keeper::default());
        let start = Instant::now();
        usage.call(&heap, BURST * PAGE);
        let dues = [0, 1, 2].map(|rests| keeper.due(&heap, start + REST * rests));
        assert_eq!(dues, [Due::Nothing, Due::Nothing, Due::Dismissal]);
        // The thread that wakes the keeper does so now, and not again.
        assert!(usage.call(&heap, BURST * PAGE));
        let end = start + 2 * REST + ENDING;
        assert_eq!(keeper.due(&heap, end - PAUSE), Due::Nothing);
        assert_eq!(keeper.due(&heap, end), Due::GiveBack);
        assert_eq!(keeper.due(&heap, end + REST), Due::Nothing);
        assert_eq!(keeper.due(&heap, end + 2 * REST), Due::Dismissal);
    }

    const PAUSE: Duration = Duration::from_millis(1);

    #[test]
    fn nothing_is_given_back_as_long_as_bursts_go_on() {
        let (heap, mut usage, mut keeper) = (Heap::default(), Usage::default(), Keeper::default());
        let start = Instant::now();
        for turn in 0..5 {
            usage.call(&heap, BURST * PAGE);
            assert_eq!(keeper.due(&heap, start + REST * turn), Due::Nothing);
        }
        assert_eq!(keeper.due(&heap, start + REST * 5), Due::Dismissal);
    }

    #[test]
    fn large_messages_and_connections_make_a_burst_sooner() {
        let (heap, mut usage) = (Heap::default(), Usage::default());
        assert!(usage.call(&heap, 4 << 20));
        let (heap, mut usage) = (Heap::default(), Usage::default());
        let woke_at = (1..=BURST).find(|_| usage.connection(&heap));
        assert_eq!(woke_at, Some(BURST / CONNECTION));
    }
}
