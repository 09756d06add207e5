//! A server in a folder that replaces itself, and does what it finds there.

// Each test file uses a part of this.
#![allow(dead_code)]

use std::env;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use touchdown::client::Client;
use touchdown::lifecycle::{Lifecycle, Phase, Signals, StartupHook};
use touchdown::protobuf::well_known_types::wrappers::StringValue;
use touchdown::{Server, Service, Status, Upgrade};

use crate::common::*;
use crate::lifecycle_support::{child_as, role};

/// What a process finds in its folder when it starts.
pub const FAULT: &str = "fault";
pub const PROGRAM: &str = "program";
pub const LOG: &str = "log";
pub const PID: &str = "pid";
/// Where the pid file is, if it is not in the folder.
pub const PID_PATH: &str = "pid_path";
pub const SOCKET: &str = "socket";
pub const ADDRESS: &str = "address";
pub const READY_WITHIN: &str = "ready_within";
pub const SETTLE: &str = "settle";
pub const GATE: &str = "gate";
/// There is an upgrade whoever looks after the process.
pub const ANYWHERE: &str = "anywhere";

/// Runs a server in this folder until it is stopped or replaced.
pub fn play(folder: &Path) -> ! {
    let fault = fs::read_to_string(folder.join(FAULT)).unwrap_or_default();
    let fault = fault.as_str();
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.join(LOG))
        .unwrap();
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Info)
        .target(env_logger::Target::Pipe(Box::new(log)))
        .init();
    match fault {
        "exits" => std::process::exit(9),
        "aborts" => std::process::abort(),
        // Says nothing, and does not end when it is told to.
        "is deaf" => {
            let signals = Lifecycle::builder().signals(Signals::process());
            let _lifecycle = signals.build().unwrap();
            loop {
                thread::park();
            }
        }
        _ => {}
    }
    let mut upgrade = Upgrade::new()
        .program(folder.join(PROGRAM))
        .ready_within(time(folder, READY_WITHIN, 20_000))
        .settle(time(folder, SETTLE, 100));
    if folder.join(ANYWHERE).exists() {
        upgrade = upgrade.under_any_supervisor();
    }
    let mut lifecycle = Lifecycle::builder()
        .plan(quick_plan())
        .signals(Signals::process())
        .pid_file(pid_path(folder))
        .upgrade(upgrade);
    if fault == "start fails" {
        let hook = StartupHook::new("sensor", || Err("does not answer".into()));
        lifecycle = lifecycle.startup(hook);
    }
    if fault == "starts slowly" {
        let (gate, starting) = (folder.join(GATE), folder.join("starting"));
        lifecycle = lifecycle.startup(StartupHook::new("gate", move || {
            fs::write(starting, "")?;
            while !gate.exists() {
                thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        }));
    }
    let lifecycle = lifecycle.build().unwrap();
    if fault == "stops" {
        lifecycle.shutdown("changed its mind");
    }
    // What is opened without O_CLOEXEC stays here all the same.
    let unrelated = File::open("/dev/zero").unwrap().into_raw_fd();
    // SAFETY: a system call without memory.
    assert_eq!(unsafe { libc::fcntl(unrelated, libc::F_SETFD, 0) }, 0);
    let server = builder(service(folder))
        .address(format!("unix:{}", folder.join(SOCKET).display()))
        .smoke_test({
            let fault = fault.to_owned();
            move |channel| match fault.as_str() {
                "fails its test" => Err("the sensor does not answer".into()),
                "panics" => panic!("there is no sensor"),
                "is slow" => loop {
                    thread::park();
                },
                _ => {
                    assert_eq!(say(&Client::new(channel), "hello")?, "hello");
                    Ok(())
                }
            }
        })
        .start_with(&lifecycle);
    let server: Server = match server {
        Ok(server) => server,
        Err(error) => {
            lifecycle.fail(error);
            std::process::exit(lifecycle.wait().exit_code().into());
        }
    };
    fs::write(folder.join(ADDRESS), server.address().to_string()).unwrap();
    let (crashes, lingers) = (fault == "crashes", fault == "lingers");
    let (gate, lame_duck) = (folder.join(GATE), folder.join("lame duck"));
    lifecycle.observe(move |transition| match transition.to {
        Phase::Serving if crashes => std::process::exit(11),
        Phase::LameDuck if lingers => {
            fs::write(&lame_duck, "").unwrap();
            while !gate.exists() {
                thread::sleep(Duration::from_millis(1));
            }
        }
        _ => {}
    });
    let _ = lifecycle.ready();
    let report = server.wait();
    std::process::exit(report.exit_code().into())
}

fn pid_path(folder: &Path) -> PathBuf {
    let written = fs::read_to_string(folder.join(PID_PATH));
    written.map_or(folder.join(PID), PathBuf::from)
}

/// A number of milliseconds in the process's folder.
pub fn time(folder: &Path, file: &str, default: u64) -> Duration {
    let written = fs::read_to_string(folder.join(file));
    Duration::from_millis(written.map_or(default, |it| it.parse().unwrap()))
}

/// `/test.Echo/Say` says what it is asked about its process.
pub fn service(folder: &Path) -> Service {
    let folder = folder.to_owned();
    Service::builder("test.Echo")
        .unary("Say", move |call, request: StringValue| {
            let answer = match request.value.as_str() {
                "process" => std::process::id().to_string(),
                "gated" => {
                    let _ = fs::write(folder.join("gated"), "");
                    let gate = folder.join(GATE);
                    while !gate.exists() && !call.token().is_cancelled() {
                        thread::sleep(Duration::from_millis(1));
                    }
                    if gate.exists() { "done" } else { "cut" }.to_owned()
                }
                "slow" => {
                    let _ = fs::write(folder.join("slow"), "");
                    call.token().wait_timeout(Duration::from_secs(1));
                    "done".to_owned()
                }
                "variables" => env::vars()
                    .map(|(name, _)| name)
                    .collect::<Vec<_>>()
                    .join(" "),
                "arguments" => env::args().skip(1).collect::<Vec<_>>().join(" "),
                "folder" => env::current_dir().unwrap().display().to_string(),
                "descriptors" => descriptors(std::process::id()).len().to_string(),
                what => what.to_owned(),
            };
            Ok::<_, Status>(text(answer))
        })
        .build()
}

/// What the descriptors of a process point at.
pub fn descriptors(process: u32) -> Vec<PathBuf> {
    let entries = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let targets = entries.filter_map(|it| fs::read_link(it.ok()?.path()).ok());
    targets.collect()
}

/// A server that replaces itself, and its folder.
pub struct Stage {
    pub folder: PathBuf,
    pub first: Child,
    pid_file: PathBuf,
}

impl Stage {
    pub fn new(test: &str) -> Stage {
        let stage = Stage::with(test, &[]);
        eventually("it serves", || stage.pid().is_some());
        stage
    }

    /// With these files in its folder, and not yet serving.
    pub fn with(test: &str, files: &[(&str, &str)]) -> Stage {
        Stage::started_by(test, files, |command| command)
    }

    /// As `with`, but what starts the program is made of the command that would.
    pub fn started_by(
        test: &str,
        files: &[(&str, &str)],
        starter: impl FnOnce(Command) -> Command,
    ) -> Stage {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("touchdown-upgrade-{}-{number}", std::process::id());
        let folder = env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        symlink(env::current_exe().unwrap(), folder.join(PROGRAM)).unwrap();
        for (name, content) in files {
            fs::write(folder.join(name), content).unwrap();
        }
        let mut command = starter(child_as(&folder.display().to_string(), test));
        command
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.join("errors")).unwrap());
        Stage {
            first: command.spawn().unwrap(),
            pid_file: pid_path(&folder),
            folder,
        }
    }

    /// Looks for the pid file at another path, which may be the same file in another namespace.
    pub fn look_for_pid_at(&mut self, path: PathBuf) {
        self.pid_file = path;
    }

    /// The process in charge.
    pub fn pid(&self) -> Option<u32> {
        let id = fs::read_to_string(&self.pid_file).ok()?;
        id.trim().parse().ok()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join(LOG)).unwrap_or_default()
    }

    pub fn address(&self) -> String {
        fs::read_to_string(self.folder.join(ADDRESS)).unwrap()
    }

    pub fn client(&self) -> Client {
        Client::new(&channel_to(&self.address()))
    }

    pub fn client_at_path(&self) -> Client {
        Client::new(&channel_to(&format!(
            "unix:{}",
            self.folder.join(SOCKET).display()
        )))
    }

    pub fn fault(&self, fault: &str) {
        fs::write(self.folder.join(FAULT), fault).unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        send(self.pid().unwrap(), signal);
    }

    pub fn failures(&self) -> usize {
        self.log().matches("; this process goes on").count()
    }

    /// Waits until another process is in charge, and the one before has ended.
    pub fn upgrade(&self) -> u32 {
        let (old, failures) = (self.pid().unwrap(), self.failures());
        self.signal(Signal::SIGUSR2);
        eventually("another is in charge", || {
            assert_eq!(self.failures(), failures, "it fails");
            self.pid().is_some_and(|it| it != old)
        });
        eventually("the old one ends", || has_ended(old));
        self.pid().unwrap()
    }

    /// Waits until an upgrade has failed, and returns why.
    pub fn fail_to_upgrade(&self) -> String {
        self.fail_to_upgrade_from(self.pid().unwrap())
    }

    /// As `fail_to_upgrade`, for a process that is known by another number here than where it is.
    pub fn fail_to_upgrade_from(&self, process: u32) -> String {
        let before = self.failures();
        send(process, Signal::SIGUSR2);
        eventually("it has failed", || self.failures() > before);
        let log = self.log();
        let last = log
            .lines()
            .rfind(|it| it.ends_with("; this process goes on"));
        let last = last.unwrap().split_once("upgrade: ").unwrap().1;
        last.trim_end_matches("; this process goes on").to_owned()
    }

    /// The process in charge stops, with this exit code by its own report.
    pub fn stop(&self) {
        let last = self.pid().unwrap();
        self.signal(Signal::SIGTERM);
        eventually("it ends", || has_ended(last));
        // One that was replaced may still be closing, and write after it.
        let log = self.log();
        let report = log.lines().rfind(|it| it.contains("): SIGTERM;"));
        assert!(report.is_some_and(|it| it.contains("(exit 0)")), "{log}");
        assert!(self.pid().is_none(), "the pid file is removed");
        assert!(!self.folder.join(SOCKET).exists(), "the socket is removed");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(id) = self.pid() {
            send(id, Signal::SIGKILL);
        }
        let _ = self.first.kill();
        let _ = self.first.wait();
        if thread::panicking() {
            eprintln!("log:\n{}", self.log());
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

pub fn send(process: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(process.try_into().unwrap()), signal);
}

/// Its parent may not have looked yet.
pub fn has_ended(process: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else {
        return true;
    };
    stat.rsplit(')').next().unwrap().trim().starts_with('Z')
}

pub fn children(process: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let lists = tasks.filter_map(|it| fs::read_to_string(it.ok()?.path().join("children")).ok());
    let ids: Vec<_> = lists
        .flat_map(|it| {
            let ids = it.split_whitespace().filter_map(|it| it.parse().ok());
            ids.collect::<Vec<u32>>()
        })
        .collect();
    ids
}

/// Calls without a pause, until it is told to stop.
pub struct Callers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<u64>>,
}

impl Callers {
    pub fn new(clients: impl IntoIterator<Item = Client>) -> Callers {
        let stop = Arc::new(AtomicBool::new(false));
        let call = |client: Client| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(
                        say(&client, "hello"),
                        Ok("hello".to_owned()),
                        "call {count}"
                    );
                    count += 1;
                }
                count
            })
        };
        Callers {
            threads: clients.into_iter().map(call).collect(),
            stop,
        }
    }

    /// How many calls there were, of which none has failed.
    pub fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().map(|it| it.join().unwrap()).sum()
    }
}

pub fn play_if_child() {
    if let Some(folder) = role() {
        play(Path::new(&folder));
    }
}

/// A lease on a file (fcntl(2)): until it is dropped, whoever wants to open the file waits, for 45 s at the most.
pub struct Lease(File);

impl Lease {
    pub fn take(path: &Path) -> std::io::Result<Lease> {
        const F_SETSIG: libc::c_int = 10;
        let file = File::open(path)?;
        // SAFETY: system calls without memory. The holder is told of who waits by a signal that does nothing.
        unsafe {
            let fd = file.as_raw_fd();
            libc::fcntl(fd, F_SETSIG, libc::SIGURG);
            match libc::fcntl(fd, libc::F_SETLEASE, libc::F_WRLCK) {
                0 => Ok(Lease(file)),
                _ => Err(std::io::Error::last_os_error()),
            }
        }
    }
}
