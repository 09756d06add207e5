//! The example `http_daemon`, a program without gRPC: replaced under load, again and again, and started by systemd's own
//! tool.
#![cfg(feature = "upgrade")]

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

/// A test that waits longer than this hangs.
const LONG: Duration = Duration::from_secs(120);

/// Built beside this test.
fn http_daemon() -> PathBuf {
    let test = env::current_exe().unwrap();
    let daemon = test.ancestors().nth(2).unwrap();
    let daemon = daemon.join("examples/http_daemon");
    let missing = "cargo build --example http_daemon";
    assert!(
        daemon.exists(),
        "{} is missing: {missing}",
        daemon.display()
    );
    daemon
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A folder with the daemon's pid file, log and socket.
struct Stage {
    folder: PathBuf,
    first: Child,
}

impl Stage {
    fn new(test: &str, command: impl FnOnce(&Path) -> Command) -> Stage {
        let name = format!("touchdown-http-{}-{test}", std::process::id());
        let folder = env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let mut command = command(&folder);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.join("log")).unwrap());
        let first = command.spawn().unwrap();
        Stage { folder, first }
    }

    /// Serves at this address.
    fn at(test: &str, address: impl FnOnce(&Path) -> String) -> Stage {
        let stage = Stage::new(test, |folder| {
            let mut command = Command::new(http_daemon());
            command.arg("--pid-file").arg(folder.join("pid"));
            command.arg(address(folder));
            command
        });
        eventually("it serves", || stage.pid().is_some());
        stage
    }

    /// The process in charge.
    fn pid(&self) -> Option<u32> {
        let written = fs::read_to_string(self.folder.join("pid")).ok()?;
        written.trim().parse().ok()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap()
    }

    /// Where it listens by TCP.
    fn address(&self) -> String {
        let log = self.log();
        let rest = log.split("listening at ").nth(1);
        rest.and_then(|it| it.lines().next()).unwrap().to_owned()
    }

    fn signal(&self, signal: Signal) {
        let pid = self.pid().unwrap();
        kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
    }

    /// Waits until another process is in charge, and the one before has ended.
    fn upgrade(&self) {
        let old = self.pid().unwrap();
        self.signal(Signal::SIGUSR2);
        eventually("another is in charge", || {
            let log = self.log();
            assert!(!log.contains("this process goes on"), "{log}");
            self.pid().is_some_and(|it| it != old)
        });
        eventually("the old one ends", || has_ended(old));
    }

    fn stop(&self) {
        let last = self.pid().unwrap();
        self.signal(Signal::SIGTERM);
        eventually("it ends", || has_ended(last));
        assert_eq!(self.pid(), None, "the pid file is removed");
        let log = self.log();
        assert!(log.contains("(exit 0): SIGTERM"), "{log}");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("log:\n{}", self.log());
        }
        if let Some(pid) = self.pid() {
            let _ = kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL);
        }
        let _ = self.first.kill();
        let _ = self.first.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Its parent may not have looked yet.
fn has_ended(process: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else {
        return true;
    };
    stat.rsplit(')').next().unwrap().trim().starts_with('Z')
}

/// Asks, and returns the process that has answered; or what was wrong.
fn ask(mut stream: impl Read + Write) -> Result<u32, String> {
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let failed = |what: &str, error| format!("{what}: {error}");
    stream
        .write_all(request)
        .map_err(|it| failed("write", it))?;
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    read.map_err(|it| failed("read", it))?;
    let wrong = || format!("not whole: {answer:?}");
    let (head, text) = answer.split_once("\r\n\r\n").ok_or_else(wrong)?;
    let length = head.split("Content-Length: ").nth(1).ok_or_else(wrong)?;
    if !head.starts_with("HTTP/1.1 200 OK\r\n") || length.parse() != Ok(text.len()) {
        return Err(wrong());
    }
    let process = text.strip_prefix("Hello from process ");
    let process = process.and_then(|it| it.strip_suffix(".\n")?.parse().ok());
    process.ok_or_else(wrong)
}

fn ask_at(address: &str) -> Result<u32, String> {
    let connected = |error| format!("connect: {error}");
    match address.strip_prefix("unix:") {
        Some(path) => ask(UnixStream::connect(path).map_err(connected)?),
        None => ask(TcpStream::connect(address).map_err(connected)?),
    }
}

/// What clients saw.
#[derive(Default)]
struct Seen {
    answers: u64,
    failures: Vec<String>,
    processes: BTreeSet<u32>,
}

/// Clients that ask without a pause, each time by a new connection.
struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Seen>>,
}

impl Clients {
    fn start(count: usize, address: &str) -> Clients {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |_| {
            let (stop, address) = (Arc::clone(&stop), address.to_owned());
            thread::spawn(move || {
                let mut seen = Seen::default();
                while !stop.load(Ordering::Relaxed) {
                    match ask_at(&address) {
                        Ok(process) => drop(seen.processes.insert(process)),
                        Err(why) => seen.failures.push(why),
                    }
                    seen.answers += 1;
                }
                seen
            })
        };
        Clients {
            threads: (0..count).map(client).collect(),
            stop,
        }
    }

    fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for thread in self.threads {
            let seen = thread.join().unwrap();
            all.answers += seen.answers;
            all.failures.extend(seen.failures);
            all.processes.extend(seen.processes);
        }
        all
    }
}

/// Upgrades it so often while clients ask, none of which may see anything of that.
fn upgraded_under_load(stage: &Stage, address: &str, upgrades: usize) {
    let clients = Clients::start(6, address);
    for _ in 0..upgrades {
        stage.upgrade();
    }
    let seen = clients.stop();
    let (answers, failed) = (seen.answers, seen.failures.len());
    println!("{upgrades} upgrades, {answers} requests at {address}, {failed} failed");
    assert_eq!(seen.failures, Vec::<String>::new(), "of {answers} requests");
    assert!(answers > 10 * upgrades as u64, "{answers} requests");
    assert_eq!(
        seen.processes.len(),
        upgrades + 1,
        "each process has served"
    );
}

#[test]
fn twenty_upgrades_under_load_refuse_cut_and_lose_nothing() {
    let stage = Stage::at("tcp", |_| "127.0.0.1:0".to_owned());
    upgraded_under_load(&stage, &stage.address(), 20);
    stage.stop();
}

#[test]
fn a_unix_socket_is_handed_over_as_well_and_removed_by_the_last() {
    let stage = Stage::at("unix", |folder| {
        format!("unix:{}/http.sock", folder.display())
    });
    let path = stage.folder.join("http.sock");
    upgraded_under_load(&stage, &format!("unix:{}", path.display()), 3);
    assert!(path.exists());
    stage.stop();
    assert!(!path.exists());
}

#[test]
fn a_request_that_was_begun_is_answered_by_the_process_that_has_begun_it() {
    let stage = Stage::at("begun", |_| "127.0.0.1:0".to_owned());
    let (address, old) = (stage.address(), stage.pid().unwrap());
    let mut begun = TcpStream::connect(&address).unwrap();
    begun.write_all(b"GET / HT").unwrap();
    // Once the next one is answered, that one was accepted: it came first.
    assert_eq!(ask_at(&address), Ok(old));
    stage.signal(Signal::SIGUSR2);
    eventually("another is in charge", || stage.pid() != Some(old));
    assert_eq!(ask_at(&address), Ok(stage.pid().unwrap()));
    assert!(!has_ended(old), "it waits for the request");
    begun.write_all(b"TP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    begun.read_to_string(&mut answer).unwrap();
    assert!(
        answer.ends_with(&format!("Hello from process {old}.\n")),
        "{answer}"
    );
    eventually("the old one ends", || has_ended(old));
    stage.stop();
}

#[test]
fn a_program_that_cannot_listen_says_why() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut stage = Stage::new("taken", |_| {
        let mut command = Command::new(http_daemon());
        command.arg(&address);
        command
    });
    let status = stage.first.wait().unwrap();
    let expected = touchdown::lifecycle::exit_code::FAILED_START;
    assert_eq!(status.code(), Some(expected.into()));
    let own = std::process::id();
    let why = format!("cannot listen at {address}: the port is in use by process {own} (");
    assert!(stage.log().contains(&why), "{}", stage.log());
}

#[test]
fn the_usage_is_told() {
    let output = Command::new(http_daemon()).arg("--help").output().unwrap();
    assert!(output.status.success());
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.starts_with("Usage: http_daemon"), "{told}");
}

/// An address at which nobody listens. The tool takes no port 0, so it is found and let go again; at an IP
/// address of this process's own, nobody else is given it in the meantime.
fn free_address() -> String {
    let [.., high, low] = std::process::id().to_be_bytes();
    let free = TcpListener::bind((Ipv4Addr::new(127, 78, high, low), 0)).unwrap();
    free.local_addr().unwrap().to_string()
}

/// systemd's own tool listens, and becomes the daemon with the first connection.
#[test]
fn the_first_connection_starts_it_under_systemd_and_it_is_upgraded_there() {
    const TOOL: &str = "systemd-socket-activate";
    if let Err(error) = Command::new(TOOL).arg("--version").output() {
        eprintln!("skipped, since there is no {TOOL}: {error}");
        return;
    }
    let address = free_address();
    let stage = Stage::new("activated", |folder| {
        let mut command = Command::new(TOOL);
        command
            .arg(format!("--listen={address}"))
            .arg("--fdname=web");
        // The tool passes on little by itself, and QEMU needs this one to find the target's libraries.
        if env::var_os("QEMU_LD_PREFIX").is_some() {
            command.arg("--setenv=QEMU_LD_PREFIX");
        }
        command.arg("--").arg(http_daemon());
        command.arg("--pid-file").arg(folder.join("pid"));
        command.arg("systemd:web");
        command
    });
    eventually("the tool listens", || stage.log().contains("Listening on "));
    assert_eq!(stage.pid(), None, "nothing has begun yet");
    assert_eq!(ask_at(&address), Ok(stage.first.id()));
    upgraded_under_load(&stage, &address, 2);
    stage.stop();
}
