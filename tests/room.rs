//! The example `room_server`, whose streams need no thread: visitors of this crate's, and one of Python's.
#![cfg(feature = "client")]

touchdown::include_protos!();

mod common;

use std::env;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use common::*;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use room::{Line, RoomClient};
use touchdown::client::Requests;

/// target/debug or its like: this program is in its `deps`.
fn target_folder() -> PathBuf {
    let test = env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().to_owned()
}

/// A program that is talked with by lines.
struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Program {
    fn start(command: &mut Command) -> Program {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = piped
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Program { child, lines }
    }

    fn hear(&mut self) -> String {
        self.lines.next().expect("it goes on").unwrap()
    }

    fn tell(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("it listens");
        writeln!(stdin, "{line}").unwrap();
    }

    fn end_well(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server, and where it is.
fn room() -> (Program, String) {
    let path = target_folder().join("examples/room_server");
    let missing = "cargo build --example room_server";
    assert!(path.exists(), "{} is missing: {missing}", path.display());
    let mut server = Program::start(Command::new(path).arg("127.0.0.1:0"));
    let address = server.hear().replace("listening at ", "");
    (server, address)
}

fn stop(server: Program) {
    let process = Pid::from_raw(server.child.id().try_into().unwrap());
    kill(process, Signal::SIGTERM).unwrap();
    server.end_well();
}

fn line(speaker: &str, text: &str) -> Line {
    Line {
        speaker: speaker.to_owned(),
        text: text.to_owned(),
        ..Default::default()
    }
}

/// A visitor of this crate's, who has been welcomed.
struct Visitor {
    says: Requests<Line>,
    hears: touchdown::client::Replies<Line>,
}

impl Visitor {
    fn enter(client: &RoomClient) -> Visitor {
        let (says, hears) = client.talk().unwrap();
        let mut visitor = Visitor { says, hears };
        assert_eq!(visitor.hear(), Some(line("room", "welcome")));
        visitor
    }

    fn hear(&mut self) -> Option<Line> {
        self.hears.next().transpose().unwrap()
    }
}

#[test]
fn everybody_hears_everybody_and_that_the_room_closes() {
    let (server, address) = room();
    let client = RoomClient::new(&channel_to(&address));
    let mut visitors: Vec<_> = (0..50).map(|_| Visitor::enter(&client)).collect();
    for (number, text) in [(0, "hello"), (49, "good evening")] {
        let said = line(&format!("visitor {number}"), text);
        visitors[number].says.send(said.clone()).unwrap();
        for visitor in &mut visitors {
            assert_eq!(visitor.hear().as_ref(), Some(&said));
        }
    }
    // One who has said everything leaves.
    let Visitor { says, mut hears } = visitors.pop().unwrap();
    drop(says);
    assert_eq!(hears.next(), None);

    let mut dictation = client.dictate().unwrap();
    (0..30).for_each(|_| dictation.send(line("somebody", "word")).unwrap());
    assert_eq!(dictation.finish().unwrap().lines, 30);

    stop(server);
    for mut visitor in visitors {
        assert_eq!(visitor.hear(), Some(line("room", "we are closing")));
        assert_eq!(visitor.hear(), None);
    }
}

#[test]
#[ignore = "needs Python with grpcio: tests/foreign/setup.sh"]
fn a_visitor_of_python_is_one_like_the_others() {
    let (server, address) = room();
    let installed = target_folder().parent().unwrap().join("foreign");
    let python = env::var_os("TOUCHDOWN_PYTHON")
        .map_or_else(|| installed.join("venv/bin/python"), PathBuf::from);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/foreign/room.py");
    let mut ada = Program::start(Command::new(python).args(["-B", script, &address, "Ada"]));
    assert_eq!(ada.hear(), "heard room welcome");
    let client = RoomClient::new(&channel_to(&address));
    let mut other = Visitor::enter(&client);
    ada.tell("hello");
    assert_eq!(ada.hear(), "heard Ada hello");
    assert_eq!(other.hear(), Some(line("Ada", "hello")));
    other.says.send(line("Grace", "hello, Ada")).unwrap();
    assert_eq!(other.hear(), Some(line("Grace", "hello, Ada")));
    assert_eq!(ada.hear(), "heard Grace hello, Ada");
    ada.tell("/dictate 100");
    assert_eq!(ada.hear(), "minutes 100");
    stop(server);
    assert_eq!(ada.hear(), "heard room we are closing");
    assert_eq!(ada.hear(), "end OK");
    ada.end_well();
}
