//! Calls with which a trace begins that nobody records.
//!
//! Such a call gets its ids once somebody asks for them, so most need none.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::context::{TraceContext, RANDOM};
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

/// Does something with the sampler of a server that has traces, if there is one. Of two threads that do, the second sees what the
/// first has done.
pub(super) fn with_sampler<T>(work: impl FnOnce(&Sampler) -> T) -> Option<T> {
    let samplers = SAMPLERS.lock();
    let sampler = samplers.iter().find_map(Weak::upgrade)?;
    Some(work(&sampler))
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
