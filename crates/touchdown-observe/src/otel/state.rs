//! `tracestate`: what tracing systems hand on beside the ids, and which only they can read.

use std::ops::ControlFlow;

/// How many bytes of it are handed on at the most. W3C asks for
/// [at least 512](https://www.w3.org/TR/trace-context/#tracestate-limits).
const MOST_BYTES: usize = 512;

/// How many entries it [may have](https://www.w3.org/TR/trace-context/#list).
const MOST_ENTRIES: usize = 32;

/// What is handed on of a `tracestate` that came in these headers: all of it, or as many entries as there is room for,
/// the first ones. Empty if it is malformed: W3C has it
/// [thrown away as a whole](https://www.w3.org/TR/trace-context/#a-traceparent-is-received) then, and the ids stay.
pub(super) fn handed_on<'a>(headers: impl Iterator<Item = &'a str>) -> Box<str> {
    let entries = headers.flat_map(|it| it.split(','));
    // The list may have empty places, and spaces around its commas.
    let mut entries = entries
        .map(|it| it.trim_matches([' ', '\t']))
        .filter(|it| !it.is_empty());
    let mut count = 0;
    let mut is_full = false;
    let all = entries.try_fold(String::new(), |mut all, entry| {
        count += 1;
        if count > MOST_ENTRIES || !is_entry(entry) {
            return ControlFlow::Break(());
        }
        let comma = usize::from(!all.is_empty());
        is_full |= all.len() + comma + entry.len() > MOST_BYTES;
        if !is_full {
            all.push_str(&","[..comma]);
            all.push_str(entry);
        }
        ControlFlow::Continue(all)
    });
    all.continue_value().unwrap_or_default().into()
}

/// `key=value`, as [W3C](https://www.w3.org/TR/trace-context/#list-members) has them.
fn is_entry(entry: &str) -> bool {
    let Some((key, value)) = entry.split_once('=') else {
        return false;
    };
    let of_key =
        |it: u8| matches!(it, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let of_value = |it: u8| matches!(it, b' '..=b'~') && it != b'=';
    let begins = matches!(key.as_bytes().first(), Some(b'a'..=b'z' | b'0'..=b'9'));
    let is_key = begins && key.len() <= 256 && key.bytes().all(of_key);
    is_key && matches!(value.len(), 1..=256) && value.bytes().all(of_value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[&str]) -> String {
        handed_on(headers.iter().copied()).into()
    }

    #[test]
    fn what_is_well_formed_is_handed_on() {
        assert_eq!(of(&[]), "");
        assert_eq!(of(&["rojo=00f067aa0ba902b7"]), "rojo=00f067aa0ba902b7");
        assert_eq!(of(&["a=1,b=2", "c=3"]), "a=1,b=2,c=3");
        assert_eq!(of(&["a=1 , ,\tb@v=x y,"]), "a=1,b@v=x y");
    }

    #[test]
    fn what_is_malformed_is_thrown_away_as_a_whole() {
        for state in [
            "a", "=1", "a=", "A=1", "ä=1", "a=1=2", "a=ü", "a=\u{1}", "*a=1",
        ] {
            assert_eq!(of(&[state]), "", "{state:?}");
            assert_eq!(of(&["b=2", state]), "", "{state:?}");
        }
        let long = "k".repeat(257);
        assert_eq!(of(&[&format!("{long}=1")]), "");
        assert_eq!(of(&[&format!("k={long}")]), "");
        let entries = |count: usize| (0..count).map(|it| format!("k{it}=1")).collect::<Vec<_>>();
        assert_eq!(of(&[&entries(32).join(",")]), entries(32).join(","));
        assert_eq!(of(&[&entries(33).join(",")]), "");
    }

    #[test]
    fn what_is_too_long_loses_its_last_entries() {
        let value = "v".repeat(252);
        // Three bytes for the first key, its sign and the comma, and so on.
        let state = format!("a={value},b={value},c=1,d=2");
        assert_eq!(
            of(&[&state]),
            format!("a={value},b={value},c=1")[..509].to_owned()
        );
    }
}
