//! What a handler's errors come to: for its caller, and for the log of the server.
#![cfg(feature = "client")]

mod common;

use std::fs;
use std::sync::Mutex;

use common::*;
use log::{Level, LevelFilter, Log, Metadata, Record};
use touchdown::{Code, OrStatus};

/// Keeps what is logged.
struct Kept(Mutex<Vec<(Level, String)>>);

static LOG: Kept = Kept(Mutex::new(Vec::new()));

impl Log for Kept {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &Record<'_>) {
        let line = (record.level(), record.args().to_string());
        self.0.lock().unwrap().push(line);
    }
    fn flush(&self) {}
}

#[test]
fn the_caller_is_told_the_status_and_the_log_its_cause_too() {
    log::set_logger(&LOG).unwrap();
    log::set_max_level(LevelFilter::Debug);
    let server = start(unary(|_, request| match &*request.value {
        "io" => Ok(text(fs::read_to_string("/nowhere/secret")?)),
        "io, said better" => {
            let read = fs::read_to_string("/nowhere/secret");
            Ok(text(
                read.or_status(Code::Unavailable, "the sensor is off")?,
            ))
        }
        _ => {
            let boxed = || Err::<String, Box<dyn std::error::Error + Send + Sync>>("a\nb".into());
            Ok(text(boxed()?))
        }
    }));
    let client = client(&server);
    let tell = |what| say(&client, what).unwrap_err().to_string();
    assert_eq!(tell("io"), "NOT_FOUND: entity not found");
    assert_eq!(tell("io, said better"), "UNAVAILABLE: the sensor is off");
    assert_eq!(tell("else"), "INTERNAL: internal error");
    server.shutdown();

    let has = |level, text: &str| {
        let log = LOG.0.lock().unwrap();
        log.iter().any(|it| it.0 == level && it.1.starts_with(text))
    };
    let cause = "because: No such file or directory";
    for (level, status) in [
        (
            Level::Debug,
            format!("NOT_FOUND: entity not found, {cause}"),
        ),
        (
            Level::Warn,
            format!("UNAVAILABLE: the sensor is off, {cause}"),
        ),
        (
            Level::Warn,
            "INTERNAL: internal error, because: a b".to_owned(),
        ),
    ] {
        let line = format!("/test.Echo/Say: {status}");
        eventually(&line, || has(level, &line));
    }
}
