//! What is done around every call.

use std::fmt;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;

use crate::logging;
use crate::thrown::message_of;

use super::call::Call;
use super::outcome::Outcome;
use super::status::Status;

/// Something that is done around every call of a [server](crate::ServerBuilder::interceptor) or of one
/// [service](crate::Service::interceptor): authentication, counting, logging.
///
/// Not around those of the [health](crate::Health) checks that are built in.
///
/// Interceptors run on the worker that runs the handler, those of the server before those of the service, each in
/// the order in which they were added: first every [`before`](Self::before); then every [`around`](Self::around),
/// the first outermost, with the handler inside; then every [`after`](Self::after), in reverse. One whose `before`
/// refuses a call is the last to see it, and only those whose `before` let it pass get to see its end.
///
/// A caller of whom it is not known who it is gets UNAUTHENTICATED, also for a token that is not valid; one that is known and
/// may not do this gets PERMISSION_DENIED (gRPC's
/// [status codes](https://github.com/grpc/grpc/blob/master/doc/statuscodes.md)).
///
/// A panic is caught. In `before` or `around` it ends the call with `INTERNAL`, as does an error whose code is
/// [`Ok`](super::Code::Ok); in `after` it changes nothing.
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
///             Some(_) => Err(Status::unauthenticated("this token is not valid here")),
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

    /// Called in the place of what it wraps, which is run by [`Next::run`]: for what has to be held while the handler
    /// runs (a span, a permit, a lock), and for what changes how the call ends. If it does not run the rest, no
    /// handler sees the call.
    ///
    /// For a detached stream this ends when the handler has returned; the call goes on.
    ///
    /// ```
    /// use touchdown::{Answer, Call, Interceptor, Next, Status};
    ///
    /// /// One call at a time has the printer.
    /// struct Printer(std::sync::Mutex<()>);
    ///
    /// impl Interceptor for Printer {
    ///     fn around(&self, _: &Call, next: Next<'_>) -> Result<Answer, Status> {
    ///         let Ok(_printer) = self.0.try_lock() else {
    ///             return Err(Status::unavailable("somebody prints"));
    ///         };
    ///         next.run()
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// A [`Status`] is how the call ends, whatever the handler has said.
    fn around(&self, call: &Call, next: Next<'_>) -> Result<Answer, Status> {
        let _ = call;
        next.run()
    }

    /// Called when it is known how the call ends, and before the caller is told. Trailers can still
    /// be set. For a detached stream this is when it is finished, on the thread that does so. For a
    /// call that the server has ended before its handler did, such as one that was cut, this is
    /// afterwards, with the status that the caller got.
    fn after(&self, call: &Call, status: &Status) {
        let _ = (call, status);
    }
}

/// The interceptors of a method, and what is inside them: see [`Interceptor::around`].
#[must_use = "the handler does not run until `run`"]
pub struct Next<'a> {
    call: &'a Call,
    rest: &'a [Arc<dyn Interceptor>],
    handler: &'a mut dyn FnMut() -> Outcome,
}

impl<'a> Next<'a> {
    /// All of them. The handler will be run once at the most.
    pub(super) fn new(
        call: &'a Call,
        interceptors: &'a [Arc<dyn Interceptor>],
        handler: &'a mut dyn FnMut() -> Outcome,
    ) -> Next<'a> {
        let rest = interceptors;
        Next {
            call,
            rest,
            handler,
        }
    }

    /// Runs the next interceptor, or the handler.
    ///
    /// # Errors
    ///
    /// With what the handler, or an interceptor, has failed.
    pub fn run(self) -> Result<Answer, Status> {
        let Some((first, rest)) = self.rest.split_first() else {
            return match (self.handler)() {
                Outcome::Failed(status) => Err(status),
                outcome => Ok(Answer(outcome)),
            };
        };
        first.around(self.call, Next { rest, ..self })
    }
}

impl fmt::Debug for Next<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Next")
            .field("call", self.call)
            .finish_non_exhaustive()
    }
}

/// What a handler has returned that has not failed. It is for [`Interceptor::around`] to return.
pub struct Answer(pub(super) Outcome);

impl fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Answer").finish_non_exhaustive()
    }
}

/// Runs an interceptor. A panic is how it fails.
pub(super) fn run_interceptor<T>(
    call: &Call,
    run: impl FnOnce() -> Result<T, Status>,
) -> Result<T, Status> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|status| failure(call, "an interceptor", status)),
        Err(panic) => Err(panicked(call, "an interceptor", message_of(panic))),
    }
}

pub(super) fn panicked(call: &Call, who: &str, text: impl fmt::Display) -> Status {
    logging::error!("{}: {who} panicked: {text}", call.method());
    Status::internal(format!("{who} panicked"))
}

/// A status that somebody has failed with. `Err(Status::ok())` says two things at once: a caller would take what
/// failed for complete, or get an OK without a message, which some clients do not survive.
pub(super) fn failure(call: &Call, who: &str, status: Status) -> Status {
    if !status.is_ok() {
        return status;
    }
    logging::error!("{}: {who} failed with the status OK", call.method());
    Status::internal(format!("{who} failed with the status OK"))
}
