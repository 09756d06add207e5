//! A server as the program holds it: who owns it stops it, and others look.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;
#[cfg(feature = "tls")]
use std::time::SystemTime;

use crate::calls::{self, Host};
use crate::lifecycle::{Calls, Lifecycle, Report};
use crate::logging;
use crate::sockets::{Address, Bound, BoundSocket};

use super::call::Call;
use super::health::{status, Health, ServingStatus};
use super::running::Running;
use super::served::{Load, ServedMethod};

/// For how long a server that is dropped is waited for. An idle one ends within some milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// A server that runs, with a lifecycle of its own: what [`ServerBuilder::start`](super::ServerBuilder::start) returns.
///
/// It derefs to its [handle](ServerHandle), which sees the server and can be shared. A server that is a part of a
/// lifecycle which others share has a handle alone: it is the lifecycle that stops it.
///
/// # Dropping it
///
/// A program ends a server with [`shutdown`](Self::shutdown), or with [`wait`](Self::wait) if somebody else begins the
/// stop. Both wait as long as the plan says. A server that is dropped without them begins its stop, and the thread that
/// drops it waits for 1 s at the most. That is enough for a server without calls. Where calls are still in flight then,
/// the log says which at WARN, and the stop goes on without the thread. They are lost if the process ends before.
///
/// So a test whose handler never returns is not held up for the 35 s of the default plan. A thread that
/// panics does not wait at all: its message is what somebody wants to see.
#[must_use = "dropping it stops the server"]
pub struct Server {
    handle: ServerHandle,
}

/// What others may know of a server that runs. Clones are the same server.
///
/// A handle does not keep the server running. It keeps its memory, and counts as a handle on its
/// [lifecycle](Self::lifecycle). A handler that keeps one keeps the server's memory as long as the process lives.
///
/// ```
/// use touchdown::{Server, ServerHandle};
///
/// let server = Server::builder().address("127.0.0.1:0").start()?;
/// let handle: ServerHandle = server.handle();
/// let gauge = std::thread::spawn(move || handle.in_flight());
/// assert_eq!(gauge.join().unwrap(), 0);
/// server.shutdown();
/// # Ok::<(), touchdown::StartError>(())
/// ```
#[derive(Clone)]
pub struct ServerHandle {
    running: Arc<Running>,
    lifecycle: Lifecycle,
}

impl Server {
    pub(super) fn new(handle: ServerHandle) -> Server {
        Server { handle }
    }

    /// A handle to share, as for a thread that reports how many calls are in flight.
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// Begins to stop, and waits until the server has stopped.
    pub fn shutdown(self) -> Report {
        self.lifecycle.shutdown("shutdown() was called");
        self.wait()
    }

    /// Waits until the server has stopped: after a signal, if its lifecycle listens to signals, or after
    /// somebody called [`Lifecycle::shutdown`].
    pub fn wait(self) -> Report {
        self.lifecycle.wait()
    }
}

impl Deref for Server {
    type Target = ServerHandle;

    fn deref(&self) -> &ServerHandle {
        &self.handle
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.lifecycle.shutdown("the server was dropped");
        if thread::panicking() || self.lifecycle.wait_timeout(PATIENCE).is_some() {
            return;
        }
        let oldest = self.running.engine.running().into_iter().next();
        let oldest = oldest.map_or(String::new(), |it| format!(", oldest: {it}"));
        logging::warn!(
            "{}: was dropped, and is {} after {PATIENCE:?} with {} calls in flight{oldest}; this is no longer waited for: \
             to wait for the end, call Server::shutdown or Server::wait",
            self.running.name,
            self.lifecycle.phase(),
            self.in_flight(),
        );
    }
}

impl ServerHandle {
    pub(super) fn new(running: Arc<Running>, lifecycle: Lifecycle) -> ServerHandle {
        ServerHandle { running, lifecycle }
    }

    #[cfg(all(test, feature = "client"))]
    pub(super) fn parts(&self) -> &Arc<Running> {
        &self.running
    }

    /// Where the server listens: the first address, with the real port where port 0 was asked for.
    pub fn address(&self) -> &Address {
        &self.addresses()[0]
    }

    /// Every address at which the server listens.
    pub fn addresses(&self) -> &[Address] {
        self.running.engine.addresses()
    }

    /// The lifecycle that the server is part of.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// The program's word on the health of its services: the one that was given to
    /// [`ServerBuilder::health`](super::ServerBuilder::health), if any.
    pub fn health(&self) -> &Health {
        &self.running.health
    }

    /// What a health check of this service is answered; `None` if nobody has heard of it. The empty name is the server as
    /// a whole.
    pub fn serving_status(&self, service: &str) -> Option<ServingStatus> {
        status(&self.running.dispatch.health, service)
    }

    /// How many calls are in flight: arrived, and not yet answered with their status on its way.
    /// Those of [health](Health) checks are not counted.
    pub fn in_flight(&self) -> usize {
        self.running.dispatch.in_flight()
    }

    /// How many connections are open, those that are closing included.
    pub fn connections(&self) -> usize {
        self.running.engine.connections()
    }

    /// The moment at which the first of the certificates runs out that the server's listeners show; `None` if none speaks TLS. By
    /// this machine's clock it may be over. For a gauge, it is looked at anew each time: a reload changes it.
    #[cfg(feature = "tls")]
    pub fn certificate_expires(&self) -> Option<SystemTime> {
        let all = self.running.encryptions.iter();
        all.map(|it| it.expires()).min()
    }

    /// The methods that it serves. The place of a method in this list is its
    /// [number](super::Call::method_number).
    pub fn methods(&self) -> &[ServedMethod] {
        &self.running.methods
    }

    /// The calls that are being worked on and for how long each has been, the oldest first: those whose handler runs, and
    /// detached streams. Those that wait for a worker are not among them.
    pub fn running(&self) -> Vec<(Call, Duration)> {
        calls_of(&self.running)
    }

    /// How busy it is.
    pub fn load(&self) -> Load {
        load_of(&self.running)
    }

    /// What became of the calls so far, but for those of [health](Health) checks.
    pub fn calls(&self) -> Calls {
        self.running.dispatch.calls()
    }
}

impl ServerHandle {
    /// A handle that keeps nothing: neither the server's memory, nor the lifecycle from ending because nobody has a handle
    /// on it any more. For what looks at the server and is kept by it, such as an observer.
    pub fn downgrade(&self) -> WeakServerHandle {
        WeakServerHandle {
            running: Arc::downgrade(&self.running),
        }
    }
}

/// What others may know of a server as long as it is there: [`ServerHandle::downgrade`] makes it. Each function answers `None`,
/// or nothing, once the server is gone. What they are is said at those of [`ServerHandle`].
#[derive(Clone)]
pub struct WeakServerHandle {
    running: Weak<Running>,
}

impl WeakServerHandle {
    /// As [`ServerHandle::load`].
    pub fn load(&self) -> Option<Load> {
        Some(load_of(&*self.running.upgrade()?))
    }

    /// As [`ServerHandle::running`].
    pub fn running(&self) -> Vec<(Call, Duration)> {
        let server = self.running.upgrade();
        server.map_or(Vec::new(), |it| calls_of(&it))
    }

    /// As [`ServerHandle::serving_status`].
    pub fn serving_status(&self, service: &str) -> Option<ServingStatus> {
        status(&self.running.upgrade()?.dispatch.health, service)
    }

    /// As [`ServerHandle::connections`].
    pub fn connections(&self) -> Option<usize> {
        Some(self.running.upgrade()?.engine.connections())
    }

    /// As [`ServerHandle::certificate_expires`].
    #[cfg(feature = "tls")]
    pub fn certificate_expires(&self) -> Option<SystemTime> {
        let server = self.running.upgrade()?;
        let all = server.encryptions.iter();
        all.map(|it| it.expires()).min()
    }
}

impl fmt::Debug for WeakServerHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("WeakServerHandle")
            .finish_non_exhaustive()
    }
}

fn load_of(server: &Running) -> Load {
    let load = server.engine.load();
    Load {
        workers: load.workers,
        busy: load.running,
        streams: load.aside,
        waiting: load.waiting,
        backlog: load.backlog,
    }
}

fn calls_of(server: &Running) -> Vec<(Call, Duration)> {
    let running = server.engine.running();
    let call = |it: &calls::Running| {
        let since = it.since().elapsed();
        (Call::new(Arc::clone(it.call())), since)
    };
    running.iter().map(call).collect()
}

impl Bound for ServerHandle {
    fn bound_sockets(&self) -> io::Result<Vec<BoundSocket>> {
        self.running.engine.sockets_to_store()
    }
}

impl Bound for Server {
    fn bound_sockets(&self) -> io::Result<Vec<BoundSocket>> {
        self.handle.bound_sockets()
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ServerHandle")
            .field("addresses", &self.addresses())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Server").field(&self.handle).finish()
    }
}
