//! What waits for a place: calls, and steps of calls that were accepted before. And whose turn it is.
//!
//! | what waits | whose turn it is |
//! |---|---|
//! | calls and steps | by turns |
//! | among the calls, streams that begin and others | by turns: to begin a stream may take a new thread |
//! | among each of these | by the [lanes](super::lanes), one for each connection |

use std::collections::{BTreeMap, BTreeSet};

use super::decision::{Backlog, Outlook, Waits};
use super::lanes::{Admission, Lanes};

/// What holds for steps.
const NO_LIMIT: Backlog = Backlog {
    calls: usize::MAX,
    bytes: usize::MAX,
};

pub(super) struct Queues<T> {
    calls: Lanes<T>,
    /// No limit holds for them, as each call has one at the most.
    steps: Lanes<T>,
    /// Whose turn it is, while both wait.
    step_is_next: bool,
    /// The last call that had waited began a stream.
    was_stream: bool,
    /// The connections whose calls have many places, while others wait for one.
    heavy: BTreeSet<u64>,
}

impl<T> Queues<T> {
    pub(super) fn new() -> Queues<T> {
        Queues {
            calls: Lanes::new(),
            steps: Lanes::new(),
            step_is_next: false,
            was_stream: false,
            heavy: BTreeSet::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.steps.is_empty()
    }

    /// How many calls wait, without the steps.
    pub(super) fn calls(&self) -> usize {
        self.calls.len()
    }

    /// The connections whose calls or steps wait, and how many of each do.
    pub(super) fn connections(&self) -> Vec<(u64, usize)> {
        let mut all = BTreeMap::new();
        let waiting = self.calls.connections().into_iter();
        for (connection, count) in waiting.chain(self.steps.connections()) {
            *all.entry(connection).or_default() += count;
        }
        all.into_iter().collect()
    }

    /// Takes out what is to be taken of the calls.
    pub(super) fn take(&mut self, is_to_be_taken: impl Fn(&T) -> bool) -> Vec<T> {
        self.calls.take(is_to_be_taken)
    }

    /// The call whose turn it is.
    pub(super) fn first(&self) -> Option<&T> {
        self.calls.first()
    }

    /// The calls of these connections have many places, until this is said anew. Returns how many of others wait.
    pub(super) fn favour_others(&mut self, heavy: BTreeSet<u64>) -> usize {
        self.heavy = heavy;
        if self.heavy.is_empty() {
            return 0;
        }
        let waiting = self.connections().into_iter();
        let light = waiting.filter(|(connection, _)| !self.heavy.contains(connection));
        light.map(|(_, calls)| calls).sum()
    }
}

impl<T: Waits> Queues<T> {
    pub(super) fn admit(&mut self, call: T, outlook: Outlook, backlog: Backlog) -> Admission<T> {
        let connection = call.connection();
        if outlook.is_step {
            self.steps.admit(call, connection, 0, NO_LIMIT)
        } else {
            (self.calls).admit(call, connection, outlook.bytes, backlog)
        }
    }

    /// A step waits whose call has just had another.
    pub(super) fn step_again(&mut self, call: T) {
        let connection = call.connection();
        self.steps.admit(call, connection, 0, NO_LIMIT);
    }

    /// What is to be run next.
    pub(super) fn next(&mut self) -> Option<T> {
        let step_is_next = self.step_is_next || self.calls.is_empty();
        if let Some(step) = step_is_next.then(|| self.steps.pop()).flatten() {
            self.step_is_next = false;
            return Some(step);
        }
        let call = match self.was_stream {
            true => self.calls.pop_first(|it| !it.is_stream()),
            false => None,
        };
        let call = call.or_else(|| self.calls.pop())?;
        self.was_stream = call.is_stream();
        self.step_is_next = true;
        Some(call)
    }

    /// The same for a spare place, which is for calls of connections that have few.
    pub(super) fn next_light(&mut self) -> Option<T> {
        if self.heavy.is_empty() {
            return None;
        }
        let heavy = &self.heavy;
        let is_light = |it: &T| !heavy.contains(&it.connection());
        let call = self.calls.pop_first(is_light);
        call.or_else(|| self.steps.pop_first(is_light))
    }

    /// Whether a spare place is for this call, with which nothing of its connection waits.
    pub(super) fn is_light(&self, call: &T) -> bool {
        if self.heavy.is_empty() {
            return false;
        }
        let connection = call.connection();
        let waits = self.calls.has(connection) || self.steps.has(connection);
        !waits && !self.heavy.contains(&connection)
    }
}
