//! protobuf's encoding rules, as the server reads them: https://protobuf.dev/programming-guides/encoding/. Each request is
//! bytes, sent back as the server has understood them. docs/conformance.md is the table.
#![cfg(feature = "server")]

mod common;

use common::h2::{RawClient, END_HEADERS, END_STREAM};
use common::*;
use touchdown::protobuf::descriptor::FileDescriptorProto;
use touchdown::protobuf::well_known_types::struct_::{Struct, Value};
use touchdown::protobuf::well_known_types::wrappers::{
    BoolValue, Int32Value, Int64Value, StringValue, UInt64Value,
};
use touchdown::protobuf::Message;
use touchdown::{Call, Server, Service, Status};

const INTERNAL: u32 = 13;

/// `/test.Echo/Say`, for messages of this type.
fn echo_of<M: Message>() -> Server {
    let say = |_: &Call, request: M| Ok::<_, Status>(request);
    start(Service::builder("test.Echo").unary("Say", say).build())
}

/// What the server has understood, or the status code.
fn sent(server: &Server, body: &[u8]) -> Result<Vec<u8>, u32> {
    let mut client = RawClient::new(server);
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let message = [&[0][..], &length, body].concat();
    let headers = call_headers("POST", "/test.Echo/Say");
    client.send(&frame(1, END_HEADERS, 1, &headers));
    client.send(&frame(0, END_STREAM, 1, &message));
    let answer = client.answer(1);
    match answer.code() {
        0 => Ok(answer.data[5..].to_vec()),
        code => {
            assert!(answer.data.is_empty());
            Err(code)
        }
    }
}

fn understood<M: Message>(server: &Server, body: &[u8]) -> M {
    let sent = sent(server, body).unwrap_or_else(|code| panic!("{body:x?}: status {code}"));
    M::parse_from_bytes(&sent).unwrap()
}

fn is_refused(server: &Server, body: &[u8]) {
    assert_eq!(sent(server, body), Err(INTERNAL), "{body:x?}");
}

/// A field of bytes with a low number.
fn field_of(number: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap();
    assert!(length < 0x80 && number < 16);
    [&[number << 3 | 2, length][..], content].concat()
}

#[test]
fn what_is_no_varint_or_no_field_is_refused() {
    let server = echo_of::<UInt64Value>();
    let most = [&[8][..], &[0xff; 9], &[1]].concat();
    assert_eq!(understood::<UInt64Value>(&server, &most).value, u64::MAX);
    // Longer than it has to be is no error.
    assert_eq!(
        understood::<UInt64Value>(&server, &[8, 0x81, 0x80, 0]).value,
        1
    );
    // Eleven bytes; cut short; a field without its value; a length beyond the end.
    is_refused(&server, &[&[8][..], &[0x80; 10], &[1]].concat());
    is_refused(&server, &[8, 0x80]);
    is_refused(&server, &[8]);
    is_refused(&server, &[0x12, 5, b'x']);
    // Field 0, the wire types 6 and 7, the end of a group that has not begun, a group without its end.
    for tag in [0, 1, 2, 0x16, 0x17, 0x1c, 0x1b] {
        is_refused(&server, &[tag, 1, 1, 1, 1, 1, 1, 1, 1]);
    }
}

#[test]
fn negative_numbers_have_ten_bytes_and_any_number_is_a_truth() {
    let server = echo_of::<Int32Value>();
    let of = |body: &[u8]| understood::<Int32Value>(&server, body).value;
    assert_eq!(of(&[&[8][..], &[0xff; 9], &[1]].concat()), -1);
    let server = echo_of::<Int64Value>();
    let of = |body: &[u8]| understood::<Int64Value>(&server, body).value;
    assert_eq!(of(&[&[8][..], &[0xff; 9], &[1]].concat()), -1);
    let server = echo_of::<BoolValue>();
    for (body, value) in [(&[8, 0][..], false), (&[8, 1], true), (&[8, 2], true)] {
        assert_eq!(understood::<BoolValue>(&server, body).value, value);
    }
}

#[test]
fn of_several_values_the_last_counts() {
    let server = echo_of::<StringValue>();
    let twice = [field_of(1, b"one"), field_of(1, b"two")].concat();
    assert_eq!(understood::<StringValue>(&server, &twice).value, "two");
    assert_eq!(understood::<StringValue>(&server, b"").value, "");
    // The members of a oneof are one place, whatever their types: a number, and then a string.
    let server = echo_of::<Value>();
    let number = [&[0x11][..], &1f64.to_le_bytes()].concat();
    let value: Value = understood(&server, &[number, field_of(3, b"text")].concat());
    assert_eq!(value.string_value(), "text");
    // Of the entries of a map with the same key, too; and what an entry lacks is empty.
    let server = echo_of::<Struct>();
    let entry = |text: &[u8]| {
        let value = field_of(2, &field_of(3, text));
        field_of(1, &[field_of(1, b"key"), value].concat())
    };
    let entries = [entry(b"one"), field_of(1, b""), entry(b"two")].concat();
    let map: Struct = understood(&server, &entries);
    assert_eq!(map.fields["key"].string_value(), "two");
    assert!(map.fields.contains_key(""));
}

#[test]
fn lists_may_be_packed_or_not() {
    let server = echo_of::<FileDescriptorProto>();
    // `public_dependency`, one by one, and several at once, in any order with other fields.
    let list = [
        &[0x50, 1][..],
        &field_of(1, b"name"),
        &field_of(10, &[2, 3]),
    ]
    .concat();
    let file: FileDescriptorProto = understood(&server, &list);
    assert_eq!(
        (file.name(), &*file.public_dependency),
        ("name", &[1, 2, 3][..])
    );
}

#[test]
fn text_is_utf_8() {
    let server = echo_of::<StringValue>();
    for good in ["gr\u{fc}n", "\u{1f608}", "\0", "a\r\nb"] {
        let value: StringValue = understood(&server, &field_of(1, good.as_bytes()));
        assert_eq!(value.value, good);
    }
    // A byte alone, half a character, one longer than it has to be, a surrogate, beyond the last.
    let bad: [&[u8]; 5] = [
        b"\xff",
        b"\xc3",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
    ];
    for bad in bad {
        is_refused(&server, &field_of(1, bad));
    }
}

/// A field that the server does not know, or not so, is no error, and goes back as it came.
#[test]
fn what_is_not_known_is_kept() {
    let server = echo_of::<StringValue>();
    let known = field_of(1, b"known");
    let unknown: [&[u8]; 5] = [
        &[0x10, 5],
        &[0x19, 1, 2, 3, 4, 5, 6, 7, 8],
        &[0x25, 1, 2, 3, 4],
        &field_of(7, b"bytes"),
        // Field 1, of another type.
        &[0x08, 5],
    ];
    for unknown in unknown {
        let body = [&known[..], unknown].concat();
        let mut back = sent(&server, &body).unwrap();
        assert_eq!(understood::<StringValue>(&server, &body).value, "known");
        let mut expected = body.clone();
        back.sort_unstable();
        expected.sort_unstable();
        assert_eq!(back, expected, "{unknown:x?}");
    }
    // A number of an enum that it does not know: `null_value` is 0.
    let server = echo_of::<Value>();
    assert_eq!(sent(&server, &[8, 42]).unwrap(), [8, 42]);
}

#[test]
fn what_is_too_deep_is_refused() {
    let server = echo_of::<Value>();
    // `list_value` of `values`, one in the other.
    let nested = |depth: usize| {
        let mut body = Vec::new();
        for _ in 0..depth {
            body = if body.len() < 0x70 {
                let values = field_of(1, &body);
                field_of(6, &values)
            } else {
                let length = |it: usize| vec![it as u8 | 0x80, (it >> 7) as u8];
                let values = [&[0x0a][..], &length(body.len()), &body].concat();
                [&[0x32][..], &length(values.len()), &values].concat()
            };
        }
        body
    };
    // Each step is two messages.
    assert!(sent(&server, &nested(45)).is_ok());
    is_refused(&server, &nested(55));
}

/// Where the library that reads messages does not do what protobuf's rules ask. If this fails, it has learned to, and
/// docs/conformance.md is to say so.
#[test]
fn what_the_library_does_otherwise() {
    // A number that is too large for its type is not cut to its size.
    let server = echo_of::<Int32Value>();
    is_refused(&server, &[8, 0x81, 0x80, 0x80, 0x80, 0x10]);
    // Of a message within that comes twice, the last counts, and they are not merged: `options`, with `java_package`, and
    // again with `go_package`.
    let server = echo_of::<FileDescriptorProto>();
    let java = field_of(8, &field_of(1, b"java"));
    let go = field_of(8, &field_of(11, b"go"));
    let file: FileDescriptorProto = understood(&server, &[java, go].concat());
    let options = (file.options.java_package(), file.options.go_package());
    assert_eq!(options, ("", "go"));
}
