//! Traces: a span for some calls, sent to an OpenTelemetry collector, and the trace of each call handed on.
//!
//! # When to use
//!
//! To follow one request through several services, and to see where its time goes. Figures over all calls are the
//! matter of metrics: a trace is one call of many.
//!
//! ```no_run
//! use touchdown::Server;
//! use touchdown_observe::otel::Traces;
//! use touchdown_observe::ObserveServer;
//!
//! // Where to, and how much of it, is said by OTEL_EXPORTER_OTLP_ENDPOINT and the like.
//! let traces = Traces::from_env().service_name("greeter");
//! let report = Server::builder().address("0.0.0.0:50051").traces(traces).serve();
//! ```
//!
//! # What is recorded
//!
//! A span for each call that is chosen: by who began the trace, else one in ten, and no more than 100 in a second. It
//! has what OpenTelemetry's conventions for RPC want in their version 1.45, in which they are stable, and these
//! events:
//!
//! | event | when |
//! |---|---|
//! | `touchdown.queue_wait` | the handler begins after the call has waited; `touchdown.queue_wait.duration` says for how long, in seconds |
//! | `touchdown.draining` | the server began to drain while the call was there |
//! | `touchdown.cut`, `…caller_left`, `…undelivered`, `…told_to_stop`, `…abandoned` | the call ended like that ([`CallOutcome`](touchdown::CallOutcome)) |
//! | `touchdown.refused` | no handler has seen it; `touchdown.refusal.reason` says why |
//!
//! Health checks have no spans.
//!
//! # The trace of a call
//!
//! Comes in and goes out by W3C's `traceparent` and `tracestate`. [`TraceContext`] is what a handler gets of it, by
//! [`TraceContext::of`] or [`CallTrace::trace_context`]. [`traced`] hands it on in the calls that the handler makes.
//!
//! # What it costs
//!
//! A call that is not recorded looks for one entry in its metadata. One that is takes some allocations, and its span
//! waits in a queue that has a limit. It is sent by a thread of its own, `td-otel`, over HTTP and without a runtime.
//! Nobody waits for it. A collector that is away, slow, or refuses costs [counted](SpanCounts) spans, and a line in
//! the log once a minute. Without spans nothing wakes up.
//!
//! # The end
//!
//! In Closing what is there is sent, within half the plan's time for it. A collector that fails at that is not asked
//! again, and no hook fails because of it.
//!
//! # Limits
//!
//! - OTLP over HTTP with protobuf. No gRPC, no JSON, no compression, and no TLS: for that, a collector on the same
//!   machine.
//! - Spans of the server's side only.
//! - `server.address` is left out: a server of touchdown does not know by which name it was called.
//! - No headers of Zipkin (b3), Jaeger or OpenCensus (`grpc-trace-bin`), and no baggage: `OTEL_PROPAGATORS` is not
//!   read.
//! - A program with several servers has a thread and a queue for each that has traces.

mod collector;
mod companion;
mod context;
#[cfg(test)]
mod cost;
mod counts;
mod encode;
mod environment;
mod exporter;
mod ids;
mod kept;
mod outgoing;
mod queue;
mod recorder;
mod recording;
mod roots;
mod sampling;
mod settings;
mod span;
mod state;

use std::sync::Arc;

use touchdown::Call;

pub(crate) use self::companion::hang;

pub use self::context::TraceContext;
pub use self::counts::SpanCounts;
pub use self::ids::{SpanId, TraceId};
pub use self::kept::within;
pub use self::outgoing::traced;
pub use self::settings::Traces;

/// Its examples are tests.
#[cfg(doctest)]
#[doc = include_str!("../../../../docs/traces.md")]
struct Page;

/// Gives a call its trace.
pub trait CallTrace {
    /// [`TraceContext::of`] this call.
    fn trace_context(&self) -> Option<Arc<TraceContext>>;
}

impl CallTrace for Call {
    fn trace_context(&self) -> Option<Arc<TraceContext>> {
        TraceContext::of(self)
    }
}
