//! What the [roster](super::roster::Roster) is told and what it says: words only.

/// What can wait for a worker.
pub(super) trait Waits {
    /// The number of the connection on which it has come. It may take a moment to find out.
    fn connection(&self) -> u64;
    /// Whether it begins a stream, whose handler may take a thread for itself.
    fn is_stream(&self) -> bool;
}

/// How much may wait.
#[derive(Clone, Copy)]
pub(super) struct Backlog {
    pub(super) calls: usize,
    /// Of their messages, all together.
    pub(super) bytes: usize,
}

/// How busy the workers are.
pub(crate) struct Load {
    pub(crate) running: usize,
    pub(crate) workers: usize,
    /// How many handlers of streams have given their places back.
    pub(crate) aside: usize,
    pub(crate) waiting: usize,
    pub(crate) backlog: usize,
}

/// What is known of a call before it runs.
#[derive(Clone, Copy)]
pub(super) struct Outlook {
    /// Calls of its method were short of late.
    pub(super) short: bool,
    /// How many threads should poll.
    pub(super) pollers: usize,
    /// The size of its message, in bytes.
    pub(super) bytes: usize,
    /// It is a step of a call that was accepted long ago: it waits, and is not refused.
    pub(super) is_step: bool,
}

/// What is to be done with a call that has arrived.
pub(super) enum Decision<T> {
    /// Run it.
    Run(T),
    /// Run it, and let the watch begin.
    RunAndWatch(T),
    /// Run it, once a new thread has been started to poll.
    RunAndSpawn(T),
    /// It waits; poll on.
    Queued,
    /// It waits for a thread, see [`hire`](super::roster::Roster::hire); poll on.
    QueuedToHire,
    /// It waits, and these do not any more: other connections than theirs have a right to the room.
    QueuedInstead(Vec<T>),
    /// There is no room for it; poll on.
    Refused(T),
}

/// What a thread does after a call.
pub(super) enum Next<T> {
    Run(T),
    Poll,
    /// Nothing to do: call [`rest`](super::roster::Roster::rest).
    Rest,
    /// As `Rest`, and enough others rest: see [`dismiss_surplus`](super::roster::Roster::dismiss_surplus).
    RestToo,
}

/// What a thread does that has rested.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rested {
    Poll,
    /// Begin with [`finished`](super::roster::Roster::finished): something waits for a worker.
    Work,
    End,
}

/// The threads that are to be started because a handler has given its place back and no thread rests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// One that polls; if it cannot be had, see [`watch_failed`](super::roster::Roster::watch_failed).
    pub(super) poller: bool,
    /// One that begins with [`finished`](super::roster::Roster::finished); if it cannot be had, see
    /// [`hire_failed`](super::roster::Roster::hire_failed).
    pub(super) worker: bool,
}

/// What a thread does that is not needed to poll.
pub(super) enum Leaving {
    End,
    /// [`rest`](super::roster::Roster::rest).
    Rest,
}

/// What a thread begins with.
#[derive(Clone, Copy)]
pub(super) enum Beginning {
    Poll,
    /// [`rest`](super::roster::Roster::rest).
    Rest,
    /// [`relieve`](super::roster::Roster::relieve).
    Relieve,
    /// [`finished`](super::roster::Roster::finished).
    Finished,
}

/// What the watch has found.
pub(super) enum Watched {
    /// Nothing to watch.
    Off,
    /// All is well.
    On,
    /// A thread is to be started, to poll.
    Spawn,
}
