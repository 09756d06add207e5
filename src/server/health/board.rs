//! What one server says of its health, and who watches it.
//!
//! No state is ever carried from where it changed to where it is told. The thread that changes one calls
//! [`Board::tell`], and what goes to a watcher is looked up when it goes, under that watcher's own
//! lock. So it does not matter in which order two threads come here that have changed something:
//! the last to come sends what holds by then, or finds that it was sent. While a message is on its way
//! to a slow watcher nothing follows; once it has gone out, [`Board::sent`] looks again.
//!
//! Locks are taken in this order: a watcher's, then the board's or the program's word. None is held
//! while another watcher's is waited for, so a change costs a `Check` nothing.

use std::collections::BTreeMap;

use crate::sync::{Arc, Mutex};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Serving,
    NotServing,
    /// Nobody has heard of a service of this name.
    Unknown,
}

/// Why a watcher is told no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The server goes.
    Over,
    /// The caller has left, or its deadline has passed.
    Left,
    /// There are too many.
    TooMany,
}

/// The call of a watcher.
pub(crate) trait Stream: Send + Sync {
    /// Tells it from all others that are open.
    fn key(&self) -> usize;

    /// Tells its connection from others.
    fn peer(&self) -> String;

    /// Whether a message is on its way. Becomes false by itself, and then [`Board::sent`] is called.
    fn is_sending(&self) -> bool;

    /// Begins to send, and waits for nothing. Not called while a message is on its way.
    fn send(&self, state: State);

    /// Ends the call. A last message is sent only if none is on its way.
    fn end(&self, last: Option<State>, end: End);
}

/// Says of a service whether it may be called serving.
pub(crate) type Condition = std::sync::Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// What the program says of its services, whatever the phase.
#[derive(Default)]
pub(crate) struct Word {
    said: Mutex<BTreeMap<String, bool>>,
    conditions: Mutex<Vec<Condition>>,
}

impl Word {
    pub(crate) fn set(&self, service: String, serving: bool) {
        self.said.lock().insert(service, serving);
    }

    pub(crate) fn require(&self, condition: Condition) {
        self.conditions.lock().push(condition);
    }

    pub(crate) fn of(&self, service: &str) -> Option<bool> {
        self.said.lock().get(service).copied()
    }

    /// Whether all conditions hold. No lock is held while they are asked.
    pub(crate) fn permits(&self, service: &str) -> bool {
        let conditions = self.conditions.lock().clone();
        conditions.iter().all(|it| it(service))
    }

    fn services(&self) -> Vec<String> {
        self.said.lock().keys().cloned().collect()
    }
}

pub(crate) struct Board<S> {
    word: Arc<Word>,
    /// Services that are known without the program's word.
    served: Vec<&'static str>,
    /// Whether the lifecycle lets the server call itself ready.
    is_ready: Box<dyn Fn() -> bool + Send + Sync>,
    /// How many watchers there may be.
    limit: usize,
    watchers: Mutex<Watchers<S>>,
}

struct Watchers<S> {
    /// While not, who is told something is told that it was the last.
    open: bool,
    list: BTreeMap<usize, Arc<Watcher<S>>>,
    /// How many each connection has.
    of_peer: BTreeMap<String, usize>,
    next: u64,
}

struct Watcher<S> {
    /// Later ones have larger numbers.
    number: u64,
    service: String,
    peer: String,
    stream: S,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    last: Option<State>,
    ended: bool,
}

impl<S: Stream> Board<S> {
    /// A board that keeps no watchers yet.
    pub(crate) fn new(
        word: Arc<Word>,
        served: Vec<&'static str>,
        is_ready: impl Fn() -> bool + Send + Sync + 'static,
        limit: usize,
    ) -> Board<S> {
        Board {
            word,
            served,
            is_ready: Box::new(is_ready),
            limit,
            watchers: Mutex::new(Watchers {
                open: false,
                list: BTreeMap::new(),
                of_peer: BTreeMap::new(),
                next: 0,
            }),
        }
    }

    pub(crate) fn state(&self, service: &str) -> State {
        let said = self.word.of(service);
        let Some(serving) = said.or_else(|| self.served.contains(&service).then_some(true)) else {
            return State::Unknown;
        };
        // Asked last: a stop that has begun by now counts.
        match serving && self.word.permits(service) && (self.is_ready)() {
            true => State::Serving,
            false => State::NotServing,
        }
    }

    /// Whether calls are welcome, as far as the program's phase goes.
    pub(crate) fn is_ready(&self) -> bool {
        (self.is_ready)()
    }

    /// The services that are known, in the order of their names.
    pub(crate) fn services(&self) -> Vec<String> {
        let mut services = self.word.services();
        services.extend(self.served.iter().map(|it| it.to_string()));
        services.sort_unstable();
        services.dedup();
        services
    }

    /// From now on watchers are kept.
    pub(crate) fn open(&self) {
        self.watchers.lock().open = true;
    }

    /// Takes a watcher in, if there is room, and tells it the state.
    /// `watch_out` is to see to it that [`left`](Self::left) is called when the caller leaves.
    pub(crate) fn watch(&self, service: String, stream: S, watch_out: impl FnOnce(&S)) {
        let mut watchers = self.watchers.lock();
        watchers.next += 1;
        let watcher = Arc::new(Watcher {
            number: watchers.next,
            service,
            peer: stream.peer(),
            stream,
            told: Mutex::new(Told::default()),
        });
        watchers.insert(&watcher);
        let outbid = match watchers.list.len() > self.limit {
            true => watchers.remove_from_busiest(),
            false => None,
        };
        drop(watchers);
        if let Some(outbid) = outbid {
            outbid.end(None, End::TooMany);
        }
        watch_out(&watcher.stream);
        // If the board is closed, this is the end already.
        self.update(&watcher);
    }

    /// Tells the watchers of a service, or all, what they do not know yet.
    pub(crate) fn tell(&self, service: Option<&str>) {
        let watchers = self.watchers.lock();
        let concerned = watchers.list.values();
        let concerned = concerned.filter(|it| service.is_none_or(|service| service == it.service));
        let concerned: Vec<_> = concerned.cloned().collect();
        drop(watchers);
        concerned.iter().for_each(|it| self.update(it));
    }

    /// A watcher's message has gone out.
    pub(crate) fn sent(&self, key: usize) {
        let watcher = self.watchers.lock().list.get(&key).cloned();
        if let Some(watcher) = watcher {
            self.update(&watcher);
        }
    }

    /// A watcher's caller is not there any more.
    pub(crate) fn left(&self, key: usize) {
        let watcher = self.watchers.lock().remove(key);
        if let Some(watcher) = watcher {
            watcher.end(None, End::Left);
        }
    }

    /// Ends every watcher that has been told everything; the others follow when they have.
    pub(crate) fn close(&self) {
        self.watchers.lock().open = false;
        self.tell(None);
    }

    /// Ends every watcher that is left.
    pub(crate) fn cut(&self) {
        let mut watchers = self.watchers.lock();
        watchers.open = false;
        watchers.of_peer.clear();
        let left = std::mem::take(&mut watchers.list);
        drop(watchers);
        left.values().for_each(|it| it.end(None, End::Over));
    }

    fn update(&self, watcher: &Watcher<S>) {
        let mut told = watcher.told.lock();
        if told.ended || watcher.stream.is_sending() {
            return;
        }
        // Before the state: what is told last has to be what holds at the end.
        let is_last = !self.watchers.lock().open;
        let state = self.state(&watcher.service);
        let news = (told.last != Some(state)).then_some(state);
        if is_last {
            told.ended = true;
            watcher.stream.end(news, End::Over);
            drop(told);
            self.watchers.lock().remove(watcher.stream.key());
        } else if let Some(state) = news {
            told.last = news;
            watcher.stream.send(state);
        }
    }
}

impl<S: Stream> Watcher<S> {
    /// Ends the call, unless it has ended.
    fn end(&self, last: Option<State>, end: End) {
        let mut told = self.told.lock();
        if !told.ended {
            told.ended = true;
            self.stream.end(last, end);
        }
    }
}

impl<S: Stream> Watchers<S> {
    fn insert(&mut self, watcher: &Arc<Watcher<S>>) {
        *self.of_peer.entry(watcher.peer.clone()).or_default() += 1;
        self.list.insert(watcher.stream.key(), Arc::clone(watcher));
    }

    fn remove(&mut self, key: usize) -> Option<Arc<Watcher<S>>> {
        let watcher = self.list.remove(&key)?;
        if let Some(count) = self.of_peer.get_mut(&watcher.peer) {
            *count -= 1;
            if *count == 0 {
                self.of_peer.remove(&watcher.peer);
            }
        }
        Some(watcher)
    }

    /// Takes the newest out of those of the connection that has the most.
    fn remove_from_busiest(&mut self) -> Option<Arc<Watcher<S>>> {
        let (peer, _) = self.of_peer.iter().max_by_key(|(_, count)| **count)?;
        let theirs = self.list.values().filter(|it| it.peer == *peer);
        let key = theirs.max_by_key(|it| it.number)?.stream.key();
        self.remove(key)
    }
}
