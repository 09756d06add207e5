//! Reads what was sent, by touchdown's protobuf and not by the code that has written it.

use std::collections::BTreeMap;

use touchdown::protobuf::rt::WireType;
use touchdown::protobuf::{CodedInputStream, UnknownValue};

/// A span, with what it is of.
#[derive(Clone, Debug)]
pub struct Span {
    pub resource: BTreeMap<String, Value>,
    pub schema_url: String,
    /// In hexadecimal, as all ids here.
    pub trace: String,
    pub span: String,
    pub state: String,
    /// Empty if it has none.
    pub parent: String,
    pub name: String,
    pub kind: u64,
    pub start: u64,
    pub end: u64,
    pub attributes: BTreeMap<String, Value>,
    pub events: Vec<Event>,
    /// The code and the message.
    pub status: Option<(u64, String)>,
    pub flags: u64,
}

#[derive(Clone, Debug)]
pub struct Event {
    pub name: String,
    pub at: u64,
    pub attributes: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    Int(i64),
    Double(f64),
}

impl Span {
    /// All spans of a request.
    pub fn all(request: &[u8]) -> Vec<Span> {
        let mut spans = Vec::new();
        for of_resource in Message::read(request).messages(1) {
            let resource = of_resource.message(1).pairs(1);
            for of_scope in of_resource.messages(2) {
                let schema_url = of_scope.text(3);
                spans.extend(
                    of_scope
                        .messages(2)
                        .iter()
                        .map(|it| Span::read(it, &resource, &schema_url)),
                );
            }
        }
        spans
    }

    fn read(span: &Message, resource: &BTreeMap<String, Value>, schema_url: &str) -> Span {
        let event = |it: &Message| Event {
            at: it.number(1),
            name: it.text(2),
            attributes: it.pairs(3),
        };
        Span {
            resource: resource.clone(),
            schema_url: schema_url.to_owned(),
            trace: span.hex(1),
            span: span.hex(2),
            state: span.text(3),
            parent: span.hex(4),
            name: span.text(5),
            kind: span.number(6),
            start: span.number(7),
            end: span.number(8),
            attributes: span.pairs(9),
            events: span.messages(11).iter().map(event).collect(),
            status: span
                .messages(15)
                .first()
                .map(|it| (it.number(3), it.text(2))),
            flags: span.number(16),
        }
    }

    /// An attribute that is text; empty if it is not there.
    pub fn attribute(&self, key: &str) -> &str {
        match self.attributes.get(key) {
            Some(Value::Text(text)) => text,
            None => "",
            Some(other) => panic!("{key} is {other:?}"),
        }
    }

    /// The names of its events.
    pub fn events(&self) -> Vec<&str> {
        self.events.iter().map(|it| &*it.name).collect()
    }
}

/// The fields of a message.
struct Message(Vec<(u32, UnknownValue)>);

impl Message {
    fn read(bytes: &[u8]) -> Message {
        let mut input = CodedInputStream::from_bytes(bytes);
        let mut fields = Vec::new();
        while let Some(tag) = input.read_raw_tag_or_eof().unwrap() {
            let kind = WireType::new(tag & 7).unwrap();
            fields.push((tag >> 3, input.read_unknown(kind).unwrap()));
        }
        Message(fields)
    }

    fn all(&self, field: u32) -> impl Iterator<Item = &UnknownValue> {
        self.0
            .iter()
            .filter(move |it| it.0 == field)
            .map(|it| &it.1)
    }

    fn bytes(&self, field: u32) -> Vec<Vec<u8>> {
        let bytes = |it: &UnknownValue| match it {
            UnknownValue::LengthDelimited(bytes) => bytes.clone(),
            other => panic!("{other:?}"),
        };
        self.all(field).map(bytes).collect()
    }

    fn messages(&self, field: u32) -> Vec<Message> {
        self.bytes(field)
            .iter()
            .map(|it| Message::read(it))
            .collect()
    }

    fn message(&self, field: u32) -> Message {
        Message::read(&self.bytes(field).concat())
    }

    fn text(&self, field: u32) -> String {
        String::from_utf8(self.bytes(field).concat()).unwrap()
    }

    fn hex(&self, field: u32) -> String {
        self.bytes(field)
            .concat()
            .iter()
            .map(|it| format!("{it:02x}"))
            .collect()
    }

    fn number(&self, field: u32) -> u64 {
        match self.all(field).next() {
            Some(UnknownValue::Varint(it) | UnknownValue::Fixed64(it)) => *it,
            Some(UnknownValue::Fixed32(it)) => (*it).into(),
            None => 0,
            Some(other) => panic!("{other:?}"),
        }
    }

    fn pairs(&self, field: u32) -> BTreeMap<String, Value> {
        let pair = |it: &Message| {
            let value = it.message(2);
            let value = match value.0.first() {
                Some((1, _)) => Value::Text(value.text(1)),
                Some((3, _)) => Value::Int(value.number(3) as i64),
                Some((4, _)) => Value::Double(f64::from_bits(value.number(4))),
                other => panic!("{other:?}"),
            };
            (it.text(1), value)
        };
        let pairs = self.messages(field);
        let all: BTreeMap<_, _> = pairs.iter().map(pair).collect();
        assert_eq!(all.len(), pairs.len(), "a key occurs twice: {all:?}");
        all
    }
}
