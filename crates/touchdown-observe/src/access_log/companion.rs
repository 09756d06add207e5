//! Begins and ends with the server: the thread that writes, and the hook that waits for it.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use touchdown::lifecycle::Hook;
use touchdown::{Companion, ServerHandle};

use super::output::Output;
use super::queue::Queue;
use super::sample::Sampler;

/// How long a program waits as it closes, at the most: less than a hook may take if nothing else is set
/// ([`Hook::DEFAULT_TIME_LIMIT`]).
const CLOSING: Duration = Duration::from_secs(4);

/// Loggers format on it; a half of Rust's default would do as well, but this is what there is room for on a small machine.
const STACK: usize = 256 << 10;

pub(super) struct Logs {
    pub(super) queue: Arc<Queue>,
    pub(super) sampler: Arc<Sampler>,
    pub(super) output: Output,
}

/// Whatever ends the thread, nobody waits for it any more.
struct Over(Arc<Queue>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.over();
    }
}

impl Companion for Logs {
    fn started(self: Box<Self>, server: &ServerHandle) -> Result<(), Box<dyn Error + Send + Sync>> {
        let Logs {
            queue,
            sampler,
            output,
        } = *self;
        if let Err(method) = sampler.learn(server.methods()) {
            return Err(format!(
                "the access log has a rate for {method}, which the server does not have: correct the name, or take it out"
            )
            .into());
        }
        // Of several logs the first is found there, by the metrics.
        let _ = server.lifecycle().attach(Arc::new(queue.counts()));
        let over = Over(Arc::clone(&queue));
        let written = Arc::clone(&queue);
        let write = move || {
            let _over = over;
            output.run(&written);
        };
        let thread = thread::Builder::new().name("td-access-log".to_owned());
        let spawned = thread.stack_size(STACK).spawn(write);
        spawned.map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("no thread for the access log: {error}"),
            )
        })?;
        let time = CLOSING.min(server.lifecycle().plan().closing() / 2);
        let name = format!("access log of {}", server.address());
        let closed = Arc::clone(&queue);
        let hook = Hook::with_token(name, move |token| {
            // What it cannot write is counted. That is no reason to exit with another code.
            closed.close(time, || token.is_cancelled());
            Ok(())
        });
        let hung = server.lifecycle().hook(hook);
        if let Err(refused) = hung {
            queue.over();
            return Err(refused.into());
        }
        Ok(())
    }
}
