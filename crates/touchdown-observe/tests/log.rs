//! A log that is set up by one call: its forms, what it makes of bad input, and that one line is one line.
#![cfg(feature = "log")]

mod log_support;

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use log::kv::{ToValue, Value};
use log::{Level, Log, Record};
use log_support::{bound, child, end, is_child, read_all, tell, Json, Python};
use proptest::prelude::*;
use touchdown_observe::log::{init, lost, Format, Logger, Setup, SetupError};

/// The longest line, in bytes.
const LINE: usize = 16 << 10;

/// What was written.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    /// What was written since the last time.
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

fn logger(format: Format) -> (Logger, Written) {
    let written = Written::default();
    let setup = Setup::new().without_environment().default_filter("trace");
    let setup = setup.format(format).service_name("greeter");
    (setup.to(written.clone()).logger().unwrap(), written)
}

/// A value that a line may have.
#[derive(Clone, Debug)]
enum Thing {
    Text(String),
    Char(char),
    Shown(String),
    Unsigned(u64),
    Signed(i64),
    Large(u128),
    Float(f64),
    Bool(bool),
    Nothing,
}

impl ToValue for Thing {
    fn to_value(&self) -> Value<'_> {
        match self {
            Thing::Text(it) => it.as_str().into(),
            Thing::Char(it) => it.into(),
            Thing::Shown(it) => Value::from_dyn_display(it),
            Thing::Unsigned(it) => it.into(),
            Thing::Signed(it) => it.into(),
            Thing::Large(it) => it.into(),
            Thing::Float(it) => it.into(),
            Thing::Bool(it) => it.into(),
            Thing::Nothing => Value::null(),
        }
    }
}

impl Thing {
    /// As it has to arrive.
    fn is(&self, json: &Json) -> bool {
        match (self, json) {
            (Thing::Text(it) | Thing::Shown(it), Json::Text(text)) => it == text,
            (Thing::Char(it), Json::Text(text)) => it.to_string() == *text,
            (Thing::Unsigned(it), Json::Number(number)) => it.to_string() == *number,
            (Thing::Signed(it), Json::Number(number)) => it.to_string() == *number,
            (Thing::Large(it), Json::Number(number)) => it.to_string() == *number,
            (Thing::Large(it), Json::Text(text)) => {
                *it > u128::from(u64::MAX) && it.to_string() == *text
            }
            (Thing::Float(it), Json::Number(number)) => number.parse() == Ok(*it),
            (Thing::Float(it), Json::Text(_)) => !it.is_finite(),
            (Thing::Bool(it), Json::Bool(bool)) => it == bool,
            (Thing::Nothing, Json::Null) => true,
            _ => false,
        }
    }
}

/// Text of any characters, above all of those that a line or a reader could trip over.
fn text(most: usize) -> impl Strategy<Value = String> {
    let evil = "\n\r\t\0\u{1b}\u{7f}\u{85}\u{2028}\u{2029}\u{202e}\u{2066}\u{feff}\"\\'=,{}:<3> ";
    let evil: Vec<char> = evil.chars().collect();
    let char = prop_oneof![
        3 => any::<char>(),
        2 => prop::sample::select(evil),
        3 => prop::char::range('a', 'e'),
    ];
    prop::collection::vec(char, 0..most).prop_map(|it| it.into_iter().collect())
}

fn thing() -> impl Strategy<Value = Thing> {
    prop_oneof![
        text(30).prop_map(Thing::Text),
        any::<char>().prop_map(Thing::Char),
        text(30).prop_map(Thing::Shown),
        any::<u64>().prop_map(Thing::Unsigned),
        any::<i64>().prop_map(Thing::Signed),
        any::<u128>().prop_map(Thing::Large),
        any::<u64>().prop_map(|it| Thing::Large(it.into())),
        any::<f64>().prop_map(Thing::Float),
        prop::sample::select(vec![f64::NAN, f64::INFINITY, -0.0, 1e300, 5e-324])
            .prop_map(Thing::Float),
        any::<bool>().prop_map(Thing::Bool),
        Just(Thing::Nothing),
    ]
}

fn key() -> impl Strategy<Value = String> {
    let known = [
        "message",
        "log.level",
        "@timestamp",
        "log",
        "device",
        "a",
        "a_2",
        "log.cut",
        "",
    ];
    prop_oneof![
        text(12),
        prop::sample::select(known.to_vec()).prop_map(str::to_owned),
    ]
}

fn pairs() -> impl Strategy<Value = Vec<(String, Thing)>> {
    prop::collection::vec((key(), thing()), 0..12)
}

const LEVELS: [Level; 5] = [
    Level::Error,
    Level::Warn,
    Level::Info,
    Level::Debug,
    Level::Trace,
];

fn say(logger: &Logger, level: Level, target: &str, message: &str, pairs: &[(String, Thing)]) {
    let mut builder = Record::builder();
    let builder = builder.level(level).target(target).key_values(&pairs);
    logger.log(&builder.args(format_args!("{message}")).build());
}

/// Nothing in it ends a line or commands a terminal, but the line break at its end.
fn assert_one_line(line: &str) {
    let inner = line.strip_suffix('\n').expect("a line has an end");
    let is_evil = |char: char| {
        char.is_control() || "\u{2028}\u{2029}\u{202e}\u{2066}\u{200f}\u{61c}".contains(char)
    };
    assert!(!inner.contains(is_evil), "{line:?}");
    assert!(line.len() <= LINE, "{} bytes", line.len());
}

#[test]
fn whatever_a_record_has_it_is_one_line_of_text() {
    let (text_logger, of_text) = logger(Format::Text);
    let (journal_logger, of_journal) = logger(Format::Journal);
    proptest!(|(level in 0_usize..5, target in text(20), message in text(80), pairs in pairs())| {
        let level = LEVELS[level];
        say(&text_logger, level, &target, &message, &pairs);
        let line = of_text.take();
        assert_one_line(&line);
        let (time, rest) = line.split_at(25);
        prop_assert!(time.starts_with("20") && time.ends_with("Z "), "{:?}", line);
        prop_assert!(rest.starts_with(&format!("{level:5} ")), "{:?}", line);
        say(&journal_logger, level, &target, &message, &pairs);
        let line = of_journal.take();
        assert_one_line(&line);
        let priority = [3, 4, 6, 7, 7][level as usize - 1];
        prop_assert!(line.starts_with(&format!("<{priority}>")), "{:?}", line);
    });
}

#[test]
fn whatever_a_record_has_a_real_parser_reads_it_back() {
    let (logger, written) = logger(Format::Json);
    let python = RefCell::new(Python::new());
    proptest!(|(level in 0_usize..5, target in text(20), message in text(80), pairs in pairs())| {
        say(&logger, LEVELS[level], &target, &message, &pairs);
        let line = written.take();
        assert_one_line(&line);
        let read = python.borrow_mut().read(&line);
        let keys: Vec<&str> = read.iter().map(|it| it.0.as_str()).collect();
        let first = [
            "@timestamp", "log.level", "message", "ecs.version", "service.name", "log.logger", "process.thread.name",
            "process.pid",
        ];
        prop_assert_eq!(&keys[..8], &first[..]);
        prop_assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
        let value = |place: usize| read[place].1.clone();
        prop_assert_eq!(value(1), Json::Text(LEVELS[level].as_str().to_lowercase()));
        prop_assert_eq!(value(2), Json::Text(message));
        prop_assert_eq!(value(3), Json::Text("9.4.0".to_owned()));
        prop_assert_eq!(value(4), Json::Text("greeter".to_owned()));
        prop_assert_eq!(value(5), Json::Text(target));
        prop_assert_eq!(value(7), Json::Number(std::process::id().to_string()));
        // Nothing was cut, so that is all.
        prop_assert_eq!(read.len(), 8 + pairs.len());
        for ((key, thing), (read_key, read)) in pairs.iter().zip(&read[8..]) {
            prop_assert!(thing.is(read), "{:?} became {:?}", thing, read);
            let plain = read_key.strip_prefix("kv.").unwrap_or(read_key);
            let is_same = plain.starts_with(key.as_str()) || read_key.starts_with(key.as_str());
            prop_assert!(is_same, "{:?} became {:?}", key, read_key);
        }
    });
}

#[test]
fn what_is_too_long_is_cut_and_says_so() {
    let mut python = Python::new();
    let long = "\u{1b}\n x".repeat(20_000);
    let many = |count| -> Vec<(String, Thing)> {
        let pair = |number| (format!("key_{number}"), Thing::Text(long.clone()));
        (0..count).map(pair).collect()
    };
    let short: Vec<_> = (0..5000)
        .map(|it| (format!("k{it}"), Thing::Unsigned(it)))
        .collect();
    let cases = [
        (long.as_str(), Vec::new()),
        ("short", many(1)),
        ("short", many(100)),
        (&long, many(100)),
        (
            "short",
            vec![
                (long.clone(), Thing::Bool(true)),
                (long.clone(), Thing::Nothing),
            ],
        ),
        ("short", short),
    ];
    for (message, pairs) in &cases {
        for format in [Format::Text, Format::Journal, Format::Json] {
            let (logger, written) = logger(format);
            say(&logger, Level::Info, &long, message, pairs);
            let line = written.take();
            assert_one_line(&line);
            assert!(line.contains('…') || line.contains("log.cut"), "{line}");
            if format == Format::Json {
                let read = python.read(&line);
                // Of names, which nobody outside has chosen, it is enough to see that they are cut.
                let has_long_key = pairs.iter().any(|it| it.0.len() > 1000);
                let is_cut = read.last() == Some(&("log.cut".to_owned(), Json::Bool(true)));
                assert!(is_cut || has_long_key, "{line}");
            }
        }
    }
}

#[test]
fn a_message_that_logs_while_it_is_made_makes_two_lines() {
    struct Talks<'a>(&'a Logger);
    impl std::fmt::Display for Talks<'_> {
        fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            say(self.0, Level::Info, "inner", "inner", &[]);
            formatter.write_str("outer")
        }
    }
    let (logger, written) = logger(Format::Journal);
    let mut builder = Record::builder();
    let builder = builder.level(Level::Info).target("outer");
    logger.log(&builder.args(format_args!("{}", Talks(&logger))).build());
    assert_eq!(written.take(), "<6>inner: inner\n<6>outer: outer\n");
}

#[test]
fn what_is_not_understood_is_an_error() {
    let setup = || Setup::new().without_environment();
    let error = setup()
        .default_filter("info,demo=loud")
        .try_init()
        .unwrap_err();
    assert!(
        matches!(&error, SetupError::Filter(it) if it == "demo=loud"),
        "{error}"
    );
    assert!(error.to_string().contains("demo=loud"), "{error}");
    let error = "xml".parse::<Format>().unwrap_err();
    assert!(
        error.to_string().contains("use text, json or journal"),
        "{error}"
    );
    for format in [Format::Text, Format::Json, Format::Journal] {
        assert_eq!(
            format.to_string().to_uppercase().parse::<Format>().unwrap(),
            format
        );
    }
}

/// Logs what all children log.
fn greet() {
    log::info!(port = 50051, phase = "lame duck"; "listening");
    log::debug!("not wanted");
}

#[test]
fn the_environment_has_the_last_word() {
    let _bound = bound();
    if is_child() {
        Setup::new()
            .format(Format::Json)
            .service_name("greeter")
            .init();
        return greet();
    }
    let run = |format: Option<&str>, filter: Option<&str>| {
        let mut command = child("the_environment_has_the_last_word");
        format.map(|it| command.env("TOUCHDOWN_LOG_FORMAT", it));
        filter.map(|it| command.env("RUST_LOG", it));
        end(command.spawn().unwrap()).1
    };
    let mut python = Python::new();
    let json = run(None, None);
    let read = python.read(&json);
    assert_eq!(read[2].1, Json::Text("listening".to_owned()));
    assert_eq!(
        read[8],
        ("port".to_owned(), Json::Number("50051".to_owned()))
    );
    assert_eq!(
        read[9],
        ("phase".to_owned(), Json::Text("lame duck".to_owned()))
    );

    let text = run(Some("text"), None);
    assert!(
        text.ends_with(" INFO  log: listening port=50051 phase=\"lame duck\"\n"),
        "{text}"
    );
    let journal = run(Some("JOURNAL"), None);
    assert_eq!(
        journal,
        "<6>log: listening port=50051 phase=\"lame duck\"\n"
    );
    // An empty variable is none.
    assert_eq!(run(Some("journal"), Some("")), journal);
    assert_eq!(run(Some("journal"), Some("warn")), "");
    let debug = run(Some("journal"), Some("debug"));
    assert_eq!(debug, format!("{journal}<7>log: not wanted\n"));

    let unknown = run(Some("xml"), None);
    let (first, second) = unknown.split_once('\n').unwrap();
    assert!(
        first.contains(" WARN  touchdown_observe::log: TOUCHDOWN_LOG_FORMAT is \"xml\""),
        "{unknown}"
    );
    assert!(second.contains(" INFO  log: listening"), "{unknown}");
    // No filter holds it back.
    let both = run(Some("xml"), Some("error,log=loud"));
    assert_eq!(both.lines().count(), 2, "{both}");
    assert!(both.contains("log=loud") && both.contains("xml"), "{both}");
    // It cannot make a line of its own either.
    let forged = run(Some("x\nERROR all is lost"), None);
    assert_eq!(forged.lines().count(), 2, "{forged}");
}

#[test]
fn the_journal_is_found_where_it_is() {
    let _bound = bound();
    if is_child() {
        init();
        return greet();
    }
    let run = |of_journal: bool| {
        let (reader, stderr) = UnixStream::pair().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(stderr));
        let stream = file.metadata().unwrap();
        let inode = stream.ino() + u64::from(!of_journal);
        let mut command = child("the_journal_is_found_where_it_is");
        command.env("JOURNAL_STREAM", format!("{}:{inode}", stream.dev()));
        command.stderr(file);
        let child = command.spawn().unwrap();
        // What is left of it here would keep it open.
        drop(command);
        end(child);
        read_all(reader)
    };
    assert_eq!(
        run(true),
        "<6>log: listening port=50051 phase=\"lame duck\"\n"
    );
    // A child that inherits the variable has another standard error, perhaps.
    let text = run(false);
    assert!(text.contains("Z INFO  log: listening"), "{text}");
}

#[test]
fn a_full_disk_ends_nothing_and_is_counted() {
    let _bound = bound();
    if is_child() {
        init();
        (0..10).for_each(|_| greet());
        // Two variables that are not understood: two lines more.
        tell(lost());
        return;
    }
    let run = |stderr: Stdio| {
        let mut command = child("a_full_disk_ends_nothing_and_is_counted");
        command
            .env("TOUCHDOWN_LOG_FORMAT", "xml")
            .env("RUST_LOG", "info,x=loud");
        end(command.stderr(stderr).spawn().unwrap()).0
    };
    let full = File::options().write(true).open("/dev/full").unwrap();
    assert_eq!(run(full.into()), ["12"]);
    // Nobody is at the other end any more.
    let (reader, stderr) = UnixStream::pair().unwrap();
    drop(reader);
    assert_eq!(run(std::os::fd::OwnedFd::from(stderr).into()), ["12"]);
}

#[test]
fn once_there_is_room_again_the_log_says_what_is_missing() {
    /// Takes nothing while it is full, but for a few bytes.
    #[derive(Clone)]
    struct Disk(Arc<Mutex<usize>>, Written);
    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut room = self.0.lock().unwrap();
            let count = bytes.len().min(*room);
            *room -= count;
            match count {
                0 => Err(io::ErrorKind::StorageFull.into()),
                _ => self.1.write(&bytes[..count]),
            }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let disk = Disk(Arc::new(Mutex::new(10)), Written::default());
    let setup = Setup::new().without_environment().format(Format::Journal);
    let logger = setup.to(disk.clone()).logger().unwrap();
    let log = |text| say(&logger, Level::Info, "x", text, &[]);
    log("torn apart");
    log("lost");
    assert_eq!(logger.lost(), 2);
    *disk.0.lock().unwrap() = usize::MAX;
    log("there");
    let said = "<4>touchdown_observe::log: 2 lines could not be written log.dropped=2";
    assert_eq!(disk.1.take(), format!("<6>x: torn\n{said}\n<6>x: there\n"));
    assert_eq!(logger.lost(), 2);
}

#[test]
fn a_logger_that_is_there_stays_and_gets_the_warning() {
    let _bound = bound();
    if is_child() {
        init();
        let again = Setup::new().try_init();
        assert!(matches!(again, Err(SetupError::HasLogger(_))));
        init();
        return greet();
    }
    let mut command = child("a_logger_that_is_there_stays_and_gets_the_warning");
    command.env("TOUCHDOWN_LOG_FORMAT", "journal");
    let stderr = end(command.spawn().unwrap()).1;
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    assert!(
        lines[0].starts_with("<4>touchdown_observe::log: the program has a logger already"),
        "{stderr}"
    );
}
