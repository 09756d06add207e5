//! Spans as OTLP has them: an `ExportTraceServiceRequest` of [opentelemetry-proto
//! 1.11](https://github.com/open-telemetry/opentelemetry-proto/tree/v1.11.0), whose messages for traces are stable.
//! They are few, so they are written by hand, and no generated code is needed.

use std::io;

use touchdown::protobuf::rt::WireType;
use touchdown::protobuf::{CodedInputStream, CodedOutputStream, Result};

use super::context::SAMPLED;
use super::span::{attribute, is_error, Event, Span, Value, GRPC, OTHER, SCHEMA_URL};

/// What the spans are of.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ResourceValue {
    Text(String),
    Number(i64),
}

/// The attributes of the program.
pub(super) type Resource = Vec<(String, ResourceValue)>;

/// `Span.SpanKind.SPAN_KIND_SERVER`.
const SERVER: i32 = 2;

/// `Status.StatusCode.STATUS_CODE_ERROR`.
const ERROR: i32 = 2;

/// Flags of a span beside those of its context: whether it is known if the parent is in another process, and that it
/// is.
const KNOWS_IF_REMOTE: u32 = 1 << 8;
const IS_REMOTE: u32 = 1 << 9;

type Out<'a> = CodedOutputStream<'a>;

/// The request by which these spans are sent.
pub(super) fn request(resource: &Resource, spans: &[Span]) -> Result<Vec<u8>> {
    bytes(|out| {
        // resource_spans
        message(out, 1, |out| {
            message(out, 1, |out| {
                resource.iter().try_for_each(|(key, value)| match value {
                    ResourceValue::Text(text) => pair(out, 1, key, |out| out.write_string(1, text)),
                    ResourceValue::Number(it) => pair(out, 1, key, |out| out.write_int64(3, *it)),
                })
            })?;
            // scope_spans
            message(out, 2, |out| {
                message(out, 1, |out| {
                    out.write_string(1, env!("CARGO_PKG_NAME"))?;
                    out.write_string(2, env!("CARGO_PKG_VERSION"))
                })?;
                spans
                    .iter()
                    .try_for_each(|span| message(out, 2, |out| write(out, span)))?;
                out.write_string(3, SCHEMA_URL)
            })?;
            out.write_string(3, SCHEMA_URL)
        })
    })
}

fn write(out: &mut Out<'_>, span: &Span) -> Result<()> {
    let context = &span.context;
    out.write_bytes(1, &context.trace_id().to_bytes())?;
    out.write_bytes(2, &context.span_id().to_bytes())?;
    if !context.tracestate().is_empty() {
        out.write_string(3, context.tracestate())?;
    }
    if let Some(parent) = span.parent {
        out.write_bytes(4, &parent.to_bytes())?;
    }
    out.write_string(5, span.method.as_deref().unwrap_or(GRPC))?;
    out.write_enum(6, SERVER)?;
    out.write_fixed64(7, span.start)?;
    out.write_fixed64(8, span.end)?;
    attributes(out, span)?;
    for event in &span.events {
        message(out, 11, |out| write_event(out, event))?;
    }
    if is_error(span.code) {
        message(out, 15, |out| {
            if !span.message.is_empty() {
                out.write_string(2, &span.message)?;
            }
            out.write_enum(3, ERROR)
        })?;
    }
    let remote = span.parent.map_or(0, |_| IS_REMOTE);
    let flags = u32::from(context.flags() | SAMPLED) | KNOWS_IF_REMOTE | remote;
    out.write_fixed32(16, flags)
}

fn attributes(out: &mut Out<'_>, span: &Span) -> Result<()> {
    let code = span.code.as_str();
    text(out, attribute::SYSTEM, GRPC)?;
    text(
        out,
        attribute::METHOD,
        span.method.as_deref().unwrap_or(OTHER),
    )?;
    text(out, attribute::STATUS_CODE, code)?;
    if is_error(span.code) {
        text(out, attribute::ERROR_TYPE, code)?;
    }
    if let Some(peer) = &span.peer {
        text(out, attribute::PEER_ADDRESS, &peer.address)?;
        if let Some(port) = peer.port {
            pair(out, 9, attribute::PEER_PORT, |out| {
                out.write_int64(3, port.into())
            })?;
        }
    }
    Ok(())
}

fn write_event(out: &mut Out<'_>, event: &Event) -> Result<()> {
    out.write_fixed64(1, event.at)?;
    out.write_string(2, event.name)?;
    match event.attribute {
        Some((key, Value::Text(value))) => pair(out, 3, key, |out| out.write_string(1, value)),
        Some((key, Value::Seconds(value))) => pair(out, 3, key, |out| out.write_double(4, value)),
        None => Ok(()),
    }
}

/// An attribute of a span.
fn text(out: &mut Out<'_>, key: &str, value: &str) -> Result<()> {
    pair(out, 9, key, |out| out.write_string(1, value))
}

/// A `KeyValue`, whose `AnyValue` is written by `value`.
fn pair(
    out: &mut Out<'_>,
    field: u32,
    key: &str,
    value: impl FnOnce(&mut Out<'_>) -> Result<()>,
) -> Result<()> {
    message(out, field, |out| {
        out.write_string(1, key)?;
        message(out, 2, value)
    })
}

/// A message in another: its length stands before it, so it is written apart.
fn message(
    out: &mut Out<'_>,
    field: u32,
    write: impl FnOnce(&mut Out<'_>) -> Result<()>,
) -> Result<()> {
    out.write_bytes(field, &bytes(write)?)
}

fn bytes(write: impl FnOnce(&mut Out<'_>) -> Result<()>) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(128);
    let mut out = CodedOutputStream::vec(&mut bytes);
    write(&mut out)?;
    out.flush()?;
    drop(out);
    Ok(bytes)
}

/// What a collector says that has taken a request, but perhaps not all of it: how many spans it has rejected, and why.
/// What cannot be read says nothing.
pub(super) fn rejected(response: &[u8]) -> (u64, String) {
    let read = || {
        let mut rejected = (0, String::new());
        let mut input = CodedInputStream::from_bytes(response);
        while let Some(tag) = input.read_raw_tag_or_eof()? {
            // partial_success
            if tag == 1 << 3 | 2 {
                let partial = input.read_bytes()?;
                rejected = partial_success(&partial)?;
            } else {
                skip(&mut input, tag)?;
            }
        }
        Result::Ok(rejected)
    };
    read().unwrap_or_default()
}

fn partial_success(bytes: &[u8]) -> Result<(u64, String)> {
    let mut input = CodedInputStream::from_bytes(bytes);
    let mut rejected = (0, String::new());
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        match tag {
            0x08 => rejected.0 = input.read_int64()?.try_into().unwrap_or(0),
            0x12 => rejected.1 = input.read_string()?,
            tag => skip(&mut input, tag)?,
        }
    }
    Ok(rejected)
}

fn skip(input: &mut CodedInputStream<'_>, tag: u32) -> Result<()> {
    match WireType::new(tag & 7) {
        Some(kind) => input.skip_field(kind),
        None => Err(io::Error::from(io::ErrorKind::InvalidData).into()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use touchdown::protobuf::UnknownValue;
    use touchdown::Code;

    use super::*;
    use crate::otel::context::TraceContext;
    use crate::otel::ids::SpanId;
    use crate::otel::span::PeerAddress;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03";

    pub(in crate::otel) fn span() -> Span {
        Span {
            context: Arc::new(TraceContext::parse(PARENT, "a=1").unwrap()),
            parent: SpanId::from_bytes([7; 8]),
            method: Some("demo.Echo/Say".into()),
            start: 1_700_000_000_000_000_000,
            end: 1_700_000_000_000_000_999,
            peer: Some(PeerAddress {
                address: "127.0.0.1".into(),
                port: Some(4711),
            }),
            code: Code::Internal,
            message: "broken".into(),
            events: vec![Event::new("touchdown.cut", 5)],
        }
    }

    /// A field as whoever does not know it reads it.
    #[derive(Debug, PartialEq)]
    enum Field {
        Fixed32(u32),
        Fixed64(u64),
        Varint(u64),
        Bytes(Vec<u8>),
    }

    fn fields(bytes: &[u8]) -> Vec<(u32, Field)> {
        let mut input = CodedInputStream::from_bytes(bytes);
        let mut fields = Vec::new();
        while let Some(tag) = input.read_raw_tag_or_eof().unwrap() {
            let kind = WireType::new(tag & 7).unwrap();
            let field = match input.read_unknown(kind).unwrap() {
                UnknownValue::Fixed32(it) => Field::Fixed32(it),
                UnknownValue::Fixed64(it) => Field::Fixed64(it),
                UnknownValue::Varint(it) => Field::Varint(it),
                UnknownValue::LengthDelimited(it) => Field::Bytes(it),
            };
            fields.push((tag >> 3, field));
        }
        fields
    }

    /// The messages in this field.
    fn messages(bytes: &[u8], field: u32) -> Vec<Vec<u8>> {
        let all = fields(bytes).into_iter().filter(|it| it.0 == field);
        let bytes = all.map(|it| match it.1 {
            Field::Bytes(bytes) => bytes,
            other => panic!("{other:?}"),
        });
        bytes.collect()
    }

    fn only(bytes: &[u8], field: u32) -> Vec<u8> {
        let mut all = messages(bytes, field);
        assert_eq!(all.len(), 1, "field {field}");
        all.remove(0)
    }

    fn spans_of(request: &[u8]) -> Vec<Vec<u8>> {
        messages(&only(&only(request, 1), 2), 2)
    }

    fn number(bytes: &[u8], field: u32) -> u64 {
        let value = fields(bytes)
            .into_iter()
            .find(|it| it.0 == field)
            .unwrap()
            .1;
        match value {
            Field::Fixed64(it) | Field::Varint(it) => it,
            Field::Fixed32(it) => it.into(),
            other => panic!("{other:?}"),
        }
    }

    /// Keys, and the values as they are.
    fn pairs(bytes: &[u8], field: u32) -> Vec<(String, Field)> {
        let pair = |it: Vec<u8>| {
            let key = String::from_utf8(only(&it, 1)).unwrap();
            (key, fields(&only(&it, 2)).remove(0).1)
        };
        messages(bytes, field).into_iter().map(pair).collect()
    }

    fn is(text: &str) -> Field {
        Field::Bytes(text.as_bytes().to_vec())
    }

    #[test]
    fn a_span_has_all_that_the_conventions_ask_for() {
        let request = request(&Resource::new(), &[span()]).unwrap();
        let span = spans_of(&request).remove(0);
        let context = TraceContext::parse(PARENT, "").unwrap();
        assert_eq!(only(&span, 1), context.trace_id().to_bytes());
        assert_eq!(only(&span, 2), context.span_id().to_bytes());
        assert_eq!(only(&span, 3), b"a=1");
        assert_eq!(only(&span, 4), [7; 8]);
        assert_eq!(only(&span, 5), b"demo.Echo/Say");
        assert_eq!(number(&span, 6), 2);
        assert_eq!(number(&span, 7), 1_700_000_000_000_000_000);
        assert_eq!(number(&span, 8), 1_700_000_000_000_000_999);
        let expected = [
            ("rpc.system.name", is("grpc")),
            ("rpc.method", is("demo.Echo/Say")),
            ("rpc.status_code", is("INTERNAL")),
            ("error.type", is("INTERNAL")),
            ("network.peer.address", is("127.0.0.1")),
            ("network.peer.port", Field::Varint(4711)),
        ];
        assert_eq!(
            pairs(&span, 9),
            expected.map(|(key, value)| (key.to_owned(), value))
        );
        let event = only(&span, 11);
        assert_eq!(
            (number(&event, 1), only(&event, 2)),
            (5, b"touchdown.cut".to_vec())
        );
        let status = only(&span, 15);
        assert_eq!(
            (only(&status, 2), number(&status, 3)),
            (b"broken".to_vec(), 2)
        );
        assert_eq!(number(&span, 16), 0x303);
    }

    #[test]
    fn a_span_without_a_parent_and_without_a_method_has_no_such_field() {
        let it = Span {
            parent: None,
            method: None,
            code: Code::NotFound,
            peer: None,
            events: vec![
                Event::new("touchdown.queue_wait", 1).with("seconds", Value::Seconds(0.5)),
                Event::new("touchdown.refused", 2).with("reason", Value::Text("expired")),
            ],
            ..span()
        };
        let request = request(&Resource::new(), &[it]).unwrap();
        let span = spans_of(&request).remove(0);
        assert!(messages(&span, 4).is_empty());
        // The callers' fault is no error of the server.
        assert!(messages(&span, 15).is_empty());
        assert_eq!(only(&span, 5), b"grpc");
        let attributes = pairs(&span, 9);
        assert_eq!(attributes.len(), 3, "{attributes:?}");
        assert_eq!(attributes[1], ("rpc.method".to_owned(), is("_OTHER")));
        assert_eq!(
            attributes[2],
            ("rpc.status_code".to_owned(), is("NOT_FOUND"))
        );
        assert_eq!(number(&span, 16), 0x103);
        let events = messages(&span, 11);
        let half = Field::Fixed64(0.5_f64.to_bits());
        assert_eq!(pairs(&events[0], 3), [("seconds".to_owned(), half)]);
        assert_eq!(pairs(&events[1], 3), [("reason".to_owned(), is("expired"))]);
    }

    #[test]
    fn a_request_says_what_the_spans_are_of_and_by_which_conventions() {
        let resource = vec![
            (
                "service.name".to_owned(),
                ResourceValue::Text("greeter".to_owned()),
            ),
            ("process.pid".to_owned(), ResourceValue::Number(7)),
        ];
        let request = request(&resource, &[span(), span(), span()]).unwrap();
        let all = only(&request, 1);
        let expected = [
            ("service.name".to_owned(), is("greeter")),
            ("process.pid".to_owned(), Field::Varint(7)),
        ];
        assert_eq!(pairs(&only(&all, 1), 1), expected);
        assert_eq!(only(&all, 3), SCHEMA_URL.as_bytes());
        let of_scope = only(&all, 2);
        assert_eq!(only(&only(&of_scope, 1), 1), b"touchdown-observe");
        assert_eq!(only(&of_scope, 3), SCHEMA_URL.as_bytes());
        assert_eq!(messages(&of_scope, 2).len(), 3);
    }

    #[test]
    fn what_a_collector_has_rejected_is_read() {
        assert_eq!(rejected(&[]), (0, String::new()));
        let response = bytes(|out| {
            // Of a version to come.
            out.write_string(9, "more")?;
            message(out, 1, |out| {
                out.write_int64(1, 3)?;
                out.write_string(2, "too old")
            })
        });
        assert_eq!(rejected(&response.unwrap()), (3, "too old".to_owned()));
        let negative = bytes(|out| message(out, 1, |out| out.write_int64(1, -3)));
        assert_eq!(rejected(&negative.unwrap()).0, 0);
        assert_eq!(rejected(b"<html>it works</html>"), (0, String::new()));
    }

    proptest! {
        #[test]
        fn any_response_is_read_or_says_nothing(response in vec(any::<u8>(), 0..200)) {
            let _ = rejected(&response);
        }

        #[test]
        fn any_partial_success_is_read_or_says_nothing(partial in vec(any::<u8>(), 0..100)) {
            let response = bytes(|out| out.write_bytes(1, &partial)).unwrap();
            let _ = rejected(&response);
        }

        #[test]
        fn any_span_is_encoded(method in ".{0,300}", text in ".{0,300}", count in 0_usize..20, code in -1_i32..20) {
            let one = || Span {
                method: Some(method.as_str().into()),
                message: text.as_str().into(),
                code: Code::from_number(code),
                ..span()
            };
            let spans: Vec<_> = (0..count).map(|_| one()).collect();
            let request = request(&Resource::new(), &spans).unwrap();
            let encoded = spans_of(&request);
            prop_assert_eq!(encoded.len(), count);
            for span in encoded {
                prop_assert_eq!(only(&span, 5), method.as_bytes());
            }
        }
    }
}
