//! Listening sockets for a program of any protocol, which are handed over in a hot restart and drained at a stop.
//!
//! # When to use
//!
//! In a threaded program that speaks something else than gRPC (HTTP, a protocol of its own) and is to be restarted
//! without a connection refused or cut, or started by systemd with its sockets. It needs the feature `upgrade`, and no
//! C++ compiler. A gRPC server does all this by itself: see `Server`.
//!
//! ```no_run
//! use std::io::Write;
//! use std::thread;
//!
//! use touchdown::lifecycle::{Lifecycle, Report, Signals};
//! use touchdown::{Listen, Upgrade};
//!
//! fn main() -> Result<Report, Box<dyn std::error::Error>> {
//!     let signals = Signals::process();
//!     let lifecycle = Lifecycle::builder().signals(signals).upgrade(Upgrade::new()).build()?;
//!     let acceptor = Listen::new("127.0.0.1:8080").bind(&lifecycle)?;
//!     lifecycle.ready()?;
//!     while let Some(mut connection) = acceptor.accept() {
//!         thread::spawn(move || connection.write_all(b"Hello\n"));
//!     }
//!     Ok(lifecycle.wait())
//! }
//! ```
//!
//! `examples/http_daemon.rs` is a whole program.
//!
//! # What becomes of a connection
//!
//! | when | |
//! |---|---|
//! | the program is to replace another, and may not serve yet | it waits in the kernel, or the other process accepts it |
//! | Serving, and both processes of a hot restart while they serve side by side | [`accept`](Acceptor::accept) returns it |
//! | [Draining](crate::lifecycle::Phase::Draining) begins | what was accepted is waited for, until its [`Connection`] is dropped. What waits in the kernel is the new process's in a hot restart; at another stop it is still accepted. Then `accept` returns `None`, and the sockets are closed |
//! | [Cancelling](crate::lifecycle::Phase::Cancelling) begins: the grace period is over | it reads the end of its input, so that a thread that waits for more comes back; what it writes still goes out |
//!
//! A connection that is kept open for more requests, as those of HTTP/1.1 are, holds up the drain as long as it is open. The
//! program closes it after an answer once [`Lifecycle::draining`](crate::lifecycle::Lifecycle::draining) is cancelled, and
//! has a time limit for reading.
//!
//! # Limits
//!
//! - It limits neither how many connections are open nor how long. A program that has enough of them
//!   ([`Acceptor::connections`]) does not come to `accept` until one is dropped; the others wait in the kernel.
//! - The watchdog of systemd is fed as long as the lifecycle answers. It does not ask the threads that accept: a program
//!   that wants it to enlists a [`Participant`](crate::lifecycle::Participant) of its own.
//! - TLS is the program's matter.
//! - In a hot restart the old process asks the new one whether it works, and a thread that accepts answers: some thread
//!   has to come to [`accept`](Acceptor::accept) every 5 s. With a thread for each connection that is so. A program whose accepting
//!   threads also serve needs one more of them than can be busy for so long. If none comes, the old process goes on.

mod connection;
mod part;

use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::part::{Doors, Next};
use crate::descriptors;
use crate::lifecycle::{InFlight, Lifecycle, Phase};
use crate::logging;
use crate::sockets::bind::bind_all;
use crate::sockets::listen::BadSetting;
use crate::sockets::listeners::Listeners;
use crate::sockets::{Bound, BoundSocket};
use crate::upgrade::Upgrades;

pub use self::connection::{Connection, ConnectionGuard, Stream};
pub use crate::sockets::{Address, Listen, PeerCredentials};

/// How long to leave the sockets alone when no connection can be had from them: no descriptor is left, or no memory.
const PAUSE: Duration = Duration::from_millis(100);

/// How often, at the most, it is logged why connections are not accepted.
const LOG_PAUSE: Duration = Duration::from_secs(1);

impl Listen {
    /// Listens at this address, as a part of this lifecycle: see [`acceptor`](crate::acceptor). A process that replaces
    /// another gets that one's socket, and accepts nothing before it may serve.
    ///
    /// To be called before [`Lifecycle::ready`], for every address: what a process before this one has handed over, and
    /// is not asked for by then, is closed.
    ///
    /// # Errors
    ///
    /// [`BindError`], and then nothing listens.
    pub fn bind(self, lifecycle: &Lifecycle) -> Result<Acceptor, BindError> {
        self.bind_with(lifecycle, Some(lifecycle.in_flight().clone()))
    }

    /// Listens at this address beside what this lifecycle drains: a side door for those who look at the program. It
    /// differs from [`bind`](Self::bind) in two ways:
    ///
    /// - It is open until the program has [stopped](Phase::Stopped), the drain and the hooks of Closing included. No drain waits
    ///   for its connections.
    /// - In a hot restart only the process in charge accepts: the old one until the new one takes over. So who asks hears of
    ///   the one that counts.
    ///
    /// # Errors
    ///
    /// As for [`bind`](Self::bind).
    pub fn bind_beside(self, lifecycle: &Lifecycle) -> Result<Acceptor, BindError> {
        let acceptor = self.bind_with(lifecycle, None)?;
        let doors = Arc::downgrade(&acceptor.doors);
        lifecycle.observe(move |transition| {
            if let (Phase::Stopped, Some(doors)) = (transition.to, doors.upgrade()) {
                doors.close();
            }
        });
        Ok(acceptor)
    }

    fn bind_with(
        self,
        lifecycle: &Lifecycle,
        gate: Option<InFlight>,
    ) -> Result<Acceptor, BindError> {
        #[cfg(feature = "tls")]
        if self.is_encrypted() {
            return Err(BindError::Setting {
                setting: "tls",
                value: "set".to_owned(),
                expected: "set for a gRPC server only",
            });
        }
        if self.is_public() {
            return Err(BindError::Setting {
                setting: "public",
                value: "set".to_owned(),
                expected: "set for a gRPC server only",
            });
        }
        let options = self.checked()?;
        let listeners = bind_all(&[options])
            .map_err(|(address, source)| BindError::Listen { address, source })?;
        let addresses: Vec<_> = listeners.iter().map(|it| it.address().clone()).collect();
        for address in &addresses {
            logging::info!("listening at {address}");
        }
        let upgrades = lifecycle.attached::<Upgrades>();
        let listeners = Listeners::new(listeners, upgrades.is_none());
        let doors = Doors::new(addresses, listeners, gate).map_err(BindError::System)?;
        let doors = Arc::new(doors);
        lifecycle
            .enlist(doors.clone())
            .map_err(|_| BindError::Stopping)?;
        if let Some(upgrades) = upgrades {
            upgrades.add(doors.clone());
        }
        Ok(Acceptor {
            doors,
            turn: Mutex::default(),
        })
    }
}

/// Accepts connections, at all sockets of one [`Listen`]. Any number of threads may do so.
///
/// If it is dropped, the program no longer listens there.
pub struct Acceptor {
    doors: Arc<Doors>,
    /// Held by the thread that waits for a connection: the others have nothing to do meanwhile.
    turn: Mutex<Turn>,
}

#[derive(Default)]
struct Turn {
    /// Where to look first, so that no socket is starved by another.
    first: usize,
    /// When it was last logged that connections are not accepted.
    reported: Option<Instant>,
}

impl Acceptor {
    /// Waits for the next connection. Returns `None` once there will be no more, because the program stops; or because it
    /// was replaced. It is handed out in blocking mode, with `TCP_NODELAY`.
    ///
    /// As long as there are no descriptors, or no memory, for another connection, it is tried again every 100 ms; the log
    /// says so.
    pub fn accept(&self) -> Option<Connection> {
        let mut turn = self.turn.lock();
        loop {
            match self.doors.next(&mut turn.first, &mut [], None) {
                Ok(Next::Connection(connection)) => return Some(connection),
                Ok(Next::Nothing) => {}
                Ok(Next::Over) => return None,
                Err(error) => self.pause(&mut turn, error),
            }
        }
    }

    /// Waits for the next connection and for other sockets at once, so that one thread can serve them all. It waits no longer
    /// than `limit`, if there is one. Of each of `others` it says whether it is ready.
    ///
    /// A connection is handed out as by [`accept`](Self::accept). [`Waited::Nothing`] may also be returned early, without one
    /// of `others` being ready.
    pub fn wait(&self, others: &mut [Watched<'_>], limit: Option<Duration>) -> Waited {
        others.iter_mut().for_each(|it| it.is_ready = false);
        let mut turn = self.turn.lock();
        match self.doors.next(&mut turn.first, others, limit) {
            Ok(Next::Connection(connection)) => Waited::Connection(connection),
            Ok(Next::Nothing) => Waited::Nothing,
            Ok(Next::Over) => Waited::Over,
            Err(error) => {
                self.pause(&mut turn, error);
                Waited::Nothing
            }
        }
    }

    /// Listens no more, as if it were dropped: every thread that waits for a connection hears of it. Connections that were
    /// accepted go on.
    pub fn close(&self) {
        self.doors.close();
    }

    /// Where it listens: the first address, with the real port where port 0 was asked for.
    pub fn address(&self) -> &Address {
        &self.doors.addresses()[0]
    }

    /// Every address at which it listens. A name may stand for several.
    pub fn addresses(&self) -> &[Address] {
        self.doors.addresses()
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.doors.connections()
    }

    /// Leaves the sockets alone for a moment.
    fn pause(&self, turn: &mut Turn, error: io::Error) {
        let now = Instant::now();
        if turn.reported.is_none_or(|it| now >= it + LOG_PAUSE) {
            turn.reported = Some(now);
            let error = descriptors::explained(error);
            logging::warn!("cannot accept connections: {error}");
        }
        self.doors.rest(PAUSE);
    }
}

impl Bound for Acceptor {
    fn bound_sockets(&self) -> io::Result<Vec<BoundSocket>> {
        self.doors.bound_sockets()
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.doors.close();
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Acceptor")
            .field("addresses", &self.addresses())
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}

/// What [`Acceptor::wait`] waits for, beside connections.
#[derive(Debug)]
pub struct Watched<'a> {
    socket: BorrowedFd<'a>,
    writes: bool,
    is_ready: bool,
}

impl<'a> Watched<'a> {
    /// Until there is something to read, or the end.
    pub fn readable(socket: BorrowedFd<'a>) -> Watched<'a> {
        Watched {
            socket,
            writes: false,
            is_ready: false,
        }
    }

    /// Until something can be written, or never again.
    pub fn writable(socket: BorrowedFd<'a>) -> Watched<'a> {
        Watched {
            writes: true,
            ..Watched::readable(socket)
        }
    }

    /// Whether it was so when [`Acceptor::wait`] returned.
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }
}

/// What has ended [`Acceptor::wait`].
#[derive(Debug)]
pub enum Waited {
    /// A connection has come.
    Connection(Connection),
    /// Another socket is ready, or the time is over, or there was something to do for the acceptor itself.
    Nothing,
    /// There will be no more connections: the program has stopped, or another process is to serve.
    Over,
}

/// Why a program does not listen.
#[derive(Debug)]
#[non_exhaustive]
pub enum BindError {
    /// A setting cannot be kept.
    Setting {
        /// The method that has set it.
        setting: &'static str,
        /// What it was set to.
        value: String,
        /// What it may be set to.
        expected: &'static str,
    },
    /// The address cannot be listened at.
    Listen {
        /// As it was written.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The operating system refused a descriptor. The process may be out of them.
    System(io::Error),
    /// A stop has begun.
    Stopping,
}

impl From<BadSetting> for BindError {
    fn from(bad: BadSetting) -> BindError {
        BindError::Setting {
            setting: bad.setting,
            value: bad.value,
            expected: bad.expected,
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BindError::Setting {
                setting,
                value,
                expected,
            } => write!(formatter, "{setting} is {value}, and must be {expected}"),
            BindError::Listen { address, source } => {
                write!(formatter, "cannot listen at {address}: {source}")
            }
            BindError::System(error) => write!(formatter, "cannot listen: {error}"),
            BindError::Stopping => formatter.write_str("the program is stopping already"),
        }
    }
}

impl Error for BindError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            BindError::Listen { source, .. } | BindError::System(source) => Some(source),
            BindError::Setting { .. } | BindError::Stopping => None,
        }
    }
}
