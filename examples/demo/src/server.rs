//! A server as a process of its own.

use std::env;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::options::{Options, StopSignal};
use crate::terminal::Terminal;

/// Killed when dropped, so that none is left behind if the demo fails.
pub struct Server {
    number: usize,
    address: String,
    child: Child,
    /// Returns how many calls the server says that it completed.
    log: Option<JoinHandle<Option<u64>>>,
}

/// How a server ended.
pub struct Exit {
    pub status: ExitStatus,
    /// From the signal to the end of the process.
    pub took: Duration,
    pub completed: Option<u64>,
}

impl Exit {
    pub fn code(&self) -> String {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => code.to_string(),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "unknown".to_owned(),
        }
    }
}

impl Server {
    /// Returns once it listens.
    pub fn start(
        number: usize,
        address: &str,
        options: &Options,
        terminal: &Terminal,
    ) -> Result<Server, Box<dyn Error>> {
        let program = match &options.program {
            Some(program) => program.clone(),
            None => neighbour("greeter_server")?,
        };
        let mut child = Command::new(&program)
            .arg(address)
            .env("RUST_LOG", "touchdown=info,touchdown::core=warn")
            .env("RUST_LOG_STYLE", "never")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for the demo, which stops the server in its own time.
            .process_group(0)
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        let stdout = child.stdout.take().expect("it is piped");
        let stderr = child.stderr.take().expect("it is piped");
        let log = thread::spawn({
            let terminal = terminal.clone();
            move || show(stderr, number, &terminal)
        });
        let mut server = Server {
            number,
            address: String::new(),
            child,
            log: Some(log),
        };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        match line.trim_end().strip_prefix("listening at ") {
            Some(address) => server.address = address.to_owned(),
            None => return Err(format!("{} does not listen", program.display()).into()),
        }
        Ok(server)
    }

    pub fn number(&self) -> usize {
        self.number
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Sends the signal, and waits until the process has exited.
    pub fn stop(mut self, signal: StopSignal) -> Result<Exit, Box<dyn Error>> {
        let pid = libc::pid_t::try_from(self.child.id())?;
        let start = Instant::now();
        // SAFETY: no memory is involved. The process is ours and was not waited for, so the number
        // is still its own.
        if unsafe { libc::kill(pid, signal.number()) } != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        let status = self.child.wait()?;
        let took = start.elapsed();
        let log = self.log.take().expect("taken here only");
        let completed = log.join().map_err(|_| "the log's reader panicked")?;
        Ok(Exit {
            status,
            took,
            completed,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error means that it has exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(log) = self.log.take() {
            let _ = log.join();
        }
    }
}

/// Shows the server's log as it comes.
fn show(log: ChildStderr, number: usize, terminal: &Terminal) -> Option<u64> {
    let mut completed = None;
    for line in BufReader::new(log).lines().map_while(Result::ok) {
        // "[time level module] text"; the time is here already.
        let text = line
            .split_once("] ")
            .map_or(line.as_str(), |(_, text)| text);
        // The report at the end is one long line.
        for part in text.split("; ") {
            terminal.line(&format!("  server {number}: {part}"));
        }
        completed = completed_calls(text).or(completed);
    }
    completed
}

/// Reads it from the report that the server logs at its end.
fn completed_calls(report: &str) -> Option<u64> {
    let (_, counts) = report.split_once("calls: ")?;
    let (completed, _) = counts.split_once(" completed")?;
    completed.parse().ok()
}

/// The path of another example, which cargo puts next to this one.
fn neighbour(name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let path = env::current_exe()?.with_file_name(name);
    match path.exists() {
        true => Ok(path),
        false => Err(format!(
            "{} is missing; `cargo build --examples` makes it, and `make demo` does all of it",
            path.display()
        )
        .into()),
    }
}
