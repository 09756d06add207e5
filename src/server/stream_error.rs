//! Why a message of a stream has not come, or was not sent: one error for each operation, as in crossbeam-channel.

use std::error::Error;
use std::fmt;

use super::status::Status;

/// Why [`Requests::recv_timeout`](super::Requests::recv_timeout) has no request to give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecvTimeoutError {
    /// None has come in time. The call goes on, and nothing is lost: what comes later is received later.
    Timeout,
    /// The call is over or has to be, or a request could not be read. A handler returns this status as it is.
    Ended(Status),
}

/// Why [`Replies::try_send`](super::Replies::try_send) has not sent a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrySendError {
    /// The caller has not yet taken what was sent before. The call goes on, and the reply is still the program's:
    /// it can be sent again later, or left out.
    Full,
    /// The call is over or has to be, or the reply cannot be encoded. A handler returns this status as it is.
    Ended(Status),
}

/// Why [`Replies::send_timeout`](super::Replies::send_timeout) has not sent a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendTimeoutError {
    /// The caller has not taken in time what was sent before. The call goes on, and the reply is still the program's:
    /// it can be sent again later, or left out.
    Timeout,
    /// The call is over or has to be, or the reply cannot be encoded. A handler returns this status as it is.
    Ended(Status),
}

impl fmt::Display for RecvTimeoutError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecvTimeoutError::Timeout => formatter.write_str(
                "no request has come in time; the call goes on, and the next request can be waited for again",
            ),
            RecvTimeoutError::Ended(status) => status.fmt(formatter),
        }
    }
}

impl fmt::Display for TrySendError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrySendError::Full => formatter.write_str(
                "the caller has not yet taken the reply before this one; \
                 send this one again later, or leave it out",
            ),
            TrySendError::Ended(status) => status.fmt(formatter),
        }
    }
}

impl fmt::Display for SendTimeoutError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendTimeoutError::Timeout => formatter.write_str(
                "the caller has not taken the reply before this one in time; \
                 send this one again later, or leave it out",
            ),
            SendTimeoutError::Ended(status) => status.fmt(formatter),
        }
    }
}

impl Error for RecvTimeoutError {}

impl Error for TrySendError {}

impl Error for SendTimeoutError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_them_knows_what_to_do_next() {
        let next_steps = [
            RecvTimeoutError::Timeout.to_string(),
            TrySendError::Full.to_string(),
            SendTimeoutError::Timeout.to_string(),
        ];
        for (text, next_step) in
            next_steps
                .iter()
                .zip(["waited for again", "again later", "again later"])
        {
            assert!(text.contains(next_step), "{text}");
        }
        let status = Status::cancelled("the caller left");
        let text = "CANCELLED: the caller left";
        assert_eq!(RecvTimeoutError::Ended(status.clone()).to_string(), text);
        assert_eq!(TrySendError::Ended(status.clone()).to_string(), text);
        assert_eq!(SendTimeoutError::Ended(status).to_string(), text);
    }
}
