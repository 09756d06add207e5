//! Runs hooks: each on a thread of its own, at its turn, and never longer than its time. Only where there can be
//! no thread it is the calling one that runs a closing hook, which is better than not to close.
//!
//! The limits count only while the process runs, see src/running_time.rs.

use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use super::hook::{Failure, Work};
use super::hooks::Hooks;
use super::names::thread_name;
use super::own_threads::OwnThreads;
use super::report::{HookReport, Outcome};
use super::shutdown::{Canceller, Token};
use crate::caught::caught;
use crate::running_time::{RunningTime, SLICE};
use crate::sync::{thread, unbounded, Arc, Instant, Mutex, Receiver, RecvTimeoutError, Sender};
use crate::text::{with_causes, ROOM_FOR_THREADS};
use crate::thrown::message_of;

/// One run of a set of hooks.
pub(super) struct Run<'a> {
    order: Vec<Vec<usize>>,
    names: Vec<String>,
    states: Vec<State>,
    /// When all are out of time; like every other time of a run it counts from the beginning of the run.
    end: Duration,
    time: RunningTime,
    running: &'a Mutex<Vec<String>>,
    token: &'a Token,
    own_threads: OwnThreads,
    supervisor: Option<&'a dyn Supervisor>,
}

/// Who has a say in a run, and is told of it at once.
pub(super) trait Supervisor {
    /// Whether another hook may start.
    fn may_start(&self) -> bool;
    /// A hook that was started has ended, or was left behind.
    fn ended(&self, name: &str, outcome: &Outcome);
    /// A stop has begun, and waits for these.
    fn is_waited_for(&self, running: &[&str]);
}

/// What a run waits for.
pub(super) enum News {
    /// The hook at this place has ended.
    Ended(usize, Outcome),
    /// A stop has begun.
    Stopping,
    /// What runs is not to be waited for any longer.
    Hurry,
}

enum State {
    Waiting(Duration, Work),
    Running {
        since: Instant,
        until: Duration,
        token: Canceller,
    },
    Finished(Outcome, Duration),
}

impl<'a> Run<'a> {
    /// To run all, for `time` at the most; [`Duration::MAX`] is a time without an end. `running` always holds the names
    /// of those that run, including those left behind. The token of each is a child of `token`.
    pub(super) fn new(
        hooks: Hooks,
        time: Duration,
        running: &'a Mutex<Vec<String>>,
        token: &'a Token,
    ) -> Self {
        let hooks = hooks.into_list();
        let place = |name: &String| hooks.iter().position(|hook| hook.name == *name);
        let order = hooks
            .iter()
            .map(|hook| hook.after.iter().filter_map(place).collect())
            .collect();
        let names = hooks.iter().map(|hook| hook.name.clone()).collect();
        let states = hooks
            .into_iter()
            .map(|hook| State::Waiting(hook.time_limit, hook.work))
            .collect();
        Self {
            order,
            names,
            states,
            end: time,
            time: RunningTime::begin(Instant::now()),
            running,
            token,
            own_threads: OwnThreads::default(),
            supervisor: None,
        }
    }

    /// Lets those know who have to that the threads of hooks are the lifecycle's.
    pub(super) fn on(mut self, own_threads: &OwnThreads) -> Self {
        self.own_threads = own_threads.clone();
        self
    }

    /// Lets `supervisor` have a say. A hook for which there can be no thread has failed then.
    pub(super) fn supervised(mut self, supervisor: &'a dyn Supervisor) -> Self {
        self.supervisor = Some(supervisor);
        self
    }

    pub(super) fn run(self) -> Vec<HookReport> {
        let (sender, news) = unbounded();
        self.run_with(sender, &news)
    }

    /// As `run`, on a channel on which others may have sent [`News::Hurry`] and [`News::Stopping`], or still do. A hook
    /// that was left behind says there how it has ended after all.
    pub(super) fn run_with(
        mut self,
        sender: Sender<News>,
        news: &Receiver<News>,
    ) -> Vec<HookReport> {
        loop {
            self.start_ready(&sender);
            let Some(until) = self.next_limit() else {
                break;
            };
            let result = match until {
                Duration::MAX => news.recv().map_err(RecvTimeoutError::from),
                until => news.recv_timeout(until.saturating_sub(self.now()).min(SLICE)),
            };
            match result {
                Ok(News::Ended(place, outcome)) => self.finish(place, outcome),
                Ok(News::Stopping) => self.say_what_is_waited_for(),
                Ok(News::Hurry) => self.leave_behind(news, true),
                Err(_) => self.leave_behind(news, false),
            }
        }
        self.into_reports()
    }

    /// How much time counts since the run began.
    fn now(&mut self) -> Duration {
        self.time.pass(Instant::now(), SLICE)
    }

    /// Starts every hook whose prerequisites are finished.
    fn start_ready(&mut self, sender: &Sender<News>) {
        while let Some(place) = (0..self.states.len()).find(|place| self.is_ready(*place)) {
            let now = self.now();
            let not_run = State::Finished(Outcome::NotRun, Duration::ZERO);
            let State::Waiting(limit, work) = std::mem::replace(&mut self.states[place], not_run)
            else {
                unreachable!("only a waiting hook is ready");
            };
            if now >= self.end || !self.supervisor.is_none_or(|it| it.may_start()) {
                caught("dropping a hook", || drop(work));
                continue;
            }
            self.running.lock().push(self.names[place].clone());
            let token = self.token.child();
            self.states[place] = State::Running {
                since: Instant::now(),
                until: limit_of(now, limit, self.end),
                token: token.clone(),
            };
            let sender = sender.clone();
            let work = Arc::new(Mutex::new(Some(work)));
            let handed_over = Arc::clone(&work);
            let (look, own_threads) = (token.token(), self.own_threads.clone());
            let spawned = thread::Builder::new()
                .name(thread_name(&format!("td-{}", self.names[place])))
                .spawn(move || {
                    let _inside = own_threads.enter("a hook");
                    let outcome = run_once(&handed_over, &look);
                    // Nobody listens any more if the hook overran.
                    let _ = sender.send(News::Ended(place, outcome));
                });
            if let Err(error) = spawned {
                let outcome = match self.supervisor {
                    Some(_) => {
                        Outcome::Failed(format!("no thread to run on: {error}; {ROOM_FOR_THREADS}"))
                    }
                    None => run_once(&work, &token),
                };
                // That took as long as it took: nobody looked at the time meanwhile.
                self.time.pass(Instant::now(), Duration::MAX);
                self.finish(place, outcome);
            }
        }
    }

    fn is_ready(&self, place: usize) -> bool {
        matches!(self.states[place], State::Waiting(..))
            && self.order[place]
                .iter()
                .all(|after| matches!(self.states[*after], State::Finished(..)))
    }

    /// When the first running hook is out of time; [`Duration::MAX`] if none ever is, `None` if nothing runs.
    fn next_limit(&self) -> Option<Duration> {
        let limits = self.states.iter().filter_map(|state| match state {
            State::Running { until, .. } => Some(*until),
            _ => None,
        });
        limits.reduce(Duration::min)
    }

    fn finish(&mut self, place: usize, outcome: Outcome) {
        let goes_on = matches!(outcome, Outcome::Overran | Outcome::LeftBehind);
        if let State::Running { since, token, .. } = &self.states[place] {
            token.cancel();
            if let Some(supervisor) = self.supervisor {
                supervisor.ended(&self.names[place], &outcome);
            }
            let took = Instant::now().saturating_duration_since(*since);
            self.states[place] = State::Finished(outcome, took);
        }
        if !goes_on {
            let mut running = self.running.lock();
            if let Some(entry) = running.iter().position(|name| *name == self.names[place]) {
                running.remove(entry);
            }
        }
    }

    fn say_what_is_waited_for(&self) {
        let all = self.names.iter().zip(&self.states);
        let running = all.filter(|(_, state)| matches!(state, State::Running { .. }));
        let running: Vec<&str> = running.map(|(name, _)| name.as_str()).collect();
        if let (Some(supervisor), false) = (self.supervisor, running.is_empty()) {
            supervisor.is_waited_for(&running);
        }
    }

    /// Gives up on all whose time is over, or in a hurry on all.
    fn leave_behind(&mut self, news: &Receiver<News>, mut hurry: bool) {
        let now = self.now();
        // This thread may be late itself. A hook that has ended meanwhile has not overrun.
        for news in news.try_iter() {
            match news {
                News::Ended(place, outcome) => self.finish(place, outcome),
                News::Stopping => self.say_what_is_waited_for(),
                News::Hurry => hurry = true,
            }
        }
        for place in 0..self.states.len() {
            let State::Running { until, .. } = self.states[place] else {
                continue;
            };
            if hurry || now >= until {
                self.finish(
                    place,
                    match now >= until {
                        true => Outcome::Overran,
                        false => Outcome::LeftBehind,
                    },
                );
            }
        }
    }

    fn into_reports(self) -> Vec<HookReport> {
        self.names
            .into_iter()
            .zip(self.states)
            .map(|(name, state)| match state {
                State::Finished(outcome, took) => HookReport {
                    name,
                    outcome,
                    took,
                },
                // Unreachable for hooks whose order exists.
                _ => HookReport {
                    name,
                    outcome: Outcome::NotRun,
                    took: Duration::ZERO,
                },
            })
            .collect()
    }
}

/// When a hook that starts now is out of time: at its own limit or at the end of the phase.
fn limit_of(now: Duration, limit: Duration, end: Duration) -> Duration {
    now.saturating_add(limit).min(end)
}

fn run_once(work: &Mutex<Option<Work>>, token: &Token) -> Outcome {
    let work = work.lock().take();
    work.map_or(Outcome::NotRun, |work| run_caught(|| work(token)))
}

/// Does a piece of work of the program, and says how it ended.
pub(super) fn run_caught(work: impl FnOnce() -> Result<(), Failure>) -> Outcome {
    // What it fails with is the program's as well, which may panic as it says what it is.
    let work = || work().map_err(|error| with_causes(&*error));
    match panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => Outcome::Done,
        Ok(Err(error)) => Outcome::Failed(error),
        Err(panic) => Outcome::Panicked(message_of(panic)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::hook::Hook;
    use super::*;

    #[test]
    fn a_hook_is_out_of_time_at_its_limit_or_at_the_end_of_the_phase() {
        let [now, short, long] = [100, 1, 9].map(Duration::from_secs);
        assert_eq!(limit_of(now, short, now + long), now + short);
        assert_eq!(limit_of(now, long, now + short), now + short);
        assert_eq!(limit_of(now, Duration::MAX, now + short), now + short);
        assert_eq!(limit_of(now, short, Duration::MAX), now + short);
        assert_eq!(limit_of(now, Duration::MAX, Duration::MAX), Duration::MAX);
    }

    #[test]
    fn a_hook_that_ended_while_nobody_looked_is_not_left_behind() {
        let names = ["hangs", "ends"];
        let hooks = names.map(|name| Hook::new(name, || Ok(())));
        let running = Mutex::new(names.map(str::to_owned).to_vec());
        let hooks = Hooks::unordered(hooks.into());
        let never = Canceller::new();
        let mut run = Run::new(hooks, Duration::MAX, &running, &never);
        let state = || State::Running {
            since: Instant::now(),
            until: Duration::ZERO,
            token: never.child(),
        };
        run.states = vec![state(), state()];
        let (sender, news) = unbounded();
        sender.send(News::Ended(1, Outcome::Done)).unwrap();
        run.leave_behind(&news, false);
        assert_eq!(*running.lock(), ["hangs"]);
        let outcomes = run.into_reports().into_iter().map(|report| report.outcome);
        assert!(outcomes.eq([Outcome::Overran, Outcome::Done]));
    }

    #[test]
    fn each_runs_after_those_that_it_names_and_is_reported_once_however_it_ends() {
        let log = Arc::new(Mutex::new(Vec::new()));
        let hook = |name: &'static str, outcome: fn() -> Result<(), &'static str>| {
            let log = Arc::clone(&log);
            Hook::new(name, move || {
                log.lock().push(name);
                Ok(outcome()?)
            })
        };
        let hooks = vec![
            hook("last", || Ok(())).after("left").after("right"),
            hook("left", || Err("disk full")).after("first"),
            // A panic without a word on the standard error.
            hook("right", || panic::resume_unwind(Box::new("at once"))).after("first"),
            hook("first", || Ok(())),
        ];
        let running = Mutex::default();
        let never = Canceller::new();
        let hooks = Hooks::new(hooks).unwrap();
        let reports = Run::new(hooks, Duration::MAX, &running, &never).run();
        let told: Vec<_> = reports
            .iter()
            .map(|it| (it.name.as_str(), it.outcome.clone()))
            .collect();
        assert_eq!(
            told,
            [
                ("last", Outcome::Done),
                ("left", Outcome::Failed("disk full".to_owned())),
                ("right", Outcome::Panicked("at once".to_owned())),
                ("first", Outcome::Done),
            ]
        );
        let log = log.lock();
        assert_eq!((log.len(), log[0], log[3]), (4, "first", "last"));
        assert!(running.lock().is_empty());
    }

    #[test]
    fn nothing_runs_once_the_phase_is_over() {
        let hooks = Hooks::new(vec![Hook::new("late", || panic!("must not run"))]).unwrap();
        let running = Mutex::default();
        let never = Canceller::new();
        let reports = Run::new(hooks, Duration::ZERO, &running, &never).run();
        assert_eq!(reports[0].outcome, Outcome::NotRun);
        assert!(running.lock().is_empty());
    }
}
