//! What callers of failed calls were told. An observer does not see it, so an interceptor leaves it with the call.

use touchdown::{Call, Interceptor, Status};

use super::lines::escape::escaped;

/// How many bytes of it a line has at the most.
const BYTES: usize = 512;

/// What the caller of a call was told.
pub(super) struct Message(pub(super) String);

pub(super) struct Messages;

impl Interceptor for Messages {
    fn after(&self, call: &Call, status: &Status) {
        if !status.is_ok() && !status.message().is_empty() {
            let message = Message(escaped(BYTES, status.message()));
            call.extensions().insert(message);
        }
    }
}
