//! Text: for machines, and of what has gone wrong.

use std::any::Any;

#[cfg(feature = "http")]
/// A string of JSON, with its quotes: RFC 8259, section 7.
pub(crate) fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for it in text.chars() {
        match it {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            // And what would let the line go on elsewhere in some viewers.
            it if it.is_control() || matches!(it, '\u{2028}' | '\u{2029}') => {
                out.push_str(&format!("\\u{:04x}", u32::from(it)));
            }
            it => out.push(it),
        }
    }
    out.push('"');
    out
}

#[cfg(feature = "http")]
/// One line of text, whatever it was.
pub(crate) fn one_line(text: &str) -> String {
    let visible = |it: char| {
        if it.is_control() || matches!(it, '\u{2028}' | '\u{2029}') {
            ' '
        } else {
            it
        }
    };
    text.chars().map(visible).collect()
}

/// What a panic says.
pub(crate) fn message_of(panic: Box<dyn Any + Send>) -> String {
    let panic = match panic.downcast::<String>() {
        Ok(message) => return *message,
        Err(panic) => panic,
    };
    match panic.downcast::<&'static str>() {
        Ok(message) => (*message).to_owned(),
        Err(panic) => {
            // It may panic again when it is dropped.
            std::mem::forget(panic);
            "no message".to_owned()
        }
    }
}

/// The start of a text, of so many bytes at the most.
pub(crate) fn shortened(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len()))
        .rev()
        .find(|it| text.is_char_boundary(*it));
    &text[..end.unwrap_or(0)]
}

#[cfg(all(test, feature = "http"))]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_a_string_does_not() {
        assert_eq!(
            json("a\"b\\c\nd\u{1b}\u{85}"),
            "\"a\\\"b\\\\c\\nd\\u001b\\u0085\""
        );
        assert_eq!(one_line("a\r\nb\u{2028}c"), "a  b c");
    }
}
