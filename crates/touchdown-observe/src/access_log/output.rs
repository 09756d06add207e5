//! Writes lines: to the program's log, or as JSON to what the program has given.

use std::fmt;
use std::io::{self, Write};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::process;
use std::time::{Duration, Instant, SystemTime};

use log::{Level, Record};

use super::entry::{Entry, Field};
use super::lines::json;
use super::lines::program_name;
use super::lines::writer::LineWriter;
use super::observer::level;
use super::queue::Queue;

/// The target of all lines.
const TARGET: &str = "touchdown::access";

/// How often the log says at the most that nothing can be written.
const PAUSE: Duration = Duration::from_secs(60);

pub(super) enum Output {
    Log,
    Json(Box<Json>),
}

pub(super) struct Json {
    writer: LineWriter<Box<dyn Write + Send>>,
    by: json::Writer,
    /// The line that is made.
    line: String,
    /// When the log was told last that something could not be written.
    complained: Option<Instant>,
}

impl Output {
    pub(super) fn json(to: Box<dyn Write + Send>, service: Option<String>) -> Output {
        Output::Json(Box::new(Json {
            writer: LineWriter::new(to),
            by: json::Writer {
                service: service.unwrap_or_else(program_name),
                process: process::id(),
            },
            line: String::new(),
            complained: None,
        }))
    }

    /// Writes what the queue has, until its end.
    pub(super) fn run(mut self, queue: &Queue) {
        // How many were dropped, and it could not be said yet.
        let mut unsaid = 0;
        while let Some(next) = queue.next() {
            unsaid = self.say_dropped(unsaid + next.dropped);
            let written = next.entry.map(|it| self.write_entry(&it));
            if written.is_none_or(|is_written| queue.done(is_written)) {
                self.flush();
            }
        }
    }

    fn write_entry(&mut self, entry: &Entry) -> bool {
        let (level, text) = (level(entry.is_failure), entry.text());
        self.write(level, entry.at(), format_args!("{text}"), &entry.pairs())
    }

    /// Returns how many are still to be said.
    fn say_dropped(&mut self, dropped: u64) -> u64 {
        if dropped == 0 {
            return 0;
        }
        let text =
            format_args!("{dropped} calls were not logged: the access log did not take them");
        let pairs = [
            ("event.dataset", Field::from("touchdown.access")),
            ("log.dropped", Field::from(dropped)),
        ];
        match self.write(Level::Warn, SystemTime::now(), text, &pairs) {
            true => 0,
            false => dropped,
        }
    }

    /// Returns whether it was written.
    fn write(
        &mut self,
        level: Level,
        at: SystemTime,
        text: fmt::Arguments<'_>,
        pairs: &[(&'static str, Field)],
    ) -> bool {
        let mut builder = Record::builder();
        let builder = builder.level(level).target(TARGET).key_values(&pairs);
        let record = builder.args(text).build();
        match self {
            Output::Log => caught(|| {
                if log::logger().enabled(record.metadata()) {
                    log::logger().log(&record);
                }
                Ok(())
            })
            .is_ok(),
            Output::Json(json) => {
                let result = caught(|| json.write(at, &record));
                result.map_err(|error| json.complain(&error)).is_ok()
            }
        }
    }

    fn flush(&mut self) {
        if let Output::Json(json) = self {
            let result = caught(|| json.writer.flush());
            let _ = result.map_err(|error| json.complain(&error));
        }
    }
}

impl Json {
    fn write(&mut self, at: SystemTime, record: &Record<'_>) -> io::Result<()> {
        self.line.clear();
        json::push(&mut self.line, &self.by, at, None, record);
        self.line.push('\n');
        self.writer.write_line(self.line.as_bytes())
    }

    fn complain(&mut self, error: &io::Error) {
        let now = Instant::now();
        if self
            .complained
            .is_some_and(|it| now.saturating_duration_since(it) < PAUSE)
        {
            return;
        }
        self.complained = Some(now);
        let _ = caught(|| {
            let text = error.to_string();
            log::warn!(target: TARGET, "error.message" = text.as_str(); "the access log cannot be written: {error}");
            Ok(())
        });
    }
}

/// What is written to, and the program's logger, are the program's own, and may panic.
fn caught(write: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    match catch_unwind(AssertUnwindSafe(write)) {
        Ok(result) => result,
        Err(panic) => {
            // What it was thrown with may panic as it is dropped.
            std::mem::forget(panic);
            Err(io::Error::other("it panicked"))
        }
    }
}
