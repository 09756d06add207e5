//! What the HTTP door answers: which path is whose.

mod answer;
mod status;

use std::error::Error;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

#[cfg(feature = "metrics")]
use parking_lot::Condvar;
use parking_lot::Mutex;
use touchdown::acceptor::Acceptor;
#[cfg(feature = "metrics")]
use touchdown::lifecycle::{Hook, Plan, Reason};
use touchdown::lifecycle::{Lifecycle, Phase, Remote};
use touchdown::{Listen, ServerHandle, ServingStatus, WeakServerHandle};

use self::answer::{Point, Verdict};
use crate::checks::{CheckState, Checks, CountsFor};
use crate::door::{self, Request, Response};
#[cfg(feature = "metrics")]
use crate::metrics::{Metrics, OPEN_METRICS, TEXT};

/// How long the program may take to answer whether it lives, and for how long its answer is believed: so a flood of
/// questions is one question.
const LIVE: Duration = Duration::from_secs(1);

/// What is known to who answers.
pub(crate) struct Desk {
    remote: Remote,
    checks: Checks,
    #[cfg(feature = "metrics")]
    metrics: Metrics,
    /// Once it listens, until the program has stopped.
    server: Mutex<Option<WeakServerHandle>>,
    /// When it was last asked whether the program lives, and who did not answer.
    live: Mutex<Option<(Instant, Result<(), String>)>>,
    acceptor: Mutex<Option<Arc<Acceptor>>>,
    began: Instant,
    /// When the phase was entered.
    entered: Mutex<Instant>,
    /// How many scrapes have begun, for who waits for one.
    #[cfg(feature = "metrics")]
    scrapes: (Mutex<u64>, Condvar),
}

/// How long the end of the program waits for answers that are on their way.
const LAST_ANSWERS: Duration = Duration::from_millis(250);

/// What the paths begin with that are shown at `/`.
const PATHS: &str = "\
/livez      200 as long as the program works, 503 if a supervisor should restart it
/readyz     200 if it wants calls, 503 if they had better go elsewhere
/healthz    as /readyz
/startupz   200 once it has started
            ?verbose says why; Accept: application/json, too; /readyz/NAME is one check
            /readyz?service=NAME is one service, as grpc.health.v1 answers
/metrics    for Prometheus
/statusz    for people
";

impl Desk {
    pub(crate) fn new(
        remote: Remote,
        checks: Checks,
        #[cfg(feature = "metrics")] metrics: Metrics,
    ) -> Arc<Desk> {
        Arc::new(Desk {
            remote,
            checks,
            #[cfg(feature = "metrics")]
            metrics,
            server: Mutex::new(None),
            live: Mutex::new(None),
            acceptor: Mutex::new(None),
            began: Instant::now(),
            entered: Mutex::new(Instant::now()),
            #[cfg(feature = "metrics")]
            scrapes: (Mutex::new(0), Condvar::new()),
        })
    }

    /// Listens, and answers from now on.
    pub(crate) fn open(
        self: &Arc<Self>,
        listen: Listen,
        lifecycle: &Lifecycle,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let acceptor = Arc::new(listen.bind_beside(lifecycle)?);
        let desk = Arc::clone(self);
        let handler = Box::new(move |request: &Request<'_>| desk.answer(request));
        let door = door::serve(Arc::clone(&acceptor), handler)?;
        *self.acceptor.lock() = Some(acceptor);
        let desk = Arc::downgrade(self);
        lifecycle.observe(move |transition| {
            let Some(desk) = desk.upgrade() else { return };
            *desk.entered.lock() = transition.at;
            if transition.to == Phase::Stopped {
                desk.end();
                // Whoever has asked by now is answered before `main` returns, unless it takes nothing.
                let end = Instant::now() + LAST_ANSWERS;
                while !door.is_finished() && Instant::now() < end {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
        Ok(())
    }

    /// The server is there.
    pub(crate) fn begin(&self, server: &ServerHandle) {
        *self.server.lock() = Some(server.downgrade());
    }

    /// Listens no more, since the server does not start after all.
    pub(crate) fn close(&self) {
        if let Some(acceptor) = &*self.acceptor.lock() {
            acceptor.close();
        }
        self.end();
    }

    /// Lets go of what would keep itself alive.
    fn end(&self) {
        let server = self.server.lock().take();
        let acceptor = self.acceptor.lock().take();
        drop((server, acceptor));
    }

    fn answer(&self, request: &Request<'_>) -> Response {
        let path = request.path.trim_end_matches('/');
        let (page, one) = match path.get(1..).and_then(|it| it.split_once('/')) {
            Some((page, one)) => (page, Some(one)),
            None => (path.get(1..).unwrap_or(""), None),
        };
        match (page, one) {
            ("", None) => Response::text(200, PATHS),
            ("livez", one) => self.verdict(request, "livez", one, Desk::live_points),
            ("readyz" | "healthz", one) => self.verdict(request, "readyz", one, Desk::ready_points),
            ("startupz", one) => self.verdict(request, "startupz", one, Desk::started_points),
            #[cfg(feature = "metrics")]
            ("metrics", None) => self.scrape(request),
            ("statusz", None) => self.status(request),
            _ => Response::text(
                404,
                format!("there is nothing here. What there is:\n\n{PATHS}"),
            ),
        }
    }

    fn verdict(
        &self,
        request: &Request<'_>,
        name: &'static str,
        one: Option<&str>,
        points: fn(&Desk) -> Vec<Point>,
    ) -> Response {
        let service = request.parameters("service").next();
        let mut points = match &service {
            Some(service) if name == "readyz" => match self.of_service(service) {
                Some(point) => vec![point],
                None => return Response::text(404, "this server serves no service of that name\n"),
            },
            _ => points(self),
        };
        if let Some(one) = one {
            points.retain(|it| it.name == one);
            if points.is_empty() {
                let known = self.checks.statuses();
                let Some(check) = known.iter().find(|it| it.name == one) else {
                    let names: Vec<_> = known.iter().map(|it| it.name.as_str()).collect();
                    let names = names.join(", ");
                    return Response::text(
                        404,
                        format!("there is no check of that name; there are: {names}\n"),
                    );
                };
                points.push(Point::of(check));
            }
        }
        Verdict { name, points }.answer(request)
    }

    /// What gRPC's health service answers for this service, the empty name being the server as a whole.
    fn of_service(&self, service: &str) -> Option<Point> {
        let server = self.server.lock().clone();
        let status = match server {
            Some(server) => server.serving_status(service)?,
            None => ServingStatus::NotServing,
        };
        let name = match service {
            "" => "server".to_owned(),
            service => crate::text::one_line(service),
        };
        let is_ready = status == ServingStatus::Serving;
        let why = self.why_not_ready(is_ready);
        Some(Point::new(name, is_ready, why))
    }

    fn why_not_ready(&self, is_ready: bool) -> String {
        let phase = self.remote.phase();
        match (is_ready, self.remote.reason()) {
            (true, _) => "SERVING".to_owned(),
            (false, Some(reason)) => format!("NOT_SERVING: {phase}, {reason}"),
            (false, None) if phase == Phase::Serving => "NOT_SERVING".to_owned(),
            (false, None) => format!("NOT_SERVING: {phase}"),
        }
    }

    /// The server as a whole, and the checks that count.
    fn ready_points(&self) -> Vec<Point> {
        let mut points: Vec<_> = self.of_service("").into_iter().collect();
        let checks = self.checks.statuses();
        let counting = checks
            .iter()
            .filter(|it| it.counts_for == CountsFor::Readiness);
        // One that is of some services alone is shown, and does not count here.
        points.extend(counting.map(|it| Point {
            counts: it.services.is_empty(),
            ..Point::of(it)
        }));
        points
    }

    fn live_points(&self) -> Vec<Point> {
        let outcome = {
            let mut live = self.live.lock();
            match &*live {
                Some((at, outcome)) if at.elapsed() < LIVE => outcome.clone(),
                _ => {
                    let outcome = self.remote.check(LIVE).map_err(|it| it.to_string());
                    *live = Some((Instant::now(), outcome.clone()));
                    outcome
                }
            }
        };
        let is_live = outcome.is_ok();
        let why = outcome.map_or_else(|it| it, |()| "it answers".to_owned());
        let mut points = vec![Point::new("program".to_owned(), is_live, why)];
        let checks = self.checks.statuses();
        let counting = checks
            .iter()
            .filter(|it| it.counts_for == CountsFor::Liveness);
        points.extend(counting.map(|it| Point {
            // Nothing is held against it before it is known.
            is_good: it.state != CheckState::Down,
            ..Point::of(it)
        }));
        points
    }

    fn started_points(&self) -> Vec<Point> {
        let phase = self.remote.phase();
        let has_started = phase != Phase::Starting;
        let mut points = vec![Point::new(
            "phase".to_owned(),
            has_started,
            phase.to_string(),
        )];
        let checks = self.checks.statuses();
        points.extend(checks.iter().map(|it| Point {
            is_good: it.state != CheckState::Unknown,
            ..Point::of(it)
        }));
        points
    }

    #[cfg(feature = "metrics")]
    fn scrape(&self, request: &Request<'_>) -> Response {
        let open = request.accept.is_some_and(answer::wants_open_metrics);
        let (content_type, body) = match open {
            true => (OPEN_METRICS, self.metrics.open_metrics()),
            false => (TEXT, self.metrics.text()),
        };
        // A HEAD has taken nothing along.
        if !request.is_head {
            let (count, changed) = &self.scrapes;
            *count.lock() += 1;
            changed.notify_all();
        }
        Response {
            status: 200,
            content_type,
            body: body.into_bytes(),
        }
    }

    /// Adds a hook that waits for one more scrape.
    #[cfg(feature = "metrics")]
    pub(crate) fn wait_for_scrape(
        self: &Arc<Self>,
        lifecycle: &Lifecycle,
        most: Duration,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        if most.is_zero() {
            return Ok(());
        }
        let desk = Arc::clone(self);
        let hook = Hook::new("last scrape", move || {
            // Nobody reaches this process any more.
            if matches!(desk.remote.reason(), Some(Reason::Replaced(_))) {
                return Ok(());
            }
            let deadline = Instant::now() + most;
            let (count, changed) = &desk.scrapes;
            let mut count = count.lock();
            let before = *count;
            while *count == before {
                if changed.wait_until(&mut count, deadline).timed_out() {
                    log::warn!(
                        "nobody has scraped the metrics within {most:?}: the last counts are lost"
                    );
                    break;
                }
            }
            Ok(())
        });
        // The wait itself ends in time.
        lifecycle.hook(hook.time_limit(most + Duration::from_secs(1)))?;
        Ok(())
    }
}

/// Whether a last scrape can be waited for.
#[cfg(feature = "metrics")]
pub(crate) fn validate(
    last_scrape: Duration,
    plan: &Plan,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    if last_scrape.is_zero() || last_scrape < plan.closing() {
        return Ok(());
    }
    let closing = plan.closing();
    let why =
        "it is a part of the plan's time for Closing, and must be shorter (Plan::with_closing)";
    Err(format!("last_scrape is {last_scrape:?}, and Closing may take {closing:?}: {why}").into())
}
