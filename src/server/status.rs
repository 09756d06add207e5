//! How a call ended.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $constructor:ident, $text:literal;)+) => {
        /// The status codes of gRPC, with the meanings that its specification gives them in
        /// [`statuscodes.md`](https://github.com/grpc/grpc/blob/master/doc/statuscodes.md).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i32)]
        pub enum Code {
            /// Not an error.
            Ok = 0,
            $($(#[doc = $doc])+ $name = $number,)+
        }

        impl Code {
            /// The code with this number; [`Code::Unknown`] if there is none.
            pub const fn from_number(number: i32) -> Code {
                match number {
                    0 => Code::Ok,
                    $($number => Code::$name,)+
                    _ => Code::Unknown,
                }
            }

            /// The name in the specification: `NOT_FOUND`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    Code::Ok => "OK",
                    $(Code::$name => $text,)+
                }
            }
        }

        impl Status {
            $($(#[doc = $doc])+ pub fn $constructor(message: impl Into<Cow<'static, str>>) -> Status {
                Status::new(Code::$name, message)
            })+
        }
    };
}

codes! {
    /// The call was cancelled, typically by the caller.
    Cancelled = 1, cancelled, "CANCELLED";
    /// An error that nothing more is known of.
    Unknown = 2, unknown, "UNKNOWN";
    /// An argument that is wrong whatever state the system is in.
    InvalidArgument = 3, invalid_argument, "INVALID_ARGUMENT";
    /// The deadline passed before the operation was complete.
    DeadlineExceeded = 4, deadline_exceeded, "DEADLINE_EXCEEDED";
    /// What was asked for does not exist.
    NotFound = 5, not_found, "NOT_FOUND";
    /// What was to be made exists already.
    AlreadyExists = 6, already_exists, "ALREADY_EXISTS";
    /// The caller is known, and may not do this.
    PermissionDenied = 7, permission_denied, "PERMISSION_DENIED";
    /// Something has run out: a quota, memory, or the server's backlog.
    ResourceExhausted = 8, resource_exhausted, "RESOURCE_EXHAUSTED";
    /// The system is not in the state that the operation needs, and retrying does not help.
    FailedPrecondition = 9, failed_precondition, "FAILED_PRECONDITION";
    /// The operation was aborted, typically by a conflict with another.
    Aborted = 10, aborted, "ABORTED";
    /// The operation reached past the end of something.
    OutOfRange = 11, out_of_range, "OUT_OF_RANGE";
    /// The method is not implemented here.
    Unimplemented = 12, unimplemented, "UNIMPLEMENTED";
    /// Something that must hold does not.
    Internal = 13, internal, "INTERNAL";
    /// The service cannot be had at the moment; retrying may help.
    Unavailable = 14, unavailable, "UNAVAILABLE";
    /// Data was lost or corrupted for good.
    DataLoss = 15, data_loss, "DATA_LOSS";
    /// The caller has not said who it is.
    Unauthenticated = 16, unauthenticated, "UNAUTHENTICATED";
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// How a call ended: a code, a message for people, and details for programs.
///
/// Handlers return it as the error of their `Result`, clients get it as theirs. A handler has it from other errors by
/// `?`, or by [`OrStatus`](super::OrStatus), and they stay with the server: what a caller is told is code, message and
/// details, and never the [cause](Self::cause).
///
/// ```
/// use touchdown::{Code, Status};
///
/// fn find(id: u32) -> Result<String, Status> {
///     Err(Status::not_found(format!("no sensor {id}")))
/// }
/// let status = find(7).unwrap_err();
/// assert_eq!(status.code(), Code::NotFound);
/// assert_eq!(status.to_string(), "NOT_FOUND: no sensor 7");
/// ```
#[derive(Clone)]
pub struct Status {
    code: Code,
    message: Cow<'static, str>,
    details: Vec<u8>,
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

impl Status {
    /// A status with this code and message.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Status {
        Status {
            code,
            message: message.into(),
            details: Vec::new(),
            cause: None,
        }
    }

    /// Success.
    pub const fn ok() -> Status {
        Status {
            code: Code::Ok,
            message: Cow::Borrowed(""),
            details: Vec::new(),
            cause: None,
        }
    }

    /// Adds details: by convention an encoded `google.rpc.Status`, which travels in the trailer
    /// `grpc-status-details-bin`. Size counts against the caller's limit for metadata, often 8 KiB.
    pub fn with_details(mut self, details: impl Into<Vec<u8>>) -> Status {
        self.details = details.into();
        self
    }

    /// Adds the error that has led to it. It is not sent. It is for an interceptor's
    /// [`around`](super::Interceptor::around), and for the server's log, which has it beside the status: at WARN if the
    /// code is UNKNOWN, INTERNAL, UNAVAILABLE or DATA_LOSS, ten lines a second at the most, and at DEBUG otherwise.
    pub fn with_cause(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Status {
        self.cause = Some(Arc::from(cause.into()));
        self
    }

    /// The error that has led to it, if it is known. A client gets none from the server.
    pub fn cause(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.cause.as_deref()
    }

    /// Whether the code is [`Code::Ok`].
    pub fn is_ok(&self) -> bool {
        self.code == Code::Ok
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The message for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The details for programs; empty if there are none.
    pub fn details(&self) -> &[u8] {
        &self.details
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.message.as_ref() {
            "" => write!(formatter, "{}", self.code),
            message => write!(formatter, "{}: {message}", self.code),
        }
    }
}

/// As [`Display`](fmt::Display), a sentence: it is what a `main` prints that returns a `Result<(), Status>`.
impl fmt::Debug for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)?;
        match self.details.len() {
            0 => Ok(()),
            length => write!(formatter, " (and {length} bytes of details)"),
        }
    }
}

/// What is sent is the same. Where it comes from does not count.
impl PartialEq for Status {
    fn eq(&self, other: &Status) -> bool {
        (self.code, &self.message, &self.details) == (other.code, &other.message, &other.details)
    }
}

impl Eq for Status {}

impl Error for Status {
    /// The [cause](Status::cause).
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|it| it as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_main_prints_is_a_sentence() {
        let status = Status::unavailable("no server at 127.0.0.1:50051");
        assert_eq!(
            format!("{status:?}"),
            "UNAVAILABLE: no server at 127.0.0.1:50051"
        );
        let status = Status::new(Code::Internal, "").with_details(*b"abc");
        assert_eq!(format!("{status:?}"), "INTERNAL (and 3 bytes of details)");
    }

    #[test]
    fn a_cause_makes_no_other_status_of_it() {
        let status = Status::internal("x");
        assert_eq!(status.clone().with_cause("y"), status);
        assert_ne!(status.clone().with_details(*b"y"), status);
        assert!(status.source().is_none());
        assert_eq!(status.with_cause("y").source().unwrap().to_string(), "y");
    }

    #[test]
    fn every_number_is_its_code_again_and_others_are_unknown() {
        for number in 0..=16 {
            assert_eq!(Code::from_number(number) as i32, number);
        }
        for number in [-1, 17, i32::MAX] {
            assert_eq!(Code::from_number(number), Code::Unknown);
        }
    }
}
