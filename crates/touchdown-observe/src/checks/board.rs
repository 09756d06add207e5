//! What the checks have found, and when each is to run: pure of threads, but for the lock.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex};

use crate::text::shortened;

use super::{BadCheck, CheckState, CheckStatus, CountsFor, HealthCheck, Run};

/// How many bytes of an error are kept.
const LONGEST_ERROR: usize = 500;

/// All checks of a program.
pub(crate) struct Board {
    state: Mutex<State>,
    /// Something is due at another time, or the end has come.
    pub(super) changed: Condvar,
    /// Told, with no lock held, that a check has come up or down.
    listeners: Mutex<Vec<Arc<dyn Fn() + Send + Sync>>>,
}

struct State {
    checks: Vec<Check>,
    is_over: bool,
}

struct Check {
    name: String,
    counts_for: CountsFor,
    services: Vec<String>,
    interval: Duration,
    time_limit: Duration,
    down_after: u32,
    up_after: u32,
    /// Away while it runs.
    run: Option<Run>,
    state: CheckState,
    since: Instant,
    /// Outcomes in a row that speak against the state.
    against: u32,
    last: Option<(SystemTime, Duration, Option<String>)>,
    running: Option<Running>,
    next: Instant,
}

struct Running {
    since: Instant,
    /// When it has failed by not returning, for the first time or once more.
    fails_at: Instant,
    has_failed: bool,
}

/// A check that is to run now.
pub(super) struct Due {
    pub(super) index: usize,
    pub(super) name: String,
    pub(super) run: Run,
}

/// What is to be done next.
pub(super) enum Turn {
    Run(Vec<Due>),
    /// Nothing before this time, if there is one.
    Wait(Option<Instant>),
    Over,
}

/// A line for the log.
struct News {
    name: String,
    counts_for: CountsFor,
    state: CheckState,
    error: Option<String>,
}

impl Board {
    /// # Errors
    ///
    /// A setting that cannot be kept, or two checks of one name.
    pub(crate) fn new(checks: Vec<HealthCheck>, now: Instant) -> Result<Board, BadCheck> {
        let mut all: Vec<Check> = Vec::with_capacity(checks.len());
        for check in checks {
            check.validate()?;
            if all.iter().any(|it| it.name == check.name) {
                return Err(BadCheck {
                    value: format!("{:?}", check.name),
                    name: check.name,
                    setting: "name",
                    expected: "another than that of every other check",
                });
            }
            all.push(Check {
                name: check.name,
                counts_for: check.counts_for,
                services: check.services,
                interval: check.interval,
                time_limit: check.time_limit,
                down_after: check.down_after,
                up_after: check.up_after,
                run: Some(check.run),
                state: CheckState::Unknown,
                since: now,
                against: 0,
                last: None,
                running: None,
                next: now,
            });
        }
        Ok(Board {
            state: Mutex::new(State {
                checks: all,
                is_over: false,
            }),
            changed: Condvar::new(),
            listeners: Mutex::default(),
        })
    }

    /// Has this told of every check that comes up or goes down. It must not block.
    pub(crate) fn listen(&self, listener: impl Fn() + Send + Sync + 'static) {
        self.listeners.lock().push(Arc::new(listener));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().checks.is_empty()
    }

    /// Whether no check keeps this service from being ready; the empty name is the server as a whole.
    pub(crate) fn is_ready(&self, service: &str) -> bool {
        let state = self.state.lock();
        let mut counting = state.checks.iter().filter(|it| it.counts(service));
        counting.all(|it| it.state == CheckState::Up)
    }

    /// The names of the checks that are down and count for liveness.
    pub(crate) fn deadly(&self) -> Vec<String> {
        let state = self.state.lock();
        let down = state.checks.iter().filter(|it| it.is_deadly());
        down.map(|it| it.name.clone()).collect()
    }

    pub(crate) fn statuses(&self) -> Vec<CheckStatus> {
        let now = Instant::now();
        self.state
            .lock()
            .checks
            .iter()
            .map(|it| it.status(now))
            .collect()
    }

    /// What is to be done next. Fails what does not return. With the lock held no longer than that.
    pub(super) fn turn(&self, now: Instant) -> Turn {
        let mut news = Vec::new();
        let turn = {
            let mut state = self.state.lock();
            if state.is_over {
                return Turn::Over;
            }
            let mut due = Vec::new();
            for (index, check) in state.checks.iter_mut().enumerate() {
                news.extend(check.fail_if_it_hangs(now));
                if check.running.is_none() && check.next <= now {
                    if let Some(run) = check.run.take() {
                        let fails_at = now + check.time_limit;
                        check.running = Some(Running {
                            since: now,
                            fails_at,
                            has_failed: false,
                        });
                        due.push(Due {
                            index,
                            name: check.name.clone(),
                            run,
                        });
                    }
                }
            }
            match due.is_empty() {
                true => Turn::Wait(state.checks.iter().map(Check::next_event).min()),
                false => Turn::Run(due),
            }
        };
        self.tell(news);
        turn
    }

    /// Waits until this time, or until something changes.
    pub(super) fn wait(&self, until: Option<Instant>) {
        let mut state = self.state.lock();
        if state.is_over {
            return;
        }
        match until {
            // Looked at again: what has changed before the lock was taken is not missed.
            Some(until) if state.checks.iter().any(|it| it.next_event() < until) => {}
            Some(until) => drop(self.changed.wait_until(&mut state, until)),
            None => self.changed.wait(&mut state),
        }
    }

    /// A run is over, so or so.
    pub(super) fn ended(
        &self,
        index: usize,
        run: Run,
        result: Result<(), Box<dyn Error + Send + Sync>>,
        now: Instant,
    ) {
        let news = {
            let mut state = self.state.lock();
            let check = &mut state.checks[index];
            check.run = Some(run);
            check.next = now + check.interval;
            let running = check.running.take();
            let since = running.as_ref().map_or(now, |it| it.since);
            let took = now.saturating_duration_since(since);
            let error = result.err().map(|it| bounded(&it.to_string()));
            let limit = check.time_limit;
            match running {
                // That it failed is known by now.
                Some(Running {
                    has_failed: true, ..
                }) => {
                    let late = format!("it took {took:.1?}, more than {limit:?}");
                    check.last = Some((SystemTime::now(), took, Some(error.unwrap_or(late))));
                    None
                }
                _ if took > limit && error.is_none() => {
                    let late = format!("it took {took:.1?}, more than {limit:?}");
                    check.outcome(now, took, Some(late))
                }
                _ => check.outcome(now, took, error),
            }
        };
        self.changed.notify_all();
        self.tell(news.into_iter().collect());
    }

    /// No check runs any more, but for those that do already.
    pub(crate) fn end(&self) {
        self.state.lock().is_over = true;
        self.changed.notify_all();
    }

    /// Waits until none runs, until `deadline` at the latest. Returns the names of those that do.
    pub(crate) fn wait_idle(&self, deadline: Instant) -> Vec<String> {
        let mut state = self.state.lock();
        loop {
            let running = state.checks.iter().filter(|it| it.running.is_some());
            let running: Vec<String> = running.map(|it| it.name.clone()).collect();
            if running.is_empty() || self.changed.wait_until(&mut state, deadline).timed_out() {
                return running;
            }
        }
    }

    fn tell(&self, news: Vec<News>) {
        if news.is_empty() {
            return;
        }
        for News {
            name,
            counts_for,
            state,
            error,
        } in news
        {
            let (state, counts_for) = (state.as_str(), counts_for.as_str());
            match error {
                Some(error) => log::warn!(
                    check = name.as_str(), state, counts_for, error = error.as_str();
                    "the check {name} is {state}, which counts for {counts_for}: {error}"
                ),
                None => log::info!(
                    check = name.as_str(), state, counts_for;
                    "the check {name} is {state}"
                ),
            }
        }
        let listeners = self.listeners.lock().clone();
        listeners.iter().for_each(|it| it());
    }
}

impl Check {
    fn counts(&self, service: &str) -> bool {
        self.counts_for == CountsFor::Readiness
            && (self.services.is_empty() || self.services.iter().any(|it| it == service))
    }

    fn is_deadly(&self) -> bool {
        self.counts_for == CountsFor::Liveness && self.state == CheckState::Down
    }

    fn next_event(&self) -> Instant {
        self.running.as_ref().map_or(self.next, |it| it.fails_at)
    }

    fn fail_if_it_hangs(&mut self, now: Instant) -> Option<News> {
        let running = self.running.as_mut().filter(|it| it.fails_at <= now)?;
        running.has_failed = true;
        running.fails_at = now + self.interval;
        let took = now.saturating_duration_since(running.since);
        let why = format!(
            "it has not returned for {took:.1?}, and may take {:?}",
            self.time_limit
        );
        self.outcome(now, took, Some(why))
    }

    /// Takes an outcome in. Returns the news, if the state has changed.
    fn outcome(&mut self, now: Instant, took: Duration, error: Option<String>) -> Option<News> {
        let found = match error {
            Some(_) => CheckState::Down,
            None => CheckState::Up,
        };
        self.last = Some((SystemTime::now(), took, error.clone()));
        if found == self.state {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let enough = match (self.state, found) {
            (CheckState::Unknown, _) => 1,
            (_, CheckState::Up) => self.up_after,
            _ => self.down_after,
        };
        if self.against < enough {
            return None;
        }
        self.against = 0;
        self.state = found;
        self.since = now;
        Some(News {
            name: self.name.clone(),
            counts_for: self.counts_for,
            state: found,
            error,
        })
    }

    fn status(&self, now: Instant) -> CheckStatus {
        let (last, took, error) = match &self.last {
            Some((at, took, error)) => (Some(*at), *took, error.clone()),
            None => (None, Duration::ZERO, None),
        };
        let runs_for = self
            .running
            .as_ref()
            .map(|it| now.saturating_duration_since(it.since));
        CheckStatus {
            name: self.name.clone(),
            counts_for: self.counts_for,
            services: self.services.clone(),
            state: self.state,
            since: now.saturating_duration_since(self.since),
            last,
            took,
            error,
            hangs: runs_for.filter(|it| *it > self.time_limit),
        }
    }
}

/// Bounded, since it stands in logs and on pages.
fn bounded(text: &str) -> String {
    match shortened(text, LONGEST_ERROR) {
        start if start.len() < text.len() => format!("{start}…"),
        whole => whole.to_owned(),
    }
}
