//! The crate's own lines for the log, for which nobody waits.
//!
//! What takes a log may stop to do so: a pipe whose reader hangs, a terminal that was held, a journal whose disk is
//! full. A thread that has to close a listener, hear a signal or poll connections must not stop with it. So a line
//! is formatted where it is said and put into a queue, and a thread hands what is there to the program's logger, in
//! order. The thread starts with a line, and ends when there was none for a while.
//!
//! A queue that is full takes no more. What is dropped is counted, and the log says how many lines it was once it
//! takes lines again. Where no thread can be started, lines wait for the next one that says a line; at the end of the
//! program, for the one that flushes, which hands them over itself.
//!
//! All that the program's logger is asked is asked on that thread: also whether it wants a line. It may panic there.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::panic;
use std::thread;
use std::time::{Duration, Instant};

use log::{kv, Level, Metadata, Record};
use parking_lot::{Condvar, Mutex};

use crate::thrown::drop_thrown;

/// How many lines wait at the most: some 200 KiB of them. A stop says a hundred or so, and a server that fails at
/// every call says the same again and again.
const LINES: usize = 1024;

/// For how long the thread waits for another line: lines come in bursts.
const IDLE: Duration = Duration::from_secs(1);

/// How long the end of a program waits for its last lines, as [`flush`] does it. A log that takes lines takes all that can
/// wait in a small part of that.
pub(crate) const AT_THE_END: Duration = Duration::from_secs(1);

/// Says a line. As with the macros of `log`, keys with their values may stand before the text, which goes without them:
/// `logging::warn!(method = path, age_ms = age; "{path} takes long")`. A value is a whole number, a bool or text.
macro_rules! line {
    ($level:expr, $($key:ident = $value:expr),+ ; $($text:tt)+) => {
        $crate::logging::line!(@ $level, vec![$((stringify!($key), $crate::logging::Value::from($value))),+], $($text)+)
    };
    (@ $level:expr, $pairs:expr, $($text:tt)+) => {{
        let level: ::log::Level = $level;
        if $crate::logging::may_be_enabled(level) {
            static SITE: $crate::logging::Site = $crate::logging::Site {
                module: module_path!(),
                file: file!(),
                number: ::std::line!(),
            };
            $crate::logging::say_at(&SITE, level, $pairs, format_args!($($text)+));
        }
    }};
    ($level:expr, $($text:tt)+) => {
        $crate::logging::line!(@ $level, ::std::vec::Vec::new(), $($text)+)
    };
}

macro_rules! error {
    ($($text:tt)+) => { $crate::logging::line!(::log::Level::Error, $($text)+) };
}

// An attribute of the language is called `warn`.
macro_rules! warning {
    ($($text:tt)+) => { $crate::logging::line!(::log::Level::Warn, $($text)+) };
}

macro_rules! info {
    ($($text:tt)+) => { $crate::logging::line!(::log::Level::Info, $($text)+) };
}

#[allow(unused_macros)]
macro_rules! debug {
    ($($text:tt)+) => { $crate::logging::line!(::log::Level::Debug, $($text)+) };
}

#[allow(unused_imports)]
pub(crate) use {debug, error, info, line, warning as warn};

/// Where in the source a line is said.
pub(crate) struct Site {
    pub(crate) module: &'static str,
    pub(crate) file: &'static str,
    pub(crate) number: u32,
}

/// A key and a value, for machines.
pub(crate) type Pair = (&'static str, Value);

/// A line of the log.
pub(crate) struct Line {
    pub(crate) level: Level,
    pub(crate) target: &'static str,
    /// Where in the source it is said.
    pub(crate) module: Option<&'static str>,
    pub(crate) file: Option<Cow<'static, str>>,
    pub(crate) number: Option<u32>,
    /// For machines: what the text says, or a part of it, by keys.
    pub(crate) pairs: Vec<Pair>,
    pub(crate) text: String,
}

/// A value that waits in the queue.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Unsigned(u64),
    Signed(i64),
    Bool(bool),
    Text(Cow<'static, str>),
}

macro_rules! value_from {
    ($($from:ty => $of:ident by $by:expr),+ $(,)?) => {$(
        impl From<$from> for Value {
            fn from(value: $from) -> Self {
                Self::$of($by(value))
            }
        }
    )+};
}

value_from! {
    u8 => Unsigned by u64::from,
    u32 => Unsigned by u64::from,
    u64 => Unsigned by u64::from,
    // No machine has addresses of more than 64 bits.
    usize => Unsigned by |value| value as u64,
    i32 => Signed by i64::from,
    i64 => Signed by i64::from,
    bool => Bool by bool::from,
    // In milliseconds: the key says so.
    Duration => Unsigned by |value: Duration| u64::try_from(value.as_millis()).unwrap_or(u64::MAX),
    String => Text by Cow::from,
    &str => Text by |value: &str| Cow::from(value.to_owned()),
}

impl Value {
    fn of_record(&self) -> kv::Value<'_> {
        match self {
            Self::Unsigned(value) => kv::Value::from(*value),
            Self::Signed(value) => kv::Value::from(*value),
            Self::Bool(value) => kv::Value::from(*value),
            Self::Text(value) => kv::Value::from(&**value),
        }
    }
}

impl kv::Source for Line {
    fn visit<'a>(&'a self, visitor: &mut dyn kv::VisitSource<'a>) -> Result<(), kv::Error> {
        self.pairs
            .iter()
            .try_for_each(|(key, value)| visitor.visit_pair((*key).into(), value.of_record()))
    }

    fn count(&self) -> usize {
        self.pairs.len()
    }
}

impl Line {
    fn hand_over(&self) {
        let metadata = Metadata::builder()
            .level(self.level)
            .target(self.target)
            .build();
        let thrown = panic::catch_unwind(|| {
            if !log::logger().enabled(&metadata) {
                return;
            }
            log::logger().log(
                &Record::builder()
                    .metadata(metadata.clone())
                    .module_path_static(self.module)
                    .file(self.file.as_deref())
                    .line(self.number)
                    .key_values(self)
                    .args(format_args!("{}", self.text))
                    .build(),
            );
        });
        if let Err(panic) = thrown {
            // A logger that panics has nobody to tell.
            drop_thrown(panic);
        }
    }
}

/// What was said and is not written yet.
struct Queue {
    lines: VecDeque<Line>,
    dropped: usize,
    /// Somebody hands lines over.
    is_served: bool,
    /// How many lines were put in so far, and how many of them were written.
    said: u64,
    written: u64,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue::new());
/// There is a line. Goes with `QUEUE`.
static SAID: Condvar = Condvar::new();
/// A line was written. Goes with `QUEUE`.
static WRITTEN: Condvar = Condvar::new();

impl Queue {
    const fn new() -> Self {
        Self {
            lines: VecDeque::new(),
            dropped: 0,
            is_served: false,
            said: 0,
            written: 0,
        }
    }

    /// Takes a line in, if there is room. Returns whether there was.
    fn push(&mut self, line: Line) -> bool {
        if self.lines.len() >= LINES {
            self.dropped += 1;
            return false;
        }
        self.push_dropped();
        self.said += 1;
        self.lines.push_back(line);
        true
    }

    /// In the place of lines that were dropped stands how many they were.
    fn push_dropped(&mut self) {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            self.said += 1;
            self.lines.push_back(Line {
                level: Level::Warn,
                target: module_path!(),
                module: None,
                file: None,
                number: None,
                pairs: vec![("dropped", Value::from(dropped))],
                text: format!("{dropped} lines were not logged: the log did not take them in time"),
            });
        }
    }

    fn pop(&mut self) -> Option<Line> {
        if self.lines.is_empty() {
            self.push_dropped();
        }
        self.lines.pop_front()
    }
}

/// Whether lines of this level may be wanted. The logger is asked later, on its own thread.
pub(crate) fn may_be_enabled(level: Level) -> bool {
    level <= log::STATIC_MAX_LEVEL && level <= log::max_level()
}

/// As [`say`]. Here is what would else be compiled for each line.
#[cold]
pub(crate) fn say_at(
    site: &'static Site,
    level: Level,
    pairs: Vec<Pair>,
    text: fmt::Arguments<'_>,
) {
    say(Line {
        level,
        target: site.module,
        module: Some(site.module),
        file: Some(site.file.into()),
        number: Some(site.number),
        pairs,
        text: text.to_string(),
    });
}

/// Logs a line whose level may be enabled. Waits for nobody who writes.
pub(crate) fn say(line: Line) {
    {
        let mut queue = QUEUE.lock();
        if !queue.push(line) {
            return;
        }
        if queue.is_served {
            SAID.notify_one();
            return;
        }
        queue.is_served = true;
    }
    start_to_serve();
}

/// Starts the thread. Without one the lines stay where they are.
fn start_to_serve() {
    let thread = thread::Builder::new().name("td-log".to_owned());
    if thread.spawn(|| serve(IDLE)).is_err() {
        QUEUE.lock().is_served = false;
    }
}

/// Hands over what is said, until nothing was for so long.
fn serve(idle: Duration) {
    let mut queue = QUEUE.lock();
    loop {
        let Some(line) = queue.pop() else {
            if !idle.is_zero() && !SAID.wait_for(&mut queue, idle).timed_out() {
                continue;
            }
            if queue.lines.is_empty() {
                queue.is_served = false;
                return;
            }
            continue;
        };
        drop(queue);
        line.hand_over();
        queue = QUEUE.lock();
        queue.written += 1;
        WRITTEN.notify_all();
    }
}

/// Waits until what was said so far is written; for `time` at the most, and a quarter of it if no line is written
/// meanwhile.
pub(crate) fn flush(time: Duration) {
    let mut queue = QUEUE.lock();
    if !queue.is_served && !queue.lines.is_empty() {
        queue.is_served = true;
        drop(queue);
        start_to_serve();
        queue = QUEUE.lock();
        if !queue.is_served {
            // It is the end of the program, and there are no threads: to wait for the logger is all that is left.
            queue.is_served = true;
            drop(queue);
            return serve(Duration::ZERO);
        }
    }
    let said = queue.said;
    let began = Instant::now();
    let mut stalled = 0;
    while queue.written < said && began.elapsed() < time && stalled < 2 {
        let before = queue.written;
        // Twice: a process that stood still finds the time over, and nobody has had any.
        WRITTEN.wait_for(&mut queue, time / 8);
        stalled = match queue.written == before {
            true => stalled + 1,
            false => 0,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: impl fmt::Display) -> Line {
        Line {
            level: Level::Info,
            target: "test",
            module: None,
            file: None,
            number: None,
            pairs: Vec::new(),
            text: text.to_string(),
        }
    }

    fn written(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.pop().map(|line| line.text)).collect()
    }

    /// What a logger finds in a record.
    struct Found(Vec<String>);

    impl<'a> kv::VisitSource<'a> for Found {
        fn visit_pair(&mut self, key: kv::Key<'a>, value: kv::Value<'a>) -> Result<(), kv::Error> {
            let number = value.to_u64().map(|it| it.to_string());
            let text = value.to_borrowed_str().map(|it| format!("{it:?}"));
            let found = number.or(text).unwrap_or_else(|| value.to_string());
            self.0.push(format!("{key}={found}"));
            Ok(())
        }
    }

    #[test]
    fn what_has_keys_keeps_its_kind() {
        let pairs = vec![
            ("exit_code", Value::from(5_u8)),
            ("phase", Value::from("lame duck")),
            ("signal", Value::from(-1_i32)),
            ("ready", Value::from(true)),
            ("age_ms", Value::from(Duration::from_millis(1500))),
        ];
        let line = Line {
            pairs,
            ..line("text")
        };
        let mut found = Found(Vec::new());
        kv::Source::visit(&line, &mut found).unwrap();
        assert_eq!(
            found.0,
            [
                "exit_code=5",
                "phase=\"lame duck\"",
                "signal=-1",
                "ready=true",
                "age_ms=1500"
            ]
        );
    }

    #[test]
    fn lines_are_written_in_the_order_in_which_they_were_said() {
        let mut queue = Queue::new();
        assert!((0..LINES).all(|number| queue.push(line(number))));
        let said: Vec<String> = (0..LINES).map(|number| number.to_string()).collect();
        assert_eq!(written(&mut queue), said);
    }

    #[test]
    fn in_the_place_of_lines_that_were_dropped_stands_how_many_they_were() {
        const DROPPED: &str = "3 lines were not logged: the log did not take them in time";
        let mut queue = Queue::new();
        let said = (0..LINES + 3).filter(|number| queue.push(line(number)));
        assert_eq!(said.count(), LINES);
        assert_eq!(queue.pop().unwrap().text, "0");
        assert!(queue.push(line("later")));
        let rest = written(&mut queue);
        assert_eq!(rest[LINES - 2..], ["1023", DROPPED, "later"]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri reads no folders")]
    fn no_line_of_the_crate_goes_past_the_queue() {
        let macros = ["log", "error", "warn", "info", "debug", "trace"];
        let mut folders = vec![std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                for name in macros {
                    let said = text.match_indices(&format!("log::{name}!(")).next();
                    assert!(said.is_none(), "{} says {said:?}", path.display());
                }
            }
        }
    }

    #[test]
    fn what_was_dropped_is_said_even_if_nothing_follows() {
        let mut queue = Queue::new();
        assert_eq!((0..=LINES).filter(|it| queue.push(line(it))).count(), LINES);
        let all = written(&mut queue);
        assert!(all[LINES].starts_with("1 lines were not logged"));
        assert_eq!(queue.said, all.len() as u64);
    }
}
