//! Groups of proto2, which the runtime knows nothing of: it skips them when it reads a message.
//!
//! Messages keep them among their unknown fields instead, so that what was read is written again: the groups that a
//! `.proto` file declares, and those that it does not know.

use protobuf::descriptor::field_descriptor_proto::Type as FieldType;
use protobuf::descriptor::{DescriptorProto, FileDescriptorProto};

/// What messages call; the text of a module in Rust.
pub(crate) const CODE: &str = include_str!("../runtime/groups.rs");

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

/// A name for the module that none of the `.proto` files has.
pub(crate) fn module_name<'a>(modules: impl Iterator<Item = &'a str> + Clone) -> String {
    let mut name = "groups".to_owned();
    while modules.clone().any(|module| module == name) {
        name.push('_');
    }
    name
}

/// Has the messages in `code` keep groups, by the module `groups` beside the one of their file.
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
                let path = "super::".repeat(depth + 1) + groups;
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
            "impl ::protobuf::Message for M {\n        super::g::write_unknown_fields(os, self.x)?;\n\
             \u{20}   impl ::protobuf::Message for N {\n            my_size += super::super::g::unknown_fields_size(self.x);\n"
        );
    }

    #[test]
    fn no_file_has_its_name() {
        assert_eq!(module_name(["a"].into_iter()), "groups");
        assert_eq!(module_name(["groups_", "groups"].into_iter()), "groups__");
    }
}
