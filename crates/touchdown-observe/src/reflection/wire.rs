//! Reads encoded messages of which little is wanted, where they lie.
//!
//! `protobuf::descriptor` would copy every descriptor into structs, and bring the code that reads and writes all of them into
//! the program. What is asked of a descriptor here are the names in it.

/// What a field has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// A varint.
    Number(u64),
    /// A text, bytes, or a message.
    Bytes(&'a [u8]),
    /// Four or eight bytes, which no descriptor has.
    Fixed,
}

/// The bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The fields of an encoded message, in their order, until its end or the first that cannot be read.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

pub(super) fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

impl<'a> Fields<'a> {
    /// How many bytes are still to be read.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    fn field(&mut self) -> Result<(u32, Value<'a>), Malformed> {
        let tag = u32::try_from(self.varint()?).map_err(|_| Malformed)?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            // Groups, of which descriptor.proto has none.
            _ => return Err(Malformed),
        };
        match tag >> 3 {
            0 => Err(Malformed),
            number => Ok((number, value)),
        }
    }

    /// At most ten bytes with seven bits each, the lowest first.
    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(Malformed)?;
            self.rest = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// The texts and messages in the field of this number.
pub(super) fn all_bytes(message: &[u8], wanted: u32) -> impl Iterator<Item = &[u8]> {
    fields(message).filter_map(move |field| match field {
        Ok((number, Value::Bytes(bytes))) if number == wanted => Some(bytes),
        _ => None,
    })
}

/// The text in the field of this number; empty without one, as proto3 has it. Where there are several, the last counts.
pub(super) fn text(message: &[u8], wanted: u32) -> &[u8] {
    all_bytes(message, wanted).last().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use touchdown::protobuf::descriptor::FieldDescriptorProto;
    use touchdown::protobuf::Message;

    use super::*;

    #[test]
    fn fields_are_read_in_their_order() {
        let message = [
            0x0a, 2, b'h', b'i', 0x18, 0xac, 2, 0x25, 1, 2, 3, 4, 0x29, 1, 2, 3, 4, 5, 6, 7, 8,
        ];
        let read: Vec<_> = fields(&message).collect();
        let expected = [
            Ok((1, Value::Bytes(b"hi"))),
            Ok((3, Value::Number(300))),
            Ok((4, Value::Fixed)),
            Ok((5, Value::Fixed)),
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn what_is_no_message_is_said_once() {
        let cases: [&[u8]; 7] = [
            // Cut in the middle: of a tag, a length, a text, a number.
            &[0x80],
            &[0x0a],
            &[0x0a, 2, b'h'],
            &[0x25, 1, 2, 3],
            // The number 0; a group; a varint of more than ten bytes.
            &[0x02, 0],
            &[0x0b, 0x0c],
            &[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
        ];
        for case in cases {
            let read: Vec<_> = fields(case).collect();
            assert_eq!(read, [Err(Malformed)], "{case:?}");
        }
        let length = [0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert_eq!(fields(&length).next(), Some(Err(Malformed)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in vec(any::<u8>(), 0..64)) {
            let read: Vec<_> = fields(&bytes).collect();
            prop_assert!(read.iter().rev().skip(1).all(Result::is_ok));
        }

        #[test]
        fn what_protobuf_writes_is_read(name in ".*", number: i32) {
            let mut message = FieldDescriptorProto::new();
            message.set_name(name.clone());
            message.set_number(number);
            let bytes = message.write_to_bytes().unwrap();
            prop_assert_eq!(text(&bytes, 1), name.as_bytes());
            let number_read = fields(&bytes).find_map(|it| match it {
                Ok((3, Value::Number(number))) => Some(number as i32),
                _ => None,
            });
            prop_assert_eq!(number_read, Some(number));
        }
    }
}
