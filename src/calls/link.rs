//! The transport's side of a connection, and what is seen of it; see [`transport`](super::transport).

use std::time::Duration;

/// The transport's side of a connection. It may be over while somebody holds on to it.
pub(crate) trait Link: Send + Sync {
    /// Makes system calls, but does not block. No lock may be held that a [`Guest`](super::Guest) takes.
    fn look(&self) -> View;

    /// Tells this peer, by the graceful GOAWAY, to make no more calls here: those on the wire are still served, and the
    /// connection ends by itself once the peer has acknowledged that and the last call is over. False, and nothing is
    /// done, if that is not possible just now. No lock may be held that a [`Guest`](super::Guest) takes.
    fn send_away(&self) -> bool;

    /// A call of it was refused because its headers cannot be read. The peer may not make many of these. No lock may be held
    /// that a [`Guest`](super::Guest) takes.
    fn blame(&self);

    /// A span of time is over. Returns how many of the open calls have stood still for as many of them as that says.
    fn pass_span(&self, span: Span) -> usize;

    /// If no more than so many calls are open and nothing waits to be sent, has the next call that begins tell the
    /// [guest](super::Guest::busy) so, and is true.
    fn rest(&self, calls: u32) -> bool;

    /// Ends the wait for the peer to acknowledge GOAWAY, and tells it which call is the last. No lock may be held that
    /// a [`Guest`](super::Guest) takes.
    fn finish(&self) -> Finished;

    /// Shuts the socket down in both directions, unless it is closed.
    fn shut_down(&self);

    /// The round trip that the kernel has measured; zero if it does not know.
    fn round_trip(&self) -> Duration;
}

/// What counts as progress of a call in a span of time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// How many bytes of messages have to pass, either way.
    pub(crate) least: u32,
    /// Whether any could.
    pub(crate) counts: bool,
    /// How many spans without progress are to be told of.
    pub(crate) spans: u8,
}

/// What came of telling a peer which call is the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finished {
    /// It is on its way; with the last call the connection ends.
    Told,
    /// Something has come that was not read yet. It decides which call is the last.
    NotYet,
    /// A frame has come in part: nothing can be told before it is whole.
    MidFrame,
}

/// What is known of a connection at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct View {
    /// The bytes that have been read of what the peer has sent; behind TLS, of what it means.
    pub(crate) received: u64,
    /// The bytes that have reached the peer's kernel; for a unix socket, those that the peer has read.
    pub(crate) arrived: u64,
    /// The calls that the peer has begun.
    pub(crate) calls: u64,
    /// Those of them of which neither side has sent the end.
    pub(crate) open: u32,
    /// The calls whose end was given to the kernel, and has not reached the peer's. For a unix socket there are none:
    /// what is written is there.
    pub(crate) undelivered: u32,
    /// The calls whose end is in the write that is under way, and has not reached the peer's kernel.
    pub(crate) writing: u32,
    /// Those of which it has, though the write has not ended.
    pub(crate) arrived_of_write: u32,
    /// The bytes that have come and were not read yet.
    pub(crate) unread: i32,
    /// The bytes, and FIN, that the peer's kernel has not acknowledged. For a unix socket there are none, as above.
    pub(crate) unacknowledged: i32,
    /// The bytes that the kernel has to send, or that the reader of a unix socket has not read; of these perhaps more
    /// than there are.
    pub(crate) queued: i32,
    /// For how long no call has been open, by a clock that goes on while the process stands still; zero if there is
    /// one.
    pub(crate) idle: Duration,
    /// Whether a part of a frame has come, or of a TLS record, and the rest not yet.
    pub(crate) mid_frame: bool,
    /// Whether the peer has acknowledged the ping behind GOAWAY.
    pub(crate) acknowledged: bool,
    /// Whether that ping has reached the peer's kernel.
    pub(crate) ping_arrived: bool,
    /// Whether the connection is over on both sides: nothing can come any more. Somebody may hold on to a call of it
    /// still.
    pub(crate) over: bool,
    /// Whether it is closed, and nothing else of this is true.
    pub(crate) gone: bool,
}
