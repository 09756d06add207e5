//! The open connections: how many there are, who is at the other end of each, and what is noted of the calls on it.

use std::collections::HashMap;
use std::ops::AddAssign;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::drain::{Stage, Watch};
use super::link::Link;
use super::log_limit::LogLimit;
use super::observer::{Connection, Observer};
use super::peer::{address, for_people};
use super::quiet::Line;
use crate::logging;
use crate::os::wake::Wake;
use crate::sockets::accepted::Accepted;
#[cfg(feature = "tls")]
use crate::sockets::encryption::Encryption;
use crate::sockets::options as socket_options;
use crate::sockets::peer::PeerInfo;

/// What is known of every open connection.
pub(super) struct Connections {
    pub(super) open: Mutex<Open>,
    /// As many as `open` has. Asked for with every call, so not under the lock; it
    /// is no more than a number, and nothing pairs with it.
    count: AtomicUsize,
    /// The thread that accepts waits for a descriptor; taken back by the first connection that
    /// closes, which wakes it. What it does then, it would do a moment later without, so nothing
    /// pairs with it.
    descriptor_wanted: AtomicBool,
    wake: Arc<Wake>,
    observer: Option<Arc<dyn Observer>>,
}

pub(super) struct Open {
    pub(super) sockets: HashMap<u64, Socket>,
    next: u64,
    /// Those that were cut, or given up by the kernel: what their callers do not get, the callers did not leave. And
    /// how many calls on each will land as if that were so, of which the answer has arrived.
    pub(super) cut: HashMap<u64, u32>,
    /// What the kernel has given up, and nobody was told of yet. Only kept in a drain.
    lost: Cut,
    draining: bool,
}

pub(super) struct Socket {
    /// The transport's side of it; `None` until that has begun. The transport closes the socket right after it has
    /// said `closed`, which removes it from here.
    pub(super) link: Option<Arc<dyn Link>>,
    pub(super) stage: Stage,
    /// Until when somebody has to speak HTTP/2.
    pub(super) silent_until: Duration,
    pub(super) watch: Watch,
    info: Arc<PeerInfo>,
    /// When it was shut down, in the drain.
    pub(super) shut_down: Option<Duration>,
    /// The peer's address, for an observer.
    peer: Option<Box<str>>,
}

/// What was cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cut {
    /// Connections on which something may have been lost.
    pub(super) connections: u64,
    /// Answers that were given to the kernel, and have not reached the peer's.
    pub(super) answers: u64,
}

impl AddAssign for Cut {
    fn add_assign(&mut self, other: Cut) {
        self.connections += other.connections;
        self.answers += other.answers;
    }
}

/// A connection that is to be served.
pub(crate) struct Newcomer {
    /// Connected, and non-blocking.
    pub(crate) socket: OwnedFd,
    /// The peer's address in the form of gRPC's naming document.
    pub(crate) peer: String,
    /// Gets the peer's certificate, once that is known.
    #[cfg(feature = "tls")]
    pub(crate) info: Arc<PeerInfo>,
    #[cfg(feature = "tls")]
    pub(crate) encryption: Option<Arc<Encryption>>,
    /// Who is told what becomes of it.
    pub(crate) guest: Guest,
}

/// An error code as RFC 9113, section 7, calls it.
fn error_name(code: u32) -> &'static str {
    match code {
        0 => "NO_ERROR",
        1 => "PROTOCOL_ERROR",
        3 => "FLOW_CONTROL_ERROR",
        4 => "SETTINGS_TIMEOUT",
        6 => "FRAME_SIZE_ERROR",
        11 => "ENHANCE_YOUR_CALM",
        _ => "another error",
    }
}

/// By this the transport tells what happens to one connection. It does so on a thread of its choosing; nothing of it
/// blocks, nor calls back into the transport.
pub(crate) struct Guest {
    number: u64,
    connections: Arc<Connections>,
}

impl Guest {
    /// A number that no other connection of the server has.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Who is to hear of it, if anybody is.
    #[cfg(feature = "tls")]
    pub(crate) fn observer(&self) -> Option<Arc<dyn Observer>> {
        self.connections.observer.clone()
    }

    /// The connection is there. To be called first.
    pub(crate) fn opened(&self, link: Arc<dyn Link>) {
        if let Some(socket) = self.connections.open.lock().sockets.get_mut(&self.number) {
            socket.link = Some(link);
        }
    }

    /// The peer has sent its HTTP/2 settings: somebody who speaks HTTP/2 is there.
    pub(crate) fn ready(&self) {
        if let Some(socket) = self.connections.open.lock().sockets.get_mut(&self.number) {
            if socket.stage == Stage::Silent {
                socket.stage = Stage::Ready;
            }
        }
    }

    /// The peer, at this address, is sent GOAWAY, with this error code of HTTP/2, for what it has sent. If it is cut,
    /// the connection ends at once; otherwise with the calls that have begun.
    pub(crate) fn sent_away(&self, peer: &str, code: u32, why: &str, is_cut: bool) {
        static LINES: LogLimit = LogLimit::new();
        let why = format!("{why} ({})", error_name(code));
        if let Some(skipped) = LINES.admits() {
            let end = if is_cut {
                "closing"
            } else {
                "no more calls on"
            };
            let peer = for_people(peer);
            logging::warn!("{end} the connection of {peer}, which was sent GOAWAY: {why}");
            if skipped > 0 {
                logging::warn!("{skipped} more lines like this one were not logged");
            }
        }
        self.connections.tell(Connection::SentAway {
            number: self.number,
            peer,
            why: &why,
            is_cut,
        });
    }

    /// The transport is done with the connection. Everything was written, FIN was sent, and what the peer still sends
    /// is read and dropped until the peer closes, or the link is [shut down](Link::shut_down).
    pub(crate) fn lingering(&self) {
        if let Some(socket) = self.connections.open.lock().sockets.get_mut(&self.number) {
            socket.stage = match socket.stage {
                Stage::Silent | Stage::Refused => Stage::Refused,
                Stage::Ready | Stage::Lingering => Stage::Lingering,
            };
        }
        self.connections.wake.wake();
    }

    /// The socket is about to be closed. So many answers were given to the kernel that will not arrive: it has given the
    /// peer up.
    pub(crate) fn closed(self, lost: u32) {
        self.connections.remove(self.number, lost);
    }
}

impl Connections {
    pub(super) fn new(wake: Arc<Wake>, observer: Option<Arc<dyn Observer>>) -> Connections {
        Connections {
            open: Mutex::new(Open {
                sockets: HashMap::new(),
                next: 0,
                cut: HashMap::new(),
                lost: Cut::default(),
                draining: false,
            }),
            count: AtomicUsize::new(0),
            descriptor_wanted: AtomicBool::new(false),
            wake,
            observer,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// What is known of a connection's peer; `None` if the connection is gone.
    pub(super) fn info(&self, number: u64) -> Option<Arc<PeerInfo>> {
        let open = self.open.lock();
        open.sockets.get(&number).map(|it| Arc::clone(&it.info))
    }

    /// A connection that is to be served, for the transport. The peer has to speak HTTP/2 before `silent_until`, in the time of the
    /// thread that accepts. It may leave `unanswered` what it is sent, unless its listener says how long it may.
    pub(super) fn add(
        self: &Arc<Self>,
        accepted: Accepted,
        silent_until: Duration,
        unanswered: Duration,
    ) -> Newcomer {
        limit_unanswered(&accepted.socket, accepted.unanswered.unwrap_or(unanswered));
        let encrypted = accepted.is_encrypted();
        let peer = address(&accepted);
        let info = Arc::new(accepted.info);
        let observed = self.observer.is_some();
        let number = {
            let mut open = self.open.lock();
            open.next += 1;
            let number = open.next;
            let socket = Socket {
                link: None,
                stage: Stage::Silent,
                silent_until,
                watch: Watch::default(),
                info: Arc::clone(&info),
                shut_down: None,
                peer: observed.then(|| peer.as_str().into()),
            };
            open.sockets.insert(number, socket);
            self.count.store(open.sockets.len(), Ordering::Relaxed);
            number
        };
        self.tell(Connection::Opened {
            number,
            peer: &peer,
            encrypted,
        });
        Newcomer {
            socket: accepted.socket,
            peer,
            #[cfg(feature = "tls")]
            info,
            #[cfg(feature = "tls")]
            encryption: accepted.encryption,
            guest: Guest {
                number,
                connections: Arc::clone(self),
            },
        }
    }

    /// What is seen of a connection in a drain by who asks whether a stream on it is idle; `None` if it is gone.
    pub(super) fn line(&self, number: u64, now: Duration) -> Option<Line> {
        let link = self.open.lock().sockets.get(&number)?.link.clone()?;
        let view = link.look();
        let mut open = self.open.lock();
        let socket = open.sockets.get_mut(&number)?;
        Some(Line {
            alive: socket.watch.look(&view, now),
            is_clear: view.acknowledged && !view.mid_frame && view.unread == 0 && !view.gone,
        })
    }

    /// How many calls of a connection are open, those included whose end is being written; `None` if it is gone.
    pub(super) fn open_calls(&self, number: u64) -> Option<usize> {
        let link = self.open.lock().sockets.get(&number)?.link.clone()?;
        let view = link.look();
        (!view.gone).then(|| view.open as usize + view.writing as usize)
    }

    /// The longest round trip that the kernel has measured among the open
    /// connections.
    pub(super) fn longest_round_trip(&self) -> Duration {
        let open = self.open.lock();
        let links = open.sockets.values().filter_map(|it| it.link.as_ref());
        links.map(|it| it.round_trip()).max().unwrap_or_default()
    }

    /// What the kernel has given up in the drain since that was last asked.
    pub(super) fn take_lost(&self) -> Cut {
        std::mem::take(&mut self.open.lock().lost)
    }

    /// From now on it is kept what the kernel gives up.
    pub(super) fn begin_drain(&self) {
        self.open.lock().draining = true;
    }

    /// A call lands. If its connection was cut before, says whether its answer has not arrived.
    pub(super) fn lands_late(&self, number: u64) -> Option<bool> {
        let mut open = self.open.lock();
        let arrived = open.cut.get_mut(&number)?;
        let is_lost = *arrived == 0;
        *arrived = arrived.saturating_sub(1);
        Some(is_lost)
    }

    /// Whether any connection was cut.
    pub(super) fn were_some_cut(&self) -> bool {
        !self.open.lock().cut.is_empty()
    }

    /// A call on the connection ends without a handler's answer.
    pub(super) fn end_without_answer(&self, number: u64) {
        if let Some(socket) = self.open.lock().sockets.get_mut(&number) {
            socket.watch.end_without_answer();
        }
    }

    /// A call on the connection is not waited for in a drain.
    pub(super) fn gave_up(&self, number: u64) {
        if let Some(socket) = self.open.lock().sockets.get_mut(&number) {
            socket.watch.gave_up();
        }
    }

    /// The end of such a call is with the kernel, or was dropped.
    pub(super) fn took(&self, number: u64) {
        if let Some(socket) = self.open.lock().sockets.get_mut(&number) {
            socket.watch.took();
        }
    }

    fn remove(&self, number: u64, lost: u32) {
        let mut open = self.open.lock();
        let removed = open.sockets.remove(&number);
        let not_answers = removed.as_ref().map_or(0, |it| it.watch.not_answers());
        if lost > 0 && open.draining && open.cut.insert(number, 0).is_none() {
            open.lost += Cut {
                connections: 1,
                answers: lost.saturating_sub(not_answers).into(),
            };
        }
        let left = open.sockets.len();
        self.count.store(left, Ordering::Relaxed);
        drop(open);
        if let Some(peer) = removed.as_ref().and_then(|it| it.peer.as_deref()) {
            self.tell(Connection::Closed { number, peer });
        }
        let is_wanted = self.descriptor_wanted.swap(false, Ordering::Relaxed);
        // A drain waits for the last.
        if left == 0 || is_wanted {
            self.wake.wake();
        }
    }

    /// Tells the observer, if there is one.
    pub(super) fn tell(&self, event: Connection<'_>) {
        if let Some(observer) = &self.observer {
            observer.connection(event);
        }
    }

    /// Has the next connection that closes wake the thread that accepts.
    pub(super) fn want_descriptor(&self) {
        self.descriptor_wanted.store(true, Ordering::Relaxed);
    }

    /// Whether one has closed since that was asked for.
    pub(super) fn has_one_closed(&self) -> bool {
        !self.descriptor_wanted.load(Ordering::Relaxed)
    }
}

/// Lets the kernel end the connection if the peer's does not acknowledge, or does not take, what it
/// is sent. The transport's own pings cannot tell: they wait behind what the peer does not take. For a
/// unix socket there is no such thing.
fn limit_unanswered(socket: &OwnedFd, limit: Duration) {
    let milliseconds = libc::c_int::try_from(limit.as_millis()).unwrap_or(libc::c_int::MAX);
    let (level, name) = (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT);
    let _ = socket_options::set(socket, level, name, milliseconds);
}
