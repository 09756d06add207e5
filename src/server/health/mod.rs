//! Whether the server wants calls: `grpc.health.v1`, built in.

mod board;
mod service;

use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use self::board::{State, Word};

pub(super) use self::service::{key_of, service, Board, NAME};

/// What a service can be to those who ask for its health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServingStatus {
    /// Calls are welcome.
    Serving,
    /// Calls had better go elsewhere.
    NotServing,
}

/// The program's own word on the health of its services.
///
/// Every server serves `grpc.health.v1.Health`, by which load balancers and clients ask whether it
/// wants calls: `Check` for one service, `List` for all, `Watch` to be told of changes. There is nothing
/// to set up. The services that a server serves, and the server as a whole (the empty name), are
/// SERVING in [`Phase::Serving`](crate::lifecycle::Phase::Serving) and NOT_SERVING in all others,
/// from the very moment the stop begins
/// ([`Lifecycle::stopping`](crate::lifecycle::Lifecycle::stopping)).
///
/// A program that knows better, because a sensor is gone or a database cannot be reached, says so
/// here. A clone is the same word; one may be given to
/// [`ServerBuilder::health`](crate::ServerBuilder::health) of several servers, and to handlers. What
/// it says of one service changes nothing for another, nor for the server as a whole. In other phases than
/// Serving, NOT_SERVING holds whatever is said.
///
/// ```
/// use touchdown::{Health, Server, ServingStatus};
///
/// let health = Health::new();
/// let server = Server::builder().address("127.0.0.1:0").health(health.clone()).start()?;
/// health.set("demo.Thermometer", ServingStatus::NotServing);
/// # Ok::<(), touchdown::StartError>(())
/// ```
///
/// # How it is answered
///
/// - By the thread that polls, so it works with every worker blocked and the backlog full.
/// - Interceptors are not run: what probes a server has no token to show. Who must not be asked serves a
///   service of that name instead, which replaces the one built in.
/// - These calls are not counted among the server's, neither in flight nor in the report, and no stop
///   waits for them.
/// - Watch streams hold no worker. When Draining begins they are told what they do not know yet and
///   end with OK. One that takes nothing costs some 10 KiB, and there are no more than
///   [`max_health_watches`](crate::ServerBuilder::max_health_watches), by default two for each connection that there may
///   be, all together: one more ends the newest of the connection that has the most, with RESOURCE_EXHAUSTED.
/// - `List` names 100 services at the most, as the protocol says; with more it fails with
///   RESOURCE_EXHAUSTED. A request of more than 4 KiB does, too.
#[derive(Clone, Default)]
pub struct Health {
    said: Arc<Said>,
}

#[derive(Default)]
struct Said {
    word: Arc<Word>,
    /// Where it is told.
    boards: Mutex<Vec<Weak<Board>>>,
}

impl Health {
    /// Nothing is said yet.
    pub fn new() -> Health {
        Health::default()
    }

    /// Says how a service is, by its full name (`package.Service`); the empty name is the server as a
    /// whole. A name that no server serves is known from then on.
    ///
    /// Its watchers are told, if this is news. This waits for none of them.
    pub fn set(&self, service: impl Into<String>, status: ServingStatus) {
        let service = service.into();
        let serving = status == ServingStatus::Serving;
        self.said.word.set(service.clone(), serving);
        self.boards().iter().for_each(|it| it.tell(Some(&service)));
    }

    /// Adds a condition, which is asked with the name of a service whenever somebody asks for its health: it is
    /// SERVING only if every condition holds, beside what is [set](Self::set) and the phase. It runs on a thread that
    /// polls, so it must not block. Once its answer has changed, watchers hear of it by [`changed`](Self::changed).
    ///
    /// ```
    /// use std::sync::atomic::{AtomicBool, Ordering};
    /// use std::sync::Arc;
    /// use touchdown::Health;
    ///
    /// let is_connected = Arc::new(AtomicBool::new(false));
    /// let health = Health::new();
    /// let asked = Arc::clone(&is_connected);
    /// health.require(move |_| asked.load(Ordering::SeqCst));
    /// is_connected.store(true, Ordering::SeqCst);
    /// health.changed();
    /// ```
    pub fn require(&self, condition: impl Fn(&str) -> bool + Send + Sync + 'static) {
        self.said.word.require(Arc::new(condition));
        self.changed();
    }

    /// Has every watcher told for whose service a [condition](Self::require) has changed its answer. This waits for none of
    /// them.
    pub fn changed(&self) {
        self.boards().iter().for_each(|it| it.tell(None));
    }

    fn boards(&self) -> Vec<Arc<Board>> {
        let mut boards = self.said.boards.lock();
        boards.retain(|it| it.strong_count() > 0);
        boards.iter().filter_map(Weak::upgrade).collect()
    }

    /// Whether the program says NOT_SERVING of this service, or one of its conditions does.
    pub(super) fn is_denied(&self, service: &str) -> bool {
        self.said.word.of(service) == Some(false) || !self.said.word.permits(service)
    }

    /// The board of a server that serves these.
    pub(super) fn board(
        &self,
        mut served: Vec<&'static str>,
        is_ready: impl Fn() -> bool + Send + Sync + 'static,
        watchers: usize,
    ) -> Arc<Board> {
        served.push("");
        let word = Arc::clone(&self.said.word);
        let board = Arc::new(Board::new(word, served, is_ready, watchers));
        self.said.boards.lock().push(Arc::downgrade(&board));
        board
    }
}

/// What this board says of a service; `None` if it does not know it.
pub(super) fn status(board: &Board, service: &str) -> Option<ServingStatus> {
    match board.state(service) {
        State::Serving => Some(ServingStatus::Serving),
        State::NotServing => Some(ServingStatus::NotServing),
        State::Unknown => None,
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Health").finish_non_exhaustive()
    }
}
