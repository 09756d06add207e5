//! Metrics for Prometheus: what a server does, counted by method, and how the program stands.
//!
//! The families `grpc_server_*` are those of go-grpc-middleware, with its labels and spelling, since dashboards and rules are
//! written for them. What no convention has is `touchdown_*`. The page docs/metrics.md lists all of them.
//!
//! Labels come from the server's own table of methods and from lists in this crate, never from what callers send. Calls of
//! methods that do not exist are counted together, as `grpc_service="other",grpc_method="other"`.

mod collect;
mod encoder;
mod families;
mod names;
mod observer;
mod process;
mod shard;
mod shards;

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use touchdown::lifecycle::{Phase, Remote, Transition};
use touchdown::{CallObserver, ServedMethod, ServerHandle};

use self::collect::Source;
use self::names::{CONNECTION_REFUSALS, SENT_AWAY};
use self::shards::Shards;
use crate::Checks;

#[cfg(feature = "http")]
pub(crate) use self::process::Process;
pub(crate) use self::shard::TimesSum;
#[cfg(feature = "http")]
pub(crate) use self::shard::BOUNDS;

/// What the metrics are sent as.
#[cfg(feature = "http")]
pub(crate) const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
#[cfg(feature = "http")]
pub(crate) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of one server, and what else is registered here. Clones are the same.
///
/// [`Observe`](crate::Observe) makes them by itself. A program makes them to have metrics of its own in the same place:
///
/// ```
/// use prometheus_client::metrics::counter::Counter;
/// use touchdown_observe::{Metrics, Observe};
///
/// let readings: Counter = Counter::default();
/// let metrics = Metrics::new();
/// metrics.register(|registry| {
///     registry.register("meter_readings", "Readings of the meter", readings.clone());
/// });
/// let observe = Observe::at("127.0.0.1:9464").metrics(metrics);
/// # drop(observe);
/// ```
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

pub(crate) struct Inner {
    registry: Mutex<Registry>,
    shards: Arc<Shards>,
    methods: OnceLock<Vec<ServedMethod>>,
    connections: Connections,
    phases: Mutex<Phases>,
    /// Taken away when the program has stopped.
    source: Mutex<Option<Source>>,
}

/// Of connections: there are few, so all threads count in one place.
#[derive(Default)]
struct Connections {
    opened: AtomicU64,
    refused: [AtomicU64; CONNECTION_REFUSALS.len()],
    sent_away: [AtomicU64; SENT_AWAY.len()],
    handshakes_failed: AtomicU64,
}

/// When the phases were entered.
struct Phases {
    now: Phase,
    entered: SystemTime,
    drain_began: Option<std::time::Instant>,
    drained: Option<std::time::Duration>,
}

impl Metrics {
    /// Metrics of nothing yet.
    pub fn new() -> Metrics {
        let metrics = Metrics(Arc::new(Inner {
            registry: Mutex::default(),
            shards: Shards::new(),
            methods: OnceLock::new(),
            connections: Connections::default(),
            phases: Mutex::new(Phases {
                now: Phase::Starting,
                entered: SystemTime::now(),
                drain_began: None,
                drained: None,
            }),
            source: Mutex::new(None),
        }));
        let collector = collect::Collector(Arc::downgrade(&metrics.0));
        metrics
            .0
            .registry
            .lock()
            .register_collector(Box::new(collector));
        metrics
    }

    /// Gives access to the registry, to register metrics of the program's own. They are shown wherever these are.
    pub fn register<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(&mut self.0.registry.lock())
    }

    /// All metrics in Prometheus' text format, version 0.0.4: what a scrape gets.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let registry = self.0.registry.lock();
        // Only a metric of the program's own can fail.
        if prometheus_client::encoding::prometheus_text::encode(&mut text, &registry).is_err() {
            log::error!("metrics: a metric of the program's own cannot be encoded");
        }
        text
    }

    /// All metrics in OpenMetrics' text format, version 1.0.0.
    pub fn open_metrics(&self) -> String {
        let mut text = String::new();
        let registry = self.0.registry.lock();
        if prometheus_client::encoding::text::encode(&mut text, &registry).is_err() {
            log::error!("metrics: a metric of the program's own cannot be encoded");
        }
        text
    }

    /// What counts the calls, for `ServerBuilder::observer`. [`Observe`](crate::Observe) does that by itself.
    pub(crate) fn observer(&self) -> impl CallObserver {
        observer::Observer(Arc::clone(&self.0))
    }

    /// The server is there. Nothing was counted before.
    pub(crate) fn begin(&self, server: &ServerHandle, remote: Remote, checks: Option<Checks>) {
        let methods = server.methods().to_vec();
        self.0.shards.begin(methods.len());
        let _ = self.0.methods.set(methods);
        *self.0.source.lock() = Some(Source {
            server: server.downgrade(),
            remote,
            checks,
        });
    }

    /// The program is in another phase.
    pub(crate) fn enter(&self, transition: &Transition) {
        {
            let mut phases = self.0.phases.lock();
            phases.now = transition.to;
            phases.entered = SystemTime::now();
            match transition.to {
                Phase::Draining => phases.drain_began = Some(transition.at),
                Phase::Closing | Phase::Stopped if phases.drained.is_none() => {
                    let began = phases.drain_began;
                    phases.drained = began.map(|it| transition.at.saturating_duration_since(it));
                }
                _ => {}
            }
        }
        if transition.to == Phase::Stopped {
            let source = self.0.source.lock().take();
            drop(source);
        }
    }

    /// What each method has done, for a page.
    #[cfg(feature = "http")]
    pub(crate) fn by_method(&self) -> Vec<MethodSums> {
        self.0.by_method()
    }

    /// How long calls have waited for a worker.
    #[cfg(feature = "http")]
    pub(crate) fn waited(&self) -> TimesSum {
        self.0.common().waited
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// What one method has done, of all threads together.
#[derive(Clone, Debug, Default)]
pub(crate) struct MethodSums {
    pub(crate) service: &'static str,
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) started: u64,
    /// By the code's number.
    pub(crate) handled: [u64; names::CODES],
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) cut: u64,
    pub(crate) times: TimesSum,
}

impl MethodSums {
    /// How many have ended with each code other than OK.
    #[cfg(feature = "http")]
    pub(crate) fn errors(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let codes = self.handled.into_iter().enumerate().skip(1);
        codes
            .filter(|it| it.1 > 0)
            .map(|it| (names::code_name(it.0), it.1))
    }

    /// How many have begun and not ended.
    pub(crate) fn in_flight(&self) -> u64 {
        self.started.saturating_sub(self.handled.iter().sum())
    }
}
