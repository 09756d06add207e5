//! The walls of the house: which room may name which, and what may stand where. What breaks one is named with its
//! file and line. Comments may name everything, and so may tests. How code is read: source.rs.

mod circles;
mod seeded;
mod source;

use circles::circles;
use source::{names_inside, sources, Source};

/// The rooms, each with what its code may name beside itself. `public` is what the crate's first page exports: a
/// room that names only this and public rooms could be another crate.
#[rustfmt::skip]
const MAY_NAME: [(&str, &str); 19] = [
    ("caught", "foundation"),
    ("descriptors", "foundation"),
    ("logging", "foundation"),
    ("running_time", "foundation"),
    ("sync", "foundation"),
    ("text", "foundation"),
    ("thrown", "foundation"),
    // For any program with threads: no gRPC.
    ("lifecycle", "foundation"),
    ("os", "foundation"),
    ("sockets", "os foundation"),
    ("upgrade", "lifecycle os sockets foundation"),
    ("acceptor", "lifecycle upgrade os sockets foundation"),
    // Who runs a call, and who speaks HTTP/2.
    ("calls", "os sockets foundation"),
    ("engine", "calls os sockets foundation"),
    // Where all meet, and the other side.
    ("server", "public lifecycle upgrade calls engine os sockets foundation"),
    ("client", "public engine foundation"),
    ("unversioned", "client"),
    // Companions.
    ("admin", "public lifecycle"),
    ("systemd", "public lifecycle sockets"),
];

const FOUNDATION: &str = "caught descriptors logging running_time sync text thrown";
const COMPANIONS: &str = "admin systemd";

/// Words that stand in the code of these rooms only.
const ONLY_IN: [(&str, &str); 3] = [
    ("unsafe", "os sockets engine"),
    ("grpcio", "engine client unversioned"),
    ("grpcio_sys", "engine client"),
];

/// Rooms that are the same whatever the features are.
const WITHOUT_FEATURES: &str = "lifecycle";

/// How many lines of code a file may have, apart from blank lines, comments and tests.
const LINES: usize = 400;

/// What is let through: the file, the word at which it breaks a wall, and the reason.
#[rustfmt::skip]
const EXCEPTIONS: [(&str, &str, &str); 8] = [
    ("src/lifecycle/remote.rs", "circle", "closures that the state of a lifecycle keeps are handed a view of it"),
    ("src/systemd/server.rs", "logging", "a log that stands still must not hold up the start"),
    ("src/systemd/store.rs", "logging", "the same"),
    ("src/admin.rs", "logging", "a log that stands still must not hold up the admin's answers"),
    ("src/server/builder/mod.rs", "client", "a smoke test is a client of the server, and gets a channel to it"),
    ("src/server/smoke_test.rs", "client", "the same"),
    ("src/server/testing.rs", "client", "a test is a client of the server, too"),
    ("src/systemd/messenger.rs", "logging", "a log that stands still must not keep the watchdog from being fed"),
];

fn among(list: &str, name: &str) -> bool {
    list.split(' ').any(|it| it == name)
}

/// The word of the table for the first name of a path.
fn kind(name: &str) -> &str {
    match name {
        _ if among(FOUNDATION, name) => "foundation",
        "protobuf" | "include_protos" => "public",
        _ if name.starts_with(char::is_uppercase) => "public",
        _ => name,
    }
}

fn is_exception(path: &str, word: &str) -> bool {
    EXCEPTIONS.iter().any(|it| it.0 == path && it.1 == word)
}

fn breaches(files: &[Source]) -> Vec<String> {
    let inside = names_inside(files);
    let mut found = circles(files, |path| is_exception(path, "circle"));
    for file in files {
        let mut breach = |line: usize, what: &str, word: &str| {
            if !is_exception(&file.path, word) {
                found.push(format!("{}:{line}: {what} `{word}`", file.path));
            }
        };
        if let Some(line) = file.lines.get(LINES) {
            breach(*line, "from here on there are too many", "lines");
        }
        let room = &*file.module()[0];
        if !file.path.starts_with("src/") || !file.path.ends_with(".rs") || room == "lib" {
            continue;
        }
        let may_name = MAY_NAME.iter().find(|it| it.0 == room);
        for (line, path) in file.paths() {
            let is_free = may_name.is_some_and(|it| among(it.1, kind(&path[0])));
            if path[0] != room && !is_free {
                breach(line, &format!("{room} may not name"), &path[0]);
            }
        }
        for words in file.tokens.windows(2) {
            let ((line, word), (_, next)) = (&words[0], &words[1]);
            let is_feature = word == "feature" && next == "=" && among(WITHOUT_FEATURES, room);
            if is_feature || ONLY_IN.iter().any(|it| it.0 == word && !among(it.1, room)) {
                breach(*line, &format!("{room} is no place for"), word);
            }
            let is_used = among(COMPANIONS, room) && (word == "." || word == "::");
            if is_used && inside.contains(&**next) {
                breach(
                    *line,
                    &format!("{room} may only use what is public, not"),
                    next,
                );
            }
        }
    }
    found.dedup();
    found
}

#[test]
fn the_walls_stand() {
    let found = breaches(&sources());
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}
