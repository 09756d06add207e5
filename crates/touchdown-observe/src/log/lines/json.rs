//! A line as a JSON object, with the names of the Elastic Common Schema (ECS).
//!
//! The form is that of [ecs-logging](https://github.com/elastic/ecs-logging/blob/main/spec/spec.json): time, level and
//! message first, names with dots at the top.

use std::fmt::{self, Write};
use std::time::SystemTime;

use log::kv::{self, Key, Value, VisitSource, VisitValue};
use log::{Level, Record};

use super::escape::{self, Form};
use super::keys::Keys;
use super::{has_room, time, MESSAGE, NAME, VALUE};

/// The version of ECS whose names these are.
pub(crate) const ECS: &str = "9.4.0";

/// Who writes.
pub(crate) struct Writer {
    pub(crate) service: String,
    pub(crate) process: u32,
}

/// Writes a record, without a line break.
pub(crate) fn push(
    out: &mut String,
    writer: &Writer,
    at: SystemTime,
    thread: Option<&str>,
    record: &Record<'_>,
) {
    out.push_str("{\"@timestamp\":\"");
    time::push(out, at);
    out.push_str("\",\"log.level\":\"");
    out.push_str(level(record.level()));
    out.push_str("\",\"message\":");
    let mut is_whole = push_string(out, MESSAGE, record.args());
    out.push_str(",\"ecs.version\":\"");
    out.push_str(ECS);
    out.push_str("\",\"service.name\":");
    push_string(out, NAME, &writer.service);
    out.push_str(",\"log.logger\":");
    push_string(out, NAME, record.target());
    if let Some(thread) = thread {
        out.push_str(",\"process.thread.name\":");
        push_string(out, NAME, thread);
    }
    let _ = write!(out, ",\"process.pid\":{}", writer.process);
    let mut pairs = Pairs {
        out,
        keys: Keys::new(),
        is_whole: true,
    };
    // Fails only if there is no room for more.
    let all = record.key_values().visit(&mut pairs);
    is_whole &= all.is_ok() && pairs.is_whole;
    if !is_whole {
        out.push_str(",\"log.cut\":true");
    }
    out.push('}');
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// Returns whether all of it is there.
fn push_string(out: &mut String, bytes: usize, what: impl fmt::Display) -> bool {
    out.push('"');
    let is_whole = escape::push(out, Form::Json, bytes, what);
    out.push('"');
    is_whole
}

struct Pairs<'a> {
    out: &'a mut String,
    keys: Keys,
    is_whole: bool,
}

impl<'kvs> VisitSource<'kvs> for Pairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        if !has_room(self.out, self.keys.len()) {
            return Err(kv::Error::msg("the line is full"));
        }
        self.out.push_str(",\"");
        self.keys.push(self.out, key.as_str());
        self.out.push_str("\":");
        value.visit(self)
    }
}

impl Pairs<'_> {
    fn bare(&mut self, value: impl fmt::Display) -> Result<(), kv::Error> {
        let _ = write!(self.out, "{value}");
        Ok(())
    }

    fn text(&mut self, value: impl fmt::Display) -> Result<(), kv::Error> {
        self.is_whole &= push_string(self.out, VALUE, value);
        Ok(())
    }
}

impl<'v> VisitValue<'v> for &mut Pairs<'_> {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), kv::Error> {
        self.text(value)
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

    // Hardly any reader has integers of more than 64 bits, so larger ones stay text.
    fn visit_u128(&mut self, value: u128) -> Result<(), kv::Error> {
        match u64::try_from(value) {
            Ok(value) => self.bare(value),
            Err(_) => self.text(value),
        }
    }

    fn visit_i128(&mut self, value: i128) -> Result<(), kv::Error> {
        match i64::try_from(value) {
            Ok(value) => self.bare(value),
            Err(_) => self.text(value),
        }
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), kv::Error> {
        match value.is_finite() {
            // `{}` would write 1e300 with all its zeros.
            true => self.bare(format_args!("{value:?}")),
            // JSON has no word for it.
            false => self.text(value),
        }
    }

    fn visit_str(&mut self, value: &str) -> Result<(), kv::Error> {
        self.text(value)
    }
}
