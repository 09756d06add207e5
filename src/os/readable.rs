//! Waiting until one of several descriptors has something to read.

use std::os::fd::RawFd;
use std::time::Duration;

/// Waits until one of these descriptors has something to read, or has failed, or the time is over (`None`: without end).
/// Says which of them; nothing at all if the wait was interrupted or its time is over.
pub(crate) fn wait_readable(descriptors: &[RawFd], limit: Option<Duration>) -> Vec<bool> {
    let mut waited: Vec<libc::pollfd> = descriptors
        .iter()
        .map(|&fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    let timeout = limit.map_or(-1, |limit| {
        // Rounded up: a poll that returns too early would spin.
        i32::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
    });
    // SAFETY: the array is ours, and so long.
    let ready = unsafe { libc::poll(waited.as_mut_ptr(), waited.len() as _, timeout) };
    match ready > 0 {
        true => waited.iter().map(|it| it.revents != 0).collect(),
        false => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::wake::Wake;

    #[test]
    fn it_says_which_descriptor_has_something_and_nothing_once_the_time_is_over() {
        let wakes = [Wake::new().unwrap(), Wake::new().unwrap()];
        let descriptors = wakes.each_ref().map(Wake::as_raw_fd);
        let none = wait_readable(&descriptors, Some(Duration::ZERO));
        assert_eq!(none, [false; 0]);
        wakes[1].wake();
        assert_eq!(wait_readable(&descriptors, None), [false, true]);
    }
}
