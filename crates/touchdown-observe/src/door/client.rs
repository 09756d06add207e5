//! One connection, from the first byte to the last.

use std::io;
use std::time::Instant;

use super::head::{Head, Step};
use super::response::Refusal;
use super::{ANSWER_TIME, LEAVE_LIMIT, LEAVE_TIME, REQUEST_TIME, STALL_TIME};

/// Both ways to a client, of which neither blocks.
pub(super) trait Duplex {
    /// As [`Read::read`](io::Read::read).
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// As [`Write::write`](io::Write::write).
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// The client reads the end after what was written.
    fn end_output(&mut self) -> io::Result<()>;
}

/// Who has connected.
pub(super) struct Client<S> {
    socket: S,
    opened: Instant,
    state: State,
}

/// A client walks through these in their order, and each at most once.
enum State {
    /// Its request is not whole.
    Asking(Head),
    Answering(Answer),
    /// It has its answer. What it sends is read, but not looked at.
    Leaving {
        until: Instant,
        /// How many more bytes are read.
        left: usize,
    },
}

struct Answer {
    bytes: Vec<u8>,
    written: usize,
    begun: Instant,
    /// When it was last that a byte of it went out.
    moved: Instant,
}

/// Makes the answer to a request.
pub(super) type Answering<'a> = dyn FnMut(&[u8]) -> Vec<u8> + 'a;

/// A client is done with, whatever the reason.
#[derive(Debug)]
pub(super) struct Gone;

impl<S: Duplex> Client<S> {
    pub(super) fn new(socket: S, now: Instant) -> Client<S> {
        Client {
            socket,
            opened: now,
            state: State::Asking(Head::default()),
        }
    }

    pub(super) fn socket(&self) -> &S {
        &self.socket
    }

    /// Whether it is to take something, rather than to send something.
    pub(super) fn writes(&self) -> bool {
        matches!(self.state, State::Answering(_))
    }

    /// How many bytes of its answer it has not taken yet.
    pub(super) fn pending(&self) -> usize {
        match &self.state {
            State::Answering(answer) => answer.bytes.len() - answer.written,
            _ => 0,
        }
    }

    /// When its patience is over.
    pub(super) fn deadline(&self) -> Instant {
        match &self.state {
            State::Asking(_) => self.opened + REQUEST_TIME,
            State::Answering(it) => (it.moved + STALL_TIME).min(it.begun + ANSWER_TIME),
            State::Leaving { until, .. } => *until,
        }
    }

    /// Who is least is the first to make room: who has its answer, then who has asked for longest, then who has
    /// not read for longest.
    pub(super) fn rank(&self) -> (u8, Instant) {
        match &self.state {
            State::Leaving { until, .. } => (0, *until),
            State::Asking(_) => (1, self.opened),
            State::Answering(it) => (2, it.moved),
        }
    }

    /// Does what can be done now that the socket is ready: a step in each state at the most, so that none keeps the
    /// others waiting.
    pub(super) fn advance(
        &mut self,
        now: Instant,
        buffer: &mut [u8],
        answering: &mut Answering<'_>,
    ) -> Result<(), Gone> {
        self.ask(now, buffer, answering)?;
        self.write(now)?;
        self.leave(buffer)
    }

    /// Its [patience](Self::deadline) is over.
    pub(super) fn expire(&mut self, now: Instant) -> Result<(), Gone> {
        match &self.state {
            State::Asking(head) if !head.is_untouched() => {
                self.answer(Refusal::LATE.into_bytes(), now);
                self.write(now)
            }
            _ => Err(Gone),
        }
    }

    fn ask(
        &mut self,
        now: Instant,
        buffer: &mut [u8],
        answering: &mut Answering<'_>,
    ) -> Result<(), Gone> {
        let State::Asking(head) = &mut self.state else {
            return Ok(());
        };
        let answer = match read(&mut self.socket, buffer)? {
            None => return Ok(()),
            Some(0) if head.is_untouched() => return Err(Gone),
            Some(0) => Refusal::CUT.into_bytes(),
            Some(length) => match head.take(&buffer[..length]) {
                Step::More => return Ok(()),
                Step::Whole(head) => answering(head),
                Step::Refused(refusal) => refusal.into_bytes(),
            },
        };
        self.answer(answer, now);
        Ok(())
    }

    fn answer(&mut self, bytes: Vec<u8>, now: Instant) {
        self.state = State::Answering(Answer {
            bytes,
            written: 0,
            begun: now,
            moved: now,
        });
    }

    /// Writes what the client takes of its answer.
    pub(super) fn write(&mut self, now: Instant) -> Result<(), Gone> {
        let State::Answering(answer) = &mut self.state else {
            return Ok(());
        };
        match self.socket.write(&answer.bytes[answer.written..]) {
            Ok(0) => return Err(Gone),
            Ok(length) => {
                answer.written += length;
                answer.moved = now;
            }
            Err(error) if is_for_now(&error) => {}
            Err(_) => return Err(Gone),
        }
        if answer.written == answer.bytes.len() {
            self.socket.end_output().map_err(|_| Gone)?;
            self.state = State::Leaving {
                until: now + LEAVE_TIME,
                left: LEAVE_LIMIT,
            };
        }
        Ok(())
    }

    fn leave(&mut self, buffer: &mut [u8]) -> Result<(), Gone> {
        let State::Leaving { left, .. } = &mut self.state else {
            return Ok(());
        };
        match read(&mut self.socket, buffer)? {
            None => Ok(()),
            Some(length) if length == 0 || length > *left => Err(Gone),
            Some(length) => {
                *left -= length;
                Ok(())
            }
        }
    }
}

/// How many bytes there are; 0 at the end, and `None` if there are none for now.
fn read(socket: &mut impl Duplex, buffer: &mut [u8]) -> Result<Option<usize>, Gone> {
    match socket.read(buffer) {
        Ok(length) => Ok(Some(length)),
        Err(error) if is_for_now(&error) => Ok(None),
        Err(_) => Err(Gone),
    }
}

fn is_for_now(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, WouldBlock};
    matches!(error.kind(), WouldBlock | Interrupted)
}
