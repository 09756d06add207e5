//! The one error of this crate: a text for the person whose build failed.

use std::fmt;
use std::path::Path;

/// Why no code was generated.
///
/// Written for the person who reads the output of a failed build: if a `.proto` file is to blame, the
/// text begins with its path, line and column, and shows the line. [`Debug`](fmt::Debug) gives the
/// same text as [`Display`](fmt::Display), because that is what a `main` that returns a `Result` prints.
pub struct Error {
    text: String,
}

impl Error {
    pub(crate) fn new(text: impl Into<String>) -> Error {
        Error { text: text.into() }
    }

    /// An error about a place in a `.proto` file. `line` and `column` count from one; the line is read
    /// again from the file, to be shown.
    pub(crate) fn at(path: &Path, line: usize, column: usize, message: &str) -> Error {
        let mut text = format!("{}:{line}:{column}: {message}", path.display());
        let source = std::fs::read_to_string(path).unwrap_or_default();
        if let Some(source_line) = line.checked_sub(1).and_then(|n| source.lines().nth(n)) {
            let number = line.to_string();
            let margin = " ".repeat(number.len());
            // Tabs stay tabs, so that the caret stands below what it points at.
            let indent: String = source_line
                .chars()
                .take(column.saturating_sub(1))
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            text += &format!(
                "\n {margin} |\n {number} | {}\n {margin} | {indent}^",
                source_line.trim_end()
            );
        }
        Error { text }
    }

    pub(crate) fn with_help(mut self, help: &str) -> Error {
        self.text += "\n  help: ";
        self.text += help;
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}
