//! Statuses of the errors that handlers meet: what their callers are told, and what they are not.

use std::borrow::Cow;
use std::error::Error;
use std::io::{self, ErrorKind};

use super::metadata::MetadataError;
use super::status::{Code, Status};
use crate::lifecycle::Stopping;

/// A [`Status`] for an error, or for something that is not there, in one word.
///
/// ```
/// use std::fs;
/// use touchdown::{Code, OrStatus, Status};
///
/// fn reading(sensor: &str) -> Result<f64, Status> {
///     let text = fs::read_to_string(format!("/nowhere/{sensor}"))
///         .or_status(Code::NotFound, format!("no sensor {sensor}"))?;
///     let line = text.lines().last().or_status(Code::DataLoss, "the sensor has said nothing")?;
///     line.parse().or_status(Code::DataLoss, "the sensor has said no number")
/// }
///
/// let status = reading("outdoors").unwrap_err();
/// // This is what the caller gets.
/// assert_eq!(status.to_string(), "NOT_FOUND: no sensor outdoors");
/// // And this stays here, for the log.
/// assert!(status.cause().unwrap().to_string().contains("No such file"));
/// ```
pub trait OrStatus<T> {
    /// The value, or a status with this code and message. An error becomes the [cause](Status::cause) of the status, of
    /// which the caller is told nothing.
    ///
    /// # Errors
    ///
    /// The status.
    fn or_status(self, code: Code, message: impl Into<Cow<'static, str>>) -> Result<T, Status>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> OrStatus<T> for Result<T, E> {
    fn or_status(self, code: Code, message: impl Into<Cow<'static, str>>) -> Result<T, Status> {
        self.map_err(|error| Status::new(code, message).with_cause(error))
    }
}

impl<T> OrStatus<T> for Option<T> {
    fn or_status(self, code: Code, message: impl Into<Cow<'static, str>>) -> Result<T, Status> {
        self.ok_or_else(|| Status::new(code, message))
    }
}

/// A failed input or output of the server's own, for the `?` of a handler.
///
/// The caller is told the code and, as the message, what the kind of the error is called. Paths, addresses and whatever
/// else the error says stay in its [cause](Status::cause).
///
/// | kind | code | why |
/// |---|---|---|
/// | `NotFound` | NOT_FOUND | |
/// | `AlreadyExists` | ALREADY_EXISTS | |
/// | `StorageFull`, `QuotaExceeded`, `FileTooLarge`, `OutOfMemory` | RESOURCE_EXHAUSTED | |
/// | `ConnectionRefused`, `ConnectionReset`, `ConnectionAborted`, `NotConnected`, `BrokenPipe`, `HostUnreachable`, `NetworkUnreachable`, `NetworkDown`, `ResourceBusy`, `WouldBlock`, `TimedOut` | UNAVAILABLE | what the server needs cannot be had at the moment. It is not the caller's deadline that has passed |
/// | `NotADirectory`, `IsADirectory`, `DirectoryNotEmpty`, `ReadOnlyFilesystem` | FAILED_PRECONDITION | |
/// | `Unsupported` | UNIMPLEMENTED | |
/// | all others | INTERNAL | `PermissionDenied` among them: it is the server that may not, and not the caller. And `InvalidInput`, `InvalidData`, `UnexpectedEof`: whose input it was, only the handler knows |
///
/// Where the handler knows better, it says so by [`OrStatus`].
impl From<io::Error> for Status {
    fn from(error: io::Error) -> Status {
        let kind = error.kind();
        Status::new(code_of(kind), kind.to_string()).with_cause(error)
    }
}

fn code_of(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::StorageFull
        | ErrorKind::QuotaExceeded
        | ErrorKind::FileTooLarge
        | ErrorKind::OutOfMemory => Code::ResourceExhausted,
        ErrorKind::ConnectionRefused
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::NotConnected
        | ErrorKind::BrokenPipe
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::NetworkDown
        | ErrorKind::ResourceBusy
        | ErrorKind::WouldBlock
        | ErrorKind::TimedOut => Code::Unavailable,
        ErrorKind::NotADirectory
        | ErrorKind::IsADirectory
        | ErrorKind::DirectoryNotEmpty
        | ErrorKind::ReadOnlyFilesystem => Code::FailedPrecondition,
        ErrorKind::Unsupported => Code::Unimplemented,
        _ => Code::Internal,
    }
}

/// An error that nothing is known of: INTERNAL, with "internal error" for the caller and all the rest as the
/// [cause](Status::cause). A `Status` in the box is itself, and an [`io::Error`] is as above.
impl From<Box<dyn Error + Send + Sync>> for Status {
    fn from(error: Box<dyn Error + Send + Sync>) -> Status {
        let error = match error.downcast::<Status>() {
            Ok(status) => return *status,
            Err(error) => error,
        };
        match error.downcast::<io::Error>() {
            Ok(error) => Status::from(*error),
            Err(error) => Status::internal("internal error").with_cause(error),
        }
    }
}

/// Something that was begun too late: UNAVAILABLE, for the caller to try elsewhere.
impl From<Stopping> for Status {
    fn from(_: Stopping) -> Status {
        Status::unavailable("the server is shutting down")
    }
}

/// A header or trailer of the handler's that cannot be sent: INTERNAL, since the caller has done nothing wrong.
impl From<MetadataError> for Status {
    fn from(error: MetadataError) -> Status {
        Status::internal("internal error").with_cause(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_is_told_of_an_io_error_what_its_kind_is_called() {
        let secret = "/etc/secret is not yours";
        for (kind, code, message) in [
            (ErrorKind::NotFound, Code::NotFound, "entity not found"),
            (
                ErrorKind::StorageFull,
                Code::ResourceExhausted,
                "no storage space",
            ),
            (ErrorKind::TimedOut, Code::Unavailable, "timed out"),
            (
                ErrorKind::PermissionDenied,
                Code::Internal,
                "permission denied",
            ),
            (ErrorKind::Other, Code::Internal, "other error"),
        ] {
            let status = Status::from(io::Error::new(kind, secret));
            assert_eq!((status.code(), status.message()), (code, message));
            assert_eq!(status.cause().unwrap().to_string(), secret);
            assert!(!format!("{status} {status:?}").contains(secret));
        }
    }

    #[test]
    fn a_box_is_opened_as_far_as_its_contents_are_known() {
        let boxed = |error: Box<dyn Error + Send + Sync>| Status::from(error);
        let known = Status::not_found("no sensor 7");
        assert_eq!(boxed(known.clone().into()), known);
        let refused = io::Error::from(ErrorKind::ConnectionRefused);
        assert_eq!(boxed(refused.into()).code(), Code::Unavailable);
        let other = boxed("the password is 1234".into());
        assert_eq!(other.to_string(), "INTERNAL: internal error");
        assert_eq!(other.cause().unwrap().to_string(), "the password is 1234");
    }

    #[test]
    fn nothing_there_has_no_cause() {
        let status = None::<u32>.or_status(Code::NotFound, "no row").unwrap_err();
        assert_eq!(status, Status::not_found("no row"));
        assert!(status.cause().is_none());
        assert_eq!(Some(7).or_status(Code::NotFound, "no row"), Ok(7));
    }
}
