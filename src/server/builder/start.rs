//! Starting a server: with a lifecycle of its own, or as a part of one.

use std::mem;

use super::super::companion::Companion;
use super::super::error::StartError;
use super::super::handle::{Server, ServerHandle};
#[cfg(feature = "tls")]
use super::super::tls::Tls;
use super::ServerBuilder;
use crate::lifecycle::{self, Lifecycle, Plan, Reason, Report, SignalSender, Signals, Stopping};
use crate::os::memory;
#[cfg(feature = "tls")]
use crate::sockets::listen::Listen;
use crate::upgrade::Upgrade;

/// Why a server did not start, and how its lifecycle ended.
type Failed = (StartError, Box<Report>);

impl ServerBuilder {
    /// Serves until TERM or INT, then stops by the plan. This is all that `main` needs to do: it may
    /// return the report, whose exit code says how it went.
    ///
    /// The [lifecycle](Self::lifecycle) gets the [process's signals](Signals::process) and [`Upgrade::new`], if it has no
    /// signals or no upgrade of its own.
    ///
    /// If the server cannot start, the report says why and has the exit code
    /// [`FAILED_START`](crate::lifecycle::exit_code::FAILED_START). A program that wants to do
    /// something about it calls [`start`](Self::start).
    pub fn serve(mut self) -> Report {
        let mut lifecycle = self.take_lifecycle();
        if !lifecycle.has_signals() {
            lifecycle = lifecycle.signals(Signals::process());
        }
        if !lifecycle.has_succession() {
            lifecycle = lifecycle.upgrade(Upgrade::new());
        }
        match self.begin(lifecycle) {
            Ok(server) => server.wait(),
            // The log has it.
            Err((_, report)) => *report,
        }
    }

    /// Starts the server with a [lifecycle](Self::lifecycle) of its own, and returns.
    ///
    /// # Errors
    ///
    /// [`StartError`], and then nothing is left running.
    pub fn start(mut self) -> Result<Server, StartError> {
        let lifecycle = self.take_lifecycle();
        self.begin(lifecycle).map_err(|(error, _)| error)
    }

    /// Starts the server as a part of a lifecycle that it may share with others, and which stops it. The program calls
    /// [`Lifecycle::ready`] once everything is started. If it has start-up hooks that the server
    /// needs, the program calls [`Lifecycle::start`] first.
    ///
    /// The server accepts connections from now on. Until [`Lifecycle::ready`] its health is NOT_SERVING, and what waits
    /// for the program to be ready does not begin. So the log says, at WARN, if calls have come and that is 1 s late.
    ///
    /// # Errors
    ///
    /// [`StartError`], and then nothing of the server is left running. A [`lifecycle`](Self::lifecycle) or a
    /// [`set_up`](Self::set_up) is a [`StartError::Setting`], since nobody would heed it.
    pub fn start_with(mut self, lifecycle: &Lifecycle) -> Result<ServerHandle, StartError> {
        let refused = [
            (
                self.lifecycle.is_some(),
                "lifecycle",
                "left out: start_with takes the lifecycle that is shared, which has plan, hooks and signals",
            ),
            (
                !self.set_ups.is_empty(),
                "set_up",
                "left out: do its work before start_with is called",
            ),
            (
                self.beside.is_some(),
                "beside",
                "left out: the sockets of a shared lifecycle go along anyway",
            ),
        ];
        if let Some((_, setting, expected)) = refused.into_iter().find(|it| it.0) {
            return Err(StartError::Setting {
                setting,
                value: "set".to_owned(),
                expected,
            });
        }
        // Should a stop begin from here on, that is noticed before a connection is accepted.
        if lifecycle.stopping().is_cancelled() {
            return Err(StartError::TooLate);
        }
        let companions = self.begin_companions(lifecycle)?;
        let running = self.launch(lifecycle, companions)?;
        Ok(ServerHandle::new(running, lifecycle.clone()))
    }

    /// The same server as a test wants it, unless it was told otherwise: at this address, with this plan; and who sends its
    /// signals.
    pub(in crate::server) fn for_a_test(
        mut self,
        address: &str,
        plan: Plan,
    ) -> (ServerBuilder, SignalSender) {
        if self.listens.is_empty() {
            self = self.address(address);
        }
        let lifecycle = self.lifecycle.take();
        let lifecycle = lifecycle.unwrap_or_else(|| Lifecycle::builder().plan(plan));
        let (signals, sender) = Signals::injected();
        (self.lifecycle(lifecycle.signals(signals)), sender)
    }

    fn take_lifecycle(&mut self) -> lifecycle::Builder {
        self.lifecycle.take().unwrap_or_else(Lifecycle::builder)
    }

    fn begin(mut self, lifecycle: lifecycle::Builder) -> Result<Server, Failed> {
        // The lifecycle has threads, which would have arenas of their own.
        memory::bound_arenas();
        #[cfg(feature = "tls")]
        let lifecycle = self.reload_certificates(lifecycle);
        let lifecycle = lifecycle.build().map_err(|error| {
            let error = StartError::Lifecycle(error);
            let report = Report::failed_start(&error);
            (error, Box::new(report))
        })?;
        let failed = |error: StartError| {
            // Changes nothing if a signal has begun the stop already.
            lifecycle.fail(&error);
            (error, Box::new(lifecycle.wait()))
        };
        let companions = self.begin_companions(&lifecycle).map_err(failed)?;
        lifecycle.start().map_err(|Stopping { reason, .. }| {
            let error = match reason {
                Reason::StartFailed(why) => StartError::Startup(why),
                _ => StartError::TooLate,
            };
            (error, Box::new(lifecycle.wait()))
        })?;
        let mut set_ups = mem::take(&mut self.set_ups).into_iter();
        let running = set_ups
            .try_for_each(|work| work(&lifecycle).map_err(StartError::SetUp))
            .and_then(|()| self.launch(&lifecycle, companions))
            .map_err(failed)?;
        let server = Server::new(ServerHandle::new(running, lifecycle));
        // A signal meanwhile has begun the stop, and `wait` will tell.
        let _ = server.lifecycle().ready();
        Ok(server)
    }

    /// Begins the companions, and gives them back.
    fn begin_companions(
        &mut self,
        lifecycle: &Lifecycle,
    ) -> Result<Vec<Box<dyn Companion>>, StartError> {
        let mut companions = mem::take(&mut self.companions);
        let begun = companions.iter_mut().try_for_each(|it| it.begin(lifecycle));
        begun.map_err(StartError::of_companion)?;
        Ok(companions)
    }

    /// Lets the lifecycle read the certificates again when it reloads.
    #[cfg(feature = "tls")]
    fn reload_certificates(&self, mut lifecycle: lifecycle::Builder) -> lifecycle::Builder {
        let mut all: Vec<Tls> = Vec::new();
        for tls in self.listens.iter().filter_map(Listen::own_tls) {
            if !all.iter().any(|it| it.is_same(tls)) {
                all.push(tls.clone());
            }
        }
        for tls in all {
            lifecycle = lifecycle.on_reload("tls", move || Ok(tls.reload()?));
        }
        lifecycle
    }
}
