//! The phases under shuttle.

use touchdown_models::phases::*;
use touchdown_models::{fails, passes};

#[test]
fn the_stop_may_begin_at_any_time() {
    passes(real::scenarios::the_stop_may_begin_at_any_time);
    fails(
        stopped_is_said_before_the_report_is_there::scenarios::the_stop_may_begin_at_any_time,
        "the report is there",
    );
    fails(
        who_was_never_ready_is_not_drained::scenarios::the_stop_may_begin_at_any_time,
        "nobody drained the server",
    );
}

#[test]
fn a_stop_takes_no_longer_than_it_must() {
    passes(real::scenarios::a_stop_takes_no_longer_than_it_must);
}

#[test]
fn a_second_signal_leads_to_cancelling() {
    passes(real::scenarios::a_second_signal_leads_to_cancelling);
    fails(
        hurry_interrupts_before_it_says_why::scenarios::a_second_signal_leads_to_cancelling,
        "the second signal changed nothing",
    );
}

#[test]
fn hurry_is_not_lost() {
    passes(real::scenarios::hurry_is_not_lost);
    fails(
        hurry_interrupts_before_it_says_why::scenarios::hurry_is_not_lost,
        "it was not hurried",
    );
}

#[test]
fn a_third_signal_exits() {
    passes(real::scenarios::a_third_signal_exits);
    fails(
        the_guard_takes_one_signal_for_each_ring::scenarios::a_third_signal_exits,
        "left == right",
    );
}

#[test]
fn the_hard_deadline_is_kept() {
    passes(real::scenarios::the_hard_deadline_is_kept);
    fails(
        the_guard_is_not_told_of_the_stop::scenarios::the_hard_deadline_is_kept,
        "deadlock",
    );
}

#[test]
fn last_words_do_not_hold_up_the_exit() {
    passes(real::scenarios::last_words_do_not_hold_up_the_exit);
    fails(
        last_words_are_waited_for::scenarios::last_words_do_not_hold_up_the_exit,
        "deadlock",
    );
}

#[test]
fn what_hangs_in_closing_is_left_behind() {
    passes(real::scenarios::what_hangs_in_closing_is_left_behind);
}

#[test]
fn a_process_that_stands_still_goes_on_where_it_was() {
    passes(real::scenarios::a_process_that_stands_still_goes_on_where_it_was);
    fails(
        limits_of_the_stop_are_asked_of_the_system_alone::scenarios::a_process_that_stands_still_goes_on_where_it_was,
        "because of a pause",
    );
    fails(
        limits_of_hooks_are_asked_of_the_system_alone::scenarios::a_process_that_stands_still_goes_on_where_it_was,
        "because of a pause",
    );
}

#[test]
fn a_process_that_stands_still_keeps_its_limits() {
    passes(real::scenarios::a_process_that_stands_still_keeps_its_limits);
}

#[test]
fn a_stop_during_start_up_undoes_what_has_started() {
    passes(real::scenarios::a_stop_during_start_up_undoes_what_has_started);
}

#[test]
fn nothing_is_started_during_a_stop() {
    passes(real::scenarios::nothing_is_started_during_a_stop);
    fails(
        a_stop_does_not_keep_hooks_from_starting::scenarios::nothing_is_started_during_a_stop,
        "started during the stop",
    );
}

#[test]
fn a_second_signal_leaves_a_hanging_start_behind() {
    passes(real::scenarios::a_second_signal_leaves_a_hanging_start_behind);
    fails(
        a_hurry_does_not_reach_the_start_up::scenarios::a_second_signal_leaves_a_hanging_start_behind,
        "the second signal changed nothing",
    );
    fails(
        who_comes_too_late_is_not_undone::scenarios::a_second_signal_leaves_a_hanging_start_behind,
        "deadlock",
    );
}

#[test]
fn no_reload_is_lost() {
    passes(real::scenarios::no_reload_is_lost);
    fails(
        what_is_asked_for_during_a_reload_is_forgotten::scenarios::no_reload_is_lost,
        "deadlock",
    );
    fails(
        a_reload_during_start_up_is_forgotten::scenarios::no_reload_is_lost,
        "deadlock",
    );
}

#[test]
fn all_are_told_of_all_transitions() {
    passes(real::scenarios::all_are_told_of_all_transitions);
    fails(
        a_step_is_not_taken_under_the_lock::scenarios::all_are_told_of_all_transitions,
        "a step back",
    );
}

#[test]
fn observers_are_told_at_once() {
    passes(real::scenarios::observers_are_told_at_once);
    fails(
        the_walk_sleeps_with_a_transition_untold::scenarios::observers_are_told_at_once,
        "deadlock",
    );
}

#[test]
fn the_last_handle_begins_the_stop() {
    passes(real::scenarios::the_last_handle_begins_the_stop);
}

#[test]
fn who_is_let_in_is_not_forgotten() {
    passes(real::scenarios::who_is_let_in_is_not_forgotten);
}
