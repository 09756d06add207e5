//! The open connections: how many there are, which of them have anybody at the
//! other end, and the gentle or less gentle end of each.

use std::collections::HashMap;
use std::ffi::{c_void, CString};
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};
#[cfg(not(feature = "tls"))]
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::listener::Accepted;
use super::peer::{numbered, PeerInfo};
use super::shim::{touchdown_server_add_connection, ConnectionEvents};
use super::socket_options;
#[cfg(feature = "tls")]
use super::tls;
use super::wake::Wake;
use super::Shared;

/// How long a connection that is closing waits for its peer to close too, without
/// a sign of life from there: the default of nginx's `lingering_timeout`.
const LINGER: Duration = Duration::from_secs(5);

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
}

struct Open {
    sockets: HashMap<u64, Socket>,
    next: u64,
}

/// How long a drain waits for a client that takes nothing of its answer, with nothing else to
/// wait for: as long as for one that does not close.
const STUCK: Duration = LINGER;

struct Socket {
    /// Owned by C-core, which closes it right after it said `closed`; that
    /// removes it from here under the lock. So under the lock it is open.
    fd: RawFd,
    state: State,
    info: Arc<PeerInfo>,
    /// What the peer's kernel had not acknowledged when it was last looked at, and since when it
    /// is that much.
    unacknowledged: Option<(i32, Instant)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody has spoken HTTP/2 yet; until when somebody has to.
    Silent {
        until: Instant,
    },
    Ready,
    /// FIN is sent, to somebody who never was ready; until when the connection is kept, so
    /// that what the peer was told gets there.
    Refused {
        until: Instant,
    },
    /// Everything is sent, and FIN; until when the peer has to close, at the least.
    Lingering {
        until: Instant,
    },
}

/// What C-core gets to tell one connection from another.
struct Ticket {
    number: u64,
    connections: Arc<Connections>,
}

const EVENTS: ConnectionEvents = ConnectionEvents {
    ready,
    lingering,
    closed,
};

impl Connections {
    pub(super) fn new(wake: Arc<Wake>) -> Connections {
        Connections {
            open: Mutex::new(Open {
                sockets: HashMap::new(),
                next: 0,
            }),
            count: AtomicUsize::new(0),
            descriptor_wanted: AtomicBool::new(false),
            wake,
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
    /// before `silent_until`.
    pub(super) fn add(
        self: &Arc<Self>,
        shared: &Shared,
        accepted: Accepted,
        silent_until: Instant,
    ) {
        let unanswered = accepted.unanswered.unwrap_or(shared.unanswered_limit);
        limit_unanswered(&accepted.socket, unanswered);
        let fd = accepted.socket.into_raw_fd();
        let number;
        let info = Arc::new(accepted.info);
        let ticket = {
            let mut open = self.open.lock();
            open.next += 1;
            number = open.next;
            let state = State::Silent {
                until: silent_until,
            };
            let socket = Socket {
                fd,
                state,
                info: Arc::clone(&info),
                unacknowledged: None,
            };
            open.sockets.insert(number, socket);
            self.count.store(open.sockets.len(), Ordering::Relaxed);
            Box::new(Ticket {
                number,
                connections: Arc::clone(self),
            })
        };
        let (tls, session) = match () {
            #[cfg(feature = "tls")]
            () => tls::session(accepted.encryption, &accepted.peer, info),
            #[cfg(not(feature = "tls"))]
            () => (ptr::null(), ptr::null_mut()),
        };
        // Calls find their connection again by the number.
        let peer = CString::new(numbered(&accepted.peer, number)).expect("no zeros in an address");
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

    /// Shuts down every connection whose time is over. Returns when to come again.
    pub(super) fn sweep(&self, now: Instant) -> Option<Instant> {
        let open = self.open.lock();
        let mut next: Option<Instant> = None;
        for socket in open.sockets.values() {
            let until = match socket.state {
                State::Ready => continue,
                State::Silent { until } | State::Refused { until } => until,
                // As long as the last bytes are on their way to a slow peer.
                State::Lingering { until } => {
                    let left = silence(socket.fd).map(|it| LINGER.saturating_sub(it));
                    left.map_or(until, |left| until.max(now + left))
                }
            };
            if until <= now {
                shut_down(socket.fd);
            } else {
                next = Some(next.map_or(until, |next| next.min(until)));
            }
        }
        next
    }

    /// Shuts down the connections that linger though their peer's kernel has
    /// acknowledged every byte. Returns how many linger still.
    pub(super) fn release_delivered(&self) -> usize {
        let open = self.open.lock();
        let mut lingering = 0;
        for socket in open.sockets.values() {
            if matches!(
                socket.state,
                State::Lingering { .. } | State::Refused { .. }
            ) {
                if unacknowledged(socket.fd) == 0 {
                    shut_down(socket.fd);
                } else {
                    lingering += 1;
                }
            }
        }
        lingering
    }

    /// The longest round trip that the kernel has measured among the open
    /// connections.
    pub(super) fn longest_round_trip(&self) -> Duration {
        let open = self.open.lock();
        let round_trips = open.sockets.values().map(|socket| round_trip(socket.fd));
        round_trips.max().unwrap_or_default()
    }

    /// Shuts down every connection on which nothing has come in for `patience`,
    /// of which at least `waited` is over. Returns when to come again, if some are
    /// left.
    pub(super) fn cut_quiet(&self, patience: Duration, waited: Duration) -> Option<Duration> {
        let open = self.open.lock();
        let mut next: Option<Duration> = None;
        for socket in open.sockets.values() {
            // A request on its way is no call yet, so only the kernel knows of it.
            let quiet = silence(socket.fd).map_or(waited, |it| it.min(waited));
            if quiet >= patience {
                shut_down(socket.fd);
            } else {
                let left = patience - quiet;
                next = Some(next.map_or(left, |next| next.min(left)));
            }
        }
        next
    }

    /// Shuts down the connections on which nothing has moved for some time: no sign of life from
    /// the peer's kernel, or nothing taken of what it was sent. Returns how many.
    pub(super) fn cut_stuck(&self, now: Instant) -> usize {
        let mut open = self.open.lock();
        let mut cut = 0;
        for socket in open.sockets.values_mut() {
            let bytes = unacknowledged(socket.fd);
            let since = match socket.unacknowledged {
                Some((before, since)) if before == bytes => since,
                _ => now,
            };
            socket.unacknowledged = Some((bytes, since));
            let mut still = now.saturating_duration_since(since);
            if bytes == 0 {
                still = silence(socket.fd).map_or(still, |it| it.min(still));
            }
            if still >= STUCK {
                shut_down(socket.fd);
                cut += 1;
            }
        }
        cut
    }

    /// Shuts down every connection.
    pub(super) fn cut(&self) {
        let open = self.open.lock();
        let sockets = open.sockets.values();
        sockets.for_each(|socket| shut_down(socket.fd));
    }

    fn become_lingering(&self, number: u64) {
        if let Some(socket) = self.open.lock().sockets.get_mut(&number) {
            let until = Instant::now() + LINGER;
            socket.state = match socket.state {
                State::Silent { .. } => State::Refused { until },
                _ => State::Lingering { until },
            };
        }
        self.wake.wake();
    }

    fn become_ready(&self, number: u64) {
        if let Some(socket) = self.open.lock().sockets.get_mut(&number) {
            if matches!(socket.state, State::Silent { .. }) {
                socket.state = State::Ready;
            }
        }
    }

    fn remove(&self, number: u64) {
        let mut open = self.open.lock();
        open.sockets.remove(&number);
        let left = open.sockets.len();
        self.count.store(left, Ordering::Relaxed);
        drop(open);
        let is_wanted = self.descriptor_wanted.swap(false, Ordering::Relaxed);
        // A drain waits for the last.
        if left == 0 || is_wanted {
            self.wake.wake();
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

unsafe extern "C" fn closed(arg: *mut c_void) {
    // SAFETY: the box that `add` gave away, and this is the last call with it.
    let ticket = unsafe { Box::from_raw(arg.cast::<Ticket>()) };
    ticket.connections.remove(ticket.number);
}

fn shut_down(fd: RawFd) {
    // SAFETY: a system call on a socket that is open; see `Socket::fd`.
    unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
}

/// The bytes (and FIN) that the peer's kernel has not acknowledged; for a unix
/// socket, those that the peer has not read.
fn unacknowledged(fd: RawFd) -> i32 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: writes an int; SIOCOUTQ has the number of TIOCOUTQ.
    match unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &mut bytes) } {
        0 => bytes,
        _ => 0,
    }
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

/// How long the peer's kernel has sent neither data nor the acknowledgement of
/// ours; `None` for a unix socket, where nobody knows.
fn silence(fd: RawFd) -> Option<Duration> {
    let info = tcp_info(fd)?;
    let milliseconds = info.tcpi_last_data_recv.min(info.tcpi_last_ack_recv);
    Some(Duration::from_millis(milliseconds.into()))
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
