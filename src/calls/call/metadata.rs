//! The metadata of a call, both ways, and how its messages came.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use super::{Call, COMPRESSED, FINISHED, HAS_METADATA, HEADERS_SENT};
use crate::calls::message::Compression;

impl Call {
    /// The request's metadata, in the order in which it came.
    pub(crate) fn metadata(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        (0..).map_while(|index| self.wire.metadata(index))
    }

    /// Remembers how the message came that is being read.
    #[inline]
    pub(crate) fn note_compression(&self, compression: Compression) {
        match compression {
            Compression::Identity if !self.flag(COMPRESSED) => {}
            Compression::Identity => drop(self.flags.fetch_and(!COMPRESSED, Ordering::AcqRel)),
            _ => drop(self.flags.fetch_or(COMPRESSED, Ordering::AcqRel)),
        }
    }

    /// Whether the message that was read last came compressed.
    pub(crate) fn came_compressed(&self) -> bool {
        self.flag(COMPRESSED)
    }

    /// Sets a response header. False if they were sent already.
    pub(crate) fn add_header(&self, name: String, value: Vec<u8>) -> bool {
        let mut stream = self.stream.lock();
        if self.flag(HEADERS_SENT) {
            return false;
        }
        stream.rare().headers.push((name, value));
        self.flags.fetch_or(HAS_METADATA, Ordering::AcqRel);
        true
    }

    /// Sends the response headers now. False if they were sent already.
    pub(crate) fn send_headers(self: &Arc<Self>) -> bool {
        // Held until the operation has begun: `finish` sees `HAS_METADATA` and waits for that.
        let mut stream = self.stream.lock();
        let claim = self
            .flags
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |flags| {
                let is_open = flags & (HEADERS_SENT | FINISHED) == 0;
                is_open.then_some(flags | HEADERS_SENT | HAS_METADATA)
            });
        if claim.is_err() {
            return false;
        }
        let headers = stream.take(|it| &mut it.headers);
        self.wire.send_headers(self, &headers)
    }

    /// Sets a response trailer. False if they were sent already.
    pub(crate) fn add_trailer(&self, name: String, value: Vec<u8>) -> bool {
        let mut stream = self.stream.lock();
        if self.flag(FINISHED) {
            return false;
        }
        stream.rare().trailers.push((name, value));
        self.flags.fetch_or(HAS_METADATA, Ordering::AcqRel);
        true
    }
}
