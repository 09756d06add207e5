//! Where each worker shows what it is at, and what can be seen there.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::call::Call;
use super::peer::for_people;
use super::seconds::Seconds;
use crate::os::stack::{self, Thread};

/// The seats of all workers.
#[derive(Default)]
pub(super) struct Seats(Mutex<Vec<Arc<Seat>>>);

impl Seats {
    /// One for the calling thread.
    pub(super) fn take(&self) -> Arc<Seat> {
        let seat = Arc::new(Seat {
            thread: Thread::current(),
            at: Mutex::default(),
        });
        self.0.lock().push(Arc::clone(&seat));
        seat
    }

    pub(super) fn leave(&self, seat: &Arc<Seat>) {
        self.0.lock().retain(|it| !Arc::ptr_eq(it, seat));
    }

    /// The calls that run.
    pub(super) fn calls(&self) -> Vec<Arc<Call>> {
        let seats = self.0.lock();
        seats.iter().filter_map(|seat| seat.call()).collect()
    }

    /// What runs, without waiting for a lock.
    pub(super) fn running(&self) -> Vec<Running> {
        let Some(seats) = self.0.try_lock() else {
            return Vec::new();
        };
        seats.iter().filter_map(|seat| seat.running()).collect()
    }

    /// Says which handlers run, the oldest first, and last those that wait for their callers, with the stacks of their threads. Waits for no lock, and for no thread
    /// beyond `deadline`.
    pub(super) fn stacks(&self, deadline: Instant) -> Vec<String> {
        let seats = self.0.try_lock().map(|it| it.clone());
        stacks(&seats.unwrap_or_default(), deadline)
    }
}

/// A call that somebody is at work on.
pub(crate) struct Running {
    call: Arc<Call>,
    pub(super) since: Instant,
    whereabouts: String,
}

impl Running {
    pub(super) fn new(call: &Arc<Call>, since: Instant, whereabouts: &str) -> Running {
        Running {
            call: Arc::clone(call),
            since,
            whereabouts: whereabouts.to_owned(),
        }
    }
}

impl Running {
    pub(crate) fn call(&self) -> &Arc<Call> {
        &self.call
    }

    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    /// Whether nothing goes on there before its caller does something.
    pub(super) fn waits_for_its_caller(&self) -> bool {
        self.call.waits_for_its_caller()
    }
}

impl fmt::Display for Running {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, peer) = (self.call.path(), for_people(&self.call.peer()));
        let time = Seconds(self.since.elapsed());
        write!(
            formatter,
            "{path} of {peer} for {time} {}",
            self.whereabouts
        )
    }
}

/// Where a worker shows what it is at.
pub(super) struct Seat {
    thread: Thread,
    at: Mutex<Option<(Arc<Call>, Instant)>>,
}

/// A worker and what it was at when somebody looked.
struct Stuck<'a> {
    seat: &'a Seat,
    method: String,
    peer: String,
    waits_for_its_caller: bool,
    since: Instant,
}

impl Seat {
    /// From now on this runs here.
    #[inline]
    pub(super) fn begin(&self, call: &Arc<Call>, now: Instant) {
        *self.at.lock() = Some((Arc::clone(call), now));
    }

    /// That has ended.
    #[inline]
    pub(super) fn end(&self) {
        // Dropped after the lock.
        let done = self.at.lock().take();
        drop(done);
    }

    fn call(&self) -> Option<Arc<Call>> {
        self.at.lock().as_ref().map(|(call, _)| Arc::clone(call))
    }

    /// What it is at, without waiting for the lock. Its texts are copies: a thread that
    /// held on to the call might become the one to end it.
    fn stuck(&self) -> Option<Stuck<'_>> {
        let at = self.at.try_lock()?;
        let (call, since) = at.as_ref()?;
        Some(Stuck {
            seat: self,
            method: call.path().to_owned(),
            peer: for_people(&call.peer()),
            waits_for_its_caller: call.waits_for_its_caller(),
            since: *since,
        })
    }

    /// Whether it is still at what began then.
    fn is_at(&self, since: Instant) -> bool {
        let at = self.at.try_lock();
        at.is_some_and(|it| it.as_ref().is_some_and(|(_, begun)| *begun == since))
    }

    /// What runs here, and since when, without waiting for the lock.
    fn running(&self) -> Option<Running> {
        let at = self.at.try_lock()?;
        let (call, since) = at.as_ref()?;
        Some(Running::new(call, *since, &format!("on {}", self.thread)))
    }
}

/// How many stacks are looked at. What holds up one handler most often holds up the others
/// too, and the reader of the log wants to see the rest of it as well.
const MOST_STACKS: usize = 8;

/// How long a thread may take to answer. A runnable one gets a processor within some milliseconds,
/// even beside a dozen others; what has not answered by then is not going to.
const ANSWER_TIME: Duration = Duration::from_millis(100);

fn stacks(seats: &[Arc<Seat>], deadline: Instant) -> Vec<String> {
    let mut stuck: Vec<Stuck<'_>> = Vec::new();
    for it in seats.iter().filter_map(|seat| seat.stuck()) {
        // There may be many quiet streams, and it is not they that hold up others.
        let place = |of: &Stuck<'_>| (of.waits_for_its_caller, of.since);
        stuck.insert(
            stuck.partition_point(|other| place(other) <= place(&it)),
            it,
        );
    }
    let mut found = Vec::new();
    let now = Instant::now();
    for it in stuck.iter().take(MOST_STACKS) {
        // Half of what is left, so that no thread that is silent takes the time of all others.
        let half = deadline.saturating_duration_since(Instant::now()) / 2;
        let stack = it.seat.thread.stack(Instant::now() + half.min(ANSWER_TIME));
        // Otherwise it may be another call's.
        if it.seat.is_at(it.since) {
            found.push((it, stack));
        }
    }
    let (found, stacks): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    let has_frames = stacks.iter().any(|it| it.is_ok());
    let frames = stack::in_words(&stacks, deadline);
    let mut lines = Vec::new();
    for (it, frames) in found.iter().zip(frames) {
        let time = now.saturating_duration_since(it.since).as_millis();
        let (method, peer, thread) = (&it.method, &it.peer, &it.seat.thread);
        lines.push(format!("{method} from {peer} for {time} ms on {thread}"));
        lines.extend(frames.iter().map(|frame| format!("  {frame}")));
    }
    if stuck.len() > MOST_STACKS {
        lines.push(format!("and {} more", stuck.len() - MOST_STACKS));
    }
    if has_frames {
        lines.push(stack::HOW_TO_RESOLVE.to_owned());
    }
    lines
}
