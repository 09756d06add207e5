//! Servers that have everything, stopped at random moments: by signals that come once, twice and thrice,
//! during start-up, during a reload and during the stop, with their standard streams closed or on a full
//! disk. Each ends in time, with the documented exit that agrees with what happened to it.
//!
//! `RANDOM_STOPS_SEED=n` gives the first process the seed n, the next n + 1, and so on;
//! `RANDOM_STOPS=n` sets how many there are.
#![cfg(feature = "client")]

mod common;
mod lifecycle_support;
mod random_support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::*;
use lifecycle_support::{child_as, role, LIMIT};
use random_support::script::{Fault, Load, Moment, Script, Streams};
use random_support::server::{hard_deadline, play, LISTENS, LOG, REPORT, SOCKET};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use touchdown::client::{CallOptions, Client};
use touchdown::lifecycle::exit_code;
use touchdown::protobuf::well_known_types::wrappers::{StringValue, UInt32Value};
use touchdown::Status;

/// What the log says in the line with the report.
const REPORTED: &str = "(exit ";

const OUTPUT: &str = "output";
const ERRORS: &str = "errors";

/// Sends signals without the time that it takes to start a process.
struct Killer {
    shell: Child,
    done: BufReader<ChildStdout>,
}

impl Killer {
    fn new() -> Killer {
        let shell = Command::new("sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut shell = shell.expect("a shell");
        let done = BufReader::new(shell.stdout.take().unwrap());
        Killer { shell, done }
    }

    /// Returns when they have been sent. The process must not have been waited for.
    fn send(&mut self, process: u32, signals: &[i32]) {
        let mut line = String::new();
        for signal in signals {
            let _ = write!(line, "kill -{signal} {process}; ");
        }
        line.push_str("echo\n");
        let stdin = self.shell.stdin.as_mut().unwrap();
        stdin.write_all(line.as_bytes()).unwrap();
        self.done.read_line(&mut String::new()).unwrap();
    }
}

impl Drop for Killer {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// How a process ended, and what it left.
struct End {
    status: ExitStatus,
    /// Since the first signal that stops it was sent.
    took: Duration,
    log: String,
    errors: String,
    report: String,
}

/// One process: started, told what its script says, and waited for.
struct Run<'a> {
    script: &'a Script,
    folder: &'a Path,
    child: Child,
    started: Instant,
}

impl Run<'_> {
    fn start<'a>(script: &'a Script, folder: &'a Path, test: &str) -> Run<'a> {
        fs::create_dir_all(folder).unwrap();
        let program = child_as(&format!("{} {}", script.seed, folder.display()), test);
        // What a pipe holds by default (pipe(7)).
        let clog = match script.streams {
            Streams::Clogged => "head -c 65536 /dev/zero >&2;",
            _ => "",
        };
        // A core dump, if there is one, is left in the folder.
        let shell = format!("ulimit -c unlimited 2>/dev/null; {clog} exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command
            .args(["-c", &shell])
            .arg(program.get_program())
            .args(program.get_args())
            .envs(program.get_envs().filter_map(|(key, it)| Some((key, it?))))
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(File::create(folder.join(OUTPUT)).unwrap())
            .stderr(match script.streams {
                Streams::Full => File::options()
                    .write(true)
                    .open("/dev/full")
                    .unwrap()
                    .into(),
                Streams::Unread | Streams::Clogged => Stdio::piped(),
                _ => Stdio::from(File::create(folder.join(ERRORS)).unwrap()),
            });
        let mut child = command.spawn().unwrap();
        if script.streams == Streams::Unread {
            drop(child.stderr.take());
        }
        Run {
            script,
            folder,
            child,
            started: Instant::now(),
        }
    }

    fn play(mut self, killer: &mut Killer) -> Result<End, String> {
        let callers = match self.script.first {
            Moment::Forked(time) => {
                thread::sleep(time.saturating_sub(self.started.elapsed()));
                Vec::new()
            }
            Moment::Serving(time) => {
                let callers = self.loaded()?;
                thread::sleep(time);
                callers
            }
            Moment::Reloading(time) => {
                let callers = self.loaded()?;
                killer.send(self.child.id(), &[SIGHUP]);
                thread::sleep(time);
                callers
            }
        };
        let mut stopped = None;
        for (distance, signals) in &self.script.volleys {
            thread::sleep(*distance);
            if signals.iter().any(is_stop) {
                stopped.get_or_insert_with(Instant::now);
            }
            killer.send(self.child.id(), signals);
        }
        let stopped = stopped.expect("there is a signal that stops it");
        let status = self.wait(stopped, killer)?;
        let took = stopped.elapsed();
        for caller in callers {
            caller.join().map_err(|_| "a caller panicked".to_owned())?;
        }
        let report = match self.script.streams {
            Streams::Closed | Streams::ClosedLater => REPORT,
            _ => OUTPUT,
        };
        Ok(End {
            status,
            took,
            log: self.read(LOG),
            errors: self.read(ERRORS),
            report: self.read(report),
        })
    }

    /// Waits until it serves, or is not going to, and has it called.
    fn loaded(&mut self) -> Result<Vec<JoinHandle<()>>, String> {
        loop {
            let log = self.read(LOG);
            if log.contains("starting → serving") {
                return Ok(call(self.script.load, &self.folder.join(SOCKET)));
            }
            if log.contains("stopping: ") {
                return Ok(Vec::new());
            }
            if self.started.elapsed() > LIMIT {
                return Err(self.hangs("it does not start"));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn wait(&mut self, stopped: Instant, killer: &mut Killer) -> Result<ExitStatus, String> {
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Ok(status);
            }
            if stopped.elapsed() > hard_deadline(self.script) + LIMIT {
                // It may still say what it is at.
                killer.send(self.child.id(), &[SIGUSR1]);
                thread::sleep(Duration::from_secs(1));
                return Err(self.hangs("it does not end"));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn hangs(&mut self, what: &str) -> String {
        let threads = threads(self.child.id());
        let _ = self.child.kill();
        let _ = self.child.wait();
        let (log, errors) = (self.read(LOG), self.read(ERRORS));
        format!("{what}\n{threads}\nlog:\n{log}\nstandard error:\n{errors}")
    }

    fn read(&self, name: &str) -> String {
        let text = fs::read(self.folder.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }
}

fn is_stop(signal: &i32) -> bool {
    [SIGTERM, SIGINT].contains(signal)
}

/// Where each thread of a process is in the kernel (proc(5)).
fn threads(process: u32) -> String {
    let mut text = String::new();
    for thread in fs::read_dir(format!("/proc/{process}/task"))
        .into_iter()
        .flatten()
    {
        let Ok(thread) = thread else { continue };
        let read = |name| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
        let status = read("status");
        let lines = status.lines();
        let status: Vec<_> = lines
            .filter(|it| {
                ["State", "SigPnd", "SigBlk"]
                    .iter()
                    .any(|name| it.starts_with(name))
            })
            .collect();
        let _ = writeln!(
            text,
            "{}: {:?} {}, system call {}",
            read("comm").trim(),
            status,
            read("wchan"),
            read("syscall").trim()
        );
    }
    text
}

/// Callers that go on until they hear that the server is not there any more.
fn call(load: Load, socket: &Path) -> Vec<JoinHandle<()>> {
    let address = format!("unix:{}", socket.display());
    let mut callers = Vec::new();
    let mut spawn = |count, caller: fn(&Client)| {
        for _ in 0..count {
            let client = Client::new(&channel_to(&address));
            callers.push(thread::spawn(move || caller(&client)));
        }
    };
    spawn(load.short, |client| {
        for method in ["/test.Echo/Say", "/test.Echo/Ask"].iter().cycle() {
            let options = CallOptions::default().timeout(LIMIT);
            let reply: Result<StringValue, Status> = client.unary(method, &text("hello"), options);
            match reply {
                Ok(reply) => assert_eq!(reply.value, "hello"),
                Err(_) => break,
            }
        }
    });
    spawn(load.told, |client| drop(say_with_patience(client, "told")));
    spawn(load.endless, |client| {
        say_with_patience(client, "endless").expect_err("it does not end");
    });
    spawn(load.subscribers, |client| {
        subscribe(client, "/test.Streams/Subscribe")
    });
    spawn(load.endless_subscribers, |client| {
        subscribe(client, "/test.Streams/Follow")
    });
    callers
}

fn say_with_patience(client: &Client, what: &str) -> Result<String, Status> {
    say_with(client, what, CallOptions::default().timeout(LIMIT))
}

fn subscribe(client: &Client, method: &'static str) {
    let options = CallOptions::default().timeout(LIMIT);
    let replies = client.server_streaming::<_, UInt32Value>(method, &number(0), options);
    let end = replies.and_then(|mut replies| replies.next().unwrap_or(Ok(number(0))));
    end.expect_err("nobody feeds it");
}

/// What is wrong with the end of this process, if anything is.
fn fault(script: &Script, end: &End) -> Option<&'static str> {
    let sent: Vec<i32> = script.signals().collect();
    let reported = reported(&end.log);
    if end.status.core_dumped() {
        return Some("it dumped core");
    }
    if end.log.contains("stopping: SIGHUP") {
        return Some("a reload ended it");
    }
    if let Some(signal) = end.status.signal() {
        if !sent.contains(&signal) {
            return Some("nobody sent this signal");
        }
        // Before it listens a signal does what it does to every program. Once all is over, TERM, INT
        // and HUP do so again.
        let is_over = reported.is_some() && signal != SIGUSR1;
        if end.log.contains(LISTENS) && !is_over {
            return Some("the signal ended it while it listened");
        }
        return reported.and_then(|code| disagreement(script, end, code));
    }
    let code = end.status.code().expect("a code or a signal");
    let stops: Vec<i32> = sent.into_iter().filter(is_stop).collect();
    if code > 128 {
        let signal = code - 128;
        // Those that come together are not taken in their order.
        return match script.wishes() >= 3 && stops.contains(&signal) {
            true => lacks_words(script, end, "third signal ("),
            false => Some("this signal did not come as the third"),
        };
    }
    if code == exit_code::HARD_DEADLINE.into() {
        let may_be = script.fault == Fault::WalkHangs || script.streams == Streams::Clogged;
        if !may_be {
            return Some("nothing held it up until its hard deadline");
        }
        return match end.took >= hard_deadline(script) {
            true => lacks_words(script, end, "hard deadline of "),
            false => Some("its deadline had not passed"),
        };
    }
    let is_written = end.report.contains(&format!("\"exit_code\":{code},"));
    if script.streams == Streams::Clogged {
        // Its log says nothing.
        return (!is_written).then_some("its report is not there");
    }
    let Some(reported) = reported else {
        return Some("it did not log its report");
    };
    if code != reported.into() {
        return Some("it reported another code");
    }
    if script.streams != Streams::Full && !is_written {
        return Some("its report is not there");
    }
    disagreement(script, end, reported)
}

/// The exit code of the report in the log.
fn reported(log: &str) -> Option<u8> {
    let (_, rest) = log.split_once(REPORTED)?;
    rest.split(')').next()?.parse().ok()
}

/// The last words are on standard error, unless it did not take them.
fn lacks_words(script: &Script, end: &End, words: &str) -> Option<&'static str> {
    let is_heard = !matches!(
        script.streams,
        Streams::Full | Streams::Unread | Streams::Clogged
    );
    (is_heard && !end.errors.contains(words)).then_some("it did not say why")
}

/// Whether a report with this code does not fit with what the process did.
fn disagreement(script: &Script, end: &End, code: u8) -> Option<&'static str> {
    let has = |words: &str| end.log.contains(words);
    if script.is_held_up() {
        return Some("it ended though it was held up");
    }
    // What the process was made to do, and so has to say.
    let closing_fault = match script.fault {
        Fault::ClosingFails | Fault::ClosingPanics | Fault::ClosingOverruns => true,
        Fault::UndoFails => has("start-up hook \"first\" done"),
        _ => false,
    };
    let start_fault = match script.fault {
        Fault::StartFails | Fault::StartPanics | Fault::StartOverruns => true,
        _ => has("start-up hook \"first\" overran"),
    };
    let (forced, failed) = (has("told to stop: "), has("stopping: start failed"));
    // On a machine that is busy, what is fast may overrun.
    let late = has(": overran") || has(": not run") || has(" overran") || has(" left behind");
    let fits = match code {
        exit_code::FAILED_START => failed && start_fault,
        exit_code::FORCED => forced && !failed,
        exit_code::CLOSING_FAILED => !forced && !failed && (closing_fault || late),
        exit_code::CLEAN => !forced && !failed && !closing_fault,
        _ => return Some("no such code is documented for a report"),
    };
    if !fits {
        return Some("the code is not that of what happened");
    }
    let was_told = has("draining → cancelling");
    (forced != was_told).then_some("the phases are not those of what happened")
}

/// So many processes, a few at a time.
fn stops(name: &str, count: u64, seed: u64, test: &str) {
    if let Some(role) = role() {
        let (seed, folder) = role.split_once(' ').expect("a seed and a folder");
        play(&Script::drawn(seed.parse().unwrap()), Path::new(folder));
    }
    let seed = variable("RANDOM_STOPS_SEED").unwrap_or(seed);
    let count = variable("RANDOM_STOPS").unwrap_or(count);
    println!("RANDOM_STOPS_SEED={seed}");
    let folder = std::env::temp_dir().join(format!("touchdown-{name}-{}", std::process::id()));
    let seeds = Mutex::new(seed..seed + count);
    let ends: Mutex<BTreeMap<String, usize>> = Mutex::default();
    let faults = Mutex::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut killer = Killer::new();
                loop {
                    let Some(seed) = seeds.lock().unwrap().next() else {
                        break;
                    };
                    let own = folder.join(seed.to_string());
                    match stop(seed, &own, test, &mut killer) {
                        Ok(end) => {
                            *ends.lock().unwrap().entry(end).or_default() += 1;
                            fs::remove_dir_all(&own).unwrap();
                        }
                        Err(fault) => {
                            println!("{fault}");
                            *faults.lock().unwrap() += 1;
                        }
                    }
                }
            });
        }
    });
    for (end, count) in ends.into_inner().unwrap() {
        println!("{count:5} × {end}");
    }
    let faults = faults.into_inner().unwrap();
    assert_eq!(
        faults,
        0,
        "of {count} are wrong, see above and {}",
        folder.display()
    );
    fs::remove_dir(&folder).unwrap();
}

/// Runs the process with this seed, and says how it ended, or what is wrong with that.
fn stop(seed: u64, folder: &Path, test: &str, killer: &mut Killer) -> Result<String, String> {
    let script = Script::drawn(seed);
    let context = format!("RANDOM_STOPS_SEED={seed} RANDOM_STOPS=1: {script:?}");
    let run = Run::start(&script, folder, test);
    let end = run
        .play(killer)
        .map_err(|fault| format!("{context}: {fault}"))?;
    match fault(&script, &end) {
        None if end.status.signal().is_some() => Ok(match reported(&end.log) {
            None => format!("{} before it listened", end.status),
            Some(code) => format!("{} after its report, with {code}", end.status),
        }),
        None => Ok(end.status.to_string()),
        Some(fault) => Err(format!(
            "{context}: {fault}: {} after {:?}\nlog:\n{}\nstandard error:\n{}",
            end.status, end.took, end.log, end.errors
        )),
    }
}

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {value}")),
    )
}

#[test]
fn a_dozen_random_stops_end_as_documented() {
    stops("dozen", 12, 1, "a_dozen_random_stops_end_as_documented");
}

#[test]
#[ignore = "takes a minute"]
fn a_thousand_random_stops_end_as_documented() {
    let time = std::time::UNIX_EPOCH.elapsed().unwrap();
    stops(
        "thousand",
        1000,
        time.as_secs(),
        "a_thousand_random_stops_end_as_documented",
    );
}
