//! The operating system, made safe: the stacks of threads and their names, processes that are started with descriptors
//! of their own, descriptors that are waited for, and one that wakes a thread.

#[cfg(feature = "server")]
pub(crate) mod memory;
#[cfg(feature = "server")]
pub(crate) mod memory_there;
pub(crate) mod readable;
pub(crate) mod spawn;
#[cfg(feature = "server")]
pub(crate) mod stack;
#[cfg(feature = "server")]
pub(crate) mod symbols;
#[cfg(feature = "server")]
pub(crate) mod thread;
pub(crate) mod wake;
