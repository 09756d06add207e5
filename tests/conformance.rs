//! What gRPC's documents ask of a server's reading of messages, against requests that no client library sends.
//! docs/conformance.md is the table of what they ask, with the names of these tests.
#![cfg(feature = "server")]

mod common;
mod conformance_support;

use std::sync::atomic::Ordering;

use common::h2::{RawClient, END_HEADERS, END_STREAM};
use common::*;
use conformance_support::*;

#[test]
fn a_flag_byte_that_grpc_does_not_know_is_internal() {
    let (server, seen) = serve();
    for flag in [2, 3, 4, 0x80, 0x81, 0xff] {
        for path in [UNARY, REPLIES, REQUESTS, BOTH, CHECK] {
            let bad = message(flag, &HI);
            let (client, answer) = call(&server, path, &[], &[&bad]);
            assert_eq!(answer.code(), INTERNAL, "{path}, {flag:#x}: {answer:?}");
            assert!(answer.message().contains("Compressed-Flag"), "{answer:?}");
            assert!(answer.data.is_empty(), "{answer:?}");
            // An empty message with such a flag, END_STREAM by itself, and the flag alone.
            for frames in [&[&message(flag, &[])[..]][..], &[&bad, &[]], &[&[flag]]] {
                let (_, answer) = call(&server, path, &[], frames);
                assert_eq!(answer.code(), INTERNAL, "{path}, {flag:#x}: {answer:?}");
            }
            goes_on(client);
        }
    }
    let calls = 6 * 5;
    // Of a stream the handler is there before its first message; and those that went on.
    let begun = calls + 4 * 2 * 6;
    assert_eq!(seen.begun.load(Ordering::SeqCst), begun);
    assert_eq!(seen.requests.load(Ordering::SeqCst), calls);
}

/// The caller has not ended its request, and waits.
#[test]
fn a_bad_flag_byte_is_answered_at_once() {
    let (server, seen) = serve();
    for path in [UNARY, REQUESTS, BOTH, CHECK] {
        let mut client = begin(&server, path, &[]);
        // Two pieces, of which the first has nothing but the flag.
        let bad = message(9, &HI);
        client.send(&frame(0, 0, 1, &bad[..1]));
        client.send(&frame(0, 0, 1, &bad[1..]));
        assert_eq!(client.answer(1).code(), INTERNAL, "{path}");
        goes_on(client);
    }
    assert_eq!(seen.requests.load(Ordering::SeqCst), 4);
}

#[test]
fn a_bad_message_behind_good_ones_ends_a_stream_with_internal() {
    let (server, seen) = serve();
    for path in [REQUESTS, BOTH] {
        for bad in [
            &message(2, &HI)[..],
            &message(1, &HI),
            &[0, 0, 0],
            &[0, 0, 0, 0, 9, 1],
        ] {
            let before = seen.requests.load(Ordering::SeqCst);
            let good = message(0, &HI);
            let together = [&good[..], bad].concat();
            for frames in [&[&good[..], bad][..], &[&together]] {
                let (_, answer) = call(&server, path, &[], frames);
                assert_eq!(answer.code(), INTERNAL, "{path}, {bad:?}: {answer:?}");
            }
            assert_eq!(seen.requests.load(Ordering::SeqCst), before + 2);
        }
    }
}

#[test]
fn a_request_that_ends_in_the_midst_of_a_message_is_internal() {
    let (server, seen) = serve();
    let whole = message(0, &HI);
    for path in [UNARY, REPLIES, REQUESTS, BOTH, CHECK] {
        for end in 1..whole.len() {
            let (client, answer) = call(&server, path, &[], &[&whole[..end]]);
            assert_eq!(answer.code(), INTERNAL, "{path}, {end}: {answer:?}");
            assert!(answer.message().contains("midst"), "{answer:?}");
            // Byte by byte, and END_STREAM by itself; at once, and one after the other.
            let bytes: Vec<_> = whole[..end].chunks(1).chain([&[][..]]).collect();
            let (_, answer) = call(&server, path, &[], &bytes);
            assert_eq!(answer.code(), INTERNAL, "{path}, {end}: {answer:?}");
            let mut slow = begin(&server, path, &[]);
            for byte in whole[..end].chunks(1) {
                slow.send(&frame(0, 0, 1, byte));
            }
            slow.send(&frame(0, END_STREAM, 1, &[]));
            assert_eq!(slow.answer(1).code(), INTERNAL, "{path}, {end}");
            drop(client);
        }
    }
    assert_eq!(seen.requests.load(Ordering::SeqCst), 0);
}

#[test]
fn a_message_may_be_cut_anywhere() {
    let (server, _) = serve();
    let whole = message(0, &HI);
    let twice = [&whole[..], &whole].concat();
    let bytes: Vec<_> = whole.chunks(1).chain([&[][..]]).collect();
    for path in [UNARY, REPLIES, REQUESTS, BOTH] {
        let (_, answer) = call(&server, path, &[], &bytes);
        assert_eq!((answer.code(), &*answer.data), (OK, &*whole), "{path}");
    }
    // Each piece by itself, and END_STREAM when the message is there.
    for path in [UNARY, REPLIES, REQUESTS, BOTH] {
        let mut client = begin(&server, path, &[]);
        for byte in whole.chunks(1) {
            client.send(&frame(0, 0, 1, byte));
        }
        client.send(&frame(0, END_STREAM, 1, &[]));
        assert_eq!(client.answer(1).code(), OK, "{path}");
    }
    // Trailers end a request, too (RFC 9113, 8.1).
    let mut client = begin(&server, UNARY, &[]);
    client.send(&frame(0, 0, 1, &whole));
    let trailers = field("some", "trailer");
    client.send(&frame(1, END_HEADERS | END_STREAM, 1, &trailers));
    assert_eq!(client.answer(1).code(), OK);
    for end in 1..twice.len() {
        let (_, answer) = call(&server, BOTH, &[], &[&twice[..end], &twice[end..]]);
        assert_eq!((answer.code(), &*answer.data), (OK, &*twice), "{end}");
    }
}

/// "Request cardinality violation", in the words of statuscodes.md.
#[test]
fn another_number_of_messages_than_one_is_unimplemented() {
    let (server, seen) = serve();
    let one = message(0, &HI);
    let two = [&one[..], &one].concat();
    let more = [&one[..], &[0]].concat();
    for path in [UNARY, REPLIES, CHECK] {
        for frames in [&[&one[..], &one][..], &[&two], &[&more], &[&one, &[0], &[]]] {
            let (client, answer) = call(&server, path, &[], frames);
            assert_eq!(answer.code(), UNIMPLEMENTED, "{path}: {answer:?}");
            assert!(answer.message().contains("more than one"), "{answer:?}");
            drop(client);
        }
        let mut client = RawClient::new(&server);
        let none = frame(1, END_HEADERS | END_STREAM, 1, &headers(path, &[]));
        client.send(&none);
        let answer = client.answer(1);
        assert_eq!(answer.code(), UNIMPLEMENTED, "{path}: {answer:?}");
        let (client, answer) = call(&server, path, &[], &[&[]]);
        assert_eq!(answer.code(), UNIMPLEMENTED, "{path}: {answer:?}");
        drop(client);
    }
    assert_eq!(seen.begun.load(Ordering::SeqCst), 0);
    // To a stream, none is as good as any number.
    for path in [REQUESTS, BOTH] {
        assert_eq!(call(&server, path, &[], &[&[]]).1.code(), OK, "{path}");
    }
}

/// compression.md, "Test cases", 6.
#[test]
fn a_compressed_message_without_an_encoding_is_internal() {
    let (server, seen) = serve();
    for path in [UNARY, REPLIES, REQUESTS, BOTH, CHECK] {
        for others in [&[][..], &[("grpc-encoding", Some("identity"))]] {
            for body in [&HI[..], &[]] {
                let (client, answer) = call(&server, path, others, &[&message(1, body)]);
                assert_eq!(answer.code(), INTERNAL, "{path}: {answer:?}");
                assert!(answer.message().contains("Compressed-Flag"), "{answer:?}");
                drop(client);
            }
        }
    }
    assert_eq!(seen.requests.load(Ordering::SeqCst), 0);
}

/// A message of gzip, of two members (RFC 1952, 2.2): `0a 02` and `hi`, in blocks that are stored.
fn two_members() -> Vec<u8> {
    // The checksums are what zlib's crc32() says of the two.
    let member = |content: [u8; 2], crc: u32| {
        let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
        let block = [&[1, 2, 0, !2, !0][..], &content].concat();
        let tail = [crc.to_le_bytes(), 2u32.to_le_bytes()].concat();
        [&head[..], &block, &tail].concat()
    };
    [
        member([0x0a, 2], CRC_OF_PREFIX),
        member(*b"hi", CRC_OF_TEXT),
    ]
    .concat()
}

const CRC_OF_PREFIX: u32 = 0x5538_9b59;
const CRC_OF_TEXT: u32 = 0xd893_2aac;

#[test]
fn gzip_may_have_several_members_and_nothing_else_behind_them() {
    let (server, seen) = serve();
    let gzip = [("grpc-encoding", Some("gzip"))];
    let good = two_members();
    for path in [UNARY, BOTH] {
        let (_, answer) = call(&server, path, &gzip, &[&message(1, &good)]);
        assert_eq!((answer.code(), &*answer.data), (OK, &*message(0, &HI)));
        // Of a message that is not compressed, the encoding says nothing.
        let (_, answer) = call(&server, path, &gzip, &[&message(0, &HI)]);
        assert_eq!(answer.code(), OK);
    }
    let before = seen.requests.load(Ordering::SeqCst);
    let cut = &good[..good.len() - 1];
    let garbage = [&good[..], b"x"].concat();
    for bad in [&b""[..], &HI, cut, &garbage] {
        let (_, answer) = call(&server, BOTH, &gzip, &[&message(1, bad)]);
        assert_eq!(answer.code(), INTERNAL, "{bad:?}: {answer:?}");
    }
    assert_eq!(seen.requests.load(Ordering::SeqCst), before);
}

#[test]
fn large_requests_come_whole() {
    let (server, _) = serve();
    let long = "x".repeat(300);
    let body = [&[0x0a, 0xac, 2][..], long.as_bytes()].concat();
    let whole = message(0, &body);
    let frames: Vec<_> = whole.chunks(7).collect();
    for path in [UNARY, REQUESTS, BOTH] {
        let (_, answer) = call(&server, path, &[], &frames);
        assert_eq!((answer.code(), &*answer.data), (OK, &*whole), "{path}");
    }
}
