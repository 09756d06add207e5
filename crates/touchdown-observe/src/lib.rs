//! What is seen of a [`touchdown`] server from outside: checks, readiness, metrics, logs, traces, reflection.
//!
//! touchdown knows more of a call than others: how long it has waited, whether it was cut, in which phase the program is.
//! This crate shows it to those who ask: people, Kubernetes, Prometheus, a collector of traces. It hangs on touchdown's
//! public doors, and costs nothing that is not used.
//!
//! ```no_run
//! use touchdown::Server;
//! use touchdown_observe::{HealthCheck, Observe, ObserveServer};
//!
//! touchdown_observe::log::init();
//! let disk = HealthCheck::for_readiness("disk", || {
//!     std::fs::metadata("/var/lib/greeter")?;
//!     Ok(())
//! });
//! let report = Server::builder()
//!     .address("0.0.0.0:50051")
//!     .observe(Observe::at("127.0.0.1:9464").check(disk))
//!     .serve();
//! ```
//!
//! # Features
//!
//! | feature | what it gives | by default |
//! |---|---|---|
//! | | [`HealthCheck`]: components, for `grpc.health.v1`, the watchdog and whatever is below | yes |
//! | `http` | the HTTP door: `/livez`, `/readyz`, `/healthz`, `/startupz`, `/statusz` | yes |
//! | `metrics` | [`Metrics`] for Prometheus, at `/metrics` or in a file | yes |
//! | `log` | [`log::init`]: text for people, JSON, or the journal's form | yes |
//! | `access-log` | [`access_log`]: a line for calls that failed, were slow, or are one in so many | yes |
//! | `otel` | [`otel`]: traces, by OTLP over HTTP | |
//! | `reflection` | [`reflection`]: tools list and call services without their .proto files | |
//! | `load-report` | [`load_report`]: clients balance by the server's own measure | |
//! | `tls` | the day on which a certificate ends, in metrics | |

#![deny(missing_docs, unsafe_op_in_unsafe_fn)]

#[cfg(feature = "access-log")]
pub mod access_log;
pub mod checks;
#[cfg(feature = "http")]
mod desk;
#[cfg(feature = "http")]
mod door;
#[cfg(feature = "metrics")]
mod file;
#[cfg(feature = "load-report")]
pub mod load_report;
#[cfg(feature = "log")]
pub mod log;
#[cfg(feature = "metrics")]
pub mod metrics;
mod observe;
#[cfg(feature = "otel")]
pub mod otel;
#[cfg(feature = "reflection")]
pub mod reflection;
#[cfg(feature = "http")]
mod statusz;
mod text;

/// The examples of these pages are tests.
#[cfg(all(doctest, feature = "http", feature = "metrics"))]
mod pages {
    #[doc = include_str!("../../../docs/health.md")]
    struct Health;

    #[doc = include_str!("../../../docs/metrics.md")]
    struct Metrics;
}

pub use self::checks::{CheckState, CheckStatus, Checks, CountsFor, HealthCheck};
#[cfg(feature = "metrics")]
pub use self::metrics::Metrics;
pub use self::observe::{Observe, ObserveServer};
