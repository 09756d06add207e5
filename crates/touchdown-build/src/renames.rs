//! Names in Rust that `protobuf-codegen` would not choose.
//!
//! It makes the name of a oneof's type, and of a field's methods, of the name in the `.proto` file, also where that
//! name is taken. Such an element is handed to it under a placeholder, and what it makes of the placeholder is replaced in
//! its text: in code by the name in Rust, in strings and comments by the name in the `.proto` file.

use protobuf::descriptor::{DescriptorProto, FileDescriptorProto};
use protobuf::Message;

use crate::docs::path;
use crate::{groups, names, Error};

/// A oneof or a field that gets another name in Rust.
pub(crate) struct Rename {
    /// Where it is in the file's descriptor.
    path: Vec<i32>,
    /// Its name in the `.proto` file.
    proto: String,
    /// The field of the struct, and the end of the names of its methods.
    member: String,
    /// The type of a oneof, or the variant of a field in a oneof.
    capitalized: String,
    /// In small letters; with a capital letter at its head it stands for `capitalized`.
    placeholder: String,
}

impl Rename {
    pub(crate) fn oneof(path: Vec<i32>, proto: &str, member: String, type_: String) -> Rename {
        Rename {
            path,
            proto: proto.to_owned(),
            member,
            capitalized: type_,
            placeholder: String::new(),
        }
    }

    pub(crate) fn field(path: Vec<i32>, proto: &str, member: String) -> Rename {
        Rename {
            path,
            proto: proto.to_owned(),
            member,
            capitalized: names::variant(proto),
            placeholder: String::new(),
        }
    }

    fn capital(&self) -> String {
        let mut capital = self.placeholder.clone();
        capital[..1].make_ascii_uppercase();
        capital
    }
}

/// The renames of a file, and its descriptor as it was.
#[derive(Default)]
pub(crate) struct Renames {
    renames: Vec<Rename>,
    /// Encoded; what the program is told about itself.
    descriptor: Vec<u8>,
}

impl Renames {
    /// Puts placeholders into `file`.
    pub(crate) fn apply(
        mut renames: Vec<Rename>,
        file: &mut FileDescriptorProto,
    ) -> Result<Renames, Error> {
        if renames.is_empty() {
            return Ok(Renames::default());
        }
        let mut plain = file.clone();
        groups::hide(&mut plain);
        let descriptor = plain
            .write_to_bytes()
            .map_err(|error| Error::new(format!("cannot encode a descriptor: {error}")))?;
        let text = String::from_utf8_lossy(&descriptor).to_lowercase();
        let mut prefix = "placeholder".to_owned();
        while text.contains(&prefix) {
            prefix.push('x');
        }
        for (i, rename) in renames.iter_mut().enumerate() {
            rename.placeholder = format!("{prefix}{i}z");
            set_name(file, &rename.path, &rename.placeholder);
        }
        Ok(Renames {
            renames,
            descriptor,
        })
    }

    /// An identifier of the generator's as it is to be.
    pub(crate) fn in_code(&self, token: &str) -> Option<String> {
        let mut edited = None;
        for rename in &self.renames {
            for (placeholder, name) in [
                (rename.placeholder.clone(), &rename.member),
                (rename.capital(), &rename.capitalized),
            ] {
                if token.contains(&placeholder) {
                    edited = Some(token.replace(&placeholder, name));
                }
            }
        }
        edited
    }

    /// A string or a comment of the generator's as it is to be.
    pub(crate) fn in_text(&self, token: &str) -> Option<String> {
        let mut edited: Option<String> = None;
        for rename in &self.renames {
            let text = edited.as_deref().unwrap_or(token);
            if text.contains(&rename.placeholder) {
                edited = Some(text.replace(&rename.placeholder, &rename.proto));
            }
        }
        edited
    }

    /// Puts the descriptor as it was in the place of the one with placeholders.
    pub(crate) fn restore_descriptor(&self, code: &str) -> String {
        const START: &str = "static file_descriptor_proto_data: &'static [u8] = b\"";
        if self.renames.is_empty() {
            return code.to_owned();
        }
        // Files without reflection have none.
        let Some((before, rest)) = code.split_once(START) else {
            return code.to_owned();
        };
        let Some((_, after)) = rest.split_once("\";\n") else {
            return code.to_owned();
        };
        let mut literal = String::new();
        for line in self.descriptor.chunks(24) {
            literal.push_str("\\\n    ");
            for &byte in line {
                // A space at the head of a line would not count.
                if byte == b' ' {
                    literal.push_str("\\x20");
                } else {
                    literal.extend(byte.escape_ascii().map(char::from));
                }
            }
        }
        format!("{before}{START}{literal}\";\n{after}")
    }
}

/// Gives the oneof or field at `place` another name.
fn set_name(file: &mut FileDescriptorProto, place: &[i32], name: &str) {
    let [path::FILE_MESSAGE, first, rest @ ..] = place else {
        return;
    };
    let mut message: &mut DescriptorProto = &mut file.message_type[*first as usize];
    let mut rest = rest;
    while let [path::MESSAGE_NESTED, i, further @ ..] = rest {
        message = &mut message.nested_type[*i as usize];
        rest = further;
    }
    match rest {
        [path::MESSAGE_ONEOF, i] => message.oneof_decl[*i as usize].set_name(name.to_owned()),
        [path::MESSAGE_FIELD, i] => message.field[*i as usize].set_name(name.to_owned()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renames() -> Renames {
        let mut file = FileDescriptorProto::new();
        let mut message = DescriptorProto::new();
        message.oneof_decl.push(Default::default());
        message.oneof_decl[0].set_name("kind".to_owned());
        message.field.push(Default::default());
        message.field[0].set_name("new".to_owned());
        file.message_type.push(message);
        let oneof = Rename::oneof(vec![4, 0, 8, 0], "kind", "kind".into(), "KindOneOf".into());
        let field = Rename::field(vec![4, 0, 2, 0], "new", "new_".into());
        let renames = Renames::apply(vec![oneof, field], &mut file).unwrap();
        assert_eq!(
            file.message_type[0].oneof_decl[0].name(),
            "placeholder0z",
            "{file}"
        );
        assert_eq!(file.message_type[0].field[0].name(), "placeholder1z");
        renames
    }

    #[test]
    fn placeholders_become_names_by_where_they_stand() {
        let renames = renames();
        for (token, code) in [
            ("placeholder0z", "kind"),
            ("Placeholder0z", "KindOneOf"),
            ("set_placeholder1z", "set_new_"),
            ("Placeholder1z", "New"),
        ] {
            assert_eq!(renames.in_code(token).unwrap(), code);
        }
        assert_eq!(renames.in_code("kind"), None);
        assert_eq!(
            renames.in_text("\"placeholder1z placeholder0z\"").unwrap(),
            "\"new kind\""
        );
    }

    #[test]
    fn the_descriptor_is_the_one_before() {
        let code = "a\nstatic file_descriptor_proto_data: &'static [u8] = b\"\\\n  x\\\n\";\nb\n";
        let restored = renames().restore_descriptor(code);
        assert!(
            restored.contains("kind") && !restored.contains("placeholder"),
            "{restored}"
        );
        assert!(restored.starts_with("a\n") && restored.ends_with("\";\nb\n"));
    }
}
