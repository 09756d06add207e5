//! Servers in processes of their own, and where their database is.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::LONG;

/// A server in a process of its own.
pub struct Program {
    child: Child,
    log: mpsc::Receiver<String>,
    /// What it has logged so far, as far as it was read.
    pub seen: Vec<String>,
}

impl Program {
    pub fn start(mut command: Command) -> Program {
        let mut child = command
            .env("RUST_LOG", "touchdown=info,touchdown::core=off")
            .env("RUST_LOG_STYLE", "never")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (sender, log) = mpsc::channel();
        // A pipe that nobody reads would stop the server in its own way.
        thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Program {
            child,
            log,
            seen: Vec::new(),
        }
    }

    /// Reads the log until a line with this text.
    pub fn hear(&mut self, text: &str) -> String {
        loop {
            let line = self.log.recv_timeout(LONG).unwrap_or_else(|error| {
                panic!(
                    "the server did not say {text:?} ({error}): {:#?}",
                    self.seen
                )
            });
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("sh")
            .args(["-c", "kill -s \"$0\" \"$1\"", name, &pid])
            .status();
        assert!(status.unwrap().success());
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    pub fn end(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.seen.extend(self.log.iter());
                return status;
            }
            assert!(begun.elapsed() < LONG, "it does not end: {:#?}", self.seen);
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder for the database, removed at the end of a test that passed.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        let folder = format!("touchdown-ledger-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn database(&self) -> PathBuf {
        self.0.join("ledger.sqlite")
    }

    pub fn log(&self) -> PathBuf {
        self.0.join("ledger.sqlite-wal")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        match thread::panicking() {
            true => eprintln!("the database is left in {}", self.0.display()),
            false => drop(std::fs::remove_dir_all(&self.0)),
        }
    }
}

/// The example, which cargo puts beside the folder of this test.
pub fn example(database: &Path, grace: u64) -> Command {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap();
    let program = folder.join("examples/ledger_server");
    let cure = "run `cargo build -p touchdown-ledger --examples`, or `make ledger`";
    let changed = |path: &Path| path.metadata().and_then(|it| it.modified());
    // Cargo has written down what it was made of.
    let sources = std::fs::read_to_string(program.with_extension("d"))
        .unwrap_or_else(|error| panic!("{}: {error}; {cure}", program.display()));
    let built = changed(&program).unwrap_or_else(|_| panic!("no {}; {cure}", program.display()));
    for source in sources.split_whitespace().skip(1) {
        let is_newer = changed(Path::new(source)).is_ok_and(|it| it > built);
        assert!(!is_newer, "{source} is newer than the example; {cure}");
    }
    let mut command = Command::new(program);
    command
        .args(["127.0.0.1:0".as_ref(), database.as_os_str()])
        .arg(grace.to_string());
    command
}
