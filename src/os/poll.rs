//! Waits for descriptors.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

/// Waits until one of these can be read, for so long at the most. Says of each whether it can.
///
/// # Errors
///
/// Those of poll(2). A signal that comes in between is none: then nothing can be read.
pub(crate) fn readable(
    descriptors: impl IntoIterator<Item = RawFd>,
    limit: Option<Duration>,
) -> io::Result<Vec<bool>> {
    let descriptors = descriptors.into_iter();
    let mut waited: Vec<libc::pollfd> = descriptors
        .map(|fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
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
    Ok(waited
        .iter()
        .map(|it| ready > 0 && it.revents != 0)
        .collect())
}
