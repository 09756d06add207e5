//! What the log says, and when: each thing once, at the level that it deserves, and at once.

mod lifecycle_support;

use std::process::{self, Termination};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{bounded, never};
use lifecycle_support::{bound, eventually, role, say, End, Part, Process};
use touchdown::lifecycle::{
    exit_code, Hook, Lifecycle, OwnedGuard, Plan, Report, Restart, Signals, StartupHook, Token,
    Worker,
};

/// Logs to the standard error at the level that the role begins with. Returns the rest of the role.
fn log_as(role: &str) -> &str {
    let (level, rest) = role.split_once(' ').unwrap_or((role, ""));
    env_logger::Builder::new().parse_filters(level).init();
    rest
}

/// How many lines of the log have this level and say this.
fn lines(end: &End, level: &str, text: &str) -> usize {
    let all = end.stderr.lines();
    all.filter(|line| line.contains(level) && line.contains(text))
        .count()
}

#[test]
fn a_start_that_fails_is_said_once_and_as_an_error() {
    const WHY: &str = "no such device: /dev/ttyUSB7";
    let _bound = bound();
    if let Some(role) = role() {
        let how = log_as(&role);
        let builder = Lifecycle::builder();
        let report = match how {
            "hook" => builder
                .startup(StartupHook::new("meter", || Err(WHY.into())))
                .run(|_| Ok(())),
            "set up" => builder.run(|_| Err(WHY.into())),
            "panic" => builder.run(|_| std::panic::resume_unwind(Box::new(WHY))),
            "build" => builder
                .hook(Hook::new(WHY, || Ok(())))
                .hook(Hook::new(WHY, || Ok(())))
                .run(|_| unreachable!("it was not built")),
            _ => Report::failed_start(WHY),
        };
        let code = report.exit_code();
        // What main does with it.
        let _ = report.report();
        process::exit(code.into());
    }
    let test = "a_start_that_fails_is_said_once_and_as_an_error";
    for how in ["hook", "set up", "panic", "build", "early"] {
        for level in ["error", "info"] {
            let end = Process::start_as(&format!("{level} {how}"), test).end();
            assert_eq!(end.code, Some(exit_code::FAILED_START.into()), "{end:?}");
            assert_eq!(lines(&end, "ERROR", WHY), 1, "{how}: {end:?}");
            assert_eq!(end.stderr.matches(WHY).count(), 1, "{how}: {end:?}");
        }
    }
}

#[test]
fn a_start_that_fails_without_a_logger_is_said_on_the_standard_error() {
    let _bound = bound();
    if role().is_some() {
        let report = Lifecycle::builder().run(|_| Err("no such device".into()));
        let _ = report.report();
        process::exit(5);
    }
    let test = "a_start_that_fails_without_a_logger_is_said_on_the_standard_error";
    let end = Process::start(test).end();
    assert_eq!(end.stderr, "Error: no such device\n", "{end:?}");
}

#[test]
fn every_exit_code_but_zero_is_a_warning_at_least() {
    let _bound = bound();
    if let Some(role) = role() {
        let how = log_as(&role);
        let mut builder = Lifecycle::builder().plan(Plan::new().with_grace_period(Duration::ZERO));
        if how == "hook" {
            builder = builder.hook(Hook::new("journal", || Err("disk full".into())));
        }
        let report = builder.run(|lifecycle| {
            if how == "work" {
                static NEVER_DONE: OnceLock<OwnedGuard> = OnceLock::new();
                let _ = NEVER_DONE.set(lifecycle.in_flight().enter_owned()?);
                lifecycle.hurry();
            }
            lifecycle.shutdown("test");
            Ok(())
        });
        process::exit(report.exit_code().into());
    }
    let test = "every_exit_code_but_zero_is_a_warning_at_least";
    let end = |how: &str| Process::start_as(&format!("warn {how}"), test).end();
    let clean = end("clean");
    assert_eq!((clean.code, clean.stderr.as_str()), (Some(0), ""));
    for (how, code) in [
        ("hook", exit_code::CLOSING_FAILED),
        ("work", exit_code::FORCED),
    ] {
        let end = end(how);
        assert_eq!(end.code, Some(code.into()), "{end:?}");
        assert_eq!(lines(&end, "WARN", &format!("(exit {code})")), 1, "{end:?}");
    }
}

#[test]
fn what_a_lifecycle_with_a_name_says_begins_with_its_name() {
    let _bound = bound();
    if let Some(role) = role() {
        log_as(&role);
        let failing = Hook::new("journal", || Err("disk full".into()));
        let lifecycle = Lifecycle::builder().name("side door").hook(failing);
        let report = lifecycle.run(|lifecycle| {
            lifecycle.shutdown("test");
            Ok(())
        });
        process::exit(report.exit_code().into());
    }
    let end = Process::start_as(
        "debug",
        "what_a_lifecycle_with_a_name_says_begins_with_its_name",
    )
    .end();
    let of_crate = || end.stderr.lines().filter(|it| it.contains("touchdown::"));
    assert!(of_crate().count() > 4, "{end:?}");
    assert!(of_crate().all(|it| it.contains("] side door: ")), "{end:?}");
}

#[test]
fn a_stop_that_waits_for_a_start_up_hook_says_so_at_once() {
    let _bound = bound();
    if let Some(role) = role() {
        log_as(&role);
        let slow = StartupHook::new("battery", || {
            say("measures");
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).unwrap();
            Ok(())
        });
        let builder = Lifecycle::builder()
            .signals(Signals::process())
            .startup(slow);
        let report = builder.run(|_| unreachable!("a stop came first"));
        say(&report.to_string());
        process::exit(report.exit_code().into());
    }
    let test = "a_stop_that_waits_for_a_start_up_hook_says_so_at_once";
    let mut command = lifecycle_support::child_as("info", test);
    command.stdin(process::Stdio::piped());
    let mut child = Process::spawn(command);
    child.hear("measures");
    child.signal("INT");
    child.hear_error_with("stopping: SIGINT");
    child.hear_error_with("the stop waits for start-up hooks that run: \"battery\"");
    child.tell("");
    let end = child.end();
    assert_eq!(end.code, Some(exit_code::CLEAN.into()), "{end:?}");
    assert!(end.stdout.contains("start-up: battery done in "), "{end:?}");
}

#[test]
fn a_start_up_hook_that_ends_after_a_second_signal_has_not_overrun() {
    let _bound = bound();
    let (began, has_begun) = bounded(1);
    let (end, may_end) = bounded::<()>(0);
    let ended = Arc::new(AtomicBool::new(false));
    let hook = StartupHook::with_token("battery", {
        let ended = Arc::clone(&ended);
        move |token| {
            began.send(token.clone()).unwrap();
            let _ = may_end.recv();
            ended.store(true, Ordering::SeqCst);
            Ok(())
        }
    });
    let lifecycle = Lifecycle::builder()
        .startup(hook)
        // The last thing in Closing: the hook was left behind before, and ends now.
        .hook(Hook::new("last", {
            let mut end = Some(end);
            move || {
                drop(end.take());
                eventually("it has ended", || ended.load(Ordering::SeqCst));
                // What it says is on its way.
                eventually("its thread is gone", || !thread_exists("td-battery"));
                Ok(())
            }
        }))
        .build()
        .unwrap();
    thread::scope(|scope| {
        scope.spawn(|| lifecycle.ready());
        let token: Token = has_begun.recv().unwrap();
        assert!(!token.is_cancelled());
        lifecycle.shutdown("test");
        token.wait();
        lifecycle.hurry();
    });
    let report = lifecycle.wait();
    assert_eq!(report.startup[0].outcome.as_str(), "done", "{report}");
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
}

fn thread_exists(name: &str) -> bool {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.map(|it| std::fs::read_to_string(it.unwrap().path().join("comm")));
    names.flatten().any(|it| it.trim() == name)
}

/// Whether what [`find_stacks`] adds finds them on this machine.
const HAS_STACKS: bool = cfg!(any(
    not(feature = "server"),
    all(target_arch = "x86_64", target_env = "gnu")
));

/// A server finds stacks.
#[cfg(feature = "server")]
fn find_stacks(lifecycle: &Lifecycle) {
    let server = touchdown::Server::builder().address("127.0.0.1:0");
    server.start_with(lifecycle).unwrap();
}

/// So may any other participant.
#[cfg(not(feature = "server"))]
fn find_stacks(lifecycle: &Lifecycle) {
    struct Knows;
    impl touchdown::lifecycle::Participant for Knows {
        fn name(&self) -> String {
            "knows".to_owned()
        }
        fn running(&self) -> Vec<String> {
            Vec::new()
        }
        fn stack_of(&self, thread: u32, _: std::time::Instant) -> Vec<String> {
            let name = std::fs::read_to_string(format!("/proc/self/task/{thread}/comm"));
            vec![match name.unwrap().trim() {
                "td-lifecycle" => "0: blocks_for_ever".to_owned(),
                "scale" => "0: hears_nothing".to_owned(),
                other => format!("0: {other}"),
            }]
        }
    }
    lifecycle.enlist(Arc::new(Knows)).unwrap();
}

#[test]
fn an_observer_that_blocks_is_named_while_it_blocks_and_a_signal_is_heard_meanwhile() {
    let _bound = bound();
    if let Some(role) = role() {
        log_as(&role);
        fn blocks_for_ever() {
            let _ = never::<()>().recv();
        }
        let lifecycle = Lifecycle::builder()
            .signals(Signals::process())
            .plan(Plan::new().with_hard_deadline(Duration::from_secs(50)))
            .observe(|_| blocks_for_ever())
            .build()
            .unwrap();
        find_stacks(&lifecycle);
        lifecycle.ready().unwrap();
        say("ready");
        lifecycle.wait();
        unreachable!("the observer does not return");
    }
    let test = "an_observer_that_blocks_is_named_while_it_blocks_and_a_signal_is_heard_meanwhile";
    let mut child = Process::start_as("info", test);
    child.hear("ready");
    child.signal("TERM");
    child.hear_error_with("stopping: SIGTERM");
    child.hear_error_with("WARN");
    let named = child.heard_last();
    let observer = format!("observer lifecycle_words::{test}::{{{{closure}}}}, told of starting → serving, has not returned for ");
    assert!(named.contains(&observer), "{named}");
    if HAS_STACKS {
        child.hear_error_with("blocks_for_ever");
    }
    let end = child.insist_until_the_end("TERM");
    let said = "third signal (SIGTERM) while serving; exiting with 143";
    assert_eq!(lines(&end, "ERROR", said), 1, "{end:?}");
    assert_eq!(
        end.stderr.matches(&format!("touchdown: {said}\n")).count(),
        1,
        "{end:?}"
    );
    assert!(
        end.stderr
            .contains("touchdown:   observer lifecycle_words::"),
        "{end:?}"
    );
}

#[test]
fn to_wait_in_what_the_stop_waits_for_is_an_error_at_once() {
    let _bound = bound();
    let lifecycle = Lifecycle::builder();
    let (told, tells) = bounded::<String>(4);
    let waits = |lifecycle: &Lifecycle| {
        let wait = std::panic::AssertUnwindSafe(|| lifecycle.wait());
        let panic = std::panic::catch_unwind(wait).unwrap_err();
        panic.downcast_ref::<String>().unwrap().clone()
    };
    let handle = Arc::new(std::sync::OnceLock::<Lifecycle>::new());
    let tell = |what: &'static str| {
        let (handle, told) = (Arc::clone(&handle), told.clone());
        move || {
            let said = waits(handle.get().unwrap());
            told.send(format!("{what}: {said}")).unwrap();
        }
    };
    let (observer, reload, hook, worker) = (
        tell("an observer"),
        tell("a reload"),
        tell("a hook"),
        tell("a worker"),
    );
    let lifecycle = lifecycle
        .observe(move |transition| {
            if transition.to == touchdown::lifecycle::Phase::Serving {
                observer();
            }
        })
        .on_reload("config", move || {
            reload();
            Ok(())
        })
        .hook(Hook::new("journal", move || {
            hook();
            Ok(())
        }))
        .worker(Worker::new("poll", move |_| worker()))
        .build()
        .unwrap();
    handle.set(lifecycle.clone()).unwrap();
    lifecycle.ready().unwrap();
    lifecycle.reload();
    let mut said: Vec<String> = (0..3).map(|_| tells.recv().unwrap()).collect();
    lifecycle.shutdown("test");
    said.push(tells.recv().unwrap());
    let report = lifecycle.wait();
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    said.sort();
    for (what, said) in ["a hook", "a reload", "a worker", "an observer"]
        .iter()
        .zip(&said)
    {
        let expected =
            format!("{what}: Lifecycle::wait was called in {what} of the same lifecycle");
        assert!(said.starts_with(&expected), "{said}");
    }
}

#[test]
fn a_worker_that_does_not_hear_or_fails_for_ever_is_named_with_what_is_known_of_it() {
    let _bound = bound();
    if let Some(role) = role() {
        log_as(&role);
        fn hears_nothing() {
            let _ = never::<()>().recv();
        }
        let mut failures = 0;
        let fails = Worker::new("scale", move |_| {
            failures += 1;
            if failures <= 2 {
                return Err("no such device");
            }
            hears_nothing();
            Ok(())
        });
        let longest = Duration::from_millis(1);
        let lifecycle = Lifecycle::builder()
            .signals(Signals::process())
            .plan(Plan::new().with_grace_period(Duration::from_secs(3)))
            .worker(fails.restart(Restart::new().longest_delay(longest)))
            .build()
            .unwrap();
        find_stacks(&lifecycle);
        lifecycle.ready().unwrap();
        let line =
            "worker workers/scale: runs; started again 2 times, last failed: no such device\n";
        eventually("it hears nothing", || lifecycle.describe().contains(line));
        say("ready");
        let report = lifecycle.wait();
        process::exit(report.exit_code().into());
    }
    let test = "a_worker_that_does_not_hear_or_fails_for_ever_is_named_with_what_is_known_of_it";
    let mut child = Process::start_as("info", test);
    child.hear("ready");
    child.signal("TERM");
    let end = child.end();
    assert_eq!(end.code, Some(exit_code::FORCED.into()), "{end:?}");
    let told = "worker workers/scale: runs, told to stop; started again 2 times, last failed: no such device";
    for said in ["1 in flight, oldest: ", "told to stop: ", "abandoned: "] {
        assert!(lines(&end, said, told) > 0, "no {said:?} in {end:?}");
    }
    if HAS_STACKS {
        assert!(end.stderr.contains("hears_nothing"), "{end:?}");
    }
}

#[test]
fn a_program_that_was_never_ready_loses_nothing_and_is_told_so() {
    let _bound = bound();
    if let Some(role) = role() {
        log_as(&role);
        let lifecycle = Lifecycle::builder()
            .signals(Signals::process())
            .build()
            .unwrap();
        let part = Part::new();
        lifecycle.enlist(part.clone()).unwrap();
        let work = lifecycle.in_flight().enter_owned().unwrap();
        say("serves");
        let lands = thread::spawn({
            let lifecycle = lifecycle.clone();
            move || {
                lifecycle.draining().wait();
                // Longer than what is cut had until now.
                let cut = lifecycle
                    .cancelling()
                    .wait_timeout(Duration::from_millis(500));
                drop(work);
                cut
            }
        });
        let report = lifecycle.wait();
        assert!(!lands.join().unwrap(), "it was cut: {report}");
        process::exit(report.exit_code().into());
    }
    let test = "a_program_that_was_never_ready_loses_nothing_and_is_told_so";
    let mut child = Process::start_as("warn", test);
    child.hear("serves");
    child.hear_error_with("serves, and is not ready: until Lifecycle::ready is called");
    child.signal("TERM");
    child.hear_error_with("1 in flight, though the program was never ready");
    let end = child.end();
    assert_eq!(end.code, Some(exit_code::CLEAN.into()), "{end:?}");
}

/// Writes what it is told as keys and values alone.
struct Keys;

impl log::Log for Keys {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        struct Line(String);
        impl<'a> log::kv::VisitSource<'a> for Line {
            fn visit_pair(
                &mut self,
                key: log::kv::Key<'a>,
                value: log::kv::Value<'a>,
            ) -> Result<(), log::kv::Error> {
                if !key.as_str().ends_with("_ms") {
                    self.0.push_str(&format!(" {key}={value}"));
                }
                Ok(())
            }
        }
        let mut line = Line(record.level().to_string());
        record.key_values().visit(&mut line).unwrap();
        say(&line.0);
    }
    fn flush(&self) {}
}

#[test]
fn what_machines_look_for_stands_in_the_record_by_its_key() {
    let _bound = bound();
    if role().is_some() {
        log::set_logger(&Keys).unwrap();
        log::set_max_level(log::LevelFilter::Info);
        let failing = Hook::new("journal", || Err("disk full".into()));
        let report = Lifecycle::builder().hook(failing).run(|lifecycle| {
            lifecycle.shutdown("test");
            Ok(())
        });
        process::exit(report.exit_code().into());
    }
    let end = Process::start("what_machines_look_for_stands_in_the_record_by_its_key").end();
    let said: Vec<_> = end.stdout.lines().collect();
    for line in [
        "INFO reason=requested phase=starting",
        "INFO from=starting phase=closing",
        "WARN hook=journal outcome=failed",
        "INFO from=closing phase=stopped",
        "WARN exit_code=6 reason=requested",
    ] {
        assert!(said.contains(&line), "no {line:?} in {end:?}");
    }
}
