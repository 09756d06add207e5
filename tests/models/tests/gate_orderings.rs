//! The gate under loom.

use touchdown_models::gate_orderings::*;
use touchdown_models::{fails_loom, passes_loom};

#[test]
fn who_waited_sees_what_was_done_inside() {
    passes_loom(real::scenarios::who_waited_sees_what_was_done_inside);
    fails_loom(
        leave_is_relaxed::scenarios::who_waited_sees_what_was_done_inside,
        "Causality violation",
    );
}

#[test]
fn who_counts_none_sees_what_was_done_inside() {
    passes_loom(real::scenarios::who_counts_none_sees_what_was_done_inside);
    fails_loom(
        leave_is_relaxed::scenarios::who_counts_none_sees_what_was_done_inside,
        "Causality violation",
    );
}

#[test]
fn who_is_refused_sees_what_was_done_before_the_close() {
    passes_loom(real::scenarios::who_is_refused_sees_what_was_done_before_the_close);
    fails_loom(
        close_is_relaxed::scenarios::who_is_refused_sees_what_was_done_before_the_close,
        "Causality violation",
    );
    fails_loom(
        a_refusal_acquires_nothing::scenarios::who_is_refused_sees_what_was_done_before_the_close,
        "Causality violation",
    );
}

#[test]
fn no_wake_is_lost() {
    passes_loom(real::scenarios::no_wake_is_lost);
    fails_loom(
        leave_looks_for_waiters_before_it_leaves::scenarios::no_wake_is_lost,
        "deadlock",
    );
}
