//! Services: named methods and the functions behind them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use protobuf::Message as Protobuf;

use crate::calls::Message;

use super::call::Call;
use super::codec::{decode_seen, encode};
use super::interceptor::Interceptor;
use super::method_name::{MethodName, UnknownMethod};
use super::outcome::Outcome;
use super::status::Status;
use super::stream::{Replies, Requests};

/// Takes the call, its message if it came with one, and the limit in bytes for
/// decompressed messages.
type Run = Arc<dyn Fn(&Call, Option<Message>, usize) -> Outcome + Send + Sync>;

#[derive(Clone)]
pub(super) struct Method {
    pub(super) name: &'static str,
    pub(super) streaming_request: bool,
    pub(super) streaming_response: bool,
    /// Answered by the thread that polls, for the server itself: nothing of the program may run.
    pub(super) prompt: bool,
    pub(super) policy: DrainPolicy,
    pub(super) minimum: Duration,
    /// Those of the server first, once it has started.
    pub(super) interceptors: Arc<[Arc<dyn Interceptor>]>,
    pub(super) run: Run,
}

/// What becomes of a call that is in flight when the server begins to drain.
///
/// In any case its handler is told, if it asks: [`Call::draining`] fires, and
/// [`Call::time_remaining`] is no longer than the time that the call has. A call that is
/// cut gets UNAVAILABLE with the advice to retry (`grpc-retry-pushback-ms`), its
/// [`Call::token`] fires, and what its handler returns is dropped. The drain waits for the handler all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DrainPolicy {
    /// It has all of the grace period, and the force period after it has been told to stop. For
    /// calls that may have had an effect and must not be made twice, as far as anybody knows. This is what methods
    /// have that take one request, unless they have an `idempotency_level`.
    #[default]
    Finish,
    /// It is cut when half of the grace period is over, or whatever the server says
    /// ([`ServerBuilder::cut_early_after`](super::ServerBuilder::cut_early_after)), so that its
    /// caller's retry lands elsewhere in time. For calls that may be made twice: this is what generated
    /// code sets for methods with an `idempotency_level`.
    CutEarly,
    /// It is cut this long after the drain began, if that is before the end of the grace period.
    /// For streams that live for as long as both sides do, and have to say goodbye.
    Stream {
        /// The time to say goodbye.
        goodbye: Duration,
    },
    /// As `Finish`, unless it is idle: its handler has waited for a request for this long (or for half of the grace
    /// period, if that is shorter) since the drain began, and no message has come or gone meanwhile. Then it is told to
    /// stop: what the handler receives is the status UNAVAILABLE, and what the handler returns is the call's answer, as
    /// it is at the end of the grace period. For streams whose callers may have nothing to say for hours. This is what
    /// methods have that take a stream of requests, with [`DrainPolicy::IDLE`].
    ///
    /// If the last message of a stream both ways was the caller's, another thread may be at work on the reply, and the
    /// stream has half of the grace period. A method for which that is too short is better off with `Finish`. A large
    /// message that comes slowly is no silence, nor is a peer that has not acknowledged that the server goes away.
    FinishUnlessIdle {
        /// How long the stream may be idle.
        idle: Duration,
    },
}

impl DrainPolicy {
    /// How long a stream of requests may be idle in a drain if nothing else was set: 5 s, which is longer than what
    /// a radio link or a caller that thinks is silent for, and a sixth of the default grace period.
    pub const IDLE: Duration = Duration::from_secs(5);
}

/// A service to be served: what [`ServerBuilder::service`](super::ServerBuilder::service) takes.
///
/// Generated code makes these (`greeter_service(implementation)`); by hand it goes like this:
///
/// ```
/// use protobuf::well_known_types::wrappers::StringValue;
/// use touchdown::{Call, Service, Status};
///
/// let echo = Service::builder("demo.Echo")
///     .unary("Say", |_: &Call, request: StringValue| Ok::<_, Status>(request))
///     .build();
/// assert_eq!(echo.name(), "demo.Echo");
/// ```
///
/// A clone has the same handlers, and settings of its own: so two servers can serve the same, one
/// of them with an interceptor.
#[derive(Clone)]
pub struct Service {
    pub(super) name: &'static str,
    pub(super) methods: Vec<Method>,
    pub(super) interceptors: Vec<Arc<dyn Interceptor>>,
    /// A method that something was set for, and that is not there.
    pub(super) unknown: Option<UnknownMethod>,
}

impl Service {
    /// Begins a service with this full name: `package.Service`.
    pub fn builder(name: &'static str) -> ServiceBuilder {
        ServiceBuilder {
            service: Service {
                name,
                methods: Vec::new(),
                interceptors: Vec::new(),
                unknown: None,
            },
        }
    }

    /// The full name.
    pub fn name(&self) -> &str {
        self.name
    }

    /// Sets what becomes of calls of `method` when the server drains.
    ///
    /// Generated code has a constant for each method, such as `greeter_methods::SAY_HELLO`. For a service that is
    /// written by hand:
    ///
    /// ```
    /// # use protobuf::well_known_types::wrappers::StringValue;
    /// # use touchdown::{Call, Status};
    /// use touchdown::{DrainPolicy, MethodName, Service};
    ///
    /// const SAY: MethodName = MethodName::new("demo.Echo", "Say");
    ///
    /// # let service = Service::builder("demo.Echo")
    /// #     .unary("Say", |_: &Call, request: StringValue| Ok::<_, Status>(request))
    /// #     .build();
    /// let service = service.policy(SAY, DrainPolicy::CutEarly);
    /// ```
    ///
    /// If the service does not have the method, the server does not start, with
    /// [`StartError::UnknownMethod`](super::StartError::UnknownMethod).
    pub fn policy(self, method: MethodName, policy: DrainPolicy) -> Service {
        self.set(method, |it| it.policy = policy)
    }

    /// Sets how much time a call of `method` takes at the least. A call with less time left, be it
    /// because of its own deadline or because the server drains, is refused at once, and not begun
    /// and then broken off. Default: zero.
    ///
    /// If the service does not have the method, the server does not start, with
    /// [`StartError::UnknownMethod`](super::StartError::UnknownMethod).
    pub fn minimum_time(self, method: MethodName, time: Duration) -> Service {
        self.set(method, |it| it.minimum = time)
    }

    /// Adds an interceptor for the calls of this service. It runs inside those of the
    /// [server](super::ServerBuilder::interceptor), and after those that were added to the service before it.
    pub fn interceptor(mut self, interceptor: impl Interceptor) -> Service {
        self.interceptors.push(Arc::new(interceptor));
        self
    }

    fn set(mut self, method: MethodName, set: impl FnOnce(&mut Method)) -> Service {
        let is_own = method.service() == self.name;
        let found = self.methods.iter_mut().find(|it| it.name == method.name());
        match found.filter(|_| is_own) {
            Some(found) => set(found),
            None => {
                let names = self.methods.iter().map(|it| it.name);
                let unknown = UnknownMethod::new(method, self.name, names);
                self.unknown.get_or_insert(unknown);
            }
        }
        self
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let methods: Vec<_> = self.methods.iter().map(|it| it.name).collect();
        formatter
            .debug_struct("Service")
            .field("name", &self.name)
            .field("methods", &methods)
            .finish()
    }
}

/// Adds methods to a [`Service`].
#[must_use = "a builder does nothing until `build`"]
#[derive(Debug)]
pub struct ServiceBuilder {
    service: Service,
}

impl ServiceBuilder {
    /// One request, one reply.
    pub fn unary<Q, R, F>(self, name: &'static str, handler: F) -> ServiceBuilder
    where
        Q: Protobuf,
        R: Protobuf,
        F: Fn(&Call, Q) -> Result<R, Status> + Send + Sync + 'static,
    {
        self.method(name, false, false, move |call, message, limit| {
            reply(one(call, message, limit).and_then(|request| handler(call, request)))
        })
    }

    /// One request, a stream of replies.
    pub fn server_streaming<Q, R, F>(self, name: &'static str, handler: F) -> ServiceBuilder
    where
        Q: Protobuf,
        R: Protobuf,
        F: Fn(&Call, Q, Replies<R>) -> Result<(), Status> + Send + Sync + 'static,
    {
        self.method(name, false, true, move |call, message, limit| {
            let request = one(call, message, limit);
            let replies = Replies::new(call.core.clone());
            request
                .and_then(|request| handler(call, request, replies))
                .into()
        })
    }

    /// A stream of requests, one reply.
    pub fn client_streaming<Q, R, F>(self, name: &'static str, handler: F) -> ServiceBuilder
    where
        Q: Protobuf,
        R: Protobuf,
        F: Fn(&Call, Requests<Q>) -> Result<R, Status> + Send + Sync + 'static,
    {
        self.method(name, true, false, move |call, _, limit| {
            let result = handler(call, Requests::new(call.core.clone(), limit));
            match result {
                // What it has returned only has the right type.
                Ok(_) if call.core.is_stepped() => Outcome::Done,
                result => reply(result),
            }
        })
    }

    /// Streams both ways, independent of each other.
    pub fn bidirectional<Q, R, F>(self, name: &'static str, handler: F) -> ServiceBuilder
    where
        Q: Protobuf,
        R: Protobuf,
        F: Fn(&Call, Requests<Q>, Replies<R>) -> Result<(), Status> + Send + Sync + 'static,
    {
        self.method(name, true, true, move |call, _, limit| {
            let requests = Requests::new(call.core.clone(), limit);
            handler(call, requests, Replies::new(call.core.clone())).into()
        })
    }

    /// The service.
    pub fn build(self) -> Service {
        self.service
    }

    fn method(
        mut self,
        name: &'static str,
        streaming_request: bool,
        streaming_response: bool,
        run: impl Fn(&Call, Option<Message>, usize) -> Outcome + Send + Sync + 'static,
    ) -> ServiceBuilder {
        self.service.methods.push(Method {
            name,
            streaming_request,
            streaming_response,
            prompt: false,
            policy: match streaming_request {
                true => DrainPolicy::FinishUnlessIdle {
                    idle: DrainPolicy::IDLE,
                },
                false => DrainPolicy::Finish,
            },
            minimum: Duration::ZERO,
            interceptors: Arc::default(),
            run: Arc::new(run),
        });
        self
    }
}

fn one<Q: Protobuf>(call: &Call, message: Option<Message>, limit: usize) -> Result<Q, Status> {
    match message {
        Some(message) => {
            let look = message.look();
            call.core.note_compression(look.compression);
            decode_seen(&message, &look, limit)
        }
        None => Err(Status::internal("the request has no message")),
    }
}

fn reply<R: Protobuf>(result: Result<R, Status>) -> Outcome {
    match result.and_then(|reply| encode(&reply)) {
        Ok(bytes) => Outcome::Reply(bytes),
        Err(status) => Outcome::Failed(status),
    }
}
