//! Message code, by `protobuf-codegen`, with our touch-ups to its text.
//!
//! The generator is handed checked descriptors through a function that is public but not documented; the
//! version is pinned for that. Its output marks each element with a line like
//! `// @@protoc_insertion_point(field:package.Message.field)`, where we put the documentation: its own way
//! leaves out comments with examples, and those of enum values and oneofs.

use std::collections::HashMap;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;

use protobuf::descriptor::FileDescriptorProto;
use protobuf_codegen::{Customize, CustomizeCallback};
use protobuf_parse::ProtoPathBuf;

use crate::names::MISSED_BY_PROTOBUF;
use crate::renames::Renames;
use crate::Error;

/// Generates the code of all messages and enums of the files named in `generate`, which are among `files`.
/// The result is in the order of `generate`. `scratch` is an existing folder, to write in.
pub(crate) fn generate(
    files: &[FileDescriptorProto],
    generate: &[String],
    lite: bool,
    scratch: &Path,
) -> Result<Vec<String>, Error> {
    struct NoCallback;
    impl CustomizeCallback for NoCallback {}

    let names = generate
        .iter()
        .map(|name| ProtoPathBuf::new(name.clone()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Error::new(error.to_string()))?;
    let mut customize = Customize::default().gen_mod_rs(false);
    if lite {
        customize = customize.lite_runtime(true);
    }
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        protobuf_codegen::gen_and_write::gen_and_write(
            files,
            "protox",
            &names,
            scratch,
            &customize,
            &NoCallback,
        )
    }));
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(Error::new(format!("protobuf-codegen failed: {error:#}"))),
        Err(panic) => {
            let message = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            return Err(Error::new(format!("protobuf-codegen panicked: {message}")));
        }
    }
    generate
        .iter()
        .map(|name| {
            let path = scratch.join(protobuf_codegen::proto_name_to_rs(name));
            std::fs::read_to_string(&path)
                .map_err(|error| Error::new(format!("{}: {error}", path.display())))
        })
        .collect()
}

/// Has messages of more than 500 fields be compared like all others: the generator has them panic, for compilers of
/// before 2018.
pub(crate) fn compare_all(code: &str) -> String {
    const DUMMY: &str = "// https://github.com/rust-lang/rust/issues/40119";
    if !code.contains(DUMMY) {
        return code.to_owned();
    }
    let mut compared = String::with_capacity(code.len());
    let mut lines = code.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        let text = line.trim();
        if text == "#[derive(Clone,Default,Debug)]" {
            compared += &line.replace("(Clone", "(PartialEq,Clone");
            continue;
        }
        let is_dummy = text.starts_with("impl ::std::cmp::PartialEq for ") && {
            // The function, and the comment in it.
            let mut further = lines.clone();
            further.nth(1).is_some_and(|line| line.trim() == DUMMY)
        };
        match is_dummy {
            // The two lines, the panic, two brackets.
            true => drop(lines.by_ref().take(5).count()),
            false => compared += line,
        }
    }
    compared
}

/// Puts documentation where the generator left its marks, has the code refer to `protobuf` by way of
/// `touchdown`, escapes the keywords that the generator does not know, and gives what was renamed its names.
pub(crate) fn finish(code: &str, docs: &HashMap<String, Vec<String>>, renames: &Renames) -> String {
    let mut finished = String::with_capacity(code.len());
    for line in edit_tokens(&renames.restore_descriptor(code), renames).lines() {
        let text = line.trim_start();
        let mark = text
            .strip_prefix("// @@protoc_insertion_point(")
            .and_then(|rest| rest.strip_suffix(')'));
        let Some(mark) = mark else {
            finished.push_str(line);
            finished.push('\n');
            continue;
        };
        let indent = &line[..line.len() - text.len()];
        for doc in docs.get(mark).into_iter().flatten() {
            push_doc(&mut finished, indent, doc);
        }
    }
    finished
}

/// One line of documentation.
pub(crate) fn push_doc(code: &mut String, indent: &str, doc: &str) {
    code.push_str(indent);
    code.push_str("///");
    if !doc.is_empty() {
        code.push(' ');
        code.push_str(doc);
    }
    code.push('\n');
}

/// Makes `::touchdown::protobuf::` of paths from `::protobuf::`, so that a user need not depend on `protobuf`,
/// and appends `_` to identifiers that `protobuf-codegen` takes for ordinary ones but are keywords by now.
///
/// The generator writes all paths to its runtime with colons in front, and none with spaces in it. Without
/// them, as in `super::protobuf::`, it is the module of a `protobuf.proto` or of a `message protobuf`.
fn edit_tokens(code: &str, renames: &Renames) -> String {
    let mut edited = String::with_capacity(code.len() + code.len() / 8);
    let mut rest = code;
    // Whether the token before is one that `::` goes on from.
    let mut in_path = false;
    while let Some(c) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if c == '"' {
            string_literal(rest)
        } else if c == '_' || c.is_ascii_alphanumeric() {
            rest.find(|c: char| c != '_' && !c.is_ascii_alphanumeric())
                .unwrap_or(rest.len())
        } else {
            c.len_utf8()
        };
        if !in_path && rest.starts_with("::protobuf::") {
            edited.push_str("::touchdown");
        }
        let (token, after) = rest.split_at(length);
        let renamed = match c {
            '/' | '"' => renames.in_text(token),
            _ => renames.in_code(token),
        };
        match renamed {
            Some(token) => edited.push_str(&token),
            None => edited.push_str(token),
        }
        if MISSED_BY_PROTOBUF.contains(&token) {
            edited.push('_');
        }
        in_path = matches!(c, '_' | '>' | ':') || c.is_ascii_alphanumeric();
        rest = after;
    }
    edited
}

/// The length of the string literal that `code` starts with.
fn string_literal(code: &str) -> usize {
    let mut escape = false;
    for (i, c) in code.char_indices().skip(1) {
        match c {
            _ if escape => escape = false,
            '\\' => escape = true,
            '"' => return i + 1,
            _ => {}
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_escaped_in_code_alone() {
        assert_eq!(
            edit_tokens(
                "x.try(\"try \\\" gen\") // try\ntry gen retry b\"gen\"",
                &Renames::default()
            ),
            "x.try_(\"try \\\" gen\") // try\ntry_ gen_ retry b\"gen\""
        );
    }

    #[test]
    fn the_runtime_is_found_in_touchdown() {
        for (code, edited) in [
            ("::protobuf::rt::Lazy", "::touchdown::protobuf::rt::Lazy"),
            ("&mut ::protobuf::X", "&mut ::touchdown::protobuf::X"),
            (
                "<M as ::protobuf::Message>::NAME",
                "<M as ::touchdown::protobuf::Message>::NAME",
            ),
            (
                "A<::protobuf::A<::protobuf::B>>",
                "A<::touchdown::protobuf::A<::touchdown::protobuf::B>>",
            ),
            (
                "(::protobuf::m!(),::protobuf::X)",
                "(::touchdown::protobuf::m!(),::touchdown::protobuf::X)",
            ),
            (
                "\"::protobuf::\"::protobuf::X",
                "\"::protobuf::\"::touchdown::protobuf::X",
            ),
            (
                "// ::protobuf::X\n::protobuf::X",
                "// ::protobuf::X\n::touchdown::protobuf::X",
            ),
        ] {
            assert_eq!(edit_tokens(code, &Renames::default()), edited);
        }
        for code in [
            "super::protobuf::X",
            "super::super::protobuf::X",
            "<A as B>::protobuf::X",
            "protobuf::X",
            "protobuf::protobuf::X",
            "::protobuf_::X",
            "::protobuf2::X",
            "::not_protobuf::X",
            "b\"\\\"::protobuf::X\"",
            "/// ::protobuf::X",
        ] {
            assert_eq!(edit_tokens(code, &Renames::default()), code);
        }
    }

    #[test]
    fn marks_become_documentation() {
        let docs = HashMap::from([(
            "field:a.B.c".to_owned(),
            vec!["One.".to_owned(), String::new()],
        )]);
        assert_eq!(
            finish("  // @@protoc_insertion_point(field:a.B.c)\n  c\n// @@protoc_insertion_point(x:y)\n", &docs, &Renames::default()),
            "  /// One.\n  ///\n  c\n"
        );
    }
}
