//! Whether what a program writes goes to systemd's journal.

use std::env;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

/// Whether the standard error is the journal: `JOURNAL_STREAM` has its device and inode, as `systemd.exec(5)` says. A
/// child that was given another standard error has the variable, too, and so has to look.
pub(super) fn is_stderr() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else {
        return false;
    };
    let Ok(stderr) = io::stderr().as_fd().try_clone_to_owned() else {
        return false;
    };
    File::from(stderr)
        .metadata()
        .is_ok_and(|it| parse(&stream) == Some((it.dev(), it.ino())))
}

/// Two numbers in decimal, with a colon between them.
fn parse(stream: &str) -> Option<(u64, u64)> {
    let (device, inode) = stream.split_once(':')?;
    Some((device.parse().ok()?, inode.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_numbers_are_read_and_nothing_else() {
        assert_eq!(parse("9:4711"), Some((9, 4711)));
        for wrong in ["", "9", ":", "9:", "9:x", "9:1:2", "-9:1", " 9:1"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }
}
