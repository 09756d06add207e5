//! A load report with each reply: clients send more to the servers that have more room.
//!
//! # When to use
//!
//! For servers that stand beside others like them, and whose clients balance by `weighted_round_robin`, which every
//! gRPC library of some size has
//! ([gRFC A58](https://github.com/grpc/proposal/blob/master/A58-client-side-weighted-round-robin-lb-policy.md)). To other
//! clients it is some 40 bytes that they do not look at.
//!
//! ```no_run
//! use touchdown::lifecycle::Report;
//! use touchdown::Server;
//! use touchdown_observe::load_report::LoadReport;
//! use touchdown_observe::ObserveServer;
//!
//! fn main() -> Report {
//!     Server::builder()
//!         .address("127.0.0.1:50051")
//!         .load_report(LoadReport::new())
//!         .serve()
//! }
//! ```
//!
//! # What is reported
//!
//! The trailer `endpoint-load-metrics-bin` of each call that was run, health checks left out, has an
//! [`OrcaLoadReport`](https://github.com/cncf/xds/blob/main/xds/data/orca/v3/orca_load_report.proto) with
//!
//! | field | what it is |
//! |---|---|
//! | `application_utilization` | how many calls there are for each worker: those that are worked on and those that wait for a worker. 0.5 is a server half of whose workers are busy; above 1.0 calls wait |
//! | `rps_fractional` | how many calls have ended, per second |
//! | `eps` | how many of them ended with a code that is the server's fault, per second: UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE or DATA_LOSS |
//!
//! All are averages over the last one to two seconds, since a client divides one by the other: `rps / utilization`
//! is how many calls per second the server would manage. A server's measure of one moment would not do for that. An idle
//! one that is called now and then would be busy whenever it measures, with that very call.
//!
//! The load of the processor is not reported: a client takes it only if there is nothing of the above.
//!
//! # What it costs
//!
//! A call takes two looks at the clock, three additions to counters that all workers share, and the trailer. The report is made
//! anew ten times a second at the most, by a call that ends. No thread is needed, and a server that is not called does
//! nothing.

mod meter;
mod report;
mod window;
mod work;

use std::error::Error;
use std::sync::Arc;

use touchdown::lifecycle::Phase;
use touchdown::{
    Call, CallKind, Code, Companion, Interceptor, ServerBuilder, ServerHandle, Status,
};

use self::meter::Meter;

/// The name of the trailer, by [gRFC A51](https://github.com/grpc/proposal/blob/master/A51-custom-backend-metrics.md).
const TRAILER: &str = "endpoint-load-metrics-bin";

/// What is reported: for [`ObserveServer::load_report`](crate::ObserveServer::load_report).
#[derive(Clone, Debug, Default)]
#[must_use = "give it to `ServerBuilder::load_report`"]
pub struct LoadReport(());

impl LoadReport {
    /// What the [module](self) says.
    pub fn new() -> LoadReport {
        LoadReport::default()
    }
}

impl LoadReport {
    /// Hangs it on a server.
    pub(crate) fn apply(self, builder: ServerBuilder) -> ServerBuilder {
        let meter = Arc::new(Meter::new());
        builder
            .interceptor(Reporter(Arc::clone(&meter)))
            .companion(Reader(meter))
    }
}

/// Measures calls, and reports.
struct Reporter(Arc<Meter>);

impl Interceptor for Reporter {
    fn before(&self, call: &Call) -> Result<(), Status> {
        if is_on_worker(call) {
            self.0.begin();
        }
        Ok(())
    }

    fn after(&self, call: &Call, status: &Status) {
        self.0.end(is_on_worker(call), is_fault(status.code()));
        // A call that has ended before its handler takes no trailer any more.
        let _ = call.set_trailer(TRAILER, self.0.report().encode());
    }
}

/// Whether the call has a worker from its beginning to its end. A stream may go on without one.
fn is_on_worker(call: &Call) -> bool {
    call.kind() == CallKind::Unary
}

/// Whether it is the server that has failed.
fn is_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// Has the meter look at the server while that takes calls.
struct Reader(Arc<Meter>);

impl Companion for Reader {
    fn started(self: Box<Self>, server: &ServerHandle) -> Result<(), Box<dyn Error + Send + Sync>> {
        let meter = self.0;
        meter.look_at(Some(server.downgrade()));
        // The server holds the meter, which must not hold the server for ever.
        server.lifecycle().observe(move |transition| {
            if transition.to >= Phase::Closing {
                meter.look_at(None);
            }
        });
        Ok(())
    }
}
