//! The workers' hand-over.

use touchdown_models::handover::*;
use touchdown_models::{fails, passes};

#[test]
fn long_calls_are_answered() {
    passes(real::scenarios::long_calls_are_answered);
    fails(
        who_rests_does_not_look_whether_it_was_called::scenarios::long_calls_are_answered,
        "deadlock",
    );
    fails(
        what_waits_is_forgotten::scenarios::long_calls_are_answered,
        "deadlock",
    );
    fails(
        close_wakes_nobody::scenarios::long_calls_are_answered,
        "deadlock",
    );
}

#[test]
fn short_calls_are_answered() {
    passes(real::scenarios::short_calls_are_answered);
}

#[test]
fn calls_are_answered_by_several_pollers() {
    passes(real::scenarios::calls_are_answered_by_several_pollers);
}

#[test]
fn steps_wait_and_take_turns_with_calls() {
    passes(real::scenarios::steps_wait_and_take_turns_with_calls);
    fails(
        steps_are_refused_like_calls::scenarios::steps_wait_and_take_turns_with_calls,
        "deadlock",
    );
    fails(
        steps_wait_until_no_call_does::scenarios::steps_wait_and_take_turns_with_calls,
        "not by turns",
    );
    fails(
        steps_that_wait_alone_are_forgotten::scenarios::steps_wait_and_take_turns_with_calls,
        "deadlock",
    );
}

#[test]
fn somebody_polls_while_all_workers_are_blocked() {
    passes(real::scenarios::somebody_polls_while_all_workers_are_blocked);
    fails(
        one_too_many_runs::scenarios::somebody_polls_while_all_workers_are_blocked,
        "too many handlers run",
    );
    fails(
        nobody_is_sent_to_poll::scenarios::somebody_polls_while_all_workers_are_blocked,
        "deadlock",
    );
}

#[test]
fn a_call_that_is_suddenly_long_is_watched() {
    passes(real::scenarios::a_call_that_is_suddenly_long_is_watched);
    fails(
        the_watch_does_not_know_since_when::scenarios::a_call_that_is_suddenly_long_is_watched,
        "deadlock",
    );
}

#[test]
fn threads_are_let_go_while_calls_arrive() {
    passes(real::scenarios::threads_are_let_go_while_calls_arrive);
    fails(
        who_was_called_is_let_go::scenarios::threads_are_let_go_while_calls_arrive,
        "deadlock",
    );
}

#[test]
fn threads_are_renewed_while_calls_arrive() {
    passes(real::scenarios::threads_are_renewed_while_calls_arrive);
    passes(real::scenarios::threads_are_renewed_of_which_several_poll);
    passes(real::scenarios::threads_are_renewed_of_which_some_cannot_be_started);
    fails(
        who_relieves_is_not_counted::scenarios::threads_are_renewed_while_calls_arrive,
        "overflow",
    );
    fails(
        who_relieves_does_not_see_the_end::scenarios::threads_are_renewed_while_calls_arrive,
        "deadlock",
    );
    fails(
        the_last_one_leaves::scenarios::threads_are_renewed_of_which_several_poll,
        "deadlock",
    );
}

#[test]
fn calls_wait_for_threads_that_cannot_be_started() {
    passes(real::scenarios::calls_wait_for_threads_that_cannot_be_started);
    for wrong in [
        what_comes_later_is_run_first::scenarios::calls_wait_for_threads_that_cannot_be_started,
        nobody_hires::scenarios::calls_wait_for_threads_that_cannot_be_started,
        who_was_not_hired_counts::scenarios::calls_wait_for_threads_that_cannot_be_started,
    ] {
        fails(wrong, "deadlock");
    }
}

#[test]
fn the_watch_waits_for_threads_that_cannot_be_started() {
    passes(real::scenarios::the_watch_waits_for_threads_that_cannot_be_started);
}

#[test]
fn a_call_that_is_suddenly_long_is_watched_though_the_process_stands_still() {
    passes(
        real::scenarios::a_call_that_is_suddenly_long_is_watched_though_the_process_stands_still,
    );
    fails(
        the_watch_takes_a_pause_for_a_mistake::scenarios::a_call_that_is_suddenly_long_is_watched_though_the_process_stands_still,
        // The watch goes on looking.
        "exceeded max_steps",
    );
}
