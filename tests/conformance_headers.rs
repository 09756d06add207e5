//! What gRPC's documents ask of a server's reading of headers, and of deadlines, against requests that no client library
//! sends. docs/conformance.md is the table of what they ask, with the names of these tests.
#![cfg(feature = "server")]

mod common;
mod conformance_support;

use std::sync::atomic::Ordering;
use std::sync::Arc;

use common::h2::{Answer, END_HEADERS, END_STREAM};
use common::*;
use conformance_support::*;
use touchdown::protobuf::well_known_types::wrappers::StringValue;
use touchdown::{Call, Replies, Requests, Service, Status};

/// compression.md, "Test cases", 4.
#[test]
fn an_encoding_that_is_not_known_is_unimplemented() {
    let (server, seen) = serve();
    for encoding in ["snappy", "br", "GZIP", "gzip,deflate", ""] {
        for path in [UNARY, REPLIES, REQUESTS, BOTH, CHECK] {
            for flag in [0, 1] {
                let others = [("grpc-encoding", Some(encoding))];
                let (client, answer) = call(&server, path, &others, &[&message(flag, &HI)]);
                assert_eq!(answer.code(), UNIMPLEMENTED, "{encoding:?}: {answer:?}");
                let accepted = answer.get("grpc-accept-encoding");
                assert_eq!(accepted, Some("identity, deflate, gzip"));
                assert!(answer.message().contains("identity, deflate and gzip"));
                goes_on(client);
            }
        }
    }
    // Those that went on.
    assert_eq!(seen.begun.load(Ordering::SeqCst), 5 * 5 * 2);
    eventually("they are counted", || server.calls().refused == 5 * 5 * 2);
}

#[test]
fn every_answer_says_which_encodings_are_taken() {
    let (server, _) = serve();
    let one = message(0, &HI);
    let accepts = |answer: &Answer| {
        assert_eq!(
            answer.get("grpc-accept-encoding"),
            Some("identity, deflate, gzip"),
            "{answer:?}"
        );
    };
    for path in [UNARY, REPLIES, REQUESTS, BOTH, CHECK, "/test.Echo/None"] {
        let (mut client, answer) = call(&server, path, &[], &[&one]);
        accepts(&answer);
        // By now the header is in HPACK's table.
        client.send(&frame(1, END_HEADERS, 3, &headers(path, &[])));
        client.send(&frame(0, END_STREAM, 3, &one));
        accepts(&client.answer(3));
        accepts(&call(&server, path, &[], &[&message(2, &HI)]).1);
    }
}

#[test]
fn what_is_not_grpc_by_its_content_type_gets_415() {
    let (server, seen) = serve();
    let others = [
        Some("application/json"),
        Some("application/grpc-web"),
        Some("application/grpc-web+proto"),
        Some("application/grpcx"),
        Some("Application/Grpc"),
        Some("text/plain"),
        Some(""),
        None,
    ];
    for content_type in others {
        for path in [UNARY, BOTH, CHECK] {
            let others = [("content-type", content_type)];
            let (client, answer) = call(&server, path, &others, &[&message(0, &HI)]);
            assert_eq!(answer.get(":status"), Some("415"), "{content_type:?}");
            assert_eq!(answer.code(), INTERNAL, "{answer:?}");
            goes_on(client);
        }
    }
    assert_eq!(seen.begun.load(Ordering::SeqCst), 8 * 3);
    for content_type in [
        "application/grpc",
        "application/grpc+proto",
        "application/grpc+json",
        "application/grpc;charset=utf-8",
    ] {
        let others = [("content-type", Some(content_type))];
        let (_, answer) = call(&server, UNARY, &others, &[&message(0, &HI)]);
        assert_eq!(answer.get(":status"), Some("200"), "{content_type}");
        assert_eq!(answer.get("content-type"), Some("application/grpc"));
        assert_eq!(answer.code(), OK, "{content_type}");
    }
}

#[test]
fn another_method_of_http_is_unimplemented() {
    let (server, seen) = serve();
    for method in ["GET", "PUT", "HEAD", "OPTIONS", "post"] {
        let others = [(":method", Some(method))];
        let (client, answer) = call(&server, UNARY, &others, &[&message(0, &HI)]);
        assert_eq!(answer.code(), UNIMPLEMENTED, "{method}: {answer:?}");
        assert!(answer.message().contains("POST"), "{answer:?}");
        goes_on(client);
    }
    assert_eq!(seen.begun.load(Ordering::SeqCst), 5);
}

#[test]
fn a_malformed_timeout_is_internal() {
    let (server, seen) = serve();
    for timeout in [
        "-1S",
        "+1S",
        "123456789S",
        "000000001S",
        "1",
        "S",
        "",
        "1s",
        "1h",
        "1x",
        "1 S",
        " 1S",
        "1S ",
        "1SS",
        "0x1S",
        "1.5S",
        "\u{661}S",
    ] {
        for path in [UNARY, BOTH, CHECK] {
            let others = [("grpc-timeout", Some(timeout))];
            let (client, answer) = call(&server, path, &others, &[&message(0, &HI)]);
            assert_eq!(answer.code(), INTERNAL, "{timeout:?}: {answer:?}");
            assert!(answer.message().contains("grpc-timeout"), "{answer:?}");
            goes_on(client);
        }
    }
    assert_eq!(seen.begun.load(Ordering::SeqCst), 17 * 3);
    for timeout in [
        "99999999H",
        "1H",
        "20M",
        "99999999m",
        "99999999u",
        "00000060S",
    ] {
        let others = [("grpc-timeout", Some(timeout))];
        let (_, answer) = call(&server, UNARY, &others, &[&message(0, &HI)]);
        assert_eq!(answer.code(), OK, "{timeout}");
    }
}

#[test]
fn a_call_without_time_is_not_run() {
    let (server, seen) = serve();
    for timeout in ["0H", "0M", "0S", "0m", "0u", "0n", "00000000m"] {
        for path in [UNARY, REPLIES, REQUESTS, BOTH, CHECK] {
            let others = [("grpc-timeout", Some(timeout))];
            let (_, answer) = call(&server, path, &others, &[&message(0, &HI)]);
            assert_eq!(answer.code(), DEADLINE_EXCEEDED, "{timeout}, {path}");
        }
    }
    assert_eq!(seen.begun.load(Ordering::SeqCst), 0);
}

/// Whatever the handler says, and whether it has heard of the deadline or not.
#[test]
fn an_answer_after_the_deadline_is_deadline_exceeded() {
    let wait = |call: &Call| {
        assert!(call.token().wait_timeout(LONG), "the deadline passes");
    };
    let service = Service::builder("test.Echo")
        .unary("Say", move |call: &Call, request: StringValue| {
            wait(call);
            match &*request.value {
                "hi" => Ok(request),
                _ => Err(Status::cancelled("nobody waits for this any more")),
            }
        })
        .bidirectional(
            "Chat",
            move |call: &Call, _: Requests<StringValue>, _: Replies<StringValue>| {
                wait(call);
                Ok(())
            },
        )
        .build();
    let server = start(service);
    let others = [("grpc-timeout", Some("50m"))];
    for (path, body) in [(UNARY, &HI[..]), (UNARY, &[]), (BOTH, &HI)] {
        let (_, answer) = call(&server, path, &others, &[&message(0, body)]);
        assert_eq!(answer.code(), DEADLINE_EXCEEDED, "{path}: {answer:?}");
        assert_eq!((answer.reset, answer.data.len()), (None, 0), "{answer:?}");
        assert!(!answer.message().is_empty());
    }
    eventually("all have landed", || server.in_flight() == 0);
}

/// A service that answers with the values of `x-a`, each in brackets, and with how many entries there are of it.
fn metadata_service() -> Service {
    Service::builder("test.Echo")
        .unary("Say", |call: &Call, _: StringValue| {
            let metadata = call.metadata();
            let values: Vec<_> = metadata
                .get_all("x-a")
                .map(|it| format!("[{it}]"))
                .collect();
            let count = metadata.iter().filter(|it| it.0 == "x-a").count();
            // What came may go back as it is.
            for (name, value) in metadata.iter().filter(|it| it.0 == "x-a") {
                call.set_trailer(name, value)
                    .map_err(|it| Status::internal(it.to_string()))?;
            }
            Ok::<_, Status>(text(format!("{count}{}", values.concat())))
        })
        .build()
}

#[test]
fn a_value_that_http_does_not_allow_reaches_no_handler() {
    let server = start(metadata_service());
    for byte in ('\0'..' ').chain(['\x7f']).filter(|it| *it != '\t') {
        for value in [
            format!("{byte}"),
            format!("a{byte}b"),
            format!("{}{byte}", "x".repeat(90)),
        ] {
            for name in ["x-a", "user-agent"] {
                let others = [(name, Some(&*value))];
                let (client, answer) = call(&server, UNARY, &others, &[&message(0, &HI)]);
                assert_eq!(answer.code(), INTERNAL, "{value:?}: {answer:?}");
                assert!(answer.message().contains("metadata"), "{answer:?}");
                drop(client);
            }
        }
    }
}

/// With a status, so that its caller learns why; and whatever else is on the connection goes on.
#[test]
fn a_header_that_cannot_be_read_is_internal() {
    let server = start(metadata_service());
    for (name, value) in [
        ("x-bin", "!"),
        ("x-bin", "AAECA"),
        ("x-bin", "AAE=,AgM="),
        ("grpc-tags-bin", "%"),
        ("x name", "1"),
        ("x\u{e9}", "1"),
        ("X-Upper", "1"),
        ("te", "gzip"),
        (":scheme", "ftp"),
        ("grpc-previous-rpc-attempts", "many"),
    ] {
        let others = [("x-a", Some("1")), (name, Some(value)), ("x-b", Some("2"))];
        let (mut client, answer) = call(&server, UNARY, &others, &[&message(0, &HI)]);
        assert_eq!(answer.code(), INTERNAL, "{name}: {value}: {answer:?}");
        assert!(answer.message().contains("header"), "{answer:?}");
        client.send(&frame(1, END_HEADERS, 3, &headers(UNARY, &[])));
        client.send(&frame(0, END_STREAM, 3, &message(0, &HI)));
        assert_eq!(client.answer(3).code(), OK, "{name}: {value}");
    }
}

/// "Implementations must not error due to receiving an invalid ASCII-Value that's a valid field-value in HTTP … they may
/// throw the value away", and "care must be taken to make sure that the application is permitted to echo the value back".
#[test]
fn a_value_that_http_allows_and_grpc_does_not_is_thrown_away() {
    let server = start(metadata_service());
    for (value, seen) in [
        ("plain ~", "1[plain ~]"),
        ("", "1[]"),
        ("  both ends ", "1[both ends]"),
        ("a\tb", "0"),
        ("gr\u{fc}n", "0"),
    ] {
        let others = [("x-a", Some(value))];
        let (_, answer) = call(&server, UNARY, &others, &[&message(0, &HI)]);
        assert_eq!(answer.code(), OK, "{value:?}: {answer:?}");
        let told = std::str::from_utf8(&answer.data[7..]).unwrap();
        assert_eq!(told, seen, "{value:?}");
    }
    let others = [
        ("x-a", Some("1")),
        ("x-a", Some("\u{e9}")),
        ("x-a", Some("2")),
    ];
    let (_, answer) = call(&server, UNARY, &others, &[&message(0, &HI)]);
    assert_eq!(&answer.data[7..], b"2[1][2]");
}

#[test]
fn binary_values_are_taken_with_padding_and_without() {
    let service = Service::builder("test.Echo")
        .unary("Say", |call: &Call, _: StringValue| {
            let value = call.metadata().get_bin("x-bin");
            Ok::<_, Status>(text(format!("{value:?}")))
        })
        .build();
    let server = start(service);
    for value in ["AAECCg==", "AAECCg"] {
        let others = [("x-bin", Some(value))];
        let (_, answer) = call(&server, UNARY, &others, &[&message(0, &HI)]);
        // Whatever the bytes are: these are a zero and a line break, too.
        assert_eq!(&answer.data[7..], b"Some([0, 1, 2, 10])", "{value}");
    }
}

/// What a peer sends must not look like a line of the server's own.
#[test]
fn a_path_with_line_breaks_is_one_line_wherever_it_is_told() {
    let (server, _) = serve();
    for path in [
        "/test.Echo/None\nERROR: all is lost",
        "/a\r\nb",
        "no slash",
        "/\0/",
        "?",
        "",
    ] {
        let (client, answer) = call(&server, path, &[], &[&message(0, &HI)]);
        assert_eq!(answer.code(), UNIMPLEMENTED, "{path:?}: {answer:?}");
        for control in ["%0A", "%0D", "%00"] {
            assert!(!answer.message().contains(control), "{answer:?}");
        }
        goes_on(client);
    }
}

#[test]
fn the_observers_hear_why() {
    use std::sync::Mutex;
    use touchdown::{CallObserver, CallRefusal, RefusalReason};

    #[derive(Default)]
    struct Reasons(Mutex<Vec<(String, RefusalReason)>>);
    impl CallObserver for Reasons {
        fn refused(&self, call: &Call, refusal: &CallRefusal) {
            let mut reasons = self.0.lock().unwrap();
            reasons.push((call.method().to_owned(), refusal.reason));
        }
    }
    let reasons = Arc::<Reasons>::default();
    let builder = builder(echo()).observer(Arc::clone(&reasons));
    let server = builder.start().unwrap();
    let one = message(0, &HI);
    for (others, frames, reason) in [
        (
            &[("content-type", Some("text/plain"))][..],
            &[&one[..]][..],
            RefusalReason::Malformed,
        ),
        (
            &[("grpc-timeout", Some("1"))],
            &[&one],
            RefusalReason::Malformed,
        ),
        (
            &[("grpc-encoding", Some("br"))],
            &[&one],
            RefusalReason::Malformed,
        ),
        (&[("x-a", Some("\n"))], &[&one], RefusalReason::Malformed),
        (&[], &[&message(7, &HI)], RefusalReason::Malformed),
        (&[], &[&one, &one], RefusalReason::Malformed),
        (&[], &[&[]], RefusalReason::NoRequest),
        (
            &[("grpc-timeout", Some("0S"))],
            &[&one],
            RefusalReason::Expired,
        ),
        (
            &[(":path", Some("/test.Echo/None"))],
            &[&one],
            RefusalReason::UnknownMethod,
        ),
    ] {
        let path = others.iter().find(|it| it.0 == ":path");
        let path = path.and_then(|it| it.1).unwrap_or(UNARY);
        drop(call(&server, UNARY, others, frames));
        eventually("it is told", || !reasons.0.lock().unwrap().is_empty());
        let told = reasons.0.lock().unwrap().pop();
        assert_eq!(told, Some((path.to_owned(), reason)), "{others:?}");
    }
}
