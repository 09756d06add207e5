//! Text for logs, reports and messages to others.

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
