//! What a handler's errors come to: for its caller, and for the log of the server.
#![cfg(feature = "client")]

mod common;

use std::fs;

use common::*;
use log::Level;
use touchdown::{Code, OrStatus};

#[test]
fn the_caller_is_told_the_status_and_the_log_its_cause_too() {
    keep_the_log();
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
        !lines_that(|its, line| its == level && line.starts_with(text)).is_empty()
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
