//! What the log and the access log have in common: a line stays one line, whatever is in it.
//!
//! Everything here writes to a `String` that can be used again, so that a line costs no more memory than the longest
//! before it.

// With one of the two features alone, not all of this is used.
#![allow(dead_code)]

pub(crate) mod escape;
pub(crate) mod json;
pub(crate) mod keys;
pub(crate) mod time;
pub(crate) mod writer;

use std::env;
use std::path::Path;

/// How long a line becomes at the most, in bytes. Docker and containerd split what is longer (16 KiB), and journald what is
/// longer than its `LineMax=` (48 KiB): what comes after the split would be a line that somebody else has chosen.
pub(crate) const LINE: usize = 16 << 10;

/// How much of it the message may take. With [`PAIR`] it leaves room for what stands before and after.
pub(crate) const MESSAGE: usize = 8 << 10;

/// How many bytes a key may take, and the name of a service, a target or a thread.
pub(crate) const NAME: usize = 128;

/// How many bytes a value may take.
pub(crate) const VALUE: usize = 2 << 10;

/// How many pairs of a key and a value a line may have.
pub(crate) const PAIRS: usize = 64;

/// What a pair may take in all: quotes, what is put before or after a key that is taken, and marks of a cut.
pub(crate) const PAIR: usize = VALUE + NAME + 64;

/// Whether there is room in a line for one more pair, and for what closes it.
pub(crate) fn has_room(line: &str, pairs: usize) -> bool {
    pairs < PAIRS && line.len() + PAIR + 64 <= LINE
}

/// What the program is called: the variable that OpenTelemetry has for it, or the name of the file.
pub(crate) fn program_name() -> String {
    let variable = env::var("OTEL_SERVICE_NAME").ok();
    variable.filter(|it| !it.is_empty()).unwrap_or_else(|| {
        let path = env::args_os().next().unwrap_or_default();
        let name = Path::new(&path).file_name();
        name.map_or_else(
            || "unknown_service".to_owned(),
            |it| it.to_string_lossy().into_owned(),
        )
    })
}
