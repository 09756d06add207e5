//! The handlers of streams that wait for their callers: which of them have given their places back, how many of each
//! connection may, and which is to end when others need what they hold.
//!
//! A handler that blocks until its caller sends or takes something holds a thread, and nothing is gained by its holding
//! a place in the [roster](super::roster), too. So from the first wait on it has none, as long as there are not
//! too many such threads. A connection may have as many as are left for others: so one that nobody competes with
//! gets half of them, and none can take them all.
//!
//! A stream that does not get a thread so keeps its place, as before. That harms nobody until a call waits for a place. Then one stream has to
//! go, of the connection that has the most, unless the call that waits is of that connection itself: its own streams are
//! given time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::decision::Wanted;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex};

/// The streams whose handlers have waited at least once, and have not ended.
pub(super) struct StreamThreads<T> {
    /// How many may go on without a place.
    limit: usize,
    state: Mutex<State<T>>,
    /// How many have a place; asked for whenever a call is about to wait for one.
    placed: AtomicUsize,
    /// How many go on without one, on how many connections; and how often any of them has waited. Numbers to compare with,
    /// no more.
    aside: AtomicUsize,
    connections: AtomicUsize,
    moves: AtomicUsize,
    /// The last thread that was wanted could not be had: until one is, there are no more than these.
    exhausted: AtomicBool,
}

struct State<T> {
    streams: Vec<Arc<Stream<T>>>,
    /// How many there have been.
    number: u64,
    aside: usize,
    /// Of each connection that has any.
    of_connection: BTreeMap<u64, usize>,
}

/// Streams that nobody hears of, on so many connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Quiet {
    pub(super) streams: usize,
    pub(super) connections: usize,
}

/// A stream whose handler has waited.
pub(super) struct Stream<T> {
    pub(super) call: T,
    /// That no other has.
    number: u64,
    connection: u64,
    /// Written under the lock.
    aside: AtomicBool,
    /// Whether its handler waits now.
    waits: AtomicBool,
    /// How often it has begun to.
    times: AtomicUsize,
    /// Whether it was told to end.
    ended: AtomicBool,
}

impl<T> Stream<T> {
    pub(super) fn begins_to_wait(&self) {
        self.times.fetch_add(1, Ordering::SeqCst);
        self.waits.store(true, Ordering::SeqCst);
    }

    pub(super) fn has_waited(&self) {
        self.waits.store(false, Ordering::SeqCst);
    }

    pub(super) fn is_aside(&self) -> bool {
        self.aside.load(Ordering::SeqCst)
    }
}

/// Which streams wait, since when, for who decides which has to end.
#[derive(Default)]
pub(super) struct Stalled {
    /// By the number of each: how often it had waited, and when that was first seen.
    seen: BTreeMap<u64, (usize, Duration)>,
}

impl<T> StreamThreads<T> {
    pub(super) fn new(limit: usize) -> StreamThreads<T> {
        StreamThreads {
            limit,
            state: Mutex::new(State {
                streams: Vec::new(),
                number: 0,
                aside: 0,
                of_connection: BTreeMap::new(),
            }),
            placed: AtomicUsize::new(0),
            aside: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            moves: AtomicUsize::new(0),
            exhausted: AtomicBool::new(false),
        }
    }

    /// A handler waits for the first time. It has its place still.
    pub(super) fn enter(&self, call: T, connection: u64) -> Arc<Stream<T>> {
        let mut state = self.state.lock();
        state.number += 1;
        let stream = Arc::new(Stream {
            call,
            number: state.number,
            connection,
            aside: AtomicBool::new(false),
            waits: AtomicBool::new(false),
            times: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
        });
        state.streams.push(Arc::clone(&stream));
        self.placed.fetch_add(1, Ordering::SeqCst);
        stream
    }

    /// Gives a place back by `step`, if there is room for a thread without one.
    pub(super) fn step_aside(
        &self,
        stream: &Stream<T>,
        step: impl FnOnce() -> Wanted,
    ) -> Option<Wanted> {
        let mut state = self.state.lock();
        self.step(&mut state, stream, step)
    }

    fn step(
        &self,
        state: &mut State<T>,
        stream: &Stream<T>,
        step: impl FnOnce() -> Wanted,
    ) -> Option<Wanted> {
        if stream.is_aside() || !self.has_room(state, stream.connection) {
            return None;
        }
        state.aside += 1;
        *state.of_connection.entry(stream.connection).or_default() += 1;
        self.count(state);
        stream.aside.store(true, Ordering::SeqCst);
        self.placed.fetch_sub(1, Ordering::SeqCst);
        // Under the lock, so that it has not ended before.
        Some(step())
    }

    fn has_room(&self, state: &State<T>, connection: u64) -> bool {
        let left = self.limit.saturating_sub(state.aside);
        if left == 0 || self.exhausted.load(Ordering::SeqCst) {
            return false;
        }
        state.of_connection.get(&connection).copied().unwrap_or(0) < left
    }

    fn count(&self, state: &State<T>) {
        self.aside.store(state.aside, Ordering::Relaxed);
        let connections = state.of_connection.len();
        self.connections.store(connections, Ordering::Relaxed);
    }

    /// The handler of a stream has waited, and goes on.
    pub(super) fn has_waited(&self, stream: &Stream<T>) {
        stream.has_waited();
        self.moves.fetch_add(1, Ordering::Relaxed);
    }

    /// The streams that have been quiet since somebody looked who saw so many `moves`.
    pub(super) fn quiet(&self, moves: &mut usize) -> Quiet {
        let streams = self.aside.load(Ordering::Relaxed);
        if streams == 0 {
            return Quiet::default();
        }
        let before = std::mem::replace(moves, self.moves.load(Ordering::Relaxed));
        match before == *moves {
            true => Quiet {
                streams,
                connections: self.connections.load(Ordering::Relaxed),
            },
            false => Quiet::default(),
        }
    }

    /// The handler has ended. Says whether it was without a place.
    pub(super) fn leave(&self, stream: &Arc<Stream<T>>) -> bool {
        let mut state = self.state.lock();
        state.streams.retain(|it| !Arc::ptr_eq(it, stream));
        let was_aside = stream.is_aside();
        if was_aside {
            state.aside -= 1;
            if let Some(count) = state.of_connection.get_mut(&stream.connection) {
                *count -= 1;
                if *count == 0 {
                    state.of_connection.remove(&stream.connection);
                }
            }
            self.count(&state);
        } else {
            self.placed.fetch_sub(1, Ordering::SeqCst);
        }
        was_aside
    }

    /// Whether a thread that was wanted could be had.
    pub(super) fn note_thread(&self, could_be_had: bool) {
        self.exhausted.store(!could_be_had, Ordering::SeqCst);
    }

    /// Whether a place could be had by moving or ending a stream.
    pub(super) fn hold_places(&self) -> bool {
        self.placed.load(Ordering::SeqCst) > 0 || self.exhausted.load(Ordering::SeqCst)
    }

    /// Has those give their places back, by `step`, that wait and for which there is room now, as long as that helps.
    pub(super) fn move_aside(
        &self,
        mut step: impl FnMut() -> Wanted,
        helps: impl Fn() -> bool,
    ) -> Vec<Wanted> {
        let mut state = self.state.lock();
        let placed = state.streams.iter().filter(|it| !it.is_aside());
        let waiting = placed.filter(|it| it.waits.load(Ordering::SeqCst));
        let waiting: Vec<_> = waiting.cloned().collect();
        let mut wanted = Vec::new();
        for stream in waiting {
            if !helps() {
                break;
            }
            wanted.extend(self.step(&mut state, &stream, &mut step));
        }
        wanted
    }

    /// Which streams have to end now, as calls of these connections wait for a place, so many of each. `now` is in
    /// running time. A stream ends for the call of another connection as soon as it was seen to hold a place that it cannot
    /// give back, and after having waited for `limit` for one of its own.
    pub(super) fn to_end(
        &self,
        stalled: &mut Stalled,
        waiting: &[(u64, usize)],
        now: Duration,
        limit: Duration,
    ) -> Vec<Arc<Stream<T>>> {
        let state = self.state.lock();
        let exhausted = self.exhausted.load(Ordering::SeqCst);
        let mut seen = BTreeMap::new();
        let mut held = BTreeMap::<u64, usize>::new();
        // How many wait with places that they cannot give back, those that are about to leave included. Handlers that
        // are at work have places by right.
        let mut placed = 0;
        // Of each connection, those that wait, and since when that was seen.
        let mut candidates = BTreeMap::<u64, Vec<(Duration, &Arc<Stream<T>>)>>::new();
        let mut leaving = 0;
        for stream in &state.streams {
            if stream.ended.load(Ordering::SeqCst) {
                placed += usize::from(!stream.is_aside());
                leaving += 1;
                continue;
            }
            *held.entry(stream.connection).or_default() += 1;
            let times = stream.times.load(Ordering::SeqCst);
            if stream.waits.load(Ordering::SeqCst) {
                let before = stalled.seen.get(&stream.number);
                let before = before.filter(|(before, _)| *before == times);
                let since = before.map_or(now, |(_, since)| *since);
                seen.insert(stream.number, (times, since));
                // One that was not seen before may be about to give its place back.
                placed += usize::from(before.is_some() && !stream.is_aside());
                let of_connection = candidates.entry(stream.connection).or_default();
                of_connection.push((since, stream));
            }
        }
        stalled.seen = seen;
        let calls = |is_meant: &dyn Fn(u64) -> bool| {
            let meant = waiting
                .iter()
                .filter(|(connection, _)| is_meant(*connection));
            meant.map(|(_, calls)| calls).sum::<usize>()
        };
        let places = match exhausted {
            true => calls(&|_| true),
            false => placed.min(calls(&|_| true)),
        };
        let most = held.values().copied().max().unwrap_or(0);
        let of_others = calls(&|it| held.get(&it).is_none_or(|held| *held < most));
        let mut ending = Vec::new();
        for place in leaving..places {
            let of = |connection: &u64| held.get(connection).copied().unwrap_or(0);
            let most = candidates.iter().filter(|(connection, streams)| {
                let is_stalled = |since: &Duration| now >= since.saturating_add(limit);
                let has_stalled = streams.iter().any(|(since, _)| is_stalled(since));
                // Nobody gives way to who has more.
                let gives_way = |waiting: &u64| match has_stalled {
                    true => of(waiting) <= of(connection),
                    false => place < of_others && of(waiting) < of(connection),
                };
                waiting.iter().any(|(waiting, _)| gives_way(waiting))
            });
            let most = most.max_by_key(|(connection, streams)| {
                let placed = streams.iter().any(|(_, it)| !it.is_aside());
                (of(connection), placed)
            });
            let Some(connection) = most.map(|(connection, _)| *connection) else {
                break;
            };
            let Some(streams) = candidates.get_mut(&connection) else {
                break;
            };
            // The one that has been silent for longest, and of those, the one that came last.
            let longest = (0..streams.len()).max_by_key(|it| std::cmp::Reverse(streams[*it].0));
            let Some(index) = longest else { break };
            let (_, stream) = streams.remove(index);
            if streams.is_empty() {
                candidates.remove(&connection);
            }
            if let Some(count) = held.get_mut(&connection) {
                *count -= 1;
            }
            stream.ended.store(true, Ordering::SeqCst);
            ending.push(Arc::clone(stream));
        }
        ending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);
    const START: Duration = Duration::from_secs(100);

    fn aside(streams: &StreamThreads<u32>, stream: &Stream<u32>) -> bool {
        streams.step_aside(stream, Wanted::default).is_some()
    }

    /// So many streams of a connection that wait; those for which there is room are aside.
    fn wait(streams: &StreamThreads<u32>, connection: u64, count: u32) -> Vec<Arc<Stream<u32>>> {
        let wait = |number| {
            let stream = streams.enter(connection as u32 * 100 + number, connection);
            stream.begins_to_wait();
            aside(streams, &stream);
            stream
        };
        (0..count).map(wait).collect()
    }

    fn placed(streams: &[Arc<Stream<u32>>]) -> usize {
        streams.iter().filter(|it| !it.is_aside()).count()
    }

    fn ended(
        streams: &StreamThreads<u32>,
        stalled: &mut Stalled,
        waiting: &[(u64, usize)],
        now: Duration,
    ) -> Vec<u32> {
        let ended = streams.to_end(stalled, waiting, now, LIMIT);
        ended.iter().map(|it| it.call).collect()
    }

    #[test]
    fn a_connection_has_as_many_as_are_left() {
        let streams = StreamThreads::new(10);
        let first = wait(&streams, 1, 9);
        assert_eq!(placed(&first), 4);
        let second = wait(&streams, 2, 9);
        assert_eq!(placed(&second), 6);
        assert!(streams.hold_places());
        assert!(!aside(&streams, &first[8]));
        // One that ends makes room for others, but not for the one that has more.
        assert!(streams.leave(&first[0]));
        assert!(!aside(&streams, &second[8]) || !aside(&streams, &first[8]));
        for stream in first.iter().skip(1).chain(&second) {
            assert_eq!(streams.leave(stream), stream.is_aside());
        }
        assert!(!streams.hold_places());
        assert_eq!(placed(&wait(&streams, 3, 5)), 0);
    }

    #[test]
    fn streams_are_quiet_as_long_as_none_of_them_goes_on() {
        let (streams, mut moves) = (StreamThreads::new(10), 0);
        assert_eq!(streams.quiet(&mut moves), Quiet::default());
        let all = [wait(&streams, 1, 2), wait(&streams, 2, 1)].concat();
        let quiet = Quiet {
            streams: 3,
            connections: 2,
        };
        assert_eq!(streams.quiet(&mut moves), quiet);
        streams.has_waited(&all[0]);
        assert_eq!(streams.quiet(&mut moves), Quiet::default());
        assert_eq!(streams.quiet(&mut moves), quiet);
        for stream in &all {
            assert!(streams.leave(stream));
        }
        assert_eq!(streams.quiet(&mut moves), Quiet::default());
    }

    #[test]
    fn who_waits_gives_its_place_back_once_there_is_room_if_that_helps() {
        let streams = StreamThreads::new(2);
        let first = wait(&streams, 1, 3);
        assert_eq!(placed(&first), 2);
        assert!(streams.leave(&first[0]));
        assert!(streams.move_aside(Wanted::default, || false).is_empty());
        assert_eq!(streams.move_aside(Wanted::default, || true).len(), 1);
        assert_eq!(placed(&first[1..]), 1);
        first[2].has_waited();
        assert!(streams.leave(&first[1]));
        let moved = streams.move_aside(Wanted::default, || true);
        assert!(moved.is_empty(), "it is at work");
    }

    #[test]
    fn for_others_the_connection_with_most_streams_loses_the_one_that_came_last() {
        let (streams, mut stalled) = (StreamThreads::new(4), Stalled::default());
        wait(&streams, 1, 5);
        wait(&streams, 2, 1);
        let waiting = &[(3, 1)];
        // They may be about to give their places back.
        assert!(ended(&streams, &mut stalled, waiting, START).is_empty());
        assert_eq!(ended(&streams, &mut stalled, waiting, START), [104]);
        // That one is about to leave.
        assert!(ended(&streams, &mut stalled, waiting, START).is_empty());
        // Its own call has to wait.
        let two = &[(1, 1), (3, 2)];
        assert_eq!(ended(&streams, &mut stalled, two, START), [103]);
        assert!(ended(&streams, &mut stalled, two, START).is_empty());
    }

    #[test]
    fn one_that_is_at_work_is_left_alone() {
        let (streams, mut stalled) = (StreamThreads::new(0), Stalled::default());
        let all = wait(&streams, 1, 2);
        all[1].has_waited();
        assert!(ended(&streams, &mut stalled, &[(2, 2)], START).is_empty());
        assert_eq!(ended(&streams, &mut stalled, &[(2, 2)], START), [100]);
        all[0].has_waited();
    }

    #[test]
    fn nobody_ends_because_all_places_are_at_work() {
        let (streams, mut stalled) = (StreamThreads::new(100), Stalled::default());
        let quiet = wait(&streams, 1, 5);
        assert_eq!(placed(&quiet), 0);
        let at_work = streams.enter(200, 2);
        for now in [START, START + LIMIT / 2, START + LIMIT] {
            assert!(ended(&streams, &mut stalled, &[(3, 4)], now).is_empty());
        }
        drop(at_work);
    }

    #[test]
    fn nobody_gives_way_to_who_has_more() {
        let (streams, mut stalled) = (StreamThreads::new(100), Stalled::default());
        let few = wait(&streams, 1, 2);
        let more = wait(&streams, 2, 5);
        streams.note_thread(false);
        for stream in &more {
            stream.has_waited();
        }
        for now in [START, START + LIMIT] {
            let waiting = &[(2, 5)];
            assert!(ended(&streams, &mut stalled, waiting, now).is_empty());
        }
        drop(few);
    }

    #[test]
    fn for_its_own_calls_a_stream_ends_once_it_has_waited_for_the_limit() {
        let (streams, mut stalled) = (StreamThreads::new(0), Stalled::default());
        let all = wait(&streams, 1, 2);
        let mut look = |now| ended(&streams, &mut stalled, &[(1, 2)], now);
        assert!(look(START).is_empty());
        // One of them gets a message.
        all[0].has_waited();
        all[0].begins_to_wait();
        assert!(look(START + LIMIT - Duration::from_millis(1)).is_empty());
        assert_eq!(look(START + LIMIT), [101]);
        assert_eq!(look(START + 2 * LIMIT), [100]);
    }

    #[test]
    fn without_threads_those_that_wait_give_way_too() {
        let (streams, mut stalled) = (StreamThreads::new(100), Stalled::default());
        wait(&streams, 1, 3);
        assert!(ended(&streams, &mut stalled, &[(2, 1)], START).is_empty());
        streams.note_thread(false);
        assert!(streams.hold_places());
        assert_eq!(ended(&streams, &mut stalled, &[(2, 1)], START), [102]);
        let late = wait(&streams, 2, 1);
        assert_eq!(placed(&late), 1, "there is no thread for another call");
    }
}
