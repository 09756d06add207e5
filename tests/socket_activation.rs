//! systemd's own tool listens, and starts the example with the first connection.
#![cfg(feature = "client")]

mod common;
mod lifecycle_support;

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use common::{channel_to, eventually, LONG};
use lifecycle_support::bound;
use touchdown::client::{CallOptions, Client};
use touchdown::lifecycle::exit_code;

touchdown::include_protos!();

use greeter::{HelloReply, HelloRequest};

const TOOL: &str = "systemd-socket-activate";

/// Built beside this test.
fn greeter_server() -> PathBuf {
    let target = env::current_exe().unwrap();
    let server = target
        .ancestors()
        .nth(2)
        .unwrap()
        .join("examples/greeter_server");
    assert!(
        server.exists(),
        "{} is missing: cargo build --examples",
        server.display()
    );
    server
}

/// An address at which nobody listens. The tool takes no port 0, so it is found and let go again; at an IP
/// address of this process's own, nobody else is given it in the meantime.
fn free_address() -> String {
    let [.., high, low] = std::process::id().to_be_bytes();
    let free = TcpListener::bind((Ipv4Addr::new(127, 77, high, low), 0)).unwrap();
    free.local_addr().unwrap().to_string()
}

/// The tool, which becomes the server.
struct Activated {
    child: Child,
    lines: crossbeam_channel::Receiver<String>,
    /// What was heard.
    heard: Vec<String>,
}

impl Activated {
    /// `None` if the tool is not installed.
    fn start(listen: &[&str], names: &str, address: &str) -> Option<Activated> {
        let mut command = Command::new(TOOL);
        command.args(listen.iter().map(|it| format!("--listen={it}")));
        if !names.is_empty() {
            command.arg(format!("--fdname={names}"));
        }
        // The tool passes on little by itself, and QEMU needs this one to find the target's libraries.
        if env::var_os("QEMU_LD_PREFIX").is_some() {
            command.arg("--setenv=QEMU_LD_PREFIX");
        }
        command.arg("--").arg(greeter_server()).arg(address);
        let mut child = match command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn() {
            Ok(child) => child,
            Err(error) => {
                eprintln!("skipped, since there is no {TOOL}: {error}");
                return None;
            }
        };
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = crossbeam_channel::unbounded();
        thread::spawn(move || {
            stderr
                .lines()
                .map_while(Result::ok)
                .for_each(|it| drop(sender.send(it)))
        });
        let mut activated = Activated {
            child,
            lines,
            heard: Vec::new(),
        };
        listen.iter().for_each(|_| activated.hear("Listening on "));
        Some(activated)
    }

    /// Waits for a line that has this in it.
    fn hear(&mut self, what: &str) {
        while let Ok(line) = self.lines.recv_timeout(LONG) {
            self.heard.push(line);
            if self.heard.last().is_some_and(|it| it.contains(what)) {
                return;
            }
        }
        panic!("no {what:?} in {:#?}", self.heard);
    }

    fn has_begun(&self) -> bool {
        let name = fs::read_to_string(format!("/proc/{}/comm", self.child.id())).unwrap();
        name.trim_end() == "greeter_server"
    }

    fn stop(mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").arg(&id).status().unwrap().success());
        self.hear("stopped cleanly");
        self.end(exit_code::CLEAN);
    }

    /// Waits for the server's end.
    fn end(&mut self, code: u8) {
        let mut ended = None;
        eventually("the server ends", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        assert_eq!(ended.unwrap().code(), Some(i32::from(code)));
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn greet(address: &str) -> String {
    let client = Client::new(&channel_to(address));
    let request = HelloRequest {
        name: "Ada".to_owned(),
        ..Default::default()
    };
    let options = CallOptions::default().timeout(LONG);
    let reply: HelloReply = client
        .unary("/greeter.Greeter/SayHello", &request, options)
        .unwrap();
    reply.text
}

#[test]
fn the_first_connection_starts_the_server_that_serves_it() {
    let _bound = bound();
    let name = format!("touchdown-activation-{}.sock", std::process::id());
    let path = env::temp_dir().join(name);
    let path = path.to_str().unwrap();
    // Both have the name that the server asks for.
    let tcp = free_address();
    let activated = Activated::start(&[&tcp, path], "greeter:greeter", "systemd:greeter");
    let Some(mut activated) = activated else {
        return;
    };
    assert!(!activated.has_begun());
    assert_eq!(greet(&tcp), "Hello, Ada!");
    assert!(activated.has_begun());
    assert_eq!(greet(&format!("unix:{path}")), "Hello, Ada!");
    activated.hear(&format!("listening at {tcp}"));
    activated.hear(&format!("listening at unix:{path}"));
    activated.stop();
    assert!(fs::exists(path).unwrap(), "the path is systemd's");
    fs::remove_file(path).unwrap();
}

#[test]
fn a_socket_is_found_by_its_address_too() {
    let _bound = bound();
    let name = format!("touchdown-by-address-{}.sock", std::process::id());
    let path = env::temp_dir().join(name);
    let path = path.to_str().unwrap();
    let address = format!("unix:{path}");
    let Some(activated) = Activated::start(&[path], "", &address) else {
        return;
    };
    assert_eq!(greet(&address), "Hello, Ada!");
    activated.stop();
    fs::remove_file(path).unwrap();
}

/// As `free_address`, for what listens at every address.
fn free_port() -> String {
    let free = TcpListener::bind("[::]:0").unwrap();
    free.local_addr().unwrap().port().to_string()
}

/// A unit with a port alone (`ListenStream=50056`) is a socket of both families.
#[test]
fn a_unit_with_a_port_alone_serves_a_program_that_asks_for_ipv4() {
    let _bound = bound();
    let port = free_port();
    let every = format!("0.0.0.0:{port}");
    let Some(mut activated) = Activated::start(&[&port], "", &every) else {
        return;
    };
    assert_eq!(greet(&format!("127.0.0.1:{port}")), "Hello, Ada!");
    activated.hear(&format!(
        "{every} is served by the socket that was passed for [::]:{port}"
    ));
    activated.stop();
}

#[test]
fn what_the_unit_has_and_the_program_does_not_ask_for_is_named() {
    let _bound = bound();
    let port = free_port();
    let here = format!("127.0.0.1:{port}");
    let Some(mut activated) = Activated::start(&[&port], "web", &here) else {
        return;
    };
    let _connection = std::net::TcpStream::connect(&here).unwrap();
    activated.hear(&format!(
        "cannot listen at {here}: systemd has passed [::]:{port} to this process, which has the port: listen at \
         systemd:web or at [::]:{port}, or write ListenStream={here} in the socket unit"
    ));
    activated.end(exit_code::FAILED_START);
}

#[test]
fn a_name_that_was_not_passed_is_an_error_that_says_so() {
    let _bound = bound();
    let tcp = free_address();
    let Some(mut activated) = Activated::start(&[&tcp], "web", "systemd:greeter") else {
        return;
    };
    let _connection = std::net::TcpStream::connect(tcp).unwrap();
    activated.hear("cannot listen at systemd:greeter: systemd has passed no socket of this name");
    activated.end(exit_code::FAILED_START);
}
