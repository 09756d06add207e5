//! What a server says of its health, and to whom: watchers that are told of changes, leave, and are let go
//! when the server goes.
//!
//! A thread stands for the network: it takes one message of a watcher after the other, in its own time.

use super::board::{Board, End, State, Stream, Word};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{thread, unbounded, Arc, Mutex, Sender};

const SERVICE: &str = "service";

struct Site {
    word: Arc<Word>,
    ready: Arc<AtomicBool>,
    board: Board<Watcher>,
}

struct Watcher {
    key: usize,
    call: Arc<Call>,
    network: Sender<usize>,
}

#[derive(Default)]
struct Call {
    sending: AtomicBool,
    /// Messages that the network is not yet done with.
    under_way: AtomicUsize,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    told: Vec<State>,
    ends: Vec<End>,
}

impl Stream for Watcher {
    fn key(&self) -> usize {
        self.key
    }

    fn peer(&self) -> String {
        "peer".to_owned()
    }

    fn is_sending(&self) -> bool {
        self.call.sending.load(Ordering::SeqCst)
    }

    fn send(&self, state: State) {
        let was_sending = self.call.sending.swap(true, Ordering::SeqCst);
        assert!(!was_sending, "a second message is sent meanwhile");
        let mut log = self.call.log.lock();
        // The engine sends nothing on a call that has ended.
        if log.ends.is_empty() {
            log.told.push(state);
            drop(log);
            self.call.under_way.fetch_add(1, Ordering::SeqCst);
            let _ = self.network.send(self.key);
        }
    }

    fn end(&self, last: Option<State>, end: End) {
        let mut log = self.call.log.lock();
        log.told.extend(last);
        log.ends.push(end);
    }
}

/// A server that is ready, with a watcher.
struct Scene {
    site: Arc<Site>,
    calls: Vec<Arc<Call>>,
    to_network: Sender<usize>,
    network: thread::JoinHandle<()>,
}

impl Scene {
    fn new(limit: usize) -> Scene {
        let (word, ready) = (Arc::new(Word::default()), Arc::new(AtomicBool::new(true)));
        let is_ready = Arc::clone(&ready);
        let is_ready = move || is_ready.load(Ordering::SeqCst);
        let board = Board::new(Arc::clone(&word), vec![SERVICE], is_ready, limit);
        board.open();
        let site = Arc::new(Site { word, ready, board });
        let calls: Vec<Arc<Call>> = (0..2).map(|_| Arc::default()).collect();
        let (to_network, messages) = unbounded();
        let network = thread::spawn({
            let (site, calls) = (Arc::clone(&site), calls.clone());
            move || {
                while let Ok(key) = messages.recv() {
                    let call: &Arc<Call> = &calls[key];
                    call.sending.store(false, Ordering::SeqCst);
                    site.board.sent(key);
                    call.under_way.fetch_sub(1, Ordering::SeqCst);
                }
            }
        });
        Scene {
            site,
            calls,
            to_network,
            network,
        }
    }

    fn watcher(&self, key: usize) -> Watcher {
        Watcher {
            key,
            call: Arc::clone(&self.calls[key]),
            network: self.to_network.clone(),
        }
    }

    fn watch(&self, key: usize) {
        let watcher = self.watcher(key);
        self.site.board.watch(SERVICE.to_owned(), watcher, |_| {});
    }

    fn spawn(&self, run: impl FnOnce(&Site) + Send + 'static) -> thread::JoinHandle<()> {
        let site = Arc::clone(&self.site);
        thread::spawn(move || run(&site))
    }

    fn say(&self, serving: bool) -> thread::JoinHandle<()> {
        self.spawn(move |site| {
            site.word.set(SERVICE.to_owned(), serving);
            site.board.tell(Some(SERVICE));
        })
    }

    /// Waits until all is said, told and taken.
    fn settle(&self, threads: impl IntoIterator<Item = thread::JoinHandle<()>>) {
        threads.into_iter().for_each(|it| it.join().unwrap());
        while self.calls.iter().any(|it| it.under_way.load(Ordering::SeqCst) > 0) {
            thread::yield_now();
        }
        for call in &self.calls {
            let log = call.log.lock();
            let again = log.told.windows(2).any(|pair| pair[0] == pair[1]);
            assert!(!again, "a state is told twice: {:?}", log.told);
        }
    }

    fn assert_that_what_was_told_last_holds(&self) {
        let state = self.site.board.state(SERVICE);
        for call in &self.calls {
            let told = &call.log.lock().told;
            assert_eq!(told.last(), Some(&state), "an older state is told last: {told:?}");
        }
    }

    fn end(self) {
        self.site.board.cut();
        let Scene { to_network, network, .. } = self;
        drop(to_network);
        network.join().unwrap();
    }
}

/// Two threads say opposite things; what watchers are told last is what holds.
pub fn what_is_told_last_is_what_holds() {
    let scene = Scene::new(2);
    scene.watch(0);
    let threads = [scene.say(false), scene.say(true), scene.say(false)];
    scene.watch(1);
    scene.settle(threads);
    scene.assert_that_what_was_told_last_holds();
    scene.end();
}

/// Once a watcher was told of the stop it is told nothing else, whatever the program says; and every watcher
/// is told of it and let go, once.
pub fn a_stop_is_told_and_final() {
    stop(|site| {
        site.ready.store(false, Ordering::SeqCst);
        site.board.tell(None);
        site.board.close();
    });
}

/// The same, if the end comes before the news.
pub fn who_was_not_told_of_the_stop_is_told_at_the_end() {
    stop(|site| {
        site.ready.store(false, Ordering::SeqCst);
        site.board.close();
    });
}

fn stop(stop: fn(&Site)) {
    let scene = Scene::new(2);
    scene.watch(0);
    // Nobody says anything but that the service serves.
    let threads = [scene.spawn(stop), scene.say(true), scene.say(true)];
    scene.watch(1);
    scene.settle(threads);
    scene.assert_that_what_was_told_last_holds();
    for call in &scene.calls {
        let log = call.log.lock();
        let again = log.told.windows(2).any(|it| it[1] == State::Serving);
        assert!(!again, "told to serve again: {:?}", log.told);
        assert_eq!(log.ends, [End::Over], "not let go");
    }
    scene.end();
}

/// Nobody who comes, leaves, or has to make room is left behind, or let go twice.
pub fn nobody_is_left_behind() {
    let scene = Scene::new(1);
    let threads = [
        scene.spawn({
            let watcher = scene.watcher(0);
            move |site| site.board.watch(SERVICE.to_owned(), watcher, |_| {})
        }),
        scene.spawn(|site| site.board.left(0)),
        scene.spawn(|site| {
            site.board.close();
            site.board.cut();
        }),
        scene.say(false),
    ];
    scene.watch(1);
    scene.settle(threads);
    for call in &scene.calls {
        let ends = &call.log.lock().ends;
        assert!(!ends.is_empty(), "left behind");
        assert!(ends.len() < 2, "let go twice: {ends:?}");
    }
    scene.end();
}
