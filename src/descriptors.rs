//! File descriptors: asked for before they are missing.
//!
//! C-core does not expect to be without the few that it needs to begin: it aborts, or polls without a pause. So
//! a server makes sure of them first, and of those for some connections, without which it would serve nobody; and who is
//! refused one is told what to change.
//!
//! The limit itself is left as it is. It goes on to whatever the program starts, and beyond 1,024 it breaks what waits
//! with `select`, as drivers of devices often do; so it is for those who set up the machine.

use std::io;

use nix::errno::Errno;
use nix::sys::resource::{getrlimit, Resource};

/// Says what the limit is, and how to raise it, if it was this limit that was reached.
pub(crate) fn explained(error: io::Error) -> io::Error {
    match limit() {
        Some(limit) if error.raw_os_error() == Some(Errno::EMFILE as i32) => {
            io::Error::new(error.kind(), format!("{error}; {}", advice(limit)))
        }
        _ => error,
    }
}

// Not as wide on each machine.
#[allow(clippy::unnecessary_cast)]
fn limit() -> Option<u64> {
    Some(getrlimit(Resource::RLIMIT_NOFILE).ok()?.0 as u64)
}

fn advice(limit: u64) -> String {
    format!("the process may have {limit} descriptors: raise that with `ulimit -n`, LimitNOFILE= of systemd or --ulimit nofile= of a container")
}

#[cfg(feature = "server")]
mod server {
    use std::fs::File;
    use std::io;

    use super::{advice, explained, limit};
    use crate::logging;

    /// What a server needs beside its listeners, before its first connection: an eventfd to wake the thread that accepts,
    /// one to have in reserve, and C-core's own, with its epoll.
    const SERVER: usize = 4;

    /// The least number of connections that is worth starting for.
    const CONNECTIONS: usize = 8;

    /// Makes sure that a server with so many listeners can have its descriptors, by opening as many, and says in the log if
    /// there are fewer than it is to have `connections`.
    ///
    /// # Errors
    ///
    /// That of the first that could not be had, with what is needed and what to change.
    pub(crate) fn check_room(listeners: usize, connections: usize) -> io::Result<()> {
        let needed = listeners + SERVER;
        let least = needed + CONNECTIONS;
        open(least).map_err(|error| {
            let message = format!(
                "a server needs {least} descriptors more: {}",
                explained(error)
            );
            io::Error::other(message)
        })?;
        if let Some(limit) = limit() {
            let wanted = u64::try_from(needed.saturating_add(connections)).unwrap_or(u64::MAX);
            if limit < wanted {
                logging::warn!(
                    "max_connections is {connections}, and there are not as many descriptors: {}",
                    advice(limit)
                );
            }
        }
        Ok(())
    }

    fn open(count: usize) -> io::Result<()> {
        let first = File::open("/dev/null")?;
        let others: io::Result<Vec<File>> = (1..count).map(|_| first.try_clone()).collect();
        others.map(drop)
    }
}

#[cfg(feature = "server")]
pub(crate) use server::check_room;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "Miri knows no limit of descriptors")]
    fn only_the_want_of_descriptors_is_explained() {
        let explained = |number| explained(io::Error::from_raw_os_error(number)).to_string();
        let limit = limit().unwrap();
        let words =
            format!("; the process may have {limit} descriptors: raise that with `ulimit -n`");
        assert!(explained(Errno::EMFILE as i32).contains(&words));
        // That of the whole machine.
        assert!(!explained(Errno::ENFILE as i32).contains("ulimit"));
    }
}
