//! Where the clients of other implementations are: `tests/foreign/setup.sh target/foreign` puts them beside
//! this program's `debug` folder. TOUCHDOWN_PYTHON and TOUCHDOWN_NODE_MODULES name others.
#![allow(dead_code)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A client that takes longer than this many seconds hangs.
const LIMIT_S: &str = "120";

/// What `tests/foreign/setup.sh` has installed.
pub fn installed(file: &str) -> PathBuf {
    let program = env::current_exe().expect("a path");
    let target = program.ancestors().nth(3).expect("target/debug/deps");
    target.join("foreign").join(file)
}

fn source(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../foreign")
        .join(file)
}

/// `timeout` sees to it that a client does not outlive its test by much, whatever happens.
pub fn limited(program: &Path) -> Command {
    assert!(
        program.exists(),
        "{} is missing: tests/foreign/setup.sh {}",
        program.display(),
        installed("").display()
    );
    let mut command = Command::new("timeout");
    command.arg(LIMIT_S).arg(program);
    command
}

pub fn python(file: &str) -> Command {
    let python =
        env::var_os("TOUCHDOWN_PYTHON").map_or_else(|| installed("venv/bin/python"), PathBuf::from);
    let mut command = limited(&python);
    // No __pycache__ in the sources.
    command.arg("-B").arg(source(file));
    command
}

pub fn node(file: &str) -> Command {
    let modules = env::var_os("TOUCHDOWN_NODE_MODULES")
        .map_or_else(|| installed("node_modules"), PathBuf::from);
    assert!(modules.exists(), "{} is missing", modules.display());
    let mut command = Command::new("timeout");
    command.args([LIMIT_S, "node"]).arg(source(file));
    command.env("TOUCHDOWN_NODE_MODULES", modules);
    command
}

pub fn tonic(program: &str) -> Command {
    let mut command = limited(&installed("tonic/debug/touchdown-tonic-client"));
    command.arg(program);
    command
}

/// What the command writes. It must succeed.
pub fn output(mut command: Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{command:?}: {}\n{stdout}{stderr}",
        output.status
    );
    stdout.into_owned()
}
