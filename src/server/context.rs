//! What the server keeps with a call once somebody asks for it: its extensions and its tokens.

use std::sync::{Arc, OnceLock, Weak};

use crate::calls;
use crate::lifecycle::Token;

use super::extensions::Extensions;

#[derive(Default)]
pub(super) struct Context {
    pub(super) extensions: Extensions,
    pub(super) token: OnceLock<Token>,
    pub(super) draining: OnceLock<Token>,
    outlet: OnceLock<Weak<dyn Outlet>>,
}

/// Who sends the messages of a call one after the other, and waits for none.
pub(super) trait Outlet: Send + Sync {
    /// The one before is on its way.
    fn sent(&self);
}

/// From now on this is told of each message that is on its way. A call has one such at the most.
pub(super) fn set_outlet(core: &Arc<calls::Call>, outlet: Weak<dyn Outlet>) {
    let _ = of(core).outlet.set(outlet);
}

pub(super) fn outlet(core: &calls::Call) -> Option<Arc<dyn Outlet>> {
    let context: &Context = core.context().get()?.downcast_ref()?;
    context.outlet.get()?.upgrade()
}

/// A call's, made now if it is not there.
pub(super) fn of(core: &Arc<calls::Call>) -> &Context {
    let context = core.context().get_or_init(|| Box::new(Context::default()));
    context
        .downcast_ref()
        .expect("nobody else keeps anything with a call")
}

/// The call is over: drops what its handler and others have put there. They may refer to the call.
pub(super) fn clear(core: &calls::Call) {
    let context = core.context().get().and_then(|it| it.downcast_ref());
    if let Some(Context { extensions, .. }) = context {
        extensions.clear();
    }
}

/// As [`clear`], for a call of whose landing the server is not told.
pub(super) fn clear_if_uncounted(core: &calls::Call) {
    if core.is_prompt() {
        clear(core);
    }
}
