//! What waits for a worker: a lane for each connection, and each lane has its turn.
//!
//! In one queue for all, who sends a thousand calls makes everybody wait for a thousand calls. With lanes,
//! a call waits for those of its own connection, and for one of each other connection at a time. When there is no room,
//! the longest lane gives way to a shorter one. As long as all that waits has come on one connection, that is a plain queue.

use std::collections::{BTreeMap, VecDeque};

use super::decision::Backlog;

/// What came of letting a call wait.
pub(super) enum Admission<T> {
    Waits,
    /// It waits, and these do not any more: their connections have more that waits.
    Instead(Vec<T>),
    /// There is no room for it.
    Refused(T),
}

pub(super) struct Lanes<T> {
    /// Those in which something waits, by the numbers of their connections.
    lanes: BTreeMap<u64, Lane<T>>,
    /// Whose turn it is next; each lane once.
    turns: VecDeque<u64>,
    calls: usize,
    bytes: usize,
}

struct Lane<T> {
    /// Each with the size of its message.
    calls: VecDeque<(T, usize)>,
    bytes: usize,
}

impl<T> Lane<T> {
    fn new() -> Lane<T> {
        Lane {
            calls: VecDeque::new(),
            bytes: 0,
        }
    }
}

impl<T> Lanes<T> {
    pub(super) fn new() -> Lanes<T> {
        Lanes {
            lanes: BTreeMap::new(),
            turns: VecDeque::new(),
            calls: 0,
            bytes: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.calls
    }

    /// Whether anything of this connection waits.
    pub(super) fn has(&self, connection: u64) -> bool {
        self.lanes.contains_key(&connection)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls == 0
    }

    /// Lets a call wait, if there is room, or another connection has more that waits.
    pub(super) fn admit(
        &mut self,
        call: T,
        connection: u64,
        bytes: usize,
        limit: Backlog,
    ) -> Admission<T> {
        let mut one_too_many = None;
        if self.calls >= limit.calls {
            let own = self.lanes.get(&connection).map_or(0, |it| it.calls.len());
            let Some((longest, lane)) = self.longest(|it| it.calls.len()) else {
                return Admission::Refused(call);
            };
            if lane.calls.len() <= own + 1 {
                return Admission::Refused(call);
            }
            one_too_many = self.take_newest(longest).map(|it| (longest, it));
        }
        let mut displaced = Vec::new();
        // One that is larger than all that may wait has to fit somewhere, too.
        let excess = match self.is_empty() {
            true => 0,
            false => (self.bytes + bytes).saturating_sub(limit.bytes),
        };
        if excess > 0 {
            let own = self.lanes.get(&connection).map_or(0, |it| it.bytes);
            let longest = self.longest(|it| it.bytes);
            match longest.filter(|(_, it)| it.bytes - it.newest(excess) >= own + bytes) {
                Some((longest, lane)) => {
                    let room = self.bytes - lane.newest(excess);
                    while self.bytes > room {
                        displaced.extend(self.take_newest(longest).map(|(call, _)| call));
                    }
                }
                None => {
                    if let Some((longest, (call, bytes))) = one_too_many {
                        self.push(call, longest, bytes);
                    }
                    return Admission::Refused(call);
                }
            }
        }
        displaced.extend(one_too_many.map(|(_, (call, _))| call));
        self.push(call, connection, bytes);
        match displaced.is_empty() {
            true => Admission::Waits,
            false => Admission::Instead(displaced),
        }
    }

    /// The first call whose turn it is of those that are meant, and of those that are the first of their connections.
    pub(super) fn pop_first(&mut self, is_meant: impl Fn(&T) -> bool) -> Option<T> {
        let is_first = |it: &u64| {
            let first = self.lanes.get(it).and_then(|it| it.calls.front());
            first.is_some_and(|(call, _)| is_meant(call))
        };
        let place = self.turns.iter().position(is_first)?;
        let connection = self.turns.remove(place)?;
        self.turns.push_front(connection);
        self.pop()
    }

    /// The call whose turn it is.
    pub(super) fn pop(&mut self) -> Option<T> {
        let connection = self.turns.pop_front()?;
        let lane = self.lanes.get_mut(&connection)?;
        let (call, bytes) = lane.calls.pop_front()?;
        lane.bytes -= bytes;
        self.calls -= 1;
        self.bytes -= bytes;
        match lane.calls.is_empty() {
            true => drop(self.lanes.remove(&connection)),
            false => self.turns.push_back(connection),
        }
        Some(call)
    }

    /// The call whose turn it is, without taking it.
    pub(super) fn first(&self) -> Option<&T> {
        let lane = self.lanes.get(self.turns.front()?)?;
        lane.calls.front().map(|(call, _)| call)
    }

    /// The connections whose calls wait, and how many calls of each do.
    pub(super) fn connections(&self) -> Vec<(u64, usize)> {
        let lanes = self.lanes.iter();
        lanes.map(|(it, lane)| (*it, lane.calls.len())).collect()
    }

    /// Takes out what is to be taken.
    pub(super) fn take(&mut self, is_to_be_taken: impl Fn(&T) -> bool) -> Vec<T> {
        let mut lanes = std::mem::take(&mut self.lanes);
        let turns = std::mem::take(&mut self.turns);
        (self.calls, self.bytes) = (0, 0);
        let mut taken = Vec::new();
        for connection in turns {
            let waiting = lanes.remove(&connection).into_iter();
            for (call, bytes) in waiting.flat_map(|it| it.calls) {
                match is_to_be_taken(&call) {
                    true => taken.push(call),
                    false => self.push(call, connection, bytes),
                }
            }
        }
        taken
    }

    fn push(&mut self, call: T, connection: u64, bytes: usize) {
        let lane = self.lanes.entry(connection).or_insert_with(|| {
            self.turns.push_back(connection);
            Lane::new()
        });
        lane.calls.push_back((call, bytes));
        lane.bytes += bytes;
        self.calls += 1;
        self.bytes += bytes;
    }

    fn longest(&self, length: impl Fn(&Lane<T>) -> usize) -> Option<(u64, &Lane<T>)> {
        let lanes = self
            .lanes
            .iter()
            .map(|(connection, lane)| (*connection, lane));
        lanes.max_by_key(|(_, lane)| length(lane))
    }

    /// Takes out what came last in a lane.
    fn take_newest(&mut self, connection: u64) -> Option<(T, usize)> {
        let lane = self.lanes.get_mut(&connection)?;
        let (call, bytes) = lane.calls.pop_back()?;
        lane.bytes -= bytes;
        self.calls -= 1;
        self.bytes -= bytes;
        if lane.calls.is_empty() {
            self.lanes.remove(&connection);
            self.turns.retain(|it| *it != connection);
        }
        Some((call, bytes))
    }
}

impl<T> Lane<T> {
    /// The size of as many of those that came last as make at least `excess` together.
    fn newest(&self, excess: usize) -> usize {
        let mut sum = 0;
        for (_, bytes) in self.calls.iter().rev() {
            if sum >= excess {
                break;
            }
            sum += bytes;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const LIMIT: Backlog = Backlog {
        calls: 4,
        bytes: 100,
    };

    /// What waits and what does not any more, by name.
    fn admit(lanes: &mut Lanes<&'static str>, call: &'static str, on: u64, bytes: usize) -> String {
        match lanes.admit(call, on, bytes, LIMIT) {
            Admission::Waits => "waits".to_owned(),
            Admission::Instead(calls) => format!("instead of {}", calls.join(", ")),
            Admission::Refused(call) => format!("{call} refused"),
        }
    }

    fn order(lanes: &mut Lanes<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| {
            let first = lanes.first().copied();
            let popped = lanes.pop();
            assert_eq!(first, popped);
            popped
        })
        .collect()
    }

    #[test]
    fn each_connection_has_its_turn() {
        let mut lanes = Lanes::new();
        for (call, on) in [("a1", 1), ("a2", 1), ("a3", 1), ("b1", 2)] {
            assert_eq!(admit(&mut lanes, call, on, 0), "waits");
        }
        assert_eq!(lanes.connections(), [(1, 3), (2, 1)]);
        assert_eq!(order(&mut lanes), ["a1", "b1", "a2", "a3"]);
        assert!(lanes.is_empty());
    }

    #[test]
    fn calls_of_one_connection_wait_in_their_order_and_the_one_too_many_is_refused() {
        let mut lanes = Lanes::new();
        for call in ["1", "2", "3", "4"] {
            assert_eq!(admit(&mut lanes, call, 7, 0), "waits");
        }
        assert_eq!(admit(&mut lanes, "5", 7, 0), "5 refused");
        assert_eq!(order(&mut lanes), ["1", "2", "3", "4"]);
    }

    #[test]
    fn the_longest_lane_gives_way_until_all_are_of_one_length() {
        let mut lanes = Lanes::new();
        for call in ["a1", "a2", "a3", "a4"] {
            admit(&mut lanes, call, 1, 0);
        }
        assert_eq!(admit(&mut lanes, "b1", 2, 0), "instead of a4");
        assert_eq!(admit(&mut lanes, "b2", 2, 0), "instead of a3");
        assert_eq!(admit(&mut lanes, "b3", 2, 0), "b3 refused");
        assert_eq!(admit(&mut lanes, "a5", 1, 0), "a5 refused");
        assert_eq!(order(&mut lanes), ["a1", "b1", "a2", "b2"]);
    }

    #[test]
    fn the_lane_with_the_largest_messages_gives_way() {
        let mut lanes = Lanes::new();
        admit(&mut lanes, "a1", 1, 40);
        admit(&mut lanes, "a2", 1, 50);
        assert_eq!(admit(&mut lanes, "a3", 1, 20), "a3 refused");
        assert_eq!(admit(&mut lanes, "b1", 2, 20), "instead of a2");
        assert_eq!(admit(&mut lanes, "b2", 2, 90), "b2 refused");
        assert_eq!(order(&mut lanes), ["a1", "b1"]);
        // The first waits, whatever its size.
        assert_eq!(admit(&mut lanes, "c1", 3, 1000), "waits");
        assert_eq!(admit(&mut lanes, "c2", 3, 1), "c2 refused");
    }

    #[test]
    fn nothing_waits_where_there_is_no_room_at_all() {
        let mut lanes = Lanes::new();
        let none = Backlog { calls: 0, bytes: 0 };
        assert!(matches!(lanes.admit(1, 1, 0, none), Admission::Refused(1)));
    }

    proptest! {
        /// Nobody waits twice or is lost, the limits hold, and who is turned away is of a connection that has as much as
        /// any other.
        #[test]
        fn each_call_waits_or_is_turned_away_and_no_lane_is_pushed_below_its_share(
            steps in vec(prop::option::weighted(0.8, (0..4_u64, 0..60_usize)), 1..80),
        ) {
            let mut lanes = Lanes::new();
            let (mut seen, mut left) = (0_usize, 0);
            for (index, step) in steps.into_iter().enumerate() {
                let Some((on, bytes)) = step else {
                    left += usize::from(lanes.pop().is_some());
                    continue;
                };
                seen += 1;
                let waiting = lanes.len();
                match lanes.admit((index, on), on, bytes, LIMIT) {
                    Admission::Waits => prop_assert_eq!(lanes.len(), waiting + 1),
                    Admission::Instead(calls) => {
                        left += calls.len();
                        for (_, other) in calls {
                            // Whoever gave way has still as much as the newcomer, of what there was too little.
                            let of = |on| lanes.lanes.get(&on).map_or((0, 0), |it: &Lane<_>| (it.calls.len(), it.bytes));
                            prop_assert!(of(other).0 >= of(on).0 || of(other).1 >= of(on).1);
                        }
                    }
                    Admission::Refused(call) => {
                        prop_assert_eq!(call.0, index);
                        left += 1;
                    }
                }
                prop_assert!(lanes.len() <= LIMIT.calls);
                prop_assert!(lanes.bytes <= LIMIT.bytes || lanes.len() == 1);
                prop_assert_eq!(seen, left + lanes.len());
                prop_assert_eq!(lanes.turns.len(), lanes.lanes.len());
            }
            let waits = lanes.len();
            prop_assert_eq!(lanes.take(|(_, on)| on % 2 == 0).len() + lanes.len(), waits);
        }
    }
}
