//! What a small machine has little of: stacks and address space.
#![cfg(feature = "client")]

mod common;
mod lifecycle_support;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use lifecycle_support::{allow_threads, bound, is_child, say as tell, Process};
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

/// The ids of the threads of this name, of all servers of this process.
fn threads(name: &str) -> BTreeSet<OsString> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let named = tasks.filter_map(|task| {
        let task = task.ok()?;
        let comm = fs::read_to_string(task.path().join("comm")).ok()?;
        (comm.trim_end() == name).then(|| task.file_name())
    });
    named.collect()
}

fn workers() -> usize {
    threads("td-worker").len()
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
    let before = ["td-worker", "td-core"].map(threads);
    // There has to be a rest of 10 s, and the first look may find the end of the burst.
    let some_rests = Duration::from_secs(20) + LONG;
    eventually_within(some_rests, "those that rest end", || workers() <= 2);
    // Others are in the place of those that are needed at all times.
    eventually("all are renewed", || {
        let now = ["td-worker", "td-core"].map(threads);
        let mut both = now.iter().zip(&before);
        both.all(|(now, before)| !now.is_empty() && now.is_disjoint(before))
    });
    call_all_workers(&server, WORKERS);
    assert!(workers() >= WORKERS);
    assert_eq!(server.shutdown().exit_code(), 0);
}

/// How many heaps malloc has. On 32-bit machines glibc decides how many there may be when it makes the third, which is
/// that of a thread of the tests.
#[cfg(all(target_env = "gnu", target_pointer_width = "64"))]
fn arenas() -> usize {
    let (mut text, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: a stream that is closed before its text is read, which ends with a zero and is freed then.
    unsafe {
        let stream = libc::open_memstream(&mut text, &mut size);
        assert!(!stream.is_null() && libc::malloc_info(0, stream) == 0);
        libc::fclose(stream);
        let info = std::ffi::CStr::from_ptr(text).to_string_lossy();
        let arenas = info.matches("<heap nr=").count();
        libc::free(text.cast());
        arenas
    }
}

#[test]
#[cfg(all(target_env = "gnu", target_pointer_width = "64"))]
fn there_are_no_more_arenas_than_processors() {
    const WORKERS: usize = 8;
    if is_child() {
        // Those of the test's own threads.
        let before = arenas();
        let together = Barrier::new(WORKERS);
        let service = unary(move |_, request| {
            together.wait();
            Ok(request)
        });
        let server = builder(service).workers(WORKERS).start().unwrap();
        call_all_workers(&server, WORKERS);
        // SAFETY: a system call without memory.
        let processors = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
        let (now, most) = (arenas(), before.max(processors as usize));
        assert!(now <= most, "{now} arenas instead of {most}");
        assert_eq!(server.shutdown().exit_code(), 0);
        return tell("counted");
    }
    let _bound = bound();
    let mut child = Process::start_in_shell(
        "unset MALLOC_ARENA_MAX GLIBC_TUNABLES; exec \"$0\" \"$@\"",
        Stdio::null(),
        "1",
        "there_are_no_more_arenas_than_processors",
    );
    child.hear("counted");
    child.end();
}

/// What a thread keeps, whose end takes as long as it is held up.
struct SlowToEnd;

static ENDS: AtomicUsize = AtomicUsize::new(0);
static HOLD_UP: Mutex<()> = Mutex::new(());

impl Drop for SlowToEnd {
    fn drop(&mut self) {
        ENDS.fetch_add(1, Ordering::SeqCst);
        // Poisoned if the test has failed.
        let _held_up = HOLD_UP.lock();
    }
}

#[test]
fn a_thread_that_is_slow_to_end_holds_nobody_up() {
    thread_local!(static KEPT: SlowToEnd = const { SlowToEnd });
    const WORKERS: usize = 4;
    let together = Barrier::new(WORKERS);
    let service = unary(move |_, request| {
        KEPT.with(|_| ());
        if request.value != "short" {
            together.wait();
        }
        Ok(request)
    });
    let server = builder(service).workers(WORKERS).start().unwrap();
    let held_up = HOLD_UP.lock().unwrap();
    call_all_workers(&server, WORKERS);
    eventually_within(Duration::from_secs(20) + LONG, "threads end", || {
        ENDS.load(Ordering::SeqCst) > 0
    });
    // Some time after that they are joined; meanwhile connections are accepted.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        assert_eq!(say(&client(&server), "short").unwrap(), "short");
    }
    drop(held_up);
    assert_eq!(server.shutdown().exit_code(), 0);
}

#[test]
fn calls_are_served_when_no_thread_can_be_started() {
    static BEGUN: AtomicUsize = AtomicUsize::new(0);
    let _bound = bound();
    if is_child() {
        let (two_run, both) = (Barrier::new(2), "both");
        let service = unary(move |_, request| {
            if request.value == both {
                BEGUN.fetch_add(1, Ordering::SeqCst);
                two_run.wait();
            }
            Ok(request)
        });
        let server = builder(service).start().unwrap();
        let client = client(&server);
        let say = |sent| say_with(&client, sent, CallOptions::default().timeout(LONG));
        assert_eq!(say("one").unwrap(), "one");
        thread::scope(|scope| {
            let (go, told_to_go) = crossbeam_channel::bounded(0);
            let callers = [(); 2].map(|()| {
                let (told_to_go, say) = (told_to_go.clone(), &say);
                scope.spawn(move || {
                    told_to_go.recv().unwrap();
                    assert_eq!(say(both).unwrap(), both);
                })
            });
            allow_threads(false);
            (0..2).for_each(|_| go.send(()).unwrap());
            // One runs and waits for the other, which waits for a thread, and so does who comes later.
            eventually("a call runs", || BEGUN.load(Ordering::SeqCst) > 0);
            let options = CallOptions::default().timeout(Duration::from_millis(500));
            let late = say_with(&client, "late", options).unwrap_err();
            assert_eq!(late.code(), Code::DeadlineExceeded);
            assert_eq!(BEGUN.load(Ordering::SeqCst), 1);
            allow_threads(true);
            callers.into_iter().for_each(|it| it.join().unwrap());
        });
        assert_eq!(say("last").unwrap(), "last");
        assert_eq!(server.shutdown().exit_code(), 0);
        return tell("served");
    }
    let mut child = Process::start("calls_are_served_when_no_thread_can_be_started");
    child.hear("served");
    child.end();
}

#[test]
fn stacks_that_are_too_small_for_the_server_are_refused() {
    let error = builder(echo()).stack_size(SMALL_STACK - 1).start();
    let error = error.unwrap_err().to_string();
    assert_eq!(error, "stack_size is 131071, and must be at least 131072");
}

#[test]
fn a_server_without_room_for_its_threads_says_what_to_do() {
    // In the child there is no thread but this one: what another one takes would count, or not, by chance.
    if is_child() {
        // Enough for the threads of the lifecycle, and too little for those of C-core.
        limit_address_space(12 << 20);
        let error = builder(echo()).start().unwrap_err().to_string();
        return tell(&format!("refused {error}"));
    }
    let _bound = bound();
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
