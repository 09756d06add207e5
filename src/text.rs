//! Text for logs, reports and messages to others.

/// Messages come from elsewhere; one with a line break must not break the line.
pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect()
}
