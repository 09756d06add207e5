//! Processes started, loaded and stopped at moments of chance: every exit code is the documented one.
#![cfg(feature = "client")]

mod common;
mod lifecycle_support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use common::*;
use lifecycle_support::{role, say as tell, End, Process};
use nix::sys::signal::{SigSet, Signal};
use touchdown::client::{CallOptions, Client};
use touchdown::lifecycle::{exit_code, Hook, Lifecycle, Phase, Plan, Report, Signals};
use touchdown::protobuf::well_known_types::wrappers::StringValue;
use touchdown::{Code, Server, Service, Status};

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

/// What is done to a process, and so what it has to exit with.
#[derive(Clone, Copy, Debug)]
enum Story {
    /// TERM at any moment of its start, the one before it listens to signals included.
    StartUp,
    Idle,
    /// TERM while calls come at full speed.
    Load,
    /// A call that does not end by itself, and a second signal.
    TwoSignals,
    /// A call that does not end at all, and a third signal.
    ThreeSignals,
    /// A call that does not end at all, and nobody in a hurry.
    Patience,
    /// A closing hook that fails.
    Hook,
    /// An address that is taken.
    Taken,
    /// An observer that holds up the walk until the hard deadline.
    Stuck,
}

const STORIES: [Story; 9] = [
    Story::StartUp,
    Story::Idle,
    Story::Load,
    Story::TwoSignals,
    Story::ThreeSignals,
    Story::Patience,
    Story::Hook,
    Story::Taken,
    Story::Stuck,
];

impl Story {
    fn named(name: &str) -> Option<Story> {
        STORIES.into_iter().find(|it| format!("{it:?}") == name)
    }
}

/// `hang` never ends; `wait` ends when it is told to.
fn service() -> Service {
    unary(|call, request| {
        match request.value.as_str() {
            "hang" => {
                tell("begun");
                loop {
                    thread::park();
                }
            }
            "wait" => {
                tell("begun");
                call.token().wait();
            }
            _ => {}
        }
        Ok(request)
    })
}

/// The child's part.
fn play(story: Story, address: &str) -> Report {
    let long = Duration::from_secs(60);
    let plan = match story {
        Story::Patience => quick_plan()
            .with_grace_period(Duration::from_millis(20))
            .with_force_period(Duration::from_millis(20)),
        Story::Stuck => Plan::new()
            .with_grace_period(Duration::ZERO)
            .with_force_period(Duration::ZERO)
            .with_closing(Duration::ZERO)
            .with_hard_deadline(Duration::from_millis(50)),
        _ => quick_plan().with_grace_period(long).with_force_period(long),
    };
    let mut builder = Server::builder()
        .address(address)
        .plan(plan)
        .signals(Signals::process())
        .service(service());
    if let Story::Hook = story {
        builder = builder.hook(Hook::new("journal", || Err("disk full".into())));
    }
    if let Story::StartUp | Story::Taken = story {
        sigterm().thread_unblock().unwrap();
        tell("starting");
        return builder.serve();
    }
    let server = builder.start().expect("it starts");
    observe(server.lifecycle(), story);
    tell(&format!("listening at {}", server.address()));
    server.wait()
}

fn sigterm() -> SigSet {
    SigSet::from(Signal::SIGTERM)
}

fn observe(lifecycle: &Lifecycle, story: Story) {
    lifecycle.observe(move |transition| {
        tell(&format!("now {}", transition.to));
        if let (Story::Stuck, Phase::Draining) = (story, transition.to) {
            loop {
                thread::park();
            }
        }
    });
}

/// Plays the story with one process, `chance` deciding on its moments. Returns how it ended.
fn tell_story(story: Story, chance: u64, test: &str) -> End {
    // Up to 32 ms; spread, and the same in each run.
    let moment = Duration::from_micros(chance.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 49);
    let start = || Process::start_as(&format!("{story:?} 127.0.0.1:0"), test);
    if let Story::StartUp = story {
        // The test's harness has started a thread before, and until a lifecycle has taken signals over none may get
        // one but that which builds it. What is held back here is so in the child.
        sigterm().thread_block().unwrap();
        let mut child = start();
        sigterm().thread_unblock().unwrap();
        child.hear("starting");
        thread::sleep(moment / 4);
        child.signal("TERM");
        return child.end();
    }
    let mut child = start();
    let heard = child.hear("listening at");
    let client = Client::new(&channel_to(heard.rsplit(' ').next().unwrap()));
    match story {
        Story::StartUp | Story::Taken => unreachable!("they are told elsewhere"),
        Story::Idle | Story::Hook | Story::Stuck => {
            thread::sleep(moment);
            child.signal("TERM");
        }
        Story::Load => {
            let callers: Vec<_> = (0..4)
                .map(|_| {
                    let client = client.clone();
                    thread::spawn(move || call_until_the_end(&client))
                })
                .collect();
            thread::sleep(moment);
            child.signal("TERM");
            for caller in callers {
                let end = caller.join().unwrap();
                assert_eq!(end.code(), Code::Unavailable, "{end}");
                assert!(end.message().contains("failed to connect"), "{end}");
            }
        }
        Story::TwoSignals | Story::ThreeSignals | Story::Patience => {
            let what = match story {
                Story::TwoSignals => "wait",
                _ => "hang",
            };
            let call = thread::spawn(move || say(&client, what));
            child.hear("begun");
            thread::sleep(moment);
            child.signal(if chance % 2 == 0 { "TERM" } else { "INT" });
            child.hear("now draining");
            if let Story::TwoSignals | Story::ThreeSignals = story {
                thread::sleep(moment / 2);
                child.insist("INT", "now cancelling");
            }
            if let Story::ThreeSignals = story {
                thread::sleep(moment / 2);
            }
            let end = match story {
                Story::ThreeSignals if chance % 3 == 0 => child.insist_until_the_end("INT"),
                Story::ThreeSignals => child.insist_until_the_end("TERM"),
                _ => child.end(),
            };
            assert!(matches!(story, Story::TwoSignals) == call.join().unwrap().is_ok());
            return end;
        }
    }
    child.end()
}

fn call_until_the_end(client: &Client) -> Status {
    for number in 0.. {
        let sent = number.to_string();
        let options = CallOptions::default().timeout(LONG);
        let reply: Result<StringValue, Status> =
            client.unary("/test.Echo/Say", &text(&*sent), options);
        match reply {
            Ok(reply) => assert_eq!(reply.value, sent),
            Err(status) => return status,
        }
    }
    unreachable!("the server goes away before the numbers end")
}

fn check(story: Story, chance: u64, end: &End) {
    let code = match story {
        // Before the program listens to signals they do what they do to every program, and
        // between the report and the exit they do so again.
        Story::StartUp if end.signal == Some(SIGTERM) => {
            assert!(!end.stdout.contains("stopped"), "{end:?}");
            return;
        }
        Story::StartUp | Story::Idle | Story::Load => exit_code::CLEAN,
        Story::TwoSignals | Story::Patience => exit_code::FORCED,
        Story::ThreeSignals if chance % 3 == 0 => exit_code::third_signal(SIGINT),
        Story::ThreeSignals => exit_code::third_signal(SIGTERM),
        Story::Hook => exit_code::CLOSING_FAILED,
        Story::Taken => exit_code::FAILED_START,
        Story::Stuck => exit_code::HARD_DEADLINE,
    };
    assert_eq!(end.code, Some(code.into()), "{story:?} {chance}: {end:?}");
}

/// Runs so many processes, a few at a time.
fn processes(count: usize, test: &str) {
    if let Some(role) = role() {
        let (story, address) = role.split_once(' ').expect("a story and an address");
        let report = play(Story::named(story).expect("a story"), address);
        tell(&report.to_string());
        // As the return from `main` does: with everything that runs at exit.
        std::process::exit(report.exit_code().into());
    }
    // The one address that no child can have.
    let taken = start(echo());
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    break;
                }
                let (story, chance) = (STORIES[number % STORIES.len()], number as u64);
                let end = match story {
                    Story::Taken => {
                        let role = format!("{story:?} {}", taken.address());
                        Process::start_as(&role, test).end()
                    }
                    _ => tell_story(story, chance, test),
                };
                check(story, chance, &end);
            });
        }
    });
}

#[test]
fn twenty_seven_processes_exit_with_the_right_codes() {
    processes(27, "twenty_seven_processes_exit_with_the_right_codes");
}

#[test]
#[ignore = "takes minutes"]
fn a_thousand_processes_exit_with_the_right_codes() {
    processes(1000, "a_thousand_processes_exit_with_the_right_codes");
}
