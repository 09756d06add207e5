//! A line as text: for people, and for the journal.

use std::fmt::{self, Write};
use std::time::SystemTime;

use log::kv::{self, Key, Value, VisitSource, VisitValue};
use log::{Level, Record};

use super::lines::escape::{self, Form};
use super::lines::{has_room, time, MESSAGE, NAME, VALUE};

/// What stands in the place of pairs for which there is no room.
const CUT: &str = " …";

/// Writes `2026-11-30T20:03:11.042Z WARN  target: message key=value`, without a line break.
pub(super) fn push(out: &mut String, at: SystemTime, record: &Record<'_>) {
    time::push(out, at);
    let _ = write!(out, " {:5} ", record.level());
    push_rest(out, record);
}

/// Writes `<4>target: message key=value`, without a line break. The journal has the time, and takes the level from
/// the number, which is one of [sd-daemon(3)](https://www.freedesktop.org/software/systemd/man/latest/sd-daemon.html).
pub(super) fn push_for_journal(out: &mut String, record: &Record<'_>) {
    out.push_str(match record.level() {
        Level::Error => "<3>",
        Level::Warn => "<4>",
        Level::Info => "<6>",
        Level::Debug | Level::Trace => "<7>",
    });
    push_rest(out, record);
}

fn push_rest(out: &mut String, record: &Record<'_>) {
    escape::push(out, Form::Plain, NAME, record.target());
    out.push_str(": ");
    escape::push(out, Form::Plain, MESSAGE, record.args());
    let mut pairs = Pairs { out, count: 0 };
    if record.key_values().visit(&mut pairs).is_err() {
        out.push_str(CUT);
    }
}

struct Pairs<'a> {
    out: &'a mut String,
    count: usize,
}

impl<'kvs> VisitSource<'kvs> for Pairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        if !has_room(self.out, self.count) {
            return Err(kv::Error::msg("the line is full"));
        }
        self.count += 1;
        self.out.push(' ');
        push_word(self.out, NAME, key.as_str());
        self.out.push('=');
        value.visit(self)
    }
}

impl Pairs<'_> {
    fn bare(&mut self, value: impl fmt::Display) -> Result<(), kv::Error> {
        let _ = write!(self.out, "{value}");
        Ok(())
    }
}

impl<'v> VisitValue<'v> for &mut Pairs<'_> {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), kv::Error> {
        push_word(self.out, VALUE, value);
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), kv::Error> {
        self.bare("null")
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), kv::Error> {
        self.bare(value)
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
        self.bare(value)
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), kv::Error> {
        self.bare(value)
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), kv::Error> {
        self.bare(format_args!("{value:?}"))
    }
}

/// Writes one word: as it is, if it cannot be taken for more than one, and else between quotes, as a string of Rust.
fn push_word(out: &mut String, bytes: usize, what: impl fmt::Display) {
    let begin = out.len();
    out.push('"');
    escape::push(out, Form::Quoted, bytes, what);
    let word = &out[begin + 1..];
    // What was escaped has a `\`.
    let is_word =
        |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'=' | b'\\');
    if !word.is_empty() && word.bytes().all(is_word) {
        out.remove(begin);
    } else {
        out.push('"');
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_value_has_quotes_where_it_could_be_taken_for_more() {
        for (value, word) in [
            ("lame_duck", "lame_duck"),
            ("/demo.Echo/Say", "/demo.Echo/Say"),
            ("", r#""""#),
            ("two words", r#""two words""#),
            ("a=b", r#""a=b""#),
            ("say \"x\" \\", r#""say \"x\" \\""#),
            ("line\nbreak", r#""line\nbreak""#),
            ("grün", "\"grün\""),
        ] {
            let mut out = String::new();
            push_word(&mut out, VALUE, value);
            assert_eq!(out, word);
        }
    }

    #[test]
    fn a_record_is_a_line_in_both_forms() {
        let pairs: &[(&str, Value<'_>)] = &[
            ("phase", Value::from("lame duck")),
            ("in_flight", Value::from(3_u64)),
            ("left", Value::from(-1.0)),
            ("ready", Value::from(false)),
            ("nothing", Value::null()),
        ];
        let write = |push: fn(&mut String, &Record<'_>)| {
            let mut out = String::new();
            let mut builder = Record::builder();
            let builder = builder
                .level(Level::Warn)
                .target("demo::x")
                .key_values(&pairs);
            push(
                &mut out,
                &builder.args(format_args!("it\nis {}", 5)).build(),
            );
            out
        };
        let rest =
            r#"demo::x: it\nis 5 phase="lame duck" in_flight=3 left=-1.0 ready=false nothing=null"#;
        let text = write(|out, record| push(out, UNIX_EPOCH, record));
        assert_eq!(text, format!("1970-01-01T00:00:00.000Z WARN  {rest}"));
        assert_eq!(write(push_for_journal), format!("<4>{rest}"));
    }
}
