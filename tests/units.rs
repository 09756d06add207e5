//! The units in deploy/ are what systemd accepts, and are as hard as they say.

mod lifecycle_support;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use lifecycle_support::bound;

/// Of 10, as the comment in the unit says it; less is better.
const EXPOSURE: &str = "1.2 OK";

fn units() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

/// What the command says of files; `None` if it is not installed.
fn analyze(arguments: &[&str], files: &[PathBuf]) -> Option<Output> {
    let mut command = Command::new("systemd-analyze");
    // Whatever is configured for who runs this must not matter, nor what the system has in its units.
    command
        .args(arguments)
        .args(files)
        .env("LANG", "C.UTF-8")
        .env("SYSTEMD_COLORS", "0");
    match command.output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("the units are not checked, since there is no systemd-analyze: {error}");
            None
        }
    }
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

#[test]
fn systemd_accepts_the_units_without_a_word() {
    let _bound = bound();
    let folder = std::env::temp_dir().join(format!("touchdown-units-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let mut files = Vec::new();
    for entry in fs::read_dir(units()).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), entry.file_name());
        if !path
            .extension()
            .is_some_and(|it| it == "service" || it == "socket")
        {
            continue;
        }
        let unit = fs::read_to_string(units().join(&name)).unwrap();
        // Whether the program is installed there is not to be checked.
        let unit = unit.replace("/usr/local/bin/board_server", "/bin/sh");
        let file = folder.join(name);
        fs::write(&file, unit).unwrap();
        files.push(file);
    }
    assert_eq!(files.len(), 2, "a service and its socket");
    let checked = analyze(&["verify", "--man=no"], &files);
    // A unit that it must not accept, so that it is known to look.
    let broken = folder.join("broken.service");
    fs::write(
        &broken,
        "[Service]\nExecStart=/bin/sh\nTimeoutStopSec=soon\n",
    )
    .unwrap();
    let refused = analyze(&["verify", "--man=no"], &[broken]);
    fs::remove_dir_all(&folder).unwrap();
    if let (Some(checked), Some(refused)) = (checked, refused) {
        assert_eq!(text(&checked), "");
        assert!(checked.status.success(), "{}", checked.status);
        assert!(
            text(&refused).contains("broken.service:3"),
            "{}",
            text(&refused)
        );
    }
}

#[test]
fn the_service_is_as_hard_as_it_says() {
    let _bound = bound();
    let unit = units().join("greeter.service");
    let said = fs::read_to_string(&unit).unwrap();
    let grade = EXPOSURE.replace(' ', ", \"") + "\"";
    assert!(said.contains(&format!("an exposure of {grade}")), "{grade}");
    let arguments = ["security", "--offline=yes", "--threshold=12"];
    let Some(output) = analyze(&arguments, &[unit]) else {
        return;
    };
    let text = text(&output);
    if text.contains("unrecognized option") {
        return eprintln!("the service is not graded, since systemd is older than 250");
    }
    // Later versions may know of more to restrict.
    let overall = text.lines().last().unwrap_or_default();
    assert!(output.status.success(), "{overall}");
    eprintln!("{overall}");
}
