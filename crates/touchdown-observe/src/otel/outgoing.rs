//! Calls that a handler makes.

use touchdown::client::{Next, Outgoing};
use touchdown::Status;

use super::context::TraceContext;

/// Lets the calls of a client go on with the trace of the call whose handler makes them: for
/// [`Client::around`](touchdown::client::Client::around).
///
/// ```
/// use touchdown::client::{Channel, Client};
/// use touchdown_observe::otel::traced;
///
/// # fn with(channel: &Channel) {
/// let client = Client::new(channel).around(traced);
/// // With a generated stub: GreeterClient::from(client)
/// # }
/// ```
///
/// It finds the call by the thread, see [`TraceContext::current`]. On others it does nothing. A call that has a
/// `traceparent` already keeps it.
///
/// # Errors
///
/// Those of the call.
pub fn traced(call: &Outgoing<'_>, next: &mut Next<'_>) -> Result<(), Status> {
    let is_traced = TraceContext::is_in(call.metadata());
    let context = if is_traced {
        None
    } else {
        TraceContext::current()
    };
    let Some(context) = context else {
        return next.run(call.options());
    };
    let mut metadata = call.metadata().clone();
    context.inject(&mut metadata);
    next.run(&call.options().clone().metadata(metadata))
}
