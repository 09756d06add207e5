//! Participants: the parts of a program that have work in flight.

use super::calls::Calls;
use super::check::Check;
use crate::sync::Instant;

/// A part of the program with work in flight, such as a server.
///
/// The lifecycle tells it of the phases. While it has work it holds an
/// [`OwnedGuard`](super::OwnedGuard) of [`Lifecycle::in_flight`](super::Lifecycle::in_flight):
/// the drain is over when all guards are gone.
///
/// A participant that panics is logged, and the stop goes on.
pub trait Participant: Send + Sync + 'static {
    /// Its name in logs and reports.
    fn name(&self) -> String;

    /// [`Phase::Draining`](super::Phase::Draining) begins: take in no new work. The gate is closed
    /// right after all participants were told. Must not block.
    fn drain(&self) {}

    /// [`Phase::Cancelling`](super::Phase::Cancelling) begins: tell everything that remains to
    /// give up. Must not block.
    fn cancel(&self) {}

    /// [`Phase::Closing`](super::Phase::Closing) begins: release what is held, before any hook
    /// runs. May block until `deadline`. Runs on a thread of its own, so that an overrun is left
    /// behind and reported. On a stop before the program was ready [`drain`](Self::drain) comes first, too.
    fn close(&self, deadline: Instant) {
        let _ = deadline;
    }

    /// What is running, one entry each, the oldest first, for logs and for the last words of a
    /// process that must exit. Must not wait for a lock that another thread can hold for long:
    /// prefer `try_lock`. As long as it does not return, the state is not written again.
    fn running(&self) -> Vec<String>;

    /// Where in the code the threads are that hold up its work, as lines of text: of each thread a line that
    /// names it, and its stack. The last of the last words of a process that must exit; what
    /// is not there by `deadline`, some 30 ms from now, may be lost. Must not wait for a lock, as `running`.
    fn stacks(&self, deadline: Instant) -> Vec<String> {
        let _ = deadline;
        Vec::new()
    }

    /// Where in the code any thread of this process is, its frames as lines of text, the innermost first; none, the
    /// default, if this participant cannot find that out. `thread` is the number that the kernel gave it, as gettid(2) says.
    /// The lifecycle asks for a worker that does not heed its token, and for its own thread while an observer or a hook
    /// does not return; it takes the first answer that is not empty. What holds for [`stacks`](Self::stacks) holds here.
    fn stack_of(&self, thread: u32, deadline: Instant) -> Vec<String> {
        let _ = (thread, deadline);
        Vec::new()
    }

    /// How it is doing, in one line: how busy it is, and how much more it could take. Written when
    /// the state of the program is asked for. What holds for [`running`](Self::running) holds here.
    fn state(&self) -> Option<String> {
        None
    }

    /// How many works it has in flight, if it holds one guard for all of them. `None`, the
    /// default, if it holds a guard for each, or none at this moment: then the gate's count says
    /// it. What holds for [`running`](Self::running) holds here.
    fn in_flight(&self) -> Option<usize> {
        None
    }

    /// What became of its calls so far.
    fn calls(&self) -> Calls {
        Calls::default()
    }

    /// How many connections it has cut on which something may have been lost: a part of a call had come, or
    /// what was sent had not been acknowledged. One that its peer has closed is none, nor is one that could be
    /// closed in order.
    fn connections_cut(&self) -> u64 {
        0
    }

    /// Asked by [`Lifecycle::check`](super::Lifecycle::check), and at intervals by a watchdog: does it still work? It says so
    /// by [`Check::passed`], here or later, from the thread whose end or hang must not go unnoticed. Must
    /// not block. Not asked from [`Phase::Closing`](super::Phase::Closing) on.
    ///
    /// The default passes at once, which says no more than that the process runs.
    fn check(&self, check: Check) {
        check.passed();
    }
}
