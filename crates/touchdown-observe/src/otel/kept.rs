//! What a call keeps of its trace, and which call a thread is at work on.

use std::cell::Cell;
use std::sync::Arc;

use touchdown::Call;

use super::context::{Caller, TraceContext};
use super::recording::Recording;
use super::roots;

/// What a call keeps of its trace, where that is not what its caller has sent.
pub(super) struct Kept {
    pub(super) context: Arc<TraceContext>,
    /// If it is recorded.
    pub(super) recording: Option<Recording>,
}

impl TraceContext {
    /// That of a call. It is the same each time, on every thread, until the call has ended.
    ///
    /// `None` if the program has no [`Traces`](super::Traces), and the caller has sent no trace. In a program that has
    /// them, every call has one.
    pub fn of(call: &Call) -> Option<Arc<TraceContext>> {
        if let Some(kept) = call.extensions().get::<Kept>() {
            return Some(Arc::clone(&kept.context));
        }
        match Caller::of(call) {
            Some(caller) => Some(Arc::new(caller.context(call))),
            None => unsampled_of(call),
        }
    }

    /// That of the call whose handler runs on this thread; `None` if none does, or its server has no
    /// [`Traces`](super::Traces). [`within`](super::within) makes another thread one of them.
    pub fn current() -> Option<Arc<TraceContext>> {
        TraceContext::of(&current_call()?)
    }
}

/// The context of a call that is not recorded, and whose caller is in no trace. `None` if the program has no traces.
fn unsampled_of(call: &Call) -> Option<Arc<TraceContext>> {
    roots::with_sampler(|sampler| {
        if let Some(kept) = call.extensions().get::<Kept>() {
            return Arc::clone(&kept.context);
        }
        let context = roots::unsampled(sampler);
        call.extensions().insert(Kept {
            context: Arc::clone(&context),
            recording: None,
        });
        context
    })
}

thread_local! {
    /// The call whose handler runs on this thread.
    static CURRENT: Cell<Option<Call>> = const { Cell::new(None) };
}

fn current_call() -> Option<Call> {
    let look = |current: &Cell<Option<Call>>| {
        let call = current.take();
        let copy = call.clone();
        current.set(call);
        copy
    };
    // A thread that ends has dropped it already.
    CURRENT.try_with(look).ok().flatten()
}

/// Runs something as a part of this call: [`TraceContext::current`] is the call's in there. For threads on which no
/// handler runs, such as those that a handler starts.
///
/// ```
/// use std::thread;
/// use touchdown::{Call, Status};
/// use touchdown_observe::otel::{within, TraceContext};
///
/// fn handler(call: &Call) -> Result<(), Status> {
///     thread::scope(|scope| {
///         scope.spawn(|| within(call, || assert_eq!(TraceContext::current(), TraceContext::of(call))));
///     });
///     Ok(())
/// }
/// # let _ = handler;
/// ```
pub fn within<T>(call: &Call, work: impl FnOnce() -> T) -> T {
    /// Puts back what was there, also if the work panics.
    struct Before(Option<Call>);

    impl Drop for Before {
        fn drop(&mut self) {
            let before = self.0.take();
            let _ = CURRENT.try_with(|it| it.replace(before));
        }
    }

    let before = CURRENT.try_with(|it| it.replace(Some(call.clone())));
    let _before = Before(before.ok().flatten());
    work()
}
