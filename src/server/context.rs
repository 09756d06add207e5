//! What the server keeps with a call once somebody asks for it: its extensions and its tokens.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use crate::calls;
use crate::lifecycle::Token;

use super::extensions::Extensions;

/// Interceptors are still to be told how the call has ended.
const UNTOLD: u8 = 1;
/// The call has landed.
const LANDED: u8 = 1 << 1;

#[derive(Default)]
pub(super) struct Context {
    pub(super) extensions: Extensions,
    pub(super) token: OnceLock<Token>,
    pub(super) draining: OnceLock<Token>,
    state: AtomicU8,
    outlet: OnceLock<Weak<dyn Outlet>>,
    steps: OnceLock<Box<dyn Steps>>,
}

/// Who sends the messages of a call one after the other, and waits for none.
pub(super) trait Outlet: Send + Sync {
    /// The one before is on its way.
    fn sent(&self, core: &Arc<calls::Call>);
}

/// What a call does that goes on in steps.
pub(super) trait Steps: Send + Sync {
    /// The next one. Must not panic.
    fn step(&self, core: &Arc<calls::Call>);
}

/// From now on this is told of each message that is on its way. A call has one such at the most.
pub(super) fn set_outlet(core: &Arc<calls::Call>, outlet: Weak<dyn Outlet>) {
    let _ = of(core).outlet.set(outlet);
}

pub(super) fn outlet(core: &calls::Call) -> Option<Arc<dyn Outlet>> {
    let context: &Context = core.context().get()?.downcast_ref()?;
    context.outlet.get()?.upgrade()
}

/// The call goes on with these. It does so once at the most, and they must not keep it.
pub(super) fn set_steps(core: &Arc<calls::Call>, steps: Box<dyn Steps>) {
    let _ = of(core).steps.set(steps);
}

pub(super) fn steps(core: &calls::Call) -> Option<&dyn Steps> {
    let context: &Context = core.context().get()?.downcast_ref()?;
    context.steps.get().map(Box::as_ref)
}

/// A call's, made now if it is not there.
pub(super) fn of(core: &Arc<calls::Call>) -> &Context {
    let context = core.context().get_or_init(|| Box::new(Context::default()));
    context
        .downcast_ref()
        .expect("nobody else keeps anything with a call")
}

/// Interceptors are to be told of the end of a call that its handler may detach. Who holds what is detached tells them, which may
/// be long after the call has landed: its caller has left, or it was cut.
pub(super) fn keep_until_told(core: &Arc<calls::Call>) {
    // The call cannot land before its handler has returned, so nothing pairs with this.
    of(core).state.fetch_or(UNTOLD, Ordering::Relaxed);
}

/// They have been told. Who comes last, this or the landing, drops what was put there.
pub(super) fn told(core: &Arc<calls::Call>) {
    let context = of(core);
    // Pairs with `landed`: each sees what the other has done before.
    if context.state.fetch_and(!UNTOLD, Ordering::AcqRel) & LANDED != 0 {
        context.extensions.clear();
    }
}

/// The call is over: drops what its handler and others have put there, unless somebody is to be told yet. It may refer to
/// the call.
pub(super) fn landed(core: &calls::Call) {
    let context = core.context().get().and_then(|it| it.downcast_ref());
    if let Some(Context {
        extensions, state, ..
    }) = context
    {
        // Pairs with `told`.
        if state.fetch_or(LANDED, Ordering::AcqRel) & UNTOLD == 0 {
            extensions.clear();
        }
    }
}

/// As [`landed`], for a call of whose landing the server is not told.
pub(super) fn landed_if_uncounted(core: &calls::Call) {
    if core.is_prompt() {
        landed(core);
    }
}
