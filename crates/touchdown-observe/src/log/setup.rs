//! What a log may be like, and who says so: the program, and the environment, which has the last word.

use std::env;
use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::process;
use std::sync::Arc;

use log::{Level, Record};

use super::lines::{json, program_name};
use super::sink::{Say, Sink};
use super::{filter, journal, Format, Layout, Logger};

/// Which form lines have. Has the last word, before [`Setup::format`].
const FORMAT: &str = "TOUCHDOWN_LOG_FORMAT";

/// Which lines are wanted. Has the last word, before [`Setup::default_filter`].
const FILTER: &str = "RUST_LOG";

/// The target of what is said here.
const TARGET: &str = "touchdown_observe::log";

/// What the program's log is to be like.
///
/// ```
/// use touchdown_observe::log::{Format, Setup};
///
/// Setup::new()
///     .default_filter("info,greeter=debug")
///     .format(Format::Json)
///     .service_name("greeter")
///     .try_init()?;
/// # Ok::<(), touchdown_observe::log::SetupError>(())
/// ```
#[must_use = "nothing is set up before `init` or `try_init`"]
pub struct Setup {
    filter: String,
    format: Option<Format>,
    service: Option<String>,
    /// `None` is the standard error.
    to: Option<Box<dyn Write + Send>>,
    heeds_environment: bool,
}

impl Setup {
    /// Lines of level INFO and above, on the standard error: in the journal's form if that is the journal, else as text.
    pub fn new() -> Setup {
        Setup {
            filter: "info".to_owned(),
            format: None,
            service: None,
            to: None,
            heeds_environment: true,
        }
    }

    /// Which lines are wanted if `RUST_LOG` does not say it: a level, and levels of targets, as in `info,greeter=debug`.
    pub fn default_filter(mut self, directives: impl Into<String>) -> Self {
        self.filter = directives.into();
        self
    }

    /// How lines look if `TOUCHDOWN_LOG_FORMAT` does not say it.
    pub fn format(mut self, format: Format) -> Self {
        self.format = Some(format);
        self
    }

    /// `service.name` in JSON. Without it that is what `OTEL_SERVICE_NAME` says, or the name of the program's file.
    pub fn service_name(mut self, name: impl Into<String>) -> Self {
        self.service = Some(name.into());
        self
    }

    /// Writes to this instead of the standard error. It gets each line in one `write`, and is flushed after it.
    pub fn to(mut self, to: impl Write + Send + 'static) -> Self {
        self.to = Some(Box::new(to));
        self
    }

    /// Heeds neither `TOUCHDOWN_LOG_FORMAT` nor `RUST_LOG`: for a program that has other ways to be told.
    pub fn without_environment(mut self) -> Self {
        self.heeds_environment = false;
        self
    }

    /// Sets up the log, whatever is wrong with what it is told. The form is text then, or the filter what the program has
    /// set, or INFO; the first lines say so, as warnings that no filter holds back. If the program has a logger already, that
    /// one stays, and gets the warning.
    pub fn init(self) {
        let (logger, complaints) = self.build();
        if let Err(error) = logger.install() {
            let error = SetupError::from(error);
            let complaints = complaints.iter().chain([&error]);
            complaints.for_each(|it| log::warn!(target: TARGET, "{it}"));
        }
    }

    /// Sets up the log, or nothing.
    ///
    /// # Errors
    ///
    /// [`SetupError`], if what it is told is not understood, or the program has a logger already.
    pub fn try_init(self) -> Result<(), SetupError> {
        Ok(self.logger()?.install()?)
    }

    /// Makes a logger, and does not make it the program's.
    ///
    /// # Errors
    ///
    /// [`SetupError`], if what it is told is not understood.
    pub fn logger(self) -> Result<Logger, SetupError> {
        match self.decide().2.pop() {
            Some(error) => Err(error),
            None => Ok(self.build().0),
        }
    }

    /// The form, the directives, and what was not understood.
    fn decide(&self) -> (Format, String, Vec<SetupError>) {
        let mut complaints = Vec::new();
        let variable = |name| {
            let value = env::var_os(name).filter(|it| self.heeds_environment && !it.is_empty());
            value.map(|it| it.to_string_lossy().into_owned())
        };
        let is_journal = || self.to.is_none() && journal::is_stderr();
        let format = match variable(FORMAT).map(|it| it.parse()) {
            Some(Ok(format)) => format,
            Some(Err(error)) => {
                complaints.push(error);
                Format::Text
            }
            None if self.format.is_none() && is_journal() => Format::Journal,
            None => self.format.unwrap_or(Format::Text),
        };
        let mut understood = |directives: &str| {
            let (good, bad) = filter::sort(directives);
            if !bad.is_empty() {
                complaints.push(SetupError::Filter(bad.join(",")));
            }
            Some(good).filter(|it| !it.is_empty())
        };
        let filter = variable(FILTER).and_then(|it| understood(&it));
        let filter = filter.or_else(|| understood(&self.filter));
        let filter = filter.unwrap_or_else(|| "info".to_owned());
        (format, filter, complaints)
    }

    /// The logger, which has said already what was not understood, and that.
    fn build(self) -> (Logger, Vec<SetupError>) {
        let (format, filter, complaints) = self.decide();
        let layout = Arc::new(Layout {
            format,
            writer: json::Writer {
                service: self.service.unwrap_or_else(program_name),
                process: process::id(),
            },
        });
        let to = self.to.unwrap_or_else(|| Box::new(io::stderr()));
        let mut sink = Sink::new(to, say_lost(Arc::clone(&layout)));
        let mut line = String::new();
        for complaint in &complaints {
            line.clear();
            say(&layout, &mut line, format_args!("{complaint}"), &[]);
            // It cannot fail: what is not written is counted.
            let _ = sink.write(line.as_bytes());
        }
        let lost = sink.lost();
        let inner = env_logger::Builder::new()
            .parse_filters(&filter)
            .format(move |to, record| layout.write(to, record))
            .target(env_logger::Target::Pipe(Box::new(sink)))
            .build();
        (Logger { inner, lost }, complaints)
    }
}

impl Default for Setup {
    fn default() -> Setup {
        Setup::new()
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Setup")
            .field("filter", &self.filter)
            .field("format", &self.format)
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

fn say_lost(layout: Arc<Layout>) -> Say {
    Box::new(move |out, lost| {
        let text = format_args!("{lost} lines could not be written");
        say(&layout, out, text, &[("log.dropped", lost)]);
    })
}

/// A warning of this crate's.
fn say(layout: &Layout, out: &mut String, text: fmt::Arguments<'_>, pairs: &[(&str, u64)]) {
    let mut builder = Record::builder();
    let builder = builder.level(Level::Warn).target(TARGET);
    layout.push(out, &builder.key_values(&pairs).args(text).build());
}

/// Why a log was not set up.
#[derive(Debug)]
#[non_exhaustive]
pub enum SetupError {
    /// `TOUCHDOWN_LOG_FORMAT` has this, which is no form.
    Format(String),
    /// `RUST_LOG`, or [`Setup::default_filter`], has these directives, which are not understood.
    Filter(String),
    /// The program has a logger already.
    HasLogger(log::SetLoggerError),
}

impl fmt::Display for SetupError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetupError::Format(value) => write!(
                formatter,
                "{FORMAT} is {value:?}, which is no form of the log: use text, json or journal"
            ),
            SetupError::Filter(directives) => write!(
                formatter,
                "{FILTER}, or the program's default for it, has {directives:?}, which is no filter: use levels \
                 (off, error, warn, info, debug, trace), and levels of targets, as in info,greeter=debug"
            ),
            SetupError::HasLogger(_) => {
                formatter.write_str("the program has a logger already, which stays: set up one")
            }
        }
    }
}

impl Error for SetupError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            SetupError::HasLogger(error) => Some(error),
            _ => None,
        }
    }
}

impl From<log::SetLoggerError> for SetupError {
    fn from(error: log::SetLoggerError) -> SetupError {
        SetupError::HasLogger(error)
    }
}
