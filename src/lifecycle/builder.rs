//! Building a lifecycle: everything that can be wrong is found here.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

use signal_hook::low_level;

use super::attachments::Attachments;
use super::calls::Calls;
use super::errand_run;
use super::errands::Errands;
use super::handle::Lifecycle;
use super::hook::{Failure, Hook, HookError};
use super::hooks::Hooks;
use super::in_flight::Gate;
use super::observers::Observer;
use super::one_at_a_time::OneAtATime;
use super::own_threads::OwnThreads;
use super::phase::{PhaseCell, Transition};
use super::pid_file::PidFile;
use super::plan::{Plan, PlanError};
use super::reload::{Reload, Reloads};
use super::sentry::Sentry;
use super::shutdown::Canceller;
use super::signals::Signals;
use super::startup::{Started, Startup, StartupHook};
use super::state::{Control, Exit, Shared};
use super::succession::Succession;
use super::walk::Walk;
use super::watch::Watch;
use super::worker::Worker;
use crate::running_time::RunningClock;
use crate::sync::atomic::AtomicBool;
use crate::sync::{bell, standard_error, thread, Arc, Condvar, Instant, Mutex, OnceLock, Sleeper};
use crate::text::ROOM_FOR_THREADS;

/// Collects what a [`Lifecycle`] is made of.
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    plan: Plan,
    signals: Signals,
    hooks: Vec<Hook>,
    startup: Vec<StartupHook>,
    reloads: Vec<Reload>,
    observers: Vec<Observer>,
    exit: Exit,
    pid_file: Option<PidFile>,
    succession: Option<MakeSuccession>,
    workers: Vec<Worker>,
    name: Option<String>,
}

/// What a lifecycle is succeeded by, and the same by its type.
type MadeSuccession = (Arc<dyn Succession>, Arc<dyn Any + Send + Sync>);

type MakeSuccession = Box<dyn FnOnce() -> MadeSuccession + Send>;

impl Lifecycle {
    /// Begins to build one.
    pub fn builder() -> Builder {
        Builder::new()
    }
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            plan: Plan::default(),
            signals: Signals::none(),
            hooks: Vec::new(),
            startup: Vec::new(),
            reloads: Vec::new(),
            observers: Vec::new(),
            // The one without `atexit` handlers, which may hang.
            exit: Box::new(|code| low_level::exit(code)),
            pid_file: None,
            succession: None,
            workers: Vec::new(),
            name: None,
        }
    }

    /// Gives the lifecycle a name, which stands before each of its lines in the log. For one that is a part of a
    /// program, which has a lifecycle itself. Default: none.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets how long each phase of the stop may take. Default: [`Plan::default`].
    pub fn plan(mut self, plan: Plan) -> Self {
        self.plan = plan;
        self
    }

    /// Sets where signals are heard from. Default: [`Signals::none`]. A program's `main` will want
    /// [`Signals::process`].
    pub fn signals(mut self, signals: Signals) -> Self {
        self.signals = signals;
        self
    }

    /// Whether [signals](Self::signals) were set, other than [`Signals::none`].
    pub fn has_signals(&self) -> bool {
        !self.signals.are_none()
    }

    /// Adds a closing hook. Hooks may be added in any order, whatever runs after what.
    pub fn hook(mut self, hook: Hook) -> Self {
        self.hooks.push(hook);
        self
    }

    /// Adds a start-up hook; [`Lifecycle::start`] runs them. They may be added in any order, whatever
    /// runs after what.
    pub fn startup(mut self, hook: StartupHook) -> Self {
        self.startup.push(hook);
        self
    }

    /// Adds a callback that SIGHUP, or [`Lifecycle::reload`], runs: it reads a part of the program's
    /// state again, and replaces the old if the new is good.
    ///
    /// Callbacks run one after the other in the order in which they were added, on a thread of
    /// their own, at any time while the program serves; what is asked for before is put off until
    /// then. However often a reload is asked for while one runs, one more follows.
    ///
    /// One that fails or panics is logged, and the others run still. It must leave the old state in
    /// place: build the new one first, then swap. A stop does not wait for a callback, and runs no
    /// other after it.
    ///
    /// ```
    /// use std::sync::{Arc, RwLock};
    /// use touchdown::lifecycle::Lifecycle;
    ///
    /// let config = Arc::new(RwLock::new(String::new()));
    /// let lifecycle = Lifecycle::builder()
    ///     .on_reload("config", {
    ///         let config = Arc::clone(&config);
    ///         move || {
    ///             let new = std::fs::read_to_string("/etc/greeter.conf")?;
    ///             *config.write().map_err(|error| error.to_string())? = new;
    ///             Ok(())
    ///         }
    ///     })
    ///     .build()?;
    /// # Ok::<(), touchdown::lifecycle::BuildError>(())
    /// ```
    pub fn on_reload(
        mut self,
        name: impl Into<String>,
        callback: impl FnMut() -> Result<(), Failure> + Send + 'static,
    ) -> Self {
        self.reloads.push(Reload {
            name: name.into(),
            callback: Box::new(callback),
        });
        self
    }

    /// Has this process's id written to a file when Serving begins, and the file removed at the end of a
    /// stop, if it is this process's still. If it cannot be written, the start has failed.
    ///
    /// A process that replaces another writes `PATH.ID` before it says that it is ready, so that a full disk fails
    /// the succession and not the pid file, and renames it when it takes over. Should that fail, it is tried again every
    /// second, and the log says so.
    pub fn pid_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.pid_file = Some(PidFile::new(path.into()));
        self
    }

    /// Adds a worker, which is started as soon as the program is [ready](Lifecycle::ready), in a group called
    /// `workers`. One that cannot be started begins a stop, with
    /// [`exit_code::FAILED_START`](super::exit_code::FAILED_START). If the program stops before it is ready, the worker is
    /// dropped without having run.
    ///
    /// ```
    /// use std::time::Duration;
    /// use touchdown::lifecycle::{exit_code, Lifecycle, Worker};
    ///
    /// let poll = Worker::new("poll", |token| {
    ///     while !token.wait_timeout(Duration::from_millis(10)) {
    ///         // Ask the pump for its state.
    ///     }
    /// });
    /// let report = Lifecycle::builder().worker(poll).run(|lifecycle| {
    ///     lifecycle.shutdown("the example is over");
    ///     Ok(())
    /// });
    /// assert_eq!(report.exit_code(), exit_code::CLEAN);
    /// ```
    pub fn worker(mut self, worker: Worker) -> Self {
        self.workers.push(worker);
        self
    }

    /// Sets how another process takes the place of this one, when SIGUSR2 arrives, and this one the place of the one
    /// that has started it so. Default: neither, and SIGUSR2 is left as it is.
    ///
    /// `make` is called by [`build`](Self::build) once everything else has been checked. What it returns is
    /// [attached](Lifecycle::attached) to the lifecycle by its type. The last call counts.
    pub fn succession<S: Succession>(
        mut self,
        make: impl FnOnce() -> Arc<S> + Send + 'static,
    ) -> Self {
        self.succession = Some(Box::new(move || {
            let succession = make();
            (Arc::clone(&succession) as _, succession as _)
        }));
        self
    }

    /// Whether a [`succession`](Self::succession) was set.
    pub fn has_succession(&self) -> bool {
        self.succession.is_some()
    }

    /// Adds an observer; see [`Lifecycle::observe`].
    pub fn observe(mut self, observer: impl Fn(&Transition) + Send + Sync + 'static) -> Self {
        self.observers.push(Observer::callback(observer));
        self
    }

    /// Replaces the end of the process by something that returns, so that a test survives it.
    #[doc(hidden)]
    pub fn exit_with(mut self, exit: impl Fn(i32) + Send + Sync + 'static) -> Self {
        self.exit = Box::new(exit);
        self
    }

    /// The first of the settings that are work of the program, if there is any.
    #[doc(hidden)]
    pub fn first_of_program(&self) -> Option<&'static str> {
        let all = [
            ("hook", self.hooks.is_empty()),
            ("startup", self.startup.is_empty()),
            ("on_reload", self.reloads.is_empty()),
            ("pid_file", self.pid_file.is_none()),
            ("succession", self.succession.is_none()),
            ("worker", self.workers.is_empty()),
        ];
        let set = all.into_iter().find(|(_, is_empty)| !is_empty);
        set.map(|(name, _)| name)
    }

    /// Checks everything, begins to listen to signals, and starts the lifecycle's three
    /// threads: `td-lifecycle`, which walks the phases, `td-guard`, which hears signals and keeps the
    /// hard deadline, and `td-errands`, which does for that one what may need memory or time.
    ///
    /// # Errors
    ///
    /// [`BuildError`], and then nothing is left running.
    pub fn build(self) -> Result<Lifecycle, BuildError> {
        self.plan.validate().map_err(BuildError::Plan)?;
        let hooks = Hooks::new(self.hooks).map_err(BuildError::Hook)?;
        let started = Started::default();
        let startup = self.startup.into_iter();
        let startup = startup.map(|hook| hook.into_hook(&started)).collect();
        let startup = Hooks::new(startup).map_err(BuildError::StartupHook)?;
        let startup_is_over = Canceller::new();
        if startup.is_empty() {
            startup_is_over.cancel();
        }
        let (bell, sleeper) = bell().map_err(BuildError::Signals)?;
        let hears_process = self.signals.are_of_process();
        let listener = self
            .signals
            .listen(&bell, self.succession.is_some())
            .map_err(BuildError::Signals)?;
        let succession = self.succession.map(|make| make());
        let (succession, attached) = succession.unzip();
        let shared = Arc::new(Shared {
            name: self.name,
            hears_process,
            succession,
            in_charge: Canceller::new(),
            pid_file: self.pid_file,
            plan: self.plan,
            phase: PhaseCell::new(),
            gate: Gate::new(),
            stopping: Canceller::new(),
            draining: Canceller::new(),
            cancelling: Canceller::new(),
            hurried: Canceller::new(),
            hurried_closing: Canceller::new(),
            startup_is_over,
            started,
            reloads: Reloads::new(&self.reloads),
            describing: OneAtATime::default(),
            stopped: Canceller::new(),
            report: OnceLock::new(),
            control: Mutex::new(Control {
                reason: None,
                history: Vec::new(),
                untold: Default::default(),
                observers: self.observers,
                subscribers: Vec::new(),
                participants: Vec::new(),
                dismissed: Calls::default(),
                hooks,
                workers: Vec::new(),
                workers_to_start: self.workers,
                startup: Startup {
                    hooks: startup,
                    ..Startup::default()
                },
                reloads: self.reloads,
                reload_wanted: false,
            }),
            news: Condvar::new(),
            began: OnceLock::new(),
            clock: RunningClock::default(),
            walked: AtomicBool::new(false),
            running_hooks: Mutex::default(),
            asked: Mutex::default(),
            is_asked: AtomicBool::new(false),
            errands: Errands::new(),
            watch: Watch::default(),
            own_threads: OwnThreads::default(),
            walker: OnceLock::new(),
            attachments: Attachments::new(attached),
            bell,
            // Without a standard error there are no last words.
            stderr: standard_error().ok(),
            exit: self.exit,
        });
        start_threads(&shared, listener, sleeper).map_err(BuildError::Thread)?;
        Ok(Lifecycle::new(shared))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("plan", &self.plan)
            .field("signals", &self.signals)
            .field("hooks", &self.hooks)
            .field("startup", &self.startup)
            .finish_non_exhaustive()
    }
}

fn start_threads(
    shared: &Arc<Shared>,
    listener: super::signals::Listener,
    sleeper: Sleeper,
) -> io::Result<()> {
    let start = Instant::now();
    let errands = Arc::clone(shared);
    thread::Builder::new()
        .name("td-errands".to_owned())
        .spawn(move || errand_run::run(&errands))?;
    let sentry = Sentry {
        shared: Arc::clone(shared),
        listener,
        sleeper,
    };
    let guard = thread::Builder::new()
        .name("td-guard".to_owned())
        .spawn(move || sentry.run())
        .inspect_err(|_| shared.errands.close())?;
    let walk = Walk {
        shared: Arc::clone(shared),
        start,
        guard,
        startup: Vec::new(),
        left_behind: None,
    };
    let spawned = thread::Builder::new()
        .name("td-lifecycle".to_owned())
        .spawn(move || walk.run());
    spawned.map(drop).inspect_err(|_| {
        shared.dismiss_guard();
        shared.errands.close();
    })
}

/// Why a lifecycle could not be built.
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// The plan cannot be kept; see [`Plan::validate`].
    Plan(PlanError),
    /// The closing hooks do not fit together.
    Hook(HookError),
    /// The start-up hooks do not fit together.
    StartupHook(HookError),
    /// The operating system refused a signal handler, or the socket to hear from it. The process
    /// may be out of file descriptors.
    Signals(io::Error),
    /// The operating system refused a thread. The process may be out of memory, or its unit at
    /// the limit of its tasks.
    Thread(io::Error),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plan(_) => "the plan of the stop cannot be kept",
            Self::Hook(_) => "the closing hooks do not fit together",
            Self::StartupHook(_) => "the start-up hooks do not fit together",
            Self::Signals(_) => "cannot listen to signals",
            Self::Thread(_) => "cannot start a thread",
        })?;
        match self {
            Self::Plan(error) => write!(f, ": {error}"),
            Self::Hook(error) | Self::StartupHook(error) => write!(f, ": {error}"),
            Self::Signals(error) => write!(f, ": {error}"),
            Self::Thread(error) => write!(f, ": {error}; {ROOM_FOR_THREADS}"),
        }
    }
}

impl Error for BuildError {}
