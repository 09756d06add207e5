//! The hard deadline: the process ends at it whatever is stuck, and says what was running.

mod lifecycle_support;

use std::io::Write;
use std::process;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{never, unbounded};
use lifecycle_support::{bound, is_child, say, End, Part, Process};
use touchdown::lifecycle::{exit_code, Builder, Hook, Lifecycle, Participant, Phase, Plan};

const SHORT: Plan = Plan::new()
    .with_grace_period(Duration::from_millis(20))
    .with_force_period(Duration::from_millis(20))
    .with_closing(Duration::from_millis(60))
    .with_hard_deadline(Duration::from_millis(200));

fn hang() -> ! {
    loop {
        let _ = never::<()>().recv();
    }
}

/// An observer that never comes back from this phase holds up the walk for ever.
fn stuck_in(phase: Phase) -> Builder {
    Lifecycle::builder().plan(SHORT).observe(move |transition| {
        if transition.to == phase {
            hang();
        }
    })
}

fn assert_exits_at_the_deadline(end: &End) {
    assert_eq!(end.code, Some(exit_code::HARD_DEADLINE.into()), "{end:?}");
}

#[test]
fn a_stuck_walk_ends_at_the_deadline_and_names_what_ran() {
    if is_child() {
        let lifecycle = stuck_in(Phase::Draining).build().unwrap();
        let part = Part::new();
        *part.running.lock().unwrap() = vec![
            "/pump.Pump/Run 10.0.0.7".to_owned(),
            "two\nlines".to_owned(),
        ];
        lifecycle.enlist(part).unwrap();
        lifecycle.ready().unwrap();
        let _work = lifecycle.in_flight().enter_owned().unwrap();
        lifecycle.shutdown("test");
        lifecycle.wait();
        process::exit(0);
    }
    let end = Process::start("a_stuck_walk_ends_at_the_deadline_and_names_what_ran").end();
    assert_exits_at_the_deadline(&end);
    for line in [
        "touchdown: hard deadline of 200ms passed while draining; exiting with 4",
        "touchdown:   in flight: 1",
        "touchdown:   part: /pump.Pump/Run 10.0.0.7",
        "touchdown:   part: two lines",
    ] {
        assert!(
            end.stderr.lines().any(|said| said == line),
            "no {line:?} in {end:?}"
        );
    }
}

#[test]
fn a_stuck_hook_is_named() {
    if is_child() {
        let lifecycle = stuck_in(Phase::Stopped)
            .hook(Hook::new("journal", || hang()))
            .build()
            .unwrap();
        lifecycle.shutdown("test");
        lifecycle.wait();
        process::exit(0);
    }
    let end = Process::start("a_stuck_hook_is_named").end();
    assert_exits_at_the_deadline(&end);
    assert!(
        end.stderr.contains("touchdown:   hook: journal\n"),
        "{end:?}"
    );
}

#[test]
fn a_thread_that_holds_rusts_standard_error_does_not_hold_up_the_exit_or_the_words() {
    if is_child() {
        let lifecycle = stuck_in(Phase::LameDuck).build().unwrap();
        let _held = std::io::stderr().lock();
        lifecycle.ready().unwrap();
        lifecycle.shutdown("test");
        lifecycle.wait();
        process::exit(0);
    }
    let test = "a_thread_that_holds_rusts_standard_error_does_not_hold_up_the_exit_or_the_words";
    let end = Process::start(test).end();
    assert_exits_at_the_deadline(&end);
    assert!(end.stderr.contains("while lame duck"), "{end:?}");
}

#[test]
fn a_standard_error_that_nobody_reads_does_not_hold_up_the_exit() {
    if is_child() {
        let lifecycle = stuck_in(Phase::LameDuck).build().unwrap();
        lifecycle.ready().unwrap();
        lifecycle.shutdown("test");
        // More than any pipe holds: this thread stays in here, and the pipe is full.
        let _ = std::io::stderr().write_all(&vec![b'x'; 1 << 24]);
        process::exit(0);
    }
    let end = Process::start("a_standard_error_that_nobody_reads_does_not_hold_up_the_exit");
    assert_exits_at_the_deadline(&end.end_unread());
}

#[test]
fn a_participant_that_does_not_answer_does_not_hold_up_the_exit() {
    struct Mute;
    impl Participant for Mute {
        fn name(&self) -> String {
            "mute".to_owned()
        }
        fn running(&self) -> Vec<String> {
            hang();
        }
    }
    if is_child() {
        let lifecycle = stuck_in(Phase::LameDuck).build().unwrap();
        lifecycle.enlist(Arc::new(Mute)).unwrap();
        lifecycle.ready().unwrap();
        lifecycle.shutdown("test");
        lifecycle.wait();
        process::exit(0);
    }
    let end = Process::start("a_participant_that_does_not_answer_does_not_hold_up_the_exit").end();
    assert_exits_at_the_deadline(&end);
    assert!(
        end.stderr.contains("hard deadline of 200ms passed"),
        "{end:?}"
    );
}

#[test]
fn stacks_come_last_and_do_not_hold_up_the_exit() {
    struct Deep;
    impl Participant for Deep {
        fn name(&self) -> String {
            "deep".to_owned()
        }
        fn running(&self) -> Vec<String> {
            vec!["work".to_owned()]
        }
        fn stacks(&self, deadline: Instant) -> Vec<String> {
            assert!(deadline < Instant::now() + Duration::from_millis(50));
            vec!["thread 7".to_owned(), "  0: sinks\nhere".to_owned()]
        }
    }
    struct Stuck;
    impl Participant for Stuck {
        fn name(&self) -> String {
            "stuck".to_owned()
        }
        fn running(&self) -> Vec<String> {
            vec!["more work".to_owned()]
        }
        fn stacks(&self, _: Instant) -> Vec<String> {
            hang();
        }
    }
    if is_child() {
        let lifecycle = stuck_in(Phase::LameDuck).build().unwrap();
        lifecycle.enlist(Arc::new(Deep)).unwrap();
        lifecycle.enlist(Arc::new(Stuck)).unwrap();
        lifecycle.ready().unwrap();
        lifecycle.shutdown("test");
        lifecycle.wait();
        process::exit(0);
    }
    let said = [
        "touchdown:   deep: work",
        "touchdown:   stuck: more work",
        "touchdown:     thread 7",
        "touchdown:       0: sinks here",
    ];
    // They have 100 ms and no more, which need not do on a machine that is busy.
    for attempt in 1.. {
        let end = Process::start("stacks_come_last_and_do_not_hold_up_the_exit").end();
        assert_exits_at_the_deadline(&end);
        // What holds up the walk is named first, and its own stack comes last.
        assert!(end.stderr.contains("touchdown:   observer "), "{end:?}");
        let lines = end.stderr.lines().skip(3).take(said.len());
        let lines: Vec<&str> = lines
            .take_while(|it| !it.contains("td-lifecycle"))
            .collect();
        assert!(lines.len() >= 2 && said.starts_with(&lines), "{end:?}");
        if lines == said {
            break;
        }
        assert!(attempt < 20, "{end:?}");
    }
}

#[test]
fn a_drop_of_the_last_handle_is_guarded_too() {
    if is_child() {
        drop(stuck_in(Phase::Closing).build().unwrap());
        hang();
    }
    let end = Process::start("a_drop_of_the_last_handle_is_guarded_too").end();
    assert_exits_at_the_deadline(&end);
}

#[test]
fn the_deadline_fires_once() {
    let _bound = bound();
    let (exits, exited) = unbounded();
    let (release, released) = unbounded::<()>();
    let lifecycle = Lifecycle::builder()
        .plan(SHORT)
        .exit_with(move |code| exits.send(code).unwrap())
        .observe(move |transition| {
            if transition.to == Phase::Closing {
                let _ = released.recv();
            }
        })
        .build()
        .unwrap();
    lifecycle.shutdown("test");
    assert_eq!(exited.recv().unwrap(), exit_code::HARD_DEADLINE.into());
    drop(release);
    lifecycle.wait();
    assert!(exited.try_recv().is_err());
}

#[test]
fn a_stop_within_its_time_is_left_alone() {
    if is_child() {
        let plan = Plan::new()
            .with_grace_period(Duration::from_secs(20))
            .with_hard_deadline(Duration::from_secs(40));
        let lifecycle = Lifecycle::builder().plan(plan).build().unwrap();
        lifecycle.ready().unwrap();
        lifecycle.shutdown("test");
        let report = lifecycle.wait();
        say("stopped");
        process::exit(report.exit_code().into());
    }
    let end = Process::start("a_stop_within_its_time_is_left_alone").end();
    assert_eq!(end.code, Some(0), "{end:?}");
    assert_eq!(end.stderr, "");
}
