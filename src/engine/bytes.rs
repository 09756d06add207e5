//! Messages as C-core holds them: reference-counted slices, read in place and
//! written without a copy where that pays.

use std::ffi::c_void;
use std::io::{self, BufRead, Read};
use std::{ptr, slice};

use grpcio_sys::{
    grpc_byte_buffer, grpc_byte_buffer_destroy, grpc_compression_algorithm,
    grpc_raw_byte_buffer_create, grpc_slice, grpc_slice_from_copied_buffer,
    grpc_slice_new_with_user_data, grpc_slice_unref,
};

/// From here on handing the allocation over is cheaper than copying it.
const COPY_LIMIT: usize = 8 * 1024;

/// How a message is compressed on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    Identity,
    Deflate,
    Gzip,
}

/// A message as it came off the wire.
pub(crate) struct Message(ptr::NonNull<grpc_byte_buffer>);

// SAFETY: C-core's byte buffers are plain data with atomically counted slices.
unsafe impl Send for Message {}
// SAFETY: as above.
unsafe impl Sync for Message {}

impl Message {
    /// Takes over a byte buffer of C-core; `None` if there is none.
    ///
    /// # Safety
    /// `raw` is null or a byte buffer that nobody else owns.
    pub(super) unsafe fn from_raw(raw: *mut grpc_byte_buffer) -> Option<Message> {
        ptr::NonNull::new(raw).map(Message)
    }

    fn slices(&self) -> &[grpc_slice] {
        // SAFETY: the buffer is raw (the only kind there is) and lives as long as self.
        unsafe {
            let buffer = &self.0.as_ref().data.raw.slice_buffer;
            match buffer.count {
                0 => &[],
                count => slice::from_raw_parts(buffer.slices, count),
            }
        }
    }

    /// The size in bytes as received, so compressed if it is.
    pub(crate) fn len(&self) -> usize {
        // SAFETY: as in `slices`.
        unsafe { self.0.as_ref().data.raw.slice_buffer.length }
    }

    /// A message that has come in these pieces, compressed like this.
    #[cfg(test)]
    pub(crate) fn of_pieces<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
        compression: Compression,
    ) -> Message {
        let algorithm = match compression {
            Compression::Identity => grpc_compression_algorithm::GRPC_COMPRESS_NONE,
            Compression::Deflate => grpc_compression_algorithm::GRPC_COMPRESS_DEFLATE,
            Compression::Gzip => grpc_compression_algorithm::GRPC_COMPRESS_GZIP,
        };
        let outgoing: Vec<_> = pieces.into_iter().map(Outgoing::copy).collect();
        let mut slices: Vec<_> = outgoing.iter().map(Outgoing::as_raw).collect();
        // SAFETY: C-core takes references of its own; the buffer is owned here.
        unsafe {
            Message::from_raw(grpcio_sys::grpc_raw_compressed_byte_buffer_create(
                slices.as_mut_ptr(),
                slices.len(),
                algorithm,
            ))
            .expect("a buffer")
        }
    }

    pub(crate) fn compression(&self) -> Compression {
        // SAFETY: as in `slices`.
        match unsafe { self.0.as_ref().data.raw.compression } {
            grpc_compression_algorithm::GRPC_COMPRESS_GZIP => Compression::Gzip,
            grpc_compression_algorithm::GRPC_COMPRESS_DEFLATE => Compression::Deflate,
            _ => Compression::Identity,
        }
    }

    /// The whole message, if it lies in one piece.
    pub(crate) fn contiguous(&self) -> Option<&[u8]> {
        match self.slices() {
            [] => Some(&[]),
            [only] => Some(bytes(only)),
            _ => None,
        }
    }

    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader {
            rest: self.slices(),
            offset: 0,
        }
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: owned, and not used afterwards.
        unsafe { grpc_byte_buffer_destroy(self.0.as_ptr()) }
    }
}

/// Reads a message piece by piece.
pub(crate) struct Reader<'a> {
    rest: &'a [grpc_slice],
    offset: usize,
}

impl BufRead for Reader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while let [first, rest @ ..] = self.rest {
            let piece = bytes(first);
            if self.offset < piece.len() {
                return Ok(&piece[self.offset..]);
            }
            self.rest = rest;
            self.offset = 0;
        }
        Ok(&[])
    }

    fn consume(&mut self, amount: usize) {
        self.offset += amount;
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let amount = available.len().min(out.len());
        out[..amount].copy_from_slice(&available[..amount]);
        self.consume(amount);
        Ok(amount)
    }
}

/// The bytes of a slice, wherever they lie.
pub(super) fn bytes(slice: &grpc_slice) -> &[u8] {
    // SAFETY: a slice without reference count holds its bytes itself; one with
    // points at bytes that live as long as the slice does.
    unsafe {
        if slice.refcount.is_null() {
            let inlined = &slice.data.inlined;
            &inlined.bytes[..usize::from(inlined.length)]
        } else {
            let outside = &slice.data.refcounted;
            slice::from_raw_parts(outside.bytes, outside.length)
        }
    }
}

/// The bytes of a slice that nobody else has, to be written.
#[cfg(feature = "tls")]
pub(super) fn bytes_mut(slice: &mut grpc_slice) -> &mut [u8] {
    // SAFETY: as in `bytes`.
    unsafe {
        if slice.refcount.is_null() {
            let inlined = &mut slice.data.inlined;
            &mut inlined.bytes[..usize::from(inlined.length)]
        } else {
            let outside = &mut slice.data.refcounted;
            slice::from_raw_parts_mut(outside.bytes, outside.length)
        }
    }
}

/// Bytes that C-core is to send.
pub(crate) struct Outgoing(grpc_slice);

// SAFETY: see `Message`.
unsafe impl Send for Outgoing {}

impl Outgoing {
    /// Empties `scratch` into a new slice. A large buffer is handed over, a
    /// small one copied, so that its allocation can be used again.
    pub(crate) fn take(scratch: &mut Vec<u8>) -> Outgoing {
        if scratch.len() < COPY_LIMIT {
            let outgoing = Outgoing::copy(scratch);
            scratch.clear();
            return outgoing;
        }
        let owned = Box::new(std::mem::take(scratch));
        let (bytes, length) = (owned.as_ptr(), owned.len());
        // SAFETY: the bytes do not move with the box, are not written any more,
        // and live until C-core calls `release` with the box.
        Outgoing(unsafe {
            grpc_slice_new_with_user_data(
                bytes as *mut c_void,
                length,
                Some(release),
                Box::into_raw(owned).cast(),
            )
        })
    }

    pub(crate) fn copy(bytes: &[u8]) -> Outgoing {
        // SAFETY: C-core copies `len` bytes.
        Outgoing(unsafe { grpc_slice_from_copied_buffer(bytes.as_ptr().cast(), bytes.len()) })
    }

    /// The size in bytes.
    pub(crate) fn len(&self) -> usize {
        bytes(&self.0).len()
    }

    #[cfg(test)]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        bytes(&self.0)
    }

    pub(super) fn as_raw(&self) -> grpc_slice {
        self.0
    }

    /// A byte buffer with one more reference to these bytes.
    pub(super) fn to_buffer(&self) -> Buffer {
        let mut slice = self.0;
        // SAFETY: C-core takes a reference of its own.
        Buffer(unsafe { grpc_raw_byte_buffer_create(&mut slice, 1) })
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        // SAFETY: owned, and not used afterwards.
        unsafe { grpc_slice_unref(self.0) }
    }
}

unsafe extern "C" fn release(owned: *mut c_void) {
    // SAFETY: it is the box that `take` gave away, and C-core calls this once.
    drop(unsafe { Box::from_raw(owned.cast::<Vec<u8>>()) });
}

/// A byte buffer for the length of a `grpc_call_start_batch`.
pub(super) struct Buffer(*mut grpc_byte_buffer);

impl Buffer {
    pub(super) fn as_raw(&self) -> *mut grpc_byte_buffer {
        self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: C-core moves the slices out when the batch starts, and leaves
        // the buffer to its owner.
        unsafe { grpc_byte_buffer_destroy(self.0) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_in_pieces_is_read_whole() {
        let long = [7u8; 100];
        let message =
            Message::of_pieces([b"ab".as_slice(), b"", &long, b"z"], Compression::Identity);
        let mut read = Vec::new();
        message.reader().read_to_end(&mut read).unwrap();
        assert_eq!(message.len(), 103);
        assert_eq!(read, [b"ab".as_slice(), &long, b"z"].concat());
        assert!(message.contiguous().is_none());
    }

    #[test]
    fn large_buffers_are_handed_over_and_small_ones_copied() {
        for size in [0, 1, 23, 24, COPY_LIMIT - 1, COPY_LIMIT, 1 << 20] {
            let original: Vec<u8> = (0..size).map(|it| it as u8).collect();
            let mut scratch = original.clone();
            let outgoing = Outgoing::take(&mut scratch);
            assert_eq!(bytes(&outgoing.0), original);
            assert!(scratch.is_empty());
        }
    }
    proptest! {
        /// Pieces of up to 23 bytes lie in the slice itself, longer ones outside.
        #[test]
        fn any_pieces_are_read_whole_in_any_steps(
            pieces in vec(vec(any::<u8>(), 0..60), 0..8),
            steps in vec(1..50_usize, 1..8),
        ) {
            let whole = pieces.concat();
            let message =
                Message::of_pieces(pieces.iter().map(Vec::as_slice), Compression::Identity);
            prop_assert_eq!(message.len(), whole.len());
            if let Some(bytes) = message.contiguous() {
                prop_assert_eq!(bytes, &*whole);
            } else {
                prop_assert!(pieces.len() > 1);
            }

            let (mut reader, mut read) = (message.reader(), Vec::new());
            for step in steps.iter().cycle() {
                let mut out = vec![0; *step];
                let amount = reader.read(&mut out).unwrap();
                if amount == 0 {
                    break;
                }
                read.extend_from_slice(&out[..amount]);
            }
            prop_assert_eq!(&read, &whole);

            let (mut reader, mut read) = (message.reader(), Vec::new());
            for step in steps.iter().cycle() {
                let available = reader.fill_buf().unwrap();
                if available.is_empty() {
                    break;
                }
                let amount = available.len().min(*step);
                read.extend_from_slice(&available[..amount]);
                reader.consume(amount);
            }
            prop_assert_eq!(read, whole);
        }

        #[test]
        fn what_is_sent_is_what_was_written_whatever_its_size(
            sizes in vec(prop_oneof![0..100_usize, COPY_LIMIT - 2..COPY_LIMIT + 2, 0..50_000_usize], 1..6),
            seed in any::<u8>(),
        ) {
            let mut scratch = Vec::new();
            let mut sent = Vec::new();
            for size in sizes {
                let original: Vec<u8> = (0..size).map(|it| (it as u8) ^ seed).collect();
                scratch.extend_from_slice(&original);
                sent.push((Outgoing::take(&mut scratch), original));
                prop_assert!(scratch.is_empty());
            }
            // The scratch was used again and again; what was made of it is not touched by that.
            for (outgoing, original) in &sent {
                prop_assert_eq!(bytes(&outgoing.0), &**original);
            }
        }
    }
}
