//! Bytes as C-core holds them: reference-counted slices, read in place and
//! written without a copy where that pays.

use std::ffi::c_void;
use std::marker::PhantomPinned;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::pin::Pin;
use std::{ptr, slice};

use grpcio_sys::{
    grpc_byte_buffer, grpc_byte_buffer_destroy, grpc_byte_buffer_type, grpc_compression_algorithm,
    grpc_slice, grpc_slice_buffer_add, grpc_slice_buffer_destroy, grpc_slice_buffer_init,
    grpc_slice_from_copied_buffer, grpc_slice_new_with_user_data, grpc_slice_unref,
};

use super::guard::stand_in::stands_for;
use super::shim::touchdown_flaws;
use crate::calls::{Compression, Fault, Keeper, Kept, Look, Message, Outgoing};

/// From here on handing the allocation over is cheaper than copying it.
const COPY_LIMIT: usize = 8 * 1024;

/// Keeps messages as C-core's byte buffers. Nothing outside of this file can name it, so each message that it is asked
/// for is one that [`received`] has made.
struct ByteBuffers;

/// Takes over a byte buffer of C-core; `None` if there is none.
///
/// # Safety
/// `raw` is null or a byte buffer that nobody else owns.
#[inline]
pub(super) unsafe fn received(raw: *mut grpc_byte_buffer) -> Option<Message> {
    // C-core's byte buffers are plain data with atomically counted slices: any thread may have them.
    (!raw.is_null()).then(|| Message::new(Kept(raw.expose_provenance()), &ByteBuffers))
}

/// What is wrong with the message in this buffer: see `cc/messages.h`. `None` also if there is no buffer.
///
/// # Safety
/// `raw` is null or a byte buffer.
#[inline]
pub(super) unsafe fn fault_of(raw: *const grpc_byte_buffer) -> Option<Fault> {
    // SAFETY: as the caller promises; raw is the only kind of buffer there is.
    let slices = unsafe { &raw.as_ref()?.data.raw.slice_buffer };
    // SAFETY: it has so many.
    (slices.count == 1).then(|| fault_in(unsafe { &*slices.slices }))?
}

/// What stands for a message that is none lies at an address that no message has.
#[inline]
fn fault_in(only: &grpc_slice) -> Option<Fault> {
    if only.refcount.is_null() {
        return None;
    }
    // SAFETY: a slice with a reference count points at its bytes.
    let at = unsafe { only.data.refcounted.bytes };
    let flaws = &raw const touchdown_flaws;
    match at.addr().wrapping_sub(flaws.addr()) {
        0 => Some(Fault::Flag),
        1 => Some(Fault::NoEncoding),
        2 => Some(Fault::CutShort),
        3 => Some(Fault::More),
        _ => None,
    }
}

fn buffer(kept: &Kept) -> &grpc_byte_buffer {
    // SAFETY: from `received`, and not destroyed as long as there is the message.
    unsafe { &*ptr::with_exposed_provenance(kept.0) }
}

fn slices(kept: &Kept) -> &[grpc_slice] {
    // SAFETY: the buffer is raw (the only kind there is), and has so many slices, which live as long as it does.
    unsafe {
        let buffer = &buffer(kept).data.raw.slice_buffer;
        match buffer.count {
            0 => &[],
            count => slice::from_raw_parts(buffer.slices, count),
        }
    }
}

impl Keeper for ByteBuffers {
    fn len(&self, kept: &Kept) -> usize {
        // SAFETY: the buffer is raw (the only kind there is).
        unsafe { buffer(kept).data.raw.slice_buffer.length }
    }

    fn look<'a>(&self, kept: &'a Kept) -> Look<'a> {
        // SAFETY: as in `len`.
        let compression = match unsafe { buffer(kept).data.raw.compression } {
            grpc_compression_algorithm::GRPC_COMPRESS_GZIP => Compression::Gzip,
            grpc_compression_algorithm::GRPC_COMPRESS_DEFLATE => Compression::Deflate,
            _ => Compression::Identity,
        };
        let slices = slices(kept);
        let stands_for = stands_for(slices.iter().map(bytes));
        let fault = match (slices, stands_for) {
            (_, Some(0)) => Some(Fault::NoRoom),
            ([only], _) => fault_in(only),
            _ => None,
        };
        let whole = match slices {
            [] => Some(&[][..]),
            [only] => Some(bytes(only)),
            _ => None,
        };
        Look {
            len: stands_for.unwrap_or_else(|| self.len(kept)),
            compression,
            fault,
            whole,
        }
    }

    fn piece<'a>(&self, kept: &'a Kept, index: usize) -> Option<&'a [u8]> {
        slices(kept).get(index).map(bytes)
    }

    fn let_go(&self, kept: &Kept) {
        // SAFETY: from `received`, owned, and not used afterwards.
        unsafe { grpc_byte_buffer_destroy(ptr::with_exposed_provenance_mut(kept.0)) }
    }
}

/// The bytes of a slice, wherever they lie.
#[inline]
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

/// Bytes for C-core.
pub(super) struct Slice(grpc_slice);

// SAFETY: plain data, whose references are counted atomically.
unsafe impl Send for Slice {}

impl Slice {
    #[inline]
    pub(super) fn copy(bytes: &[u8]) -> Slice {
        // SAFETY: C-core copies `len` bytes.
        Slice(unsafe { grpc_slice_from_copied_buffer(bytes.as_ptr().cast(), bytes.len()) })
    }

    /// A message that is to be sent. A large buffer is handed over, a small one copied, so that its allocation can be
    /// used again.
    #[inline]
    pub(super) fn of_message(message: Outgoing) -> Slice {
        if message.as_bytes().len() < COPY_LIMIT {
            return Slice::copy(message.as_bytes());
        }
        let owned = Box::new(message.into_bytes());
        let (bytes, length) = (owned.as_ptr(), owned.len());
        // SAFETY: the bytes do not move with the box, are not written any more,
        // and live until C-core calls `release` with the box.
        Slice(unsafe {
            grpc_slice_new_with_user_data(
                bytes as *mut c_void,
                length,
                Some(release),
                Box::into_raw(owned).cast(),
            )
        })
    }

    #[inline]
    pub(super) fn as_raw(&self) -> grpc_slice {
        self.0
    }

    /// The slice, with the one reference to it.
    #[inline]
    fn into_raw(self) -> grpc_slice {
        ManuallyDrop::new(self).0
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        // SAFETY: owned, and not used afterwards.
        unsafe { grpc_slice_unref(self.0) }
    }
}

unsafe extern "C" fn release(owned: *mut c_void) {
    // SAFETY: it is the box that `of_message` gave away, and C-core calls this once.
    drop(unsafe { Box::from_raw(owned.cast::<Vec<u8>>()) });
}

/// A byte buffer for the length of a `grpc_call_start_batch`, which moves the slices out of it. It has room for its
/// slices in itself, and points there once it is filled: so it takes no allocation, and stays where it is from then on.
pub(super) struct Buffer {
    raw: MaybeUninit<grpc_byte_buffer>,
    is_filled: bool,
    _pinned: PhantomPinned,
}

impl Buffer {
    pub(super) fn new() -> Buffer {
        Buffer {
            raw: MaybeUninit::uninit(),
            is_filled: false,
            _pinned: PhantomPinned,
        }
    }

    /// Puts a message in, the only one.
    #[inline]
    pub(super) fn fill(self: Pin<&mut Self>, slice: Slice) -> *mut grpc_byte_buffer {
        assert!(!self.is_filled);
        // SAFETY: it is not moved out of.
        let this = unsafe { self.get_unchecked_mut() };
        let raw = this.raw.as_mut_ptr();
        // SAFETY: the memory is ours, and every field is written but for the room for slices, of which none is used
        // yet; the slice is given away.
        unsafe {
            (&raw mut (*raw).reserved).write(ptr::null_mut());
            (&raw mut (*raw).type_).write(grpc_byte_buffer_type::GRPC_BB_RAW);
            (&raw mut (*raw).data.raw.compression)
                .write(grpc_compression_algorithm::GRPC_COMPRESS_NONE);
            let slices = &raw mut (*raw).data.raw.slice_buffer;
            grpc_slice_buffer_init(slices);
            grpc_slice_buffer_add(slices, slice.into_raw());
        }
        this.is_filled = true;
        raw
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.is_filled {
            let raw = self.raw.as_mut_ptr();
            // SAFETY: made by `fill`, and where it was then: nobody moves it in between.
            unsafe { grpc_slice_buffer_destroy(&raw mut (*raw).data.raw.slice_buffer) }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::calls::is_read_whole_in_steps;

    fn message_of<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
        algorithm: grpc_compression_algorithm,
    ) -> Message {
        let slices: Vec<_> = pieces.into_iter().map(Slice::copy).collect();
        let mut slices: Vec<_> = slices.iter().map(Slice::as_raw).collect();
        // SAFETY: C-core takes references of its own; the buffer is owned here.
        let message = unsafe {
            received(grpcio_sys::grpc_raw_compressed_byte_buffer_create(
                slices.as_mut_ptr(),
                slices.len(),
                algorithm,
            ))
        };
        message.expect("a buffer")
    }

    fn outgoing(written: &[u8]) -> Outgoing {
        let write = |buffer: &mut Vec<u8>| {
            buffer.extend_from_slice(written);
            Ok::<_, ()>(())
        };
        Outgoing::write(write).unwrap()
    }

    #[test]
    fn how_a_message_is_compressed_is_told() {
        for (algorithm, expected) in [
            (
                grpc_compression_algorithm::GRPC_COMPRESS_NONE,
                Compression::Identity,
            ),
            (
                grpc_compression_algorithm::GRPC_COMPRESS_GZIP,
                Compression::Gzip,
            ),
            (
                grpc_compression_algorithm::GRPC_COMPRESS_DEFLATE,
                Compression::Deflate,
            ),
        ] {
            assert_eq!(message_of([], algorithm).look().compression, expected);
        }
    }

    #[test]
    fn large_buffers_are_handed_over_and_small_ones_copied() {
        for size in [0, 1, 23, 24, COPY_LIMIT - 1, COPY_LIMIT, 1 << 20] {
            let original: Vec<u8> = (0..size).map(|it| it as u8).collect();
            let message = outgoing(&original);
            let place = message.as_bytes().as_ptr();
            let slice = Slice::of_message(message);
            assert_eq!(bytes(&slice.0), original);
            assert_eq!(bytes(&slice.0).as_ptr() == place, size >= COPY_LIMIT);
        }
    }

    #[test]
    fn a_buffer_that_is_filled_holds_the_message_and_lets_go_of_it() {
        for size in [0, 23, COPY_LIMIT - 1, COPY_LIMIT] {
            let original = vec![7; size];
            let mut buffer = pin!(Buffer::new());
            let raw = buffer.as_mut().fill(Slice::of_message(outgoing(&original)));
            // SAFETY: filled just now, and not moved.
            let slices = unsafe { &(*raw).data.raw.slice_buffer };
            assert_eq!((slices.count, slices.length), (1, size));
            // SAFETY: there is one.
            assert_eq!(bytes(unsafe { &*slices.slices }), original);
        }
    }

    proptest! {
        /// Pieces of up to 23 bytes lie in the slice itself, longer ones outside.
        #[test]
        fn any_pieces_are_read_whole_in_any_steps(
            pieces in vec(vec(any::<u8>(), 0..60), 0..8),
            steps in vec(1..50_usize, 1..8),
        ) {
            let slices = pieces.iter().map(Vec::as_slice);
            let message = message_of(slices, grpc_compression_algorithm::GRPC_COMPRESS_NONE);
            prop_assert!(message.look().whole.is_some() || pieces.len() > 1);
            is_read_whole_in_steps(&message, &pieces.concat(), &steps);
        }

        #[test]
        fn what_is_sent_is_what_was_written_whatever_its_size(
            sizes in vec(prop_oneof![0..100_usize, COPY_LIMIT - 2..COPY_LIMIT + 2, 0..50_000_usize], 1..6),
            seed in any::<u8>(),
        ) {
            let mut sent = Vec::new();
            for size in sizes {
                let original: Vec<u8> = (0..size).map(|it| (it as u8) ^ seed).collect();
                sent.push((Slice::of_message(outgoing(&original)), original));
            }
            // The buffers were used again and again; what was made of them is not touched by that.
            for (slice, original) in &sent {
                prop_assert_eq!(bytes(&slice.0), &**original);
            }
        }
    }
}
