//! TLS: what tls.cc asks for each connection, with rustls.
//!
//! C-core brings TLS of its own: a BoringSSL of mid-2023, which takes another build of C-core.
//! rustls is kept up, and parses what strangers send in Rust.

use std::ffi::c_int;
use std::io::{self, IoSlice, Read, Write};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::ptr;
use std::sync::Arc;
use std::time::Instant;

use grpcio_sys::{grpc_slice_buffer, grpc_slice_buffer_add, grpc_slice_malloc};
use rustls::server::{Accepted, AcceptedAlert, Acceptor, ServerConnection};
use rustls::Error;

use super::bytes::bytes_mut;
use super::shim::{TlsFunctions, TlsSession};
use super::tls_lines::PeerLines;
use super::tls_reason::reason;
use crate::calls::log_limit::LogLimit;
use crate::calls::peer::for_people;
use crate::calls::{Connection, Observer};
use crate::logging;
use crate::sockets::encryption::{since_1970, Encryption, HTTP2};
use crate::sockets::peer::PeerInfo;

/// How much encrypted data a session may hold before it is fetched: tls.cc fetches as much at once.
const ENCRYPTED: usize = 64 << 10;

/// The type of a record with a handshake message. RFC 8446, 5.1.
const HANDSHAKE: u8 = 22;

/// The alert no_application_protocol, as it is written before there are keys. RFC 8446, 6; RFC 7301, 3.2.
const NO_PROTOCOL: [u8; 7] = [21, 3, 3, 0, 2, 2, 120];

/// For a client that speaks HTTP/2 without TLS: GOAWAY with INADEQUATE_SECURITY, and a text for who looks at the bytes. RFC 9113,
/// 6.8 and 7. No SETTINGS come before it: clients take those for a connection that works, and come back at
/// once and without end when it is lost. Without them the connection was never made, which their callers are told (UNAVAILABLE), and
/// they wait longer each time before they come again.
const GO_AWAY: &[u8] = b"\0\0\x20\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0cthis address expects TLS";

/// What can be done about clients without TLS, in the log.
const WITHOUT_TLS: &str =
    "have it use TLS, and trust this server's CA, or give it the address of a listener without TLS";

/// How a client begins that speaks HTTP/2 without TLS.
const PREFACE: &[u8] = b"PRI * HTTP/2.0";

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Handshake = 0,
    Open = 1,
    Closed = 2,
    Failed = 3,
}

/// The TLS of one connection.
struct Session {
    peer: String,
    info: Arc<PeerInfo>,
    encryption: Arc<Encryption>,
    observer: Option<Arc<dyn Observer>>,
    state: State,
    stage: Stage,
    /// What is to be sent and rustls does not have.
    answer: Vec<u8>,
}

enum Stage {
    /// Nothing has come in.
    New,
    /// A part of the client's hello has come in.
    Hello(Box<Acceptor>),
    /// The configuration is settled.
    Begun(Box<ServerConnection>),
    Refused,
}

static FUNCTIONS: TlsFunctions = TlsFunctions {
    state,
    take_in,
    take_decrypted,
    encrypt,
    take_out,
    close,
    ended,
    destroy,
};

/// What C-core gets for a connection: a session, if it is encrypted.
pub(super) fn session(
    encryption: Option<Arc<Encryption>>,
    peer: &str,
    info: Arc<PeerInfo>,
    observer: Option<Arc<dyn Observer>>,
) -> (*const TlsFunctions, *mut TlsSession) {
    match encryption {
        Some(encryption) => {
            let session = Session::new(peer.to_owned(), info, encryption, observer);
            (&FUNCTIONS, Box::into_raw(session).cast())
        }
        None => (ptr::null(), ptr::null_mut()),
    }
}

impl Session {
    /// A session with this client, whose certificate, if it has one, will be put into `info`.
    fn new(
        peer: String,
        info: Arc<PeerInfo>,
        encryption: Arc<Encryption>,
        observer: Option<Arc<dyn Observer>>,
    ) -> Box<Session> {
        Box::new(Session {
            peer,
            info,
            encryption,
            observer,
            state: State::Handshake,
            stage: Stage::New,
            answer: Vec::new(),
        })
    }

    fn take_in(&mut self, bytes: &[u8]) -> usize {
        let taken = match &mut self.stage {
            Stage::New if bytes[0] != HANDSHAKE => {
                self.refuse_plain(bytes);
                return bytes.len();
            }
            Stage::New => {
                self.stage = Stage::Hello(Box::default());
                return self.take_in(bytes);
            }
            Stage::Hello(acceptor) => acceptor.read_tls(&mut &*bytes),
            Stage::Begun(connection) => connection.read_tls(&mut &*bytes),
            Stage::Refused => return 0,
        };
        match taken {
            Ok(taken) if taken > 0 => {
                self.go_on();
                taken
            }
            Ok(_) => {
                self.fail("it says more than is allowed");
                0
            }
            Err(error) => {
                self.fail(&error.to_string());
                0
            }
        }
    }

    /// Works on what was read.
    fn go_on(&mut self) {
        if let Stage::Hello(acceptor) = &mut self.stage {
            match acceptor.accept() {
                Ok(None) => return,
                Ok(Some(accepted)) => self.begin(accepted),
                Err((error, alert)) => self.refuse(&error, alert),
            }
        }
        let Stage::Begun(connection) = &mut self.stage else {
            return;
        };
        let io = match connection.process_new_packets() {
            Ok(io) => io,
            Err(error) => return self.fail(&reason(&error)),
        };
        if self.state == State::Handshake && !connection.is_handshaking() {
            if let Some([certificate, ..]) = connection.peer_certificates() {
                let _ = self.info.certificate.set(certificate.as_ref().into());
            }
            self.state = State::Open;
        }
        if io.peer_has_closed() {
            match self.state {
                State::Handshake => self.fail("the client has left during the handshake"),
                _ => self.state = State::Closed,
            }
        }
    }

    /// The client's hello is there. rustls would let in a client that names no protocol at all.
    fn begin(&mut self, accepted: Accepted) {
        let offers_http2 = {
            let mut offered = accepted.client_hello().alpn().into_iter().flatten();
            offered.any(|it| it == HTTP2)
        };
        if !offers_http2 {
            self.answer.extend(NO_PROTOCOL);
            self.stage = Stage::Refused;
            return self.fail("the client does not offer HTTP/2 (h2 in ALPN)");
        }
        match accepted.into_connection(self.encryption.current()) {
            Ok(mut connection) => {
                if let Some(complaint) = self.encryption.complaint(since_1970()) {
                    logging::warn!("{complaint}");
                }
                connection.set_buffer_limit(Some(ENCRYPTED));
                self.stage = Stage::Begun(Box::new(connection));
            }
            Err((error, alert)) => self.refuse(&error, alert),
        }
    }

    fn refuse(&mut self, error: &Error, mut alert: AcceptedAlert) {
        let _ = alert.write_all(&mut self.answer);
        self.stage = Stage::Refused;
        self.fail(&reason(error));
    }

    /// A client that was not told of TLS does not learn of it, and comes again and again. So does what looks at ports.
    fn refuse_plain(&mut self, bytes: &[u8]) {
        static OF_HTTP2: PeerLines = PeerLines::new();
        static OF_OTHERS: PeerLines = PeerLines::new();
        self.stage = Stage::Refused;
        let (why, lines) = if bytes.starts_with(&PREFACE[..PREFACE.len().min(bytes.len())]) {
            self.answer.extend(GO_AWAY);
            ("the client speaks HTTP/2 without TLS".to_owned(), &OF_HTTP2)
        } else {
            let begin = bytes[..bytes.len().min(16)].escape_ascii();
            let why = format!("the client does not speak TLS, but \"{begin}\"");
            (why, &OF_OTHERS)
        };
        if !self.fails(&why) {
            return;
        }
        let peer = for_people(&self.peer);
        let host = host(&peer);
        let Some(skipped) = lines.admits(host, Instant::now()) else {
            return;
        };
        let more = match skipped {
            0 => String::new(),
            _ => format!("; {skipped} more of its connections since the last line"),
        };
        logging::warn!(
            "TLS with {peer} failed: {why}: {WITHOUT_TLS} (once a minute for {host}{more})"
        );
    }

    fn fail(&mut self, why: &str) {
        static LIMIT: LogLimit = LogLimit::new();
        if !self.fails(why) {
            return;
        }
        if let Some(skipped) = LIMIT.admits() {
            if skipped > 0 {
                logging::warn!("{skipped} more failures of TLS were not logged");
            }
            logging::warn!("TLS with {} failed: {why}", for_people(&self.peer));
        }
    }

    /// It has failed from now on. Says whether that is new.
    fn fails(&mut self, why: &str) -> bool {
        if self.state == State::Failed {
            return false;
        }
        if let (State::Handshake, Some(observer)) = (self.state, &self.observer) {
            let peer = &self.peer;
            observer.connection(Connection::HandshakeFailed { peer, why });
        }
        self.state = State::Failed;
        true
    }

    fn take_decrypted(&mut self, room: &mut [u8]) -> usize {
        match &mut self.stage {
            // What cannot be read now is told by the state.
            Stage::Begun(connection) => connection.reader().read(room).unwrap_or(0),
            _ => 0,
        }
    }

    fn encrypt(&mut self, pieces: &[IoSlice<'_>]) -> usize {
        match &mut self.stage {
            Stage::Begun(connection) => connection.writer().write_vectored(pieces).unwrap_or(0),
            _ => 0,
        }
    }

    fn take_out(&mut self, out: &mut impl Write) {
        if !self.answer.is_empty() {
            let _ = out.write_all(&self.answer);
            self.answer = Vec::new();
        }
        if let Stage::Begun(connection) = &mut self.stage {
            while connection.wants_write() {
                if connection.write_tls(out).is_err() {
                    return;
                }
            }
        }
    }

    fn close(&mut self) {
        if let Stage::Begun(connection) = &mut self.stage {
            connection.send_close_notify();
        }
    }

    fn ended(&mut self) {
        match self.stage {
            // Somebody who looks whether the port is open.
            Stage::New => {
                let peer = for_people(&self.peer);
                logging::debug!("{peer} came, and left without a word of TLS");
                self.state = State::Failed;
            }
            _ => self.fail("the client left during the handshake, or its time was over"),
        }
    }
}

/// A peer without its port, which is another one each time.
fn host(peer: &str) -> &str {
    peer.rsplit_once(':').map_or(peer, |(host, _)| host)
}

/// Adds to a slice buffer of C-core.
struct Slices<'a>(&'a mut grpc_slice_buffer);

impl Write for Slices<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let length = pieces.iter().map(|it| it.len()).sum();
        // SAFETY: a new slice of this length, owned here.
        let mut slice = unsafe { grpc_slice_malloc(length) };
        let mut room = bytes_mut(&mut slice);
        for piece in pieces {
            let (place, rest) = std::mem::take(&mut room).split_at_mut(piece.len());
            place.copy_from_slice(piece);
            room = rest;
        }
        // SAFETY: the slice is given away.
        unsafe { grpc_slice_buffer_add(self.0, slice) };
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Calls `body`, out of which no panic gets into C++. After one the session has failed.
///
/// # Safety
/// `session` is what the function `session` has returned, not destroyed, and nobody else uses it
/// now: tls.cc calls under a lock.
unsafe fn with<T: Default>(session: *mut TlsSession, body: impl FnOnce(&mut Session) -> T) -> T {
    // SAFETY: as the caller promises.
    let session = unsafe { &mut *session.cast::<Session>() };
    let result = catch_unwind(AssertUnwindSafe(|| body(session)));
    result.unwrap_or_else(|_| {
        session.state = State::Failed;
        session.stage = Stage::Refused;
        T::default()
    })
}

unsafe extern "C" fn state(session: *const TlsSession) -> c_int {
    // SAFETY: see `with`.
    unsafe { (*session.cast::<Session>()).state as c_int }
}

unsafe extern "C" fn take_in(session: *mut TlsSession, bytes: *const u8, count: usize) -> usize {
    // SAFETY: tls.cc passes so many bytes, at least one, and nobody writes them meanwhile; and see `with`.
    unsafe {
        let bytes = std::slice::from_raw_parts(bytes, count);
        with(session, |it| it.take_in(bytes))
    }
}

unsafe extern "C" fn take_decrypted(session: *mut TlsSession, room: *mut u8, size: usize) -> usize {
    // SAFETY: tls.cc passes so much initialized memory that is its own; and see `with`.
    unsafe {
        let room = std::slice::from_raw_parts_mut(room, size);
        with(session, |it| it.take_decrypted(room))
    }
}

unsafe extern "C" fn encrypt(
    session: *mut TlsSession,
    pieces: *const IoSlice<'_>,
    count: usize,
) -> usize {
    // SAFETY: tls.cc passes so many pieces, whose bytes stay as they are meanwhile; and see `with`.
    unsafe {
        let pieces = std::slice::from_raw_parts(pieces, count);
        with(session, |it| it.encrypt(pieces))
    }
}

unsafe extern "C" fn take_out(session: *mut TlsSession, out: *mut grpc_slice_buffer) {
    // SAFETY: tls.cc passes a buffer that is its own; and see `with`.
    unsafe {
        let mut out = Slices(&mut *out);
        with(session, |it| it.take_out(&mut out));
    }
}

unsafe extern "C" fn close(session: *mut TlsSession) {
    // SAFETY: see `with`.
    unsafe { with(session, Session::close) }
}

unsafe extern "C" fn ended(session: *mut TlsSession) {
    // SAFETY: see `with`.
    unsafe { with(session, Session::ended) }
}

unsafe extern "C" fn destroy(session: *mut TlsSession) {
    // SAFETY: the box that the function `session` gave away, and this is the last call with it.
    let session = unsafe { Box::from_raw(session.cast::<Session>()) };
    let _ = catch_unwind(AssertUnwindSafe(|| drop(session)));
}
