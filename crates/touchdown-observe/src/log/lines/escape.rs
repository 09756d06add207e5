//! Text from elsewhere, so that it can neither end a line nor look like another.

use std::fmt::{self, Write};

/// Whether a reader may take what follows this for something else: another line (all that Unicode and `str.splitlines` of
/// Python take for its end), a command of a terminal, or text in another direction than it has (Trojan Source,
/// CVE-2021-42574).
pub(crate) fn is_unsafe(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{2028}' | '\u{2029}')
        || matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// How a character is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// For people, in the open: `\n`, `\u{1b}`.
    Plain,
    /// The same between quotes, which it cannot end.
    Quoted,
    /// As RFC 8259, section 7, has it in a string.
    Json,
}

impl Form {
    fn push(self, out: &mut String, char: char) {
        match char {
            '"' | '\\' if self != Form::Plain => out.extend(['\\', char]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            char if !is_unsafe(char) => out.push(char),
            // None of them needs two units of UTF-16.
            char if self == Form::Json => drop(write!(out, "\\u{:04x}", u32::from(char))),
            char => drop(write!(out, "\\u{{{:x}}}", u32::from(char))),
        }
    }

    /// Whether all of it is written as it is.
    fn keeps(self, text: &str) -> bool {
        let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
        text.bytes().all(is_plain)
    }
}

/// Writes to a line, in a form and up to a length. What does not fit in is left out, and "…" stands in its place.
pub(crate) struct Escaped<'a> {
    out: &'a mut String,
    form: Form,
    /// The longest that the line may become, the mark apart.
    end: usize,
    is_cut: bool,
}

impl<'a> Escaped<'a> {
    /// For so many bytes more.
    pub(crate) fn new(out: &'a mut String, form: Form, bytes: usize) -> Escaped<'a> {
        let end = out.len() + bytes.saturating_sub('…'.len_utf8());
        Escaped {
            out,
            form,
            end,
            is_cut: false,
        }
    }
}

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // Something that does not heed an error may go on to write.
        if self.is_cut {
            return Err(fmt::Error);
        }
        if self.out.len() + text.len() <= self.end && self.form.keeps(text) {
            self.out.push_str(text);
            return Ok(());
        }
        for char in text.chars() {
            let before = self.out.len();
            self.form.push(self.out, char);
            if self.out.len() > self.end {
                self.out.truncate(before);
                self.out.push('…');
                self.is_cut = true;
                return Err(fmt::Error);
            }
        }
        Ok(())
    }
}

/// Writes what something says. Returns whether all of it is there.
pub(crate) fn push(out: &mut String, form: Form, bytes: usize, what: impl fmt::Display) -> bool {
    let mut escaped = Escaped::new(out, form, bytes);
    // If it fails by itself, what it has said so far stands.
    let _ = write!(escaped, "{what}");
    !escaped.is_cut
}

/// The same as text of its own.
pub(crate) fn escaped(bytes: usize, what: impl fmt::Display) -> String {
    let mut out = String::new();
    push(&mut out, Form::Plain, bytes, what);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVIL: &str = "a\nb\r\t\u{1b}[2J\0\u{7f}\u{85}\u{2028}\u{202e}\"\\ü🛬";

    #[test]
    fn nothing_is_left_that_ends_a_line_or_commands_a_terminal() {
        let escaped = |form| {
            let mut out = String::new();
            assert!(push(&mut out, form, 1000, EVIL));
            out
        };
        let plain = r#"a\nb\r\t\u{1b}[2J\u{0}\u{7f}\u{85}\u{2028}\u{202e}"\ü🛬"#;
        assert_eq!(escaped(Form::Plain), plain);
        let quoted = r#"a\nb\r\t\u{1b}[2J\u{0}\u{7f}\u{85}\u{2028}\u{202e}\"\\ü🛬"#;
        assert_eq!(escaped(Form::Quoted), quoted);
        let json = r#"a\nb\r\t\u001b[2J\u0000\u007f\u0085\u2028\u202e\"\\ü🛬"#;
        assert_eq!(escaped(Form::Json), json);
    }

    #[test]
    fn what_is_cut_is_cut_between_characters_and_says_so() {
        for bytes in 3..40 {
            for form in [Form::Plain, Form::Quoted, Form::Json] {
                let mut out = String::from("before ");
                let is_whole = push(&mut out, form, bytes, EVIL);
                assert!(out.len() <= 7 + bytes, "{out}");
                assert_eq!(is_whole, !out.ends_with('…'), "{out}");
            }
        }
        assert_eq!(escaped(6, "abcdefg"), "abc…");
        assert_eq!(escaped(10, "abcdefg"), "abcdefg");
        // A part that was cut stays cut, whatever comes.
        let mut out = String::new();
        let mut cut = Escaped::new(&mut out, Form::Plain, 6);
        assert!(cut.write_str("abcd").is_err() && cut.write_str("e").is_err());
        assert_eq!(out, "abc…");
    }

    #[test]
    fn something_that_fails_to_say_what_it_is_has_said_a_part() {
        struct Fails;
        impl fmt::Display for Fails {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("half")?;
                Err(fmt::Error)
            }
        }
        assert_eq!(escaped(100, Fails), "half");
    }
}
