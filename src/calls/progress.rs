//! Whether the calls of a connection get on, as far as that is up to its client: whether requests become whole, and
//! answers are taken.
//!
//! | what is seen | what it is taken for |
//! |---|---|
//! | more calls have stood still for the whole time than handlers run and calls wait for one | requests that do not become whole, or answers for which the client gives no window |
//! | something waits in the socket, and less than [`LEAST`] was taken in that time | a client that does not read, or hardly |
//!
//! While something waits in the socket, the calls behind it cannot be blamed for standing still. What is compared are
//! two numbers that are not of the same moment, so it has to be seen twice.
//!
//! What is written here decides from what it is given, as in [`drain`](super::drain). The time counts only while the
//! process runs.

use std::time::Duration;

use super::link::{Span, View};

/// How many spans are looked at in the time that a call may stand still.
pub(super) const SPANS: u8 = 4;

/// How many bytes of messages a client has to send, or take, in that time, on a call that is not whole or on a connection
/// that is full: some 2 kbit/s in a minute, less than the slowest link that carries TCP well.
const LEAST: u32 = 16 << 10;

/// What is remembered of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// Since when less than [`LEAST`] was taken of what waits in the socket, and what had been.
    waits: Option<Waits>,
    /// Calls have stood still for nearly the whole time, at the last look.
    is_suspect: bool,
}

#[derive(Clone, Copy, Debug)]
struct Waits {
    since: Duration,
    arrived: u64,
    queued: i32,
}

/// What is to be thought of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing waits for its client.
    Well,
    /// Something waits for it.
    Watched,
    /// Calls stand still.
    NoProgress,
    /// What was sent is not taken.
    NotTaken,
}

impl Progress {
    /// What the span that is over counts as.
    pub(super) fn span(&self, view: &View) -> Span {
        Span {
            least: LEAST / u32::from(SPANS),
            counts: view.queued == 0,
            // A call has begun somewhere in its first span, which does not count.
            spans: SPANS + u8::from(self.is_suspect),
        }
    }

    /// What is to be thought of it. So many calls have stood still for as many spans as [`span`](Self::span) has said,
    /// and for so many calls that are open the client is not waited for.
    pub(super) fn look(
        &mut self,
        view: &View,
        still: usize,
        accounted: usize,
        now: Duration,
        limit: Duration,
    ) -> Verdict {
        if self.is_not_taken(view, now, limit) {
            return Verdict::NotTaken;
        }
        let was_suspect = std::mem::replace(&mut self.is_suspect, still > accounted);
        if self.is_suspect && was_suspect {
            return Verdict::NoProgress;
        }
        match view.queued > 0 || view.open as usize > accounted {
            true => Verdict::Watched,
            false => Verdict::Well,
        }
    }

    fn is_not_taken(&mut self, view: &View, now: Duration, limit: Duration) -> bool {
        if view.queued == 0 {
            self.waits = None;
            return false;
        }
        let found = Waits {
            since: now,
            arrived: view.arrived,
            queued: view.queued,
        };
        let waits = self.waits.get_or_insert(found);
        let least = i32::try_from(LEAST).unwrap_or(i32::MAX);
        let is_taken = view.arrived >= waits.arrived.saturating_add(LEAST.into())
            // Of a unix socket it is not seen what was taken of a write that is not over.
            || view.queued <= waits.queued.saturating_sub(least);
        if is_taken {
            *waits = found;
        }
        now >= waits.since.saturating_add(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn at(span: u32) -> Duration {
        LIMIT / u32::from(SPANS) * span
    }

    fn open(open: u32) -> View {
        View {
            open,
            ..View::default()
        }
    }

    #[test]
    fn who_stands_still_at_two_looks_makes_no_progress() {
        let mut progress = Progress::default();
        let mut look = |still, accounted, span| {
            let verdict = progress.look(&open(3), still, accounted, at(span), LIMIT);
            (verdict, progress.span(&open(3)).spans)
        };
        assert_eq!(look(0, 3, 1), (Verdict::Well, 4));
        assert_eq!(look(0, 2, 2), (Verdict::Watched, 4));
        assert_eq!(look(3, 2, 3), (Verdict::Watched, 5));
        // It was an answer on its way.
        assert_eq!(look(2, 2, 4), (Verdict::Watched, 4));
        assert_eq!(look(3, 2, 5), (Verdict::Watched, 5));
        assert_eq!(look(3, 2, 6), (Verdict::NoProgress, 5));
    }

    #[test]
    fn a_span_counts_only_if_the_socket_is_empty() {
        let full = View {
            queued: 1,
            ..open(1)
        };
        assert!(Progress::default().span(&open(1)).counts);
        assert!(!Progress::default().span(&full).counts);
    }

    #[test]
    fn a_client_that_hardly_reads_does_not_take_what_it_is_sent() {
        let mut progress = Progress::default();
        let mut look = |queued, arrived, span| {
            let view = View {
                queued,
                arrived,
                ..open(1)
            };
            progress.look(&view, 0, 1, at(span), LIMIT)
        };
        assert_eq!(look(100_000, 50, 0), Verdict::Watched);
        assert_eq!(look(100_000, 16_433, 3), Verdict::Watched);
        // Enough.
        assert_eq!(look(100_000, 16_434, 4), Verdict::Watched);
        assert_eq!(look(100_000, 16_435, 7), Verdict::Watched);
        // As a unix socket shows it.
        assert_eq!(look(83_000, 16_435, 7), Verdict::Watched);
        assert_eq!(look(83_000, 16_500, 10), Verdict::Watched);
        assert_eq!(look(83_000, 16_600, 11), Verdict::NotTaken);
    }

    #[test]
    fn who_has_taken_everything_has_the_whole_time_again() {
        let mut progress = Progress::default();
        for (queued, span) in [(9, 0), (0, 3), (9, 4), (9, 7)] {
            let view = View { queued, ..open(1) };
            let verdict = progress.look(&view, 0, 1, at(span), LIMIT);
            assert_ne!(verdict, Verdict::NotTaken, "in span {span}");
        }
    }
}
