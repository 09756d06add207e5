//! What a server serves, and how busy it is: for those who show it.

/// A method that a server serves. [`ServerHandle::methods`](super::ServerHandle::methods) lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ServedMethod {
    /// The full name of its service: `package.Service`.
    pub service: &'static str,
    /// Its name in the service: `Method`.
    pub name: &'static str,
    /// Whether a caller sends a stream of requests.
    pub streams_requests: bool,
    /// Whether a caller gets a stream of replies.
    pub streams_replies: bool,
    /// Whether it is of the health service that is built in. The server's own counts leave its calls out.
    pub is_health: bool,
}

/// How busy a server is at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Load {
    /// How many handlers run at a time: [`ServerBuilder::workers`](super::ServerBuilder::workers).
    pub workers: usize,
    /// How many of them run. There may be more than `workers` for a moment: `workers` says when.
    pub busy: usize,
    /// How many handlers of streams run beside them, on threads of their own.
    pub streams: usize,
    /// How many calls wait for a worker.
    pub waiting: usize,
    /// How many may wait at the most: [`ServerBuilder::backlog`](super::ServerBuilder::backlog).
    pub backlog: usize,
}
