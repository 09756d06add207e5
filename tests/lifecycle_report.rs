//! The report of a real stop: on one line, as JSON, and as an exit code.

mod lifecycle_support;

use std::io::Write;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use lifecycle_support::{bound, Part};
use touchdown::lifecycle::{Calls, Hook, Lifecycle, Plan, Report};

/// A report with something in every place, and with text that needs escaping.
fn report() -> Report {
    let plan = Plan::new()
        .with_grace_period(Duration::ZERO)
        .with_force_period(Duration::ZERO);
    let lifecycle = Lifecycle::builder()
        .plan(plan)
        .hook(Hook::new("a \"hook\"", || {
            Err("line one\nline two\t\u{7}".into())
        }))
        .build()
        .unwrap();
    let part = Part::new();
    *part.running.lock().unwrap() = vec!["C:\\pump".to_owned()];
    *part.calls.lock().unwrap() = Calls {
        completed: u64::MAX,
        refused: 1,
        caller_left: 4,
        undelivered: 6,
        cut: 5,
        told_to_stop: 2,
        abandoned: 3,
    };
    *part.connections_cut.lock().unwrap() = 7;
    lifecycle.enlist(part).unwrap();
    lifecycle.ready().unwrap();
    let _work = lifecycle.in_flight().enter_owned().unwrap();
    lifecycle.shutdown("Überholung 🛬\u{0}");
    lifecycle.wait()
}

#[test]
fn it_prints_on_one_line() {
    let _bound = bound();
    let line = report().to_string();
    assert_eq!(line.lines().count(), 1);
    for part in [
        "stopped by force in ",
        "(exit 3): requested: Überholung 🛬",
        "draining ",
        "18446744073709551615 completed, 1 refused, 4 left by their callers, 6 undelivered, 5 cut, 2 told to stop, 3 abandoned",
        "a \"hook\" failed (line one line two  ) in ",
        "connections cut: 7",
        "abandoned: part: C:\\pump",
    ] {
        assert!(line.contains(part), "no {part:?} in {line}");
    }
}

/// Read back by a parser that is not ours.
#[test]
fn its_json_can_be_read() {
    const CHECK: &str = r#"
import json, sys
r = json.load(sys.stdin)
assert r["reason"] == "requested" and r["detail"] == "Überholung 🛬\0", r
assert r["exit_code"] == 3 and r["forced"] is True, r
assert r["took_ms"] >= 0, r
assert [p["phase"] for p in r["phases"]] == ["starting", "serving", "lame_duck", "draining", "cancelling", "closing"], r
assert r["calls"] == {"completed": 2**64 - 1, "refused": 1, "caller_left": 4, "undelivered": 6, "cut": 5, "told_to_stop": 2, "abandoned": 3}, r
assert r["connections_cut"] == 7, r
assert r["abandoned"] == ["part: C:\\pump"], r
assert [(h["name"], h["outcome"], h["message"]) for h in r["hooks"]] == [
    ("close part", "done", None), ('a "hook"', "failed", "line one\nline two\t\a")], r
"#;
    let _bound = bound();
    let json = report().to_json();
    let python = Command::new("python3")
        .args(["-c", CHECK])
        .env("PYTHONIOENCODING", "utf-8")
        .stdin(Stdio::piped())
        .spawn();
    let Ok(mut python) = python else {
        eprintln!("no python3 here; the escaping is covered by a unit test");
        return;
    };
    python
        .stdin
        .take()
        .unwrap()
        .write_all(json.as_bytes())
        .unwrap();
    assert!(python.wait().unwrap().success(), "{json}");
}

#[test]
fn it_is_what_main_may_return() {
    let _bound = bound();
    fn main_returns<T: std::process::Termination>(value: T) -> ExitCode {
        value.report()
    }
    let report = report();
    assert_eq!(
        format!("{:?}", main_returns(report.clone())),
        format!("{:?}", ExitCode::from(report.exit_code()))
    );
}
