//! Points in time, as RFC 3339 writes them, in UTC and with milliseconds.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes `2026-11-30T20:03:11.042Z`. A clock that stands before 1970 counts as if it stood there: boards without a clock of
/// their own begin there.
pub(crate) fn push(out: &mut String, time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let milliseconds = since.subsec_millis();
    let _ = write!(
        out,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z"
    );
}

/// Year, month and day, so many days after 1970-01-01: `civil_from_days` of Howard Hinnant's
/// [chrono-Compatible Low-Level Date Algorithms](https://howardhinnant.github.io/date_algorithms.html), for days from then on.
fn date(days: u64) -> (u64, u64, u64) {
    // Days of eras of 400 years, which begin with a March, so that the leap day is the last of a year.
    let days = days.saturating_add(719_468);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, is_next) = match month {
        0..10 => (month + 3, 0),
        _ => (month - 9, 1),
    };
    (era * 400 + year + is_next, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn written(milliseconds: u64) -> String {
        let mut out = String::new();
        push(&mut out, UNIX_EPOCH + Duration::from_millis(milliseconds));
        out
    }

    #[test]
    fn times_are_written_as_date_does() {
        // By `date -u -d @… +%FT%TZ` of coreutils.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_800, "2000-03-01T00:00:00"),
            (1_709_251_199, "2024-02-29T23:59:59"),
            (1_767_225_599, "2025-12-31T23:59:59"),
            (1_796_069_000, "2026-11-30T20:03:20"),
            (4_107_542_400, "2100-03-01T00:00:00"),
            (253_402_300_799, "9999-12-31T23:59:59"),
        ] {
            assert_eq!(written(seconds * 1000 + 42), format!("{text}.042Z"));
        }
    }

    #[test]
    fn each_day_is_the_one_after_the_day_before() {
        let is_leap = |year: u64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..200_000 {
            assert_eq!(date(days), (year, month, day));
            let last = match month {
                2 => 28 + u64::from(is_leap(year)),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            (day, month) = if day < last {
                (day + 1, month)
            } else {
                (1, month + 1)
            };
            (month, year) = if month < 13 {
                (month, year)
            } else {
                (1, year + 1)
            };
        }
    }

    #[test]
    fn a_clock_that_is_wrong_writes_a_time_all_the_same() {
        let mut out = String::new();
        push(&mut out, UNIX_EPOCH - Duration::from_secs(1));
        assert_eq!(out, "1970-01-01T00:00:00.000Z");
    }
}
