//! Groups of proto2, which the runtime knows nothing of: it skips them when it reads a message.
//!
//! Messages keep them among their unknown fields instead, so that what was read is written again: the groups that a
//! `.proto` file declares, and those that it does not know.

use std::collections::BTreeSet;

use protobuf::descriptor::field_descriptor_proto::Type as FieldType;
use protobuf::descriptor::{DescriptorProto, FileDescriptorProto};

/// What messages call; the text of a module in Rust.
const CODE: &str = include_str!("../runtime/groups.rs");

/// Takes the fields that are groups out of a file: reflection counts on an accessor for each field of the descriptor,
/// and panics without.
pub(crate) fn hide(file: &mut FileDescriptorProto) {
    fn hide_in(message: &mut DescriptorProto) {
        message
            .field
            .retain(|field| field.type_() != FieldType::TYPE_GROUP);
        message.nested_type.iter_mut().for_each(hide_in);
    }
    file.message_type.iter_mut().for_each(hide_in);
}

/// A name for the module that nothing else at the top of the file has.
pub(crate) fn module_name(taken: &BTreeSet<String>) -> String {
    let mut name = "groups".to_owned();
    while taken.contains(&name) {
        name.push('_');
    }
    name
}

/// The module, to be put at the top of the file.
pub(crate) fn module(name: &str) -> String {
    format!("\nmod {name} {{\n{CODE}}}\n")
}

/// Has the messages in `code` keep groups, by the module `groups` of their file.
pub(crate) fn keep(code: &str, groups: &str) -> String {
    /// What the generator has each message call, and what it is to call.
    const CALLS: [(&str, &str); 3] = [
        (
            "::protobuf::rt::read_unknown_or_skip_group(tag, is,",
            "read_unknown(tag, is,",
        ),
        (
            "::protobuf::rt::unknown_fields_size(self.",
            "unknown_fields_size(self.",
        ),
        (
            "os.write_unknown_fields(self.",
            "write_unknown_fields(os, self.",
        ),
    ];
    let mut kept = String::with_capacity(code.len());
    let mut depth = 0;
    for line in code.split_inclusive('\n') {
        let text = line.trim_start_matches(' ');
        if text.starts_with("impl ") {
            // Each module is indented by four spaces more than the one around it.
            depth = (line.len() - text.len()) / 4;
        }
        match CALLS.iter().find(|call| text.contains(call.0)) {
            Some((call, ours)) => {
                let path = "super::".repeat(depth) + groups;
                kept += &line.replace(call, &format!("{path}::{ours}"));
            }
            None => kept += line,
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_found_from_any_depth() {
        let code = "impl ::protobuf::Message for M {\n        os.write_unknown_fields(self.x)?;\n\
                    \u{20}   impl ::protobuf::Message for N {\n            my_size += ::protobuf::rt::unknown_fields_size(self.x);\n";
        assert_eq!(
            keep(code, "g"),
            "impl ::protobuf::Message for M {\n        g::write_unknown_fields(os, self.x)?;\n\
             \u{20}   impl ::protobuf::Message for N {\n            my_size += super::g::unknown_fields_size(self.x);\n"
        );
    }

    #[test]
    fn nothing_else_has_its_name() {
        assert_eq!(module_name(&BTreeSet::new()), "groups");
        let taken = ["groups_".to_owned(), "groups".to_owned()].into();
        assert_eq!(module_name(&taken), "groups__");
    }
}
