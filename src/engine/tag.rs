//! Tags: what C-core gives back when something has ended that was begun with them.
//!
//! A tag carries a pointer and, in the bits that its alignment leaves free, a kind. So what it points at is aligned to
//! 16 bytes.

use std::ffi::c_void;
use std::ptr;

const KIND_MASK: usize = 0xf;

/// The kinds of tags. Those in between are operations of calls.
pub(super) const KIND_SLOT: usize = 0;
pub(super) const KIND_TURN: usize = 0xc;
pub(super) const KIND_RENEWAL: usize = 0xd;
pub(super) const KIND_CHECK: usize = 0xe;
pub(super) const KIND_SERVER: usize = 0xf;

/// Gives a value away, as a tag of this kind.
///
/// The pointer is one to the value, from `Box::into_raw` or `Arc::into_raw`.
pub(super) fn tag<T>(pointer: *const T, kind: usize) -> *mut c_void {
    const { assert!(align_of::<T>() > KIND_MASK, "no bit is free") };
    debug_assert!(kind <= KIND_MASK);
    pointer.cast_mut().map_addr(|address| address | kind).cast()
}

/// A tag that is its kind, and no more.
pub(super) fn bare(kind: usize) -> *mut c_void {
    ptr::without_provenance_mut(kind)
}

pub(super) fn kind_of(tag: *mut c_void) -> usize {
    tag.addr() & KIND_MASK
}

/// The pointer that [`tag`] was given.
pub(super) fn untagged<T>(tag: *mut c_void) -> *mut T {
    tag.map_addr(|address| address & !KIND_MASK).cast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(align(16))]
    struct Aligned(u8);

    #[test]
    fn a_tag_gives_back_what_it_was_made_of() {
        for kind in 0..=KIND_MASK {
            let tag = tag(Box::into_raw(Box::new(Aligned(7))), kind);
            assert_eq!(kind_of(tag), kind);
            // SAFETY: it was given away above, and comes back once.
            let value = unsafe { Box::from_raw(untagged::<Aligned>(tag)) };
            assert_eq!(value.0, 7);
        }
        assert_eq!(kind_of(bare(5)), 5);
    }
}
