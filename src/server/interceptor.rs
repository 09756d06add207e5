//! What is done around every call.

use super::call::Call;
use super::status::Status;

/// Something that is done around every call: authentication, counting, logging.
///
/// Not around those of the [health](crate::Health) checks that are built in.
///
/// Interceptors run on the worker that runs the handler, `before` in the order in which they were
/// added, `after` in reverse. One that refuses a call is the last to see it, and only those whose
/// `before` let it pass get to see its end.
///
/// ```
/// use touchdown::{Call, Interceptor, Status};
///
/// struct BearerToken(String);
///
/// impl Interceptor for BearerToken {
///     fn before(&self, call: &Call) -> Result<(), Status> {
///         let header = call.metadata().get("authorization");
///         match header.and_then(|it| it.strip_prefix("Bearer ")) {
///             Some(token) if token == self.0 => Ok(()),
///             Some(_) => Err(Status::permission_denied("this token is not valid here")),
///             None => Err(Status::unauthenticated("a bearer token is needed")),
///         }
///     }
/// }
/// ```
pub trait Interceptor: Send + Sync + 'static {
    /// Called before the handler.
    ///
    /// # Errors
    ///
    /// A [`Status`] ends the call at once; the handler does not run.
    fn before(&self, call: &Call) -> Result<(), Status> {
        let _ = call;
        Ok(())
    }

    /// Called when it is known how the call ends, and before the caller is told. Trailers can still
    /// be set. For a detached stream this is when it is finished, on the thread that does so. For a
    /// call that the server has ended before its handler did, such as one that was cut, this is
    /// afterwards, with the status that the caller got.
    fn after(&self, call: &Call, status: &Status) {
        let _ = (call, status);
    }
}
