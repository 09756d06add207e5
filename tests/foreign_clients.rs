//! Clients of other languages call without a pause, while servers are
//! restarted under them, or replace themselves: no call is lost. And one asks for their health.
//!
//! `tests/foreign/setup.sh target/foreign` installs what they need. To have it
//! elsewhere, set TOUCHDOWN_PYTHON to a Python that has grpcio, and
//! TOUCHDOWN_NODE_MODULES to a folder that has @grpc/grpc-js.

#![cfg(feature = "server")]

mod common;
mod lifecycle_support;
#[cfg(feature = "tls")]
mod tls_support;

use std::env;
use std::io::{BufRead, BufReader, Lines, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use common::{builder, echo, eventually, planned, quick_plan, text, unary};
use lifecycle_support::{role, say, Process};
use touchdown::lifecycle::{exit_code, Signals};
use touchdown::ServingStatus;

#[test]
#[ignore = "needs Python with grpcio: tests/foreign/setup.sh"]
fn python_loses_no_call_while_the_server_restarts() {
    restart_under("python", &[]);
}

#[test]
#[ignore = "needs Python with grpcio and Node with @grpc/grpc-js: tests/foreign/setup.sh"]
fn node_loses_no_call_while_the_server_restarts() {
    restart_under("node", &[]);
}

#[test]
#[ignore = "needs Python with grpcio: tests/foreign/setup.sh"]
fn python_sees_nothing_of_an_upgrade() {
    restart_under("python", &["--by", "upgrade"]);
    restart_under("python", &["--by", "upgrade", "--health-checks"]);
}

#[test]
#[ignore = "needs Python with grpcio and Node with @grpc/grpc-js: tests/foreign/setup.sh"]
fn node_sees_nothing_of_an_upgrade() {
    restart_under("node", &["--by", "upgrade"]);
}

#[cfg(feature = "tls")]
#[test]
#[ignore = "needs Python with grpcio: tests/foreign/setup.sh"]
fn python_loses_no_call_while_the_server_restarts_with_tls() {
    restart_under("python", &["--tls"]);
}

#[cfg(feature = "tls")]
#[test]
#[ignore = "needs Python with grpcio and Node with @grpc/grpc-js: tests/foreign/setup.sh"]
fn node_loses_no_call_while_the_server_restarts_with_tls() {
    restart_under("node", &["--tls"]);
}

/// It is told at once, and does not come back again and again.
#[cfg(feature = "tls")]
#[test]
#[ignore = "needs Python with grpcio: tests/foreign/setup.sh"]
fn python_without_tls_is_refused_and_backs_off() {
    use std::sync::Arc;
    use tls_support::{Failures, Folder};

    let folder = Folder::new();
    let failures = Arc::<Failures>::default();
    let server = tls_support::builder(echo(), folder.tls())
        .observer(Arc::clone(&failures))
        .start()
        .unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/foreign/without_tls.py");
    let output = Command::new(python())
        .arg(script)
        .args([&server.address().to_string(), "5"])
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", python().display()));
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said, "UNAVAILABLE\nDEADLINE_EXCEEDED\n");
    // By gRPC's document on back-off: after 1 s, and 1.6 times as long each time, give or take a fifth.
    let came = failures.with("speaks HTTP/2 without TLS");
    assert!((1..=10).contains(&came), "{came} connections in 5 s");
}

/// Open connections go on, and new ones get the new certificate.
#[cfg(feature = "tls")]
#[test]
#[ignore = "needs Python with grpcio: tests/foreign/setup.sh"]
fn python_sees_nothing_of_new_certificates() {
    use std::collections::HashSet;
    use std::sync::{Arc, Mutex};
    use tls_support::{client, server_params, Ca, Folder, Wish};
    use touchdown::protobuf::well_known_types::wrappers::StringValue;
    use touchdown::Call;

    let ca = Ca::new("test CA");
    let folder = Folder::of(&ca);
    let tls = folder.tls();
    let callers = Arc::new(Mutex::new(HashSet::new()));
    let seen = Arc::clone(&callers);
    let hello = move |call: &Call, request: StringValue| {
        seen.lock().unwrap().insert(call.peer().to_string());
        Ok(text(format!("Hello, {}!", request.value)))
    };
    let service = touchdown::Service::builder("greeter.Greeter").unary("SayHello", hello);
    let server = tls_support::start(service.build(), tls.clone());
    let mut command = Command::new(python());
    command.args(["-B", "tests/foreign/restart.py"]);
    command.arg(server.address().to_string());
    let ca_file = folder.file("ca.pem");
    command.arg("--ca").arg(&ca_file);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut python = command.spawn().unwrap();
    eventually("it calls", || server.calls().completed > 100);

    let (wish, mut shown) = (Wish::new(&ca_file), HashSet::new());
    for _ in 0..20 {
        folder.write_pair("server", ca.sign(server_params()));
        tls.reload().unwrap();
        let client = client(&server, &wish);
        let certificates = client.stream.conn.peer_certificates().unwrap();
        assert!(shown.insert(certificates[0].to_vec()), "it is the old one");
        let before = server.calls().completed;
        eventually("calls go on", || server.calls().completed > before + 50);
    }
    drop(python.stdin.take());
    let output = python.wait_with_output().unwrap();
    let summary = String::from_utf8_lossy(&output.stdout);
    assert!(
        summary.contains("\"refused\": 0, \"lost\": 0,"),
        "{summary}"
    );
    assert_eq!(callers.lock().unwrap().len(), 1, "connections of Python");
}

fn restart_under(client: &str, options: &[&str]) {
    let (installed, python) = (installed(), python());
    let node_modules = env::var_os("TOUCHDOWN_NODE_MODULES")
        .map_or_else(|| installed.join("node_modules"), PathBuf::from);
    let example = match options.contains(&"--tls") {
        true => "examples/board_server",
        false => "examples/greeter_server",
    };
    let server = target_folder().join(example);
    assert!(
        server.exists(),
        "{} is missing: cargo build --examples",
        server.display()
    );

    let output = Command::new(&python)
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/foreign/restarts.py"
        ))
        .args(["--client", client, "--restarts", "5"])
        .args(options)
        .arg("--server")
        .arg(server)
        .arg("--node-modules")
        .arg(node_modules)
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "{}: {error}; run tests/foreign/setup.sh {}",
                python.display(),
                installed.display()
            )
        });
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
#[ignore = "needs Python with grpcio-health-checking: tests/foreign/setup.sh"]
fn python_asks_for_health_and_watches_it() {
    let server = builder(echo()).start().unwrap();
    let mut client = HealthClient::start(&["probe", &server.address().to_string()]);
    for line in [
        "check  SERVING",
        "check test.Echo SERVING",
        "check test.Other NOT_FOUND",
        "list  SERVING",
        "list test.Echo SERVING",
        "watch SERVING",
    ] {
        assert_eq!(client.hear(), line);
    }
    server.health().set("test.Echo", ServingStatus::NotServing);
    assert_eq!(client.hear(), "watch NOT_SERVING");
    server.health().set("test.Echo", ServingStatus::Serving);
    assert_eq!(client.hear(), "watch SERVING");
    assert_eq!(server.shutdown().exit_code(), exit_code::CLEAN);
    assert_eq!(client.hear(), "watch NOT_SERVING");
    assert_eq!(client.hear(), "end OK");
    client.end();
}

/// A client that asks for health sees nothing of a restart if another server is there meanwhile. It
/// has no retries. TOUCHDOWN_RESTARTS says how many restarts there are.
#[test]
#[ignore = "needs Python with grpcio-health-checking: tests/foreign/setup.sh"]
fn python_sees_no_failure_while_two_servers_restart_by_turns() {
    const NAME: &str = "python_sees_no_failure_while_two_servers_restart_by_turns";
    if let Some(address) = role() {
        serve_at(&address);
    }
    let restarts = env::var("TOUCHDOWN_RESTARTS").map_or(4, |it| it.parse().unwrap());
    let addresses = free_ports().map(|port| format!("127.0.0.1:{port}"));
    let start = |address: &String| {
        let mut server = Process::start_as(address, NAME);
        server.hear("listening at");
        server
    };
    let stop = |server: Process| {
        server.signal("TERM");
        let end = server.end();
        assert_eq!(end.code, Some(exit_code::CLEAN.into()), "{end:?}");
    };
    let mut servers = addresses.each_ref().map(|it| Some(start(it)));
    let mut client = HealthClient::start(&["call", &addresses[0], &addresses[1]]);
    for address in &addresses {
        eventually("both are called", || client.replies_of(address) > 0);
    }
    for restart in 0..restarts {
        let place = restart % 2;
        stop(servers[place].take().unwrap());
        servers[place] = Some(start(&addresses[place]));
        let before = client.replies_of(&addresses[place]);
        eventually("the new one is called", || {
            client.replies_of(&addresses[place]) > before
        });
    }
    let last = client.end();
    println!("{restarts} restarts: {last}");
    assert!(last.contains("\"failed\": 0,"), "{last}");
    servers.into_iter().flatten().for_each(stop);
}

/// Serves until TERM; replies are the address.
fn serve_at(address: &str) -> ! {
    let reply = address.to_owned();
    let plan = quick_plan().with_lame_duck(Duration::from_millis(500));
    let server = builder(unary(move |_, _| Ok(text(reply.clone()))))
        .address(address)
        .lifecycle(planned(plan).signals(Signals::process()))
        .start()
        .expect("it starts");
    say(&format!("listening at {address}"));
    let report = server.wait();
    std::process::exit(report.exit_code().into())
}

/// Two that no outgoing connection takes while a server is down: below the ephemeral range.
fn free_ports() -> [u16; 2] {
    let start = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    let free = (start..32_000).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    let ports: Vec<_> = free.take(2).collect();
    ports.try_into().expect("two ports are free")
}

/// tests/foreign/health.py.
struct HealthClient {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl HealthClient {
    fn start(arguments: &[&str]) -> HealthClient {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/foreign/health.py");
        let mut child = Command::new(python())
            .arg(script)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", python().display()));
        HealthClient {
            stdin: child.stdin.take(),
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
        }
    }

    fn hear(&mut self) -> String {
        self.lines.next().expect("it goes on").unwrap()
    }

    /// How many replies there were from this server; in its JSON, `"ADDRESS": NUMBER`.
    fn replies_of(&mut self, address: &str) -> u64 {
        self.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        let line = self.hear();
        let (_, count) = line
            .split_once(&format!("\"{address}\": "))
            .unwrap_or(("", "0"));
        let digits: String = count.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap()
    }

    /// Lets it come to its end, and returns the last line.
    fn end(mut self) -> String {
        drop(self.stdin.take());
        let last = self.lines.by_ref().last();
        assert!(self.child.wait().unwrap().success());
        last.map(Result::unwrap).unwrap_or_default()
    }
}

impl Drop for HealthClient {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn installed() -> PathBuf {
    target_folder().parent().unwrap().join("foreign")
}

fn python() -> PathBuf {
    env::var_os("TOUCHDOWN_PYTHON")
        .map_or_else(|| installed().join("venv/bin/python"), PathBuf::from)
}

/// target/debug or its like: this program is in its `deps`.
fn target_folder() -> PathBuf {
    let program = env::current_exe().expect("a path");
    program
        .ancestors()
        .nth(2)
        .expect("target/debug/deps")
        .to_owned()
}
