//! Calls with which a trace begins that nobody records.
//!
//! Such a call gets its ids once somebody asks for them, so most need none.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use touchdown::Call;

use super::context::{Kept, TraceContext, RANDOM};
use super::ids::{SpanId, TraceId};
use super::sampling::Sampler;

/// How the servers of this program sample that have traces.
static SAMPLERS: Mutex<Vec<Weak<Sampler>>> = Mutex::new(Vec::new());

/// From now on, and as long as this is there, calls get ids.
pub(super) fn begin(sampler: &Arc<Sampler>) {
    let mut samplers = SAMPLERS.lock();
    samplers.retain(|it| it.strong_count() > 0);
    samplers.push(Arc::downgrade(sampler));
}

/// The context of a call that is not recorded, and whose caller is in no trace. `None` if the program has no traces.
pub(super) fn unsampled_of(call: &Call) -> Option<Arc<TraceContext>> {
    // Held to the end: of two threads that ask, the second gets what the first has made.
    let samplers = SAMPLERS.lock();
    let sampler = samplers.iter().find_map(Weak::upgrade)?;
    if let Some(kept) = call.extensions().get::<Kept>() {
        return Some(Arc::clone(&kept.context));
    }
    let context = unsampled(&sampler);
    call.extensions().insert(Kept {
        context: Arc::clone(&context),
        recording: None,
    });
    Some(context)
}

/// A trace of its own, which is not recorded: whoever decides by the id decides the same.
pub(super) fn unsampled(sampler: &Sampler) -> Arc<TraceContext> {
    let trace = TraceId::random_with(sampler.unsampled_randomness());
    Arc::new(TraceContext::new(
        trace,
        SpanId::random(),
        RANDOM,
        Box::default(),
    ))
}
