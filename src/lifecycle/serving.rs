//! The way to Serving: start-up hooks, the proof that this process may serve, the pid file, and then the step.

use super::handle::Lifecycle;
use super::phase::Phase;
use super::reloading;
use super::report::Reason;
use super::state::Stopping;
use super::succession::Standing;
use super::worker::Worker;
use crate::caught::caught;

impl Lifecycle {
    /// Runs the start-up hooks, and waits until all have done their work. For a program that has
    /// something to do between them and [`ready`](Self::ready), such as to listen; `ready`
    /// runs those that have not run. The second time it does nothing, and so does it without hooks.
    ///
    /// A hook that fails, panics or overruns begins a stop with
    /// [`exit_code::FAILED_START`](super::exit_code::FAILED_START): those that run are waited for within their time limits, no
    /// other is run, and in [`Phase::Closing`] the work of those that were done is undone. A stop
    /// that begins meanwhile by other means ends start-up in the same way, without counting as a
    /// failure; a second signal ends the wait for those that run. So does the plan's hard deadline,
    /// which counts from the moment when the stop begins.
    ///
    /// A start-up hook must not call it, nor `ready`: it would wait for itself until its time is
    /// over. Nor must an observer.
    ///
    /// # Errors
    ///
    /// [`Stopping`] if a stop has begun meanwhile; its reason says whether a hook failed. The program
    /// has nothing more to do than to let it run its course: [`wait`](Self::wait), and return.
    pub fn start(&self) -> Result<(), Stopping> {
        let shared = self.shared();
        if !shared.startup_is_over.is_cancelled() {
            shared.control.lock().startup.wanted = true;
            shared.news.notify_one();
            shared.startup_is_over.wait();
        }
        shared.control.lock().refuse_if_stopping()
    }

    /// Ends start-up: the program is ready, [`Phase::Serving`] begins. Start-up hooks that have not
    /// run are run first, as by [`start`](Self::start). The second time it does nothing.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn ready(&self) -> Result<(), Stopping> {
        if self.shared().watch.is_ready() {
            // So that nobody wakes later to look.
            self.shared().bell.ring();
        }
        self.start()?;
        let shared = self.shared();
        let standing = self.prove_ready();
        let is_in_charge = matches!(standing, Standing::InCharge);
        if is_in_charge && shared.phase.get() == Phase::Starting {
            if let Err(why) = shared.take_charge() {
                shared.begin_stop(Reason::StartFailed(why));
            }
        }
        let mut control = shared.control.lock();
        control.refuse_if_stopping()?;
        let may_serve = !matches!(standing, Standing::Nobody);
        if may_serve && shared.phase.get() == Phase::Starting {
            let reload_wanted = control.reload_wanted;
            shared.step(&mut control, Phase::Serving);
            let workers = std::mem::take(&mut control.workers_to_start);
            drop(control);
            shared.news.notify_one();
            self.start_workers(workers);
            if reload_wanted {
                reloading::ask(shared);
            }
            if let Standing::Beside(serve) = standing {
                // Only now: who connects finds the program ready.
                let served = caught("succession", serve);
                let served = served.unwrap_or_else(|| Err("the succession panicked".to_owned()));
                served.unwrap_or_else(|why| shared.begin_stop(Reason::StartFailed(why)));
            }
        }
        Ok(())
    }

    /// Starts the workers that were given to the builder.
    fn start_workers(&self, workers: Vec<Worker>) {
        let group = self.workers("workers");
        for worker in workers {
            if let Err(error) = group.spawn(worker) {
                // Changes nothing if it is a stop that came first.
                self.fail(error);
            }
        }
    }

    /// The last thing before Serving: nothing stands before this process any more, or the one that it
    /// replaces lets it serve.
    fn prove_ready(&self) -> Standing {
        let Some(succession) = self.shared().succession.clone() else {
            return Standing::InCharge;
        };
        let standing = caught("succession", || {
            succession.prove_ready(&self.remote().handover())
        });
        let standing = standing.unwrap_or_else(|| Err("the succession panicked".to_owned()));
        standing.unwrap_or_else(|why| {
            self.shared().begin_stop(Reason::StartFailed(why));
            Standing::Nobody
        })
    }
}
