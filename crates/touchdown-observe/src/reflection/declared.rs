//! What a file declares: messages, services and so on, found by their names in the encoded descriptor.
//!
//! There is no index: the names of a file are compared where they lie, from the package down. That takes microseconds, and
//! no memory while nobody asks.

use std::str;

use super::wire::{all_bytes, fields, text, Value};

/// The number of `name` in every descriptor.
pub(super) const NAME: u32 = 1;

/// Numbers of fields in `FileDescriptorProto`.
mod file {
    pub(super) const PACKAGE: u32 = 2;
    pub(super) const DEPENDENCY: u32 = 3;
    pub(super) const MESSAGE: u32 = 4;
    pub(super) const ENUM: u32 = 5;
    pub(super) const SERVICE: u32 = 6;
    pub(super) const EXTENSION: u32 = 7;
}

/// Numbers of fields in `DescriptorProto`.
mod message {
    pub(super) const FIELD: u32 = 2;
    pub(super) const NESTED: u32 = 3;
    pub(super) const ENUM: u32 = 4;
    pub(super) const EXTENSION: u32 = 6;
    pub(super) const ONEOF: u32 = 8;
}

/// Numbers of fields in `FieldDescriptorProto`.
mod extension {
    pub(super) const EXTENDEE: u32 = 2;
    pub(super) const NUMBER: u32 = 3;
}

/// The number of the values of an enum, and of the methods of a service.
const MEMBER: u32 = 2;

/// How deep messages may be nested; protoc takes 32 levels.
const DEPTH: usize = 64;

/// What an encoded descriptor is one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Message,
    Enum,
    Service,
    Extension,
    /// A field, a oneof, a value or a method: nothing is declared in it.
    Member,
}

impl Kind {
    /// What is declared in the field of this number.
    fn declares(self, number: u32) -> Option<Kind> {
        match (self, number) {
            (Kind::File, file::MESSAGE) | (Kind::Message, message::NESTED) => Some(Kind::Message),
            (Kind::File, file::ENUM) | (Kind::Message, message::ENUM) => Some(Kind::Enum),
            (Kind::File, file::SERVICE) => Some(Kind::Service),
            (Kind::File, file::EXTENSION) | (Kind::Message, message::EXTENSION) => {
                Some(Kind::Extension)
            }
            (Kind::Message, message::FIELD | message::ONEOF)
            | (Kind::Enum | Kind::Service, MEMBER) => Some(Kind::Member),
            _ => None,
        }
    }
}

/// What is declared right in this descriptor.
fn declared(kind: Kind, descriptor: &[u8]) -> impl Iterator<Item = (Kind, &[u8])> {
    fields(descriptor).filter_map(move |field| match field {
        Ok((number, Value::Bytes(bytes))) => Some((kind.declares(number)?, bytes)),
        _ => None,
    })
}

/// What this file declares under this full name.
pub(super) fn find(file: &[u8], full_name: &str) -> Option<Kind> {
    let package = text(file, file::PACKAGE);
    let path = match package {
        [] => full_name.as_bytes(),
        package => full_name
            .as_bytes()
            .strip_prefix(package)?
            .strip_prefix(b".")?,
    };
    find_in(Kind::File, file, path)
}

fn find_in(kind: Kind, descriptor: &[u8], path: &[u8]) -> Option<Kind> {
    let mut parts = path.splitn(2, |it| *it == b'.');
    let first = parts.next().unwrap_or_default();
    let rest = parts.next();
    declared(kind, descriptor).find_map(|(kind, inner)| {
        if text(inner, NAME) == first {
            return match rest {
                None => Some(kind),
                Some(rest) => find_in(kind, inner, rest),
            };
        }
        // The values of an enum have the scope of the enum itself, as in C++. Under its name they are found as well.
        let is_value = |(_, value)| text(value, NAME) == first;
        let may_have = kind == Kind::Enum && rest.is_none();
        (may_have && declared(kind, inner).any(is_value)).then_some(Kind::Member)
    })
}

/// Calls `each` with the full name of the message and the number of all extensions that are declared in this file.
pub(super) fn extensions<'a>(file: &'a [u8], each: &mut impl FnMut(&'a [u8], i32)) {
    extensions_in(Kind::File, file, each);
}

fn extensions_in<'a>(kind: Kind, descriptor: &'a [u8], each: &mut impl FnMut(&'a [u8], i32)) {
    for (kind, inner) in declared(kind, descriptor) {
        match kind {
            Kind::Message => extensions_in(kind, inner, each),
            Kind::Extension => {
                let extendee = text(inner, extension::EXTENDEE);
                let number = fields(inner).filter_map(|it| match it {
                    // An int32 is written like the int64 of the same value.
                    Ok((extension::NUMBER, Value::Number(number))) => Some(number as i32),
                    _ => None,
                });
                let extendee = extendee.strip_prefix(b".").unwrap_or(extendee);
                each(extendee, number.last().unwrap_or_default());
            }
            _ => {}
        }
    }
}

/// The full names of the services that are declared in this file.
pub(super) fn services(file: &[u8]) -> impl Iterator<Item = String> + '_ {
    let package = String::from_utf8_lossy(text(file, file::PACKAGE));
    all_bytes(file, file::SERVICE).map(move |service| {
        let name = String::from_utf8_lossy(text(service, NAME));
        match &*package {
            "" => name.into_owned(),
            package => format!("{package}.{name}"),
        }
    })
}

/// The files that this one imports.
pub(super) fn imports(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    all_bytes(file, file::DEPENDENCY)
}

/// Whether all that is read here can be read: every descriptor is a message, and has a name.
pub(super) fn check(file: &[u8]) -> Result<(), &'static str> {
    for text in all_bytes(file, file::PACKAGE).chain(imports(file)) {
        str::from_utf8(text).map_err(|_| "has a name that is no text")?;
    }
    check_in(Kind::File, file, DEPTH)
}

fn check_in(kind: Kind, descriptor: &[u8], depth: usize) -> Result<(), &'static str> {
    if depth == 0 {
        return Err("has messages that are nested too deep");
    }
    if fields(descriptor).any(|it| it.is_err()) {
        return Err("cannot be decoded");
    }
    match str::from_utf8(text(descriptor, NAME)) {
        Ok("") => return Err("declares something without a name"),
        Ok(_) => {}
        Err(_) => return Err("has a name that is no text"),
    }
    declared(kind, descriptor).try_for_each(|(kind, inner)| check_in(kind, inner, depth - 1))
}
