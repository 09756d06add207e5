//! What a small machine has little of: stacks and address space.
#![cfg(feature = "client")]

mod common;
mod lifecycle_support;

use std::fs;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use common::*;
use lifecycle_support::{bound, is_child, say as tell, Process};
use touchdown::client::CallOptions;
use touchdown::{Code, Server};

/// The least that is allowed.
const SMALL_STACK: usize = 128 << 10;

/// Leaves the process this much more address space than it has already.
fn limit_address_space(more: u64) {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    // SAFETY: a system call without memory, and one that reads a struct of integers.
    unsafe {
        let page = libc::sysconf(libc::_SC_PAGESIZE) as u64;
        let limit = libc::rlimit {
            rlim_cur: (pages * page + more) as libc::rlim_t,
            rlim_max: libc::RLIM_INFINITY,
        };
        assert_eq!(libc::setrlimit(libc::RLIMIT_AS, &limit), 0);
    }
}

/// As many calls at once as there are workers.
fn call_all_workers(server: &Server, workers: usize) {
    let client = client(server);
    thread::scope(|scope| {
        for number in 0..workers {
            let client = &client;
            scope.spawn(move || {
                let sent = number.to_string();
                assert_eq!(say(client, &sent).unwrap(), sent);
            });
        }
    });
}

#[test]
fn handlers_run_on_small_stacks_and_panic_there() {
    const WORKERS: usize = 8;
    // All at once, so each has a thread.
    let together = Barrier::new(WORKERS);
    let service = unary(move |_, request| match request.value.as_str() {
        "panic" => panic!("as it was told"),
        _ => {
            together.wait();
            Ok(request)
        }
    });
    let server = builder(service)
        .workers(WORKERS)
        .stack_size(SMALL_STACK)
        .start()
        .unwrap();
    call_all_workers(&server, WORKERS);
    let client = client(&server);
    let error = say(&client, "panic").unwrap_err();
    assert_eq!(error.code(), Code::Internal);
    call_all_workers(&server, WORKERS);
    assert_eq!(server.shutdown().exit_code(), 0);
}

/// Of all servers of this process.
fn workers() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name == "td-worker\n").count()
}

#[test]
fn threads_that_a_burst_needed_end_and_others_come_with_the_next() {
    const WORKERS: usize = 8;
    let together = Barrier::new(WORKERS);
    let service = unary(move |_, request| {
        if request.value != "short" {
            together.wait();
        }
        Ok(request)
    });
    let server = builder(service).workers(WORKERS).start().unwrap();
    call_all_workers(&server, WORKERS);
    assert!(workers() >= WORKERS);
    let client = client(&server);
    for _ in 0..(WORKERS + 1) * 256 {
        assert_eq!(say(&client, "short").unwrap(), "short");
    }
    // There has to be a rest of 10 s, and the first look may find the end of the burst.
    let some_rests = Duration::from_secs(20) + LONG;
    eventually_within(some_rests, "those that rest end", || workers() <= 2);
    call_all_workers(&server, WORKERS);
    assert!(workers() >= WORKERS);
    assert_eq!(server.shutdown().exit_code(), 0);
}

#[test]
fn stacks_that_are_too_small_for_the_server_are_refused() {
    let error = builder(echo()).stack_size(SMALL_STACK - 1).start();
    let error = error.unwrap_err().to_string();
    assert_eq!(error, "stack_size is 131071, and must be at least 131072");
}

#[test]
fn a_server_without_room_for_its_threads_says_what_to_do() {
    let _bound = bound();
    if is_child() {
        limit_address_space(6 << 20);
        let error = builder(echo()).start().unwrap_err().to_string();
        return tell(&format!("refused {error}"));
    }
    let mut child = Process::start("a_server_without_room_for_its_threads_says_what_to_do");
    let error = child.hear("refused");
    assert!(
        error.contains("RLIMIT_AS") && error.contains("RLIMIT_STACK"),
        "{error}"
    );
    child.end();
}

#[test]
fn a_server_runs_within_limited_address_space() {
    // The callers are threads of the same process, with stacks of 2 MiB.
    const WORKERS: usize = 4;
    let _bound = bound();
    if is_child() {
        limit_address_space(128 << 20);
        let server = builder(echo())
            .workers(WORKERS)
            .stack_size(SMALL_STACK)
            .start()
            .unwrap();
        let client = client(&server);
        for size in [1, 16 << 10, 3 << 20] {
            let sent = "x".repeat(size);
            let options = CallOptions::default().timeout(LONG);
            assert_eq!(say_with(&client, &sent, options).unwrap(), sent);
        }
        call_all_workers(&server, WORKERS);
        assert_eq!(server.shutdown().exit_code(), 0);
        return tell("served");
    }
    let mut child = Process::start("a_server_runs_within_limited_address_space");
    child.hear("served");
    child.end();
}
