//! The walking thread: takes the program through its phases, one after the other.

use std::time::Duration;

use super::hook_run::{News, Run};
use super::observers::{Made, Observer};
use super::phase::{Phase, Transition};
use super::plan;
use super::report::{some_of, HookReport, Outcome, PhaseReport, Reason, Report};
use super::seat::Seat;
use super::state::Shared;
use crate::caught::{caught, drop_each};
use crate::logging;
use crate::sync::{kernel_id, thread::JoinHandle, unbounded, Arc, Instant, Receiver};

/// When the log first says what is still in flight: what takes longer than calls commonly do, and
/// longer than somebody who looks on cares to wait without a word.
const FIRST_PROGRESS: Duration = Duration::from_secs(1);

/// How often it says so from then on: the default drain of 30 s makes six lines in all.
const PROGRESS: Duration = Duration::from_secs(5);

/// How much of a name the log shows of what is still in flight, in characters.
const NAME_SHOWN: usize = 200;

/// The walk of one lifecycle. `start` is when it was built; `guard` is the guard thread, which
/// ends with the walk.
pub(super) struct Walk {
    pub(super) shared: Arc<Shared>,
    pub(super) start: Instant,
    pub(super) guard: JoinHandle<()>,
    /// What became of the start-up hooks.
    pub(super) startup: Vec<HookReport>,
    /// Where those that were left behind say how they have ended.
    pub(super) left_behind: Option<Receiver<News>>,
}

/// What became of the work in flight.
#[derive(Default)]
struct Drained {
    forced: bool,
    abandoned: Vec<String>,
}

impl Walk {
    /// The whole walk, from the start to the report.
    pub(super) fn run(mut self) {
        self.shared.walker.get_or_init(kernel_id);
        let own = self.shared.own_threads.clone();
        let _inside = own.enter("a part of the stop");
        let reason = self.await_stop();
        self.skip_startup();
        // The thread that began the stop does so too, but may not have come to it yet.
        self.shared.stopping.cancel();
        let drained = if self.shared.phase.get() == Phase::Starting {
            if let Some(succession) = &self.shared.succession {
                caught("succession", || {
                    succession.start_failed(&reason.to_string())
                });
            }
            self.drain_unready()
        } else {
            self.lame_duck();
            self.drain()
        };
        let hooks = self.close();
        self.finish(reason, drained, hooks);
    }

    /// Runs the start-up hooks once they are wanted, and tells of transitions, until a stop begins.
    fn await_stop(&mut self) -> Reason {
        loop {
            self.tell();
            let mut control = self.shared.control.lock();
            if !control.untold.is_empty() {
                continue;
            }
            match &control.reason {
                Some(reason) => return reason.clone(),
                None if control.startup.wanted && !self.shared.startup_is_over.is_cancelled() => {
                    drop(control);
                    self.start_up();
                }
                None => self.shared.news.wait(&mut control),
            }
        }
    }

    /// Runs the start-up hooks. The first that does not do its work begins the stop, and once a stop
    /// has begun, no other is started.
    fn start_up(&mut self) {
        let shared = &self.shared;
        let (sender, news) = unbounded();
        let hooks = {
            let mut control = shared.control.lock();
            control.startup.news = Some(sender.clone());
            std::mem::take(&mut control.startup.hooks)
        };
        let stopping = &shared.stopping;
        self.startup = Run::new(hooks, Duration::MAX, &shared.running_hooks, stopping)
            .on(&shared.own_threads)
            .supervised(&**shared)
            .run_with(sender, &news);
        shared.control.lock().startup.news = None;
        shared.startup_is_over.cancel();
        self.left_behind = Some(news);
    }

    /// What has become of start-up hooks that were left behind in a hurry and have ended since.
    fn look_after_startup(&mut self) {
        let ended = self.left_behind.take();
        for news in ended.iter().flat_map(|it| it.try_iter()) {
            if let News::Ended(place, outcome) = news {
                let hook = &mut self.startup[place];
                if hook.outcome == Outcome::LeftBehind {
                    hook.outcome = outcome;
                }
            }
        }
    }

    /// A stop has begun: start-up hooks that nobody has asked for are not run.
    fn skip_startup(&mut self) {
        let skipped = std::mem::take(&mut self.shared.control.lock().startup.hooks);
        self.startup.extend(skipped.into_not_run());
        self.shared.startup_is_over.cancel();
    }

    fn lame_duck(&self) {
        let began = self.enter(Phase::LameDuck);
        self.tell();
        let time = self.shared.plan.lame_duck();
        // The process that takes over serves at the same address: there is nobody to be told.
        if time.is_zero() || self.shared.is_replaced() {
            return;
        }
        let Some(end) = began.checked_add(time) else {
            return self.shared.hurried.wait();
        };
        let clock = &self.shared.clock;
        while let Some(slice) = clock.slice(Some(end)).filter(|it| !it.is_zero()) {
            if self.shared.hurried.wait_timeout(slice) {
                return;
            }
        }
    }

    /// Moves on to the next phase, and returns when, by the clock of the stop.
    pub(super) fn enter(&self, to: Phase) -> Duration {
        self.shared.enter(to);
        self.shared.clock.read()
    }

    /// Closes the gate and waits until all have left; tells them to leave if the plan, or a second
    /// signal, says so.
    fn drain(&self) -> Drained {
        let shared = &self.shared;
        let began = self.enter(Phase::Draining);
        shared.draining.cancel();
        // Before the gate closes: a participant goes on serving what is already on the wire, under
        // a guard that it holds.
        let what = "the participants, told to drain,".to_owned();
        self.watched(what, || {
            shared.ask_participants("told to drain", |it| it.drain())
        });
        shared.hold_workers();
        shared.gate.close();
        self.tell();
        let end = began.checked_add(shared.plan.grace_period());
        if self.await_idle(began, end, || shared.hurried.is_cancelled()) {
            return Drained::default();
        }
        let names = shared.in_flight_names(Seat::describe);
        let line = shared.titled(&format!("told to stop: {}", some_of(&names)));
        logging::warn!(in_flight = names.len(); "{line}");
        Drained {
            forced: true,
            abandoned: self.cancel(),
        }
    }

    /// Tells all that remain to leave, and returns the names of those that did not.
    fn cancel(&self) -> Vec<String> {
        let shared = &self.shared;
        let began = self.enter(Phase::Cancelling);
        shared.cancelling.cancel();
        let what = "the participants, told to cancel,".to_owned();
        self.watched(what, || {
            shared.ask_participants("told to cancel", |it| it.cancel())
        });
        self.tell();
        let end = began.checked_add(shared.plan.force_period());
        if self.await_idle(began, end, || false) {
            return Vec::new();
        }
        let names = shared.in_flight_names(Seat::describe);
        let line = shared.titled(&format!("abandoned: {}", some_of(&names)));
        logging::warn!(abandoned = names.len(); "{line}");
        shared.in_flight_names(|it| it.name.clone())
    }

    /// Waits until nothing is in flight, and meanwhile says now and then what is. Returns false when the clock of
    /// the stop says `end`, or once it is to give up.
    fn await_idle(
        &self,
        began: Duration,
        end: Option<Duration>,
        give_up: impl Fn() -> bool,
    ) -> bool {
        let clock = &self.shared.clock;
        let mut progress = began.saturating_add(FIRST_PROGRESS);
        loop {
            let until = end.map_or(progress, |end| end.min(progress));
            let slice = clock.slice(Some(until)).unwrap_or_default();
            let until = plan::after(Instant::now(), slice);
            if self.shared.gate.wait_idle_unless(until, &give_up) {
                return true;
            }
            let now = clock.read();
            if give_up() || end.is_some_and(|end| now >= end) {
                return false;
            }
            if now >= progress {
                self.log_progress(now.saturating_sub(began));
                progress = clock.read().saturating_add(PROGRESS);
            }
        }
    }

    /// Says how many are in flight, and which is the oldest of each participant.
    fn log_progress(&self, waited: Duration) {
        let count = self.shared.in_flight();
        let oldest = self
            .shared
            .ask_participants("asked what runs", |it| (it.name(), it.running()));
        let oldest = oldest
            .into_iter()
            .filter_map(|(name, running)| Some((name, running.into_iter().next()?)))
            .map(|(name, work)| format!("{name}: {work}"));
        let workers = self.shared.workers_in_flight();
        let all = oldest.chain(workers.iter().map(|it| it.describe()));
        let oldest: Vec<String> = all
            .map(|it| it.chars().take(NAME_SHOWN).collect())
            .collect();
        let oldest = match oldest.is_empty() {
            true => "not named".to_owned(),
            false => some_of(&oldest),
        };
        let phase = self.shared.phase.get();
        let line = format!("{phase} for {waited:.0?}: {count} in flight, oldest: {oldest}");
        let line = self.shared.titled(&line);
        logging::info!(phase = phase.as_word(), in_flight = count, waited_ms = waited; "{line}");
    }

    /// A stop before the program was ready. If it has parts that may have taken in work, they are drained as at any other
    /// stop: a program may have served without having said that it is ready.
    fn drain_unready(&self) -> Drained {
        let shared = &self.shared;
        if shared.may_have_work() {
            let count = shared.in_flight();
            if count > 0 {
                let line = shared.titled(&format!(
                    "{count} in flight, though the program was never ready: it served without Lifecycle::ready, which \
                     says that it does (Lifecycle::run calls it); they are waited for"
                ));
                logging::warn!(in_flight = count; "{line}");
            }
            return self.drain();
        }
        shared.gate.close();
        // Who entered in between is waited for.
        match shared.gate.count() {
            0 => Drained::default(),
            _ => self.drain(),
        }
    }

    /// Enters the last phase, tells of it, and then lets everything go.
    fn finish(mut self, reason: Reason, drained: Drained, hooks: Vec<HookReport>) {
        self.look_after_startup();
        let shared = &self.shared;
        if let Some(succession) = &shared.succession {
            caught("succession", || succession.settle());
        }
        // Of a process that was to be replaced, it may be another by now.
        let reason = shared.control.lock().reason.clone().unwrap_or(reason);
        let mut abandoned = drained.abandoned;
        let all_hooks = self.startup.iter().chain(&hooks);
        let overran = all_hooks.filter(|hook| hook.outcome.goes_on());
        for hook in overran {
            // A worker may be known as one that did not leave.
            if !abandoned.contains(&hook.name) {
                abandoned.push(hook.name.clone());
            }
        }
        let reloads = shared.reloads.running().into_iter();
        abandoned.extend(reloads.map(|name| format!("reload {name}")));
        let calls = shared.calls();
        let connections_cut = self.connections_cut();
        let end = shared.enter(Phase::Stopped);
        let report = Report {
            reason,
            took: end.saturating_duration_since(*shared.began.get().unwrap_or(&end)),
            phases: phases(self.start, &shared.control.lock().history),
            calls,
            connections_cut,
            // On a stop during start-up nothing is drained, and a server may have calls all the same.
            forced: drained.forced || calls.abandoned > 0 || connections_cut > 0,
            abandoned,
            startup: self.startup.clone(),
            hooks,
        };
        self.tell();
        if let (Some(file), false) = (&shared.pid_file, shared.is_replaced()) {
            file.remove();
        }
        shared.log_end(&report);

        // What is let go may hold handles on this lifecycle, and must be dropped with no lock held.
        let released = {
            let mut control = shared.control.lock();
            (
                std::mem::take(&mut control.observers),
                std::mem::take(&mut control.subscribers),
                std::mem::take(&mut control.participants),
                std::mem::take(&mut control.reloads),
                shared.reloads.forget_observers(),
                shared.attachments.close(),
            )
        };
        // One by one: two panics at the same time would end the process.
        let (observers, subscribers, participants, reloads, of_reloads, attachments) = released;
        drop(subscribers);
        drop_each("observer, as it was dropped,", observers);
        drop_each("participant, as it was dropped,", participants);
        drop_each("reload callback, as it was dropped,", reloads);
        drop_each("reload observer, as it was dropped,", of_reloads);
        drop_each("attachment, as it was dropped,", attachments);

        shared.dismiss_guard();
        if self.guard.join().is_err() {
            logging::error!("{}", shared.titled("the guard thread panicked"));
        }
        shared.errands.close();
        // A thread that waits for the end may exit at once.
        logging::flush(logging::AT_THE_END);
        shared.report.get_or_init(|| report);
        shared.stopped.cancel();
    }

    fn connections_cut(&self) -> u64 {
        let cut = self
            .shared
            .ask_participants("asked for its connections", |it| it.connections_cut());
        cut.into_iter().fold(0, u64::saturating_add)
    }

    /// Runs code of the program, which should not block. The guard thread sees to it that it is named if it does.
    fn watched<T>(&self, what: String, run: impl FnOnce() -> T) -> T {
        let shared = &self.shared;
        // During a stop the guard thread looks four times a second by itself.
        let ring = || {
            if shared.began.get().is_none() {
                shared.bell.ring();
            }
        };
        let result = shared.watch.run(what, || {
            ring();
            run()
        });
        // A program with nothing to do wakes no thread, not even to find that there is nothing.
        ring();
        result
    }

    /// Calls the observers for every transition that they have not been told of.
    pub(super) fn tell(&self) {
        loop {
            let (transition, observers) = {
                let mut control = self.shared.control.lock();
                let Some((transition, count)) = control.untold.pop_front() else {
                    return;
                };
                (transition, control.observers[..count].to_vec())
            };
            let outlets = observers.iter().filter_map(|it| match it {
                Observer::Callback(..) => None,
                Observer::Outlet(outlet) => outlet.announce(transition),
            });
            let made: Vec<Made> = outlets.collect();
            for observer in &observers {
                if let Observer::Callback(call, name) = observer {
                    let _inside = self.shared.own_threads.enter("an observer");
                    self.watched(format!("observer {name}, told of {transition},"), || {
                        caught("observer", || call(&transition))
                    });
                }
            }
            Made::wait_for_all(&made, &transition, &self.shared.hurried);
        }
    }
}

/// The time in each phase that was left again.
fn phases(start: Instant, history: &[Transition]) -> Vec<PhaseReport> {
    let begins = std::iter::once(start).chain(history.iter().map(|transition| transition.at));
    begins
        .zip(history)
        .map(|(began, left)| PhaseReport {
            phase: left.from,
            took: left.at.saturating_duration_since(began),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phase_lasts_from_its_transition_to_the_next() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let history = [
            Transition {
                from: Phase::Starting,
                to: Phase::Closing,
                at: at(5),
            },
            Transition {
                from: Phase::Closing,
                to: Phase::Stopped,
                at: at(7),
            },
        ];
        assert_eq!(
            phases(start, &history),
            [
                PhaseReport {
                    phase: Phase::Starting,
                    took: Duration::from_millis(5)
                },
                PhaseReport {
                    phase: Phase::Closing,
                    took: Duration::from_millis(2)
                },
            ]
        );
    }
}
