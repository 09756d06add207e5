//! Who watches sees every transition, in order, once.

mod lifecycle_support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{never, select, TryRecvError};
use lifecycle_support::{bound, serving};
use touchdown::lifecycle::{Lifecycle, Phase, Plan, Transition};

const CLEAN: [(Phase, Phase); 5] = [
    (Phase::Starting, Phase::Serving),
    (Phase::Serving, Phase::LameDuck),
    (Phase::LameDuck, Phase::Draining),
    (Phase::Draining, Phase::Closing),
    (Phase::Closing, Phase::Stopped),
];

type Seen = Arc<Mutex<Vec<(Phase, Phase)>>>;

fn record(seen: &Seen) -> impl Fn(&Transition) + Send + Sync + 'static {
    let seen = Arc::clone(seen);
    move |transition| seen.lock().unwrap().push((transition.from, transition.to))
}

#[test]
fn callbacks_see_every_transition_in_order_once() {
    let _bound = bound();
    let (first, second) = (Seen::default(), Seen::default());
    let lifecycle = Lifecycle::builder()
        .observe(record(&first))
        .build()
        .unwrap();
    lifecycle.observe(record(&second));
    lifecycle.ready().unwrap();
    lifecycle.ready().unwrap();
    lifecycle.shutdown("test");
    lifecycle.wait();
    assert_eq!(*first.lock().unwrap(), CLEAN);
    assert_eq!(*second.lock().unwrap(), CLEAN);
}

#[test]
fn receivers_see_every_transition_in_order_once_and_then_the_end() {
    let _bound = bound();
    let lifecycle = Lifecycle::builder().build().unwrap();
    let transitions = lifecycle.subscribe();
    lifecycle.ready().unwrap();
    lifecycle.shutdown("test");
    let mut seen = Vec::new();
    let mut times = Vec::new();
    loop {
        select! {
            recv(transitions) -> transition => match transition {
                Ok(transition) => {
                    seen.push((transition.from, transition.to));
                    times.push(transition.at);
                }
                Err(_) => break,
            },
            recv(never::<()>()) -> _ => unreachable!(),
        }
    }
    assert_eq!(seen, CLEAN);
    assert!(times.is_sorted());
}

#[test]
fn a_forced_stop_shows_cancelling() {
    let _bound = bound();
    let plan = Plan::new()
        .with_grace_period(Duration::ZERO)
        .with_force_period(Duration::ZERO);
    let lifecycle = Lifecycle::builder().plan(plan).build().unwrap();
    let transitions = lifecycle.subscribe();
    lifecycle.ready().unwrap();
    let _work = lifecycle.in_flight().enter_owned().unwrap();
    lifecycle.shutdown("test");
    let seen: Vec<_> = transitions.iter().map(|transition| transition.to).collect();
    assert_eq!(
        seen,
        [
            Phase::Serving,
            Phase::LameDuck,
            Phase::Draining,
            Phase::Cancelling,
            Phase::Closing,
            Phase::Stopped
        ]
    );
}

#[test]
fn who_comes_late_sees_the_rest() {
    let _bound = bound();
    let lifecycle = serving();
    let seen = Seen::default();
    lifecycle.observe(record(&seen));
    let transitions = lifecycle.subscribe();
    lifecycle.shutdown("test");
    lifecycle.wait();
    assert_eq!(*seen.lock().unwrap(), CLEAN[1..]);
    assert_eq!(transitions.iter().count(), 4);
}

#[test]
fn who_comes_after_the_end_sees_the_end() {
    let _bound = bound();
    let lifecycle = serving();
    lifecycle.shutdown("test");
    lifecycle.wait();
    assert_eq!(
        lifecycle.subscribe().try_recv(),
        Err(TryRecvError::Disconnected)
    );
    lifecycle.observe(|transition| panic!("{transition} after the end"));
}

#[test]
fn an_observer_that_panics_is_called_again_and_hurts_nobody() {
    let _bound = bound();
    let (before, after) = (Seen::default(), Seen::default());
    let panicking = {
        let record = record(&before);
        move |transition: &Transition| {
            record(transition);
            panic!("an observer that panics");
        }
    };
    let lifecycle = Lifecycle::builder()
        .observe(panicking)
        .observe(record(&after))
        .build()
        .unwrap();
    lifecycle.ready().unwrap();
    lifecycle.shutdown("test");
    lifecycle.wait();
    assert_eq!(*before.lock().unwrap(), CLEAN);
    assert_eq!(*after.lock().unwrap(), CLEAN);
}

#[test]
fn an_observer_may_use_the_lifecycle() {
    let _bound = bound();
    let lifecycle = Lifecycle::builder().build().unwrap();
    let seen = Seen::default();
    lifecycle.observe({
        let (lifecycle, record) = (lifecycle.clone(), record(&seen));
        move |transition| {
            record(transition);
            match transition.to {
                Phase::Serving => lifecycle.shutdown("from an observer"),
                Phase::LameDuck => drop(lifecycle.subscribe()),
                Phase::Draining => lifecycle.hurry(),
                _ => assert!(lifecycle.ready().is_err()),
            }
        }
    });
    lifecycle.ready().unwrap();
    lifecycle.wait();
    assert_eq!(*seen.lock().unwrap(), CLEAN);
}

#[test]
fn tokens_are_cancelled_and_the_gate_closed_by_the_time_that_their_phase_is_told() {
    let _bound = bound();
    let lifecycle = Lifecycle::builder().build().unwrap();
    let tokens: Arc<Mutex<Vec<[bool; 4]>>> = Arc::default();
    lifecycle.observe({
        let (stopping, draining, gate, cancelling, tokens) = (
            lifecycle.stopping().clone(),
            lifecycle.draining().clone(),
            lifecycle.in_flight().clone(),
            lifecycle.cancelling().clone(),
            Arc::clone(&tokens),
        );
        move |transition| {
            if transition.to > Phase::Serving {
                tokens.lock().unwrap().push([
                    stopping.is_cancelled(),
                    draining.is_cancelled(),
                    gate.is_closed(),
                    cancelling.is_cancelled(),
                ]);
            }
        }
    });
    lifecycle.ready().unwrap();
    lifecycle.shutdown("test");
    lifecycle.wait();
    assert_eq!(
        *tokens.lock().unwrap(),
        [
            [true, false, false, false],
            [true, true, true, false],
            [true, true, true, true],
            [true, true, true, true]
        ]
    );
}
