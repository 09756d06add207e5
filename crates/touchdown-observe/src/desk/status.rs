//! What the status page shows: gathered at the moment in which somebody looks.

use std::time::{Duration, Instant, SystemTime};

use touchdown::{Call, WeakServerHandle};

use super::Desk;
use crate::checks::{self, CheckStatus};
use crate::door::{Request, Response};
#[cfg(feature = "metrics")]
use crate::metrics::{MethodSums, Process, TimesSum, BOUNDS};
use crate::statusz::{render, Check, CheckState, Load, RunningCall, Snapshot, HTML, MOST_CALLS};
#[cfg(feature = "metrics")]
use crate::statusz::{Figures, Histogram, Method};

/// How often the page may be fetched again by itself, in seconds.
const REFRESH: std::ops::RangeInclusive<u32> = 1..=3600;

impl Desk {
    pub(super) fn status(&self, request: &Request<'_>) -> Response {
        let refresh = request.parameters("refresh").next();
        let refresh = refresh
            .and_then(|it| it.parse().ok())
            .filter(|it| REFRESH.contains(it));
        let server = self.server.lock().clone();
        let body = render(&self.snapshot(server.as_ref(), refresh)).into_bytes();
        Response {
            status: 200,
            content_type: HTML,
            body,
        }
    }

    fn snapshot(&self, server: Option<&WeakServerHandle>, refresh: Option<u32>) -> Snapshot {
        let points = self.ready_points();
        let not_ready = points.iter().filter(|it| !it.is_good && it.counts);
        let running = server.map(WeakServerHandle::running).unwrap_or_default();
        let deadline = self.remote.hard_deadline();
        Snapshot {
            program: program(),
            version: None,
            process: std::process::id(),
            now: None,
            uptime: self.began.elapsed(),
            refresh,
            links: LINKS.to_vec(),
            phase: self.remote.phase(),
            phase_for: Some(self.entered.lock().elapsed()),
            reason: self.remote.reason().map(|it| it.to_string()),
            deadline_in: deadline.map(|it| it.saturating_duration_since(Instant::now())),
            not_ready: not_ready
                .map(|it| format!("{}: {}", it.name, it.why))
                .collect(),
            in_flight: self.remote.in_flight(),
            load: server.and_then(WeakServerHandle::load).map(|load| Load {
                workers: load.workers,
                busy: load.busy,
                streams: load.streams,
                waiting: load.waiting,
                backlog: load.backlog,
            }),
            connections: server.and_then(WeakServerHandle::connections),
            calls: running.iter().take(MOST_CALLS).map(shown).collect(),
            checks: self.checks.statuses().into_iter().map(check).collect(),
            #[cfg(feature = "metrics")]
            methods: self.methods(&running),
            #[cfg(not(feature = "metrics"))]
            methods: Vec::new(),
            #[cfg(feature = "metrics")]
            queue_wait: histogram(&self.metrics.waited()),
            #[cfg(not(feature = "metrics"))]
            queue_wait: None,
            certificate_days: server.and_then(days_left),
            #[cfg(feature = "metrics")]
            figures: Some(figures()),
            #[cfg(not(feature = "metrics"))]
            figures: None,
            upgrades: Vec::new(),
            reports: Vec::new(),
        }
    }

    #[cfg(feature = "metrics")]
    fn methods(&self, running: &[(Call, Duration)]) -> Vec<Method> {
        let sums = self.metrics.by_method();
        let shown = sums
            .into_iter()
            .filter(|it| it.service != "other" || it.started > 0);
        let method = |it: MethodSums| {
            // The oldest are first.
            let is_its = |(call, _): &&(Call, Duration)| {
                call.service() == it.service && call.method_name() == it.name
            };
            let errors = it.errors().map(|(code, count)| (code.to_owned(), count));
            Method {
                service: it.service.to_owned(),
                name: it.name.to_owned(),
                kind: it.kind.to_owned(),
                started: it.started,
                in_flight: usize::try_from(it.in_flight()).unwrap_or(usize::MAX),
                oldest: running.iter().find(is_its).map(|it| it.1),
                errors: errors.collect(),
                latency: histogram(&it.times),
            }
        };
        shown.map(method).collect()
    }
}

#[cfg(feature = "metrics")]
const LINKS: [&str; 3] = ["readyz?verbose", "livez?verbose", "metrics"];
#[cfg(not(feature = "metrics"))]
const LINKS: [&str; 2] = ["readyz?verbose", "livez?verbose"];

/// The program's file, by its name.
fn program() -> String {
    let first = std::env::args_os().next().unwrap_or_default();
    let name = std::path::Path::new(&first).file_name();
    name.map_or_else(
        || "touchdown".to_owned(),
        |it| it.to_string_lossy().into_owned(),
    )
}

fn shown((call, age): &(Call, Duration)) -> RunningCall {
    RunningCall {
        method: call.method().to_owned(),
        peer: call.peer().to_string(),
        age: *age,
    }
}

fn check(status: CheckStatus) -> Check {
    let ago = |it: SystemTime| SystemTime::now().duration_since(it).unwrap_or_default();
    Check {
        counts_for: match status.services[..] {
            [] => status.counts_for.as_str().to_owned(),
            ref some => format!("{} of {}", status.counts_for.as_str(), some.join(", ")),
        },
        name: status.name,
        state: match status.state {
            checks::CheckState::Up => CheckState::Up,
            checks::CheckState::Down => CheckState::Down,
            checks::CheckState::Unknown => CheckState::Unknown,
        },
        since: Some(status.since),
        checked: status.last.map(ago),
        took: status.last.map(|_| status.took),
        hangs: status.hangs,
        message: status.error,
    }
}

#[cfg(feature = "tls")]
fn days_left(server: &WeakServerHandle) -> Option<i64> {
    let seconds = |it: Duration| i64::try_from(it.as_secs()).unwrap_or(i64::MAX);
    let left = match server
        .certificate_expires()?
        .duration_since(SystemTime::now())
    {
        Ok(left) => seconds(left),
        Err(error) => -seconds(error.duration()),
    };
    Some(left.div_euclid(86_400))
}

#[cfg(not(feature = "tls"))]
fn days_left(_: &WeakServerHandle) -> Option<i64> {
    None
}

#[cfg(feature = "metrics")]
fn histogram(times: &TimesSum) -> Option<Histogram> {
    let count: u64 = times.buckets.iter().sum();
    (count > 0).then(|| Histogram {
        bounds: BOUNDS.iter().map(|it| *it as f64 / 1e9).collect(),
        counts: times.buckets.to_vec(),
        sum: times.nanos as f64 / 1e9,
    })
}

#[cfg(feature = "metrics")]
fn figures() -> Figures {
    let process = Process::now();
    Figures {
        cpu: process
            .cpu_seconds
            .and_then(|it| Duration::try_from_secs_f64(it).ok()),
        resident: process.resident_bytes,
        descriptors: process.open_fds,
        most_descriptors: process.max_fds,
        threads: process.threads,
    }
}
