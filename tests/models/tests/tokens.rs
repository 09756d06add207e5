//! The tree of tokens under shuttle.

use touchdown_models::tokens::*;
use touchdown_models::{fails, passes};

#[test]
fn a_child_made_meanwhile_is_cancelled() {
    passes(real::scenarios::a_child_made_meanwhile_is_cancelled);
    fails(
        a_child_looks_before_it_locks::scenarios::a_child_made_meanwhile_is_cancelled,
        "the child is not cancelled",
    );
    fails(
        cancel_takes_the_children_before_it_sets_the_flag::scenarios::a_child_made_meanwhile_is_cancelled,
        "child is not cancelled",
    );
}

#[test]
fn the_first_cancel_reaches_all_descendants() {
    passes(real::scenarios::the_first_cancel_reaches_all_descendants);
}

#[test]
fn who_waits_is_woken() {
    passes(real::scenarios::who_waits_is_woken);
    fails(
        who_waits_does_not_look_again::scenarios::who_waits_is_woken,
        "deadlock",
    );
}

#[test]
fn a_receiver_ends() {
    passes(real::scenarios::a_receiver_ends);
    fails(
        who_waits_does_not_look_again::scenarios::a_receiver_ends,
        "deadlock",
    );
}

#[test]
fn a_grandchild_is_reached_through_dropped_parents() {
    passes(real::scenarios::a_grandchild_is_reached_through_dropped_parents);
    fails(
        a_dropped_parent_takes_its_children_out_of_the_tree::scenarios::a_grandchild_is_reached_through_dropped_parents,
        "deadlock",
    );
}

#[test]
fn nodes_are_dropped_meanwhile() {
    passes(real::scenarios::nodes_are_dropped_meanwhile);
}

#[test]
fn a_timed_wait_says_how_it_ended() {
    passes(real::scenarios::a_timed_wait_says_how_it_ended);
}

#[test]
fn a_timed_wait_ends_with_the_cancellation() {
    passes(real::scenarios::a_timed_wait_ends_with_the_cancellation);
    fails(
        who_waits_does_not_look_again::scenarios::a_timed_wait_ends_with_the_cancellation,
        "it was",
    );
}
