//! The gate under shuttle.

use touchdown_models::gate::*;
use touchdown_models::{fails, passes};

#[test]
fn a_closed_gate_empties_for_good() {
    passes(real::scenarios::a_closed_gate_empties_for_good);
    fails(
        enter_looks_at_closed_only_once::scenarios::a_closed_gate_empties_for_good,
        "empty gate",
    );
    fails(
        leave_looks_for_waiters_before_it_leaves::scenarios::a_closed_gate_empties_for_good,
        "deadlock",
    );
}

#[test]
fn all_who_wait_see_the_end_of_split_work() {
    passes(real::scenarios::all_who_wait_see_the_end_of_split_work);
    fails(
        leave_looks_for_waiters_before_it_leaves::scenarios::all_who_wait_see_the_end_of_split_work,
        "deadlock",
    );
}

#[test]
fn a_wait_with_a_deadline_says_how_it_ended() {
    passes(real::scenarios::a_wait_with_a_deadline_says_how_it_ended);
    fails(
        a_timeout_is_taken_for_empty::scenarios::a_wait_with_a_deadline_says_how_it_ended,
        "not empty",
    );
}

#[test]
fn a_deadline_ends_the_wait_for_one_who_stays() {
    passes(real::scenarios::a_deadline_ends_the_wait_for_one_who_stays);
}

#[test]
fn an_interrupt_is_not_missed() {
    passes(real::scenarios::an_interrupt_is_not_missed);
    fails(
        interrupt_takes_no_lock::scenarios::an_interrupt_is_not_missed,
        "deadlock",
    );
}

#[test]
fn a_moment_of_emptiness_is_not_missed() {
    passes(real::scenarios::a_moment_of_emptiness_is_not_missed);
    fails(
        a_moment_of_emptiness_is_forgotten::scenarios::a_moment_of_emptiness_is_not_missed,
        "missed",
    );
}
