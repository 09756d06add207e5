//! The program under load: it starts, is replaced by SIGUSR2, drains on SIGTERM, and no call is lost.
//!
//! `cargo test` runs this for the machine that builds, and `make arm` for a board, under QEMU. BOARD names another
//! program to test: cargo builds its own with the features of this test, so with touchdown's `client`.

touchdown::include_protos!();

use std::env;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{channel, Receiver};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use board::{BoardClient, GetStateRequest};
use touchdown::client::{CallOptions, Channel};
use touchdown::Status;

/// What takes longer hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// The first process, and what it and those after it write.
struct Program {
    first: Child,
    lines: Receiver<String>,
}

impl Program {
    fn start() -> Program {
        let program = env::var_os("BOARD").unwrap_or_else(|| env!("CARGO_BIN_EXE_board").into());
        let mut first = Command::new(program)
            .arg("127.0.0.1:0")
            .process_group(0)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stderr = BufReader::new(first.stderr.take().expect("it is piped"));
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                eprintln!("{line}");
                let _ = sender.send(line);
            }
        });
        Program { first, lines }
    }

    /// Waits for a line with this in it.
    fn hear(&self, what: &str) -> String {
        let line = self.lines.iter().find(|it| it.contains(what));
        line.unwrap_or_else(|| panic!("no process said {what:?}"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // And those that have replaced it. If all have ended there is no such group.
        let group = format!("-{}", self.first.id());
        let _ = Command::new("kill")
            .args(["-KILL", "--", &group])
            .stderr(Stdio::null())
            .status();
        let _ = self.first.wait();
    }
}

fn send(signal: &str, process: u32) {
    let status = Command::new("kill")
        .args([signal, &process.to_string()])
        .status();
    assert!(status.expect("kill is there").success());
}

/// Clients that call without a pause.
#[derive(Clone)]
struct Load {
    clients: Vec<Arc<BoardClient>>,
    enough: Arc<AtomicBool>,
    landed: Arc<AtomicUsize>,
}

impl Load {
    fn new(address: &str) -> Load {
        let clients = (0..2).map(|_| {
            // Without a retry policy. What C-core's client repeats by itself, it has not sent yet; without
            // that a call fails that meets the old server's farewell (GOAWAY) inside the client.
            let channel = Channel::builder().own_connection().connect(address);
            let channel = channel.expect("the tests know the address");
            Arc::new(BoardClient::new(&channel))
        });
        Load {
            clients: clients.collect(),
            enough: Arc::default(),
            landed: Arc::default(),
        }
    }

    /// A call of each of 8 callers after the other, until there have been enough.
    fn run(&self, think_ms: u32) -> Vec<JoinHandle<Result<(), Status>>> {
        let callers = (0..8).map(|number| {
            let load = self.clone();
            let client = Arc::clone(&self.clients[number % self.clients.len()]);
            thread::spawn(move || loop {
                ask(&client, think_ms)?;
                load.landed.fetch_add(1, Ordering::SeqCst);
                if load.enough.load(Ordering::SeqCst) {
                    return Ok(());
                }
            })
        });
        callers.collect()
    }

    /// Waits until this many more calls have landed.
    fn wait_for(&self, count: usize) {
        let until = self.landed.load(Ordering::SeqCst) + count;
        eventually("calls land", || self.landed.load(Ordering::SeqCst) >= until);
    }
}

/// The process that answers.
fn ask(client: &BoardClient, think_ms: u32) -> Result<u32, Status> {
    let request = GetStateRequest {
        think_ms,
        ..Default::default()
    };
    let state = client.get_state_with(&request, CallOptions::new().timeout(LIMIT))?;
    assert!(state.uptime_seconds > 0.0);
    Ok(state.process)
}

fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < LIMIT, "never happened: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn no_call_is_lost_in_a_hot_restart_and_a_stop_under_load() {
    let mut program = Program::start();
    let line = program.hear("listening at ");
    let (_, address) = line.split_once("listening at ").expect("it is in the line");
    let load = Load::new(address);
    let callers = load.run(5);
    load.wait_for(100);
    let old = program.first.id();

    send("-USR2", old);
    let mut new = old;
    eventually("another process answers", || {
        new = ask(&load.clients[0], 0).expect("no call is lost");
        new != old
    });
    let status = program.first.wait().expect("it is our child");
    assert!(status.success(), "{status}");
    load.wait_for(100);
    load.enough.store(true, Ordering::SeqCst);
    for caller in callers {
        caller
            .join()
            .expect("it does not panic")
            .expect("no call is lost");
    }

    // One call of each caller, and the stop comes while all of them run.
    let callers = load.run(10_000);
    eventually("all calls are there", || {
        send("-USR1", new);
        program.hear("in flight: ").contains("in flight: 8")
    });
    send("-TERM", new);
    for caller in callers {
        caller
            .join()
            .expect("it does not panic")
            .expect("no call is lost");
    }
    program.hear("stopped cleanly");
    // The last process has ended when nobody is left who could write.
    assert_eq!(program.lines.iter().count(), 0, "that was its last line");
}
