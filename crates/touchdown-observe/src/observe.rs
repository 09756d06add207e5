//! What hangs all parts on a server.

use std::error::Error;
use std::fmt;
#[cfg(feature = "metrics")]
use std::path::PathBuf;
use std::sync::{Arc, Weak};
#[cfg(feature = "metrics")]
use std::time::Duration;
use std::time::Instant;

use touchdown::lifecycle::{Check, Lifecycle, Participant};
use touchdown::{Companion, ServerBuilder, ServerHandle};

#[cfg(any(feature = "http", feature = "metrics"))]
use crate::checks::Checks;
use crate::checks::{Board, HealthCheck};
#[cfg(feature = "http")]
use crate::desk::Desk;
#[cfg(feature = "metrics")]
use crate::metrics::Metrics;

/// What is to be seen of a server: its checks, its HTTP door, its metrics.
///
/// ```no_run
/// use touchdown::Server;
/// use touchdown_observe::{HealthCheck, Observe, ObserveServer};
///
/// let database = HealthCheck::for_readiness("database", || Ok(()));
/// let report = Server::builder()
///     .address("0.0.0.0:50051")
///     .observe(Observe::at("127.0.0.1:9464").check(database))
///     .serve();
/// ```
#[must_use = "it is given to `ServerBuilder::observe`"]
pub struct Observe {
    #[cfg(feature = "http")]
    listen: Option<touchdown::Listen>,
    checks: Vec<HealthCheck>,
    #[cfg(feature = "metrics")]
    metrics: Metrics,
    #[cfg(all(feature = "http", feature = "metrics"))]
    last_scrape: Duration,
    #[cfg(feature = "metrics")]
    file: Option<(PathBuf, Duration)>,
}

/// What this crate adds to the builder of a server.
pub trait ObserveServer {
    /// Has the server be seen from outside: checks, the HTTP door, metrics.
    #[must_use]
    fn observe(self, observe: Observe) -> Self;

    /// Gives the server a log with a line for calls that failed, were slow, or are one in so many. It may have several, each
    /// with rules of its own.
    #[cfg(feature = "access-log")]
    #[must_use]
    fn access_log(self, access_log: crate::access_log::AccessLog) -> Self;

    /// Has calls traced. See [`otel`](crate::otel).
    ///
    /// The server does not start if a setting makes no sense
    /// ([`StartError::Setting`](touchdown::StartError::Setting)), or if the system has no thread left
    /// ([`StartError::Companion`](touchdown::StartError::Companion)).
    #[cfg(feature = "otel")]
    #[must_use]
    fn traces(self, traces: crate::otel::Traces) -> Self;

    /// Has the server tell its callers how it is called, beside what else it serves.
    #[cfg(feature = "reflection")]
    #[must_use]
    fn reflection(self, reflection: crate::reflection::Reflection) -> Self;

    /// Has every answer say how busy the server is.
    #[cfg(feature = "load-report")]
    #[must_use]
    fn load_report(self, report: crate::load_report::LoadReport) -> Self;
}

impl ObserveServer for ServerBuilder {
    fn observe(self, observe: Observe) -> Self {
        #[cfg(feature = "metrics")]
        let builder = self.observer(observe.metrics.observer());
        #[cfg(not(feature = "metrics"))]
        let builder = self;
        builder.companion(Begun::new(observe))
    }

    #[cfg(feature = "access-log")]
    fn access_log(self, access_log: crate::access_log::AccessLog) -> Self {
        access_log.apply(self)
    }

    #[cfg(feature = "otel")]
    fn traces(self, traces: crate::otel::Traces) -> Self {
        crate::otel::hang(self, traces)
    }

    #[cfg(feature = "reflection")]
    fn reflection(self, reflection: crate::reflection::Reflection) -> Self {
        reflection.apply(self)
    }

    #[cfg(feature = "load-report")]
    fn load_report(self, report: crate::load_report::LoadReport) -> Self {
        report.apply(self)
    }
}

impl Observe {
    /// Without an HTTP door: for checks alone, or a file with metrics.
    pub fn new() -> Observe {
        Observe {
            #[cfg(feature = "http")]
            listen: None,
            checks: Vec::new(),
            #[cfg(feature = "metrics")]
            metrics: Metrics::new(),
            #[cfg(all(feature = "http", feature = "metrics"))]
            last_scrape: Duration::ZERO,
            #[cfg(feature = "metrics")]
            file: None,
        }
    }

    /// With an HTTP door at this address: `127.0.0.1:9464`, or `unix:/run/greeter/observe.sock`. Whoever reaches it sees all
    /// there is to see, and can change nothing. So on an open network it listens at a private address.
    ///
    /// The door answers from the start-up hooks until the process ends, so a probe in a drain gets 503 and no refused
    /// connection. In a hot restart it is handed over, and the process in charge answers.
    #[cfg(feature = "http")]
    pub fn at(address: impl Into<String>) -> Observe {
        Observe::listen(touchdown::Listen::new(address))
    }

    /// As [`at`](Self::at), for a listener with settings, such as the mode of a unix socket.
    #[cfg(feature = "http")]
    pub fn listen(listen: touchdown::Listen) -> Observe {
        Observe {
            listen: Some(listen),
            ..Observe::new()
        }
    }

    /// Adds a check of a component.
    pub fn check(mut self, check: HealthCheck) -> Self {
        self.checks.push(check);
        self
    }

    /// Shows these metrics, among which a program has its own.
    #[cfg(feature = "metrics")]
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Has the end of the program wait for one more scrape of the metrics, with the counts of all calls, but no longer than
    /// this. It is a part of the plan's time for Closing, and must be shorter. A process that was replaced does not wait: it is the
    /// new one that is scraped.
    #[cfg(all(feature = "http", feature = "metrics"))]
    pub fn last_scrape(mut self, most: Duration) -> Self {
        self.last_scrape = most;
        self
    }

    /// Has the metrics written to this file every so often and at the end, for node_exporter's textfile collector. The name
    /// has to end with `.prom`. The file is replaced at once, so that nobody reads half of it. Each time the program
    /// wakes up and the disk is written: on a board, choose a folder in RAM.
    #[cfg(feature = "metrics")]
    pub fn file(mut self, path: impl Into<PathBuf>, every: Duration) -> Self {
        self.file = Some((path.into(), every));
        self
    }
}

impl Default for Observe {
    fn default() -> Observe {
        Observe::new()
    }
}

impl fmt::Debug for Observe {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Observe")
            .field("checks", &self.checks)
            .finish_non_exhaustive()
    }
}

/// What there is between the beginning of a server and its end.
struct Begun {
    observe: Option<Observe>,
    #[cfg(feature = "http")]
    desk: Option<Arc<Desk>>,
    board: Option<Arc<Board>>,
}

impl Begun {
    fn new(observe: Observe) -> Begun {
        Begun {
            observe: Some(observe),
            #[cfg(feature = "http")]
            desk: None,
            board: None,
        }
    }
}

impl Companion for Begun {
    fn begin(&mut self, lifecycle: &Lifecycle) -> Result<(), Box<dyn Error + Send + Sync>> {
        // Without a door and metrics there is nothing for it.
        let _ = lifecycle;
        let Some(observe) = &mut self.observe else {
            return Ok(());
        };
        let board = Arc::new(Board::new(
            std::mem::take(&mut observe.checks),
            Instant::now(),
        )?);
        self.board = Some(Arc::clone(&board));
        #[cfg(feature = "metrics")]
        {
            crate::file::validate(&observe.file)?;
            let metrics = observe.metrics.clone();
            lifecycle.observe(move |transition| metrics.enter(transition));
        }
        #[cfg(feature = "http")]
        {
            #[cfg(feature = "metrics")]
            crate::desk::validate(observe.last_scrape, lifecycle.plan())?;
            if let Some(listen) = observe.listen.take() {
                let desk = Desk::new(
                    lifecycle.remote(),
                    Checks(board),
                    #[cfg(feature = "metrics")]
                    observe.metrics.clone(),
                );
                desk.open(listen, lifecycle)?;
                self.desk = Some(desk);
            }
        }
        Ok(())
    }

    fn started(
        mut self: Box<Self>,
        server: &ServerHandle,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let (Some(board), Some(observe)) = (self.board.take(), self.observe.take()) else {
            return Ok(());
        };
        #[cfg(not(feature = "metrics"))]
        drop(observe);
        let lifecycle = server.lifecycle();
        let health = server.health().clone();
        let asked = Arc::downgrade(&board);
        health.require(move |service| is_ready(&asked, service));
        board.listen(move || health.changed());
        lifecycle.enlist(Arc::new(Part(Arc::clone(&board))))?;
        #[cfg(feature = "metrics")]
        {
            observe
                .metrics
                .begin(server, lifecycle.remote(), Some(Checks(Arc::clone(&board))));
            if let Some((path, every)) = observe.file {
                crate::file::keep(lifecycle, observe.metrics.clone(), path, every)?;
            }
        }
        #[cfg(feature = "http")]
        if let Some(desk) = self.desk.take() {
            desk.begin(server);
            #[cfg(feature = "metrics")]
            desk.wait_for_scrape(lifecycle, observe.last_scrape)?;
        }
        board.start()?;
        Ok(())
    }
}

impl Drop for Begun {
    /// The server does not start after all.
    fn drop(&mut self) {
        if let Some(board) = &self.board {
            board.end();
        }
        #[cfg(feature = "http")]
        if let Some(desk) = &self.desk {
            desk.close();
        }
    }
}

fn is_ready(board: &Weak<Board>, service: &str) -> bool {
    board.upgrade().is_none_or(|it| it.is_ready(service))
}

/// The checks, as the lifecycle knows them.
struct Part(Arc<Board>);

impl Participant for Part {
    fn name(&self) -> String {
        match &self.0.deadly()[..] {
            [] => "checks".to_owned(),
            down => format!("checks: {} down", down.join(", ")),
        }
    }

    fn running(&self) -> Vec<String> {
        Vec::new()
    }

    fn state(&self) -> Option<String> {
        let all = self.0.statuses();
        if all.is_empty() {
            return None;
        }
        let one = |it: &crate::CheckStatus| match &it.error {
            Some(error) => format!(
                "{} {} for {:.0?}: {error}",
                it.name,
                it.state.as_str(),
                it.since
            ),
            None => format!("{} {}", it.name, it.state.as_str()),
        };
        Some(all.iter().map(one).collect::<Vec<_>>().join(", "))
    }

    fn check(&self, check: Check) {
        if self.0.deadly().is_empty() {
            check.passed();
        }
    }

    fn close(&self, deadline: Instant) {
        self.0.end();
        let left = self.0.wait_idle(deadline);
        if !left.is_empty() {
            log::warn!("these checks have not returned: {}", left.join(", "));
        }
    }
}
