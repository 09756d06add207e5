//! Messages to bytes and back.

use std::io::{BufRead, Read};

use flate2::bufread::{GzDecoder, ZlibDecoder};
use protobuf::{CodedInputStream, Message as Protobuf};

use crate::calls::{Compression, Look, Message, Outgoing};

use super::status::{Code, Status};

/// Reads a request. `limit` is the size in bytes that a message may have, both as it
/// came and once decompressed.
///
/// The codes are those of gRPC's
/// [`statuscodes.md`](https://github.com/grpc/grpc/blob/master/doc/statuscodes.md).
pub(super) fn decode<Q: Protobuf>(message: &Message, limit: usize) -> Result<Q, Status> {
    decode_seen(message, &message.look(), limit)
}

/// As `decode`, after a look at the message.
pub(super) fn decode_seen<Q: Protobuf>(
    message: &Message,
    look: &Look<'_>,
    limit: usize,
) -> Result<Q, Status> {
    if let Some(fault) = look.fault {
        return Err(Status::new(Code::from_number(fault.code()), fault.text()));
    }
    if look.len > limit {
        return Err(Status::resource_exhausted(format!(
            "the request has {} bytes, and this server takes {limit} at most (max_receive_message_size)",
            look.len
        )));
    }
    let parsed = match look.compression {
        Compression::Identity => match look.whole {
            Some(bytes) => Q::parse_from_bytes(bytes),
            None => {
                let mut reader = message.reader();
                let mut input = CodedInputStream::from_buf_read(&mut reader);
                Q::parse_from(&mut input)
            }
        },
        Compression::Gzip => {
            let inflated = gunzip(message, look.len, limit)?;
            Q::parse_from_bytes(&inflated)
        }
        Compression::Deflate => {
            let mut decoder = ZlibDecoder::new(message.reader());
            let inflated = inflate(&mut decoder, limit)?;
            nothing_behind(decoder.into_inner())?;
            Q::parse_from_bytes(&inflated)
        }
    };
    parsed.map_err(|error| {
        Status::internal(format!(
            "the request cannot be decoded: {error}; compare the caller's .proto with the server's"
        ))
    })
}

/// How many members a gzip may have: so many, and one more for each of so many bytes. An empty member has 20 bytes, and
/// costs as much as it does to decompress some hundreds. What cuts its output into members (bgzip) makes them of 64 KiB.
const MEMBERS: (usize, usize) = (16, 1024);

/// Decompresses the members of a gzip, one behind the other, and nothing else: RFC 1952, 2.2.
fn gunzip(message: &Message, len: usize, limit: usize) -> Result<Vec<u8>, Status> {
    let mut inflated = Vec::new();
    let mut reader = message.reader();
    for _ in 0..MEMBERS.0 + len / MEMBERS.1 {
        let mut decoder = GzDecoder::new(reader);
        inflate_behind(&mut inflated, &mut decoder, limit)?;
        reader = decoder.into_inner();
        if is_at_end(&mut reader) {
            return Ok(inflated);
        }
    }
    Err(Status::resource_exhausted(format!(
        "the request is a gzip of more members than this server takes: {}, and one for each {} bytes",
        MEMBERS.0, MEMBERS.1
    )))
}

fn inflate(reader: impl Read, limit: usize) -> Result<Vec<u8>, Status> {
    let mut inflated = Vec::new();
    inflate_behind(&mut inflated, reader, limit)?;
    Ok(inflated)
}

/// A small message can decompress to a very large one, so the limit is kept here, for all that is in `inflated`.
fn inflate_behind(inflated: &mut Vec<u8>, reader: impl Read, limit: usize) -> Result<(), Status> {
    let most = limit.saturating_sub(inflated.len());
    let most = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(most).read_to_end(inflated).map_err(|error| {
        Status::internal(format!("the request cannot be decompressed: {error}"))
    })?;
    if inflated.len() > limit {
        return Err(Status::resource_exhausted(format!(
            "the request is larger than {limit} bytes once decompressed, which is more than this server takes \
             (max_receive_message_size)"
        )));
    }
    Ok(())
}

/// Decoders stop at the end of what was compressed. A message that goes on behind it is not what
/// its sender meant, and is refused, as C-core's own decompression does.
fn nothing_behind(mut rest: impl BufRead) -> Result<(), Status> {
    match is_at_end(&mut rest) {
        true => Ok(()),
        false => Err(Status::internal(
            "the request cannot be decompressed: it goes on behind its end",
        )),
    }
}

fn is_at_end(rest: &mut impl BufRead) -> bool {
    matches!(rest.fill_buf(), Ok([]))
}

/// Writes a reply.
pub(super) fn encode<R: Protobuf>(reply: &R) -> Result<Outgoing, Status> {
    Outgoing::write(|buffer| reply.write_to_vec(buffer))
        .map_err(|error| Status::internal(format!("the reply cannot be encoded: {error}")))
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Cursor, Write};

    use flate2::write::{GzEncoder, ZlibEncoder};
    use flate2::Compression as Level;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;
    use protobuf::descriptor::FileDescriptorProto;
    use protobuf::well_known_types::wrappers::BytesValue;

    use super::super::status::Code;
    use super::*;

    const PLENTY: usize = 1 << 20;

    fn any_compression() -> impl Strategy<Value = Compression> {
        prop_oneof![
            Just(Compression::Identity),
            Just(Compression::Deflate),
            Just(Compression::Gzip),
        ]
    }

    fn compressed(compression: Compression) -> bool {
        compression != Compression::Identity
    }

    /// Long runs of one byte, which compress well, and noise, which does not.
    fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            vec(any::<u8>(), 0..400),
            (any::<u8>(), 0..100_000_usize).prop_map(|(byte, count)| vec![byte; count]),
        ]
    }

    fn message_of(value: Vec<u8>) -> BytesValue {
        BytesValue {
            value,
            ..Default::default()
        }
    }

    fn compress(bytes: &[u8], compression: Compression) -> Vec<u8> {
        match compression {
            Compression::Identity => bytes.to_vec(),
            Compression::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Level::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Level::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
        }
    }

    /// The message as it may come off the wire, cut at these places.
    fn cut(bytes: &[u8], places: &[Index], compression: Compression) -> Message {
        let mut places: Vec<_> = places.iter().map(|it| it.index(bytes.len() + 1)).collect();
        places.sort_unstable();
        let mut rest = bytes;
        let mut pieces = Vec::new();
        let mut begin = 0;
        for place in places {
            let (piece, other) = rest.split_at(place - begin);
            pieces.push(piece);
            (rest, begin) = (other, place);
        }
        pieces.push(rest);
        Message::of_pieces(pieces, compression)
    }

    proptest! {
        #[test]
        fn a_message_arrives_however_it_was_cut_and_compressed(
            value in any_bytes(),
            compression in any_compression(),
            places in vec(any::<Index>(), 0..6),
        ) {
            let sent = message_of(value);
            let bytes = compress(&sent.write_to_bytes().unwrap(), compression);
            let received: BytesValue = decode(&cut(&bytes, &places, compression), PLENTY).unwrap();
            prop_assert_eq!(received, sent);
        }

        #[test]
        fn a_message_is_decompressed_up_to_the_limit_and_not_a_byte_beyond(
            value in any_bytes(),
            compression in any_compression().prop_filter("compressed", |it| compressed(*it)),
            distance in -3..=3_isize,
        ) {
            let sent = message_of(value);
            let bytes = sent.write_to_bytes().unwrap();
            let limit = bytes.len().saturating_add_signed(distance);
            let wire = compress(&bytes, compression);
            // What has little to compress is longer afterwards, and the limit holds for both.
            let longest = bytes.len().max(wire.len());
            let message = cut(&wire, &[], compression);
            match decode::<BytesValue>(&message, limit) {
                Ok(received) => {
                    prop_assert!(longest <= limit);
                    prop_assert_eq!(received, sent);
                }
                Err(status) => {
                    prop_assert!(longest > limit);
                    prop_assert_eq!(status.code(), Code::ResourceExhausted);
                }
            }
        }

        #[test]
        fn garbage_is_refused_or_read_alike_however_it_was_cut(
            garbage in vec(any::<u8>(), 0..300),
            compression in any_compression(),
            places in vec(any::<Index>(), 0..6),
        ) {
            // Inside an intact wrapping half of the time, or nothing gets past the first byte.
            for bytes in [compress(&garbage, compression), garbage] {
                let whole = decode::<FileDescriptorProto>(&cut(&bytes, &[], compression), PLENTY);
                let pieces = decode::<FileDescriptorProto>(&cut(&bytes, &places, compression), PLENTY);
                match (whole, pieces) {
                    (Ok(whole), Ok(pieces)) => prop_assert_eq!(whole, pieces),
                    (Err(whole), Err(pieces)) => {
                        prop_assert_eq!(whole.code(), Code::Internal);
                        prop_assert_eq!(pieces.code(), Code::Internal);
                    }
                    (whole, pieces) => prop_assert!(false, "{:?} but {:?}", whole, pieces),
                }
            }
        }

        /// RFC 1952, 2.2: as if what is in them were one behind the other.
        #[test]
        fn a_gzip_may_have_several_members(
            value in any_bytes(),
            members in vec(any::<Index>(), 0..6),
            places in vec(any::<Index>(), 0..6),
        ) {
            let sent = message_of(value);
            let bytes = sent.write_to_bytes().unwrap();
            let mut ends: Vec<_> = members.iter().map(|it| it.index(bytes.len() + 1)).collect();
            ends.push(bytes.len());
            ends.sort_unstable();
            let begins = std::iter::once(0).chain(ends.iter().copied());
            let member = |(begin, end): (usize, &usize)| compress(&bytes[begin..*end], Compression::Gzip);
            let wire: Vec<u8> = begins.zip(&ends).flat_map(member).collect();
            let message = cut(&wire, &places, Compression::Gzip);
            prop_assert_eq!(decode::<BytesValue>(&message, PLENTY).unwrap(), sent);
            // The limit is for all of them together.
            let limit = wire.len().max(bytes.len()) - 1;
            prop_assert!(decode::<BytesValue>(&message, limit).is_err());
        }

        #[test]
        fn a_compressed_message_without_its_end_is_refused(
            value in any_bytes(),
            compression in any_compression().prop_filter("compressed", |it| compressed(*it)),
            end in any::<Index>(),
            places in vec(any::<Index>(), 0..6),
        ) {
            let bytes = compress(&message_of(value).write_to_bytes().unwrap(), compression);
            let bytes = &bytes[..end.index(bytes.len())];
            let status = decode::<BytesValue>(&cut(bytes, &places, compression), PLENTY).unwrap_err();
            prop_assert_eq!(status.code(), Code::Internal);
        }

        #[test]
        fn a_compressed_message_with_something_behind_it_is_refused(
            value in any_bytes(),
            behind in vec(any::<u8>(), 1..40),
            compression in any_compression().prop_filter("compressed", |it| compressed(*it)),
            places in vec(any::<Index>(), 0..6),
        ) {
            let mut bytes = compress(&message_of(value).write_to_bytes().unwrap(), compression);
            bytes.extend(behind);
            let status = decode::<BytesValue>(&cut(&bytes, &places, compression), PLENTY).unwrap_err();
            prop_assert_eq!(status.code(), Code::Internal);
        }

        /// Both formats carry a checksum.
        #[test]
        fn a_damaged_message_is_never_taken_for_another(
            value in any_bytes(),
            compression in any_compression().prop_filter("compressed", |it| compressed(*it)),
            place in any::<Index>(),
            damage in 1..=255_u8,
        ) {
            let sent = message_of(value);
            let mut bytes = compress(&sent.write_to_bytes().unwrap(), compression);
            let place = place.index(bytes.len());
            bytes[place] ^= damage;
            if let Ok(received) = decode::<BytesValue>(&cut(&bytes, &[], compression), PLENTY) {
                prop_assert_eq!(received, sent);
            }
        }

        #[test]
        fn a_bomb_without_an_end_is_refused_at_the_limit(limit in 0..PLENTY) {
            // After a flush the encoder's state is that of any block boundary: repeated, the
            // second piece goes on for ever.
            let mut encoder = ZlibEncoder::new(Vec::new(), Level::fast());
            let mut piece = || {
                encoder.write_all(&[0; 50_000]).unwrap();
                encoder.flush().unwrap();
                std::mem::take(encoder.get_mut())
            };
            let (first, second) = (piece(), piece());
            let endless = Cursor::new(first).chain(Endless(Cursor::new(second)));
            let endless = BufReader::new(endless);
            let status = inflate(ZlibDecoder::new(endless), limit).unwrap_err();
            prop_assert_eq!(status.code(), Code::ResourceExhausted);
        }

        #[test]
        fn replies_are_written_as_protobuf_says(values in vec(any_bytes(), 1..5)) {
            // One thread writes them all, into one scratch buffer.
            for value in values {
                let reply = message_of(value);
                let Ok(outgoing) = encode(&reply) else { panic!("it can be encoded") };
                prop_assert_eq!(outgoing.as_bytes(), reply.write_to_bytes().unwrap());
            }
        }
    }

    /// Each costs much more than its 20 bytes.
    #[test]
    fn a_gzip_of_empty_members_is_refused() {
        let empty = compress(&[], Compression::Gzip);
        let members = |count| cut(&empty.repeat(count), &[], Compression::Gzip);
        let few: BytesValue = decode(&members(MEMBERS.0), PLENTY).unwrap();
        assert!(few.value.is_empty());
        let status = decode::<BytesValue>(&members(10_000), PLENTY).unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
    }

    /// The same bytes again and again.
    struct Endless(Cursor<Vec<u8>>);

    impl Read for Endless {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            if self.0.position() == self.0.get_ref().len() as u64 {
                self.0.set_position(0);
            }
            self.0.read(out)
        }
    }
}
