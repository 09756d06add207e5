//! Comments of `.proto` files, made into documentation that `rustdoc` reads as it was meant.
//!
//! A comment is free text, often written like Markdown, but not for Rust. Taken as it is, an indented
//! example would be compiled as a doc test, `[name]` be a broken link, `List<Item>` an HTML tag.

use std::collections::HashMap;

use protobuf::descriptor::source_code_info::Location;
use protobuf::descriptor::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto};

/// Numbers of fields in descriptor.proto, of which paths in the source information are made.
pub(crate) mod path {
    pub(crate) const FILE_DEPENDENCY: i32 = 3;
    pub(crate) const FILE_MESSAGE: i32 = 4;
    pub(crate) const FILE_ENUM: i32 = 5;
    pub(crate) const FILE_SERVICE: i32 = 6;
    pub(crate) const FILE_EXTENSION: i32 = 7;
    pub(crate) const SERVICE_METHOD: i32 = 2;
    pub(crate) const MESSAGE_FIELD: i32 = 2;
    pub(crate) const MESSAGE_NESTED: i32 = 3;
    pub(crate) const MESSAGE_ENUM: i32 = 4;
    pub(crate) const MESSAGE_EXTENSION: i32 = 6;
    pub(crate) const MESSAGE_ONEOF: i32 = 8;
    pub(crate) const ENUM_VALUE: i32 = 2;
    /// The name of any of these.
    pub(crate) const NAME: i32 = 1;
}

/// What a `.proto` file says about its elements: comments and places.
pub(crate) struct SourceInfo {
    locations: HashMap<Vec<i32>, Location>,
}

impl SourceInfo {
    /// Takes the source information out of a descriptor, which is lighter without.
    pub(crate) fn take_from(file: &mut FileDescriptorProto) -> SourceInfo {
        let mut locations = HashMap::new();
        for location in file.source_code_info.take().unwrap_or_default().location {
            locations.entry(location.path.clone()).or_insert(location);
        }
        SourceInfo { locations }
    }

    /// Line and column, from one, of the name of the element at `path`, or of the element.
    pub(crate) fn place(&self, path: &[i32]) -> (usize, usize) {
        let name: Vec<i32> = path.iter().copied().chain([path::NAME]).collect();
        self.locations
            .get(&name)
            .or_else(|| self.locations.get(path))
            .and_then(|location| match location.span[..] {
                [line, column, ..] => Some((line as usize + 1, column as usize + 1)),
                _ => None,
            })
            .unwrap_or((1, 1))
    }

    /// The comment before the element at `path` and the one behind it, as lines of documentation.
    pub(crate) fn docs(&self, path: &[i32]) -> Vec<String> {
        let Some(location) = self.locations.get(path) else {
            return Vec::new();
        };
        let mut docs = to_rustdoc(location.leading_comments());
        let trailing = to_rustdoc(location.trailing_comments());
        if !docs.is_empty() && !trailing.is_empty() {
            docs.push(String::new());
        }
        docs.extend(trailing);
        docs
    }

    /// The documentation of messages, enums and what they hold, by the names that `protobuf-codegen` gives
    /// them in its markers: `message:package.Name`, `field:package.Name.field`, and so on.
    pub(crate) fn docs_of_messages(
        &self,
        file: &FileDescriptorProto,
    ) -> HashMap<String, Vec<String>> {
        let mut found = Found {
            info: self,
            docs: HashMap::new(),
        };
        let package = file.package();
        for (i, message) in file.message_type.iter().enumerate() {
            found.message(package, message, vec![path::FILE_MESSAGE, i as i32]);
        }
        for (i, enumeration) in file.enum_type.iter().enumerate() {
            found.enumeration(package, enumeration, vec![path::FILE_ENUM, i as i32]);
        }
        found.docs
    }
}

struct Found<'a> {
    info: &'a SourceInfo,
    docs: HashMap<String, Vec<String>>,
}

impl Found<'_> {
    fn add(&mut self, kind: &str, name: &str, path: &[i32]) {
        let docs = self.info.docs(path);
        if !docs.is_empty() {
            self.docs.insert(format!("{kind}:{name}"), docs);
        }
    }

    fn message(&mut self, scope: &str, message: &DescriptorProto, path: Vec<i32>) {
        let name = qualified(scope, message.name());
        self.add("message", &name, &path);
        for (i, field) in message.field.iter().enumerate() {
            let kind = if field.has_oneof_index() && !field.proto3_optional() {
                "oneof_field"
            } else {
                "field"
            };
            let path = child(&path, path::MESSAGE_FIELD, i);
            self.add(kind, &qualified(&name, field.name()), &path);
        }
        for (i, oneof) in message.oneof_decl.iter().enumerate() {
            let path = child(&path, path::MESSAGE_ONEOF, i);
            self.add("oneof", &qualified(&name, oneof.name()), &path);
        }
        for (i, nested) in message.nested_type.iter().enumerate() {
            self.message(&name, nested, child(&path, path::MESSAGE_NESTED, i));
        }
        for (i, nested) in message.enum_type.iter().enumerate() {
            self.enumeration(&name, nested, child(&path, path::MESSAGE_ENUM, i));
        }
    }

    fn enumeration(&mut self, scope: &str, enumeration: &EnumDescriptorProto, path: Vec<i32>) {
        let name = qualified(scope, enumeration.name());
        self.add("enum", &name, &path);
        for (i, value) in enumeration.value.iter().enumerate() {
            let path = child(&path, path::ENUM_VALUE, i);
            self.add("enum_value", &qualified(&name, value.name()), &path);
        }
    }
}

pub(crate) fn child(path: &[i32], field: i32, index: usize) -> Vec<i32> {
    path.iter().copied().chain([field, index as i32]).collect()
}

pub(crate) fn qualified(scope: &str, name: &str) -> String {
    if scope.is_empty() {
        name.to_owned()
    } else {
        format!("{scope}.{name}")
    }
}

/// Makes Markdown for `rustdoc` of a comment, line by line.
fn to_rustdoc(comment: &str) -> Vec<String> {
    let lines = dedent(comment);
    let mut docs = Vec::new();
    let mut after_blank = true;
    let mut in_list = false;
    let mut lines = lines.iter().peekable();
    while let Some(line) = lines.next() {
        let indent = indent_of(line);
        if line.is_empty() {
            after_blank = true;
            docs.push(String::new());
            continue;
        }
        if let Some(fence) = fence_of(line) {
            // Whatever the language: it is not Rust of this crate, and no doc test.
            let margin = " ".repeat(if in_list { indent.min(5) } else { 0 });
            docs.push(format!("{margin}{fence}text"));
            for line in lines.by_ref() {
                if fence_of(line).is_some_and(|end| end.starts_with(fence))
                    && line.trim_matches([' ', '`', '~']).is_empty()
                {
                    break;
                }
                docs.push(line.clone());
            }
            docs.push(format!("{margin}{fence}"));
            after_blank = true;
            continue;
        }
        if is_list_item(line) {
            in_list = true;
        } else if indent == 0 {
            in_list = in_list && !after_blank;
        }
        if indent >= 4 && after_blank && !in_list {
            let mut code = vec![line.clone()];
            while let Some(line) = lines.next_if(|line| line.is_empty() || indent_of(line) >= 4) {
                code.push(line.clone());
            }
            let mut blank_lines = 0;
            while code.last().is_some_and(String::is_empty) {
                code.pop();
                blank_lines += 1;
            }
            let fence = if code.iter().any(|line| line.contains("```")) {
                "~~~~"
            } else {
                "```"
            };
            docs.push(format!("{fence}text"));
            docs.extend(
                code.iter()
                    .map(|line| line.get(4..).unwrap_or("").to_owned()),
            );
            docs.push(fence.to_owned());
            docs.extend(vec![String::new(); blank_lines]);
            after_blank = blank_lines > 0;
            continue;
        }
        // In a list, five spaces never begin a code block but always belong to the item.
        let skipped = if after_blank {
            indent.saturating_sub(5)
        } else {
            0
        };
        docs.push(escape_line(&line[skipped..]));
        // Only within a paragraph is an indented line no code.
        after_blank = line[indent..].starts_with('#') || !line.contains(char::is_alphanumeric);
    }
    while docs.last().is_some_and(String::is_empty) {
        docs.pop();
    }
    docs
}

/// The lines of a comment without what they are all indented by, without blank lines at the start, and
/// without characters that `rustc` refuses in documentation.
fn dedent(comment: &str) -> Vec<String> {
    let lines: Vec<String> = comment
        .lines()
        .map(|line| {
            let cleaned: String = line
                .replace('\t', "    ")
                .chars()
                .filter(|c| !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect();
            cleaned.trim_end().to_owned()
        })
        .collect();
    let margin = lines
        .iter()
        .filter(|line| !line.is_empty())
        .map(|line| indent_of(line))
        .min()
        .unwrap_or(0);
    lines
        .iter()
        .map(|line| line.get(margin..).unwrap_or("").to_owned())
        .skip_while(String::is_empty)
        .collect()
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// The run of backticks or tildes that opens or closes a code block in this line.
fn fence_of(line: &str) -> Option<&str> {
    let text = line.trim_start_matches(' ');
    let mark = text.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let rest = text.trim_start_matches(mark);
    let run = &text[..text.len() - rest.len()];
    // Three backticks with more of them behind are a code span.
    (run.len() >= 3 && !(mark == '`' && rest.contains('`'))).then_some(run)
}

fn is_list_item(line: &str) -> bool {
    let text = line.trim_start_matches(' ');
    let rest = match text.strip_prefix(['-', '*', '+']) {
        Some(rest) => rest,
        None => {
            let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
            match rest.strip_prefix(['.', ')']) {
                Some(after) if rest.len() < text.len() => after,
                _ => return false,
            }
        }
    };
    rest.is_empty() || rest.starts_with(' ')
}

/// Escapes brackets and angle brackets, and makes links of web addresses, but not within backticks, nor
/// where there is a link already. What could begin a code block behind the mark of a list item or of a
/// quotation (a fence, many spaces) no longer does.
fn escape_line(line: &str) -> String {
    let mut out = line[..indent_of(line)].to_owned();
    let mut rest = &line[out.len()..];
    while let Some(c) = rest.chars().next() {
        if matches!(c, '`' | '~') && code_span(rest).is_none() {
            let after = rest.trim_start_matches(c);
            for _ in 0..rest.len() - after.len() {
                out.extend(['\\', c]);
            }
            rest = after;
            continue;
        }
        let taken = match c {
            '`' => code_span(rest).unwrap_or(0),
            '[' => web_link(rest),
            '<' => autolink(rest),
            'h' if !out.ends_with(|c: char| c.is_alphanumeric()) => {
                let address = web_address(rest);
                if address > 0 {
                    out.push('<');
                    out.push_str(&rest[..address]);
                    out.push('>');
                    rest = &rest[address..];
                    continue;
                }
                0
            }
            // What is escaped already stays so.
            '\\' => rest.chars().take(2).map(char::len_utf8).sum(),
            _ => 0,
        };
        if taken > 0 {
            out.push_str(&rest[..taken]);
            rest = &rest[taken..];
            continue;
        }
        if c == ' ' && out.ends_with(' ') {
            rest = &rest[1..];
            continue;
        }
        if matches!(c, '[' | ']' | '<') {
            out.push('\\');
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    out
}

/// The length of the code span that `text` starts with, if something closes it.
fn code_span(text: &str) -> Option<usize> {
    let run = text.len() - text.trim_start_matches('`').len();
    let mut at = run;
    while let Some(found) = text[at..].find('`') {
        let start = at + found;
        let length = text[start..].len() - text[start..].trim_start_matches('`').len();
        if length == run {
            return (run > 0).then_some(start + length);
        }
        at = start + length;
    }
    None
}

/// The length of `[text](http://…)`, or 0.
fn web_link(text: &str) -> usize {
    let Some(middle) = text.find("](") else {
        return 0;
    };
    if text[1..middle].contains(['[', ']']) || web_address(&text[middle + 2..]) == 0 {
        return 0;
    }
    text[middle..].find(')').map_or(0, |end| middle + end + 1)
}

/// The length of `<http://…>`, or 0.
fn autolink(text: &str) -> usize {
    let address = web_address(&text[1..]);
    if address > 0 && text[1 + address..].starts_with('>') {
        address + 2
    } else {
        0
    }
}

/// The length of the web address that `text` starts with, or 0.
fn web_address(text: &str) -> usize {
    let Some(rest) = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
    else {
        return 0;
    };
    let end = rest
        .find(|c: char| c.is_whitespace() || matches!(c, '<' | '>' | '"' | '`' | '[' | ']' | ')'))
        .unwrap_or(rest.len());
    let host = rest[..end].trim_end_matches(['.', ',', ';', ':', '!', '?', '\'', '*', '_']);
    if host.is_empty() {
        0
    } else {
        text.len() - rest.len() + host.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays() {
        assert_eq!(
            to_rustdoc(" One.\n\n Two\n   three.\n"),
            ["One.", "", "Two", "  three."]
        );
        assert!(to_rustdoc("").is_empty());
        assert!(to_rustdoc(" \n\n").is_empty());
    }

    #[test]
    fn indented_code_is_text() {
        assert_eq!(
            to_rustdoc(" Like:\n\n     let x = 1;\n       y\n\n So.\n"),
            [
                "Like:",
                "",
                "```text",
                "let x = 1;",
                "  y",
                "```",
                "",
                "So."
            ]
        );
    }

    #[test]
    fn fenced_code_is_text_and_gets_closed() {
        assert_eq!(
            to_rustdoc(" ```rust\n foo[0]\n ```\n [x]\n"),
            ["```text", "foo[0]", "```", "\\[x\\]"]
        );
        assert_eq!(to_rustdoc(" ```\n foo"), ["```text", "foo", "```"]);
        assert_eq!(
            to_rustdoc(" ~~~~\n ```\n ~~~~"),
            ["~~~~text", "```", "~~~~"]
        );
    }

    #[test]
    fn items_of_lists_are_no_code() {
        assert_eq!(
            to_rustdoc(" - one\n\n       more of one\n - two"),
            ["- one", "", "     more of one", "- two"]
        );
    }

    #[test]
    fn brackets_are_escaped_and_links_kept() {
        for (comment, docs) in [
            ("a [b] c", "a \\[b\\] c"),
            ("[b](https://b.example/x_y)", "[b](https://b.example/x_y)"),
            ("[b](c)", "\\[b\\](c)"),
            ("List<Item>", "List\\<Item>"),
            ("`List<Item> [b]`", "`List<Item> [b]`"),
            ("see http://a.example/b.", "see <http://a.example/b>."),
            ("(https://a.example)", "(<https://a.example>)"),
            ("<https://a.example>", "<https://a.example>"),
            ("lone ` [b]", "lone \\` \\[b\\]"),
            ("- ```rust", "- \\`\\`\\`rust"),
            (">     code", "> code"),
            ("``a`b`` [c]", "``a`b`` \\[c\\]"),
            ("\\[b\\]", "\\[b\\]"),
            ("héllo", "héllo"),
        ] {
            assert_eq!(to_rustdoc(comment), [docs]);
        }
    }

    #[test]
    fn what_rustc_refuses_is_taken_out() {
        assert_eq!(to_rustdoc("a\u{202e}b\rc\r\nd"), ["ab c", "d"]);
    }
}
