//! How traces begin and end with a server.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use touchdown::lifecycle::{Hook, Lifecycle, Phase, Token};
use touchdown::{Companion, ServerBuilder, ServerHandle, StartError};

use super::collector::Collector;
use super::exporter::Exporter;
use super::queue::Queue;
use super::recorder::{Around, Recorder};
use super::roots;
use super::sampling::{Cap, Sampler};
use super::settings::{Checked, Traces};

/// How long the thread that sends has to notice that its request was ended.
const LAST_WORD: Duration = Duration::from_millis(200);

/// The thread that sends.
const THREAD: &str = "td-otel";

/// Hangs traces on a server.
pub(crate) fn hang(builder: ServerBuilder, traces: Traces) -> ServerBuilder {
    if !traces.is_enabled {
        let warnings = Warnings(traces.warnings);
        // What callers say of their traces is handed on all the same.
        return builder.interceptor(Around).companion(warnings);
    }
    let checked = match traces.checked() {
        Ok(checked) => checked,
        Err(error) => return builder.companion(Fails(Some(error))),
    };
    let sending = Sending::new(traces, checked);
    let builder = builder.observer(Arc::clone(&sending.recorder));
    builder.interceptor(Around).companion(sending)
}

/// Keeps the server from starting.
struct Fails(Option<StartError>);

impl Companion for Fails {
    fn begin(&mut self, _: &Lifecycle) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.0.take().map_or(Ok(()), |error| Err(error.into()))
    }
}

/// Says what is wrong with the environment.
struct Warnings(Vec<String>);

impl Companion for Warnings {
    fn begin(&mut self, _: &Lifecycle) -> Result<(), Box<dyn Error + Send + Sync>> {
        for warning in self.0.drain(..) {
            log::warn!("traces: {warning}");
        }
        Ok(())
    }
}

struct Sending {
    warnings: Warnings,
    recorder: Arc<Recorder>,
    queue: Arc<Queue>,
    collector: Arc<Collector>,
    exporter: Exporter,
    traces: Traces,
}

impl Sending {
    fn new(mut traces: Traces, checked: Checked) -> Sending {
        let Checked {
            url,
            headers,
            resource,
        } = checked;
        let sampler = Sampler::new(traces.share, traces.parent_based, traces.trust_parent);
        let queue = Arc::new(Queue::new(traces.limits));
        let cap = Cap::new(traces.cap);
        let counts = traces.counts();
        let recorder = Recorder::new(Arc::new(sampler), cap, Arc::clone(&queue), counts.clone());
        let collector = Arc::new(Collector::new(url, headers, traces.timeout));
        Sending {
            warnings: Warnings(std::mem::take(&mut traces.warnings)),
            recorder: Arc::new(recorder),
            exporter: Exporter::new(
                Arc::clone(&queue),
                Arc::clone(&collector),
                counts,
                resource,
                traces.export_limit,
            ),
            queue,
            collector,
            traces,
        }
    }
}

impl Companion for Sending {
    fn begin(&mut self, lifecycle: &Lifecycle) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.warnings.begin(lifecycle)?;
        // Of several servers of one program the first is found there.
        let _ = lifecycle.attach(Arc::new(self.traces.counts()));
        Ok(())
    }

    fn started(self: Box<Self>, server: &ServerHandle) -> Result<(), Box<dyn Error + Send + Sync>> {
        let Sending {
            recorder,
            queue,
            collector,
            exporter,
            traces,
            ..
        } = *self;
        let lifecycle = server.lifecycle();
        let thread = thread::Builder::new().name(THREAD.to_owned());
        let thread = thread.spawn(move || exporter.run());
        thread.map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("the thread {THREAD} cannot be started: {error}"),
            )
        })?;
        let end = End { queue, collector };
        let closing = lifecycle.plan().closing();
        let limit = traces.export_limit.min(closing / 2);
        let name = format!("send the spans of {}", server.address());
        let hook = Hook::with_token(name, move |token| {
            end.wait(limit, token);
            Ok(())
        });
        // Long enough for it to keep its own limit.
        lifecycle.hook(hook.time_limit(closing))?;
        let draining = Arc::clone(&recorder);
        lifecycle.observe(move |transition| {
            if transition.to == Phase::Draining {
                draining.drains(transition.at.elapsed());
            }
        });
        roots::begin(recorder.sampler());
        Ok(())
    }
}

/// Ends the thread that sends, at the latest as it is dropped.
struct End {
    queue: Arc<Queue>,
    collector: Arc<Collector>,
}

impl End {
    /// Waits until all spans are sent, and no longer than this. What is left then is dropped, and the collector is to
    /// blame, not the program: no hook has failed.
    fn wait(&self, limit: Duration, token: &Token) {
        let deadline = Instant::now() + limit;
        // Cancelled also if somebody hurries the stop.
        let done = token.child();
        self.queue.close(deadline, done.clone());
        done.wait_deadline(deadline);
        if !self.queue.over().is_cancelled() {
            self.collector.shut_down();
            self.queue.over().wait_timeout(LAST_WORD);
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if !self.queue.over().is_cancelled() {
            let over = self.queue.over().clone();
            self.queue.close(Instant::now(), over);
            self.collector.shut_down();
        }
    }
}
