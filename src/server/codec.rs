//! Messages to bytes and back.

use std::cell::RefCell;
use std::io::Read;

use flate2::read::{GzDecoder, ZlibDecoder};
use protobuf::{CodedInputStream, Message as Protobuf};

use crate::engine::{Compression, Message, Outgoing};

use super::status::Status;

/// Reads a request. `limit` is the size in bytes that a message may have, both as it
/// came and once decompressed.
///
/// The codes are those of gRPC's
/// [`statuscodes.md`](https://github.com/grpc/grpc/blob/master/doc/statuscodes.md).
pub(super) fn decode<Q: Protobuf>(message: &Message, limit: usize) -> Result<Q, Status> {
    if message.len() > limit {
        return Err(Status::resource_exhausted(format!(
            "the request has {} bytes, and the limit is {limit}",
            message.len()
        )));
    }
    let parsed = match message.compression() {
        Compression::Identity => match message.contiguous() {
            Some(bytes) => Q::parse_from_bytes(bytes),
            None => {
                let mut reader = message.reader();
                let mut input = CodedInputStream::from_buf_read(&mut reader);
                Q::parse_from(&mut input)
            }
        },
        Compression::Gzip => {
            Q::parse_from_bytes(&inflate(GzDecoder::new(message.reader()), limit)?)
        }
        Compression::Deflate => {
            Q::parse_from_bytes(&inflate(ZlibDecoder::new(message.reader()), limit)?)
        }
    };
    parsed.map_err(|error| Status::internal(format!("the request cannot be decoded: {error}")))
}

/// A small message can decompress to a very large one, so the limit is kept here.
fn inflate(reader: impl Read, limit: usize) -> Result<Vec<u8>, Status> {
    let mut inflated = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    reader
        .take(most)
        .read_to_end(&mut inflated)
        .map_err(|error| {
            Status::internal(format!("the request cannot be decompressed: {error}"))
        })?;
    if inflated.len() > limit {
        return Err(Status::resource_exhausted(format!(
            "the request is larger than {limit} bytes once decompressed"
        )));
    }
    Ok(inflated)
}

/// Writes a reply.
pub(super) fn encode<R: Protobuf>(reply: &R) -> Result<Outgoing, Status> {
    thread_local! {
        static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.clear();
        match reply.write_to_vec(scratch) {
            Ok(()) => Ok(Outgoing::take(scratch)),
            Err(error) => Err(Status::internal(format!(
                "the reply cannot be encoded: {error}"
            ))),
        }
    })
}
