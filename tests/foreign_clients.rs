//! Clients of other languages call without a pause, while the server is
//! restarted under them: no call is lost.
//!
//! `tests/foreign/setup.sh target/foreign` installs what they need. To have it
//! elsewhere, set TOUCHDOWN_PYTHON to a Python that has grpcio, and
//! TOUCHDOWN_NODE_MODULES to a folder that has @grpc/grpc-js.

#![cfg(feature = "server")]

use std::env;
use std::path::PathBuf;
use std::process::Command;

#[test]
#[ignore = "needs Python with grpcio: tests/foreign/setup.sh"]
fn python_loses_no_call_while_the_server_restarts() {
    restart_under("python");
}

#[test]
#[ignore = "needs Python with grpcio and Node with @grpc/grpc-js: tests/foreign/setup.sh"]
fn node_loses_no_call_while_the_server_restarts() {
    restart_under("node");
}

fn restart_under(client: &str) {
    let installed = target_folder().parent().unwrap().join("foreign");
    let python = env::var_os("TOUCHDOWN_PYTHON")
        .map_or_else(|| installed.join("venv/bin/python"), PathBuf::from);
    let node_modules = env::var_os("TOUCHDOWN_NODE_MODULES")
        .map_or_else(|| installed.join("node_modules"), PathBuf::from);
    let server = target_folder().join("examples/greeter_server");
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

/// target/debug or its like: this program is in its `deps`.
fn target_folder() -> PathBuf {
    let program = env::current_exe().expect("a path");
    program
        .ancestors()
        .nth(2)
        .expect("target/debug/deps")
        .to_owned()
}
