//! What a server says of its health, and to whom.

use touchdown_models::board::*;
use touchdown_models::{fails, passes};

#[test]
fn what_is_told_last_is_what_holds() {
    passes(real::scenarios::what_is_told_last_is_what_holds);
    fails(
        nobody_looks_again_when_a_message_is_gone::scenarios::what_is_told_last_is_what_holds,
        "an older state is told last",
    );
}

#[test]
fn a_stop_is_told_and_final() {
    passes(real::scenarios::a_stop_is_told_and_final);
    fails(
        the_state_is_looked_up_early::scenarios::a_stop_is_told_and_final,
        "told to serve again",
    );
    fails(
        close_lets_nobody_go::scenarios::a_stop_is_told_and_final,
        "not let go",
    );
}

#[test]
fn who_was_not_told_of_the_stop_is_told_at_the_end() {
    passes(real::scenarios::who_was_not_told_of_the_stop_is_told_at_the_end);
    fails(
        the_last_is_decided_late::scenarios::who_was_not_told_of_the_stop_is_told_at_the_end,
        "an older state is told last",
    );
}

#[test]
fn nobody_is_left_behind() {
    passes(real::scenarios::nobody_is_left_behind);
    fails(
        an_end_is_not_remembered::scenarios::nobody_is_left_behind,
        "let go twice",
    );
}
