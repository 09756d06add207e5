//! One call that sets up a log: text for people, JSON for machines, or the journal's form.
//!
//! # When to use
//!
//! In a program that has no logger of its own. touchdown, and everything else here, logs by the crate [log](https://docs.rs/log), and is
//! content with any logger.
//!
//! ```
//! touchdown_observe::log::init();
//! log::info!(port = 50051; "listening");
//! ```
//!
//! # Forms
//!
//! | form | by itself | |
//! |---|---|---|
//! | [`Text`](Format::Text) | yes | `2026-11-30T20:03:11.042Z INFO  greeter: listening port=50051` |
//! | [`Json`](Format::Json) | no | an object a line, with the names of [ECS](https://www.elastic.co/docs/reference/ecs) 9.4 |
//! | [`Journal`](Format::Journal) | if the standard error is systemd's journal | `<6>greeter: listening port=50051` |
//!
//! Who starts the program has the last word: `TOUCHDOWN_LOG_FORMAT` is `text`, `json` or `journal`, and `RUST_LOG` says
//! which lines are wanted, as for [env_logger](https://docs.rs/env_logger), whose work it is. An empty variable is none.
//!
//! In JSON come first, in this order: `@timestamp`, `log.level`, `message`, `ecs.version`, `service.name`, `log.logger` (the target),
//! `process.thread.name`, `process.pid`; then the record's keys and values. Numbers and bools are such in JSON; what
//! is larger than 64 bits, or no number (NaN), is text. A key that is there twice becomes `key_2`. One that collides with those
//! above, or that is an object in ECS (such as `device` or `error`), becomes `kv.key`. docs/logs.md has an example.
//!
//! # One line is one line
//!
//! Whatever stands in a message, a key or a value: it can neither end the line, nor command a terminal, nor turn the direction of
//! the text. Such characters are written as `\n` and `\u{1b}`, in JSON as `\n` and `\u001b`.
//!
//! A line has 16 KiB at the most, since collectors split longer ones, and what follows the split would be a line that somebody else
//! has chosen. A message may have 8 KiB of it, a value 2 KiB, and there may be 64 pairs. Where something was left out stands
//! `…`, and in JSON `"log.cut":true`.
//!
//! # Limits
//!
//! - Who logs a line waits until it is written: a handler that logs waits for a reader that has stopped to read. touchdown's own
//!   lines, and those of the access log, are written by threads of their own, so that no call waits for them.
//! - What cannot be written (a disk that is full, a reader that is gone) is dropped and [counted](lost), and the log says how many
//!   lines it was once it takes lines again.
//! - The journal gets keys and values as text. A logger such as `systemd-journal-logger` makes fields of them.

mod filter;
mod journal;
pub(crate) mod lines;
mod setup;
mod sink;
mod text;

use std::cell::Cell;
use std::fmt;
use std::io::{self, Write as _};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::SystemTime;

use log::{LevelFilter, Log, Metadata, Record, SetLoggerError};

use self::lines::json;
pub use self::setup::{Setup, SetupError};

/// Sets up the program's log, as [`Setup::init`] does with nothing set: lines of level INFO and above, on the standard error.
///
/// Must come first in `main`: lines before it are not seen.
pub fn init() {
    Setup::new().init();
}

/// How many lines could not be written so far, of the logger that was set up here.
pub fn lost() -> u64 {
    LOST.get().map_or(0, |it| it.load(Ordering::Relaxed))
}

/// Of the logger that was set up.
static LOST: OnceLock<Arc<AtomicU64>> = OnceLock::new();

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// For people: time, level, target, message, then keys and values.
    Text,
    /// For machines: an object with the names of ECS.
    Json,
    /// For systemd's journal, which has the time itself: the level as a number, and then as in text.
    Journal,
}

impl Format {
    /// Its name, as `TOUCHDOWN_LOG_FORMAT` has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Format::Text => "text",
            Format::Json => "json",
            Format::Journal => "journal",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = SetupError;

    /// Reads a name, in letters of any case.
    fn from_str(name: &str) -> Result<Format, SetupError> {
        [Format::Text, Format::Json, Format::Journal]
            .into_iter()
            .find(|it| it.as_str().eq_ignore_ascii_case(name))
            .ok_or_else(|| SetupError::Format(name.to_owned()))
    }
}

/// A logger that is not the program's yet: for who puts one of his own around it. [`Setup::logger`] makes it.
pub struct Logger {
    inner: env_logger::Logger,
    lost: Arc<AtomicU64>,
}

impl Logger {
    /// The most verbose level that any line may have, for [`log::set_max_level`].
    pub fn max_level(&self) -> LevelFilter {
        self.inner.filter()
    }

    /// How many lines could not be written so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Makes it the program's.
    fn install(self) -> Result<(), SetLoggerError> {
        let (level, lost) = (self.max_level(), Arc::clone(&self.lost));
        log::set_boxed_logger(Box::new(self))?;
        log::set_max_level(level);
        LOST.get_or_init(|| lost);
        Ok(())
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.inner.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        self.inner.log(record);
    }

    fn flush(&self) {
        self.inner.flush();
    }
}

impl fmt::Debug for Logger {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Logger")
            .field("max_level", &self.max_level())
            .field("lost", &self.lost())
            .finish_non_exhaustive()
    }
}

/// How the lines of a logger look, and who says them.
struct Layout {
    format: Format,
    writer: json::Writer,
}

impl Layout {
    /// Writes a record, with its line break.
    fn push(&self, out: &mut String, record: &Record<'_>) {
        let now = SystemTime::now();
        match self.format {
            Format::Text => text::push(out, now, record),
            Format::Journal => text::push_for_journal(out, record),
            Format::Json => {
                let thread = thread::current();
                json::push(out, &self.writer, now, thread.name(), record);
            }
        }
        out.push('\n');
    }

    /// For env_logger, which gathers what is written here, and then writes it at once.
    fn write(&self, to: &mut env_logger::fmt::Formatter, record: &Record<'_>) -> io::Result<()> {
        thread_local! {
            static LINE: Cell<String> = const { Cell::new(String::new()) };
        }
        // What a message is made of may log something itself, and a thread that ends has none any more.
        let mut line = LINE.try_with(Cell::take).unwrap_or_default();
        line.clear();
        self.push(&mut line, record);
        let result = to.write_all(line.as_bytes());
        let _ = LINE.try_with(|it| it.set(line));
        result
    }
}
