//! Waiting until one of several descriptors has something to read, or room to write.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

/// Waits until one of these descriptors has something to read, or has failed, or the time is over (`None`: without end).
/// Says of each whether it has.
///
/// # Errors
///
/// Those of poll(2). A signal that comes in between is none: then nothing can be read.
pub(crate) fn wait_readable(
    descriptors: impl IntoIterator<Item = RawFd>,
    limit: Option<Duration>,
) -> io::Result<Vec<bool>> {
    wait_ready(descriptors.into_iter().map(|fd| (fd, false)), limit)
}

/// As [`wait_readable`], but for those with `true` until there is room to write.
pub(crate) fn wait_ready(
    descriptors: impl IntoIterator<Item = (RawFd, bool)>,
    limit: Option<Duration>,
) -> io::Result<Vec<bool>> {
    let descriptors = descriptors.into_iter();
    let mut waited: Vec<libc::pollfd> = descriptors
        .map(|(fd, writes)| libc::pollfd {
            fd,
            events: if writes { libc::POLLOUT } else { libc::POLLIN },
            revents: 0,
        })
        .collect();
    // Rounded up: a poll that returns too early would spin.
    let limit = limit.map_or(-1, |it| {
        i32::try_from(it.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
    });
    // SAFETY: the array is this function's, and so long.
    let ready = unsafe { libc::poll(waited.as_mut_ptr(), waited.len() as _, limit) };
    if ready == -1 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let is_ready = |it: &libc::pollfd| ready > 0 && it.revents != 0;
    Ok(waited.iter().map(is_ready).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::wake::Wake;

    #[test]
    fn it_says_which_descriptor_has_something_and_none_once_the_time_is_over() {
        let wakes = [Wake::new().unwrap(), Wake::new().unwrap()];
        let descriptors = wakes.each_ref().map(Wake::as_raw_fd);
        let ready = wait_readable(descriptors, Some(Duration::ZERO)).unwrap();
        assert_eq!(ready, [false, false]);
        wakes[1].wake();
        assert_eq!(wait_readable(descriptors, None).unwrap(), [false, true]);
    }
}
