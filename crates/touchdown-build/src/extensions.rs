//! Extensions that are nested in messages, which `protobuf-codegen` leaves out, and what is said about those that
//! no code is generated for.

use std::collections::HashMap;
use std::fmt::Write as _;

use protobuf::descriptor::field_descriptor_proto::{Label, Type as FieldType};
use protobuf::descriptor::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto};

use crate::docs::{child, path};
use crate::file::{File, Type};
use crate::messages::push_doc;
use crate::names;

/// The module of a file for its extensions, as `protobuf-codegen` names it.
pub(crate) const MODULE: &str = "exts";

const HEAD: &str = "pub mod exts {\n";

/// Whether a file gets a module for extensions.
pub(crate) fn has_module(file: &FileDescriptorProto, lite: bool) -> bool {
    fn nested(message: &DescriptorProto) -> bool {
        message.extension.iter().any(is_generated) || message.nested_type.iter().any(nested)
    }
    // For extensions at the top, the generator writes it even if it stays empty.
    !lite && (!file.extension.is_empty() || file.message_type.iter().any(nested))
}

fn is_generated(extension: &FieldDescriptorProto) -> bool {
    extension.type_() != FieldType::TYPE_GROUP
}

/// Puts the extensions that are nested in messages into the module `exts` of `code`: those of `message Outer` into
/// `exts::outer`.
pub(crate) fn add_nested(code: &mut String, file: &File, types: &HashMap<String, Type>) {
    let mut nested = String::new();
    for (i, message) in file.proto.message_type.iter().enumerate() {
        let path = [path::FILE_MESSAGE, i as i32];
        nested += &modules(message, &path, 1, file, types);
    }
    if nested.is_empty() {
        return;
    }
    // The module is at the top of the file, so its head and its end are at the beginnings of lines.
    let end = code.find(&format!("\n{HEAD}")).and_then(|head| {
        let body = head + HEAD.len();
        code[body..].find("\n}\n").map(|end| body + end + 1)
    });
    match end {
        Some(end) => code.insert_str(end, &nested),
        None => {
            code.push_str("\n/// Extension fields\n");
            let _ = writeln!(code, "{HEAD}{nested}}}");
        }
    }
}

/// The module for the extensions in `message` and in what is nested in it, or nothing. `depth` is how many modules are
/// between it and that of the file.
fn modules(
    message: &DescriptorProto,
    place: &[i32],
    depth: usize,
    file: &File,
    types: &HashMap<String, Type>,
) -> String {
    let indent = "    ".repeat(depth);
    let mut body = String::new();
    for (i, extension) in message.extension.iter().enumerate() {
        if is_generated(extension) {
            let docs = file.info.docs(&child(place, path::MESSAGE_EXTENSION, i));
            body += &constant(extension, &docs, depth + 1, file, types);
        }
    }
    for (i, inner) in message.nested_type.iter().enumerate() {
        let place = child(place, path::MESSAGE_NESTED, i);
        body += &modules(inner, &place, depth + 1, file, types);
    }
    if body.is_empty() {
        return body;
    }
    let mut code = String::from("\n");
    let doc = format!(
        "Extension fields that are declared in message `{}`",
        message.name()
    );
    push_doc(&mut code, &indent, &doc);
    let module = names::nested_module(message.name());
    let _ = writeln!(code, "{indent}pub mod {module} {{{body}{indent}}}");
    code
}

/// The constant for an extension, in a module `depth` modules below that of the file.
fn constant(
    extension: &FieldDescriptorProto,
    docs: &[String],
    depth: usize,
    file: &File,
    types: &HashMap<String, Type>,
) -> String {
    let indent = "    ".repeat(depth);
    let path = |name: &str| match types.get(name) {
        Some(found) => found.path(file.proto.name(), depth),
        None => name.to_owned(),
    };
    let kind = match extension.label() {
        Label::LABEL_REPEATED => "ExtFieldRepeated",
        _ => "ExtFieldOptional",
    };
    let kind = format!("::touchdown::protobuf::ext::{kind}");
    let value = match extension.type_() {
        FieldType::TYPE_MESSAGE => path(extension.type_name()),
        FieldType::TYPE_ENUM => {
            let name = path(extension.type_name());
            format!("::touchdown::protobuf::EnumOrUnknown<{name}>")
        }
        other => primitive(other).to_owned(),
    };
    let mut code = String::from("\n");
    for doc in docs {
        push_doc(&mut code, &indent, doc);
    }
    let _ = writeln!(
        code,
        "{indent}pub const {}: {kind}<{}, {value}> = {kind}::new({}, \
         ::touchdown::protobuf::descriptor::field_descriptor_proto::Type::{:?});",
        names::field(extension.name()),
        path(extension.extendee()),
        extension.number(),
        extension.type_(),
    );
    code
}

fn primitive(field_type: FieldType) -> &'static str {
    match field_type {
        FieldType::TYPE_DOUBLE => "f64",
        FieldType::TYPE_FLOAT => "f32",
        FieldType::TYPE_INT64 | FieldType::TYPE_SINT64 | FieldType::TYPE_SFIXED64 => "i64",
        FieldType::TYPE_UINT64 | FieldType::TYPE_FIXED64 => "u64",
        FieldType::TYPE_INT32 | FieldType::TYPE_SINT32 | FieldType::TYPE_SFIXED32 => "i32",
        FieldType::TYPE_UINT32 | FieldType::TYPE_FIXED32 => "u32",
        FieldType::TYPE_BOOL => "bool",
        FieldType::TYPE_STRING => "::std::string::String",
        _ => "::std::vec::Vec<u8>",
    }
}

/// What the person who builds is told about groups and extensions that no code is generated for, a line each.
pub(crate) fn warnings(file: &File, lite: bool) -> Vec<String> {
    let mut found = Warnings {
        file,
        lite,
        lines: Vec::new(),
    };
    for (i, extension) in file.proto.extension.iter().enumerate() {
        found.extension(extension, &[path::FILE_EXTENSION, i as i32]);
    }
    for (i, message) in file.proto.message_type.iter().enumerate() {
        found.message(message, &[path::FILE_MESSAGE, i as i32]);
    }
    found.lines
}

struct Warnings<'a> {
    file: &'a File,
    lite: bool,
    lines: Vec<String>,
}

impl Warnings<'_> {
    fn add(&mut self, place: &[i32], message: &str) {
        let (line, column) = self.file.info.place(place);
        let path = self.file.path.display();
        self.lines
            .push(format!("{path}:{line}:{column}: {message}"));
    }

    fn message(&mut self, message: &DescriptorProto, place: &[i32]) {
        for (i, field) in message.field.iter().enumerate() {
            if field.type_() == FieldType::TYPE_GROUP {
                let text = format!(
                    "the group `{}` has no field in Rust; what a message has of it is kept when it is written again",
                    field.name()
                );
                self.add(&child(place, path::MESSAGE_FIELD, i), &text);
            }
        }
        for (i, extension) in message.extension.iter().enumerate() {
            self.extension(extension, &child(place, path::MESSAGE_EXTENSION, i));
        }
        for (i, nested) in message.nested_type.iter().enumerate() {
            self.message(nested, &child(place, path::MESSAGE_NESTED, i));
        }
    }

    fn extension(&mut self, extension: &FieldDescriptorProto, place: &[i32]) {
        // Options are for those who read descriptors, and these have them.
        let extendee = extension.extendee();
        if extendee.starts_with(".google.protobuf.") && extendee.ends_with("Options") {
            return;
        }
        let why = if !is_generated(extension) {
            "it is a group"
        } else if self.lite {
            "extensions need messages with reflection, and this file is generated without"
        } else {
            return;
        };
        let text = format!(
            "the extension `{}` has no constant in Rust: {why}; what a message has of it is kept when it is written again",
            extension.name()
        );
        self.add(place, &text);
    }
}
