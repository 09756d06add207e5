//! The methods of a server, and what is known of each.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::pace::Pace;

/// A method to be served.
pub(crate) struct Method {
    /// `/package.Service/Method`
    pub(crate) path: String,
    pub(crate) streaming_request: bool,
    pub(crate) streaming_response: bool,
    /// Its calls are answered on the thread that polls, whether a worker is free or not, so what runs
    /// must not block. They are not counted as in flight, and the host is not told of their end.
    pub(crate) prompt: bool,
    /// A call with less time than this left is not begun.
    pub(super) minimum: Duration,
    /// What holds for its calls from the beginning of a drain on.
    limit: OnceLock<Limit>,
    pub(super) pace: Pace,
}

/// The time that calls of a method have in a drain.
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    /// When it is over; `None` if it never is.
    pub(crate) at: Option<Instant>,
    /// Whether calls that have not ended by then are ended with UNAVAILABLE. If not, it is for
    /// others to say when they have to go.
    pub(crate) cut: bool,
    /// How long a stream of requests may be idle before it is told to stop; `None` for as long as it likes.
    pub(crate) idle: Option<Duration>,
}

impl Limit {
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.cut && self.at.is_some_and(|at| at <= now)
    }
}

impl Method {
    pub(crate) fn new(
        path: String,
        streaming_request: bool,
        streaming_response: bool,
        minimum: Duration,
    ) -> Method {
        Method {
            path,
            streaming_request,
            streaming_response,
            prompt: false,
            minimum,
            limit: OnceLock::new(),
            pace: Pace::default(),
        }
    }

    pub(super) fn is_streaming(&self) -> bool {
        self.streaming_request || self.streaming_response
    }

    /// What holds for its calls; `None` before a drain.
    pub(super) fn limit(&self) -> Option<&Limit> {
        self.limit.get()
    }

    /// A drain begins. Changes nothing in one that has begun.
    pub(super) fn begin_drain(&self, limit: Limit) {
        self.limit.get_or_init(|| limit);
    }
}
