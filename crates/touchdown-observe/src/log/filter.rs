//! Which lines are wanted: directives as in `RUST_LOG`.
//!
//! env_logger reads them, too, and says what it does not understand: on the standard error, in a form of its own, and with
//! a panic if nothing can be written there. So they are looked at before.

use log::LevelFilter;

/// What is understood of the directives, and what is not.
pub(super) fn sort(directives: &str) -> (String, Vec<&str>) {
    // What follows a slash is text that a line must have.
    let (modules, text) = match directives.split_once('/') {
        // The text would be compiled if another crate asks env_logger for its feature `regex`.
        Some((_, text)) if text.contains('/') => return (String::new(), vec![directives]),
        Some((modules, text)) => (modules, Some(text)),
        None => (directives, None),
    };
    let all = modules
        .split(',')
        .map(str::trim)
        .filter(|it| !it.is_empty());
    let (good, bad): (Vec<&str>, Vec<&str>) = all.partition(|it| is_understood(it));
    let mut good = good.join(",");
    if let Some(text) = text {
        good.push('/');
        good.push_str(text);
    }
    (good, bad)
}

/// A level, a target, or a target and its level.
fn is_understood(directive: &str) -> bool {
    match directive.split_once('=') {
        None => true,
        Some((_, level)) => level.trim().is_empty() || level.trim().parse::<LevelFilter>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_understood_is_kept_and_the_rest_is_named() {
        let sorted = |directives| {
            let (good, bad) = sort(directives);
            (good, bad.join("|"))
        };
        let case = |good: &str, bad: &str| (good.to_owned(), bad.to_owned());
        assert_eq!(sorted("info"), case("info", ""));
        assert_eq!(sorted("info, a::b=debug,"), case("info,a::b=debug", ""));
        assert_eq!(sorted("info,a=loud,b=off"), case("info,b=off", "a=loud"));
        assert_eq!(sorted("a=b=debug"), case("", "a=b=debug"));
        assert_eq!(sorted("a/b/c"), case("", "a/b/c"));
        assert_eq!(sorted("a=x,b/text"), case("b/text", "a=x"));
    }
}
