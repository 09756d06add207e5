//! How a call ends, in words.

use crate::calls::codes::{RESOURCE_EXHAUSTED, UNAVAILABLE};

/// How a call ends.
#[derive(Clone, Copy)]
pub(crate) struct Ending<'a> {
    pub(crate) code: i32,
    pub(crate) message: &'a str,
    /// The value of `grpc-status-details-bin`, left out if empty.
    pub(crate) details: &'a [u8],
    /// What clients are told of a retry.
    pub(crate) retry: Retry,
}

/// What a call's end says of a retry. See "Pushback" in
/// [gRFC A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// Nothing: the client follows its own policy.
    Unsaid,
    /// Nothing was done, or what was done may be done again: retry, but not all at once.
    Soon,
    /// The handler may have done half of its work: do not retry.
    Never,
}

/// How a call has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Landed {
    /// As its handler said.
    Completed,
    Refused,
    /// The caller did not wait for it.
    CallerLeft,
    /// It has ended, or could have, but its connection was cut before the answer had gone out.
    Undelivered,
    Cut,
    ToldToStop,
    Abandoned,
}

impl<'a> Ending<'a> {
    pub(crate) fn new(code: i32, message: &'a str) -> Ending<'a> {
        Ending {
            code,
            message,
            details: &[],
            retry: Retry::Unsaid,
        }
    }
}

/// Whether somebody still works on a call that is being finished.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handled {
    Yes,
    NotYet,
}

/// The end of a call that a server going down has not run, or may be run again.
pub(in crate::calls) const SHUTTING_DOWN: Ending<'static> = Ending {
    code: UNAVAILABLE,
    message: "the server is shutting down",
    details: &[],
    retry: Retry::Soon,
};

/// The end of a stream whose thread others needed.
pub(crate) const SHED: Ending<'static> = Ending {
    code: RESOURCE_EXHAUSTED,
    message: "other calls needed the thread of this stream, which waited for its caller",
    details: &[],
    retry: Retry::Never,
};
