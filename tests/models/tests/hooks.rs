//! Hooks under shuttle.

use touchdown_models::hooks::*;
use touchdown_models::{fails, passes};

#[test]
fn hooks_run_in_their_order() {
    passes(real::scenarios::hooks_run_in_their_order);
    fails(
        the_first_prerequisite_is_not_waited_for::scenarios::hooks_run_in_their_order,
        "before its turn",
    );
}

#[test]
fn what_is_said_of_hooks_is_true() {
    passes(real::scenarios::what_is_said_of_hooks_is_true);
    fails(
        all_are_left_behind_with_the_first::scenarios::what_is_said_of_hooks_is_true,
        "left behind",
    );
    fails(
        who_is_late_does_not_look_again::scenarios::what_is_said_of_hooks_is_true,
        "over in time",
    );
}

#[test]
fn the_phase_ends_in_time() {
    passes(real::scenarios::the_phase_ends_in_time);
}

#[test]
fn each_hook_has_its_own_limit() {
    passes(real::scenarios::each_hook_has_its_own_limit);
    fails(
        the_wait_is_for_the_last_limit::scenarios::each_hook_has_its_own_limit,
        "left == right",
    );
    fails(
        the_end_of_the_phase_is_no_limit::scenarios::each_hook_has_its_own_limit,
        "left == right",
    );
}

#[test]
fn failures_and_panics_hold_nobody_up() {
    passes(real::scenarios::failures_and_panics_hold_nobody_up);
}

#[test]
fn time_may_pass_at_any_step() {
    passes(real::scenarios::time_may_pass_at_any_step);
}
