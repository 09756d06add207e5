//! Servers in processes of their own: real signals, and exit codes.
#![cfg(feature = "client")]

mod common;
mod lifecycle_support;

use std::io::BufRead;
use std::net::TcpStream;
use std::process::{ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use lifecycle_support::{bound, eventually, is_child, say as tell, Process};
use signal_hook::consts::SIGURG;
use touchdown::client::{CallOptions, Client};
use touchdown::lifecycle::{exit_code, Lifecycle, Phase, Report, Signals};
use touchdown::protobuf::well_known_types::wrappers::StringValue;
use touchdown::{Code, Server, Service, Status};

/// Runs a server that says where it listens, until it stops; then exits as `main` would.
fn serve(service: Service) -> ! {
    let plan = quick_plan()
        .with_grace_period(unhurried(300))
        .with_force_period(unhurried(100));
    let server = builder(service)
        .plan(plan)
        .signals(Signals::process())
        .start()
        .expect("it starts");
    tell(&format!("listening at {}", server.address()));
    let report: Report = server.wait();
    tell(&report.to_string());
    // As the return from `main` does: with everything that runs at exit.
    let _: ExitCode = report.clone().into();
    std::process::exit(report.exit_code().into())
}

fn connect(child: &mut Process) -> Client {
    let line = child.hear("listening at");
    let address = line.rsplit(' ').next().unwrap();
    Client::new(&channel_to(address))
}

#[test]
fn a_server_that_gets_sigterm_lands_its_calls_and_exits_cleanly() {
    let _bound = bound();
    if is_child() {
        serve(unary(|call, request| {
            tell("begun");
            call.token().wait_timeout(Duration::from_millis(100));
            Ok(request)
        }));
    }
    let mut child = Process::start("a_server_that_gets_sigterm_lands_its_calls_and_exits_cleanly");
    let client = connect(&mut child);
    let call = thread::spawn(move || say(&client, "hello"));
    child.hear("begun");
    child.signal("TERM");
    assert_eq!(call.join().unwrap().unwrap(), "hello");
    let end = child.end();
    assert_eq!(end.code, Some(exit_code::CLEAN.into()), "{end:?}");
    assert!(end.stdout.contains("1 completed"), "{end:?}");
}

#[test]
fn a_server_whose_log_nobody_reads_stops_at_once_and_lands_its_calls() {
    let _bound = bound();
    if is_child() {
        env_logger::Builder::new().parse_filters("debug").init();
        let go_on = std::io::stdin();
        serve(unary(move |_, request| {
            tell("begun");
            let mut line = String::new();
            go_on.lock().read_line(&mut line).unwrap();
            Ok(request)
        }));
    }
    // What a pipe holds by default (pipe(7)).
    let clogged = "head -c 65536 /dev/zero >&2; exec \"$0\" \"$@\"";
    let test = "a_server_whose_log_nobody_reads_stops_at_once_and_lands_its_calls";
    for with_call in [false, true] {
        let mut child = Process::start_in_shell(clogged, Stdio::piped(), "1", test);
        let line = child.hear("listening at");
        let address = line.rsplit(' ').next().unwrap().to_owned();
        let client = Client::new(&channel_to(&address));
        let call = with_call.then(|| thread::spawn(move || say(&client, "hello")));
        if with_call {
            child.hear("begun");
        }
        let began = Instant::now();
        child.signal("TERM");
        eventually("it listens no more", || {
            TcpStream::connect(&address).is_err()
        });
        assert!(began.elapsed() < unhurried(1000));
        if let Some(call) = call {
            child.tell("go on");
            assert_eq!(call.join().unwrap().unwrap(), "hello");
        }
        let end = child.end_unread();
        assert_eq!(end.code, Some(exit_code::CLEAN.into()), "{end:?}");
        assert!(began.elapsed() < unhurried(4000));
    }
}

#[test]
fn a_handler_that_never_returns_does_not_keep_the_process() {
    let _bound = bound();
    if is_child() {
        serve(unary(|_, _| {
            tell("begun");
            loop {
                thread::park();
            }
        }));
    }
    for _ in 0..5 {
        let mut child = Process::start("a_handler_that_never_returns_does_not_keep_the_process");
        let client = connect(&mut child);
        let call = thread::spawn(move || say(&client, "hello"));
        child.hear("begun");
        child.signal("TERM");
        assert_eq!(call.join().unwrap().unwrap_err().code(), Code::Unavailable);
        let end = child.end();
        assert_eq!(end.code, Some(exit_code::FORCED.into()), "{end:?}");
        assert!(end.stdout.contains("1 abandoned"), "{end:?}");
    }
}

#[inline(never)]
fn loops_for_ever() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

/// Has a call begun that never ends, and tells the server to stop.
fn stop_in_the_middle_of_a_call(child: &mut Process) {
    let client = connect(child);
    thread::spawn(move || say(&client, "hello"));
    child.hear("begun");
    child.signal("TERM");
}

/// Whether stacks are to be had on this platform; see src/os/stack.rs.
const STACKS: bool = cfg!(all(
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
));

#[test]
fn a_handler_that_loops_is_named_with_its_stack_at_the_end_of_the_force_period() {
    let _bound = bound();
    if is_child() {
        serve(unary(|_, _| {
            tell("begun");
            loops_for_ever()
        }));
    }
    let test = "a_handler_that_loops_is_named_with_its_stack_at_the_end_of_the_force_period";
    let mut child = Process::start(test);
    stop_in_the_middle_of_a_call(&mut child);
    let end = child.end();
    assert_eq!(end.code, Some(exit_code::FORCED.into()), "{end:?}");
    for words in [
        "/test.Echo/Say from ipv4:127.0.0.1:",
        " ms on td-worker (thread ",
    ] {
        assert!(end.stderr.contains(words), "no {words:?} in {end:?}");
    }
    if STACKS {
        assert!(
            end.stderr.contains(": processes::loops_for_ever ("),
            "{end:?}"
        );
        assert!(end.stderr.contains("addr2line"), "{end:?}");
    } else {
        assert!(end.stderr.contains("no stack: "), "{end:?}");
    }
}

#[test]
fn a_handler_that_loops_is_named_with_its_stack_at_the_hard_deadline() {
    let _bound = bound();
    if is_child() {
        // An observer that never comes back holds up the walk, so that the deadline passes.
        let lifecycle = Lifecycle::builder()
            .signals(Signals::process())
            .plan(
                quick_plan()
                    .with_grace_period(Duration::from_millis(50))
                    .with_force_period(Duration::from_millis(50))
                    .with_closing(Duration::from_millis(50))
                    .with_hard_deadline(Duration::from_millis(200)),
            )
            .observe(|transition| {
                if transition.to == Phase::Draining {
                    loop {
                        thread::park();
                    }
                }
            })
            .build()
            .unwrap();
        let service = unary(|_, _| {
            tell("begun");
            loops_for_ever()
        });
        let server = builder(service).start_with(&lifecycle).expect("it starts");
        lifecycle.ready().unwrap();
        tell(&format!("listening at {}", server.address()));
        server.wait();
        unreachable!("the process exits first");
    }
    // The stack is searched for 30 ms and no longer, which need not do on a machine that is busy.
    for attempt in 1.. {
        let test = "a_handler_that_loops_is_named_with_its_stack_at_the_hard_deadline";
        let mut child = Process::start(test);
        stop_in_the_middle_of_a_call(&mut child);
        let end = child.end();
        assert_eq!(end.code, Some(exit_code::HARD_DEADLINE.into()), "{end:?}");
        assert!(end.stderr.contains(": /test.Echo/Say"), "{end:?}");
        let stack = match STACKS {
            // In that time QEMU does not come to the names.
            true if SLOW => "touchdown:       0: processes",
            true => "touchdown:       0: processes::loops_for_ever (",
            false => "touchdown:       no stack: ",
        };
        if end.stderr.contains(" ms on td-worker (thread ") && end.stderr.contains(stack) {
            break;
        }
        assert!(attempt < 20, "{end:?}");
    }
}

#[test]
fn a_programs_own_handler_of_the_signal_is_left_alone() {
    let _bound = bound();
    if is_child() {
        let heard = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGURG, Arc::clone(&heard)).unwrap();
        serve(unary(move |_, _| {
            tell("begun");
            loop {
                assert!(!heard.load(Ordering::SeqCst));
                thread::yield_now();
            }
        }));
    }
    let mut child = Process::start("a_programs_own_handler_of_the_signal_is_left_alone");
    stop_in_the_middle_of_a_call(&mut child);
    let end = child.end();
    assert_eq!(end.code, Some(exit_code::FORCED.into()), "{end:?}");
    assert!(end.stderr.contains("no stack: "), "{end:?}");
    assert!(!end.stderr.contains("panicked"), "{end:?}");
}

#[test]
fn a_busy_server_gets_sigterm_and_every_answer_is_right() {
    let _bound = bound();
    if is_child() {
        serve(echo());
    }
    for _ in 0..5 {
        let mut child = Process::start("a_busy_server_gets_sigterm_and_every_answer_is_right");
        let client = connect(&mut child);
        let callers: Vec<_> = (0..8)
            .map(|caller| {
                let client = client.clone();
                thread::spawn(move || {
                    for number in 0.. {
                        let sent = format!("{caller} {number}");
                        let options = CallOptions::default().timeout(LONG);
                        let reply: Result<StringValue, Status> =
                            client.unary("/test.Echo/Say", &text(&*sent), options);
                        match reply {
                            Ok(reply) => assert_eq!(reply.value, sent),
                            Err(status) => return (number, status),
                        }
                    }
                    unreachable!("the server goes away before the numbers end")
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(100));
        child.signal("TERM");
        let mut landed = 0;
        for caller in callers {
            let (calls, end) = caller.join().unwrap();
            landed += calls;
            // The one failure of each caller is that it found nobody to connect to.
            assert_eq!(end.code(), Code::Unavailable, "{end}");
            assert!(end.message().contains("failed to connect"), "{end}");
        }
        let end = child.end();
        assert_eq!(end.code, Some(exit_code::CLEAN.into()), "{end:?}");
        assert!(
            end.stdout.contains(&format!("{landed} completed")),
            "{landed}: {end:?}"
        );
    }
}

#[test]
fn a_server_that_cannot_start_exits_with_a_code_that_says_so() {
    let taken = start(echo());
    let address = taken.address().to_string();
    let report = Server::builder().address(&address).service(echo()).serve();
    assert_eq!(report.exit_code(), exit_code::FAILED_START);
    assert!(report.to_string().contains(&address), "{report}");
}
