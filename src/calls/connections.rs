//! The open connections: how many there are, who is at the other end of each, and what is noted of the calls on it.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::ops::AddAssign;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::codes::error_name;
use super::drain::{Stage, Watch};
use super::leaving::{jittered, Lasting, Leaving};
use super::link::Link;
use super::log_limit::LogLimit;
use super::observer::{Connection, Observer};
use super::origin::{Count, Origin, Origins};
use super::peer::{address, for_people};
use super::progress::Progress;
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
    /// As many as `open` has, and those of whose end the observer is being told. Asked for with every call, so not under
    /// the lock.
    count: AtomicUsize,
    /// The thread that accepts waits for a descriptor; taken back by the first connection that
    /// closes, which wakes it. What it does then, it would do a moment later without, so nothing
    /// pairs with it.
    descriptor_wanted: AtomicBool,
    /// What that thread has to look at, as the transport has said; taken back by the thread. Nothing pairs with them, as
    /// above.
    pub(super) is_busy: AtomicBool,
    pub(super) is_crowded: AtomicBool,
    pub(super) has_one_to_linger: AtomicBool,
    handshake_wanted: AtomicBool,
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
    pub(super) origins: Origins,
    /// On how many connections the TLS handshake is under way.
    pub(super) handshakes: usize,
    /// How many are sent away while the server goes on.
    pub(super) leaving: usize,
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
    pub(super) origin: Option<Origin>,
    /// Its TLS handshake is under way.
    pub(super) handshakes: bool,
    /// Since when its client could make a call: from the beginning; or from when that was first looked for after the TLS
    /// handshake.
    pub(super) could_call: Option<Duration>,
    /// When it is as old as it may become.
    pub(super) old_at: Option<Duration>,
    pub(super) lasting: Lasting,
    /// If it is sent away while the server goes on.
    pub(super) leaving: Option<Leaving>,
    /// Whether a call has begun on it since it was last at rest.
    pub(super) is_busy: bool,
    pub(super) progress: Progress,
    /// How many calls on it wait for news alone, and hold nobody up.
    pub(super) subscribers: u32,
    /// When it was shut down.
    pub(super) shut_down: Option<Duration>,
    /// The peer's address.
    pub(super) peer: Box<str>,
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
    /// How many calls may be open on it, if that is less than the [settings](super::transport::Settings) say.
    pub(crate) concurrent_streams: Option<NonZeroU32>,
    /// Who is told what becomes of it.
    pub(crate) guest: Guest,
}

/// What the times of a new connection are reckoned from.
pub(super) struct Times {
    /// The time of the thread that accepts.
    pub(super) now: Duration,
    /// Until when the peer has to speak HTTP/2.
    pub(super) silent_until: Duration,
    /// How long it may leave unanswered what it is sent, unless its listener says how long it may.
    pub(super) unanswered: Duration,
    pub(super) lasting: Lasting,
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
        let connections = &self.connections;
        let mut open = connections.open.lock();
        open.end_handshake(self.number);
        if let Some(socket) = open.sockets.get_mut(&self.number) {
            if socket.stage == Stage::Silent {
                socket.stage = Stage::Ready;
            }
        }
        drop(open);
        connections.wake_if(&connections.handshake_wanted);
    }

    /// A call has begun on it, the first since the beginning, or since it was [at rest](Link::rest).
    pub(crate) fn busy(&self) {
        let connections = &self.connections;
        if let Some(socket) = connections.open.lock().sockets.get_mut(&self.number) {
            socket.is_busy = true;
        }
        if !connections.is_busy.swap(true, Ordering::Relaxed) {
            connections.wake.wake();
        }
    }

    /// A call has begun on it, and with it more are open on all connections than
    /// [`open_calls`](super::transport::Settings::open_calls).
    pub(crate) fn crowded(&self) {
        let connections = &self.connections;
        if !connections.is_crowded.swap(true, Ordering::Relaxed) {
            connections.wake.wake();
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
        self.connections.tell(Connection::Misconduct {
            number: self.number,
            why: &why,
            is_cut,
        });
    }

    /// The transport is done with the connection. Everything was written, FIN was sent, and what the peer still sends
    /// is read and dropped until the peer closes, or the link is [shut down](Link::shut_down).
    pub(crate) fn lingering(&self) {
        let mut open = self.connections.open.lock();
        open.end_handshake(self.number);
        if let Some(socket) = open.sockets.get_mut(&self.number) {
            socket.stage = match socket.stage {
                Stage::Silent | Stage::Refused => Stage::Refused,
                Stage::Ready | Stage::Lingering => Stage::Lingering,
            };
        }
        drop(open);
        let connections = &self.connections;
        connections.has_one_to_linger.store(true, Ordering::Relaxed);
        connections.wake.wake();
    }

    /// The socket is about to be closed. So many answers were given to the kernel that will not arrive: it has given the
    /// peer up.
    pub(crate) fn closed(self, lost: u32) {
        self.connections.remove(self.number, lost);
    }
}

impl Open {
    /// The TLS handshake of a connection is over, if it was under way.
    fn end_handshake(&mut self, number: u64) {
        let socket = self.sockets.get_mut(&number).filter(|it| it.handshakes);
        if let Some(socket) = socket {
            socket.handshakes = false;
            self.handshakes -= 1;
            self.origins.change(socket.origin, |it| it.handshakes -= 1);
        }
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
                origins: Origins::default(),
                handshakes: 0,
                leaving: 0,
            }),
            count: AtomicUsize::new(0),
            descriptor_wanted: AtomicBool::new(false),
            is_busy: AtomicBool::new(false),
            is_crowded: AtomicBool::new(false),
            has_one_to_linger: AtomicBool::new(false),
            handshake_wanted: AtomicBool::new(false),
            wake,
            observer,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// What is known of a connection's peer; `None` if the connection is gone.
    pub(super) fn info(&self, number: u64) -> Option<Arc<PeerInfo>> {
        let open = self.open.lock();
        open.sockets.get(&number).map(|it| Arc::clone(&it.info))
    }

    /// Wakes the thread that accepts, if it has said there that it wants to be.
    fn wake_if(&self, wanted: &AtomicBool) {
        if wanted.load(Ordering::Relaxed) && wanted.swap(false, Ordering::Relaxed) {
            self.wake.wake();
        }
    }

    /// A connection that is to be served, for the transport.
    pub(super) fn add(self: &Arc<Self>, accepted: Accepted, times: &Times) -> Newcomer {
        limit_unanswered(
            &accepted.socket,
            accepted.unanswered.unwrap_or(times.unanswered),
        );
        let origin = accepted.peer.map(Origin::of);
        let age = times.lasting.age.filter(|_| !accepted.info.is_own);
        let encrypted = accepted.is_encrypted();
        let peer = address(&accepted);
        let info = Arc::new(accepted.info);
        let number = {
            let mut open = self.open.lock();
            open.next += 1;
            let number = open.next;
            let socket = Socket {
                link: None,
                stage: Stage::Silent,
                silent_until: times.silent_until,
                watch: Watch::default(),
                info: Arc::clone(&info),
                origin,
                handshakes: encrypted,
                could_call: (!encrypted).then_some(times.now),
                old_at: age.map(|(age, _)| times.now.saturating_add(jittered(age, number))),
                lasting: times.lasting,
                leaving: None,
                is_busy: false,
                progress: Progress::default(),
                subscribers: 0,
                shut_down: None,
                peer: peer.as_str().into(),
            };
            open.sockets.insert(number, socket);
            open.handshakes += usize::from(encrypted);
            open.origins.change(origin, |it| {
                it.connections += 1;
                it.handshakes += usize::from(encrypted);
            });
            self.count.fetch_add(1, Ordering::Relaxed);
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
            concurrent_streams: times.lasting.concurrent_streams,
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

    /// A call on the connection is not waited for in a drain. It may be a stream, and so one that waits for news.
    pub(super) fn gave_up(&self, number: u64, is_stream: bool) {
        if let Some(socket) = self.open.lock().sockets.get_mut(&number) {
            socket.watch.gave_up();
            socket.subscribers += u32::from(is_stream);
        }
    }

    /// The end of such a call is with the kernel, or was dropped.
    pub(super) fn took(&self, number: u64, is_stream: bool) {
        if let Some(socket) = self.open.lock().sockets.get_mut(&number) {
            socket.watch.took();
            let less = u32::from(is_stream);
            socket.subscribers = socket.subscribers.saturating_sub(less);
        }
    }

    fn remove(&self, number: u64, lost: u32) {
        let mut open = self.open.lock();
        open.end_handshake(number);
        let removed = open.sockets.remove(&number);
        if let Some(socket) = &removed {
            match socket.leaving {
                Some(_) => open.leaving -= 1,
                None => open.origins.change(socket.origin, |it| it.connections -= 1),
            }
        }
        let not_answers = removed.as_ref().map_or(0, |it| it.watch.not_answers());
        if lost > 0 && open.draining && open.cut.insert(number, 0).is_none() {
            open.lost += Cut {
                connections: 1,
                answers: lost.saturating_sub(not_answers).into(),
            };
        }
        drop(open);
        let mut is_last = false;
        if let Some(Socket { peer, .. }) = &removed {
            self.tell(Connection::Closed { number, peer });
            // Behind the observer, who is told of all before the server is down.
            is_last = self.count.fetch_sub(1, Ordering::AcqRel) == 1;
        }
        let is_wanted = self.descriptor_wanted.swap(false, Ordering::Relaxed)
            | self.handshake_wanted.swap(false, Ordering::Relaxed);
        // A drain waits for the last.
        if is_last || is_wanted {
            self.wake.wake();
        }
    }

    /// Tells the observer, if there is one.
    pub(super) fn tell(&self, event: Connection<'_>) {
        if let Some(observer) = &self.observer {
            observer.connection(event);
        }
    }

    /// How many there are from there.
    pub(super) fn of(&self, origin: Option<Origin>) -> Count {
        self.open.lock().origins.of(origin)
    }

    /// When a connection is as old as it may become.
    pub(super) fn old_at(&self, number: u64) -> Option<Duration> {
        self.open.lock().sockets.get(&number)?.old_at
    }

    /// On how many the TLS handshake is under way.
    pub(super) fn handshakes(&self) -> usize {
        self.open.lock().handshakes
    }

    /// Has the next TLS handshake that ends wake the thread that accepts.
    pub(super) fn want_handshake(&self) {
        self.handshake_wanted.store(true, Ordering::Relaxed);
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
