//! Who polls, who runs a handler, who rests, and what waits for a worker.
//!
//! A thread that took a call off the completion queue runs it itself. There is one
//! thread more than there are workers, so one can always poll: when every worker
//! is busy, the one left polls on and puts what arrives in the backlog. Two threads
//! are there from the start, one to poll and one to run a call. Others
//! are started when they are needed, and those that rest end, but for one, when they are
//! [dismissed](Roster::dismiss).
//!
//! Before a thread runs a handler it makes sure that somebody else polls, and
//! waking somebody for every call costs more than a short call itself. So there is
//! an exception: if their method is known to be short, the only poller runs calls
//! with nobody polling, and polls on. (While calls are many and come on many
//! connections, more than one thread polls.) Should a handler take
//! long after all, the [`watch`](Roster::watch) sees it within two of its ticks and
//! sends somebody to poll.
//!
//! A place is the right to run a handler, and there are as many as workers. The handler of a stream that waits for its
//! caller may give its place back for good: it [steps aside](Roster::step_aside), and goes on without one when it
//! has waited. It must not wait for a place then: it may hold a lock for which all others wait.
//!
//! Everything is decided under one lock, in a few instructions, so there is no
//! moment at which a call is in the backlog and a worker free to take it. Only if a thread cannot
//! be started, a call waits for that; see [`hire`](Roster::hire).

use std::collections::BTreeSet;
use std::time::Duration;

use super::decision::{
    Backlog, Decision, Leaving, Load, Next, Outlook, Rested, Waits, Wanted, Watched,
};
use super::lanes::Admission;
use super::queues::Queues;
use crate::sync::{Condvar, Instant, Mutex};

/// How often the watch looks.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// How many ticks without a call run unpolled until the watch ends.
const IDLE_TICKS: u32 = 50;

/// Calls that come further apart than this do not start the watch.
const OFTEN: Duration = Duration::from_millis(2);

pub(super) struct Roster<T> {
    workers: usize,
    backlog: Backlog,
    state: Mutex<State<T>>,
    /// Waited on by resting threads; signalled once for each in `called`.
    called: Condvar,
}

struct State<T> {
    polling: usize,
    /// How many places are taken.
    running: usize,
    /// How many threads run a handler without a place.
    aside: usize,
    resting: usize,
    /// Of those who rest, how many have been called to poll and have not yet woken up.
    called: usize,
    /// Of the others who rest, how many have been called to run what waits and have not yet woken up. They have
    /// their places.
    summoned: usize,
    /// Of the others who rest, how many are to end and have not yet woken up.
    dismissed: usize,
    waiting: Queues<T>,
    closed: bool,
    last_arrival: Option<Instant>,
    watch: Watch,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Watch {
    Off,
    /// Somebody has asked for it.
    Wanted,
    On {
        /// Since when nobody polls.
        unpolled_since: Option<Instant>,
        /// Ticks since the last call that ran unpolled.
        idle: u32,
    },
}

impl<T: Waits> State<T> {
    /// Lets a call wait, or gives it back if there is no room.
    fn queue(
        &mut self,
        call: T,
        outlook: Outlook,
        workers: usize,
        backlog: Backlog,
    ) -> Decision<T> {
        match self.waiting.admit(call, outlook, backlog) {
            Admission::Waits if self.running < workers => Decision::QueuedToHire,
            Admission::Waits => Decision::Queued,
            Admission::Instead(others) => Decision::QueuedInstead(others),
            Admission::Refused(call) => Decision::Refused(call),
        }
    }
}

impl<T> State<T> {
    /// How many rest and have not been called.
    fn free(&self) -> usize {
        self.resting - self.called - self.summoned
    }

    /// How many rest that nobody needs, and are not to end yet.
    fn surplus(&self, workers: usize) -> usize {
        self.free().saturating_sub(self.dismissed + workers)
    }

    /// Takes one of those who rest, if there is one.
    fn wake_one(&mut self, called: &Condvar) -> bool {
        if self.free() == 0 {
            return false;
        }
        // Everybody who was dismissed may be called all the same, as long as it rests.
        self.dismissed = self.dismissed.min(self.free() - 1);
        called.notify_one();
        true
    }

    /// Sends somebody to poll. False if a thread has to be started for that.
    fn call_poller(&mut self, called: &Condvar) -> bool {
        self.becomes_poller();
        let woken = self.wake_one(called);
        self.called += usize::from(woken);
        woken
    }

    /// Has somebody run what waits, if there is a place. False if a thread has to be started for that, which has
    /// the place already.
    fn summon(&mut self, workers: usize, called: &Condvar) -> bool {
        if self.waiting.is_empty() || self.running >= workers || self.closed {
            return true;
        }
        self.running += 1;
        let woken = self.wake_one(called);
        self.summoned += usize::from(woken);
        woken
    }

    fn becomes_poller(&mut self) {
        self.polling += 1;
        if let Watch::On { unpolled_since, .. } = &mut self.watch {
            *unpolled_since = None;
        }
    }
}

impl<T: Waits> Roster<T> {
    /// A roster with two threads, of which one polls and the other [rests](Self::rest).
    pub(super) fn new(workers: usize, backlog: Backlog) -> Roster<T> {
        Roster {
            workers,
            backlog,
            state: Mutex::new(State {
                polling: 1,
                running: 0,
                aside: 0,
                resting: 1,
                called: 0,
                summoned: 0,
                dismissed: 0,
                waiting: Queues::new(),
                closed: false,
                last_arrival: None,
                watch: Watch::Off,
            }),
            called: Condvar::new(),
        }
    }

    /// A polling thread has taken a call off the queue.
    pub(super) fn arrived(&self, call: T, outlook: Outlook, now: Instant) -> Decision<T> {
        let mut state = self.state.lock();
        // What waits has its turn first, even if it is a thread that is missing.
        if (state.running >= self.workers || !state.waiting.is_empty())
            && !self.has_spare_place(&state, &call)
        {
            return state.queue(call, outlook, self.workers, self.backlog);
        }
        let last_arrival = state.last_arrival.replace(now);
        state.running += 1;
        state.polling -= 1;
        if state.polling > 0 {
            return Decision::Run(call);
        }
        let mut begin_watch = false;
        if outlook.short && outlook.pollers == 1 {
            match &mut state.watch {
                Watch::On {
                    unpolled_since,
                    idle,
                } => {
                    *unpolled_since = Some(now);
                    *idle = 0;
                    return Decision::Run(call);
                }
                watch @ Watch::Off if last_arrival.is_some_and(|it| now - it < OFTEN) => {
                    *watch = Watch::Wanted;
                    begin_watch = true;
                }
                Watch::Off | Watch::Wanted => {}
            }
        }
        match state.call_poller(&self.called) {
            true if begin_watch => Decision::RunAndWatch(call),
            true => Decision::Run(call),
            false => Decision::RunAndSpawn(call),
        }
    }

    /// The thread asked for could not be started. If nobody else can poll, the call waits,
    /// or is refused, and the thread that has it polls on.
    pub(super) fn spawn_failed(&self, call: T, outlook: Outlook) -> Decision<T> {
        let mut state = self.state.lock();
        // The new thread was counted among those who poll. Others may do so by now, or rest.
        state.polling -= 1;
        if state.polling > 0 || state.call_poller(&self.called) {
            return Decision::Run(call);
        }
        state.running -= 1;
        state.queue(call, outlook, self.workers, self.backlog)
    }

    /// A thread that runs a step has another one of the same call to run. It has its turn behind what waits; the thread
    /// says next that it has [finished](Self::finished).
    pub(super) fn step_again(&self, call: T) {
        self.state.lock().waiting.step_again(call);
    }

    /// Whether a thread is to be started because a call waits for nothing else: earlier, none could be. It
    /// begins with [`finished`](Self::finished), and counts as a worker from now on.
    pub(super) fn hire(&self) -> bool {
        let mut state = self.state.lock();
        let wanted = !state.waiting.is_empty() && state.running < self.workers && !state.closed;
        state.running += usize::from(wanted);
        wanted
    }

    /// That thread could not be started.
    pub(super) fn hire_failed(&self) {
        self.state.lock().running -= 1;
    }

    /// A thread has run a call to its end. `pollers` is how many threads should poll.
    pub(super) fn finished(&self, pollers: usize) -> Next<T> {
        let mut state = self.state.lock();
        let next = match state.running > self.workers {
            true => state.waiting.next_light(),
            false => state.waiting.next(),
        };
        if let Some(call) = next {
            return Next::Run(call);
        }
        state.running -= 1;
        if state.polling < pollers || state.closed {
            state.becomes_poller();
            return Next::Poll;
        }
        state.resting += 1;
        Next::Rest
    }

    /// The handler of a thread waits for its caller, and gives its place back. What waits gets it. This may be said by
    /// another thread, which knows that the handler has not ended.
    pub(super) fn step_aside(&self) -> Wanted {
        let mut state = self.state.lock();
        state.running -= 1;
        state.aside += 1;
        // One that ran with nobody polling would wait in vain for what it waits for.
        let poller = state.polling == 0 && !state.call_poller(&self.called);
        let worker = !state.summon(self.workers, &self.called);
        Wanted { poller, worker }
    }

    /// As `finished`, for a call whose handler has stepped aside.
    pub(super) fn finished_aside(&self, pollers: usize) -> Next<T> {
        let mut state = self.state.lock();
        state.aside -= 1;
        if state.running < self.workers {
            if let Some(call) = state.waiting.next() {
                state.running += 1;
                return Next::Run(call);
            }
        }
        if state.polling < pollers || state.closed {
            state.becomes_poller();
            return Next::Poll;
        }
        state.resting += 1;
        match state.surplus(self.workers) {
            0 => Next::Rest,
            _ => Next::RestToo,
        }
    }

    /// Lets some of the threads end that rest and that nobody needs, since there are more of them than may run handlers. Returns how many
    /// more there are. Of streams there may have been many, and to end a thread takes longer than to let it rest: its memory is
    /// taken back on all processors at once.
    pub(super) fn dismiss_surplus(&self, most: usize) -> usize {
        let mut state = self.state.lock();
        if state.closed {
            return 0;
        }
        let surplus = state.surplus(self.workers);
        let now = surplus.min(most);
        state.dismissed += now;
        for _ in 0..now {
            self.called.notify_one();
        }
        surplus - now
    }

    /// How many spare places there are, for calls of connections that have few. With fewer than four workers there is none.
    pub(super) fn spare(&self) -> usize {
        self.workers / 4
    }

    fn has_spare_place(&self, state: &State<T>, call: &T) -> bool {
        self.is_spare(state.running) && state.waiting.is_light(call)
    }

    /// Whether the next place is a spare one.
    fn is_spare(&self, running: usize) -> bool {
        (self.workers..self.workers + self.spare()).contains(&running)
    }

    /// The calls of these connections have many places. Others that wait get spare ones, as far as there are any, and so do those that
    /// come, until this is said anew. Returns how many threads have to be started, which begin with
    /// [`finished`](Self::finished) and have their places already.
    pub(super) fn favour_others(&self, heavy: BTreeSet<u64>) -> usize {
        let mut state = self.state.lock();
        let mut light = state.waiting.favour_others(heavy);
        if state.closed {
            return 0;
        }
        let mut wanted = 0;
        while light > 0 && self.is_spare(state.running) {
            light -= 1;
            state.running += 1;
            let woken = state.wake_one(&self.called);
            state.summoned += usize::from(woken);
            wanted += usize::from(!woken);
        }
        wanted
    }

    /// Rests until somebody has to poll, or to run what waits, or is to end.
    pub(super) fn rest(&self) -> Rested {
        let mut state = self.state.lock();
        while state.called + state.summoned + state.dismissed == 0 && !state.closed {
            self.called.wait(&mut state);
        }
        state.resting -= 1;
        if state.called > 0 {
            // The caller has counted this thread among those who poll.
            state.called -= 1;
        } else if state.summoned > 0 {
            // And this one has its place.
            state.summoned -= 1;
            return Rested::Work;
        } else if state.dismissed > 0 {
            state.dismissed -= 1;
            return Rested::End;
        } else {
            state.becomes_poller();
        }
        Rested::Poll
    }

    /// The beginning of a thread that [rests](Self::rest) in the place of all that rest now: those end. Where none rests,
    /// there is nothing to do, and this thread ends.
    pub(super) fn relieve(&self) -> Rested {
        let mut state = self.state.lock();
        let others = state.free();
        if others == 0 && !state.closed {
            return Rested::End;
        }
        state.resting += 1;
        if !state.closed {
            state.dismissed = others;
            self.called.notify_all();
            // That was for those who waited before.
            self.called.wait(&mut state);
        }
        drop(state);
        self.rest()
    }

    /// A polling thread could end now: others poll as well, of whom there were many at once. `None` if it
    /// is the only one; else it polls no more, and this is what it does instead, so that somebody rests.
    pub(super) fn leave_poll(&self) -> Option<Leaving> {
        let mut state = self.state.lock();
        if state.polling == 1 || state.closed {
            return None;
        }
        state.polling -= 1;
        if state.free() > 0 {
            return Some(Leaving::End);
        }
        state.resting += 1;
        Some(Leaving::Rest)
    }

    /// Lets the threads that rest now end, but for one: should no other be had, calls are run.
    pub(super) fn dismiss(&self) {
        let mut state = self.state.lock();
        if !state.closed {
            state.dismissed = state.free().saturating_sub(1);
            self.called.notify_all();
        }
    }

    /// Makes sure that the watch goes on looking for some ticks. Says whether it has to be
    /// begun for that.
    pub(super) fn keep_watch(&self) -> bool {
        match &mut self.state.lock().watch {
            watch @ Watch::Off => {
                *watch = Watch::Wanted;
                true
            }
            // The thread that wanted it may have had no reason to wake anybody.
            Watch::Wanted => true,
            Watch::On { idle, .. } => {
                *idle = 0;
                false
            }
        }
    }

    /// Looks whether a handler keeps the only poller from polling. To be called
    /// once it is wanted, and every [`TICK`] as long as it is on.
    pub(super) fn watch(&self, now: Instant) -> Watched {
        let mut state = self.state.lock();
        match &mut state.watch {
            Watch::Off => return Watched::Off,
            watch @ Watch::Wanted => {
                *watch = Watch::On {
                    unpolled_since: None,
                    idle: 0,
                };
                return Watched::On;
            }
            Watch::On {
                unpolled_since,
                idle,
            } => match unpolled_since {
                Some(since) if now.saturating_duration_since(*since) >= TICK => {}
                Some(_) => return Watched::On,
                None => {
                    *idle += 1;
                    if *idle < IDLE_TICKS {
                        return Watched::On;
                    }
                    state.watch = Watch::Off;
                    return Watched::Off;
                }
            },
        }
        match state.call_poller(&self.called) {
            true => Watched::On,
            false => Watched::Spawn,
        }
    }

    /// The thread that the watch has asked for could not be started.
    pub(super) fn watch_failed(&self, now: Instant) {
        let mut state = self.state.lock();
        state.polling -= 1;
        let unpolled = (state.polling == 0).then_some(now);
        if let Watch::On { unpolled_since, .. } = &mut state.watch {
            *unpolled_since = unpolled;
        }
    }

    /// Takes out of the backlog what is to be taken.
    pub(super) fn take_waiting(&self, is_to_be_taken: impl Fn(&T) -> bool) -> Vec<T> {
        self.state.lock().waiting.take(is_to_be_taken)
    }

    /// What `look` says of the call that is the next to be run, if one waits.
    pub(super) fn next_waiting<R>(&self, look: impl FnOnce(&T) -> R) -> Option<R> {
        self.state.lock().waiting.first().map(look)
    }

    /// Whether a call or a step waits, and every place is taken.
    pub(super) fn is_full(&self) -> bool {
        let state = self.state.lock();
        !state.waiting.is_empty() && state.running >= self.workers
    }

    /// The connections whose calls or steps wait, and how many of each do.
    pub(super) fn who_waits(&self) -> Vec<(u64, usize)> {
        self.state.lock().waiting.connections()
    }

    /// How many calls run or wait.
    pub(super) fn busy(&self) -> usize {
        let state = self.state.lock();
        state.running + state.aside + state.waiting.calls()
    }

    pub(super) fn load(&self) -> Load {
        let state = self.state.lock();
        Load {
            running: state.running,
            workers: self.workers,
            aside: state.aside,
            waiting: state.waiting.calls(),
            backlog: self.backlog.calls,
        }
    }

    /// From now on nobody rests: everybody polls, to see the queue's end.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.dismissed = 0;
        self.called.notify_all();
    }

    /// Whether `close` was called and nobody runs a handler.
    pub(super) fn is_closed_and_idle(&self) -> bool {
        let state = self.state.lock();
        state.closed && state.running + state.aside == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Outlook = Outlook {
        short: false,
        pollers: 1,
        bytes: 0,
        is_step: false,
    };
    const SHORT: Outlook = Outlook {
        short: true,
        pollers: 1,
        bytes: 0,
        is_step: false,
    };

    impl Waits for u32 {
        /// That of the tens.
        fn connection(&self) -> u64 {
            u64::from(self / 10)
        }

        fn is_stream(&self) -> bool {
            *self >= 100
        }
    }

    fn roster(workers: usize, calls: usize) -> Roster<u32> {
        Roster::new(workers, Backlog { calls, bytes: 10 })
    }

    fn name(decision: Decision<u32>) -> &'static str {
        match decision {
            Decision::Run(_) => "run",
            Decision::RunAndWatch(_) => "run and watch",
            Decision::RunAndSpawn(_) => "run and spawn",
            Decision::Queued => "queued",
            Decision::QueuedToHire => "queued to hire",
            Decision::QueuedInstead(_) => "queued instead",
            Decision::Refused(_) => "refused",
        }
    }

    #[test]
    fn steps_are_not_refused_and_take_turns_with_calls() {
        const STEP: Outlook = Outlook {
            is_step: true,
            ..LONG
        };
        let roster = roster(1, 2);
        let now = Instant::now();
        assert_eq!(name(roster.arrived(0, LONG, now)), "run");
        for it in [10, 11, 12, 20] {
            assert_eq!(name(roster.arrived(it, STEP, now)), "queued");
        }
        assert_eq!(name(roster.arrived(1, LONG, now)), "queued");
        assert_eq!(name(roster.arrived(2, LONG, now)), "queued");
        assert_eq!(name(roster.arrived(3, LONG, now)), "refused");
        let mut order = Vec::new();
        while let Next::Run(it) = roster.finished(1) {
            order.push(it);
        }
        // Connections take turns among the steps, too.
        assert_eq!(order, [1, 10, 2, 20, 11, 12]);
    }

    #[test]
    fn streams_that_begin_take_turns_with_other_calls() {
        let roster = roster(1, 9);
        let now = Instant::now();
        assert_eq!(name(roster.arrived(0, LONG, now)), "run");
        for it in [100, 110, 111, 120, 130, 10, 11, 20] {
            assert_eq!(name(roster.arrived(it, LONG, now)), "queued");
        }
        let mut order = Vec::new();
        while let Next::Run(it) = roster.finished(1) {
            order.push(it);
        }
        assert_eq!(order, [100, 10, 110, 20, 120, 11, 130, 111]);
    }

    #[test]
    fn who_has_few_places_gets_spare_ones_while_others_have_many() {
        let roster = roster(4, 9);
        let now = Instant::now();
        for it in 0..4 {
            assert!(name(roster.arrived(it, LONG, now)).starts_with("run"));
        }
        for it in [4, 5, 10, 20] {
            assert_eq!(name(roster.arrived(it, LONG, now)), "queued");
        }
        assert_eq!(roster.favour_others(BTreeSet::new()), 0);
        let heavy = BTreeSet::from([0]);
        assert_eq!(roster.favour_others(heavy.clone()), 1);
        assert_eq!(roster.favour_others(heavy), 0, "there is one");
        assert_eq!(roster.load().running, 5);
        // The new thread.
        assert!(matches!(roster.finished(1), Next::Run(10)));
        assert_eq!(name(roster.arrived(30, LONG, now)), "queued");
        assert!(matches!(roster.finished(1), Next::Run(20)));
        assert!(matches!(roster.finished(1), Next::Run(30)));
        assert!(!matches!(roster.finished(1), Next::Run(_)));
        assert_eq!(roster.load().running, 4);
        // It is free again: for others only.
        assert_eq!(name(roster.arrived(6, LONG, now)), "queued");
        assert!(name(roster.arrived(40, LONG, now)).starts_with("run"));
        assert_eq!(roster.load().running, 5);
        // A worker that is done leaves its place to it.
        assert!(!matches!(roster.finished(1), Next::Run(_)));
        assert!(matches!(roster.finished(1), Next::Run(4)));
        // Nobody has many any more.
        assert_eq!(roster.favour_others(BTreeSet::new()), 0);
        assert_eq!(name(roster.arrived(50, LONG, now)), "queued");
    }

    #[test]
    fn who_waits_first_is_seen_first() {
        let roster = roster(1, 2);
        assert_eq!(roster.next_waiting(|it| *it), None);
        for call in 1..=3 {
            roster.arrived(call, LONG, Instant::now());
        }
        assert_eq!(roster.next_waiting(|it| *it), Some(2));
        assert!(matches!(roster.finished(1), Next::Run(2)));
        assert_eq!(roster.next_waiting(|it| *it), Some(3));
    }

    #[test]
    fn what_exceeds_the_workers_waits_and_what_exceeds_the_backlog_is_refused() {
        let roster = roster(2, 1);
        let now = Instant::now();
        let decisions = [1, 2, 3, 4].map(|call| name(roster.arrived(call, LONG, now)));
        assert_eq!(decisions, ["run", "run and spawn", "queued", "refused"]);
        assert!(matches!(roster.finished(1), Next::Run(3)));
        // Somebody polls already, so who has nothing to do rests.
        assert!(matches!(roster.finished(1), Next::Rest));
        assert_eq!(name(roster.arrived(5, LONG, now)), "run");
    }

    #[test]
    fn a_second_thread_polls_on_when_that_is_wanted() {
        let roster = roster(2, 0);
        let now = Instant::now();
        assert_eq!(name(roster.arrived(1, LONG, now)), "run");
        assert!(matches!(roster.finished(2), Next::Poll));
        // Two poll, so one may run without another's help.
        assert_eq!(name(roster.arrived(2, LONG, now)), "run");
    }

    #[test]
    fn short_calls_run_unpolled_only_under_the_watch() {
        let roster = roster(2, 0);
        let start = Instant::now();
        assert!(matches!(roster.watch(start), Watched::Off));
        assert_eq!(name(roster.arrived(1, SHORT, start)), "run");
        assert!(matches!(roster.finished(1), Next::Rest));
        // The second soon after the first asks for the watch.
        assert_eq!(name(roster.arrived(2, SHORT, start)), "run and watch");
        assert!(matches!(roster.watch(start), Watched::On));
        assert!(matches!(roster.finished(1), Next::Rest));
        assert_eq!(name(roster.arrived(3, SHORT, start)), "run");
        // Nobody polls now; the watch bears with that for one tick.
        assert!(matches!(roster.watch(start), Watched::On));
        assert!(matches!(roster.watch(start + TICK), Watched::On));
        // It has called a thread that rested, so the runner is not needed.
        assert!(matches!(roster.finished(1), Next::Rest));
    }

    #[test]
    fn the_watch_ends_when_there_is_nothing_to_watch() {
        let roster = roster(1, 0);
        let start = Instant::now();
        let _ = roster.arrived(1, SHORT, start);
        let _ = roster.finished(1);
        let _ = roster.arrived(2, SHORT, start);
        let _ = roster.finished(1);
        let ticks = (0..2 * IDLE_TICKS).take_while(|_| matches!(roster.watch(start), Watched::On));
        assert_eq!(ticks.count() as u32, IDLE_TICKS);
        // Off again, and begun by the next that needs it.
        assert!(roster.keep_watch());
        assert!(matches!(roster.watch(start), Watched::On));
        assert!(!roster.keep_watch());
    }

    #[test]
    fn who_rests_ends_when_it_is_dismissed_but_for_one() {
        let roster = roster(3, 0);
        let now = Instant::now();
        let three_rest = || {
            let runs = [1, 2, 3].map(|call| name(roster.arrived(call, LONG, now)));
            assert_eq!(roster.rest(), Rested::Poll, "it was called");
            let rests = [(); 3].map(|()| matches!(roster.finished(1), Next::Rest));
            assert_eq!(rests, [true; 3]);
            runs
        };
        assert_eq!(three_rest(), ["run", "run and spawn", "run and spawn"]);
        roster.dismiss();
        assert_eq!([roster.rest(), roster.rest()], [Rested::End, Rested::End]);
        // One is left; others are needed in the place of those that ended.
        assert_eq!(three_rest(), ["run", "run and spawn", "run and spawn"]);
        roster.dismiss();
        assert_eq!(name(roster.arrived(4, LONG, now)), "run");
        assert_eq!(name(roster.arrived(5, LONG, now)), "run");
        let mut go_on = [(); 3].map(|()| roster.rest() == Rested::Poll);
        go_on.sort_unstable();
        assert_eq!(go_on, [false, true, true]);
        // To see the queue's end everybody is needed.
        assert!(matches!(roster.finished(1), Next::Rest));
        assert!(matches!(roster.finished(1), Next::Rest));
        roster.dismiss();
        roster.close();
        roster.dismiss();
        assert_eq!([roster.rest(), roster.rest()], [Rested::Poll, Rested::Poll]);
    }

    #[test]
    fn who_relieves_the_others_rests_in_their_place() {
        let roster = roster(3, 0);
        let now = Instant::now();
        let runs = [1, 2, 3].map(|call| name(roster.arrived(call, LONG, now)));
        assert_eq!(runs, ["run", "run and spawn", "run and spawn"]);
        assert_eq!(roster.rest(), Rested::Poll, "it was called");
        let rests = [(); 3].map(|()| matches!(roster.finished(1), Next::Rest));
        assert_eq!(rests, [true; 3]);
        std::thread::scope(|scope| {
            let others = [(); 3].map(|()| scope.spawn(|| roster.rest()));
            let goes_on = scope.spawn(|| roster.relieve());
            let ended = others.map(|it| it.join().unwrap() == Rested::End);
            assert_eq!(ended, [true; 3]);
            // The only one to be called.
            let first = name(roster.arrived(4, LONG, now));
            let second = name(roster.arrived(5, LONG, now));
            roster.close();
            assert_eq!(goes_on.join().unwrap(), Rested::Poll);
            assert_eq!([first, second], ["run", "run and spawn"]);
        });
        // Too late to wait.
        assert_eq!(roster.relieve(), Rested::Poll);
    }

    #[test]
    fn nobody_is_relieved_where_nobody_rests() {
        let roster = roster(1, 0);
        assert_eq!(name(roster.arrived(1, LONG, Instant::now())), "run");
        // It is about to poll.
        assert_eq!(roster.relieve(), Rested::End);
        assert_eq!(roster.rest(), Rested::Poll);
    }

    #[test]
    fn of_many_who_poll_one_goes_on_and_one_rests() {
        let roster = roster(3, 0);
        let now = Instant::now();
        let runs = [1, 2, 3].map(|call| name(roster.arrived(call, LONG, now)));
        assert_eq!(runs, ["run", "run and spawn", "run and spawn"]);
        assert_eq!(roster.rest(), Rested::Poll, "it was called");
        // Four poll.
        let polls = [(); 3].map(|()| matches!(roster.finished(4), Next::Poll));
        assert_eq!(polls, [true; 3]);
        assert!(matches!(roster.leave_poll(), Some(Leaving::Rest)));
        assert!(matches!(roster.leave_poll(), Some(Leaving::End)));
        assert!(matches!(roster.leave_poll(), Some(Leaving::End)));
        assert!(roster.leave_poll().is_none());
        // Nobody has to be started for the next.
        assert_eq!(name(roster.arrived(4, LONG, now)), "run");
        assert_eq!(roster.rest(), Rested::Poll);
    }

    /// A roster of which one thread runs a call, and the other has another, for which a third should poll.
    fn without_a_third_thread(calls: usize) -> Roster<u32> {
        let roster = roster(3, calls);
        let now = Instant::now();
        assert_eq!(name(roster.arrived(1, LONG, now)), "run");
        assert_eq!(roster.rest(), Rested::Poll, "it was called");
        assert_eq!(name(roster.arrived(2, LONG, now)), "run and spawn");
        roster
    }

    #[test]
    fn a_call_waits_for_a_thread_that_cannot_be_started() {
        let roster = without_a_third_thread(2);
        assert_eq!(name(roster.spawn_failed(2, LONG)), "queued to hire");
        // In their order.
        let later = [3, 4].map(|call| name(roster.arrived(call, LONG, Instant::now())));
        assert_eq!(later, ["queued to hire", "refused"]);
        assert_eq!((roster.load().running, roster.load().waiting), (1, 2));
        assert!(roster.hire());
        roster.hire_failed();
        assert!(roster.hire() && roster.hire());
        assert!(!roster.hire(), "more than there may be workers");
        assert!(matches!(roster.finished(1), Next::Run(2)));
        assert!(matches!(roster.finished(1), Next::Run(3)));
        assert!(matches!(roster.finished(1), Next::Rest));
        assert!(!roster.hire(), "nothing waits");
    }

    #[test]
    fn a_call_runs_though_no_thread_can_be_started_if_somebody_is_free_to_poll() {
        let roster = without_a_third_thread(0);
        assert!(matches!(roster.finished(1), Next::Rest));
        assert_eq!(name(roster.spawn_failed(2, LONG)), "run");
        assert_eq!(roster.rest(), Rested::Poll, "it was called");

        let roster = without_a_third_thread(0);
        assert!(matches!(roster.finished(2), Next::Poll));
        assert_eq!(name(roster.spawn_failed(2, LONG)), "run");
        assert_eq!(
            name(roster.arrived(3, LONG, Instant::now())),
            "run and spawn"
        );
    }

    #[test]
    fn large_messages_fill_the_backlog_sooner() {
        let roster = roster(1, 10);
        let now = Instant::now();
        let arrive = |call, bytes| {
            let outlook = Outlook { bytes, ..LONG };
            name(roster.arrived(call, outlook, now))
        };
        assert_eq!(arrive(1, 0), "run");
        // The first waits, whatever its size.
        assert_eq!(arrive(2, 20), "queued");
        assert_eq!(arrive(3, 1), "refused");
        assert!(matches!(roster.finished(1), Next::Run(2)));
        assert_eq!(
            [arrive(4, 6), arrive(5, 4), arrive(6, 1)],
            ["queued", "queued", "refused"]
        );
        assert_eq!(roster.busy(), 3);
        assert_eq!(roster.take_waiting(|call| *call == 5), [5]);
        assert_eq!(arrive(7, 5), "refused");
        assert_eq!(arrive(8, 4), "queued");
        assert_eq!(roster.take_waiting(|_| true), [4, 8]);
        assert_eq!(arrive(7, 10), "queued");
    }

    #[test]
    fn who_steps_aside_lets_others_run_and_counts_until_it_ends() {
        let roster = roster(1, 5);
        let now = Instant::now();
        assert_eq!(name(roster.arrived(1, LONG, now)), "run");
        assert_eq!(roster.rest(), Rested::Poll, "it was called");
        assert_eq!(roster.step_aside(), Wanted::default());
        // A place is free, but all who rested poll.
        assert_eq!(name(roster.arrived(2, LONG, now)), "run and spawn");
        assert_eq!(name(roster.arrived(3, LONG, now)), "queued");
        assert!(roster.is_full());
        let load = roster.load();
        assert_eq!((load.running, load.aside, load.waiting), (1, 1, 1));
        assert_eq!(roster.busy(), 3);
        // It may not take what waits: there is no place.
        assert!(matches!(roster.finished_aside(1), Next::Rest));
        // Who rests is sent to work as soon as there is one.
        assert_eq!(roster.step_aside(), Wanted::default());
        assert_eq!(roster.rest(), Rested::Work);
        assert!(matches!(roster.finished(1), Next::Run(3)));
        roster.close();
        assert!(matches!(roster.finished(1), Next::Poll));
        assert!(!roster.is_closed_and_idle(), "one is aside");
        assert!(matches!(roster.finished_aside(1), Next::Poll));
        assert!(roster.is_closed_and_idle());
    }

    #[test]
    fn threads_are_wanted_for_what_waits_and_to_poll_if_none_rests() {
        let roster = roster(1, 5);
        let now = Instant::now();
        assert_eq!(name(roster.arrived(1, LONG, now)), "run");
        assert_eq!(roster.rest(), Rested::Poll, "it was called");
        assert_eq!(name(roster.arrived(2, LONG, now)), "queued");
        let wanted = Wanted {
            poller: false,
            worker: true,
        };
        assert_eq!(roster.step_aside(), wanted);
        // No thread can be had; somebody tries again.
        roster.hire_failed();
        assert_eq!(name(roster.arrived(3, LONG, now)), "queued to hire");
        assert!(roster.hire());
        assert!(matches!(roster.finished(1), Next::Run(2)));
        assert_eq!(roster.step_aside(), wanted);
        assert!(matches!(roster.finished(1), Next::Run(3)));
        // Two are aside.
        assert!(matches!(roster.finished_aside(1), Next::Rest));
        assert!(
            matches!(roster.finished_aside(1), Next::RestToo),
            "one rests"
        );
        assert_eq!(roster.dismiss_surplus(5), 0);
        assert_eq!(roster.rest(), Rested::End);
        assert_eq!(roster.dismiss_surplus(5), 0, "one may rest");
    }

    #[test]
    fn a_handler_that_ran_unpolled_has_somebody_poll_when_it_waits() {
        let roster = roster(2, 0);
        let start = Instant::now();
        assert!(roster.keep_watch());
        assert!(matches!(roster.watch(start), Watched::On));
        assert_eq!(name(roster.arrived(1, SHORT, start)), "run");
        assert_eq!(roster.step_aside(), Wanted::default());
        assert_eq!(roster.rest(), Rested::Poll, "it was called");
        assert_eq!(name(roster.arrived(2, SHORT, start)), "run");
        let wanted = Wanted {
            poller: true,
            worker: false,
        };
        assert_eq!(roster.step_aside(), wanted);
        // It cannot be had, and the watch asks again.
        roster.watch_failed(start);
        assert!(matches!(roster.watch(start + TICK), Watched::Spawn));
    }

    #[test]
    fn connections_take_turns_and_the_one_with_most_gives_way() {
        let roster = roster(1, 3);
        let now = Instant::now();
        let calls = [11, 12, 13, 14].map(|call| name(roster.arrived(call, LONG, now)));
        assert_eq!(calls, ["run", "queued", "queued", "queued"]);
        let Decision::QueuedInstead(others) = roster.arrived(21, LONG, now) else {
            panic!("there is no room for both");
        };
        assert_eq!(others, [14]);
        assert_eq!(roster.who_waits(), [(1, 2), (2, 1)]);
        assert!(matches!(roster.finished(1), Next::Run(12)));
        assert!(matches!(roster.finished(1), Next::Run(21)));
        assert!(matches!(roster.finished(1), Next::Run(13)));
    }
}
