//! Worker groups under shuttle.

use touchdown_models::workers::*;
use touchdown_models::{fails, passes};

#[test]
fn who_is_spawned_is_joined_or_refused() {
    passes(real::scenarios::who_is_spawned_is_joined_or_refused);
    fails(
        a_spawn_looks_before_the_stop_and_enters_after_it::scenarios::who_is_spawned_is_joined_or_refused,
        "is not reported",
    );
    passes(real::scenarios::who_is_spawned_until_closing_is_joined_or_refused);
    fails(
        who_joins_takes_a_worker_without_a_thread_for_over::scenarios::who_is_spawned_until_closing_is_joined_or_refused,
        "closed under a worker",
    );
}

#[test]
fn who_ends_does_not_hold_up_the_drain() {
    passes(real::scenarios::who_ends_does_not_hold_up_the_drain);
    fails(
        the_drain_waits_for_workers_that_have_ended::scenarios::who_ends_does_not_hold_up_the_drain,
        "waited for in vain",
    );
}

#[test]
fn a_failure_in_the_stop_is_seen() {
    passes(real::scenarios::a_failure_in_the_stop_is_seen);
    fails(
        who_fails_in_the_stop_is_forgotten::scenarios::a_failure_in_the_stop_is_seen,
        "is not reported",
    );
}

#[test]
fn the_wait_for_a_restart_ends_with_the_stop() {
    passes(real::scenarios::the_wait_for_a_restart_ends_with_the_stop);
    fails(
        the_wait_for_a_restart_hears_nothing::scenarios::the_wait_for_a_restart_ends_with_the_stop,
        "it waited for a restart",
    );
}

#[test]
fn what_is_said_of_workers_is_true() {
    passes(real::scenarios::what_is_said_of_workers_is_true);
}
