//! Messages that are to be sent.
//!
//! They are written into a buffer that each thread keeps for the next one. A transport that needs the bytes for longer
//! copies them if they are few, and takes the buffer if they are many.

use std::cell::RefCell;

/// A buffer with more room than this is not kept.
const KEPT: usize = 16 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A message that is to be sent.
#[derive(Debug)]
pub(crate) struct Outgoing(Vec<u8>);

impl Outgoing {
    /// What `write` has appended to the buffer that it is given, which is empty.
    ///
    /// # Errors
    ///
    /// What `write` says.
    #[inline]
    pub(crate) fn write<E>(
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Outgoing, E> {
        let mut outgoing = Outgoing(SCRATCH.take());
        write(&mut outgoing.0)?;
        Ok(outgoing)
    }

    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The buffer itself, for who keeps it.
    #[inline]
    pub(crate) fn into_bytes(mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Outgoing {
    #[inline]
    fn drop(&mut self) {
        if (1..=KEPT).contains(&self.0.capacity()) {
            self.0.clear();
            let kept = std::mem::take(&mut self.0);
            // Where a thread ends, nothing is kept.
            let _ = SCRATCH.try_with(|it| it.replace(kept));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(bytes: &[u8]) -> Outgoing {
        let append = |buffer: &mut Vec<u8>| {
            assert!(buffer.is_empty());
            buffer.extend_from_slice(bytes);
            Ok::<_, ()>(())
        };
        Outgoing::write(append).unwrap()
    }

    #[test]
    fn a_buffer_is_used_again_by_the_next_message_but_not_by_one_at_the_same_time() {
        let first = written(b"first");
        let second = written(b"second");
        assert_eq!(
            (first.as_bytes(), second.as_bytes()),
            (&b"first"[..], &b"second"[..])
        );
        drop(first);
        let place = second.0.as_ptr();
        drop(second);
        assert_eq!(written(b"third").0.as_ptr(), place);
    }

    #[test]
    fn a_large_buffer_is_not_kept() {
        drop(written(&[7; KEPT + 1]));
        assert_eq!(SCRATCH.take().capacity(), 0);
        drop(written(&[7; KEPT]).into_bytes());
        assert_eq!(SCRATCH.take().capacity(), 0, "who took it has it");
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing_behind() {
        let result = Outgoing::write(|buffer| {
            buffer.extend_from_slice(b"half");
            Err("it cannot be encoded")
        });
        assert_eq!(result.unwrap_err(), "it cannot be encoded");
        assert_eq!(written(b"whole").as_bytes(), b"whole");
    }
}
