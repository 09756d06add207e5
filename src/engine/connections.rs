//! The open connections: how many there are, which of them have anybody at the
//! other end, and the gentle or less gentle end of each.

use std::collections::hash_map::Entry;
use std::collections::HashMap;
use std::ffi::{c_int, c_void, CString};
use std::ops::AddAssign;
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};
#[cfg(not(feature = "tls"))]
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::drain::{Patience, Stage, Step, Watch, LAST_WORDS};
use super::observer::{Connection, Observer};
use super::peer_name::{self, numbered};
use super::shim::{
    self, touchdown_connection_finish, touchdown_connection_look, touchdown_connection_reference,
    touchdown_connection_release, touchdown_server_add_connection, ConnectionEvents,
    ConnectionView,
};
#[cfg(feature = "tls")]
use super::tls;
use crate::os::wake::Wake;
use crate::sockets::accepted::Accepted;
use crate::sockets::options as socket_options;
use crate::sockets::peer::PeerInfo;

/// How long a connection that is closing waits for its peer to close too, without
/// a sign of life from there: the default of nginx's `lingering_timeout`.
const LINGER: Duration = Duration::from_secs(5);

/// How long C-core may take to let go of connections that were shut down.
const CUT_TIME: Duration = Duration::from_millis(250);

/// How soon to try again to tell a peer its last call, while something has come that was not read.
const NOT_YET: Duration = Duration::from_millis(5);

/// What is known of every open connection.
pub(super) struct Connections {
    open: Mutex<Open>,
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

struct Open {
    sockets: HashMap<u64, Socket>,
    next: u64,
    /// Those that were cut, or given up by the kernel: what their callers do not get, the callers did not leave. And
    /// how many calls on each will land as if that were so, of which the answer has arrived.
    cut: HashMap<u64, u32>,
    /// What the kernel has given up, and nobody was told of yet. Only kept in a drain.
    lost: Cut,
    draining: bool,
}

struct Socket {
    /// Owned by C-core, which closes it right after it said `closed`; that
    /// removes it from here under the lock. So under the lock it is open.
    fd: RawFd,
    /// C-core's side of it, valid as long as `fd`; `None` until that has begun.
    handle: Option<Handle>,
    stage: Stage,
    /// Until when somebody has to speak HTTP/2.
    silent_until: Duration,
    watch: Watch,
    info: Arc<PeerInfo>,
    /// When it was shut down, in the drain.
    shut_down: Option<Duration>,
    /// The peer's address, for an observer.
    peer: Option<Box<str>>,
}

/// C-core's side of a connection.
struct Handle(*mut shim::Connection);

// SAFETY: its functions may be called on any thread.
unsafe impl Send for Handle {}

impl Handle {
    /// Another reference to it.
    ///
    /// # Safety
    /// The connection is valid: its socket is there, under the lock.
    unsafe fn share(&self) -> Reference {
        // SAFETY: as the caller promises.
        unsafe { touchdown_connection_reference(self.0) };
        Reference(self.0)
    }
}

/// A reference to C-core's side of a connection, which may be over.
struct Reference(*mut shim::Connection);

impl Reference {
    fn look(&self) -> ConnectionView {
        let mut view = ConnectionView::default();
        // SAFETY: there is a reference, and the memory is ours.
        unsafe { touchdown_connection_look(self.0, &mut view) };
        view
    }

    /// See `shim.h`.
    fn finish(&self) -> c_int {
        // SAFETY: there is a reference; no lock is held that is taken when C-core calls.
        unsafe { touchdown_connection_finish(self.0) }
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        // SAFETY: the reference is ours.
        unsafe { touchdown_connection_release(self.0) }
    }
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

/// What came of looking at all connections.
#[derive(Default)]
pub(super) struct Attended {
    /// When to look again, at the latest.
    pub(super) next: Option<Duration>,
    /// How many are waited for.
    pub(super) waited_for: usize,
    /// How many of them have sent FIN and wait for it to arrive.
    pub(super) lingering: usize,
    /// How many were told which call is the last, since they did not answer.
    pub(super) finished: usize,
    pub(super) cut: Cut,
}

/// What C-core gets to tell one connection from another.
struct Ticket {
    number: u64,
    connections: Arc<Connections>,
}

const EVENTS: ConnectionEvents = ConnectionEvents {
    opened,
    ready,
    lingering,
    closed,
};

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

    /// Gives a socket to C-core, to serve HTTP/2 on. The peer has to speak it
    /// before `silent_until`, in the time of the thread that accepts.
    pub(super) fn add(
        self: &Arc<Self>,
        shared: &super::Shared,
        accepted: Accepted,
        silent_until: Duration,
    ) {
        let unanswered = accepted.unanswered.unwrap_or(shared.unanswered_limit);
        limit_unanswered(&accepted.socket, unanswered);
        let encrypted = accepted.is_encrypted();
        let peer = peer_name::address(accepted.peer);
        let fd = accepted.socket.into_raw_fd();
        let number;
        let info = Arc::new(accepted.info);
        let ticket = {
            let mut open = self.open.lock();
            open.next += 1;
            number = open.next;
            let socket = Socket {
                fd,
                handle: None,
                stage: Stage::Silent,
                silent_until,
                watch: Watch::default(),
                info: Arc::clone(&info),
                shut_down: None,
                peer: self.observer.as_ref().map(|_| peer.as_str().into()),
            };
            open.sockets.insert(number, socket);
            self.count.store(open.sockets.len(), Ordering::Relaxed);
            Box::new(Ticket {
                number,
                connections: Arc::clone(self),
            })
        };
        self.tell(Connection::Opened {
            number,
            peer: &peer,
            encrypted,
        });
        let (tls, session) = match () {
            #[cfg(feature = "tls")]
            () => {
                let observer = self.observer.clone();
                tls::session(accepted.encryption, &peer, info, observer)
            }
            #[cfg(not(feature = "tls"))]
            () => (ptr::null(), ptr::null_mut()),
        };
        // Calls find their connection again by the number.
        let peer = CString::new(numbered(&peer, number)).expect("no zeros in an address");
        // SAFETY: the server is not shut down before the thread that accepts has
        // ended, and this is that thread; the socket, the ticket and the session are given away.
        unsafe {
            touchdown_server_add_connection(
                shared.server.as_raw(),
                shared.queue.as_raw(),
                shared.server.arguments(),
                fd,
                peer.as_ptr(),
                &EVENTS,
                Box::into_raw(ticket).cast(),
                tls,
                session,
            );
        }
    }

    /// Shuts down every connection whose time is over, while nothing drains. Returns when to come again.
    pub(super) fn sweep(&self, now: Duration) -> Option<Duration> {
        let mut next: Option<Duration> = None;
        for (number, handle) in self.of_stage(|stage| stage != Stage::Ready) {
            let view = handle.look();
            let mut open = self.open.lock();
            let Some(socket) = open.sockets.get_mut(&number).filter(|_| !view.gone) else {
                continue;
            };
            let alive = socket.watch.look(&view, now);
            let until = match socket.stage {
                Stage::Ready => continue,
                // What has come is about to be read.
                Stage::Silent if view.unread > 0 => socket.silent_until.max(now + LAST_WORDS),
                Stage::Silent => socket.silent_until,
                // As long as the last bytes are on their way to a slow peer.
                Stage::Refused | Stage::Lingering => alive + LINGER,
            };
            if until <= now {
                shut_down(socket.fd);
            } else {
                next = Some(next.map_or(until, |next| next.min(until)));
            }
        }
        next
    }

    /// Goes on with a drain: looks at every connection, and does what its time has come for.
    pub(super) fn attend(&self, now: Duration, patience: &Patience) -> Attended {
        let mut attended = Attended::default();
        for (number, handle) in self.of_stage(|_| true) {
            let view = handle.look();
            let step = {
                let mut open = self.open.lock();
                let Some(socket) = open.sockets.get_mut(&number) else {
                    continue;
                };
                // C-core takes a moment, or somebody holds on to a call whose connection has ended.
                let is_left = |since: Duration| now >= since + CUT_TIME;
                if view.gone || view.over || socket.shut_down.is_some_and(is_left) {
                    continue;
                }
                attended.waited_for += 1;
                if matches!(socket.stage, Stage::Refused | Stage::Lingering) {
                    attended.lingering += 1;
                }
                socket.watch.step(socket.stage, &view, now, patience)
            };
            let again = match step {
                Step::Wait(until) => until,
                Step::Release => {
                    self.shut_down(number, now);
                    now + CUT_TIME
                }
                Step::Finish => {
                    let result = handle.finish();
                    if result != shim::NOT_YET
                        && (result == shim::FINISHED || patience.hurry.is_some())
                    {
                        attended.finished += 1;
                        if let Some(socket) = self.open.lock().sockets.get_mut(&number) {
                            socket.watch.finished(now);
                        }
                    }
                    now + NOT_YET
                }
                Step::Cut => {
                    attended.cut += self.cut(number, &view);
                    self.shut_down(number, now);
                    now + CUT_TIME
                }
            };
            attended.next = Some(attended.next.map_or(again, |next| next.min(again)));
        }
        attended
    }

    /// The connections at such a stage.
    fn of_stage(&self, is_meant: impl Fn(Stage) -> bool) -> Vec<(u64, Reference)> {
        let open = self.open.lock();
        let meant = open.sockets.iter().filter(|(_, it)| is_meant(it.stage));
        let shared = meant.filter_map(|(number, socket)| {
            // SAFETY: under the lock what is here is valid.
            let handle = unsafe { socket.handle.as_ref()?.share() };
            Some((*number, handle))
        });
        shared.collect()
    }

    /// The longest round trip that the kernel has measured among the open
    /// connections.
    pub(super) fn longest_round_trip(&self) -> Duration {
        let open = self.open.lock();
        let round_trips = open.sockets.values().map(|socket| round_trip(socket.fd));
        round_trips.max().unwrap_or_default()
    }

    fn shut_down(&self, number: u64, now: Duration) {
        if let Some(socket) = self.open.lock().sockets.get_mut(&number) {
            socket.shut_down.get_or_insert(now);
            shut_down(socket.fd);
        }
    }

    /// Notes that a connection is cut that looks like this, and says what may be lost with it.
    fn cut(&self, number: u64, view: &ConnectionView) -> Cut {
        let mut open = self.open.lock();
        let Some(socket) = open.sockets.get(&number) else {
            return Cut::default();
        };
        let not_answers = socket.watch.not_answers();
        let is_lost = view.unread > 0
            || view.unacknowledged > 0
            || view.open > 0
            || view.writing > 0
            || (view.mid_frame && view.calls > 0)
            || view.undelivered > 0;
        let is_first = match open.cut.entry(number) {
            Entry::Vacant(entry) => {
                entry.insert(view.arrived_of_write);
                true
            }
            Entry::Occupied(_) => false,
        };
        match is_first && is_lost {
            true => Cut {
                connections: 1,
                answers: view.undelivered.saturating_sub(not_answers).into(),
            },
            false => Cut::default(),
        }
    }

    /// Shuts down every connection.
    pub(super) fn cut_all(&self) -> Cut {
        let mut sum = Cut::default();
        for (number, handle) in self.of_stage(|_| true) {
            let view = handle.look();
            if !view.gone && !view.over {
                sum += self.cut(number, &view);
            }
        }
        let open = self.open.lock();
        open.sockets.values().for_each(|it| shut_down(it.fd));
        sum
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

    fn become_lingering(&self, number: u64) {
        if let Some(socket) = self.open.lock().sockets.get_mut(&number) {
            socket.stage = match socket.stage {
                Stage::Silent | Stage::Refused => Stage::Refused,
                Stage::Ready | Stage::Lingering => Stage::Lingering,
            };
        }
        self.wake.wake();
    }

    fn become_ready(&self, number: u64) {
        if let Some(socket) = self.open.lock().sockets.get_mut(&number) {
            if socket.stage == Stage::Silent {
                socket.stage = Stage::Ready;
            }
        }
    }

    fn opened(&self, number: u64, connection: *mut shim::Connection) {
        if let Some(socket) = self.open.lock().sockets.get_mut(&number) {
            socket.handle = Some(Handle(connection));
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

/// # Safety
/// `arg` is a ticket that `closed` has not yet been called with.
unsafe fn ticket<'a>(arg: *mut c_void) -> &'a Ticket {
    // SAFETY: as the caller promises.
    unsafe { &*arg.cast::<Ticket>() }
}

unsafe extern "C" fn opened(arg: *mut c_void, connection: *mut shim::Connection) {
    // SAFETY: C-core calls this before `closed`.
    let ticket = unsafe { ticket(arg) };
    ticket.connections.opened(ticket.number, connection);
}

unsafe extern "C" fn ready(arg: *mut c_void) {
    // SAFETY: C-core calls this before `closed`.
    let ticket = unsafe { ticket(arg) };
    ticket.connections.become_ready(ticket.number);
}

unsafe extern "C" fn lingering(arg: *mut c_void) {
    // SAFETY: C-core calls this before `closed`.
    let ticket = unsafe { ticket(arg) };
    ticket.connections.become_lingering(ticket.number);
}

unsafe extern "C" fn closed(arg: *mut c_void, lost: u32) {
    // SAFETY: the box that `add` gave away, and this is the last call with it.
    let ticket = unsafe { Box::from_raw(arg.cast::<Ticket>()) };
    ticket.connections.remove(ticket.number, lost);
}

fn shut_down(fd: RawFd) {
    // SAFETY: a system call on a socket that is open; see `Socket::fd`.
    unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
}

/// Lets the kernel end the connection if the peer's does not acknowledge, or does not take, what it
/// is sent. C-core's own pings cannot tell: they wait behind what the peer does not take. For a
/// unix socket there is no such thing.
fn limit_unanswered(socket: &OwnedFd, limit: Duration) {
    let milliseconds = libc::c_int::try_from(limit.as_millis()).unwrap_or(libc::c_int::MAX);
    let (level, name) = (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT);
    let _ = socket_options::set(socket, level, name, milliseconds);
}

fn round_trip(fd: RawFd) -> Duration {
    tcp_info(fd).map_or(Duration::ZERO, |it| {
        Duration::from_micros(it.tcpi_rtt.into())
    })
}

fn tcp_info(fd: RawFd) -> Option<libc::tcp_info> {
    // SAFETY: a C struct of integers.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes no more than `length` bytes.
    let result = unsafe {
        libc::getsockopt(
            fd,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &mut length,
        )
    };
    // An emulator, or a very old kernel, may know less of it.
    let known = std::mem::offset_of!(libc::tcp_info, tcpi_rtt) + size_of::<u32>();
    (result == 0 && length as usize >= known).then_some(info)
}
