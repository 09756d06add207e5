//! Breaches that the check has to find, and code that breaks no wall.

use crate::source::Source;
use crate::{breaches, LINES};

#[test]
fn a_breach_of_each_wall_is_found() {
    let long = "let a = 1;\n// b\n".repeat(LINES + 1);
    let tests = format!("fn a() {{}}\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
    let found = |path: &str, text: &str| breaches(&[Source::new(path, text)]);
    for (path, text, line) in [
        (
            "src/lifecycle/hooks.rs",
            "use crate::{\n    sync::Mutex,\n    server::{Call, Status},\n};",
            3,
        ),
        (
            "src/lifecycle/hooks.rs",
            "fn a() {\n    super::super::upgrade::begin()\n}",
            2,
        ),
        (
            "src/lifecycle/hooks.rs",
            "\n#[cfg(feature = \"server\")]\nmod a;",
            2,
        ),
        ("src/engine/poll.rs", "use crate::lifecycle;", 1),
        (
            "src/calls/roster.rs",
            "const A: char = '\"'; use grpcio_sys::*;",
            1,
        ),
        (
            "src/server/call.rs",
            "/* \" */ fn a() { unsafe { b() } }",
            1,
        ),
        ("src/systemd/watchdog.rs", "use crate::logging;", 1),
        ("src/attic.rs", "use crate::logging;", 1),
        ("src/server/call.rs", &long, 2 * LINES + 1),
        ("crates/touchdown-build/src/lib.rs", &long, 2 * LINES + 1),
    ] {
        let found = found(path, text);
        assert!(
            found.len() == 1 && found[0].starts_with(&format!("{path}:{line}: ")),
            "{text}: {found:?}"
        );
    }
    for (path, text) in [
        ("src/lifecycle/hooks.rs", "/// As [`crate::server`]: \nuse super::run; // unsafe\nconst A: &str = r#\"unsafe \" {\"#;"),
        ("src/server/call.rs", &*tests),
        ("src/server/call.rs", &*tests.replace("(test)", "(all(test, feature = \"client\"))")),
        ("src/admin.rs", "use crate::{lifecycle::Lifecycle, Call};"),
    ] {
        assert_eq!(found(path, text), [""; 0], "{text}");
    }
    let circle = breaches(&[
        Source::new("src/calls/a.rs", "use super::b::B;"),
        Source::new("src/calls/b.rs", "\nuse crate::calls::c;"),
        Source::new("src/calls/c.rs", "use super::{a::A, b};"),
        Source::new("src/calls/mod.rs", "mod a;\nuse a::A;"),
    ]);
    assert_eq!(circle.len(), 3, "{circle:?}");
    assert!(circle[1].starts_with("src/calls/b.rs:2: "), "{circle:?}");
    let private = breaches(&[
        Source::new(
            "src/lifecycle/mod.rs",
            "pub(crate) fn hurry() {}\npub fn stop() {}",
        ),
        Source::new(
            "src/systemd/mod.rs",
            "fn a(it: Lifecycle) {\nit.stop();\nit.hurry();\n}",
        ),
    ]);
    assert!(
        private.len() == 1 && private[0].starts_with("src/systemd/mod.rs:3: "),
        "{private:?}"
    );
}
