//! Start-up hooks that return what they open.

use std::fmt::{self, Display};

use super::startup::StartupHook;
use crate::sync::{Arc, Mutex};

/// What a [`StartupHook`] has opened: a database, a device, a connection. Made by [`StartupHook::opens`]. Clones are of
/// the same.
pub struct Opened<T>(Arc<Mutex<Option<Arc<T>>>>);

impl<T> Opened<T> {
    /// What was opened. `None` before the hook has done its work, and once that was undone.
    ///
    /// Who keeps it keeps it open: it is dropped with the last one. So keep the `Opened` instead, and get it for each use, if
    /// it has to be closed by the end of the stop.
    pub fn get(&self) -> Option<Arc<T>> {
        self.0.lock().clone()
    }
}

impl<T> Clone for Opened<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Opened<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("is_open", &self.0.lock().is_some())
            .finish()
    }
}

impl StartupHook {
    /// A hook that opens something, and a handle on that. What was opened is dropped at the end of the stop, as the
    /// hook's [`undo`](Self::undo) if no other is set, after the closing hooks and after everything that was opened later.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use touchdown::lifecycle::{Lifecycle, StartupHook};
    ///
    /// let (hook, file) = StartupHook::opens("config", || std::fs::File::open("/dev/null"));
    /// let report = Lifecycle::builder().startup(hook).run(move |lifecycle| {
    ///     let file = file.get().expect("start-up hooks run first");
    ///     assert!(file.metadata()?.len() == 0);
    ///     lifecycle.shutdown("the example is over");
    ///     Ok(())
    /// });
    /// assert_eq!(report.hooks[0].name, "undo config");
    /// ```
    pub fn opens<T: Send + Sync + 'static, E: Display>(
        name: impl Into<String>,
        open: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> (StartupHook, Opened<T>) {
        let opened = Opened(Arc::new(Mutex::new(None)));
        let (slot, to_close) = (opened.clone(), opened.clone());
        let hook = StartupHook::new(name, move || {
            let it = open().map_err(|error| error.to_string())?;
            *slot.0.lock() = Some(Arc::new(it));
            Ok(())
        });
        let hook = hook.undo(move || {
            // Dropped with no lock held: this is code of the program.
            let it = to_close.0.lock().take();
            drop(it);
            Ok(())
        });
        (hook, opened)
    }
}
