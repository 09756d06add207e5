//! Operations in C-core's form.

use std::ptr;

use grpcio_sys::{grpc_byte_buffer, grpc_metadata, grpc_op, grpc_op_type};

use super::bytes::Slice;
use super::shim::{touchdown_completion_create, touchdown_completion_destroy, Completion};
use crate::calls::Pair;

/// What was begun on a call; its number travels in the low bits of the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Operation {
    Finish = 1,
    Watch = 2,
    Receive = 3,
    Send = 4,
    Headers = 5,
    /// A finish that was the first to watch, too.
    FinishWatched = 6,
    SendAndTell = 7,
    ReceiveInTurn = 8,
    /// No operation of C-core's: a step that somebody has asked for.
    Step = 9,
}

impl Operation {
    pub(super) fn from_kind(kind: usize) -> Operation {
        match kind {
            1 => Operation::Finish,
            2 => Operation::Watch,
            3 => Operation::Receive,
            4 => Operation::Send,
            5 => Operation::Headers,
            6 => Operation::FinishWatched,
            7 => Operation::SendAndTell,
            8 => Operation::ReceiveInTurn,
            9 => Operation::Step,
            _ => unreachable!("the completion queue gave back a tag that nobody made"),
        }
    }
}

#[inline]
pub(super) fn new_op(op: grpc_op_type) -> grpc_op {
    // SAFETY: a C struct for which all zeros is the documented start.
    let mut new: grpc_op = unsafe { std::mem::zeroed() };
    new.op = op;
    new
}

/// The operation that sends what is in this buffer.
#[inline]
pub(super) fn send_message_op(buffer: *mut grpc_byte_buffer) -> grpc_op {
    let mut op = new_op(grpc_op_type::GRPC_OP_SEND_MESSAGE);
    op.data.send_message.send_message = buffer;
    op
}

/// Metadata in C-core's form.
pub(super) struct Metadata {
    pairs: Vec<grpc_metadata>,
    _owners: Vec<Slice>,
}

impl Metadata {
    #[inline]
    pub(super) fn new(pairs: &[Pair]) -> Metadata {
        if pairs.is_empty() {
            return Metadata {
                pairs: Vec::new(),
                _owners: Vec::new(),
            };
        }
        Metadata::copied(pairs)
    }

    fn copied(pairs: &[Pair]) -> Metadata {
        let mut owners = Vec::with_capacity(pairs.len() * 2);
        let mut own = |bytes: &[u8]| {
            owners.push(Slice::copy(bytes));
            owners[owners.len() - 1].as_raw()
        };
        let pairs = pairs
            .iter()
            .map(|(key, value)| {
                // SAFETY: a C struct whose remaining fields are C-core's own.
                let mut pair: grpc_metadata = unsafe { std::mem::zeroed() };
                pair.key = own(key.as_bytes());
                pair.value = own(value);
                pair
            })
            .collect();
        Metadata {
            pairs,
            _owners: owners,
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.pairs.len()
    }

    #[inline]
    pub(super) fn as_ptr(&self) -> *mut grpc_metadata {
        match self.pairs.as_slice() {
            [] => ptr::null_mut(),
            pairs => pairs.as_ptr().cast_mut(),
        }
    }

    /// The operation that sends it as the headers of the response.
    #[inline]
    pub(super) fn headers_op(&self) -> grpc_op {
        let mut op = new_op(grpc_op_type::GRPC_OP_SEND_INITIAL_METADATA);
        op.data.send_initial_metadata.count = self.pairs.len();
        op.data.send_initial_metadata.metadata = self.as_ptr();
        op
    }
}

/// Where C-core tells the end of an operation, without the queue.
pub(super) struct Told(*mut Completion);

impl Told {
    pub(super) fn as_raw(&self) -> *mut Completion {
        self.0
    }
}

impl Default for Told {
    fn default() -> Told {
        Told(touchdown_completion_create())
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        // SAFETY: ours; an operation that is under way keeps the call, and with it this.
        unsafe { touchdown_completion_destroy(self.0) }
    }
}

// SAFETY: only its address is used, for one operation at a time.
unsafe impl Send for Told {}
// SAFETY: as above.
unsafe impl Sync for Told {}
