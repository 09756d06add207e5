    //! Keeps groups among the unknown fields of messages, which have no place for them: as bytes, under the number of
    //! the group and a bit more, which no field on the wire can have.

    use ::touchdown::protobuf::rt::{compute_raw_varint64_size, tag_size, WireType};
    use ::touchdown::protobuf::{
        rt, CodedInputStream, CodedOutputStream, Result, UnknownFields, UnknownValueRef,
    };

    /// A field's number has 29 bits.
    const GROUP: u32 = 1 << 29;
    /// How deep groups may be nested in each other: as deep as messages, for which it is the runtime's limit.
    const DEPTH: usize = 100;

    /// In place of `rt::read_unknown_or_skip_group`.
    pub(super) fn read_unknown(
        tag: u32,
        is: &mut CodedInputStream<'_>,
        unknown: &mut UnknownFields,
    ) -> Result<()> {
        if tag & 7 != WireType::StartGroup as u32 || tag >> 3 == 0 {
            return rt::read_unknown_or_skip_group(tag, is, unknown);
        }
        let mut bytes = ::std::vec::Vec::new();
        copy_group(tag, is, &mut bytes)?;
        unknown.add_length_delimited(tag >> 3 | GROUP, bytes);
        Ok(())
    }

    /// Copies what is in a group, without the tags around it.
    fn copy_group(
        start: u32,
        is: &mut CodedInputStream<'_>,
        bytes: &mut ::std::vec::Vec<u8>,
    ) -> Result<()> {
        let mut open = ::std::vec::Vec::from([start >> 3]);
        while let ::std::option::Option::Some(&group) = open.last() {
            let tag = is.read_raw_varint32()?;
            if tag == group << 3 | WireType::EndGroup as u32 {
                open.pop();
                if open.is_empty() {
                    break;
                }
            }
            push_varint(bytes, u64::from(tag));
            let number = tag >> 3;
            match tag & 7 {
                _ if number == 0 => return invalid(tag, is),
                0 => push_varint(bytes, is.read_raw_varint64()?),
                1 => bytes.extend_from_slice(&is.read_fixed64()?.to_le_bytes()),
                2 => {
                    let length = is.read_raw_varint32()?;
                    let value = is.read_raw_bytes(length)?;
                    push_varint(bytes, u64::from(length));
                    bytes.extend_from_slice(&value);
                }
                3 if open.len() < DEPTH => open.push(number),
                3 => {
                    return Err(::std::io::Error::new(
                        ::std::io::ErrorKind::InvalidData,
                        "groups are nested too deeply",
                    )
                    .into())
                }
                // The one that was closed.
                4 if number == group => {}
                5 => bytes.extend_from_slice(&is.read_fixed32()?.to_le_bytes()),
                _ => return invalid(tag, is),
            }
        }
        Ok(())
    }

    /// The runtime's error for a tag that cannot be here: without a number, of no known kind, or the end of a group
    /// that is not open.
    fn invalid(tag: u32, is: &mut CodedInputStream<'_>) -> Result<()> {
        let end = match tag & 7 {
            6 | 7 => tag,
            _ if tag >> 3 == 0 => tag,
            _ => tag >> 3 << 3 | WireType::EndGroup as u32,
        };
        rt::read_unknown_or_skip_group(end, is, &mut UnknownFields::new())
    }

    fn push_varint(bytes: &mut ::std::vec::Vec<u8>, mut value: u64) {
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
    }

    /// In place of `rt::unknown_fields_size`.
    pub(super) fn unknown_fields_size(unknown: &UnknownFields) -> u64 {
        let mut size = 0;
        for (number, value) in unknown {
            size += tag_size(number & !GROUP);
            size += match value {
                UnknownValueRef::Fixed32(_) => 4,
                UnknownValueRef::Fixed64(_) => 8,
                UnknownValueRef::Varint(value) => compute_raw_varint64_size(value),
                UnknownValueRef::LengthDelimited(group) if number & GROUP != 0 => {
                    group.len() as u64 + tag_size(number & !GROUP)
                }
                UnknownValueRef::LengthDelimited(bytes) => {
                    compute_raw_varint64_size(bytes.len() as u64) + bytes.len() as u64
                }
            };
        }
        size
    }

    /// In place of `CodedOutputStream::write_unknown_fields`.
    pub(super) fn write_unknown_fields(
        os: &mut CodedOutputStream<'_>,
        unknown: &UnknownFields,
    ) -> Result<()> {
        for (number, value) in unknown {
            match value {
                UnknownValueRef::LengthDelimited(group) if number & GROUP != 0 => {
                    os.write_tag(number & !GROUP, WireType::StartGroup)?;
                    os.write_raw_bytes(group)?;
                    os.write_tag(number & !GROUP, WireType::EndGroup)?;
                }
                value => os.write_unknown(number, value)?,
            }
        }
        Ok(())
    }
