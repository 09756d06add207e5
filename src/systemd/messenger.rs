//! The thread that sends, so that no other thread waits for systemd.

use std::io;
use std::process;
use std::time::{Duration, Instant};

use crossbeam_channel::{at, never, select, Receiver};
use nix::time::{clock_gettime, ClockId};
use sd_notify::NotifyState;

#[cfg(feature = "upgrade")]
use super::event::Change;
use super::event::Event;
use super::extension::{self, News, Pace};
use super::watchdog::Watchdog;
use crate::lifecycle::{Announcement, Checking, Phase, Plan, Progress, Reason, Remote, Transition};
use crate::logging;

/// How much of a status is sent, in characters: what a line of a terminal can take, or two.
const STATUS_LENGTH: usize = 200;

pub(super) struct Messenger {
    view: Remote,
    /// The phases, each of which the walk may wait for to be told.
    phases: Receiver<Announcement>,
    events: Receiver<Event>,
    /// Not systemd's main process yet, or not any more.
    silent: bool,
    status: String,
    /// Since start-up is over.
    ready: bool,
    /// Since a stop began.
    stopping: bool,
    /// Since the stop's first phase.
    phase: Option<(Transition, Pace)>,
    watchdog: Option<Watchdog>,
    /// The watchdog's question, as long as it is not answered.
    checking: Option<(u64, Checking)>,
    /// For when this is the main process.
    #[cfg(feature = "upgrade")]
    held_back: Vec<Change>,
    has_failed: bool,
}

impl Messenger {
    pub(super) fn new(
        view: Remote,
        phases: Receiver<Announcement>,
        events: Receiver<Event>,
    ) -> Messenger {
        Messenger {
            silent: view.is_candidate(),
            view,
            phases,
            events,
            status: "starting".to_owned(),
            ready: false,
            stopping: false,
            phase: None,
            watchdog: None,
            checking: None,
            #[cfg(feature = "upgrade")]
            held_back: Vec::new(),
            has_failed: false,
        }
    }

    /// Runs until the lifecycle has stopped. `startup` is how long the start-up hooks can take.
    pub(super) fn run(mut self, startup: Duration) {
        let startup = extension::of_startup(startup);
        let _ = self.say(&[], "starting".to_owned(), startup);
        let stop_begins = self.view.stopping().receiver().clone();
        let in_charge = self.view.in_charge().receiver().clone();
        loop {
            let stop_begins = match self.stopping {
                true => &never(),
                false => &stop_begins,
            };
            let in_charge = match self.silent && !self.stopping {
                true => &in_charge,
                false => &never(),
            };
            let no_check = never();
            let checking = self.checking.as_ref();
            let checked = checking.map_or(&no_check, |(_, it)| it.outcome());
            select! {
                recv(self.phases) -> announcement => match announcement {
                    Ok(announcement) if announcement.transition().to != Phase::Stopped => {
                        self.enter(*announcement.transition());
                    }
                    // The last, which the walk waits for as long as this one has it.
                    last => {
                        let _ = self.stopped();
                        return drop(last);
                    }
                },
                recv(self.events) -> event => match event {
                    Ok(event) => self.take(event),
                    Err(_) => return,
                },
                recv(stop_begins) -> _ => self.begin_stop(),
                recv(in_charge) -> _ => self.take_over(),
                recv(checked) -> passed => self.answered(passed == Ok(true)),
                recv(self.next().map_or(never(), at)) -> _ => {}
            }
            self.look(Instant::now());
        }
    }

    /// When to look by itself; never, as long as the program is in Serving and no watchdog is asked for.
    fn next(&self) -> Option<Instant> {
        if self.silent {
            return None;
        }
        let stop = self.phase.as_ref().map(|(_, pace)| pace.next());
        let watchdog = self.watchdog.as_ref().map(Watchdog::next);
        [stop, watchdog].into_iter().flatten().min()
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::ReloadBegan(done) => {
                let _ = done.send(self.begin_reload());
            }
            Event::ReloadEnded(failures) => self.end_reload(&failures),
            #[cfg(feature = "upgrade")]
            Event::Store(change, done) => {
                let _ = done.send(self.store(change));
            }
        }
    }

    /// The watchdog's question was answered: whether the check was passed.
    fn answered(&mut self, passed: bool) {
        let Some((round, _)) = self.checking.take() else {
            return;
        };
        let watchdog = self.watchdog.as_mut();
        if watchdog.is_some_and(|it| it.answered(round, passed)) {
            let _ = self.send(&[NotifyState::Watchdog]);
        }
    }

    fn enter(&mut self, transition: Transition) {
        if let Some(watchdog) = &mut self.watchdog {
            // From Closing on others are asked.
            watchdog.forget();
        }
        if transition.to == Phase::Serving {
            self.begin_to_serve();
            return;
        }
        self.begin_stop();
        if transition.to == Phase::LameDuck && self.view.plan().lame_duck().is_zero() {
            return;
        }
        let (progress, now) = (self.view.progress(), Instant::now());
        let wanted = extension::at_the_beginning_of(transition.to, self.view.plan());
        let status = status_of(&transition, &progress, self.view.plan(), now);
        let _ = self.say(&[], status, Some(self.within_plan(wanted, now)));
        self.phase = Some((transition, Pace::begin(progress, now)));
    }

    /// Says that the program is ready, unless that was said, or that it stops.
    fn begin_to_serve(&mut self) {
        if self.ready || self.stopping {
            return;
        }
        self.ready = true;
        let _ = self.say(&[NotifyState::Ready], "serving".to_owned(), None);
        self.watch();
    }

    fn begin_stop(&mut self) {
        if std::mem::replace(&mut self.stopping, true) {
            return;
        }
        if let Some(Reason::Replaced(pid)) = self.view.reason() {
            return self.replaced_by(pid);
        }
        let status = format!("stopping: {}", self.reason());
        let time = self.within_plan(extension::EXTENSION, Instant::now());
        let _ = self.say(&[NotifyState::Stopping], status, Some(time));
    }

    fn stopped(&mut self) -> io::Result<()> {
        self.begin_stop();
        let status = format!("stopped: {}", self.reason());
        self.say(&[], status, None)
    }

    fn reason(&self) -> String {
        self.view
            .reason()
            .map_or_else(|| Reason::Dropped.to_string(), |reason| reason.to_string())
    }

    fn within_plan(&self, wanted: Duration, now: Instant) -> Duration {
        let end = self.view.hard_deadline();
        extension::within(wanted, end.map(|it| it.saturating_duration_since(now)))
    }

    /// Does what is due.
    fn look(&mut self, now: Instant) {
        if self.silent {
            return;
        }
        if let Some((transition, mut pace)) = self.phase.take() {
            if pace.next() <= now {
                let progress = self.view.progress();
                let status = status_of(&transition, &progress, self.view.plan(), now);
                if let Some(news) = pace.look(progress, now) {
                    let extension = (news == News::Progress)
                        .then(|| self.within_plan(extension::EXTENSION, now));
                    let _ = self.say(&[], status, extension);
                }
            }
            self.phase = Some((transition, pace));
        }
        if let Some(round) = self.watchdog.as_mut().and_then(|it| it.ask(now)) {
            self.checking = Some((round, self.view.begin_check()));
        }
    }

    fn begin_reload(&mut self) -> io::Result<()> {
        // A reload that was asked for during start-up may come ahead of the news that this is over.
        self.begin_to_serve();
        if self.stopping {
            return Ok(());
        }
        // Not by sd-notify, which counts the microseconds in 32 bits on a 32-bit machine: they are over
        // when the machine has been up for 36 minutes.
        let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
        let now = NotifyState::MonotonicUsec(i128::try_from(now.as_micros()).unwrap_or(i128::MAX));
        self.say(&[NotifyState::Reloading, now], "reloading".to_owned(), None)
    }

    fn end_reload(&mut self, failures: &[String]) {
        if self.stopping {
            return;
        }
        let status = match failures {
            [] => "serving".to_owned(),
            failures => format!("serving; reload failed: {}", failures.join(", ")),
        };
        let _ = self.say(&[NotifyState::Ready], status, None);
    }

    /// Another process is the main one from now on. Nobody listens to this one any more.
    fn replaced_by(&mut self, pid: u32) {
        let status = format!("replaced by process {pid}");
        let _ = self.say(&[NotifyState::MainPid(pid)], status, None);
        self.silent = true;
    }

    /// This is the main process from now on.
    fn take_over(&mut self) {
        if self.view.phase() == Phase::Serving {
            self.begin_to_serve();
        }
        self.silent = false;
        let mut states = vec![NotifyState::MainPid(process::id())];
        states.extend(self.ready.then_some(NotifyState::Ready));
        let status = self.status.clone();
        let _ = self.say(&states, status, None);
        if self.ready {
            self.watch();
        }
        #[cfg(feature = "upgrade")]
        for change in std::mem::take(&mut self.held_back) {
            let _ = self.store(change);
        }
    }

    /// The program is ready: from now on systemd expects to be told that it lives.
    fn watch(&mut self) {
        if !self.silent && self.watchdog.is_none() {
            self.watchdog = Watchdog::from_environment(Instant::now());
        }
    }

    #[cfg(feature = "upgrade")]
    pub(super) fn is_silent(&self) -> bool {
        self.silent
    }

    /// Keeps these for when this is the main process.
    #[cfg(feature = "upgrade")]
    pub(super) fn hold_back(&mut self, change: Change) {
        self.held_back.push(change);
    }

    /// Sends these, a status, and for how long systemd is to wait.
    fn say(
        &mut self,
        states: &[NotifyState<'_>],
        status: String,
        extension: Option<Duration>,
    ) -> io::Result<()> {
        self.status = one_line(&status);
        let status = self.status.clone();
        let extension = extension.map(|it| format!("EXTEND_TIMEOUT_USEC={}", it.as_micros()));
        let extension = extension.as_deref().map(NotifyState::Custom);
        let all: Vec<_> = states
            .iter()
            .cloned()
            .chain([NotifyState::Status(&status)])
            .chain(extension)
            .collect();
        self.send(&all)
    }

    pub(super) fn send(&mut self, states: &[NotifyState<'_>]) -> io::Result<()> {
        if self.silent {
            return Ok(());
        }
        let sent = sd_notify::notify(states);
        self.note(sent)
    }

    /// Logs a failure, the first aloud: what is not there will be missed at each message.
    pub(super) fn note(&mut self, sent: io::Result<()>) -> io::Result<()> {
        if let Err(error) = &sent {
            let level = match std::mem::replace(&mut self.has_failed, true) {
                false => log::Level::Warn,
                true => log::Level::Debug,
            };
            let socket = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
            logging::line!(level, "cannot tell systemd at {socket:?}: {error}");
        }
        sent
    }
}

/// The phase, what is left in it, and the time.
fn status_of(transition: &Transition, left: &Progress, plan: &Plan, now: Instant) -> String {
    let phase = transition.to;
    let time = match phase {
        Phase::LameDuck => plan.lame_duck(),
        Phase::Draining => plan.grace_period(),
        Phase::Cancelling => plan.force_period(),
        _ => plan.closing(),
    };
    let passed = now.saturating_duration_since(transition.at).as_secs();
    let time = match time {
        Duration::MAX => format!("{passed} s"),
        time => {
            let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
            format!("{passed} s of {seconds} s")
        }
    };
    let what = match (phase, left.left) {
        (Phase::Closing, _) if left.hooks.is_empty() => String::new(),
        (Phase::Closing, _) => format!(": {}", left.hooks.join(", ")),
        (_, 1) => ": 1 call left".to_owned(),
        (_, count) => format!(": {count} calls left"),
    };
    format!("{phase}{what}, {time}")
}

/// What comes from the program must not end the line, which would begin another message.
fn one_line(text: &str) -> String {
    let visible = |char: char| if char.is_control() { ' ' } else { char };
    text.chars().map(visible).take(STATUS_LENGTH).collect()
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::unbounded;

    use super::*;
    use crate::lifecycle::Lifecycle;

    /// Without NOTIFY_SOCKET nothing is sent, and everything else is as with it.
    fn messenger(lifecycle: &Lifecycle) -> Messenger {
        let (_, events) = unbounded();
        let (_, phases) = unbounded();
        Messenger::new(lifecycle.remote(), phases, events)
    }

    #[test]
    fn it_does_not_wake_by_itself_while_the_program_serves() {
        let lifecycle = Lifecycle::builder().build().unwrap();
        let transitions = lifecycle.subscribe();
        let mut messenger = messenger(&lifecycle);
        assert_eq!(messenger.next(), None);
        lifecycle.ready().unwrap();
        messenger.enter(transitions.recv().unwrap());
        assert_eq!(
            (messenger.next(), messenger.status.as_str()),
            (None, "serving")
        );
        let _work = lifecycle.in_flight().enter_owned().unwrap();
        lifecycle.shutdown("test");
        // Without a lame duck nothing is told of that phase.
        messenger.enter(transitions.recv().unwrap());
        assert_eq!(messenger.next(), None);
        messenger.enter(transitions.recv().unwrap());
        assert!(messenger.next().is_some(), "a stop is looked at");
        assert_eq!(messenger.status, "draining: 1 call left, 0 s of 30 s");
    }

    #[test]
    fn a_status_is_one_short_line() {
        let lifecycle = Lifecycle::builder().build().unwrap();
        let mut messenger = messenger(&lifecycle);
        let status = format!("a\nREADY=1\r{}", "x".repeat(5000));
        messenger.say(&[], status, None).unwrap();
        assert!(messenger.status.starts_with("a READY=1 x"));
        assert_eq!(messenger.status.len(), STATUS_LENGTH);
    }
}
