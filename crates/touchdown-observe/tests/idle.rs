//! Whoever opens all doors, and is asked by nobody, does nothing: not one of the threads wakes.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{echo, get, LONG};
use touchdown::Server;
use touchdown_observe::access_log::AccessLog;
use touchdown_observe::{Observe, ObserveServer};

/// How long nothing may happen.
const IDLE: Duration = Duration::from_secs(10);

/// A program of its own, which the test below starts.
#[test]
#[ignore = "it serves until its input ends"]
fn serves() {
    let (service, ..) = echo();
    let door = std::env::var("DOOR").unwrap();
    let builder = Server::builder()
        .address("127.0.0.1:0")
        .handshake_timeout(Duration::from_secs(3600))
        .service(service)
        .observe(Observe::at(door))
        .access_log(AccessLog::new());
    #[cfg(feature = "otel")]
    let builder = builder.traces(touchdown_observe::otel::Traces::new("http://127.0.0.1:9"));
    #[cfg(feature = "reflection")]
    let builder = builder.reflection(touchdown_observe::reflection::Reflection::new());
    #[cfg(feature = "load-report")]
    let builder = builder.load_report(touchdown_observe::load_report::LoadReport::new());
    let server = builder.start().unwrap();
    eprintln!("ready");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    server.shutdown();
}

/// How often each thread was taken off a processor. One that sleeps is not.
fn switches(process: u32) -> BTreeMap<String, u64> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let count = |status: &str, name: &str| -> u64 {
        let line = status
            .lines()
            .find_map(|it| it.strip_prefix(name))
            .unwrap_or(":0");
        line.trim_start_matches(':').trim().parse().unwrap_or(0)
    };
    let of_task = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        let name = format!("{} {}", task.file_name().to_string_lossy(), name.trim());
        Some((
            name,
            count(&status, "voluntary_ctxt_switches")
                + count(&status, "nonvoluntary_ctxt_switches"),
        ))
    };
    tasks.filter_map(|it| of_task(it.ok()?)).collect()
}

#[test]
fn nothing_wakes_while_nobody_asks() {
    let door = common::free_address();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["serves", "--exact", "--ignored", "--nocapture"])
        .env("DOOR", &door)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let input = child.stdin.take();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|it| it == "ready"));
    for path in ["/readyz", "/livez", "/metrics", "/statusz"] {
        assert_eq!(get(&door, path).0, 200, "{path}");
    }
    let deadline = Instant::now() + LONG;
    let mut before = switches(child.id());
    loop {
        thread::sleep(Duration::from_millis(1500));
        let now = switches(child.id());
        if now == before {
            break;
        }
        assert!(Instant::now() < deadline, "never quiet: {before:?} {now:?}");
        before = now;
    }
    thread::sleep(IDLE);
    assert_eq!(switches(child.id()), before);
    drop(input);
    assert!(child.wait().unwrap().success());
}
