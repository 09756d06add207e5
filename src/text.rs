//! Text for logs, reports and messages to others.

use std::error::Error;

/// What to do if a thread cannot be started.
pub(crate) const ROOM_FOR_THREADS: &str =
    "raise what limits threads (TasksMax= or LimitNPROC= of systemd, pids.max of a container, ulimit -u) \
     or address space (LimitAS=, RLIMIT_AS), or lower the size of stacks (LimitSTACK=, RLIMIT_STACK)";

/// Messages come from elsewhere; one with a line break must not break the line.
pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect()
}

/// What an error says, and then what has caused it, unless the error says that itself.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Fails(&'static str, Option<Box<Fails>>);

    impl fmt::Display for Fails {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Fails {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|it| it as _)
        }
    }

    #[test]
    fn each_cause_is_said_once() {
        let disk = || Some(Box::new(Fails("disk full", None)));
        let journal = Fails("cannot write the journal", disk());
        let start = Fails("no start", Some(Box::new(journal)));
        assert_eq!(
            with_causes(&start),
            "no start: cannot write the journal: disk full"
        );
        let says_it = Fails("cannot write the journal: disk full", disk());
        assert_eq!(with_causes(&says_it), "cannot write the journal: disk full");
    }
}
