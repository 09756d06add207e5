//! Times, as the log says them.

use std::fmt;
use std::time::Duration;

/// A time in seconds with one decimal, cut off: `12.3s`. The standard library writes such a number with 15 KB of code.
pub(super) struct Seconds(pub(super) Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = self.0.subsec_millis() / 100;
        write!(formatter, "{}.{tenths}s", self.0.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_one_decimal() {
        for (milliseconds, text) in [
            (0, "0.0s"),
            (999, "0.9s"),
            (12_345, "12.3s"),
            (60_000, "60.0s"),
        ] {
            let time = Duration::from_millis(milliseconds);
            assert_eq!(Seconds(time).to_string(), text);
        }
    }
}
