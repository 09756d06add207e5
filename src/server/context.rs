//! What the server keeps with a call once somebody asks for it: its extensions and its tokens.

use std::sync::{Arc, OnceLock};

use crate::calls;
use crate::lifecycle::Token;

use super::extensions::Extensions;

#[derive(Default)]
pub(super) struct Context {
    pub(super) extensions: Extensions,
    pub(super) token: OnceLock<Token>,
    pub(super) draining: OnceLock<Token>,
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
