//! The places of workers, which streams give back, under shuttle.

use touchdown_models::places::*;
use touchdown_models::{fails, passes};

#[test]
fn what_waits_for_a_place_gets_that_of_a_stream() {
    passes(real::scenarios::what_waits_for_a_place_gets_that_of_a_stream);
    fails(
        a_place_that_is_given_back_is_offered_to_nobody::scenarios::what_waits_for_a_place_gets_that_of_a_stream,
        "deadlock",
    );
}

#[test]
fn who_rests_gets_the_place_of_a_stream() {
    passes(real::scenarios::who_rests_gets_the_place_of_a_stream);
    fails(
        who_is_summoned_polls::scenarios::who_rests_gets_the_place_of_a_stream,
        "deadlock",
    );
}

#[test]
fn who_has_no_place_gives_none() {
    passes(real::scenarios::who_has_no_place_gives_none);
    fails(
        who_ends_aside_takes_what_waits_without_a_place::scenarios::who_has_no_place_gives_none,
        "more have a place",
    );
}

#[test]
fn who_waits_for_what_is_polled_gets_it() {
    passes(real::scenarios::who_waits_for_what_is_polled_gets_it);
    fails(
        who_steps_aside_leaves_nobody_to_poll::scenarios::who_waits_for_what_is_polled_gets_it,
        "deadlock",
    );
}

#[test]
fn who_is_moved_aside_has_not_ended() {
    passes(real::scenarios::who_is_moved_aside_has_not_ended);
    fails(
        who_has_ended_is_moved_aside::scenarios::who_is_moved_aside_has_not_ended,
        "it had a place",
    );
}
