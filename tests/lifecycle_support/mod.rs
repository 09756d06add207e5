//! What the lifecycle's tests share: bounds in time, a logbook, and child processes.

// Each test file uses a part of this.
#![allow(dead_code)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, RecvTimeoutError, Sender};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use touchdown::lifecycle::{Calls, Lifecycle, OwnedGuard, Participant, Phase, Report};

/// Miri and the sanitizers take their time.
const SLOW: bool = cfg!(miri) || option_env!("TOUCHDOWN_SLOW_TESTS").is_some();

/// No test takes this long; one that does hangs.
pub const LIMIT: Duration = Duration::from_secs(if SLOW { 1200 } else { 60 });

/// How often a test of chance is repeated: this often, and a thousandth of it under Miri, which is
/// so much slower, looks harder, and is run with many seeds.
pub const fn rounds(count: usize) -> usize {
    if cfg!(miri) {
        count.div_ceil(1000)
    } else {
        count
    }
}

/// Ends the whole test process if a test hangs. Lasts until dropped.
pub struct Bound(#[allow(dead_code)] Sender<()>);

pub fn bound() -> Bound {
    let test = thread::current().name().unwrap_or("test").to_owned();
    let (sender, receiver) = bounded(0);
    thread::spawn(move || {
        if receiver.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
            eprintln!("{test} hangs");
            std::process::exit(99);
        }
    });
    Bound(sender)
}

/// Waits until something that must happen has happened.
pub fn eventually(what: &str, happened: impl Fn() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < LIMIT, "never happened: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A lifecycle in Serving.
pub fn serving() -> Lifecycle {
    let lifecycle = Lifecycle::builder().build().unwrap();
    lifecycle.ready().unwrap();
    lifecycle
}

pub fn phases(report: &Report) -> Vec<Phase> {
    report.phases.iter().map(|phase| phase.phase).collect()
}

/// A participant that writes down what it is told, and does what it is made to do.
#[derive(Default)]
pub struct Part {
    pub log: Mutex<Vec<&'static str>>,
    pub running: Mutex<Vec<String>>,
    pub calls: Mutex<Calls>,
    pub connections_cut: Mutex<u64>,
    pub work: Mutex<Option<OwnedGuard>>,
    pub lifecycle: Mutex<Option<Lifecycle>>,
    pub leaves_when_told: bool,
}

impl Part {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn log(&self) -> Vec<&'static str> {
        self.log.lock().unwrap().clone()
    }
}

impl Participant for Part {
    fn name(&self) -> String {
        "part".to_owned()
    }

    fn drain(&self) {
        self.log.lock().unwrap().push("drain");
        if let Some(lifecycle) = &*self.lifecycle.lock().unwrap() {
            assert!(!lifecycle.in_flight().is_closed());
            assert!(lifecycle.draining().is_cancelled());
        }
    }

    fn cancel(&self) {
        self.log.lock().unwrap().push("cancel");
        if self.leaves_when_told {
            self.work.lock().unwrap().take();
        }
    }

    fn close(&self, deadline: Instant) {
        assert!(deadline > Instant::now());
        self.log.lock().unwrap().push("close");
    }

    fn running(&self) -> Vec<String> {
        self.running.lock().unwrap().clone()
    }

    fn calls(&self) -> Calls {
        *self.calls.lock().unwrap()
    }

    fn connections_cut(&self) -> u64 {
        *self.connections_cut.lock().unwrap()
    }
}

const CASE: &str = "TOUCHDOWN_TEST_CHILD";

/// Whether this process is the child of a test, and is to play its part.
pub fn is_child() -> bool {
    std::env::var_os(CASE).is_some()
}

/// The part that this process is to play, if it is the child of a test that has several.
pub fn role() -> Option<String> {
    std::env::var(CASE).ok()
}

/// Says a line to the parent. The test harness must not buffer it.
pub fn say(line: &str) {
    println!("\n{line}");
}

/// The command that runs a test again, which finds in [`role`] what part it is to play.
pub fn child_as(role: &str, test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--include-ignored"])
        .args(["--nocapture", "--test-threads=1"])
        .env(CASE, role);
    command
}

/// A child process that runs the same test again, as [`is_child`].
pub struct Process {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: Option<BufReader<ChildStderr>>,
    last_error: String,
}

/// How a child ended.
#[derive(Debug)]
pub struct End {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Sends the signal again and again until that is done.
pub fn insisting<T>(process: u32, signal: &str, until: impl FnOnce() -> T) -> T {
    let signal: Signal = format!("SIG{signal}").parse().unwrap();
    let process = Pid::from_raw(process.try_into().unwrap());
    let (done, is_done) = bounded::<()>(0);
    thread::scope(|scope| {
        scope.spawn(move || loop {
            // It may have ended.
            let _ = kill(process, signal);
            if is_done.recv_timeout(Duration::from_millis(100)) != Err(RecvTimeoutError::Timeout) {
                break;
            }
        });
        let _done = done;
        until()
    })
}

/// Whether this process may start threads from now on. For root there is no such limit, so root becomes somebody else.
pub fn allow_threads(allowed: bool) {
    const NOBODY: libc::uid_t = 65534;
    // SAFETY: system calls, whose only memory is a struct of integers that lives as long as they take.
    unsafe {
        if libc::geteuid() == 0 {
            assert_eq!(libc::setuid(NOBODY), 0);
        }
        let mut limit = std::mem::zeroed::<libc::rlimit>();
        assert_eq!(libc::getrlimit(libc::RLIMIT_NPROC, &mut limit), 0);
        limit.rlim_cur = if allowed { limit.rlim_max } else { 0 };
        assert_eq!(libc::setrlimit(libc::RLIMIT_NPROC, &limit), 0);
    }
}

/// What each thread of a process is at: its name, its state, its signals, and where it waits in the kernel.
fn threads_of(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
    let describe = |task: PathBuf| {
        let status = read(task.join("status"));
        let wanted = ["Name:", "State:", "SigPnd:", "ShdPnd:", "SigBlk:"];
        let known = status
            .lines()
            .filter(|line| wanted.iter().any(|it| line.starts_with(it)));
        let known: Vec<_> = known.map(|it| it.replace('\t', " ")).collect();
        let waits = ["wchan", "syscall"].map(|it| read(task.join(it)));
        format!("{}, {}", known.join(", "), waits.join(", ").trim_end())
    };
    tasks.map(|task| describe(task.unwrap().path())).collect()
}

impl Process {
    pub fn start(test: &str) -> Self {
        Self::start_as("1", test)
    }

    /// The child finds what part it is to play in [`role`].
    pub fn start_as(role: &str, test: &str) -> Self {
        Self::start_command(child_as(role, test), Stdio::null())
    }

    /// As `start_as`, by a shell script that prepares the process and then runs `"$0" "$@"` in it.
    pub fn start_in_shell(script: &str, stdin: Stdio, role: &str, test: &str) -> Self {
        let child = child_as(role, test);
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .arg(child.get_program())
            .args(child.get_args())
            .env(CASE, role);
        Self::start_command(command, stdin)
    }

    fn start_command(mut command: Command, stdin: Stdio) -> Self {
        command.stdin(stdin);
        Self::spawn(command)
    }

    pub fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = child.stderr.take().map(BufReader::new);
        Self {
            child,
            stdout,
            stderr,
            last_error: String::new(),
        }
    }

    /// Reads until the child says this line, or one that begins with it and a space.
    pub fn hear(&mut self, line: &str) -> String {
        let mut heard = String::new();
        loop {
            let start = heard.len();
            let count = self.stdout.read_line(&mut heard).unwrap();
            assert!(
                count > 0,
                "the child ended without saying {line:?}: {heard}"
            );
            let said = heard[start..].trim_end();
            if said
                .strip_prefix(line)
                .is_some_and(|it| it.is_empty() || it.starts_with(' '))
            {
                return said.to_owned();
            }
        }
    }

    /// Reads until the child says a line that begins with one of these; `None` if it ends before.
    pub fn hear_one_of(&mut self, beginnings: &[&str]) -> Option<String> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.stdout.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if beginnings.iter().any(|it| line.starts_with(it)) {
                return Some(line.trim_end().to_owned());
            }
        }
    }

    /// Reads until the child writes this line to its standard error.
    pub fn hear_error(&mut self, line: &str) {
        let stderr = self.stderr.as_mut().unwrap();
        let mut heard = String::new();
        while heard.lines().last() != Some(line) {
            let count = stderr.read_line(&mut heard).unwrap();
            assert!(count > 0, "the child ended without {line:?}: {heard}");
        }
    }

    /// Reads until the child writes a line to its standard error that contains this.
    pub fn hear_error_with(&mut self, text: &str) {
        let stderr = self.stderr.as_mut().unwrap();
        let mut heard = String::new();
        while !heard.lines().last().is_some_and(|it| it.contains(text)) {
            let count = stderr.read_line(&mut heard).unwrap();
            assert!(count > 0, "the child ended without {text:?}: {heard}");
        }
        self.last_error = heard.lines().last().unwrap_or_default().to_owned();
    }

    /// What [`hear_error_with`](Self::hear_error_with) has read last.
    pub fn heard_last(&self) -> &str {
        &self.last_error
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to the child's standard input, which is a pipe.
    pub fn tell(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("sh")
            .args(["-c", "kill -s \"$0\" \"$1\"", name, &pid])
            .status();
        assert!(status.unwrap().success());
    }

    /// Sends the signal again and again until the child says this line: one that is to be more than a repetition of the
    /// last one has to come some time after it.
    pub fn insist(&mut self, signal: &str, line: &str) -> String {
        insisting(self.id(), signal, || self.hear(line))
    }

    /// As `insist`, until the child ends.
    pub fn insist_until_the_end(self, signal: &str) -> End {
        insisting(self.id(), signal, || self.end())
    }

    /// Whether the child is still there.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for the end without reading the standard error, as a supervisor that hangs would.
    pub fn end_unread(mut self) -> End {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > LIMIT {
                let threads = threads_of(self.child.id());
                self.child.kill().unwrap();
                let mut stdout = String::new();
                let _ = self.stdout.read_to_string(&mut stdout);
                panic!("the child does not end; its threads: {threads:#?}; it said last: {stdout}");
            }
            thread::sleep(Duration::from_millis(2));
        };
        let (mut stdout, mut stderr) = (String::new(), Vec::new());
        self.stdout.read_to_string(&mut stdout).unwrap();
        self.stderr
            .take()
            .map(|mut pipe| pipe.read_to_end(&mut stderr));
        End {
            code: status.code(),
            signal: status.signal(),
            stdout,
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    pub fn end(mut self) -> End {
        let mut stderr = self.stderr.take().unwrap();
        let reader = thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).map(|_| text).unwrap()
        });
        let mut end = self.end_unread();
        end.stderr = reader.join().unwrap();
        end
    }
}
