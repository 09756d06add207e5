//! Text and numbers, as the page has them.

use std::fmt::{self, Display, Formatter, Write};
use std::time::Duration;

/// How much of a text is shown, in characters: a message may be of any length.
const LONGEST: usize = 400;

/// Text of any origin: escaped for elements and for attributes in quotes, on one line, and cut if it is long.
pub(super) struct Text<'a>(pub(super) &'a str);

impl Display for Text<'_> {
    fn fmt(&self, to: &mut Formatter<'_>) -> fmt::Result {
        for char in self.0.chars().take(LONGEST) {
            match char {
                '&' => to.write_str("&amp;")?,
                '<' => to.write_str("&lt;")?,
                '>' => to.write_str("&gt;")?,
                '"' => to.write_str("&quot;")?,
                '\'' => to.write_str("&#39;")?,
                char if char.is_control() => to.write_char(' ')?,
                char if turns_text(char) => to.write_char('\u{fffd}')?,
                char => to.write_char(char)?,
            }
        }
        match self.0.chars().nth(LONGEST) {
            Some(_) => to.write_char('…'),
            None => Ok(()),
        }
    }
}

/// Whether it changes the direction of the text after it, and so may have that read as something else.
fn turns_text(char: char) -> bool {
    matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}')
}

/// The name of a method or service, which may be broken into lines where its words end.
pub(super) struct Name<'a>(pub(super) &'a str);

impl Display for Name<'_> {
    fn fmt(&self, to: &mut Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        // What is cut anyway need not be broken.
        for _ in 0..20 {
            let Some(end) = end_of_word(rest) else { break };
            let (word, after) = rest.split_at(end);
            write!(to, "{}<wbr>", Text(word))?;
            rest = after;
        }
        Text(rest).fmt(to)
    }
}

/// Behind a dot, or before a capital letter after a small one.
fn end_of_word(name: &str) -> Option<usize> {
    let bytes = name.as_bytes();
    let is_end = |pair: &[u8]| {
        let ends = pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase();
        ends || pair[0] == b'.'
    };
    let end = bytes.windows(2).position(is_end)? + 1;
    name.is_char_boundary(end).then_some(end)
}

/// A count, with the thousands apart.
pub(super) struct Count(pub(super) u64);

impl Display for Count {
    fn fmt(&self, to: &mut Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index) % 3 == 0 {
                to.write_char(',')?;
            }
            to.write_char(digit)?;
        }
        Ok(())
    }
}

/// A time, with two or three digits that count.
pub(super) struct Time(pub(super) Duration);

impl Display for Time {
    fn fmt(&self, to: &mut Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let pair = |to: &mut Formatter<'_>, large: u64, a: &str, small: u64, b: &str| match small {
            0 => write!(to, "{large} {a}"),
            _ => write!(to, "{large} {a} {small} {b}"),
        };
        match seconds {
            0..60 => short(to, self.0.as_secs_f64()),
            60..3600 => pair(to, seconds / 60, "min", seconds % 60, "s"),
            3600..86400 => pair(to, seconds / 3600, "h", seconds % 3600 / 60, "min"),
            _ => pair(to, seconds / 86400, "d", seconds % 86400 / 3600, "h"),
        }
    }
}

/// A time of less than a minute or so.
fn short(to: &mut Formatter<'_>, seconds: f64) -> fmt::Result {
    let (value, unit) = match seconds {
        it if it <= 0.0 => return to.write_str("0 s"),
        it if it < 0.000_999_5 => (it * 1e6, "µs"),
        it if it < 0.999_5 => (it * 1e3, "ms"),
        it => (it, "s"),
    };
    let decimals = match value {
        it if it < 9.95 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    let text = text.strip_suffix(".0").unwrap_or(&text);
    write!(to, "{text} {unit}")
}

/// A bound of a histogram, or a time estimated from one: seconds.
pub(super) struct Seconds(pub(super) f64);

impl Display for Seconds {
    fn fmt(&self, to: &mut Formatter<'_>) -> fmt::Result {
        match Duration::try_from_secs_f64(self.0) {
            Ok(time) => Time(time).fmt(to),
            // Beyond all clocks.
            Err(_) => to.write_str("∞"),
        }
    }
}

/// A size in bytes.
pub(super) struct Size(pub(super) u64);

impl Display for Size {
    fn fmt(&self, to: &mut Formatter<'_>) -> fmt::Result {
        let bytes = self.0 as f64;
        match self.0 {
            0..1024 => write!(to, "{} B", self.0),
            1024..0x10_0000 => write!(to, "{:.0} KiB", bytes / 1024.0),
            0x10_0000..0x4000_0000 => write!(to, "{:.1} MiB", bytes / f64::from(1 << 20)),
            _ => write!(to, "{:.1} GiB", bytes / f64::from(1 << 30)),
        }
    }
}
