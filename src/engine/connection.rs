//! C-core's side of the connections.

use std::ffi::{c_char, c_int, c_void, CStr, CString};
use std::num::NonZeroU32;
use std::os::fd::{IntoRawFd, RawFd};
#[cfg(not(feature = "tls"))]
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::core::Core;
use super::guard::door;
use super::peer_name::numbered;
use super::shim::{
    self, touchdown_connection_blame, touchdown_connection_finish, touchdown_connection_look,
    touchdown_connection_pass_span, touchdown_connection_reference, touchdown_connection_release,
    touchdown_connection_rest, touchdown_connection_send_away, touchdown_server_add_connection,
    ConnectionEvents, ConnectionView,
};
#[cfg(feature = "tls")]
use super::tls;
use crate::calls::transport::{Finished, Link, Newcomer, Span, View};
use crate::calls::Guest;

/// A connection, which may be over.
struct CoreLink {
    /// A reference of our own to it.
    raw: AtomicPtr<shim::Connection>,
    /// Its socket, which C-core owns: closed right after the event `closed`, which takes it away here.
    socket: Mutex<Option<RawFd>>,
}

impl CoreLink {
    fn with_socket<T>(&self, with: impl FnOnce(RawFd) -> T) -> Option<T> {
        let socket = self.socket.lock();
        socket.map(with)
    }
}

impl Link for CoreLink {
    fn look(&self) -> View {
        let mut view = ConnectionView::default();
        // SAFETY: there is a reference, and the memory is ours.
        unsafe { touchdown_connection_look(self.raw.load(Ordering::Relaxed), &mut view) };
        View {
            received: view.received,
            arrived: view.arrived,
            calls: view.calls,
            open: view.open,
            undelivered: view.undelivered,
            writing: view.writing,
            arrived_of_write: view.arrived_of_write,
            unread: view.unread,
            unacknowledged: view.unacknowledged,
            queued: view.queued,
            idle: Duration::from_millis(view.idle),
            mid_frame: view.mid_frame,
            acknowledged: view.acknowledged,
            ping_arrived: view.ping_arrived,
            over: view.over,
            gone: view.gone,
        }
    }

    fn send_away(&self) -> bool {
        // SAFETY: there is a reference; the caller holds no lock that is taken when C-core calls.
        unsafe { touchdown_connection_send_away(self.raw.load(Ordering::Relaxed)) != 0 }
    }

    fn blame(&self) {
        // SAFETY: there is a reference.
        unsafe { touchdown_connection_blame(self.raw.load(Ordering::Relaxed)) }
    }

    fn pass_span(&self, span: Span) -> usize {
        let raw = self.raw.load(Ordering::Relaxed);
        let (least, counts, spans) = (span.least, span.counts.into(), span.spans);
        // SAFETY: there is a reference.
        unsafe { touchdown_connection_pass_span(raw, least, counts, spans) }
    }

    fn rest(&self, calls: u32) -> bool {
        // SAFETY: there is a reference.
        unsafe { touchdown_connection_rest(self.raw.load(Ordering::Relaxed), calls) != 0 }
    }

    fn finish(&self) -> Finished {
        // SAFETY: there is a reference; the caller holds no lock that is taken when C-core calls.
        match unsafe { touchdown_connection_finish(self.raw.load(Ordering::Relaxed)) } {
            shim::FINISHED => Finished::Told,
            shim::NOT_YET => Finished::NotYet,
            _ => Finished::MidFrame,
        }
    }

    fn shut_down(&self) {
        self.with_socket(|fd| {
            // SAFETY: a system call on a socket that is open: it is not closed as long as the lock is held.
            unsafe { libc::shutdown(fd, libc::SHUT_RDWR) }
        });
    }

    fn round_trip(&self) -> Duration {
        self.with_socket(round_trip).unwrap_or_default()
    }
}

impl Drop for CoreLink {
    fn drop(&mut self) {
        // SAFETY: the reference is ours.
        unsafe { touchdown_connection_release(*self.raw.get_mut()) }
    }
}

/// What C-core gets to tell one connection from another.
struct Ticket {
    guest: Guest,
    peer: String,
    fd: RawFd,
    /// From `opened` on.
    link: Option<Arc<CoreLink>>,
}

const EVENTS: ConnectionEvents = ConnectionEvents {
    opened,
    ready,
    sent_away,
    busy,
    crowded,
    lingering,
    closed,
};

/// Gives a connection to C-core, to serve HTTP/2 on.
pub(super) fn add(core: &Core, newcomer: Newcomer) {
    let fd = newcomer.socket.into_raw_fd();
    // Calls find their connection again by the number.
    let name = numbered(&newcomer.peer, newcomer.guest.number());
    let peer = CString::new(name).expect("no zeros in an address");
    let (tls, session) = match () {
        #[cfg(feature = "tls")]
        () => {
            let observer = newcomer.guest.observer();
            tls::session(newcomer.encryption, &newcomer.peer, newcomer.info, observer)
        }
        #[cfg(not(feature = "tls"))]
        () => (ptr::null(), ptr::null_mut()),
    };
    let most_calls = (newcomer.concurrent_streams)
        .map_or_else(|| core.server.concurrent_streams(), NonZeroU32::get);
    let ticket = Box::new(Ticket {
        guest: newcomer.guest,
        peer: newcomer.peer,
        fd,
        link: None,
    });
    let newcomer = shim::Newcomer {
        fd,
        peer: peer.as_ptr(),
        events: &EVENTS,
        arg: Box::into_raw(ticket).cast(),
        guard_functions: &door::FUNCTIONS,
        guard: door::guard(core.server.limits()),
        acknowledge_ms: core.server.acknowledge_ms(),
        most_calls,
        tls,
        session,
    };
    // SAFETY: the server is not shut down before the thread that accepts has
    // ended, and this is that thread; the socket, the ticket, the guard and the session are given away.
    unsafe {
        touchdown_server_add_connection(
            core.server.as_raw(),
            core.queue.as_raw(),
            core.server.arguments(),
            &newcomer,
        );
    }
}

unsafe extern "C" fn opened(arg: *mut c_void, connection: *mut shim::Connection) {
    // SAFETY: C-core calls this first, before anybody else has the ticket.
    let ticket = unsafe { &mut *arg.cast::<Ticket>() };
    // SAFETY: it is valid now, and from now on for those who hold a reference.
    unsafe { touchdown_connection_reference(connection) };
    let link = Arc::new(CoreLink {
        raw: AtomicPtr::new(connection),
        socket: Mutex::new(Some(ticket.fd)),
    });
    ticket.link = Some(Arc::clone(&link));
    ticket.guest.opened(link);
}

/// # Safety
/// `arg` is a ticket that `opened` has returned for, and `closed` has not yet been called with.
unsafe fn guest<'a>(arg: *mut c_void) -> &'a Guest {
    // SAFETY: as the caller promises.
    unsafe { &(*arg.cast::<Ticket>()).guest }
}

unsafe extern "C" fn ready(arg: *mut c_void) {
    // SAFETY: C-core calls this between `opened` and `closed`.
    unsafe { guest(arg) }.ready();
}

unsafe extern "C" fn sent_away(arg: *mut c_void, code: u32, why: *const c_char, is_cut: c_int) {
    // SAFETY: C-core calls this between `opened` and `closed`, with a text that ends with a zero.
    let (ticket, why) = unsafe { (&*arg.cast::<Ticket>(), CStr::from_ptr(why)) };
    ticket
        .guest
        .sent_away(&ticket.peer, code, &why.to_string_lossy(), is_cut != 0);
}

unsafe extern "C" fn busy(arg: *mut c_void) {
    // SAFETY: C-core calls this between `opened` and `closed`.
    unsafe { guest(arg) }.busy();
}

unsafe extern "C" fn crowded(arg: *mut c_void) {
    // SAFETY: C-core calls this between `opened` and `closed`.
    unsafe { guest(arg) }.crowded();
}

unsafe extern "C" fn lingering(arg: *mut c_void) {
    // SAFETY: C-core calls this between `opened` and `closed`.
    unsafe { guest(arg) }.lingering();
}

unsafe extern "C" fn closed(arg: *mut c_void, lost: u32) {
    // SAFETY: the box that `add` gave away, and this is the last call with it.
    let ticket = unsafe { Box::from_raw(arg.cast::<Ticket>()) };
    if let Some(link) = &ticket.link {
        link.socket.lock().take();
    }
    ticket.guest.closed(lost);
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
